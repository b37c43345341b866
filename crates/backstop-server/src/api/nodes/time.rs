//! `/nodes/{node}/time`: clock and time zone of the host.

use jiff::{Zoned, tz::TimeZone};
use serde_json::json;

use crate::http::{ApiError, Reply};
use crate::router::schema::NODE_NAME;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        method: Method::Get,
        path: "/nodes/{node}/time",
        about: "Tells time and time zone.",
        params: &[NODE_NAME],
        permission: Permission::Anybody,
        handler: Handler::blocking(time),
    }]
}

fn time(_: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let now = Zoned::now();
    let time = now.timestamp().as_second();
    Reply::data(&json!({
        "time": time,
        "localtime": time.saturating_add(i64::from(now.offset().seconds())),
        "timezone": zone_name(),
    }))
}

/// The zone's name, from `/etc/timezone`, from the link `/etc/localtime`, or from the environment.
fn zone_name() -> String {
    let file = std::fs::read_to_string("/etc/timezone")
        .ok()
        .map(|text| text.trim().to_owned());
    let link = || {
        let target = std::fs::read_link("/etc/localtime").ok()?;
        target
            .to_str()?
            .split_once("zoneinfo/")
            .map(|(_, name)| name.to_owned())
    };
    file.filter(|name| !name.is_empty())
        .or_else(link)
        .or_else(|| TimeZone::system().iana_name().map(str::to_owned))
        .unwrap_or_else(|| "Etc/UTC".to_owned())
}
