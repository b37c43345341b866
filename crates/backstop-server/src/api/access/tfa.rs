//! `/access/tfa`: second factors of users.

use backstop_types::config_schema::value;
use backstop_types::schema::{ANY_TEXT, Format, Property, Schema};
use backstop_types::second_factor::FactorKind;
use backstop_types::{Privileges, UserId};

use super::confirmation::{self, confirmed};
use super::{MODIFY, OWN_OR_MODIFY, USER_ID};
use crate::access::second_factor::{self, NewFactor};
use crate::access::{password, user};
use crate::api::edit_error;
use crate::config::EditError;
use crate::http::{ApiError, Reply};
use crate::router::schema::BOOLEAN;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

static KIND: Schema = Schema::words(FactorKind::NAMES);
static DESCRIPTION: Schema = Schema::text(0, 255, Format::Any);
const ID: Property = Property::required("id", &ANY_TEXT);
const PASSWORD: Property = Property::optional("password", &value::PASSWORD);

const ONE_USER: &[Property] = &[USER_ID];
const ONE: &[Property] = &[USER_ID, ID];
const ADD: &[Property] = &[
    USER_ID,
    Property::required("type", &KIND),
    Property::optional("description", &DESCRIPTION),
    Property::optional("totp", &ANY_TEXT),
    Property::optional("value", &ANY_TEXT),
    Property::optional("challenge", &ANY_TEXT),
    PASSWORD,
];
const UPDATE: &[Property] = &[
    USER_ID,
    ID,
    Property::optional("description", &DESCRIPTION),
    Property::optional("enable", &BOOLEAN),
    PASSWORD,
];
const REMOVE: &[Property] = &[USER_ID, ID, PASSWORD];

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    let endpoint = |method, path, about, params, permission, handler| Endpoint {
        method,
        path,
        about,
        params,
        permission,
        handler,
    };
    let of_user = "/access/tfa/{userid}";
    let one = "/access/tfa/{userid}/{id}";
    vec![
        endpoint(
            Method::Get,
            "/access/tfa",
            "Lists the second factors of the users that the caller may see.",
            &[],
            Permission::Anybody,
            Handler::blocking(list),
        ),
        endpoint(
            Method::Get,
            of_user,
            "Lists the second factors of a user.",
            ONE_USER,
            OWN_OR_MODIFY,
            Handler::blocking(list_user),
        ),
        endpoint(
            Method::Post,
            of_user,
            "Adds a second factor.",
            ADD,
            OWN_OR_MODIFY,
            confirmed(caller_of, add),
        ),
        endpoint(
            Method::Get,
            one,
            "Describes a second factor.",
            ONE,
            OWN_OR_MODIFY,
            Handler::blocking(read),
        ),
        endpoint(
            Method::Put,
            one,
            "Changes a second factor.",
            UPDATE,
            OWN_OR_MODIFY,
            confirmed(caller_of, update),
        ),
        endpoint(
            Method::Delete,
            one,
            "Removes a second factor.",
            REMOVE,
            OWN_OR_MODIFY,
            confirmed(caller_of, remove),
        ),
        endpoint(
            Method::Put,
            "/access/users/{userid}/unlock-tfa",
            "Unlocks the second factors of a user; tells whether they were locked.",
            ONE_USER,
            MODIFY,
            Handler::blocking(unlock),
        ),
    ]
}

fn caller_of(context: &RequestContext, params: &Params) -> Option<String> {
    confirmation::caller(context, params, "password")
}

/// Lets the caller prove who it is, and only then looks whether the user to change exists.
fn check_caller(
    context: &RequestContext,
    params: &Params,
    user: &UserId,
    must_exist: bool,
) -> Result<(), ApiError> {
    let caller = context.auth_id()?;
    let access = context.server().access();
    let peer = Some(context.peer().ip());
    password::confirm(access, caller, params.text("password"), peer).map_err(edit_error)?;
    if must_exist && caller.user() != user {
        user::get(access.config(), user).map_err(|error| match error {
            EditError::Conflict(_) => {
                ApiError::unauthorized(format!("user '{user}' does not exists."))
            }
            other => edit_error(other),
        })?;
    }
    Ok(())
}

fn list(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let caller = context.auth_id()?;
    let access = context.server().access();
    let sees_all = access
        .check(caller, "/access/users", Privileges::SYS_AUDIT, false)
        .is_ok();
    let only = (!sees_all).then(|| caller.user());
    Reply::data(&second_factor::list(access.config(), only, access.now())?)
}

fn list_user(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let user: UserId = params.required("userid")?;
    Reply::data(&second_factor::list_user(context.server().config(), &user)?)
}

fn add(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let user: UserId = params.required("userid")?;
    check_caller(context, params, &user, true)?;
    let kind: FactorKind = serde_json::from_value(params.required_text("type")?.into())?;
    let new = NewFactor {
        description: params.text("description"),
        totp: params.text("totp"),
        value: params.text("value"),
        challenge: params.text("challenge"),
    };
    let access = context.server().access();
    let added = access
        .second_factors()
        .add(&user, kind, &new, access.now())
        .map_err(edit_error)?;
    Reply::data(&added)
}

fn read(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let user: UserId = params.required("userid")?;
    let id = params.required_text("id")?;
    let factor = second_factor::get(context.server().config(), &user, id).map_err(edit_error)?;
    Reply::data(&factor)
}

fn update(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let user: UserId = params.required("userid")?;
    check_caller(context, params, &user, true)?;
    second_factor::update(
        context.server().config(),
        &user,
        params.required_text("id")?,
        params.text("description"),
        params.has("enable").then(|| params.bool("enable", true)),
    )
    .map_err(edit_error)?;
    Ok(Reply::null())
}

fn remove(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let user: UserId = params.required("userid")?;
    check_caller(context, params, &user, false)?;
    let id = params.required_text("id")?;
    second_factor::delete(context.server().config(), &user, id).map_err(edit_error)?;
    Ok(Reply::null())
}

fn unlock(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let user: UserId = params.required("userid")?;
    let server = context.server();
    let was_locked =
        second_factor::unlock(server.config(), &user, server.access().now()).map_err(edit_error)?;
    Reply::data(&was_locked)
}
