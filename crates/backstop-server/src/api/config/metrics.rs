//! `/config/metrics`: metric servers, to which measured values are sent. Never tells a token.

use std::sync::LazyLock;

use backstop_types::Privileges;
use backstop_types::config_schema::value;
use backstop_types::schema::{Property, Schema};
use serde_json::{Map, Value};

use crate::api::edit_error;
use crate::config::SectionFile;
use crate::config::metric_server::{self, HTTP, Kind, UDP};
use crate::http::{ApiError, Reply};
use crate::router::schema::DIGEST;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

const NAME: Property = Property::required("name", &value::CONFIG_ID);
const ITEM: &[Property] = &[NAME];
const REMOVE: &[Property] = &[NAME, DIGEST];

/// The calls on one kind of server.
struct Calls {
    kind: Kind,
    all: &'static str,
    one: &'static str,
    create: &'static LazyLock<Vec<Property>>,
    update: &'static LazyLock<Vec<Property>>,
}

fn creating(kind: Kind) -> Vec<Property> {
    [NAME]
        .into_iter()
        .chain(kind.properties.list.iter().copied())
        .collect()
}

fn updating(kind: Kind, delete: &'static Schema) -> Vec<Property> {
    let fields = kind.properties.list.iter();
    let fields = fields.map(|property| Property::optional(property.name, property.schema));
    let own = [NAME, Property::optional("delete", delete), DIGEST];
    own.into_iter().chain(fields).collect()
}

static HTTP_WORDS: Schema = Schema::words(HTTP.deletable);
static HTTP_DELETE: Schema = Schema::array(&HTTP_WORDS);
static UDP_WORDS: Schema = Schema::words(UDP.deletable);
static UDP_DELETE: Schema = Schema::array(&UDP_WORDS);
static HTTP_CREATE: LazyLock<Vec<Property>> = LazyLock::new(|| creating(HTTP));
static HTTP_UPDATE: LazyLock<Vec<Property>> = LazyLock::new(|| updating(HTTP, &HTTP_DELETE));
static UDP_CREATE: LazyLock<Vec<Property>> = LazyLock::new(|| creating(UDP));
static UDP_UPDATE: LazyLock<Vec<Property>> = LazyLock::new(|| updating(UDP, &UDP_DELETE));

const CALLS: [Calls; 2] = [
    Calls {
        kind: HTTP,
        all: "/config/metrics/influxdb-http",
        one: "/config/metrics/influxdb-http/{name}",
        create: &HTTP_CREATE,
        update: &HTTP_UPDATE,
    },
    Calls {
        kind: UDP,
        all: "/config/metrics/influxdb-udp",
        one: "/config/metrics/influxdb-udp/{name}",
        create: &UDP_CREATE,
        update: &UDP_UPDATE,
    },
];

/// The endpoints of this room, and the list of all servers below `/admin`.
pub fn endpoints() -> Vec<Endpoint> {
    let audit = Permission::all("/", Privileges::SYS_AUDIT);
    let all = Endpoint {
        method: Method::Get,
        path: "/admin/metrics",
        about: "Lists the metric servers of all kinds.",
        params: &[],
        permission: audit,
        handler: Handler::blocking(|context, _| all(context)),
    };
    CALLS.into_iter().flat_map(of_kind).chain([all]).collect()
}

fn of_kind(calls: Calls) -> [Endpoint; 5] {
    let audit = Permission::all("/", Privileges::SYS_AUDIT);
    let modify = Permission::all("/", Privileges::SYS_MODIFY);
    let Calls { kind, all, one, .. } = calls;
    let endpoint = |method, path, about, params, permission, handler| Endpoint {
        method,
        path,
        about,
        params,
        permission,
        handler,
    };
    [
        endpoint(
            Method::Get,
            all,
            "Lists the metric servers of this kind.",
            &[],
            audit,
            Handler::blocking(move |context, _| list(context, kind)),
        ),
        endpoint(
            Method::Post,
            all,
            "Adds a metric server, after its connection was tested.",
            calls.create.as_slice(),
            modify,
            Handler::blocking(move |context, params| create(context, params, kind)),
        ),
        endpoint(
            Method::Get,
            one,
            "Tells the settings of a metric server.",
            ITEM,
            audit,
            Handler::blocking(move |context, params| read(context, params, kind)),
        ),
        endpoint(
            Method::Put,
            one,
            "Changes the settings of a metric server, after its connection was tested.",
            calls.update.as_slice(),
            modify,
            Handler::blocking(move |context, params| update(context, params, kind)),
        ),
        endpoint(
            Method::Delete,
            one,
            "Removes a metric server.",
            REMOVE,
            modify,
            Handler::blocking(move |context, params| remove(context, params, kind)),
        ),
    ]
}

fn list(context: &RequestContext, kind: Kind) -> Result<Reply, ApiError> {
    let servers = metric_server::list(context.server().config(), kind)?;
    Ok(Reply::data(&servers.data)?.with_digest(servers.digest))
}

fn all(context: &RequestContext) -> Result<Reply, ApiError> {
    let loaded = context
        .server()
        .config()
        .sections(SectionFile::MetricServer)?;
    let servers = loaded.data.iter().map(|(name, section)| {
        let mut item = Map::new();
        item.insert("name".to_owned(), name.into());
        item.insert("type".to_owned(), section.ty.into());
        let property = |key: &str| section.properties.get(key).cloned();
        if let Some(server) = property("url").or_else(|| property("host")) {
            item.insert("server".to_owned(), server);
        }
        for key in ["enable", "comment"] {
            if let Some(value) = property(key) {
                item.insert(key.to_owned(), value);
            }
        }
        Value::Object(item)
    });
    Ok(Reply::data(&servers.collect::<Vec<_>>())?.with_digest(loaded.digest))
}

fn read(context: &RequestContext, params: &Params, kind: Kind) -> Result<Reply, ApiError> {
    let name = params.required_text("name")?;
    let config = context.server().config();
    let server = metric_server::get(config, kind, name).map_err(edit_error)?;
    Ok(Reply::data(&server.data)?.with_digest(server.digest))
}

fn create(context: &RequestContext, params: &Params, kind: Kind) -> Result<Reply, ApiError> {
    let name = params.required_text("name")?;
    let config = context.server().config();
    metric_server::create(config, kind, name, params.without(&["name"])).map_err(edit_error)?;
    Ok(Reply::null())
}

fn update(context: &RequestContext, params: &Params, kind: Kind) -> Result<Reply, ApiError> {
    let name = params.required_text("name")?;
    let properties = params.without(&["name", "delete", "digest"]);
    let change = (&properties, &*params.owned_texts("delete"));
    let config = context.server().config();
    metric_server::update(config, (kind, name), change, params.text("digest"))
        .map_err(edit_error)?;
    Ok(Reply::null())
}

fn remove(context: &RequestContext, params: &Params, kind: Kind) -> Result<Reply, ApiError> {
    let name = params.required_text("name")?;
    let config = context.server().config();
    metric_server::remove(config, (kind, name), params.text("digest")).map_err(edit_error)?;
    Ok(Reply::null())
}
