//! `/version`: the level of the API that this server speaks.

use serde_json::json;

use crate::http::Reply;
use crate::router::{Endpoint, Handler, Method, Permission};

/// The version of the API; peers compare it, so it is that of the stock server whose behaviour is met.
pub const VERSION: &str = "4.2";
/// Its release.
pub const RELEASE: &str = "3";

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        method: Method::Get,
        path: "/version",
        about: "The level of the API.",
        params: &[],
        permission: Permission::Anybody,
        handler: Handler::future(|_, _| async {
            Reply::data(&json!({ "version": VERSION, "release": RELEASE, "repoid": "" }))
        }),
    }]
}
