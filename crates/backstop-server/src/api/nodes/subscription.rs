//! `/nodes/{node}/subscription`: this server needs none, and says so in the words that clients understand.

use backstop_types::Privileges;
use serde_json::json;

use crate::http::{ApiError, Reply};
use crate::router::schema::NODE_NAME;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        method: Method::Get,
        path: "/nodes/{node}/subscription",
        about: "Tells the state of the subscription, of which there is none.",
        params: &[NODE_NAME],
        permission: Permission::Anybody,
        handler: Handler::blocking(subscription),
    }]
}

fn subscription(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let granted = context.server().privileges(context.auth_id()?, "/");
    if !granted.contains(Privileges::SYS_AUDIT) {
        return Reply::data(&json!({ "status": "notfound" }));
    }
    Reply::data(&json!({ "status": "notfound", "message": "There is no subscription key" }))
}
