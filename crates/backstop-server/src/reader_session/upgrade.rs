//! `GET /reader`: from the request to the running session.

use std::sync::Arc;

use backstop_datastore::LockMode;
use backstop_types::schema::Property;
use backstop_types::{AuthId, Operation, Privileges};
use tokio::sync::oneshot;

use super::session::{MAX_CALLS, ReaderSession, ReaderSource};
use crate::api::admin::datastore::on_thread;
use crate::api::admin::datastore::parameters::{
    GROUP_ID, NS, SNAPSHOT_TIME, STORE, TYPE, namespace, snapshot, store,
};
use crate::http::upgrade::{Upgrade, UpgradedConnection};
use crate::http::{ApiError, Reply};
use crate::router::schema::BOOLEAN;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};
use crate::session_http2::calls::answer;
use crate::session_http2::{Http2Limits, serve};
use crate::task::{TaskContext, TaskFailure, TaskSpec};

/// Name of the protocol in the upgrade headers.
pub const PROTOCOL: &str = "proxmox-backup-reader-protocol-v1";

const PARAMS: &[Property] = &[
    STORE,
    SNAPSHOT_TIME,
    GROUP_ID,
    TYPE,
    NS,
    Property::optional("debug", &BOOLEAN),
];

/// The endpoint.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        method: Method::Get,
        path: "/reader",
        about: "Upgrades the connection to a reader session.",
        params: PARAMS,
        // the handler checks the namespace and the owner
        permission: Permission::Anybody,
        handler: Handler::upgrade(upgrade),
    }]
}

struct Setup {
    source: ReaderSource,
    auth_id: AuthId,
    worker_id: String,
    debug: bool,
}

async fn upgrade(
    context: RequestContext,
    params: Params,
    upgrade: Upgrade,
) -> Result<Reply, ApiError> {
    let server = Arc::clone(context.server());
    let (upgrade, setup) = on_thread(context, params, move |context, params| {
        prepare(context, params, &upgrade).map(|setup| (upgrade, setup))
    })
    .await?;
    let spec = TaskSpec::new("reader", setup.worker_id.clone(), &setup.auth_id);
    let spec = spec.on(&setup.source.datastore);
    let (connected, connection) = oneshot::channel();
    server
        .tasks()
        .spawn(spec, move |task| run(task, setup, connection))
        .await?;
    Ok(upgrade.accept(PROTOCOL, move |connection| async move {
        // the worker is gone only if the task was aborted already
        let _ = connected.send(connection);
    }))
}

fn prepare(
    context: &RequestContext,
    params: &Params,
    upgrade: &Upgrade,
) -> Result<Setup, ApiError> {
    let auth_id = context.auth_id()?.clone();
    let (name, ns, snapshot) = (store(params)?, namespace(params)?, snapshot(params)?);
    let path = ns.acl_path(&name);
    let granted = context.server().privileges(&auth_id, &path);
    if !granted.intersects(Privileges::DATASTORE_READ.union(Privileges::DATASTORE_BACKUP)) {
        return Err(ApiError::bad_request(format!("no permissions on {path}")));
    }
    let datastore = context
        .server()
        .datastores()
        .lookup(&name, Operation::Read)?;
    upgrade.check_protocol(PROTOCOL)?;
    if !granted.contains(Privileges::DATASTORE_READ)
        && !auth_id.owns(&datastore.owner(&ns, &snapshot.group)?)
    {
        return Err(ApiError::bad_request("backup owner check failed!"));
    }
    if !datastore.snapshot_exists(&ns, &snapshot) {
        return Err(ApiError::bad_request(format!(
            "snapshot {snapshot} does not exist."
        )));
    }
    let lock = datastore.lock_snapshot(&ns, &snapshot, LockMode::Shared)?;
    let worker_id = format!("{name}:{}/{:08X}", snapshot.group, snapshot.time.epoch());
    let source = ReaderSource {
        datastore,
        ns,
        snapshot,
        lock,
    };
    Ok(Setup {
        source,
        auth_id,
        worker_id,
        debug: params.bool("debug", false),
    })
}

type Connection = oneshot::Receiver<std::io::Result<UpgradedConnection>>;

async fn run(task: TaskContext, setup: Setup, connection: Connection) -> Result<(), TaskFailure> {
    let datastore = &setup.source.datastore;
    task.log(format!(
        "starting new backup reader datastore '{}': {:?}",
        datastore.name(),
        datastore.path()
    ));
    let session = Arc::new(ReaderSession::new(setup.source, task.clone(), setup.debug));
    tokio::select! {
        served = serve_connection(Arc::clone(&session), connection) => served?,
        () = task.aborted() => return Err(TaskFailure::new("task aborted")),
    }
    session.log("reader finished successfully");
    Ok(())
}

async fn serve_connection(
    session: Arc<ReaderSession>,
    connection: Connection,
) -> Result<(), TaskFailure> {
    let connection = connection
        .await
        .map_err(|_| TaskFailure::new("connection error: connection closed"))??;
    session.debug(|| "protocol upgrade done".to_owned());
    let limits = Http2Limits { streams: MAX_CALLS };
    Ok(serve(connection, limits, move |request| {
        answer(Arc::clone(&session), request)
    })
    .await?)
}
