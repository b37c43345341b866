//! `/ping`: says that the server is there.

use serde_json::json;

use crate::http::Reply;
use crate::router::{Endpoint, Handler, Method, Permission};

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        method: Method::Get,
        path: "/ping",
        about: "Answers without looking at anything.",
        params: &[],
        permission: Permission::World,
        handler: Handler::future(|_, _| async { Reply::data(&json!({ "pong": true })) }),
    }]
}
