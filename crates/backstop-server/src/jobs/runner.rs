//! Starting a job: its lock, its task, and the note of how that ended.

use std::sync::Arc;
use std::time::Instant;

use backstop_datastore::{DatastoreError, VerifyAge, VerifyThreads};
use backstop_heartbeat::{Event, Job, Outcome, Place, RunId, Source};
use backstop_types::record::{PruneJobConfig, TaskState, VerifyJobConfig};
use backstop_types::{AuthId, NameError, Namespace, Operation, Upid};

use super::order::Order;
use super::state::JobResult;
use super::{JobHistory, JobId, JobKind, JobLock, JobState, JobStateError, SOURCES, SyncOutcome};
use crate::access::realm_sync::RealmSync;
use crate::api::admin::datastore::{DatastorePrune, collect_garbage, verify_groups};
use crate::config::ConfigError;
use crate::datastores::{DatastoreHandle, LookupError};
use crate::notifications::JobRun;
use crate::server::Server;
use crate::sync::Sync;
use crate::task::{TaskContext, TaskError, TaskFailure, TaskSpec};

/// Why a job was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such job.
    #[error("no such {kind} '{id}'")]
    Unknown {
        /// The type of its section in the configuration.
        kind: &'static str,
        /// The id.
        id: String,
    },
    /// It runs already, which ends by itself.
    #[error("{job} is running already; wait for its end, or stop its task first")]
    Running {
        /// The job.
        job: JobId,
    },
    /// The same for a garbage collection, in the words that clients know.
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
    /// The datastore is not there, or its maintenance mode forbids it.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration of the job makes no sense.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It cannot run on this server, for this reason.
    #[error("{0}")]
    Unable(String),
    /// Its state file or lock cannot be used.
    #[error(transparent)]
    State(#[from] JobStateError),
    /// Its task cannot be started.
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl StartError {
    /// Whether there is nothing to do but to wait for the end of a run.
    pub fn is_running(&self) -> bool {
        matches!(
            self,
            Self::Running { .. } | Self::Datastore(DatastoreError::GarbageCollectionRunning)
        )
    }
}

/// What a run does.
enum Work {
    GarbageCollection,
    Prune(PruneJobConfig),
    Verify(VerifyJobConfig),
    Sync(Box<Sync>),
}

/// A run that can begin.
struct Run {
    work: Work,
    datastore: DatastoreHandle,
}

/// Starts a job for `caller`, by its `schedule` or, without one, on demand. Returns its task, which is not waited for.
/// Blocking.
///
/// # Errors
/// When it runs already, or cannot be started; then there is no task.
pub fn start(
    server: &Arc<Server>,
    job: &JobId,
    caller: &AuthId,
    schedule: Option<&str>,
) -> Result<Upid, StartError> {
    let order = Order::load(server.config(), job)?;
    let run = Run::prepare(server, &order)?;
    let lock = lock(server, job)?;
    let spec = TaskSpec::new(job.kind.as_str(), order.worker_id(job), caller).on(&run.datastore);
    let (own, schedule) = (job.clone(), schedule.map(str::to_owned));
    let tasks = server.tasks();
    let whom = Whom::of(&order, job);
    let upid = match run.work {
        Work::Sync(sync) => {
            let work = |task| async move { sync.run_job(&own, schedule.as_deref(), task).await };
            tasks.spawn_from_thread(spec, work)?
        }
        work => {
            let run = Run { work, ..run };
            let told = whom.told.clone();
            tasks.spawn_thread(spec, move |task| {
                let mut found = Vec::new();
                let result = run.run(&own, schedule.as_deref(), task, &mut found);
                if let Some(told) = told {
                    *told.failed_snapshots.lock() = found;
                }
                result
            })?
        }
    };
    note_start(server, job, &upid, lock, whom);
    Ok(upid)
}

/// Starts a run that can only fail, for this reason: what its `schedule` wanted and could not begin shows as a run that failed, with its
/// task, its notification and its heartbeat. The job is owed a run then. Blocking.
///
/// # Errors
/// When it runs already, or not even that can be started.
pub fn fail(
    server: &Arc<Server>,
    job: &JobId,
    schedule: &str,
    reason: &str,
) -> Result<Upid, StartError> {
    let order = Order::load(server.config(), job)?;
    let lock = lock(server, job)?;
    let root = AuthId::root();
    let spec = TaskSpec::new(job.kind.as_str(), order.worker_id(job), &root);
    let (schedule, reason) = (schedule.to_owned(), reason.to_owned());
    let fail = move |task: &TaskContext| {
        task.log(format!("task triggered by schedule '{schedule}'"));
        task.log("it cannot begin; it is tried again each minute until it can");
        Err(TaskFailure::new(reason))
    };
    let upid = server.tasks().spawn_thread(spec, fail)?;
    let whom = Whom {
        owed: true,
        ..Whom::of(&order, job)
    };
    note_start(server, job, &upid, lock, whom);
    Ok(upid)
}

/// Starts the sync of a realm for `caller`. Returns its task, which is not waited for. Blocking.
///
/// # Errors
/// When one of this realm runs already, or it cannot be started; then there is no task.
pub fn start_realm_sync(
    server: &Arc<Server>,
    realm: &str,
    sync: RealmSync,
    caller: &AuthId,
) -> Result<Upid, StartError> {
    let job = JobId::new(JobKind::RealmSync, realm);
    let lock = lock(server, &job)?;
    let spec = TaskSpec::new(job.kind.as_str(), realm, caller);
    let config = Arc::clone(server.config());
    let upid = server
        .tasks()
        .spawn_from_thread(spec, move |task| sync.run(config, task))?;
    note_start(server, &job, &upid, lock, Whom::default());
    Ok(upid)
}

fn lock(server: &Server, job: &JobId) -> Result<JobLock, StartError> {
    let is_running = |upid: &Upid| server.tasks().is_running(upid);
    let lock = server
        .job_runs()
        .lock(server.job_states(), job, is_running)?;
    lock.ok_or_else(|| match job.kind {
        JobKind::GarbageCollection => DatastoreError::GarbageCollectionRunning.into(),
        _ => StartError::Running { job: job.clone() },
    })
}

/// Who hears of a run.
#[derive(Default)]
struct Whom {
    /// What its notification names; without it there is none.
    told: Option<JobRun>,
    /// Where it works.
    place: Option<Place>,
    /// Whether it could not begin, so that the job is owed a run.
    owed: bool,
}

impl Whom {
    /// Those whom a run of a job concerns.
    fn of(order: &Order, job: &JobId) -> Self {
        Self {
            told: Some(order.told(job)),
            place: Some(order.place()),
            owed: false,
        }
    }
}

/// Notes that a job runs, and its end when that comes.
fn note_start(server: &Arc<Server>, job: &JobId, upid: &Upid, lock: JobLock, whom: Whom) {
    server.job_runs().begin(job, upid);
    if let Some((lost, endtime, state)) = lost_run(server, job) {
        count_lost_run(server, job, (&lost, endtime, &state), &whom);
    }
    let started = JobState::Started { upid: upid.clone() };
    if let Err(err) = server.job_states().store(job, &started) {
        tracing::error!(%job, %err, "a run of this job is not noted");
    }
    tell(server, job, upid, whom.place.clone(), Outcome::Started, 0);
    let end = note_end(Arc::clone(server), job.clone(), upid.clone(), lock, whom);
    server.runtimes().data.spawn(end);
}

/// Waits for the end of a run, notes it, and gives the job free. What a server that ends does not note is found in the log
/// of the task later.
async fn note_end(server: Arc<Server>, job: JobId, upid: Upid, lock: JobLock, whom: Whom) {
    let begun = Instant::now();
    server.tasks().wait_for(&upid).await;
    let note = move || {
        let (endtime, state) = server.tasks().status(&upid);
        let states = server.job_states();
        // The history first: who sees that the run has ended sees what it did.
        remember(&server, &job, |history| {
            history.count(&upid, endtime, &state);
            history.owed = whom.owed;
        });
        if let Some(told) = &whom.told {
            server
                .notifier()
                .run_ended(&server, told, &upid, (endtime, &state));
        }
        // Before the end is noted: a crash in between tells twice rather than never. And before the next run can begin: in order.
        let duration = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tell(&server, &job, &upid, whom.place, outcome(&state), duration);
        let state = JobResult::new(endtime, state);
        if let Err(err) = states.finish(&job, upid.clone(), state) {
            tracing::error!(%job, %err, "the end of a run of this job is not noted");
        }
        server.job_runs().end(&job, &upid, lock);
    };
    if let Err(err) = tokio::task::spawn_blocking(note).await {
        tracing::error!(%err, "unable to note the end of a run");
    }
}

/// The last run of a job and its end, if it died with its server.
fn lost_run(server: &Server, job: &JobId) -> Option<(Upid, i64, TaskState)> {
    let Ok(JobState::Started { upid }) = server.job_states().load(job, 0) else {
        return None;
    };
    if server.tasks().is_running(&upid) {
        return None;
    }
    let (endtime, state) = server.tasks().status(&upid);
    Some((upid, endtime, state))
}

/// Counts a run that died with its server, which nobody has counted or told of then.
fn count_lost_run(
    server: &Server,
    job: &JobId,
    (upid, endtime, state): (&Upid, i64, &TaskState),
    whom: &Whom,
) {
    remember(server, job, |history| history.count(upid, endtime, state));
    if let Some(told) = &whom.told {
        server
            .notifier()
            .run_ended(server, told, upid, (endtime, state));
    }
    let lasted = u64::try_from(endtime.saturating_sub(upid.starttime)).unwrap_or(0);
    let duration = lasted.saturating_mul(1000);
    let place = whom.place.clone();
    tell(server, job, upid, place, outcome(state), duration);
}

/// Tells of all runs that died with the server before this one, so that nobody has to wait for their next turn to hear of it. Blocks for
/// small files; nothing may have been started yet.
pub(crate) fn tell_lost_runs(server: &Server) {
    for (file, kind, _) in SOURCES {
        let ids = match server.config().sections(file) {
            Ok(loaded) => loaded.data.iter().map(|(id, _)| id.to_owned()).collect(),
            Err(err) => {
                tracing::error!(%err, "runs of these jobs that were cut off are not told");
                Vec::new()
            }
        };
        for job in ids.into_iter().map(|id: String| JobId::new(kind, id)) {
            tell_lost_run(server, &job);
        }
    }
}

fn tell_lost_run(server: &Server, job: &JobId) {
    let Some((upid, endtime, state)) = lost_run(server, job) else {
        return;
    };
    let whom = match Order::load(server.config(), job) {
        Ok(order) => Whom::of(&order, job),
        // The sync of a realm has no notification; its end shows in the list of health.
        Err(_) => Whom::default(),
    };
    count_lost_run(server, job, (&upid, endtime, &state), &whom);
    let ended = JobResult::new(endtime, state);
    if let Err(err) = server.job_states().finish(job, upid, ended) {
        tracing::error!(%job, %err, "the end of a run of this job is not noted");
    }
}

/// How a run ended, for those who are told of it.
fn outcome(state: &TaskState) -> Outcome {
    match state {
        TaskState::Ok => Outcome::Ok,
        TaskState::Warnings(count) => Outcome::Warnings(*count),
        TaskState::Error(reason) => Outcome::Failed(reason.clone()),
        TaskState::Unknown => Outcome::Failed("it is not known how it ended".to_owned()),
    }
}

/// Tells the heartbeats that watch a job how a run of it went. Blocking.
fn tell(
    server: &Server,
    job: &JobId,
    upid: &Upid,
    place: Option<Place>,
    outcome: Outcome,
    duration: u64,
) {
    let Some(job) = Job::of_worker_type(job.kind.as_str(), &job.id) else {
        return;
    };
    server.heartbeats().note(&Event {
        source: Source::Job(job, place),
        outcome,
        started: upid.starttime,
        duration,
        run: RunId::of_task(upid),
    });
}

/// Notes what a run of a sync has done, before its task ends. Blocking.
pub(crate) fn note_outcome(server: &Server, job: &JobId, upid: &Upid, outcome: SyncOutcome) {
    remember(server, job, |history| history.note(upid, outcome));
}

/// Changes what is remembered of a job, unless the job was removed meanwhile.
fn remember(server: &Server, job: &JobId, change: impl FnOnce(&mut JobHistory)) {
    let states = server.job_states();
    if !states.exists(job) {
        return;
    }
    let noted = states.history(job).and_then(|history| {
        let mut history = history.unwrap_or_default();
        change(&mut history);
        states.store_history(job, &history)
    });
    if let Err(err) = noted {
        tracing::error!(%job, %err, "a run of this job is not remembered");
    }
}

impl Run {
    fn prepare(server: &Arc<Server>, order: &Order) -> Result<Self, StartError> {
        let lookup = |operation| server.datastores().lookup(order.store(), operation);
        let (work, datastore) = match order {
            Order::GarbageCollection(_) => {
                let datastore = lookup(Operation::Write)?;
                if datastore.is_collecting_garbage() {
                    return Err(DatastoreError::GarbageCollectionRunning.into());
                }
                (Work::GarbageCollection, datastore)
            }
            Order::Prune(config) => (Work::Prune(config.clone()), lookup(Operation::Write)?),
            Order::Verify(config) => (Work::Verify(config.clone()), lookup(Operation::Read)?),
            Order::Sync(config) => {
                let datastore = lookup(Operation::Lookup)?;
                let sync = Sync::prepare(server, (**config).clone(), config.owner())?;
                (Work::Sync(Box::new(sync)), datastore)
            }
        };
        Ok(Self { work, datastore })
    }

    /// What a verification finds damaged is added to `failed`.
    fn run(
        self,
        job: &JobId,
        schedule: Option<&str>,
        task: &TaskContext,
        failed: &mut Vec<String>,
    ) -> Result<(), TaskFailure> {
        let log_trigger = || {
            if let Some(schedule) = schedule {
                task.log(format!("task triggered by schedule '{schedule}'"));
            }
        };
        match self.work {
            Work::Sync(_) => Err(TaskFailure::new("a sync does not run on a thread")),
            Work::GarbageCollection => {
                task.log(format!(
                    "starting garbage collection on store {}",
                    self.datastore.name()
                ));
                log_trigger();
                collect_garbage(&self.datastore, task)
            }
            Work::Prune(config) => {
                task.log(format!("prune job '{}'", job.id));
                log_trigger();
                let keep = config.keep();
                let ns = config.ns.unwrap_or_else(Namespace::root);
                DatastorePrune::of_all_groups(self.datastore, ns, config.max_depth, keep)?.run(task)
            }
            Work::Verify(config) => {
                task.log(format!(
                    "Starting datastore verify job '{}:{}'",
                    config.store, job.id
                ));
                log_trigger();
                let age = VerifyAge {
                    ignore_verified: config.ignore_verified,
                    outdated_after: config.outdated_after,
                };
                let threads = VerifyThreads {
                    read: config.read_threads,
                    verify: config.verify_threads,
                };
                let ns = config.ns.unwrap_or_else(Namespace::root);
                verify_groups(
                    self.datastore,
                    &ns,
                    config.max_depth,
                    age,
                    threads,
                    task,
                    failed,
                )
            }
        }
    }
}
