//! `/config/access/tfa/webauthn`: how browsers see this server when they ask for security keys.

use backstop_types::schema::{ANY_TEXT, Property, Schema};

use crate::access::second_factor::{WebauthnChange, change_webauthn, webauthn_config};
use crate::api::edit_error;
use crate::http::{ApiError, Reply};
use crate::router::schema::{BOOLEAN, DIGEST};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

static DELETABLE: Schema = Schema::words(&["origin", "allow-subdomains"]);
static DELETE: Schema = Schema::array(&DELETABLE);
const UPDATE: &[Property] = &[
    Property::optional("rp", &ANY_TEXT),
    Property::optional("origin", &ANY_TEXT),
    Property::optional("id", &ANY_TEXT),
    Property::optional("allow-subdomains", &BOOLEAN),
    Property::optional("delete", &DELETE),
    DIGEST,
];

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    let path = "/config/access/tfa/webauthn";
    vec![
        Endpoint {
            method: Method::Get,
            path,
            about: "Tells how browsers see this server when they ask for security keys.",
            params: &[],
            permission: Permission::Anybody,
            handler: Handler::blocking(read),
        },
        Endpoint {
            method: Method::Put,
            path,
            about: "Changes how browsers see this server when they ask for security keys.",
            params: UPDATE,
            permission: Permission::Superuser,
            handler: Handler::blocking(update),
        },
    ]
}

fn read(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    Ok(match webauthn_config(context.server().config())? {
        Some((config, digest)) => Reply::data(&config)?.with_digest(digest),
        None => Reply::null(),
    })
}

fn update(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let change = WebauthnChange {
        rp: params.text("rp"),
        origin: params.text("origin"),
        id: params.text("id"),
        allow_subdomains: params
            .has("allow-subdomains")
            .then(|| params.bool("allow-subdomains", true)),
        delete: params.owned_texts("delete"),
        digest: params.text("digest"),
    };
    change_webauthn(context.server().config(), &change).map_err(edit_error)?;
    Ok(Reply::null())
}
