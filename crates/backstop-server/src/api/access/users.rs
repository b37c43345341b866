//! `/access/users`: users.

use std::sync::LazyLock;

use backstop_types::UserId;
use backstop_types::config_schema::{access as schema, value};
use backstop_types::schema::{Property, Schema};

use super::{MODIFY, OWN_OR_AUDIT, OWN_OR_MODIFY, USER_ID};
use crate::access::user;
use crate::api::edit_error;
use crate::config::SectionFile;
use crate::http::{ApiError, Reply};
use crate::router::schema::{BOOLEAN, DIGEST};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

static DELETABLE: Schema = Schema::words(&["comment", "firstname", "lastname", "email"]);
static DELETE: Schema = Schema::array(&DELETABLE);

const LIST: &[Property] = &[Property::optional("include_tokens", &BOOLEAN)];
const ONE: &[Property] = &[USER_ID];
const REMOVE: &[Property] = &[USER_ID, DIGEST];
static CREATE: LazyLock<Vec<Property>> = LazyLock::new(|| {
    let own = [
        USER_ID,
        Property::optional("password", &value::NEW_PASSWORD),
    ];
    own.iter().chain(schema::USER.list).copied().collect()
});
static UPDATE: LazyLock<Vec<Property>> = LazyLock::new(|| {
    let own = [
        USER_ID,
        // Accepted for old clients, which also change it through its own call.
        Property::optional("password", &value::NEW_PASSWORD),
        Property::optional("delete", &DELETE),
        DIGEST,
    ];
    own.iter().chain(schema::USER.list).copied().collect()
});

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
    let all = "/access/users";
    let one = "/access/users/{userid}";
    vec![
        endpoint(
            Method::Get,
            all,
            "Lists the users that the caller may see.",
            LIST,
            Permission::Anybody,
            Handler::blocking(list),
        ),
        endpoint(
            Method::Post,
            all,
            "Creates a user.",
            CREATE.as_slice(),
            MODIFY,
            Handler::blocking(create),
        ),
        endpoint(
            Method::Get,
            one,
            "Describes a user.",
            ONE,
            OWN_OR_AUDIT,
            Handler::blocking(read),
        ),
        endpoint(
            Method::Put,
            one,
            "Changes a user.",
            UPDATE.as_slice(),
            OWN_OR_MODIFY,
            Handler::blocking(update),
        ),
        endpoint(
            Method::Delete,
            one,
            "Removes a user with its tokens and rules.",
            REMOVE,
            OWN_OR_MODIFY,
            Handler::blocking(remove),
        ),
    ]
}

fn list(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let digest = server.config().sections(SectionFile::User)?.digest;
    let users = user::list_for(
        server.access(),
        context.auth_id()?,
        params.bool("include_tokens", false),
    )?;
    Ok(Reply::data(&users)?.with_digest(digest))
}

fn create(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let id: UserId = params.required("userid")?;
    let section = params.without(&["userid", "password"]);
    user::create(
        context.server().config(),
        &id,
        section,
        params.text("password"),
    )
    .map_err(edit_error)?;
    Ok(Reply::null())
}

fn read(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let config = context.server().config();
    let digest = config.sections(SectionFile::User)?.digest;
    let user = user::get(config, &params.required("userid")?).map_err(edit_error)?;
    Ok(Reply::data(&user)?.with_digest(digest))
}

fn update(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let id: UserId = params.required("userid")?;
    let section = params.without(&["userid", "password", "delete", "digest"]);
    let delete = params.owned_texts("delete");
    user::update_for(
        context.server().access(),
        context.auth_id()?,
        &id,
        section,
        &delete,
        params.text("digest"),
    )
    .map_err(edit_error)?;
    Ok(Reply::null())
}

fn remove(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let config = context.server().config();
    user::delete(config, &params.required("userid")?, params.text("digest")).map_err(edit_error)?;
    Ok(Reply::null())
}
