//! What is known of a backup job that runs: which guests it has begun, and how they ended.
//!
//! `vzdump` ends a job with `job-end` also when guests failed; that they did stands only here. One file for each run of `vzdump`, in
//! a folder that does not outlive a restart of the system. What runs that are gone left behind is removed.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::vzdump_process::Process;

const SUFFIX: &str = ".json";

/// How a guest's backup stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Guest {
    Running,
    Ok,
    Failed,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobRecord {
    /// When the job began, in Unix seconds; unknown for one that was under way before the hook was there.
    #[serde(default)]
    pub started: Option<i64>,
    #[serde(default)]
    pub guests: BTreeMap<String, Guest>,
}

impl JobRecord {
    /// Guests that did not end well.
    pub fn failed(&self) -> Vec<&str> {
        let failed = self.guests.iter().filter(|(_, state)| **state != Guest::Ok);
        failed.map(|(vmid, _)| vmid.as_str()).collect()
    }
}

/// The folder of all records.
#[derive(Debug)]
pub(crate) struct JobRecords {
    folder: PathBuf,
}

impl JobRecords {
    /// Opens the folder, which is made when it is missing, and removes what belongs to nobody any more.
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let records = Self {
            folder: folder.to_owned(),
        };
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let process = path.file_name().and_then(|name| name.to_str());
            let process = process.and_then(|name| name.split('.').next()?.parse::<Process>().ok());
            // Somebody else may have been faster.
            if process.is_some_and(|process| !process.is_alive()) {
                let _ = std::fs::remove_file(path);
            }
        }
        Ok(records)
    }

    fn path(&self, job: Process) -> PathBuf {
        self.folder.join(format!("{job}{SUFFIX}"))
    }

    /// `None` when nothing was noted of the job.
    pub fn load(&self, job: Process) -> std::io::Result<Option<JobRecord>> {
        match std::fs::read(self.path(job)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }

    pub fn store(&self, job: Process, record: &JobRecord) -> std::io::Result<()> {
        let temporary = self.folder.join(format!("{job}.tmp"));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        std::fs::rename(&temporary, self.path(job))
    }

    pub fn remove(&self, job: Process) {
        let _ = std::fs::remove_file(self.path(job));
    }
}
