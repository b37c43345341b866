//! Starting a job: its lock, its task, and the note of how that ended.

use std::sync::Arc;
use std::time::Instant;

use backstop_datastore::{DatastoreError, VerifyAge, VerifyThreads};
use backstop_heartbeat::{Event, Job, Outcome, Place, RunId, Source};
use backstop_types::record::{PruneJobConfig, TaskState, VerifyJobConfig};
use backstop_types::{AuthId, DatastoreName, NameError, Namespace, Operation, Upid};

use super::state::JobResult;
use super::{JobHistory, JobId, JobKind, JobLock, JobState, JobStateError, SyncOutcome};
use crate::access::realm_sync::RealmSync;
use crate::api::admin::datastore::{DatastorePrune, collect_garbage, verify_groups};
use crate::config::{ConfigError, jobs};
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
    let run = match Run::prepare(server, job) {
        // What nobody asked for just now must not fail without a trace.
        Err(StartError::Unable(reason)) if schedule.is_some() && job.kind == JobKind::Sync => {
            return start_failing(server, job, caller, reason);
        }
        prepared => prepared?,
    };
    let lock = lock(server, job)?;
    let spec = TaskSpec::new(job.kind.as_str(), run.worker_id(job), caller).on(&run.datastore);
    let (own, schedule) = (job.clone(), schedule.map(str::to_owned));
    let place = run.place();
    let tasks = server.tasks();
    let told = run.told(job);
    let upid = match run.work {
        Work::Sync(sync) => {
            let work = |task| async move { sync.run_job(&own, schedule.as_deref(), task).await };
            tasks.spawn_from_thread(spec, work)?
        }
        work => {
            let run = Run { work, ..run };
            let failed = Arc::clone(&told.failed_snapshots);
            tasks.spawn_thread(spec, move |task| {
                let mut found = Vec::new();
                let result = run.run(&own, schedule.as_deref(), task, &mut found);
                *failed.lock() = found;
                result
            })?
        }
    };
    note_start(server, job, &upid, lock, Some(told), Some(place));
    Ok(upid)
}

/// Starts a run of a sync that cannot begin, so that it shows as one that failed.
fn start_failing(
    server: &Arc<Server>,
    job: &JobId,
    caller: &AuthId,
    reason: String,
) -> Result<Upid, StartError> {
    let config = jobs::sync_job(server.config(), &job.id)?;
    let config = config.ok_or_else(|| StartError::Unable(reason.clone()))?;
    let lock = lock(server, job)?;
    let spec = TaskSpec::new(job.kind.as_str(), config.worker_id(&job.id), caller);
    let fail = move |_: &TaskContext| Err(TaskFailure::new(reason));
    let upid = server.tasks().spawn_thread(spec, fail)?;
    let told = JobRun::of_sync(job, &config);
    let place = Place {
        store: config.store.clone(),
        ns: config.ns.clone(),
    };
    note_start(server, job, &upid, lock, Some(told), Some(place));
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
    note_start(server, &job, &upid, lock, None, None);
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

/// Notes that a job runs, and its end when that comes.
fn note_start(
    server: &Arc<Server>,
    job: &JobId,
    upid: &Upid,
    lock: JobLock,
    told: Option<JobRun>,
    place: Option<Place>,
) {
    server.job_runs().begin(job, upid);
    count_lost_run(server, job, told.as_ref(), place.as_ref());
    let started = JobState::Started { upid: upid.clone() };
    if let Err(err) = server.job_states().store(job, &started) {
        tracing::error!(%job, %err, "a run of this job is not noted");
    }
    tell(server, job, upid, place.clone(), Outcome::Started, 0);
    let whom = (told, place);
    let end = note_end(Arc::clone(server), job.clone(), upid.clone(), lock, whom);
    server.runtimes().data.spawn(end);
}

/// Waits for the end of a run, notes it, and gives the job free. What a server that ends does not note is found in the log
/// of the task later.
async fn note_end(
    server: Arc<Server>,
    job: JobId,
    upid: Upid,
    lock: JobLock,
    (told, place): (Option<JobRun>, Option<Place>),
) {
    let begun = Instant::now();
    server.tasks().wait_for(&upid).await;
    let note = move || {
        let (endtime, state) = server.tasks().status(&upid);
        let states = server.job_states();
        // The history first: who sees that the run has ended sees what it did.
        count(&server, &job, &upid, (endtime, &state));
        if let Some(told) = &told {
            server
                .notifier()
                .run_ended(&server, told, &upid, (endtime, &state));
        }
        let outcome = outcome(&state);
        let state = JobResult::new(endtime, state);
        if let Err(err) = states.finish(&job, upid.clone(), state) {
            tracing::error!(%job, %err, "the end of a run of this job is not noted");
        }
        // Before the next run can begin, so that what is told is told in order.
        let duration = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tell(&server, &job, &upid, place, outcome, duration);
        server.job_runs().end(&job, &upid, lock);
    };
    if let Err(err) = tokio::task::spawn_blocking(note).await {
        tracing::error!(%err, "unable to note the end of a run");
    }
}

/// Counts the last run if it died with its server, which nobody has counted or told of then.
fn count_lost_run(server: &Server, job: &JobId, told: Option<&JobRun>, place: Option<&Place>) {
    let state = server.job_states().load(job, 0);
    let Ok(JobState::Started { upid }) = state else {
        return;
    };
    if !server.tasks().is_running(&upid) {
        let (endtime, state) = server.tasks().status(&upid);
        count(server, job, &upid, (endtime, &state));
        if let Some(told) = told {
            server
                .notifier()
                .run_ended(server, told, &upid, (endtime, &state));
        }
        let lasted = u64::try_from(endtime.saturating_sub(upid.starttime)).unwrap_or(0);
        let duration = lasted.saturating_mul(1000);
        tell(
            server,
            job,
            &upid,
            place.cloned(),
            outcome(&state),
            duration,
        );
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

/// Adds the end of a run to what is remembered of its job.
fn count(server: &Server, job: &JobId, upid: &Upid, (endtime, state): (i64, &TaskState)) {
    remember(server, job, |history| history.count(upid, endtime, state));
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
    fn prepare(server: &Arc<Server>, job: &JobId) -> Result<Self, StartError> {
        let lookup =
            |store: &DatastoreName, operation| server.datastores().lookup(store, operation);
        let unknown = |kind| StartError::Unknown {
            kind,
            id: job.id.clone(),
        };
        match job.kind {
            JobKind::GarbageCollection => {
                let datastore = lookup(&job.id.parse()?, Operation::Write)?;
                if datastore.is_collecting_garbage() {
                    return Err(DatastoreError::GarbageCollectionRunning.into());
                }
                let work = Work::GarbageCollection;
                Ok(Self { work, datastore })
            }
            JobKind::Prune => {
                let config =
                    jobs::prune_job(server.config(), &job.id)?.ok_or_else(|| unknown("prune"))?;
                let datastore = lookup(&config.store, Operation::Write)?;
                let work = Work::Prune(config);
                Ok(Self { work, datastore })
            }
            JobKind::Verify => {
                let config = jobs::verify_job(server.config(), &job.id)?
                    .ok_or_else(|| unknown("verification"))?;
                let datastore = lookup(&config.store, Operation::Read)?;
                let work = Work::Verify(config);
                Ok(Self { work, datastore })
            }
            JobKind::Sync => {
                let config =
                    jobs::sync_job(server.config(), &job.id)?.ok_or_else(|| unknown("sync"))?;
                let datastore = lookup(&config.store, Operation::Lookup)?;
                let owner = config.owner();
                let work = Work::Sync(Box::new(Sync::prepare(server, config, owner)?));
                Ok(Self { work, datastore })
            }
            // Started with what its caller wants: `start_realm_sync`.
            JobKind::RealmSync => Err(unknown("realm")),
        }
    }

    /// Where it works.
    fn place(&self) -> Place {
        let ns = match &self.work {
            Work::GarbageCollection => None,
            Work::Prune(config) => config.ns.clone(),
            Work::Verify(config) => config.ns.clone(),
            Work::Sync(sync) => Some(sync.config().ns.clone()),
        };
        Place {
            store: self.datastore.name().clone(),
            ns: ns.unwrap_or_else(Namespace::root),
        }
    }

    fn worker_id(&self, job: &JobId) -> String {
        let store = self.datastore.name();
        match &self.work {
            Work::GarbageCollection => store.to_string(),
            Work::Prune(config) => match &config.ns {
                Some(ns) if !ns.is_root() => format!("{store}:{ns}"),
                _ => store.to_string(),
            },
            Work::Verify(_) => format!("{store}:{}", job.id),
            Work::Sync(sync) => sync.config().worker_id(&job.id),
        }
    }

    /// What a notification of its end names.
    fn told(&self, job: &JobId) -> JobRun {
        match &self.work {
            Work::Sync(sync) => JobRun::of_sync(job, sync.config()),
            _ => JobRun::new(job, self.datastore.name()),
        }
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
