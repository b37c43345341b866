//! `/config/notifications`: targets, matchers, and what matchers can look at. Never tells a secret.

use std::sync::LazyLock;

use backstop_notify::settings::Change;
use backstop_types::Privileges;
use backstop_types::config_schema::value;
use backstop_types::schema::{Property, Schema};
use hyper::StatusCode;
use serde_json::{Value, json};

use super::sync::may_see;
use crate::api::edit_error;
use crate::config::jobs::acl_path;
use crate::config::notifications::{
    self, EntryKind, GOTIFY, MATCHER, SENDMAIL, SMTP, WEBHOOK, settings,
};
use crate::config::{EditError, SectionFile};
use crate::http::{ApiError, Reply};
use crate::notifications::events;
use crate::router::schema::DIGEST;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

const NAME: Property = Property::required("name", &value::ENTITY_ID);
const ITEM: &[Property] = &[NAME];
const READ: Permission = Permission::all("/system/notifications", Privileges::SYS_AUDIT);
const WRITE: Permission = Permission::all("/system/notifications", Privileges::SYS_MODIFY);

/// The calls of one kind of entry.
struct Room {
    kind: &'static EntryKind,
    /// Path of all, and of one.
    paths: [&'static str; 2],
    create: &'static LazyLock<Vec<Property>>,
    update: &'static LazyLock<Vec<Property>>,
}

macro_rules! room {
    ($kind:ident, $all:literal) => {{
        static WORDS: LazyLock<Schema> = LazyLock::new(|| Schema::words($kind.deletable));
        static DELETE: LazyLock<Schema> = LazyLock::new(|| Schema::array(&WORDS));
        static CREATE: LazyLock<Vec<Property>> = LazyLock::new(|| create_params(&$kind));
        static UPDATE: LazyLock<Vec<Property>> = LazyLock::new(|| update_params(&$kind, &DELETE));
        Room {
            kind: &$kind,
            paths: [$all, concat!($all, "/{name}")],
            create: &CREATE,
            update: &UPDATE,
        }
    }};
}

fn rooms() -> [Room; 5] {
    [
        room!(GOTIFY, "/config/notifications/endpoints/gotify"),
        room!(SENDMAIL, "/config/notifications/endpoints/sendmail"),
        room!(SMTP, "/config/notifications/endpoints/smtp"),
        room!(WEBHOOK, "/config/notifications/endpoints/webhook"),
        room!(MATCHER, "/config/notifications/matchers"),
    ]
}

fn create_params(kind: &EntryKind) -> Vec<Property> {
    [NAME].into_iter().chain(kind.fields()).collect()
}

fn update_params(kind: &EntryKind, delete: &'static Schema) -> Vec<Property> {
    let fields = kind.fields().into_iter();
    let fields = fields.map(|field| Property::optional(field.name, field.schema));
    [NAME, Property::optional("delete", delete), DIGEST]
        .into_iter()
        .chain(fields)
        .collect()
}

fn endpoint(
    method: Method,
    path: &'static str,
    about: &'static str,
    params: &'static [Property],
    handler: Handler,
) -> Endpoint {
    let permission = match method {
        Method::Get => READ,
        _ => WRITE,
    };
    Endpoint {
        method,
        path,
        about,
        params,
        permission,
        handler,
    }
}

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    let mut all = vec![
        endpoint(
            Method::Get,
            "/config/notifications/targets",
            "Lists the targets of all kinds.",
            &[],
            Handler::blocking(targets),
        ),
        endpoint(
            Method::Post,
            "/config/notifications/targets/{name}/test",
            "Sends a test notification to a target, and says what went wrong.",
            ITEM,
            Handler::blocking(test),
        ),
        endpoint(
            Method::Get,
            "/config/notifications/matcher-fields",
            "Lists the fields that matchers can look at.",
            &[],
            Handler::blocking(matcher_fields),
        ),
        endpoint(
            Method::Get,
            "/config/notifications/matcher-field-values",
            "Lists known values of the fields that matchers can look at.",
            &[],
            Handler::blocking(matcher_field_values),
        ),
    ];
    all.extend(rooms().into_iter().flat_map(room_endpoints));
    all
}

fn room_endpoints(room: Room) -> Vec<Endpoint> {
    let kind = room.kind;
    let [all, one] = room.paths;
    vec![
        endpoint(
            Method::Get,
            all,
            "Lists the entries of this kind, without secrets.",
            &[],
            Handler::blocking(move |context, _| {
                let settings = settings(context.server().config())?;
                let list = settings.data.list(kind.section);
                Reply::data(&list)
            }),
        ),
        endpoint(
            Method::Post,
            all,
            "Adds an entry.",
            room.create.as_slice(),
            Handler::blocking(move |context, params| {
                let name = params.required_text("name")?;
                let properties = params.without(&["name"]);
                let config = context.server().config();
                notifications::create(config, (kind.section, name), &properties)
                    .map_err(edit_error)?;
                Ok(Reply::null())
            }),
        ),
        endpoint(
            Method::Get,
            one,
            "Tells the settings of an entry, without secrets.",
            ITEM,
            Handler::blocking(move |context, params| {
                let name = params.required_text("name")?;
                let settings = settings(context.server().config())?;
                let entry = settings.data.get(kind.section, name);
                let entry = entry.map_err(|err| edit_error(EditError::from(err)))?;
                Ok(Reply::data(&entry)?.with_digest(settings.digest))
            }),
        ),
        endpoint(
            Method::Put,
            one,
            "Changes an entry. A secret that is not given stays what it is.",
            room.update.as_slice(),
            Handler::blocking(move |context, params| {
                let name = params.required_text("name")?;
                let change = Change {
                    properties: &params.without(&["name", "delete", "digest"]),
                    delete: &params.owned_texts("delete"),
                };
                let config = context.server().config();
                let entry = (kind.section, name);
                notifications::update(config, entry, change, params.text("digest"))
                    .map_err(edit_error)?;
                Ok(Reply::null())
            }),
        ),
        endpoint(
            Method::Delete,
            one,
            "Removes an entry; one that is built in has its default settings again.",
            ITEM,
            Handler::blocking(move |context, params| {
                let name = params.required_text("name")?;
                let config = context.server().config();
                notifications::remove(config, (kind.section, name)).map_err(edit_error)?;
                Ok(Reply::null())
            }),
        ),
    ]
}

fn targets(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let settings = settings(context.server().config())?;
    Reply::data(&settings.data.targets())
}

fn test(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let name = params.required_text("name")?;
    let server = context.server();
    let settings = settings(server.config())?.data;
    let target = settings.target(name);
    let target = target.map_err(|err| edit_error(EditError::from(err)))?;
    server.notifier().test(&target).map_err(|reason| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        ApiError::new(status, format!("Could not test target: {reason}"))
    })?;
    Ok(Reply::null())
}

fn matcher_fields(_: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let fields = events::FIELDS.iter().map(|name| json!({ "name": name }));
    Reply::data(&fields.collect::<Vec<_>>())
}

fn matcher_field_values(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let caller = context.auth_id()?;
    let config = server.config();
    let mut values: Vec<(&str, String, Value)> = Vec::new();
    let sees = |path: &str| {
        let audit = Privileges::DATASTORE_AUDIT;
        server.privileges(caller, path).contains(audit)
    };
    let datastores = config.sections(SectionFile::Datastore)?;
    for (name, section) in datastores.data.iter() {
        let path = format!("/datastore/{name}");
        let any = Privileges::DATASTORE_AUDIT.union(Privileges::DATASTORE_BACKUP);
        if server.privileges_below(caller, &path, any) {
            values.push(("datastore", name.to_owned(), comment(&section.properties)));
        }
    }
    for file in [
        SectionFile::Prune,
        SectionFile::Verification,
        SectionFile::Sync,
    ] {
        for (id, section) in config.sections(file)?.data.iter() {
            let job = &section.properties;
            let is_seen = match file {
                SectionFile::Sync => may_see(server, caller, job)?,
                _ => sees(&acl_path(job).map_err(edit_error)?),
            };
            if is_seen {
                values.push(("job-id", id.to_owned(), comment(job)));
            }
        }
    }
    values.push(("hostname", server.node().to_owned(), Value::Null));
    for kind in events::TYPES {
        values.push(("type", (*kind).to_owned(), Value::Null));
    }
    values.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let values = values.into_iter();
    let values = values.map(
        |(field, value, comment)| json!({ "field": field, "value": value, "comment": comment }),
    );
    Ok(Reply::data(&values.collect::<Vec<_>>())?.with_digest(datastores.digest))
}

fn comment(properties: &serde_json::Map<String, Value>) -> Value {
    properties.get("comment").cloned().unwrap_or_default()
}
