//! Garbage collection: starting it, and the result of the last run.

use backstop_types::record::{DatastoreConfig, GcJobStatus};
use backstop_types::schema::Property;
use backstop_types::{Namespace, Operation, Privileges};

use super::parameters::{STORE, STORE_FILTER, store};
use crate::datastores::DatastoreHandle;
use crate::http::error::chain;
use crate::http::{ApiError, Reply};
use crate::jobs::{self, JobId, JobKind, JobStatus};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};
use crate::task::{TaskContext, TaskFailure};

const ALONE: &[Property] = &[STORE];
const FILTER: &[Property] = &[STORE_FILTER];

/// The endpoints on one datastore.
pub fn endpoints() -> Vec<Endpoint> {
    const PATH: &str = "/admin/datastore/{store}/gc";
    vec![
        Endpoint {
            method: Method::Get,
            path: PATH,
            about: "Result of the last garbage collection.",
            params: ALONE,
            permission: Permission::all("/datastore/{store}", Privileges::DATASTORE_AUDIT),
            handler: Handler::blocking(status),
        },
        Endpoint {
            method: Method::Post,
            path: PATH,
            about: "Starts a garbage collection.",
            params: ALONE,
            permission: Permission::all("/datastore/{store}", Privileges::DATASTORE_MODIFY),
            handler: Handler::blocking(start),
        },
    ]
}

/// The endpoints on all datastores.
pub fn gc_endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint {
            method: Method::Get,
            path: "/admin/gc",
            about: "Results of the last garbage collections.",
            params: FILTER,
            // shows each caller what it may see
            permission: Permission::Anybody,
            handler: Handler::blocking(list),
        },
        Endpoint {
            method: Method::Get,
            path: "/admin/gc/{store}",
            about: "Result of the last garbage collection, as a list.",
            params: ALONE,
            permission: Permission::all("/datastore/{store}", Privileges::DATASTORE_AUDIT),
            handler: Handler::blocking(|context, params| {
                let config = context.server().datastores().config(&store(params)?)?;
                Reply::data(&[job_status(context, &config)?])
            }),
        },
    ]
}

fn status(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let config = context.server().datastores().config(&store(params)?)?;
    Reply::data(&job_status(context, &config)?)
}

fn list(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let caller = context.auth_id()?;
    let wanted = params.text("store");
    let mut list = Vec::new();
    for config in server.datastores().configs()? {
        let path = Namespace::root().acl_path(&config.name);
        let audit = server
            .privileges(caller, &path)
            .contains(Privileges::DATASTORE_AUDIT);
        if !audit || wanted.is_some_and(|wanted| wanted != config.name.as_str()) {
            continue;
        }
        match job_status(context, &config) {
            Ok(status) => list.push(status),
            // one that cannot be opened must not hide the others
            Err(err) => tracing::warn!(store = %config.name, %err, "no garbage collection status"),
        }
    }
    Reply::data(&list)
}

fn job_status(context: &RequestContext, config: &DatastoreConfig) -> Result<GcJobStatus, ApiError> {
    let server = context.server();
    let datastore = server.datastores().lookup(&config.name, Operation::Read)?;
    let status = datastore.gc_status();
    let job = JobId::new(JobKind::GarbageCollection, config.name.to_string());
    let run = JobStatus::of(server, &job, config.gc_schedule.as_deref())
        .map_err(|err| ApiError::bad_request(chain(&err)))?;
    // A collection that was not started as a job is only known by its result.
    let last = status
        .task()
        .filter(|upid| run.last_run_upid.is_none() && !server.tasks().is_running(upid));
    let last = last.map(|upid| (server.tasks().status(&upid), upid.starttime));
    let start = run.last_run_upid.as_ref().map(|upid| upid.starttime);
    let start = start.or(last.as_ref().map(|(_, start)| *start));
    let end = run
        .last_run_endtime
        .or(last.as_ref().map(|((end, _), _)| *end));
    Ok(GcJobStatus {
        store: config.name.clone(),
        schedule: config.gc_schedule.clone(),
        next_run: run.next_run,
        last_run_endtime: end,
        last_run_state: run
            .last_run_state
            .or_else(|| last.map(|((_, state), _)| state.to_string())),
        duration: end.zip(start).map(|(end, start)| end.saturating_sub(start)),
        status,
    })
}

fn start(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let job = JobId::new(JobKind::GarbageCollection, store(params)?.to_string());
    let upid = jobs::start(context.server(), &job, context.auth_id()?, None)?;
    Reply::data(&upid.to_string())
}

/// Collects the garbage of a datastore: the work of a task.
pub fn collect_garbage(datastore: &DatastoreHandle, task: &TaskContext) -> Result<(), TaskFailure> {
    datastore.collect_garbage(Some(&task.upid().to_string()), task)?;
    Ok(())
}
