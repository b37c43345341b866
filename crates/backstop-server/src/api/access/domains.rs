//! `/access/domains`: the realms that users can log in with, and the sync of those that have a directory.

use backstop_types::Privileges;
use backstop_types::config_schema::access::REMOVE_VANISHED;
use backstop_types::config_schema::value;
use backstop_types::schema::Property;

use crate::access::realm;
use crate::access::realm_sync::RealmSync;
use crate::api::edit_error;
use crate::config::SectionFile;
use crate::http::{ApiError, Reply};
use crate::jobs;
use crate::router::schema::BOOLEAN;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

const SYNC: &[Property] = &[
    Property::required("realm", &value::REALM),
    Property::optional("dry-run", &BOOLEAN),
    Property::optional("remove-vanished", &REMOVE_VANISHED),
    Property::optional("enable-new", &BOOLEAN),
];

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::Get,
            path: "/access/domains",
            about: "Lists the realms.",
            params: &[],
            permission: Permission::World,
            handler: Handler::blocking(list),
        },
        Endpoint {
            method: Method::Post,
            path: "/access/domains/{realm}/sync",
            about: "Starts a task that brings the users of a realm in line with its directory.",
            params: SYNC,
            permission: Permission::all("/access/users", Privileges::PERMISSIONS_MODIFY),
            handler: Handler::blocking(sync),
        },
    ]
}

fn list(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let config = context.server().config();
    let digest = config.sections(SectionFile::Domains)?.digest;
    Ok(Reply::data(&realm::list(config)?)?.with_digest(digest))
}

fn sync(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let realm = params.required_text("realm")?;
    let enable_new = params
        .has("enable-new")
        .then(|| params.bool("enable-new", true));
    let sync = RealmSync::prepare(
        server.config(),
        realm,
        params.text("remove-vanished"),
        enable_new,
        params.bool("dry-run", false),
    )
    .map_err(edit_error)?;
    let upid = jobs::start_realm_sync(server, realm, sync, context.auth_id()?)?;
    Reply::data(&upid.to_string())
}
