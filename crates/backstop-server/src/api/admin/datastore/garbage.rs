//! Garbage collection: starting it, and the result of the last run.

use backstop_datastore::DatastoreError;
use backstop_types::record::{DatastoreConfig, GcJobStatus};
use backstop_types::schema::Property;
use backstop_types::{Namespace, Operation, Privileges};

use super::parameters::{STORE, STORE_FILTER, store};
use crate::datastores::DatastoreHandle;
use crate::http::{ApiError, Reply};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};
use crate::task::{TaskContext, TaskFailure, TaskSpec};

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
    let last = status
        .task()
        .filter(|upid| !server.tasks().is_running(upid));
    let last = last.map(|upid| (server.tasks().status(&upid), upid.starttime));
    Ok(GcJobStatus {
        store: config.name.clone(),
        schedule: config.gc_schedule.clone(),
        next_run: None,
        last_run_endtime: last.as_ref().map(|((end, _), _)| *end),
        last_run_state: last.as_ref().map(|((_, state), _)| state.to_string()),
        duration: last
            .as_ref()
            .map(|((end, _), start)| end.saturating_sub(*start)),
        status,
    })
}

fn start(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let store = store(params)?;
    let datastore = context
        .server()
        .datastores()
        .lookup(&store, Operation::Write)?;
    if datastore.is_collecting_garbage() {
        return Err(DatastoreError::GarbageCollectionRunning.into());
    }
    let spec =
        TaskSpec::new("garbage_collection", store.to_string(), context.auth_id()?).on(&datastore);
    let upid = context
        .server()
        .tasks()
        .spawn_thread(spec, move |task| collect(&datastore, task))?;
    Reply::data(&upid.to_string())
}

fn collect(datastore: &DatastoreHandle, task: &TaskContext) -> Result<(), TaskFailure> {
    task.log(format!(
        "starting garbage collection on store {}",
        datastore.name()
    ));
    datastore.collect_garbage(Some(&task.upid().to_string()), task)?;
    Ok(())
}
