//! Rotating the task archive, and deleting the logs of tasks that are in no list any more.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;

use super::TaskError;
use super::entry::TaskEntry;
use super::list::{TaskList, read_list};
use crate::rotated_log::{Part, RotatedLog};

/// The archive is rotated when it is longer than this, in bytes.
const SIZE: u64 = 512 * 1024 - 1;
/// Rotated archives and the current one that are kept unless a number of days is configured.
const PARTS: u32 = 20;
const DAY: i64 = 24 * 60 * 60;

impl TaskList {
    /// Rotates the archive if it has grown. With `max_days`, archives are not counted: those that hold only tasks
    /// that ended earlier than so many days before `now` (Unix seconds) are deleted. Says whether anything changed.
    ///
    /// # Errors
    /// When the lock cannot be had in 15 s, or a file cannot be read, renamed or deleted.
    pub fn rotate(&self, max_days: Option<u64>, now: i64) -> Result<bool, TaskError> {
        let _lock = self.lock(FlockOperation::NonBlockingLockExclusive)?;
        let archive = self.archive();
        let rotated = archive
            .rotate(SIZE, max_days.is_none().then_some(PARTS))
            .map_err(TaskError::file("rotate", self.folder().join("archive")))?;
        let Some(days) = max_days else {
            return Ok(rotated);
        };
        let days = i64::try_from(days).unwrap_or(i64::MAX);
        let oldest_wanted = now.saturating_sub(days.saturating_mul(DAY));
        let mut parts = self.parts()?.into_iter();
        // Entries are sorted by their end: a part that begins too early is followed by parts that are wholly so.
        let begins_early = |part: &Part| first_end(part).is_some_and(|end| end < oldest_wanted);
        let changed = rotated | parts.by_ref().any(|part| begins_early(&part));
        for part in parts {
            fs::remove_file(&part.path).map_err(TaskError::file("delete", &part.path))?;
        }
        Ok(changed)
    }

    /// Deletes the logs of tasks that ended before the oldest one that is still listed. Returns how many were
    /// deleted, and the files that could not be.
    ///
    /// # Errors
    /// When the lock cannot be had in 15 s, or the lists or a folder cannot be read.
    pub fn delete_old_logs(&self) -> Result<(u64, Vec<TaskError>), TaskError> {
        let _lock = self.lock(FlockOperation::NonBlockingLockExclusive)?;
        let Some(oldest) = self.parts()?.iter().rev().find_map(first_end) else {
            return Ok((0, Vec::new()));
        };
        let oldest =
            SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(oldest).unwrap_or_default());
        // A task can be silent for long.
        let running: HashSet<String> = read_list(&self.folder().join("active"))?
            .into_iter()
            .map(|entry| entry.upid.to_string())
            .collect();
        let (mut deleted, mut failed) = (0, Vec::new());
        for number in 0..=u8::MAX {
            let folder = self.folder().join(format!("{number:02X}"));
            let entries = match fs::read_dir(&folder) {
                Err(err) if err.kind() == ErrorKind::NotFound => continue,
                entries => entries.map_err(TaskError::file("read", &folder))?,
            };
            for entry in entries {
                let entry = entry.map_err(TaskError::file("read", &folder))?;
                let is_old = entry
                    .metadata()
                    .and_then(|metadata| metadata.modified())
                    .is_ok_and(|time| time < oldest);
                if !is_old || running.contains(&*entry.file_name().to_string_lossy()) {
                    continue;
                }
                match fs::remove_file(entry.path()) {
                    Ok(()) => deleted += 1,
                    Err(err) => failed.push(TaskError::file("delete", entry.path())(err)),
                }
            }
        }
        Ok((deleted, failed))
    }

    pub(super) fn archive(&self) -> RotatedLog {
        RotatedLog::new(self.folder().join("archive"))
    }

    fn parts(&self) -> Result<Vec<Part>, TaskError> {
        self.archive()
            .parts()
            .map_err(TaskError::file("read", self.folder()))
    }

    /// `archive`, then `archive.1` and so on, packed or not.
    pub(super) fn archives(&self) -> Result<Vec<PathBuf>, TaskError> {
        Ok(self.parts()?.into_iter().map(|part| part.path).collect())
    }
}

/// When the first task of a part ended; `None` for a part that tells nothing.
fn first_end(part: &Part) -> Option<i64> {
    let reader = BufReader::new(part.open().ok()?);
    reader
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(TaskEntry::parse(&line)?.end?.0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::fs::File;
    use std::path::Path;

    use backstop_types::Upid;
    use backstop_types::record::TaskState;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn upid(number: u64) -> Upid {
        format!("UPID:vm:00005C0A:00053ECE:{number:08X}:6B00B699:prune:store1:root@pam:")
            .parse()
            .unwrap()
    }

    /// A line for a task that ended so many days ago, and its log.
    fn ended(folder: &Path, number: u64, days: i64) -> String {
        let entry = TaskEntry {
            upid: upid(number),
            end: Some((NOW - days * DAY, TaskState::Ok)),
        };
        let log = super::super::log_path(folder, &entry.upid);
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs((NOW - days * DAY) as u64);
        File::create(log).unwrap().set_modified(time).unwrap();
        entry.line() + "\n"
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("archive"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_grown_archive_is_rotated_and_twenty_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let list = TaskList::new(dir.path().to_owned());
        assert!(!list.rotate(None, NOW).unwrap());
        let line = ended(dir.path(), 1, 1);
        let text = line.repeat(512 * 1024 / line.len() + 1);
        for _ in 0..25 {
            fs::write(dir.path().join("archive"), &text).unwrap();
            assert!(list.rotate(None, NOW).unwrap());
            fs::write(dir.path().join("archive"), &line).unwrap();
            assert!(!list.rotate(None, NOW).unwrap());
        }
        assert_eq!(names(dir.path()).len(), 20);
    }

    #[test]
    fn days_instead_of_numbers_decide_what_is_deleted_and_logs_follow() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let list = TaskList::new(folder.to_owned());
        let file = |name: &str, lines: [String; 2]| fs::write(folder.join(name), lines.concat());
        file("archive.3", [ended(folder, 1, 90), ended(folder, 2, 80)]).unwrap();
        file("archive.2", [ended(folder, 3, 50), ended(folder, 4, 40)]).unwrap();
        file("archive.1", [ended(folder, 5, 31), ended(folder, 6, 20)]).unwrap();
        file("archive", [ended(folder, 7, 10), ended(folder, 8, 1)]).unwrap();
        // A task that began long ago and has been silent since.
        let silent = ended(folder, 9, 200);
        let silent: Upid = silent.split(' ').next().unwrap().parse().unwrap();
        fs::write(folder.join("active"), format!("{silent}\n")).unwrap();
        assert!(!list.rotate(Some(100), NOW).unwrap());
        assert!(list.rotate(Some(30), NOW).unwrap());
        assert_eq!(names(folder), ["archive", "archive.1"]);
        let (deleted, failed) = list.delete_old_logs().unwrap();
        assert!(failed.is_empty());
        assert_eq!(deleted, 4);
        let left = |number| super::super::log_path(folder, &upid(number)).exists();
        let left: Vec<u64> = (1..=9).filter(|number| left(*number)).collect();
        assert_eq!(left, [5, 6, 7, 8, 9]);
    }
}
