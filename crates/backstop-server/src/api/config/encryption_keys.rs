//! `/config/encryption-keys`: keys of sync jobs. A secret is told once, to whoever makes the key.

use backstop_types::Privileges;
use backstop_types::config_schema::value;
use backstop_types::schema::{Format, Property, Schema};
use serde_json::Value;

use crate::api::edit_error;
use crate::config::{SectionFile, encryption_keys};
use crate::http::{ApiError, Reply};
use crate::router::schema::{BOOLEAN, DIGEST};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

const ID: Property = Property::required("id", &value::CONFIG_ID);
const LIST: &[Property] = &[Property::optional("include-archived", &BOOLEAN)];
static KEY: Schema = Schema::text(1, 64 << 10, Format::Any);
const CREATE: &[Property] = &[ID, Property::optional("key", &KEY)];
const ITEM: &[Property] = &[ID, DIGEST];

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    const ALL: &str = "/config/encryption-keys";
    const ONE: &str = "/config/encryption-keys/{id}";
    let endpoint = |method, path, about, params, permission, handler| Endpoint {
        method,
        path,
        about,
        params,
        permission,
        handler,
    };
    let modify = |path| Permission::all(path, Privileges::SYS_MODIFY);
    vec![
        endpoint(
            Method::Get,
            ALL,
            "Lists the keys of sync jobs that the caller may see, without their secrets.",
            LIST,
            Permission::Anybody,
            Handler::blocking(list),
        ),
        endpoint(
            Method::Post,
            ALL,
            "Adds a key for sync jobs: a new one, or the one given. Answers with its secret.",
            CREATE,
            modify("/system/encryption-keys"),
            Handler::blocking(create),
        ),
        endpoint(
            Method::Post,
            ONE,
            "Archives a key, so that it only decrypts, or takes it back into use.",
            ITEM,
            modify("/system/encryption-keys/{id}"),
            Handler::blocking(toggle_archived),
        ),
        endpoint(
            Method::Delete,
            ONE,
            "Removes an archived key for good.",
            ITEM,
            modify("/system/encryption-keys/{id}"),
            Handler::blocking(remove),
        ),
    ]
}

fn list(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let digest = server
        .config()
        .sections(SectionFile::EncryptionKeys)?
        .digest;
    let archived = params.bool("include-archived", false);
    let mut visible = Vec::new();
    for key in encryption_keys::list(server.config(), archived)? {
        let id = key.get("id").and_then(Value::as_str).unwrap_or_default();
        let path = format!("/system/encryption-keys/{id}");
        let granted = server.privileges(context.auth_id()?, &path);
        if granted.contains(Privileges::SYS_AUDIT) {
            visible.push(key);
        }
    }
    Ok(Reply::data(&visible)?.with_digest(digest))
}

fn create(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let id = params.required_text("id")?;
    let key = encryption_keys::create(context.server().config(), id, params.text("key"));
    Reply::data(&key.map_err(edit_error)?)
}

fn toggle_archived(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (id, digest) = (params.required_text("id")?, params.text("digest"));
    let config = context.server().config();
    encryption_keys::set_archived(config, id, None, digest).map_err(edit_error)?;
    Ok(Reply::null())
}

fn remove(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (id, digest) = (params.required_text("id")?, params.text("digest"));
    let config = context.server().config();
    encryption_keys::remove(config, id, digest).map_err(edit_error)?;
    Ok(Reply::null())
}
