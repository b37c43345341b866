//! `/access/users/{userid}/token`: the API tokens of a user.

use std::sync::LazyLock;

use backstop_types::config_schema::{access as schema, value};
use backstop_types::schema::{Property, Schema};
use backstop_types::{TokenName, UserId};

use super::{OWN_OR_AUDIT, OWN_OR_MODIFY, USER_ID};
use crate::access::token;
use crate::api::edit_error;
use crate::config::SectionFile;
use crate::http::{ApiError, Reply};
use crate::router::schema::{BOOLEAN, DIGEST};
use crate::router::{Endpoint, Handler, Method, Params, RequestContext};

static DELETABLE: Schema = Schema::words(&["comment"]);
static DELETE: Schema = Schema::array(&DELETABLE);

const NAME: Property = Property::required("token-name", &value::TOKEN_NAME);
const LIST: &[Property] = &[USER_ID];
const ONE: &[Property] = &[USER_ID, NAME];
const REMOVE: &[Property] = &[USER_ID, NAME, DIGEST];
static CREATE: LazyLock<Vec<Property>> = LazyLock::new(|| {
    [USER_ID, NAME, DIGEST]
        .iter()
        .chain(schema::TOKEN.list)
        .copied()
        .collect()
});
static UPDATE: LazyLock<Vec<Property>> = LazyLock::new(|| {
    let own = [
        USER_ID,
        NAME,
        Property::optional("regenerate", &BOOLEAN),
        Property::optional("delete", &DELETE),
        DIGEST,
    ];
    own.iter().chain(schema::TOKEN.list).copied().collect()
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
    let one = "/access/users/{userid}/token/{token-name}";
    vec![
        endpoint(
            Method::Get,
            "/access/users/{userid}/token",
            "Lists the tokens of a user.",
            LIST,
            OWN_OR_AUDIT,
            Handler::blocking(list),
        ),
        endpoint(
            Method::Get,
            one,
            "Describes a token.",
            ONE,
            OWN_OR_AUDIT,
            Handler::blocking(read),
        ),
        endpoint(
            Method::Post,
            one,
            "Creates a token and tells its secret once.",
            CREATE.as_slice(),
            OWN_OR_MODIFY,
            Handler::blocking(create),
        ),
        endpoint(
            Method::Put,
            one,
            "Changes a token.",
            UPDATE.as_slice(),
            OWN_OR_MODIFY,
            Handler::blocking(update),
        ),
        endpoint(
            Method::Delete,
            one,
            "Removes a token.",
            REMOVE,
            OWN_OR_MODIFY,
            Handler::blocking(remove),
        ),
    ]
}

/// User and name of the token that a call is about.
fn named(params: &Params) -> Result<(UserId, TokenName), ApiError> {
    Ok((params.required("userid")?, params.required("token-name")?))
}

fn list(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let config = context.server().config();
    let digest = config.sections(SectionFile::User)?.digest;
    let tokens = token::list(config, &params.required("userid")?)?;
    Ok(Reply::data(&tokens)?.with_digest(digest))
}

fn read(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (user, name) = named(params)?;
    let config = context.server().config();
    let digest = config.sections(SectionFile::User)?.digest;
    let token = token::get(config, &user, &name).map_err(edit_error)?;
    Ok(Reply::data(&token)?.with_digest(digest))
}

fn create(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (user, name) = named(params)?;
    let section = params.without(&["userid", "token-name", "digest"]);
    let config = context.server().config();
    let token = token::generate(config, &user, &name, section, params.text("digest"))
        .map_err(edit_error)?;
    Reply::data(&token)
}

fn update(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (user, name) = named(params)?;
    let section = params.without(&["userid", "token-name", "digest", "delete", "regenerate"]);
    let delete = params.owned_texts("delete");
    let regenerate = params.bool("regenerate", false);
    let config = context.server().config();
    let changed = token::update(
        config,
        &user,
        &name,
        section,
        &delete,
        regenerate,
        params.text("digest"),
    );
    Reply::data(&changed.map_err(edit_error)?)
}

fn remove(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (user, name) = named(params)?;
    token::delete(
        context.server().config(),
        &user,
        &name,
        params.text("digest"),
    )
    .map_err(edit_error)?;
    Ok(Reply::null())
}
