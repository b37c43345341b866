//! Files that say when a job ran last and how that ended. Format: `docs/formats/jobs.md`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use backstop_datastore::ownership;
use backstop_types::Upid;
use backstop_types::record::TaskState;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::JobId;
use super::history::JobHistory;
use crate::state_file;

/// Most that is read of a state file; they have some hundred bytes, plus an error text.
const MAX_SIZE: u64 = 1 << 20;
/// A job without a state file counts as made so many seconds ago.
const JUST_MADE: i64 = 30;

/// Extension of the file with what is remembered of a job. No state file can have its name, whatever the id of the job.
const HISTORY: &str = "history";
/// Extension of the file with what a sync job has compared.
const COMPARED: &str = "compared";

/// What is known of a job's runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It never ran.
    Created {
        /// When it was made, or its schedule was changed, in seconds since 1970.
        time: i64,
    },
    /// It runs, or its process died.
    Started {
        /// The task.
        upid: Upid,
    },
    /// It ran.
    Finished {
        /// The task.
        upid: Upid,
        /// How that ended.
        state: JobResult,
        /// When its schedule was changed after that, in seconds since 1970.
        updated: Option<i64>,
    },
    /// Nobody knows.
    Unknown,
}

/// How a run ended, and when (seconds since 1970).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobResult {
    /// Without any trouble.
    #[serde(rename = "OK")]
    Ok {
        /// The end.
        endtime: i64,
    },
    /// With warnings.
    Warning {
        /// How many.
        count: u64,
        /// The end.
        endtime: i64,
    },
    /// With an error.
    Error {
        /// Its text.
        message: String,
        /// The end.
        endtime: i64,
    },
    /// Nobody knows.
    Unknown {
        /// The start, as the end is not known either.
        endtime: i64,
    },
}

impl JobResult {
    /// The result of a task.
    pub fn new(endtime: i64, state: TaskState) -> Self {
        match state {
            TaskState::Ok => Self::Ok { endtime },
            TaskState::Warnings(count) => Self::Warning { count, endtime },
            TaskState::Error(message) => Self::Error { message, endtime },
            TaskState::Unknown => Self::Unknown { endtime },
        }
    }

    /// When the run ended, and the text for it.
    pub fn end(&self) -> (i64, String) {
        match self {
            Self::Error { message, endtime } => (*endtime, message.clone()),
            Self::Ok { endtime } | Self::Warning { endtime, .. } | Self::Unknown { endtime } => {
                (*endtime, self.task_state().to_string())
            }
        }
    }

    /// How the task ended.
    pub fn task_state(&self) -> TaskState {
        match self {
            Self::Ok { .. } => TaskState::Ok,
            Self::Warning { count, .. } => TaskState::Warnings(*count),
            Self::Error { message, .. } => TaskState::Error(message.clone()),
            Self::Unknown { .. } => TaskState::Unknown,
        }
    }
}

/// Why a state file cannot be read, written or locked.
#[derive(Debug, thiserror::Error)]
#[error("unable to {action} {path:?} - {source}")]
pub struct JobStateError {
    /// What was attempted.
    action: &'static str,
    /// On which file.
    path: PathBuf,
    /// The system's reason.
    source: io::Error,
}

impl JobStateError {
    fn new(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            action,
            path,
            source,
        }
    }
}

/// Keeps a job from being started by anybody else. Released when dropped.
#[derive(Debug)]
pub struct JobLock {
    _file: File,
}

/// The directory of the state files.
#[derive(Debug, Clone)]
pub struct JobStates {
    folder: PathBuf,
}

impl JobStates {
    /// The state files in `folder`, which exists.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn path(&self, job: &JobId, extension: &str) -> PathBuf {
        let name = format!("{}-{}.{extension}", job.kind.as_str(), job.id);
        self.folder.join(name)
    }

    /// What the file says; `Created` a moment before `now` when there is none, `Unknown` when it makes no sense.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load(&self, job: &JobId, now: i64) -> Result<JobState, JobStateError> {
        let path = self.path(job, "json");
        let Some(text) = read(&path)? else {
            return Ok(JobState::Created {
                time: now.saturating_sub(JUST_MADE),
            });
        };
        Ok(serde_json::from_slice(&text).unwrap_or_else(|err| {
            tracing::warn!(path = %path.display(), %err, "this state file makes no sense");
            JobState::Unknown
        }))
    }

    /// What is remembered of a job beyond its last run; nothing when it never ran, or when the file makes no sense.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn history(&self, job: &JobId) -> Result<Option<JobHistory>, JobStateError> {
        let path = self.path(job, HISTORY);
        let text = read(&path)?;
        Ok(text.and_then(|text| {
            serde_json::from_slice(&text)
                .inspect_err(|err| {
                    tracing::warn!(path = %path.display(), %err, "this history of a job makes no sense");
                })
                .ok()
        }))
    }

    /// Replaces what is remembered of a job as a whole.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn store_history(&self, job: &JobId, history: &JobHistory) -> Result<(), JobStateError> {
        self.replace(job, HISTORY, history)
    }

    /// Where a sync job notes what it has compared.
    pub fn compared(&self, job: &JobId) -> PathBuf {
        self.path(job, COMPARED)
    }

    /// Replaces the file as a whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn store(&self, job: &JobId, state: &JobState) -> Result<(), JobStateError> {
        self.replace(job, "json", state)
    }

    fn replace(
        &self,
        job: &JobId,
        extension: &str,
        content: &impl Serialize,
    ) -> Result<(), JobStateError> {
        let path = self.path(job, extension);
        // A state that is lost with the power would make a job run twice.
        let write = || state_file::replace(&path, &serde_json::to_vec(content)?, 0o644);
        write().map_err(JobStateError::new("write", &path))
    }

    /// Whether there is a file for this job.
    pub fn exists(&self, job: &JobId) -> bool {
        self.path(job, "json").exists()
    }

    /// Notes the end of a run, unless the job was removed meanwhile.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn finish(&self, job: &JobId, upid: Upid, state: JobResult) -> Result<(), JobStateError> {
        if !self.exists(job) {
            return Ok(());
        }
        let finished = JobState::Finished {
            upid,
            state,
            updated: None,
        };
        self.store(job, &finished)
    }

    /// Notes that a job was made.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn create(&self, job: &JobId, now: i64) -> Result<(), JobStateError> {
        self.store(job, &JobState::Created { time: now })
    }

    /// Lets the schedule count from `now` on: nothing that was missed before is made up for. A job that runs counts from
    /// its start.
    ///
    /// # Errors
    /// When that cannot be read or written.
    pub fn count_from(&self, job: &JobId, now: i64) -> Result<(), JobStateError> {
        let state = match self.load(job, now)? {
            JobState::Created { .. } | JobState::Unknown => JobState::Created { time: now },
            JobState::Started { .. } => return Ok(()),
            JobState::Finished { upid, state, .. } => JobState::Finished {
                upid,
                state,
                updated: Some(now),
            },
        };
        self.store(job, &state)
    }

    /// Forgets a job that is removed.
    ///
    /// # Errors
    /// When its files cannot be removed.
    pub fn remove(&self, job: &JobId) -> Result<(), JobStateError> {
        for extension in ["json", "lck", HISTORY, COMPARED] {
            let path = self.path(job, extension);
            match std::fs::remove_file(&path) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => {
                    return Err(JobStateError::new("remove", &path)(err));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes the lock of a job without waiting; `None` when somebody else has it.
    ///
    /// # Errors
    /// When the lock file cannot be used.
    pub fn lock(&self, job: &JobId) -> Result<Option<JobLock>, JobStateError> {
        let path = self.path(job, "lck");
        loop {
            let file = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .mode(0o644)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
                .map_err(JobStateError::new("open lock", &path))?;
            ownership::inherit(&file, &path)
                .map_err(JobStateError::new("set the owner of", &path))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(rustix::io::Errno::INTR) => continue,
                Err(err) => return Err(JobStateError::new("lock", &path)(err.into())),
            }
            // A job that was removed meanwhile has taken its lock file along.
            let own = file
                .metadata()
                .map_err(JobStateError::new("look at", &path))?;
            if std::fs::metadata(&path)
                .is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino()))
            {
                return Ok(Some(JobLock { _file: file }));
            }
        }
    }
}

/// What a file holds; `None`: it is not there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, JobStateError> {
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_SIZE).read_to_end(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(JobStateError::new("read", path)(err)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::JobKind;
    use super::*;

    fn states() -> (tempfile::TempDir, JobStates, JobId) {
        let dir = tempfile::tempdir().unwrap();
        let states = JobStates::new(dir.path().to_owned());
        (dir, states, JobId::new(JobKind::Prune, "job1"))
    }

    #[test]
    fn every_state_file_of_the_reference_server_is_written_back_unchanged() {
        let folder = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/pbs-4.2.3/var-lib-proxmox-backup/jobstates"
        );
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                let text = std::fs::read_to_string(&path).unwrap();
                let state: JobState = serde_json::from_str(&text).unwrap();
                assert_eq!(
                    serde_json::to_string(&state).unwrap(),
                    text.trim_end(),
                    "{path:?}"
                );
                count += 1;
            }
        }
        assert!(count >= 12, "only {count} files were found");
    }

    #[test]
    fn the_other_states_have_the_stock_form_too() {
        let upid: Upid =
            "UPID:vm:00007067:000CF758:000000E8:6B00CCA1:verificationjob:store1:root@pam:"
                .parse()
                .unwrap();
        for (state, text) in [
            (JobState::Unknown, "\"unknown\"".to_owned()),
            (
                JobState::Started { upid: upid.clone() },
                format!("{{\"started\":{{\"upid\":\"{upid}\"}}}}"),
            ),
            (
                JobState::Finished {
                    upid: upid.clone(),
                    state: JobResult::new(7, TaskState::Warnings(2)),
                    updated: Some(9),
                },
                format!(
                    "{{\"finished\":{{\"upid\":\"{upid}\",\"state\":{{\"Warning\":{{\"count\":2,\"endtime\":7}}}},\"updated\":9}}}}"
                ),
            ),
            (
                JobState::Finished {
                    upid: upid.clone(),
                    state: JobResult::new(7, TaskState::Error("no".to_owned())),
                    updated: None,
                },
                format!(
                    "{{\"finished\":{{\"upid\":\"{upid}\",\"state\":{{\"Error\":{{\"message\":\"no\",\"endtime\":7}}}},\"updated\":null}}}}"
                ),
            ),
        ] {
            assert_eq!(serde_json::to_string(&state).unwrap(), text);
            assert_eq!(serde_json::from_str::<JobState>(&text).unwrap(), state);
        }
    }

    #[test]
    fn a_missing_file_is_a_new_job_and_a_broken_one_is_unknown() {
        let (dir, states, job) = states();
        assert_eq!(
            states.load(&job, 1000).unwrap(),
            JobState::Created { time: 970 }
        );
        for text in ["", "{", "[]", "{\"started\":{\"upid\":\"UPID:nonsense\"}}"] {
            std::fs::write(dir.path().join("prunejob-job1.json"), text).unwrap();
            assert_eq!(
                states.load(&job, 1000).unwrap(),
                JobState::Unknown,
                "{text}"
            );
        }
        states.count_from(&job, 1000).unwrap();
        assert_eq!(
            states.load(&job, 2000).unwrap(),
            JobState::Created { time: 1000 }
        );
    }

    #[test]
    fn a_job_is_locked_once_until_the_lock_is_dropped() {
        let (_dir, states, job) = states();
        let lock = states.lock(&job).unwrap().unwrap();
        assert!(states.lock(&job).unwrap().is_none());
        assert!(
            states
                .lock(&JobId::new(JobKind::Verify, "job1"))
                .unwrap()
                .is_some()
        );
        drop(lock);
        let stale = states.lock(&job).unwrap().unwrap();
        states.remove(&job).unwrap();
        // The lock of the removed job guards nothing any more.
        assert!(states.lock(&job).unwrap().is_some());
        drop(stale);
    }
}
