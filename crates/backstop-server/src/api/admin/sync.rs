//! `/admin/sync`: sync jobs with their last and next runs, and running them now.

use backstop_types::Upid;
use backstop_types::record::SyncJobConfig;
use backstop_types::schema::Property;
use serde_json::{Map, Value};

use super::datastore::parameters::STORE_FILTER;
use super::jobs::with_status;
use crate::api::config::jobs::ID;
use crate::api::config::sync::{DIRECTION, check_run, properties, visible};
use crate::config::SectionFile;
use crate::config::jobs::SYNC_JOBS;
use crate::http::{ApiError, Reply};
use crate::jobs::{self, JobId, JobKind};
use crate::router::schema::BOOLEAN;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};
use crate::sync::Sync;
use crate::task::TaskSpec;

const FILTER: &[Property] = &[STORE_FILTER, DIRECTION];
const RUN: &[Property] = &[ID, Property::optional("dry-run", &BOOLEAN)];

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::Get,
            path: "/admin/sync",
            about: "Lists the sync jobs with their last and next runs.",
            params: FILTER,
            // Shows each caller what it may see.
            permission: Permission::Anybody,
            handler: Handler::blocking(list),
        },
        Endpoint {
            method: Method::Post,
            path: "/admin/sync/{id}/run",
            about: "Runs a sync job now, or tells what it would do.",
            params: RUN,
            // Depends on the job: the handler checks.
            permission: Permission::Anybody,
            handler: Handler::blocking(start),
        },
    ]
}

fn list(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let loaded = server.config().sections(SectionFile::Sync)?;
    let store = params.text("store");
    let mut list = Vec::new();
    for id in visible(context, params, &loaded.data)? {
        let item = with_status(server, &SYNC_JOBS, id, &loaded.data);
        if store.is_none_or(|store| item.get("store").and_then(Value::as_str) == Some(store)) {
            list.push(item);
        }
    }
    Ok(Reply::data(&list)?.with_digest(loaded.digest))
}

fn start(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let id = params.required_text("id")?;
    let properties = properties(context, id)?;
    check_run(context, &properties)?;
    if params.bool("dry-run", false) {
        let upid = tell(context, id, properties)?;
        return Reply::data(&upid.to_string());
    }
    let job = JobId::new(JobKind::Sync, id);
    let upid = jobs::start(context.server(), &job, context.auth_id()?, None)?;
    Reply::data(&upid.to_string())
}

/// Starts a task that tells what a job would do. It is no run of the job, which may run meanwhile.
fn tell(
    context: &RequestContext,
    id: &str,
    properties: Map<String, Value>,
) -> Result<Upid, ApiError> {
    let server = context.server();
    let config = SyncJobConfig::from_api(properties)
        .map_err(|err| ApiError::bad_request(err.to_string()))?;
    let owner = config.owner();
    let sync = Sync::prepare(server, config, owner)?;
    let worker_id = sync.config().worker_id(id);
    let spec = TaskSpec::new("sync", worker_id, context.auth_id()?).on(sync.datastore());
    let upid = server
        .tasks()
        .spawn_from_thread(spec, |task| sync.run_dry(task))?;
    Ok(upid)
}
