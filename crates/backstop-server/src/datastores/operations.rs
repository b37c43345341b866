//! The file in which the processes of this host count their running operations on a datastore, so that each knows of
//! the others: `run/proxmox-backup/active-operations/NAME`. A stock server writes and reads the same file.
//!
//! It is brought up to date within a quarter of a second, so that short operations cost no writing. Whoever must know
//! exactly what this server does asks the counters in memory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use backstop_datastore::ownership;
use backstop_types::DatastoreName;
use backstop_types::record::ActiveOperations;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::task::{is_alive, this_process};

/// Largest file that is read, bytes; an entry takes less than 200.
const MAX_SIZE: u64 = 1 << 20;

/// What one process does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    pid: u32,
    starttime: u64,
    active_operations: Counts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    read: i64,
    write: i64,
}

/// The directory of these files.
#[derive(Debug, Clone)]
pub(super) struct OperationsFiles(PathBuf);

impl OperationsFiles {
    /// The files below the run directory of the server.
    pub(super) fn below(run: &Path) -> Self {
        Self(run.join("active-operations"))
    }

    fn path(&self, name: &DatastoreName) -> PathBuf {
        self.0.join(name.as_str())
    }

    fn read(&self, name: &DatastoreName) -> Vec<Entry> {
        let path = self.path(name);
        let is_sane = |file: &File| file.metadata().is_ok_and(|data| data.len() <= MAX_SIZE);
        let text = File::open(&path)
            .ok()
            .filter(is_sane)
            .and_then(|file| io::read_to_string(file).ok())
            .unwrap_or_default();
        // A broken file counts as empty; a stock server does the same, and the next change mends it.
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// What other living processes of this host do.
    pub(super) fn others(&self, name: &DatastoreName) -> ActiveOperations {
        let own = this_process();
        let mut sum = ActiveOperations { read: 0, write: 0 };
        for entry in self.read(name) {
            let process = (entry.pid, entry.starttime);
            if process != own && is_alive(entry.pid, entry.starttime) {
                sum.read = sum.read.saturating_add(entry.active_operations.read.max(0));
                sum.write = sum
                    .write
                    .saturating_add(entry.active_operations.write.max(0));
            }
        }
        sum
    }

    /// Tells the others what this process does. Fails with `WouldBlock` when another process is at the file just now;
    /// try again later.
    pub(super) fn write(&self, name: &DatastoreName, own: &ActiveOperations) -> io::Result<()> {
        ownership::create_dir_all(&self.0, 0o750)?;
        let _lock = self.lock(name)?;
        let (pid, starttime) = this_process();
        let mut entries = self.read(name);
        entries.retain(|entry| {
            (entry.pid, entry.starttime) != (pid, starttime) && is_alive(entry.pid, entry.starttime)
        });
        entries.push(Entry {
            pid,
            starttime,
            active_operations: Counts {
                read: own.read,
                write: own.write,
            },
        });
        let path = self.path(name);
        // The lock is held, so the name is free.
        let temporary = self.0.join(format!("{name}.tmp_backstop"));
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&entries)?)?;
        ownership::inherit(&file, &path)?;
        file.set_permissions(fs::Permissions::from_mode(0o660))?;
        fs::rename(&temporary, &path)?;
        Ok(())
    }

    fn lock(&self, name: &DatastoreName) -> io::Result<File> {
        let path = self.0.join(format!("{name}.lock"));
        let file = File::options()
            .create(true)
            .append(true)
            .mode(0o660)
            .open(&path)?;
        ownership::inherit(&file, &path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn counts(read: i64, write: i64) -> ActiveOperations {
        ActiveOperations { read, write }
    }

    #[test]
    fn the_file_is_the_one_that_a_stock_server_reads() {
        let dir = tempfile::tempdir().unwrap();
        let files = OperationsFiles::below(dir.path());
        let name = "store1".parse().unwrap();
        files.write(&name, &counts(1, 2)).unwrap();
        let path = dir.path().join("active-operations/store1");
        let (pid, starttime) = this_process();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!(
                r#"[{{"pid":{pid},"starttime":{starttime},"active_operations":{{"read":1,"write":2}}}}]"#
            )
        );
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert_eq!(files.others(&name), counts(0, 0));
    }

    #[test]
    fn other_processes_count_as_long_as_they_live() {
        let dir = tempfile::tempdir().unwrap();
        let files = OperationsFiles::below(dir.path());
        let name: DatastoreName = "store1".parse().unwrap();
        let path = dir.path().join("active-operations/store1");
        fs::create_dir(dir.path().join("active-operations")).unwrap();
        // process 1 lives; one of its number that started at another time does not
        let stat = fs::read_to_string("/proc/1/stat").unwrap();
        let started: u64 = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19)?.parse().ok())
            .unwrap();
        let entry = |starttime: u64| {
            format!(
                r#"{{"pid":1,"starttime":{starttime},"active_operations":{{"read":3,"write":4}}}}"#
            )
        };
        fs::write(
            &path,
            format!("[{},{}]", entry(started), entry(started + 1)),
        )
        .unwrap();
        assert_eq!(files.others(&name), counts(3, 4));
        files.write(&name, &counts(0, 1)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&format!("[{},", entry(started))), "{text}");
        assert!(!text.contains(&entry(started + 1)), "{text}");
        assert_eq!(files.others(&name), counts(3, 4));
    }

    #[test]
    fn a_broken_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let files = OperationsFiles::below(dir.path());
        let name = "store1".parse().unwrap();
        files.write(&name, &counts(0, 0)).unwrap();
        fs::write(dir.path().join("active-operations/store1"), "[{").unwrap();
        assert_eq!(files.others(&name), counts(0, 0));
        files.write(&name, &counts(1, 0)).unwrap();
        assert_eq!(files.read(&name).len(), 1);
    }
}
