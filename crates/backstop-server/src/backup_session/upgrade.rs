//! `GET /backup`: from the request to the running session, and what is left of it at the end.

use std::sync::Arc;
use std::time::Instant;

use backstop_heartbeat::{Event, Outcome, Place, RunId, Source};
use backstop_types::schema::Property;
use backstop_types::{DatastoreName, Operation, Privileges};
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::session::{BackupSession, MAX_CALLS};
use super::target::{BackupRequest, BackupTarget};
use crate::api::admin::datastore::on_thread;
use crate::api::admin::datastore::parameters::{
    GROUP_ID, NS, SNAPSHOT_TIME, STORE, TYPE, namespace, snapshot, store,
};
use crate::http::upgrade::{Upgrade, UpgradedConnection};
use crate::http::{ApiError, Reply};
use crate::notifications::events::BackupEvent;
use crate::router::dispatch;
use crate::router::schema::BOOLEAN;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};
use crate::server::Server;
use crate::session_http2::calls::answer;
use crate::session_http2::{Http2Limits, serve};
use crate::task::{TaskContext, TaskFailure, TaskSpec};

/// Name of the protocol in the upgrade headers.
pub const PROTOCOL: &str = "proxmox-backup-protocol-v1";

const PARAMS: &[Property] = &[
    STORE,
    SNAPSHOT_TIME,
    GROUP_ID,
    TYPE,
    NS,
    Property::optional("debug", &BOOLEAN),
    Property::optional("benchmark", &BOOLEAN),
    // about object storage only
    Property::optional("no-cache", &BOOLEAN),
];

/// The endpoint.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        method: Method::Get,
        path: "/backup",
        about: "Upgrades the connection to a backup session.",
        params: PARAMS,
        // the handler checks Datastore.Backup on the namespace
        permission: Permission::Anybody,
        handler: Handler::upgrade(upgrade),
    }]
}

/// What a session needs beside its target.
struct Setup {
    target: Arc<BackupTarget>,
    worker_type: &'static str,
    worker_id: String,
    start: String,
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
    let target = Arc::clone(&setup.target);
    let request = target.request();
    let spec = TaskSpec::new(setup.worker_type, setup.worker_id.clone(), &request.auth_id);
    let spec = spec.on(target.datastore());
    let (connected, connection) = oneshot::channel();
    let worker = Arc::clone(&server);
    server
        .tasks()
        .spawn(spec, move |task| run(worker, task, setup, connection))
        .await?;
    let store = request.store.to_string();
    let creating = Arc::clone(&target);
    let created = dispatch::on_thread(&server, Some(&store), move || creating.create()).await;
    if let Err(err) = created {
        // the task ends with the same reason; unless it was aborted already
        let _ = connected.send(Err(std::io::Error::other(err.to_string())));
        return Err(err);
    }
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
    let (name, ns, snapshot): (DatastoreName, _, _) =
        (store(params)?, namespace(params)?, snapshot(params)?);
    let path = ns.acl_path(&name);
    let server = context.server();
    if !server
        .privileges(&auth_id, &path)
        .contains(Privileges::DATASTORE_BACKUP)
    {
        return Err(ApiError::missing_privilege("Datastore.Backup", &path));
    }
    let datastore = server.datastores().lookup(&name, Operation::Write)?;
    upgrade.check_protocol(PROTOCOL)?;
    if !datastore.namespace_exists(&ns) {
        return Err(ApiError::not_found("namespace not found"));
    }
    let group = snapshot.group.clone();
    let benchmark = params.bool("benchmark", false);
    match (benchmark, group.to_string() == "host/benchmark") {
        (true, false) => {
            return Err(ApiError::bad_request(
                "benchmark flags is only allowed on 'host/benchmark'",
            ));
        }
        (false, true) => {
            return Err(ApiError::bad_request(
                "unable to run benchmark without --benchmark flags",
            ));
        }
        _ => {}
    }
    let request = BackupRequest {
        store: name.clone(),
        ns,
        snapshot,
        auth_id,
        benchmark,
    };
    let target = Arc::new(BackupTarget::open(datastore, request)?);
    let worker_type = if benchmark { "benchmark" } else { "backup" };
    let from = context.peer().ip();
    Ok(Setup {
        start: format!(
            "starting new {worker_type} on datastore '{name}' from {from}: {:?}",
            target.relative_path()
        ),
        worker_type,
        worker_id: format!("{name}:{group}"),
        target,
        debug: params.bool("debug", false),
    })
}

type Connection = oneshot::Receiver<std::io::Result<UpgradedConnection>>;

async fn run(
    server: Arc<Server>,
    task: TaskContext,
    setup: Setup,
    connection: Connection,
) -> Result<(), TaskFailure> {
    task.log(&setup.start);
    let started = Instant::now();
    let telling = Telling::start(&server, &task, setup.target.request()).await;
    let session = Arc::new(BackupSession::new(
        setup.target,
        server.chunk_gate().clone(),
        task.clone(),
        setup.debug,
    ));
    let served = tokio::select! {
        served = serve_connection(Arc::clone(&session), connection) => served,
        () = task.aborted() => Err(TaskFailure::new("task aborted")),
    };
    let concluded = conclude(&server, &session, served).await;
    telling.end(&concluded).await;
    tell(&server, &session, &task, &concluded, started).await;
    concluded
}

/// What the heartbeats are told of a session: its start, and whatever happens, its end.
struct Telling {
    server: Arc<Server>,
    /// `None` for benchmarks, which are no backups, and once the end is told.
    event: Option<Event>,
    begun: Instant,
}

impl Telling {
    async fn start(server: &Arc<Server>, task: &TaskContext, request: &BackupRequest) -> Self {
        let place = Place {
            store: request.store.clone(),
            ns: request.ns.clone(),
        };
        let event = (!request.benchmark).then(|| Event {
            source: Source::Backup(place, request.snapshot.group.clone()),
            outcome: Outcome::Started,
            started: task.upid().starttime,
            duration: 0,
            run: RunId::of_task(task.upid()),
        });
        let telling = Self {
            server: Arc::clone(server),
            event,
            begun: Instant::now(),
        };
        if let Some(event) = telling.event.clone() {
            telling.tell(event).await;
        }
        telling
    }

    /// Before the task ends, so that what it did is told in order.
    async fn end(mut self, concluded: &Result<(), TaskFailure>) {
        let outcome = match concluded {
            Ok(()) => Outcome::Ok,
            Err(failure) => Outcome::Failed(failure.to_string()),
        };
        if let Some(event) = self.ended(outcome) {
            self.tell(event).await;
        }
    }

    fn ended(&mut self, outcome: Outcome) -> Option<Event> {
        let lasted = self.begun.elapsed().as_millis();
        Some(Event {
            outcome,
            duration: u64::try_from(lasted).unwrap_or(u64::MAX),
            ..self.event.take()?
        })
    }

    async fn tell(&self, event: Event) {
        let server = Arc::clone(&self.server);
        let told = tokio::task::spawn_blocking(move || server.heartbeats().note(&event));
        if let Err(err) = told.await {
            tracing::error!(%err, "nobody is told of this backup");
        }
    }
}

impl Drop for Telling {
    /// The session was given up, with its datastore or by a fault.
    fn drop(&mut self) {
        let reason = "the session ended without a result".to_owned();
        if let Some(event) = self.ended(Outcome::Failed(reason)) {
            let server = Arc::clone(&self.server);
            let data = self.server.runtimes().data.clone();
            data.spawn_blocking(move || server.heartbeats().note(&event));
        }
    }
}

/// Tells how it ended.
async fn tell(
    server: &Arc<Server>,
    session: &BackupSession,
    task: &TaskContext,
    result: &Result<(), TaskFailure>,
    started: Instant,
) {
    let request = session.target().request();
    if request.benchmark {
        return;
    }
    let event = BackupEvent {
        datastore: request.store.to_string(),
        namespace: request.ns.to_string(),
        group: request.snapshot.group.to_string(),
        snapshot: request.snapshot.to_string(),
        author: request.auth_id.to_string(),
        upid: task.upid().to_string(),
    };
    let seconds = i64::try_from(started.elapsed().as_secs()).unwrap_or(i64::MAX);
    let reason = result.as_ref().err().map(ToString::to_string);
    let server = Arc::clone(server);
    let told = tokio::task::spawn_blocking(move || {
        let notifier = server.notifier();
        let outcome = reason.as_deref().map_or(Ok(seconds), Err);
        let now = Timestamp::now().as_second();
        notifier.notify(&event.ended(notifier.host(), now, outcome));
    });
    if let Err(err) = told.await {
        tracing::error!(%err, "the end of a backup is not told");
    }
}

async fn serve_connection(
    session: Arc<BackupSession>,
    connection: Connection,
) -> Result<(), TaskFailure> {
    let connection = connection
        .await
        .map_err(|_| TaskFailure::new("connection error: connection closed"))??;
    session.debug(|| "protocol upgrade done".to_owned());
    let limits = Http2Limits { streams: MAX_CALLS };
    let answering = Arc::clone(&session);
    let served = serve(connection, limits, move |request| {
        answer(Arc::clone(&answering), request)
    });
    match served.await {
        // How a client leaves that is done makes no difference.
        Err(err) if err.is_gone() && session.is_finished() => Ok(()),
        served => Ok(served?),
    }
}

/// What becomes of the snapshot, and of the task.
async fn conclude(
    server: &Arc<Server>,
    session: &Arc<BackupSession>,
    served: Result<(), TaskFailure>,
) -> Result<(), TaskFailure> {
    let finished = session.end().await;
    if session.target().request().benchmark {
        session.log("benchmark finished successfully");
        session.remove().await?;
        return Ok(());
    }
    match (finished, served) {
        (Ok(()), Ok(())) => {
            session.log("backup finished successfully");
            verify_new(server, session).await;
            Ok(())
        }
        (Ok(()), Err(err)) => {
            session.log(format!("backup had errors but finished: {err}"));
            verify_new(server, session).await;
            Ok(())
        }
        (Err(err), Ok(())) => {
            session.log(format!("backup ended and finish failed: {err}"));
            session.log("removing unfinished backup");
            remove(session).await;
            Err(err.into())
        }
        (Err(_), Err(err)) => {
            session.log(format!("backup failed: {err}"));
            session.log("removing failed backup");
            remove(session).await;
            Err(err)
        }
    }
}

async fn remove(session: &Arc<BackupSession>) {
    // On a file system that is away, nothing can be removed. The task ends without waiting for this.
    session.target().datastore().place().available().await;
    session.log(format!(
        "removing backup snapshot {:?}",
        session.target().path()
    ));
    if let Err(err) = session.remove().await {
        session.log(format!("unable to remove the unfinished backup - {err}"));
    }
}

/// Starts the verification that the datastore's settings ask for.
async fn verify_new(server: &Arc<Server>, session: &Arc<BackupSession>) {
    if !session.target().datastore().config().verify_new {
        return;
    }
    let request = session.target().request().clone();
    let worker = Arc::clone(server);
    let started = tokio::task::spawn_blocking(move || start_verification(&worker, request)).await;
    if let Ok(Err(err)) = started {
        session.log(format!(
            "backup finished, but starting the requested verify task failed: {err}"
        ));
    }
}

fn start_verification(server: &Server, request: BackupRequest) -> Result<(), ApiError> {
    let BackupRequest {
        store,
        ns,
        snapshot,
        auth_id,
        ..
    } = request;
    let datastore = server.datastores().lookup(&store, Operation::Read)?;
    let worker_id = format!("{store}:{}/{:08X}", snapshot.group, snapshot.time.epoch());
    let spec = TaskSpec::new("verify", worker_id, &auth_id).on(&datastore);
    server.tasks().spawn_thread(spec, move |task| {
        crate::api::admin::datastore::verify_new(datastore, ns, snapshot, task)
    })?;
    Ok(())
}
