//! A sync that can begin, in either direction: what jobs and single calls start.

use std::path::PathBuf;
use std::sync::Arc;

use backstop_types::AuthId;
use backstop_types::record::{SyncDirection, SyncJobConfig};

use super::pull::Pull;
use super::push::Push;
use super::report::{Direction, Report};
use crate::datastores::DatastoreHandle;
use crate::jobs::{self, JobId, StartError};
use crate::server::Server;
use crate::task::{TaskContext, TaskFailure};

/// A sync that can begin.
pub enum Sync {
    /// To a datastore of this server.
    Pull(Box<Pull>),
    /// From a datastore of this server.
    Push(Box<Push>),
}

impl Sync {
    /// Looks up what a sync needs, with the privileges of `owner`, who will own what is new here. Blocking.
    ///
    /// # Errors
    /// The datastore here is not there or not open, the other side is not known, or a key cannot be used.
    pub fn prepare(
        server: &Arc<Server>,
        config: SyncJobConfig,
        owner: AuthId,
    ) -> Result<Self, StartError> {
        Ok(match config.sync_direction {
            SyncDirection::Pull => Self::Pull(Box::new(Pull::prepare(server, config, owner)?)),
            SyncDirection::Push => Self::Push(Box::new(Push::prepare(server, config, owner)?)),
        })
    }

    /// What is synced.
    pub fn config(&self) -> &SyncJobConfig {
        match self {
            Self::Pull(pull) => pull.config(),
            Self::Push(push) => push.config(),
        }
    }

    /// The datastore here.
    pub fn datastore(&self) -> &DatastoreHandle {
        match self {
            Self::Pull(pull) => pull.target(),
            Self::Push(push) => push.source(),
        }
    }

    /// The two sides, for the log.
    fn sides(&self) -> String {
        let (here, there) = (&self.config().store, other_side(self.config()));
        match self {
            Self::Pull(_) => format!("datastore '{here}' from '{there}'"),
            Self::Push(_) => format!("datastore '{here}' to '{there}'"),
        }
    }

    fn verb(&self) -> &'static str {
        match self {
            Self::Pull(_) => "pull",
            Self::Push(_) => "push",
        }
    }

    fn server(&self) -> &Arc<Server> {
        match self {
            Self::Pull(pull) => pull.server(),
            Self::Push(push) => push.server(),
        }
    }

    fn report(&self) -> Arc<Report> {
        Arc::new(Report::new(match self {
            Self::Pull(_) => Direction::Pull,
            Self::Push(_) => Direction::Push,
        }))
    }

    /// Runs as this job, whose history says then what was done, whatever the end.
    ///
    /// # Errors
    /// Something could not be synced; the log says what.
    pub async fn run_job(
        self,
        job: &JobId,
        schedule: Option<&str>,
        task: TaskContext,
    ) -> Result<(), TaskFailure> {
        let id = self.config().worker_id(&job.id);
        task.log(format!("Starting datastore sync job '{id}'"));
        if let Some(schedule) = schedule {
            task.log(format!("task triggered by schedule '{schedule}'"));
        }
        task.log(format!("sync {}", self.sides()));
        let (server, report) = (Arc::clone(self.server()), self.report());
        let compared = server.job_states().compared(job);
        let done = self
            .run("sync aborted", Some(compared), &report, &task)
            .await;
        let (job, upid, outcome) = (job.clone(), task.upid().clone(), report.outcome());
        let note = move || jobs::note_outcome(&server, &job, &upid, outcome);
        if let Err(error) = tokio::task::spawn_blocking(note).await {
            tracing::error!(%error, "unable to note what a sync has done");
        }
        done?;
        task.log(format!("sync job '{id}' end"));
        Ok(())
    }

    /// Runs once.
    ///
    /// # Errors
    /// Something could not be synced; the log says what.
    pub async fn run_once(self, task: TaskContext) -> Result<(), TaskFailure> {
        let (verb, store) = (self.verb(), self.config().store.clone());
        task.log(format!("{verb} {}", self.sides()));
        let report = self.report();
        self.run(&format!("{verb} aborted"), None, &report, &task)
            .await?;
        task.log(format!("{verb} datastore '{store}' end"));
        Ok(())
    }

    /// Tells what a run would do, and does nothing.
    ///
    /// # Errors
    /// Something could not be synced; the log says what.
    pub async fn run_dry(self, task: TaskContext) -> Result<(), TaskFailure> {
        task.log(format!("dry run: sync {}", self.sides()));
        match self {
            Self::Pull(pull) => until_aborted(&task, "dry run aborted", pull.run_dry(&task)).await,
            Self::Push(push) => until_aborted(&task, "dry run aborted", push.run_dry(&task)).await,
        }
    }

    async fn run(
        self,
        aborted: &str,
        compared: Option<PathBuf>,
        report: &Arc<Report>,
        task: &TaskContext,
    ) -> Result<(), TaskFailure> {
        let work = async {
            match self {
                Self::Pull(pull) => pull.run(compared, report, task).await,
                Self::Push(push) => push.run(report, task).await,
            }
        };
        until_aborted(task, aborted, work).await
    }
}

/// Does something until it is done or the task is stopped, and then fails with what `aborted` says.
async fn until_aborted(
    task: &TaskContext,
    aborted: &str,
    work: impl Future<Output = Result<(), TaskFailure>>,
) -> Result<(), TaskFailure> {
    tokio::select! {
        biased;
        done = work => done,
        () = task.aborted() => Err(TaskFailure::new(aborted)),
    }
}

/// How the other side is called in the log.
pub(super) fn other_side(config: &SyncJobConfig) -> String {
    match &config.remote {
        Some(remote) => format!("{remote}/{}", config.remote_store),
        None => config.remote_store.to_string(),
    }
}
