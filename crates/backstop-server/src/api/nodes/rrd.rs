//! `/nodes/{node}/rrd`: what was measured of the host over time.

use backstop_types::Privileges;
use backstop_types::schema::{Property, Schema};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::http::{ApiError, Reply};
use crate::router::schema::NODE_NAME;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};
use crate::rrd::{Consolidation, Extract, Timeframe};

static TIMEFRAMES: Schema = Schema::words(&["hour", "day", "week", "month", "year", "decade"]);
static CONSOLIDATIONS: Schema = Schema::words(&["MAX", "AVERAGE"]);
/// How far back, and how precisely.
pub const TIMEFRAME: Property = Property::required("timeframe", &TIMEFRAMES);
/// What becomes of several values.
pub const CONSOLIDATION: Property = Property::required("cf", &CONSOLIDATIONS);

const NAMES: &[&str] = &[
    "cpu",
    "iowait",
    "memtotal",
    "memused",
    "swaptotal",
    "swapused",
    "netin",
    "netout",
    "loadavg",
    "total",
    "used",
    "read_ios",
    "read_bytes",
    "write_ios",
    "write_bytes",
    "io_ticks",
];

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        method: Method::Get,
        path: "/nodes/{node}/rrd",
        about: "Tells load, memory, network and disk over time.",
        params: &[NODE_NAME, CONSOLIDATION, TIMEFRAME],
        permission: Permission::all("/system/status", Privileges::SYS_AUDIT),
        handler: Handler::blocking(|context, params| history(context, params, "host", NAMES)),
    }]
}

/// The history of an object, one record for each time.
///
/// # Errors
/// The parameters are missing.
pub fn history(
    context: &RequestContext,
    params: &Params,
    object: &str,
    names: &[&'static str],
) -> Result<Reply, ApiError> {
    let timeframe = Timeframe::named(params.required_text("timeframe")?)
        .ok_or_else(|| ApiError::parameter("timeframe", "unknown timeframe"))?;
    let consolidation = match params.required_text("cf")? {
        "MAX" => Consolidation::Max,
        _ => Consolidation::Average,
    };
    let now = Timestamp::now().as_second();
    let rrd = context.server().rrd();
    Reply::data(&rows(&rrd.extract(
        object,
        names,
        timeframe,
        consolidation,
        now,
    )))
}

fn rows(extract: &Extract) -> Vec<Map<String, Value>> {
    let count = extract.values.values().map(Vec::len).max().unwrap_or(0);
    let mut time = extract.start;
    let row = |index: usize| {
        let mut row = Map::from_iter([("time".to_owned(), Value::from(time))]);
        for (name, values) in &extract.values {
            if let Some(Some(value)) = values.get(index) {
                row.insert((*name).to_owned(), Value::from(*value));
            }
        }
        time = time.saturating_add(extract.resolution);
        row
    };
    (0..count).map(row).collect()
}
