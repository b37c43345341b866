//! `/access/acl`: the access rules.

use backstop_types::config_schema::value;
use backstop_types::schema::{ANY_TEXT, Property};

use crate::access::acl::{self, AclChange};
use crate::api::edit_error;
use crate::http::{ApiError, Reply};
use crate::router::schema::{BOOLEAN, DIGEST};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

const LIST: &[Property] = &[
    Property::optional("path", &value::ACL_PATH),
    Property::optional("exact", &BOOLEAN),
];
const CHANGE: &[Property] = &[
    Property::required("path", &value::ACL_PATH),
    Property::required("role", &value::ROLE),
    Property::optional("propagate", &BOOLEAN),
    Property::optional("auth-id", &value::AUTH_ID),
    Property::optional("group", &ANY_TEXT),
    Property::optional("delete", &BOOLEAN),
    DIGEST,
];

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::Get,
            path: "/access/acl",
            about: "Lists the access rules that the caller may see.",
            params: LIST,
            permission: Permission::Anybody,
            handler: Handler::blocking(list),
        },
        Endpoint {
            method: Method::Put,
            path: "/access/acl",
            about: "Sets or removes an access rule.",
            params: CHANGE,
            permission: Permission::Anybody,
            handler: Handler::blocking(change),
        },
    ]
}

fn list(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let digest = server.config().acl()?.digest;
    let rules = acl::list_for(
        server.access(),
        context.auth_id()?,
        params.text("path"),
        params.bool("exact", false),
    )?;
    Ok(Reply::data(&rules)?.with_digest(digest))
}

fn change(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let change = AclChange {
        path: params.required_text("path")?.to_owned(),
        role: params.required("role")?,
        auth_id: params.parse("auth-id")?,
        group: params.text("group").map(str::to_owned),
        propagate: params.bool("propagate", true),
        delete: params.bool("delete", false),
    };
    acl::update_for(
        context.server().access(),
        context.auth_id()?,
        &change,
        params.text("digest"),
    )
    .map_err(edit_error)?;
    Ok(Reply::null())
}
