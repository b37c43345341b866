//! `/nodes/{node}/identity`: a number that stays the same for this installation.

use serde_json::json;

use crate::http::{ApiError, Reply};
use crate::router::schema::NODE_NAME;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        method: Method::Get,
        path: "/nodes/{node}/identity",
        about: "Tells the id of this installation.",
        params: &[NODE_NAME],
        permission: Permission::Anybody,
        handler: Handler::blocking(identity),
    }]
}

fn identity(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    Reply::data(&json!({ "pbs-instance-id": instance_id(context)? }))
}

/// 32 hexadecimal digits, derived from the machine id and the directory of the installation, so that two servers on
/// one machine differ. The machine id itself is not for other machines to know.
fn instance_id(context: &RequestContext) -> Result<String, ApiError> {
    let machine = std::fs::read_to_string("/etc/machine-id")
        .or_else(|_| std::fs::read_to_string("/var/lib/dbus/machine-id"))
        .map_err(|err| {
            ApiError::bad_request(format!("unable to read \"/etc/machine-id\" - {err}"))
        })?;
    let prefix = context.server().roots().prefix();
    let text = format!(
        "backstop instance\n{}\n{}\n",
        machine.trim(),
        prefix.display()
    );
    let digest = backstop_format::Digest::of(text.as_bytes()).to_string();
    Ok(digest.chars().take(32).collect())
}
