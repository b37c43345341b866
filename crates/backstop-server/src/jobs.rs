//! Jobs: what the server does by a schedule or on demand, and when it did it last.
//!
//! A job is a configured garbage collection, prune, verification or sync, or the sync of a realm. Its runs are tasks. What is known of the last run lies
//! in a state file of stock form, and a lock beside it keeps a job from running twice at the same time, in whichever
//! process.

mod history;
mod mount;
mod order;
mod runner;
mod runs;
mod scheduler;
mod state;
mod status;
mod timer;

use std::fmt;

pub use history::{JobHistory, ShownHistory, SourceView, SyncOutcome};
pub use mount::start_after_mount;
pub use runner::{StartError, start, start_realm_sync};
pub(crate) use runner::{note_outcome, tell_lost_runs};
pub use runs::JobRuns;
pub use state::{JobLock, JobResult, JobState, JobStateError, JobStates};
pub use status::JobStatus;
pub(crate) use status::{JobLook, look};
pub use timer::Timer;

use crate::config::SectionFile;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JobKind {
    /// Garbage collection of a datastore; its id is the datastore's name.
    GarbageCollection,
    /// Removal of old snapshots.
    Prune,
    /// Verification of snapshots.
    Verify,
    /// Snapshots that are copied from or to somewhere else.
    Sync,
    /// Bringing the users of a realm in line with its directory; its id is the realm.
    RealmSync,
}

impl JobKind {
    /// The type of its tasks, which is also part of the name of its state file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GarbageCollection => "garbage_collection",
            Self::Prune => "prunejob",
            Self::Verify => "verificationjob",
            Self::Sync => "syncjob",
            Self::RealmSync => "realm-sync",
        }
    }
}

/// Where jobs of a kind are configured: the file, what each of its sections means, and the key of the schedule, if they have one.
pub(crate) type Source = (SectionFile, JobKind, Option<&'static str>);

/// Where all jobs are configured, in the order in which those that are due at the same time are started.
pub(crate) const SOURCES: [Source; 5] = [
    (
        SectionFile::Datastore,
        JobKind::GarbageCollection,
        Some("gc-schedule"),
    ),
    (SectionFile::Prune, JobKind::Prune, Some("schedule")),
    (SectionFile::Verification, JobKind::Verify, Some("schedule")),
    (SectionFile::Sync, JobKind::Sync, Some("schedule")),
    // What syncs a realm is asked for.
    (SectionFile::Domains, JobKind::RealmSync, None),
];

/// A job by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId {
    /// What it does.
    pub kind: JobKind,
    /// Its id in the configuration, which is a safe id.
    pub id: String,
}

impl JobId {
    /// The job `id` of a kind.
    pub fn new(kind: JobKind, id: impl Into<String>) -> Self {
        Self {
            kind,
            id: id.into(),
        }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            JobKind::GarbageCollection => {
                return write!(f, "garbage collection of datastore '{}'", self.id);
            }
            JobKind::Prune => "prune",
            JobKind::Verify => "verify",
            JobKind::Sync => "sync",
            JobKind::RealmSync => return write!(f, "sync of realm '{}'", self.id),
        };
        write!(f, "{kind} job '{}'", self.id)
    }
}
