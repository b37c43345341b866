//! `/access/password`: changing a password.

use backstop_types::UserId;
use backstop_types::config_schema::value;
use backstop_types::schema::Property;

use super::USER_ID;
use super::confirmation::{self, confirmed};
use crate::access::password;
use crate::api::edit_error;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Method, Params, Permission, RequestContext};

const CHANGE: &[Property] = &[
    USER_ID,
    Property::required("password", &value::NEW_PASSWORD),
    Property::optional("confirmation-password", &value::PASSWORD),
];

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        method: Method::Put,
        path: "/access/password",
        about: "Changes a user's password.",
        params: CHANGE,
        permission: Permission::Anybody,
        handler: confirmed(asked, change),
    }]
}

/// System users' passwords are set by the system, which is asked for all of them, the superuser's included.
fn asked(context: &RequestContext, params: &Params) -> Option<String> {
    let set_by_system = params.text("userid").filter(|user| user.ends_with("@pam"));
    confirmation::caller(context, params, "confirmation-password")
        .or_else(|| set_by_system.map(str::to_owned))
}

fn change(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let user: UserId = params.required("userid")?;
    let new = params.required_text("password")?;
    let confirmation = params.text("confirmation-password");
    password::change(
        context.server().access(),
        context.auth_id()?,
        &user,
        new,
        confirmation,
        Some(context.peer().ip()),
    )
    .map_err(edit_error)?;
    Ok(Reply::null())
}
