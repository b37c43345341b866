//! `/config/remote`: other servers, with the account that is used there. Never tells a secret.

use std::sync::LazyLock;

use backstop_types::Privileges;
use backstop_types::config_schema::remote::{REMOTE, REMOTE_DELETABLE, TLS_SERVER_NAME};
use backstop_types::config_schema::value;
use backstop_types::schema::{Property, Schema};
use serde_json::Value;

use crate::api::edit_error;
use crate::config::{SectionFile, remote};
use crate::http::{ApiError, Reply};
use crate::router::schema::DIGEST;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

/// The name of a remote in a path.
pub const NAME: Property = Property::required("name", &value::CONFIG_ID);
const ITEM: &[Property] = &[NAME];
const REMOVE: &[Property] = &[NAME, DIGEST];
static DELETABLE: Schema = Schema::words(REMOTE_DELETABLE);
static DELETE: Schema = Schema::array(&DELETABLE);
/// The secret as it is, where the file holds its base64.
const PASSWORD: Property = Property::required("password", &value::PASSWORD);

static CREATE: LazyLock<Vec<Property>> = LazyLock::new(|| {
    let fields = REMOTE.list.iter().map(|property| match property.name {
        "password" => PASSWORD,
        _ => *property,
    });
    [NAME]
        .into_iter()
        .chain(fields)
        .chain([TLS_SERVER_NAME])
        .collect()
});
static UPDATE: LazyLock<Vec<Property>> = LazyLock::new(|| {
    let fields = CREATE.iter().filter(|property| property.name != "name");
    let fields = fields.map(|property| Property::optional(property.name, property.schema));
    [NAME, Property::optional("delete", &DELETE), DIGEST]
        .into_iter()
        .chain(fields)
        .collect()
});

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    const ALL: &str = "/config/remote";
    const ONE: &str = "/config/remote/{name}";
    let endpoint = |method, path, about, params, permission, handler| Endpoint {
        method,
        path,
        about,
        params,
        permission,
        handler,
    };
    let modify = |path| Permission::all(path, Privileges::REMOTE_MODIFY);
    vec![
        endpoint(
            Method::Get,
            ALL,
            "Lists the remotes that the caller may see.",
            &[],
            Permission::Anybody,
            Handler::blocking(list),
        ),
        endpoint(
            Method::Post,
            ALL,
            "Adds a remote.",
            CREATE.as_slice(),
            modify("/remote"),
            Handler::blocking(create),
        ),
        endpoint(
            Method::Get,
            ONE,
            "Tells the settings of a remote.",
            ITEM,
            Permission::all("/remote/{name}", Privileges::REMOTE_AUDIT),
            Handler::blocking(read),
        ),
        endpoint(
            Method::Put,
            ONE,
            "Changes the settings of a remote.",
            UPDATE.as_slice(),
            modify("/remote/{name}"),
            Handler::blocking(update),
        ),
        endpoint(
            Method::Delete,
            ONE,
            "Removes a remote.",
            REMOVE,
            modify("/remote/{name}"),
            Handler::blocking(remove),
        ),
    ]
}

fn list(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let digest = server.config().sections(SectionFile::Remote)?.digest;
    let mut visible = Vec::new();
    for remote in remote::list(server.config())? {
        let name = remote.get("name").and_then(Value::as_str);
        let path = format!("/remote/{}", name.unwrap_or_default());
        let granted = server.privileges(context.auth_id()?, &path);
        if granted.contains(Privileges::REMOTE_AUDIT) {
            visible.push(remote);
        }
    }
    Ok(Reply::data(&visible)?.with_digest(digest))
}

fn read(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let name = params.required_text("name")?;
    let config = context.server().config();
    let digest = config.sections(SectionFile::Remote)?.digest;
    let remote = remote::get(config, name)?.ok_or_else(|| edit_error(remote::unknown(name)))?;
    Ok(Reply::data(&remote)?.with_digest(digest))
}

fn create(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let name = params.required_text("name")?;
    let properties = params.without(&["name"]);
    remote::create(context.server().config(), name, properties).map_err(edit_error)?;
    Ok(Reply::null())
}

fn update(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let name = params.required_text("name")?;
    let change = (
        params.without(&["name", "delete", "digest"]),
        &*params.owned_texts("delete"),
    );
    let config = context.server().config();
    remote::update(config, name, change, params.text("digest")).map_err(edit_error)?;
    Ok(Reply::null())
}

fn remove(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let name = params.required_text("name")?;
    let config = context.server().config();
    remote::remove(config, name, params.text("digest")).map_err(edit_error)?;
    Ok(Reply::null())
}
