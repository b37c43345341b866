//! What the configuration says that a job is to do, whether it can be done now or not. Never looks at a datastore.

use backstop_heartbeat::Place;
use backstop_types::record::{PruneJobConfig, SyncJobConfig, VerifyJobConfig};
use backstop_types::{DatastoreName, Namespace};

use super::{JobId, JobKind, StartError};
use crate::config::{ConfigStore, jobs};
use crate::notifications::JobRun;

/// A job as it is configured.
pub(super) enum Order {
    /// Of this datastore.
    GarbageCollection(DatastoreName),
    Prune(PruneJobConfig),
    Verify(VerifyJobConfig),
    Sync(Box<SyncJobConfig>),
}

impl Order {
    /// Reads what the configuration says of a job. Blocking.
    ///
    /// # Errors
    /// When there is no such job, or the configuration cannot be read.
    pub(super) fn load(config: &ConfigStore, job: &JobId) -> Result<Self, StartError> {
        let unknown = |kind| StartError::Unknown {
            kind,
            id: job.id.clone(),
        };
        match job.kind {
            JobKind::GarbageCollection => Ok(Self::GarbageCollection(job.id.parse()?)),
            JobKind::Prune => {
                let found = jobs::prune_job(config, &job.id)?;
                found.map(Self::Prune).ok_or_else(|| unknown("prune"))
            }
            JobKind::Verify => {
                let found = jobs::verify_job(config, &job.id)?;
                found
                    .map(Self::Verify)
                    .ok_or_else(|| unknown("verification"))
            }
            JobKind::Sync => {
                let found = jobs::sync_job(config, &job.id)?.map(Box::new);
                found.map(Self::Sync).ok_or_else(|| unknown("sync"))
            }
            // Started with what its caller wants: `start_realm_sync`.
            JobKind::RealmSync => Err(unknown("realm")),
        }
    }

    /// The datastore that it works on.
    pub(super) fn store(&self) -> &DatastoreName {
        match self {
            Self::GarbageCollection(store) => store,
            Self::Prune(config) => &config.store,
            Self::Verify(config) => &config.store,
            Self::Sync(config) => &config.store,
        }
    }

    /// Where it works.
    pub(super) fn place(&self) -> Place {
        let ns = match self {
            Self::GarbageCollection(_) => None,
            Self::Prune(config) => config.ns.clone(),
            Self::Verify(config) => config.ns.clone(),
            Self::Sync(config) => Some(config.ns.clone()),
        };
        Place {
            store: self.store().clone(),
            ns: ns.unwrap_or_else(Namespace::root),
        }
    }

    /// What its tasks are called.
    pub(super) fn worker_id(&self, job: &JobId) -> String {
        let store = self.store();
        match self {
            Self::GarbageCollection(_) => store.to_string(),
            Self::Prune(config) => match &config.ns {
                Some(ns) if !ns.is_root() => format!("{store}:{ns}"),
                _ => store.to_string(),
            },
            Self::Verify(_) => format!("{store}:{}", job.id),
            Self::Sync(config) => config.worker_id(&job.id),
        }
    }

    /// What a notification of the end of a run names.
    pub(super) fn told(&self, job: &JobId) -> JobRun {
        match self {
            Self::Sync(config) => JobRun::of_sync(job, config),
            _ => JobRun::new(job, self.store()),
        }
    }
}
