//! `/config/access`: realms in the configuration.
//!
//! A directory is tried out before its realm is stored; no thread and no lock waits for its answer.

use std::sync::{Arc, LazyLock};

use backstop_types::Privileges;
use backstop_types::config_schema::access::{DIRECTORY_DELETABLE, OPENID_DELETABLE};
use backstop_types::config_schema::value;
use backstop_types::schema::{Property, Schema};

use crate::access::realm::{AD, Draft, LDAP, OPENID, PAM, PBS, RealmKind};
use crate::api::edit_error;
use crate::config::EditError;
use crate::http::{ApiError, Reply};
use crate::router::dispatch::on_thread;
use crate::router::schema::{BOOLEAN, DIGEST};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};
use crate::server::Server;

const ALLOCATE: Permission = Permission::all("/access/domains", Privileges::REALM_ALLOCATE);
const AUDIT: Permission = Permission::all("/access/domains", Privileges::SYS_AUDIT);

const REALM: Property = Property::required("realm", &value::REALM);
/// Passwords of directories may be longer than those that users type.
const PASSWORD: Property = Property::optional("password", &value::PASSWORD);
const ONE: &[Property] = &[REALM];
const REMOVE: &[Property] = &[REALM, DIGEST];

static DIRECTORY_WORD: Schema = Schema::words(DIRECTORY_DELETABLE);
static DIRECTORY_DELETE: Schema = Schema::array(&DIRECTORY_WORD);
static OPENID_WORD: Schema = Schema::words(OPENID_DELETABLE);
static OPENID_DELETE: Schema = Schema::array(&OPENID_WORD);
static BUILT_IN_WORD: Schema = Schema::words(&["comment", "default"]);
static BUILT_IN_DELETE: Schema = Schema::array(&BUILT_IN_WORD);

const UPDATE_BUILT_IN: &[Property] = &[
    Property::optional("comment", &value::COMMENT),
    Property::optional("default", &BOOLEAN),
    Property::optional("delete", &BUILT_IN_DELETE),
    DIGEST,
];

static CREATE_LDAP: LazyLock<Vec<Property>> = LazyLock::new(|| create_params(&LDAP));
static UPDATE_LDAP: LazyLock<Vec<Property>> =
    LazyLock::new(|| update_params(&LDAP, &DIRECTORY_DELETE));
static CREATE_AD: LazyLock<Vec<Property>> = LazyLock::new(|| create_params(&AD));
static UPDATE_AD: LazyLock<Vec<Property>> = LazyLock::new(|| update_params(&AD, &DIRECTORY_DELETE));
static CREATE_OPENID: LazyLock<Vec<Property>> = LazyLock::new(|| create_params(&OPENID));
static UPDATE_OPENID: LazyLock<Vec<Property>> =
    LazyLock::new(|| update_params(&OPENID, &OPENID_DELETE));

fn create_params(kind: &RealmKind) -> Vec<Property> {
    let own = kind.properties.list.iter().copied();
    let password = kind.directory().map(|_| PASSWORD);
    [REALM].into_iter().chain(own).chain(password).collect()
}

fn update_params(kind: &RealmKind, delete: &'static Schema) -> Vec<Property> {
    let own = kind.properties.list.iter();
    let own = own.filter(|property| !kind.fixed.contains(&property.name));
    let own = own.map(|property| Property::optional(property.name, property.schema));
    let password = kind.directory().map(|_| PASSWORD);
    [REALM, Property::optional("delete", delete), DIGEST]
        .into_iter()
        .chain(own)
        .chain(password)
        .collect()
}

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    let ldap = calls(
        &LDAP,
        ("/config/access/ldap", "/config/access/ldap/{realm}"),
        (&CREATE_LDAP, &UPDATE_LDAP),
    );
    let ad = calls(
        &AD,
        ("/config/access/ad", "/config/access/ad/{realm}"),
        (&CREATE_AD, &UPDATE_AD),
    );
    let openid = calls(
        &OPENID,
        ("/config/access/openid", "/config/access/openid/{realm}"),
        (&CREATE_OPENID, &UPDATE_OPENID),
    );
    [
        ldap,
        ad,
        openid,
        built_in(&PAM, "/config/access/pam"),
        built_in(&PBS, "/config/access/pbs"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn calls(
    kind: &'static RealmKind,
    (all, one): (&'static str, &'static str),
    (create_params, update_params): (&'static [Property], &'static [Property]),
) -> Vec<Endpoint> {
    let endpoint = |method, path, about, params, permission, handler| Endpoint {
        method,
        path,
        about,
        params,
        permission,
        handler,
    };
    vec![
        endpoint(
            Method::Get,
            all,
            "Lists the realms of a kind.",
            &[],
            ALLOCATE,
            Handler::blocking(move |context, _| {
                let list = kind.list(context.server().config())?;
                Ok(Reply::data(&list.data)?.with_digest(list.digest))
            }),
        ),
        endpoint(
            Method::Post,
            all,
            "Adds a realm; a directory must be reachable.",
            create_params,
            ALLOCATE,
            Handler::future(move |context, params| create(kind, context, params)),
        ),
        endpoint(
            Method::Get,
            one,
            "Tells the settings of a realm.",
            ONE,
            AUDIT,
            Handler::blocking(move |context, params| {
                read(kind, context, params.required_text("realm")?)
            }),
        ),
        endpoint(
            Method::Put,
            one,
            "Changes a realm; a directory must be reachable.",
            update_params,
            ALLOCATE,
            Handler::future(move |context, params| async move {
                let realm = params.required_text("realm")?.to_owned();
                update(kind, context, realm, params).await
            }),
        ),
        endpoint(
            Method::Delete,
            one,
            "Removes a realm; its users stay.",
            REMOVE,
            ALLOCATE,
            Handler::blocking(move |context, params| {
                let realm = params.required_text("realm")?;
                let server = context.server();
                kind.remove(
                    server.config(),
                    server.job_states(),
                    realm,
                    params.text("digest"),
                )
                .map_err(edit_error)?;
                Ok(Reply::null())
            }),
        ),
    ]
}

/// The calls of a realm that every server has; its id is its kind.
fn built_in(kind: &'static RealmKind, path: &'static str) -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::Get,
            path,
            about: "Tells the settings of a realm that every server has.",
            params: &[],
            permission: AUDIT,
            handler: Handler::blocking(move |context, _| read(kind, context, kind.section)),
        },
        Endpoint {
            method: Method::Put,
            path,
            about: "Changes a realm that every server has.",
            params: UPDATE_BUILT_IN,
            permission: ALLOCATE,
            handler: Handler::future(move |context, params| {
                update(kind, context, kind.section.to_owned(), params)
            }),
        },
    ]
}

fn read(kind: &RealmKind, context: &RequestContext, realm: &str) -> Result<Reply, ApiError> {
    let found = kind
        .get(context.server().config(), realm)
        .map_err(edit_error)?;
    Ok(Reply::data(&found.data)?.with_digest(found.digest))
}

async fn create(
    kind: &'static RealmKind,
    context: RequestContext,
    params: Params,
) -> Result<Reply, ApiError> {
    let server = Arc::clone(context.server());
    let draft = move |server: &Server| {
        let realm = params.required_text("realm")?;
        Draft::new(server.config(), kind, realm, params.without(&["realm"])).map_err(edit_error)
    };
    try_out_and_store(server, draft).await
}

async fn update(
    kind: &'static RealmKind,
    context: RequestContext,
    realm: String,
    params: Params,
) -> Result<Reply, ApiError> {
    let server = Arc::clone(context.server());
    let draft = move |server: &Server| {
        let change = (
            params.without(&["realm", "delete", "digest"]),
            &*params.owned_texts("delete"),
        );
        Draft::changed(server.config(), kind, &realm, change, params.text("digest"))
            .map_err(edit_error)
    };
    try_out_and_store(server, draft).await
}

async fn try_out_and_store<F>(server: Arc<Server>, draft: F) -> Result<Reply, ApiError>
where
    F: FnOnce(&Server) -> Result<Draft, ApiError> + Send + 'static,
{
    let own = Arc::clone(&server);
    let mut draft = on_thread(&server, None, move || draft(&own)).await?;
    draft.try_out().await.map_err(edit_error)?;
    let own = Arc::clone(&server);
    let store = move || {
        draft
            .store(own.config())
            .map_err(|err: EditError| edit_error(err))
    };
    on_thread(&server, None, store).await?;
    Ok(Reply::null())
}
