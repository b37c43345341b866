//! `/admin/prune` and `/admin/verify`: jobs with their last and next runs, and running them now.

use backstop_types::schema::Property;
use backstop_types::section_config::SectionConfig;
use serde_json::{Map, Value};

use super::datastore::parameters::STORE_FILTER;
use crate::api::config::jobs::{ID, JobCalls, PRUNE, VERIFY};
use crate::config::jobs::{JobFile, is_disabled};
use crate::http::error::chain;
use crate::http::{ApiError, Reply};
use crate::jobs::{self, JobId, JobStatus};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};
use crate::server::Server;

const FILTER: &[Property] = &[STORE_FILTER];
const ITEM: &[Property] = &[ID];

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    let prune = calls(&PRUNE, "/admin/prune", "/admin/prune/{id}/run");
    let verify = calls(&VERIFY, "/admin/verify", "/admin/verify/{id}/run");
    prune.into_iter().chain(verify).collect()
}

fn calls(calls: &'static JobCalls, all: &'static str, run: &'static str) -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::Get,
            path: all,
            about: "Lists the jobs with their last and next runs.",
            params: FILTER,
            // Shows each caller what it may see.
            permission: Permission::Anybody,
            handler: Handler::blocking(move |context, params| list(calls, context, params)),
        },
        Endpoint {
            method: Method::Post,
            path: run,
            about: "Runs a job now.",
            params: ITEM,
            // Depends on the job: the handler checks.
            permission: Permission::Anybody,
            handler: Handler::blocking(move |context, params| start(calls, context, params)),
        },
    ]
}

fn list(calls: &JobCalls, context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let loaded = server.config().sections(calls.file.file)?;
    let store = params.text("store");
    let mut list = Vec::new();
    for (id, section) in loaded.data.iter() {
        let text = |key: &str| section.properties.get(key).and_then(Value::as_str);
        if store.is_some_and(|store| text("store") != Some(store))
            || !calls.allows(context, &section.properties, calls.list)?
        {
            continue;
        }
        let item = with_status(context.server(), calls.file, id, &loaded.data);
        list.push(item);
    }
    Ok(Reply::data(&list)?.with_digest(loaded.digest))
}

/// A job as the API shows it, with its last and next runs.
pub(super) fn with_status(
    server: &Server,
    file: &JobFile,
    id: &str,
    config: &SectionConfig,
) -> Map<String, Value> {
    let mut item = config.to_api(id).unwrap_or_default();
    let schedule = item.get("schedule").and_then(Value::as_str);
    let schedule = schedule.filter(|_| !is_disabled(&item));
    let status = JobStatus::of(server, &JobId::new(file.kind, id), schedule)
        // One that cannot be read must not hide the jobs.
        .unwrap_or_else(|err| {
            tracing::warn!(
                id,
                err = chain(&err),
                "nothing is known of the runs of this job"
            );
            JobStatus::default()
        });
    if let Ok(Value::Object(status)) = serde_json::to_value(status) {
        item.extend(status);
    }
    item
}

fn start(calls: &JobCalls, context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let id = params.required_text("id")?;
    calls.check(context, &calls.properties(context, id)?, calls.write)?;
    let job = JobId::new(calls.file.kind, id);
    let upid = jobs::start(context.server(), &job, context.auth_id()?, None)?;
    Reply::data(&upid.to_string())
}
