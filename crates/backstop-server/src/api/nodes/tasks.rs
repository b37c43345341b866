//! `/nodes/{node}/tasks`: the list of tasks, and state, log and end of a single one.

use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;

use backstop_types::config_schema::value;
use backstop_types::record::{LogLine, TaskItem, TaskState, TaskStatus};
use backstop_types::schema::{ANY_TEXT, Property, Schema};
use backstop_types::{Privileges, Upid};
use bytes::Bytes;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use jiff::Timestamp;
use serde_json::json;

use super::task_access::{concerns_store, may_see};
use crate::http::body::{self, BodySender};
use crate::http::{ApiError, Reply};
use crate::router::schema::{BOOLEAN, INTEGER, NODE_NAME};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};
use crate::task::{TaskEntry, read_page};

static STATE: Schema = Schema::words(&["ok", "warning", "error", "unknown"]);
static STATES: Schema = Schema::array(&STATE);

const LIST: &[Property] = &[
    NODE_NAME,
    Property::optional("start", &INTEGER),
    Property::optional("limit", &INTEGER),
    Property::optional("store", &value::CONFIG_ID),
    Property::optional("running", &BOOLEAN),
    Property::optional("errors", &BOOLEAN),
    Property::optional("userfilter", &ANY_TEXT),
    Property::optional("since", &INTEGER),
    Property::optional("until", &INTEGER),
    Property::optional("typefilter", &ANY_TEXT),
    Property::optional("statusfilter", &STATES),
];
const ONE: &[Property] = &[NODE_NAME, Property::required("upid", &value::UPID)];
const LOG: &[Property] = &[
    NODE_NAME,
    Property::required("upid", &value::UPID),
    Property::optional("start", &INTEGER),
    Property::optional("limit", &INTEGER),
    Property::optional("test-status", &BOOLEAN),
    Property::optional("download", &BOOLEAN),
];

/// Entries, or log lines, of one page unless the caller says otherwise.
const PAGE: u64 = 50;
/// Pieces of a log that is being downloaded.
const PIECE: usize = 64 * 1024;

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::Get,
            path: "/nodes/{node}/tasks",
            about: "Lists tasks, newest first.",
            params: LIST,
            permission: Permission::Anybody,
            handler: Handler::blocking(list),
        },
        Endpoint {
            method: Method::Delete,
            path: "/nodes/{node}/tasks/{upid}",
            about: "Asks a running task to end.",
            params: ONE,
            permission: Permission::Anybody,
            handler: Handler::blocking(stop),
        },
        Endpoint {
            method: Method::Get,
            path: "/nodes/{node}/tasks/{upid}/status",
            about: "Tells the state of a task.",
            params: ONE,
            permission: Permission::Anybody,
            handler: Handler::blocking(status),
        },
        Endpoint {
            method: Method::Get,
            path: "/nodes/{node}/tasks/{upid}/log",
            about: "Reads the log of a task.",
            params: LOG,
            permission: Permission::Anybody,
            handler: Handler::stream(log),
        },
    ]
}

/// Which tasks a caller wants to see.
struct Filter<'a> {
    store: Option<&'a str>,
    user: Option<&'a str>,
    kind: Option<&'a str>,
    since: Option<i64>,
    until: Option<i64>,
    errors: bool,
    states: Vec<&'a str>,
}

impl Filter<'_> {
    fn lets_through(&self, entry: &TaskEntry) -> bool {
        let upid = &entry.upid;
        let state = entry.end.as_ref().map(|(_, state)| state);
        self.store.is_none_or(|store| concerns_store(upid, store))
            && self
                .user
                .is_none_or(|user| upid.auth_id.to_string().contains(user))
            && self.kind.is_none_or(|kind| upid.worker_type.contains(kind))
            && self.since.is_none_or(|since| upid.starttime >= since)
            && self.until.is_none_or(|until| upid.starttime <= until)
            && !(self.errors && state == Some(&TaskState::Ok))
            && (self.states.is_empty()
                || state.is_some_and(|state| self.states.contains(&state.class())))
    }
}

fn list(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let caller = context.auth_id()?;
    let start = params.unsigned("start")?.unwrap_or(0);
    let limit = params.unsigned("limit")?.unwrap_or(PAGE);
    let filter = Filter {
        store: params.text("store"),
        user: params.text("userfilter"),
        kind: params.text("typefilter"),
        since: params.integer("since"),
        until: params.integer("until"),
        errors: params.bool("errors", false),
        states: params.texts("statusfilter"),
    };
    let running = params.bool("running", false);
    let sees_all = server
        .privileges(caller, "/system/tasks")
        .contains(Privileges::SYS_AUDIT);
    let mut found: Vec<TaskItem> = Vec::new();
    let mut skipped = 0;
    let mut full = false;
    server.tasks().list().visit(running, &mut |entry| {
        if !filter.lets_through(&entry) || !(sees_all || may_see(server, caller, &entry.upid)) {
            return ControlFlow::Continue(());
        }
        if skipped < start {
            skipped += 1;
            return ControlFlow::Continue(());
        }
        if limit != 0 && found.len() as u64 >= limit {
            full = true;
            return ControlFlow::Break(());
        }
        let end = entry.end.as_ref().map(|(time, state)| (*time, state));
        found.push(TaskItem::new(entry.upid.clone(), end));
        ControlFlow::Continue(())
    })?;
    // One more than was sent says that asking for more may be worth while.
    full = full || (limit != 0 && found.len() as u64 == limit);
    let total = start
        .saturating_add(found.len() as u64)
        .saturating_add(u64::from(full));
    Ok(Reply::data(&found)?.with("total", total))
}

/// The task of a call, if the caller may see it.
fn visible(context: &RequestContext, params: &Params) -> Result<Upid, ApiError> {
    let upid: Upid = params.required("upid")?;
    if may_see(context.server(), context.auth_id()?, &upid) {
        Ok(upid)
    } else {
        Err(ApiError::bad_request("task access not allowed"))
    }
}

fn status(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let upid = visible(context, params)?;
    let tasks = context.server().tasks();
    if tasks.is_running(&upid) {
        return Reply::data(&TaskStatus::new(upid, None));
    }
    let (time, state) = tasks.status(&upid);
    let has_log = tasks.log_path(&upid).exists();
    let mut status = TaskStatus::new(upid, Some((time, &state)));
    if !has_log {
        status.endtime = None;
    }
    Reply::data(&status)
}

fn stop(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let upid: Upid = params.required("upid")?;
    let caller = context.auth_id()?;
    let granted = context.server().privileges(caller, "/system/tasks");
    if *caller != upid.auth_id && !granted.contains(Privileges::SYS_MODIFY) {
        return Err(ApiError::missing_privilege("Sys.Modify", "/system/tasks"));
    }
    if context.server().tasks().request_abort(&upid) {
        tracing::info!(%upid, %caller, "asked a task to end");
    }
    Ok(Reply::null())
}

async fn log(context: RequestContext, params: Params, _: Incoming) -> Result<Reply, ApiError> {
    tokio::task::spawn_blocking(move || read_log(&context, &params)).await?
}

fn read_log(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let upid = visible(context, params)?;
    let tasks = context.server().tasks();
    let path = tasks.log_path(&upid);
    if params.bool("download", false) {
        if let Some(other) = ["start", "limit", "test-status"]
            .into_iter()
            .find(|name| params.has(name))
        {
            return Err(ApiError::parameter(
                other,
                "cannot be combined with \"download\" parameter",
            ));
        }
        let file = File::open(&path).map_err(crate::task::TaskError::file("open file", &path))?;
        return download(&upid, file);
    }
    let active = params
        .bool("test-status", false)
        .then(|| tasks.is_running(&upid));
    let start = params.unsigned("start")?.unwrap_or(0);
    let page = read_page(&path, start, params.unsigned("limit")?.unwrap_or(PAGE))?;
    let lines: Vec<LogLine> = page
        .lines
        .into_iter()
        .map(|(n, t)| LogLine { n, t })
        .collect();
    let mut reply = json!({ "data": lines, "total": page.total, "success": 1 });
    if let Some(active) = active {
        reply["active"] = json!(active);
    }
    let mut response = Response::new(body::full(reply.to_string()));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(Reply::Raw(response))
}

fn download(upid: &Upid, mut file: File) -> Result<Reply, ApiError> {
    let start = Timestamp::from_second(upid.starttime)?;
    let name = format!(
        "attachment; filename=task-{}-{}-{start}.log",
        upid.node, upid.worker_type
    );
    let (sender, content) = body::streamed(4);
    tokio::task::spawn_blocking(move || send_file(&mut file, &sender));
    let mut response = Response::new(content);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
        .headers_mut()
        .insert(CONTENT_DISPOSITION, HeaderValue::from_str(&name)?);
    Ok(Reply::Raw(response))
}

fn send_file(file: &mut File, sender: &BodySender) {
    let mut buffer = vec![0; PIECE];
    loop {
        let piece = match file.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => Ok(Bytes::copy_from_slice(
                buffer.get(..count).unwrap_or_default(),
            )),
            Err(err) => Err(err),
        };
        let failed = piece.is_err();
        if sender.blocking_send(piece).is_err() || failed {
            return;
        }
    }
}
