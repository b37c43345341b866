//! `/nodes/{node}/config`: settings of the host.

use backstop_types::Privileges;

use crate::http::{ApiError, Reply};
use crate::router::schema::NODE_NAME;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        method: Method::Get,
        path: "/nodes/{node}/config",
        about: "Tells the settings of the host.",
        params: &[NODE_NAME],
        permission: Permission::all("/system", Privileges::SYS_AUDIT),
        handler: Handler::blocking(config),
    }]
}

fn config(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let node = context.server().config().node()?;
    Ok(Reply::data(&node.data.values)?.with_digest(node.digest))
}
