//! `/status/metrics`: measured values of the host and of the datastores, for monitoring.

use std::collections::HashMap;

use backstop_types::schema::Property;
use backstop_types::{DatastoreName, Namespace, Privileges};
use serde::Serialize;

use crate::http::{ApiError, Reply};
use crate::metrics::{Kind, Reading};
use crate::router::schema::{BOOLEAN, INTEGER};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

pub(super) fn endpoint() -> Endpoint {
    Endpoint {
        method: Method::Get,
        path: "/status/metrics",
        about: "Tells what was measured last, or within the last half hour, as far as the caller may see it.",
        params: PARAMS,
        permission: Permission::Anybody,
        handler: Handler::blocking(metrics),
    }
}

const PARAMS: &[Property] = &[
    Property::optional("start-time", &INTEGER),
    Property::optional("history", &BOOLEAN),
];

/// One value of one object.
#[derive(Serialize)]
struct Point<'a> {
    id: &'a str,
    metric: &'static str,
    timestamp: i64,
    #[serde(rename = "type")]
    kind: Kind,
    value: f64,
}

#[derive(Serialize)]
struct Points<'a> {
    data: Vec<Point<'a>>,
}

fn metrics(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (server, caller) = (context.server(), context.auth_id()?);
    // The start matters for the history alone.
    let generations = if params.bool("history", false) {
        let start = params.integer("start-time").unwrap_or_default();
        server.metrics().since(start)
    } else {
        server.metrics().newest().into_iter().collect()
    };
    let sees_host = server
        .privileges(caller, "/system/status")
        .intersects(Privileges::SYS_AUDIT);
    // The id of each datastore that may be seen.
    let mut ids: HashMap<&DatastoreName, Option<String>> = HashMap::new();
    for (name, _) in generations.iter().flat_map(|known| &known.datastores) {
        ids.entry(name).or_insert_with(|| {
            server
                .privileges(caller, &Namespace::root().acl_path(name))
                .intersects(Privileges::DATASTORE_AUDIT)
                .then(|| format!("datastore/{name}"))
        });
    }
    let mut data = Vec::new();
    for generation in &generations {
        let mut add = |id, readings: &[Reading]| {
            data.extend(readings.iter().map(|reading| Point {
                id,
                metric: reading.metric,
                timestamp: generation.time,
                kind: reading.kind,
                value: reading.value,
            }));
        };
        if sees_host {
            add("host", &generation.host);
        }
        for (name, readings) in &generation.datastores {
            if let Some(Some(id)) = ids.get(name) {
                add(id, readings);
            }
        }
    }
    Reply::data(&Points { data })
}
