//! `/backstop/heartbeats`: who is told of finished runs. The URLs go in and never come out.

use std::collections::BTreeMap;

use backstop_heartbeat::{Monitor, Push, Receiver, Signal};
use backstop_outgoing::Undelivered;
use backstop_types::Privileges;
use backstop_types::config_schema::value;
use backstop_types::schema::{Property, Schema};
use serde_json::{Map, Value, json};

use crate::api::edit_error;
use crate::heartbeats;
use crate::http::{ApiError, Reply};
use crate::router::schema::BOOLEAN;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

const WHERE: &str = "/system/notifications";

static URL: Schema = Schema::text(8, 2048, backstop_types::schema::Format::Pattern(is_line));
static RECEIVER: Schema = Schema::words(&Receiver::NAMES);
static STATUS: Schema = Schema::words(&["up", "down"]);
static DELETABLE: Schema = Schema::words(&Monitor::DELETABLE);
static DELETE: Schema = Schema::array(&DELETABLE);

fn is_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

const NAME: Property = Property::required("name", &value::CONFIG_ID);

/// These properties, and all those that a heartbeat may have or not.
macro_rules! with_settings {
    ($($property:expr),+) => {
        &[
            $($property,)+
            Property::optional("receiver", &RECEIVER),
            Property::optional("job", &value::LINE),
            Property::optional("store", &value::CONFIG_ID),
            Property::optional("ns", &value::NAMESPACE),
            Property::optional("group", &value::LINE),
            Property::optional("tls-server-name", &value::LINE),
            Property::optional("ca-file", &value::LINE),
            Property::optional("verify-tls", &BOOLEAN),
            Property::optional("start", &BOOLEAN),
            Property::optional("exit-code", &BOOLEAN),
            Property::optional("warnings-are-down", &BOOLEAN),
            Property::optional("disable", &BOOLEAN),
            Property::optional("comment", &value::COMMENT),
        ]
    };
}

const ONE: &[Property] = &[NAME];
const CREATE: &[Property] = with_settings!(NAME, Property::required("url", &URL));
const UPDATE: &[Property] = with_settings!(
    NAME,
    Property::optional("url", &URL),
    Property::optional("delete", &DELETE)
);
const TEST: &[Property] = &[NAME, Property::optional("status", &STATUS)];

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    let all = "/backstop/heartbeats";
    let one = "/backstop/heartbeats/{name}";
    let endpoint = |method, path, about, params, permission, handler| Endpoint {
        method,
        path,
        about,
        params,
        permission,
        handler: Handler::blocking(handler),
    };
    let (audit, modify) = (
        Permission::all(WHERE, Privileges::SYS_AUDIT),
        Permission::all(WHERE, Privileges::SYS_MODIFY),
    );
    vec![
        endpoint(
            Method::Get,
            all,
            "All heartbeats, and what has not arrived at their receivers.",
            &[],
            audit,
            list as fn(&RequestContext, &Params) -> Result<Reply, ApiError>,
        ),
        endpoint(
            Method::Post,
            all,
            "Adds a heartbeat: a push URL that is told of each finished run of what it watches.",
            CREATE,
            modify,
            create,
        ),
        endpoint(
            Method::Get,
            one,
            "One heartbeat, and its pushes that have not arrived.",
            ONE,
            audit,
            show,
        ),
        endpoint(
            Method::Put,
            one,
            "Changes a heartbeat.",
            UPDATE,
            modify,
            update,
        ),
        endpoint(
            Method::Delete,
            one,
            "Removes a heartbeat.",
            ONE,
            modify,
            remove,
        ),
        endpoint(
            Method::Post,
            "/backstop/heartbeats/{name}/test",
            "Sends a push, and says whether the receiver took it.",
            TEST,
            modify,
            test,
        ),
    ]
}

fn refused(err: backstop_outgoing::SpoolError) -> ApiError {
    ApiError::bad_request(err.to_string())
}

fn list(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let monitors = heartbeats::monitors(server.config())?;
    let mut stuck: BTreeMap<String, Vec<Undelivered>> = BTreeMap::new();
    for push in server.heartbeats().undelivered().map_err(refused)? {
        stuck.entry(push.lane.clone()).or_default().push(push);
    }
    let rows = monitors.iter().map(|(name, monitor)| {
        let mut row = heartbeats::shown(name, monitor);
        let stuck = stuck.get(name).map_or(&[][..], Vec::as_slice);
        row.insert("undelivered".to_owned(), json!(stuck.len()));
        if let Some(first) = stuck.first() {
            row.insert("first-failure".to_owned(), json!(first.first_failure));
            row.insert("last-error".to_owned(), json!(first.last_error));
        }
        row
    });
    Reply::data(&rows.collect::<Vec<_>>())
}

fn show(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (server, name) = (context.server(), params.required_text("name")?);
    let monitor = heartbeats::get(server.config(), name).map_err(edit_error)?;
    let stuck = server.heartbeats().undelivered().map_err(refused)?;
    let stuck: Vec<_> = stuck.into_iter().filter(|push| push.lane == name).collect();
    let mut view = heartbeats::shown(name, &monitor);
    view.insert("undelivered".to_owned(), json!(stuck));
    Reply::data(&view)
}

fn properties(params: &Params) -> Map<String, Value> {
    params.without(&["name", "delete"])
}

fn create(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (server, name) = (context.server(), params.required_text("name")?);
    heartbeats::create(server.config(), name, properties(params)).map_err(edit_error)?;
    Ok(Reply::null())
}

fn update(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (server, name) = (context.server(), params.required_text("name")?);
    let delete = params.owned_texts("delete");
    heartbeats::update(server.config(), name, properties(params), &delete).map_err(edit_error)?;
    // What has failed may arrive now.
    server.heartbeats().retry();
    Ok(Reply::null())
}

fn remove(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (server, name) = (context.server(), params.required_text("name")?);
    heartbeats::remove(server.config(), name).map_err(edit_error)?;
    server.heartbeats().retry();
    Ok(Reply::null())
}

fn test(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let (server, name) = (context.server(), params.required_text("name")?);
    let monitor = heartbeats::get(server.config(), name).map_err(edit_error)?;
    let signal = match params.text("status") {
        Some("down") => Signal::Down,
        _ => Signal::Up,
    };
    let push = Push {
        signal,
        message: format!("test of heartbeat {name} on {}", server.node()),
        duration: None,
        run: None,
    };
    heartbeats::send(server.config(), &monitor, &push)
        .map_err(|refusal| ApiError::bad_request(refusal.reason))?;
    Ok(Reply::null())
}
