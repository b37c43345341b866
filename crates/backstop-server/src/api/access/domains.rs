//! `/access/domains`: the realms that users can log in with.

use crate::access::realm;
use crate::config::SectionFile;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        method: Method::Get,
        path: "/access/domains",
        about: "Lists the realms.",
        params: &[],
        permission: Permission::World,
        handler: Handler::blocking(list),
    }]
}

fn list(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let config = context.server().config();
    let digest = config.sections(SectionFile::Domains)?.digest;
    Ok(Reply::data(&realm::list(config)?)?.with_digest(digest))
}
