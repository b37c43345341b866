//! What is known of a backup job that runs: which guests it has begun, and how they ended.
//!
//! `vzdump` ends a job with `job-end` also when guests failed; that they did stands only here. One file for each run of `vzdump`, in
//! a folder that does not outlive a restart of the system; its name says how far the job is:
//!
//! | name | |
//! |---|---|
//! | `RUN.json` | the job runs, and all that happened stands in it |
//! | `RUN.lossy.json` | it runs, and something that happened could not be noted |
//! | `RUN.ended` | it has ended, and this may not have been told |
//! | `RUN.up`, `RUN.down` | it has ended, and this was told |
//!
//! A file system that is full cannot hold more, but can rename: that something is missing is never lost with it. What runs that are
//! gone left behind is removed.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::vzdump_process::Process;

/// How a guest's backup stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Guest {
    /// It has begun, or there was a sign of it.
    Running,
    Ok,
    Failed,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobRecord {
    /// When the job began, in Unix seconds. Without it, nobody knows what happened before the rest was noted.
    #[serde(default)]
    pub started: Option<i64>,
    #[serde(default)]
    pub guests: BTreeMap<String, Guest>,
    /// Whether something that happened is missing. Stands in the name of the file.
    #[serde(skip)]
    pub is_lossy: bool,
}

impl JobRecord {
    /// Guests that did not end well.
    pub fn failed(&self) -> Vec<&str> {
        let failed = self.guests.iter().filter(|(_, state)| **state != Guest::Ok);
        failed.map(|(vmid, _)| vmid.as_str()).collect()
    }
}

/// What the receiver was told of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Up,
    Down,
}

/// How far a job is: the end of its record's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    Lossy,
    Ended,
    Told(Told),
}

impl Stage {
    /// All of them; where there are several records, which is not to be, the first one counts.
    const ALL: [Self; 5] = [
        Self::Told(Told::Down),
        Self::Told(Told::Up),
        Self::Lossy,
        Self::Ended,
        Self::Running,
    ];

    const fn suffix(self) -> &'static str {
        match self {
            Self::Running => ".json",
            Self::Lossy => ".lossy.json",
            Self::Ended => ".ended",
            Self::Told(Told::Up) => ".up",
            Self::Told(Told::Down) => ".down",
        }
    }
}

/// The folder of all records.
#[derive(Debug)]
pub(crate) struct JobRecords {
    folder: PathBuf,
}

impl JobRecords {
    /// The records in a folder, which may be there or not.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Makes the folder when it is missing, and removes what belongs to nobody any more.
    pub fn prepare(&self) -> std::io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        for (path, process, _) in self.files()? {
            // Somebody else may have been faster.
            if !process.is_alive() {
                let _ = std::fs::remove_file(path);
            }
        }
        Ok(())
    }

    /// All files of runs of `vzdump`, with the end of their names.
    fn files(&self) -> std::io::Result<Vec<(PathBuf, Process, String)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.and_then(|name| name.split_at_checked(name.find('.')?));
            let found = name.and_then(|(process, suffix)| Some((process.parse().ok()?, suffix)));
            if let Some((process, suffix)) = found {
                let suffix = suffix.to_owned();
                files.push((path, process, suffix));
            }
        }
        Ok(files)
    }

    fn path(&self, job: Process, stage: Stage) -> PathBuf {
        self.folder.join(format!("{job}{}", stage.suffix()))
    }

    fn stage(&self, job: Process) -> Option<Stage> {
        let mut stages = Stage::ALL.into_iter();
        // A link that leads nowhere is something, too.
        stages.find(|stage| self.path(job, *stage).symlink_metadata().is_ok())
    }

    /// What was told of a job.
    pub fn told(&self, job: Process) -> Option<Told> {
        match self.stage(job)? {
            Stage::Told(told) => Some(told),
            _ => None,
        }
    }

    /// `None` when nothing was noted of the job.
    pub fn load(&self, job: Process) -> std::io::Result<Option<JobRecord>> {
        let stage = self.stage(job).unwrap_or(Stage::Running);
        match std::fs::read(self.path(job, stage)) {
            Ok(text) => Ok(Some(JobRecord {
                is_lossy: stage == Stage::Lossy,
                ..serde_json::from_slice(&text)?
            })),
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Begins a job, whatever the same process did before.
    pub fn begin(&self, job: Process, started: i64) -> std::io::Result<()> {
        self.remove(job, |_| true)?;
        self.store(
            job,
            &JobRecord {
                started: Some(started),
                ..JobRecord::default()
            },
        )
    }

    /// Forgets a job that has ended: what comes after that belongs to another one.
    pub fn forget_told(&self, job: Process) -> std::io::Result<()> {
        self.remove(job, |stage| matches!(stage, Stage::Told(_)))
    }

    fn remove(&self, job: Process, is_meant: impl Fn(Stage) -> bool) -> std::io::Result<()> {
        for stage in Stage::ALL.into_iter().filter(|stage| is_meant(*stage)) {
            match std::fs::remove_file(self.path(job, stage)) {
                Err(err) if err.kind() != ErrorKind::NotFound => return Err(err),
                _ => {}
            }
        }
        Ok(())
    }

    pub fn store(&self, job: Process, record: &JobRecord) -> std::io::Result<()> {
        let stage = match record.is_lossy {
            true => Stage::Lossy,
            false => Stage::Running,
        };
        let temporary = self.folder.join(format!("{job}.tmp"));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        std::fs::rename(&temporary, self.path(job, stage))
    }

    /// Marks the record of a job as one in which something is missing; without a job, those of all that run. Without a record there
    /// is nothing to mark: nobody trusts what is not there.
    pub fn distrust(&self, job: Option<Process>) -> std::io::Result<()> {
        let jobs = match job {
            Some(job) => vec![job],
            None => {
                let running = self.files()?.into_iter();
                let running = running.filter(|(_, _, end)| end == Stage::Running.suffix());
                running.map(|(_, job, _)| job).collect()
            }
        };
        for job in jobs {
            let from = self.path(job, Stage::Running);
            match std::fs::rename(&from, self.path(job, Stage::Lossy)) {
                Err(err) if err.kind() != ErrorKind::NotFound => std::fs::remove_file(&from)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Notes that a job has ended. Where this cannot be noted, something else may not have been, either.
    pub fn end(&self, job: Process) -> std::io::Result<()> {
        match self.stage(job) {
            Some(stage @ Stage::Running) => {
                std::fs::rename(self.path(job, stage), self.path(job, Stage::Ended))
            }
            _ => Ok(()),
        }
    }

    /// Notes what was told of a job.
    pub fn note_told(&self, job: Process, told: Told) -> std::io::Result<()> {
        let path = self.path(job, Stage::Told(told));
        match self.stage(job) {
            Some(stage) => std::fs::rename(self.path(job, stage), path),
            None => OpenOptions::new()
                .write(true)
                .create(true)
                .mode(0o600)
                .truncate(true)
                .open(path)
                .map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn records() -> (tempfile::TempDir, JobRecords, Process) {
        let folder = tempfile::tempdir().unwrap();
        let records = JobRecords::at(folder.path().join("run"));
        records.prepare().unwrap();
        (folder, records, Process::calling().unwrap())
    }

    #[test]
    fn what_is_missing_in_a_record_stays_missing() {
        let (_folder, records, job) = records();
        records.distrust(Some(job)).unwrap();
        assert_eq!(records.load(job).unwrap(), None);
        records.begin(job, 7).unwrap();
        assert!(!records.load(job).unwrap().unwrap().is_lossy);
        // Of whichever job it was.
        records.distrust(None).unwrap();
        let mut record = records.load(job).unwrap().unwrap();
        assert!(record.is_lossy && record.started == Some(7));
        record.guests.insert("100".to_owned(), Guest::Ok);
        records.store(job, &record).unwrap();
        records.end(job).unwrap();
        assert_eq!(records.load(job).unwrap().unwrap(), record);
        records.begin(job, 8).unwrap();
        assert!(!records.load(job).unwrap().unwrap().is_lossy);
    }

    #[test]
    fn what_was_told_counts_until_the_next_job_begins() {
        let (_folder, records, job) = records();
        assert_eq!(records.told(job), None);
        records.note_told(job, Told::Down).unwrap();
        assert_eq!(records.told(job), Some(Told::Down));
        records.begin(job, 7).unwrap();
        assert_eq!(records.told(job), None);
        records.end(job).unwrap();
        // Whoever could not be told is told with what is known.
        assert_eq!(records.load(job).unwrap().unwrap().started, Some(7));
        records.note_told(job, Told::Up).unwrap();
        records.prepare().unwrap();
        assert_eq!(records.told(job), Some(Told::Up));
        records.note_told(job, Told::Down).unwrap();
        assert_eq!(records.told(job), Some(Told::Down));
        records.forget_told(job).unwrap();
        assert_eq!(records.load(job).unwrap(), None);
    }

    #[test]
    fn a_record_that_cannot_be_marked_is_removed() {
        let (_folder, records, job) = records();
        records.begin(job, 7).unwrap();
        // Nothing can be renamed to a folder.
        std::fs::create_dir(records.path(job, Stage::Lossy)).unwrap();
        records.distrust(Some(job)).unwrap();
        std::fs::remove_dir(records.path(job, Stage::Lossy)).unwrap();
        assert_eq!(records.load(job).unwrap(), None, "removed instead");
        records.begin(job, 7).unwrap();
        std::fs::create_dir(records.path(job, Stage::Ended)).unwrap();
        assert!(records.load(job).is_err());
    }
}
