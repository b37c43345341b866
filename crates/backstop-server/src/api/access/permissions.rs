//! `/access/permissions` and `/access/roles`: what somebody may do, and what the roles grant.

use backstop_types::AuthId;
use backstop_types::Role;
use backstop_types::config_schema::value;
use backstop_types::record::RoleItem;
use backstop_types::schema::Property;

use crate::api::edit_error;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

const PERMISSIONS: &[Property] = &[
    Property::optional("auth-id", &value::AUTH_ID),
    Property::optional("path", &value::ACL_PATH),
];

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::Get,
            path: "/access/permissions",
            about: "Tells what somebody may do.",
            params: PERMISSIONS,
            permission: Permission::Anybody,
            handler: Handler::blocking(permissions),
        },
        Endpoint {
            method: Method::Get,
            path: "/access/roles",
            about: "Lists the roles with their privileges.",
            params: &[],
            permission: Permission::Anybody,
            handler: Handler::future(|_, _| async {
                Reply::data(
                    &Role::ALL
                        .iter()
                        .copied()
                        .map(RoleItem::from)
                        .collect::<Vec<_>>(),
                )
            }),
        },
    ]
}

fn permissions(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let caller = context.auth_id()?;
    let asked: AuthId = params.parse("auth-id")?.unwrap_or_else(|| caller.clone());
    let access = context.server().access();
    let map = access
        .permission_map_for(caller, &asked, params.text("path"))
        .map_err(edit_error)?;
    Reply::data(&map)
}
