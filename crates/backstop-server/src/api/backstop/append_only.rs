//! `/backstop/append-only`: API tokens that only add. Marking one is up to its user; taking the mark off is not, and no token
//! can do it for itself, because the call is none that a marked token may make.

use backstop_types::config_schema::value;
use backstop_types::schema::Property;
use backstop_types::{AuthId, Privileges, TokenName, UserId};
use serde_json::json;

use crate::access::append_only;
use crate::api::edit_error;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

const TOKEN: &[Property] = &[
    Property::required("userid", &value::USER_ID),
    Property::required("token-name", &value::TOKEN_NAME),
];
const OWN_OR_MODIFY: Permission = Permission::Or(&[
    Permission::all("/access/users", Privileges::PERMISSIONS_MODIFY),
    Permission::UserParam("userid"),
]);

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    let token = "/backstop/append-only/{userid}/{token-name}";
    vec![
        Endpoint {
            method: Method::Get,
            path: "/backstop/append-only",
            about: "The API tokens that only add.",
            params: &[],
            permission: Permission::all("/access/users", Privileges::SYS_AUDIT),
            handler: Handler::blocking(list),
        },
        Endpoint {
            method: Method::Put,
            path: token,
            about: "Makes an API token append-only.",
            params: TOKEN,
            permission: OWN_OR_MODIFY,
            handler: Handler::blocking(mark),
        },
        Endpoint {
            method: Method::Delete,
            path: token,
            about: "Lets an API token do again what its access rules allow.",
            params: TOKEN,
            permission: Permission::all("/access/users", Privileges::PERMISSIONS_MODIFY),
            handler: Handler::blocking(unmark),
        },
    ]
}

fn token(params: &Params) -> Result<AuthId, ApiError> {
    let (user, name): (UserId, TokenName) =
        (params.required("userid")?, params.required("token-name")?);
    user.token(&name)
        .map_err(|err| ApiError::parameter("token-name", err.reason))
}

fn list(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let tokens = append_only::list(context.server().config())?;
    let items = tokens.iter().map(|token| json!({ "tokenid": token }));
    Reply::data(&items.collect::<Vec<_>>())
}

fn mark(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let token = token(params)?;
    append_only::mark(context.server().config(), &token).map_err(edit_error)?;
    let by = context.auth_id()?;
    tracing::warn!(%token, %by, "an API token is append-only from now on");
    Ok(Reply::null())
}

fn unmark(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let token = token(params)?;
    append_only::unmark(context.server().config(), &token)?;
    let by = context.auth_id()?;
    tracing::warn!(%token, %by, "an API token is append-only no longer");
    Ok(Reply::null())
}
