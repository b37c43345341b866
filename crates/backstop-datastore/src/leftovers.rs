//! What an end in the middle of things leaves behind in a group, and removing it.
//!
//! A snapshot is removed in two steps: it gets a hidden name, which no listing takes for a snapshot, and then its files go.
//! So it is there as a whole or not at all. A backup that was cut off leaves a directory without manifest. Nothing here
//! touches what somebody holds a lock on.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use backstop_types::{ArchiveName, BackupGroup, Namespace, Snapshot};

use crate::datastore::Datastore;
use crate::dir_listing;
use crate::error::{DatastoreError, Result};
use crate::lock_file::LockMode;
use crate::retention_lock::permit::RemovalPermit;
use crate::task_log::TaskLog;

const REMOVED: &str = ".removed";
/// Times of files come from a clock that is a little behind the one that tasks are timed with, in seconds.
const COARSE: i64 = 1;

/// What was found and removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Snapshots whose backup was cut off.
    pub unfinished: Vec<Snapshot>,
    /// Snapshots and manifests whose removal or change was cut off.
    pub remains: u64,
    /// Whether the group had nothing else and is gone.
    pub group: bool,
}

impl Leftovers {
    /// Whether there was nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Datastore {
    /// Removes what a backup, a removal or a change of a manifest left in a group when its process ended in the middle.
    /// Unfinished snapshots count from `since` (Unix seconds) on: older ones have another story, and are for the operator
    /// to look at. A group in use is left alone.
    ///
    /// # Errors
    /// The disk fails.
    pub fn clear_leftovers(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
        since: i64,
    ) -> Result<Leftovers> {
        let mut found = Leftovers::default();
        let lock = match self.lock_group(namespace, group) {
            Err(DatastoreError::Locked { .. }) => return Ok(found),
            lock => lock?,
        };
        if !self.group_exists(namespace, group) {
            lock.remove();
            return Ok(found);
        }
        found.remains += self.remove_hidden_snapshots(namespace, group)?;
        for time in self.snapshot_times(namespace, group)? {
            let snapshot = group.snapshot(time);
            if self.is_finished(namespace, &snapshot) {
                found.remains += self.remove_manifest_temporaries(namespace, &snapshot)?;
            } else if self.remove_unfinished(namespace, &snapshot, since)? {
                found.unfinished.push(snapshot);
            }
        }
        if self.snapshot_times(namespace, group)?.is_empty()
            && self.group_notes(namespace, group)?.is_none()
        {
            self.remove_group_dir(namespace, group, lock)?;
            found.group = true;
        }
        Ok(found)
    }

    /// Removes a snapshot that has no manifest, unless it is in use, protected, or older than `since`.
    fn remove_unfinished(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
        since: i64,
    ) -> Result<bool> {
        let path = self.snapshot_path(namespace, snapshot);
        let since = since.saturating_sub(COARSE);
        let since = Duration::from_secs(u64::try_from(since).unwrap_or_default());
        let changed = std::fs::metadata(&path).and_then(|metadata| metadata.modified());
        if !changed.is_ok_and(|time| time >= SystemTime::UNIX_EPOCH + since) {
            return Ok(false);
        }
        let lock = match self.lock_snapshot_name(namespace, snapshot, LockMode::Exclusive) {
            Err(DatastoreError::Locked { .. }) => return Ok(false),
            lock => lock?,
        };
        if self.is_finished(namespace, snapshot) || self.is_protected(namespace, snapshot) {
            return Ok(false);
        }
        self.remove_snapshot_files(self.permit_removal(namespace, snapshot)?)?;
        lock.remove();
        Ok(true)
    }

    /// Removes the directory of a snapshot: at once from every listing, then from the disk. Nothing else removes snapshots.
    pub(crate) fn remove_snapshot_files(&self, permit: RemovalPermit) -> Result<()> {
        let path = self.snapshot_path(permit.namespace, permit.snapshot);
        let hidden = hidden_path(&path);
        // One of the same name can only be a leftover.
        remove_dir(&hidden)?;
        match std::fs::rename(&path, &hidden) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(DatastoreError::io("remove snapshot directory", &path))?,
        }
        drop(permit);
        remove_dir(&hidden)
    }

    /// Removes what removals of snapshots of this group left; the caller holds the group's lock. Returns their number.
    pub(crate) fn remove_hidden_snapshots(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
    ) -> Result<u64> {
        let path = self.group_path(namespace, group);
        let is_hidden = |name: &str| name.starts_with('.') && name.ends_with(REMOVED);
        let hidden = dir_listing::subdirs(&path, |name| is_hidden(name).then(|| path.join(name)))?;
        for dir in &hidden {
            remove_dir(dir)?;
        }
        Ok(hidden.len() as u64)
    }

    /// Removes files that were to replace the manifest, unless somebody is about to do that.
    fn remove_manifest_temporaries(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
    ) -> Result<u64> {
        let stem = ArchiveName::MANIFEST.trim_end_matches("blob");
        let mut found = Vec::new();
        dir_listing::entries(&self.snapshot_path(namespace, snapshot), |entry| {
            let name = entry.file_name();
            let rest = name.to_str().and_then(|name| name.strip_prefix(stem));
            if rest.is_some_and(|rest| rest.starts_with("tmp_")) {
                found.push(entry.path());
            }
            Ok(())
        })?;
        if found.is_empty() {
            return Ok(0);
        }
        let Ok(_lock) = self.lock_manifest(namespace, snapshot) else {
            return Ok(0);
        };
        for path in &found {
            dir_listing::remove_file_if_present(path)?;
        }
        Ok(found.len() as u64)
    }
}

/// Whether a name is that of a snapshot whose removal was cut off, or of a file that was to replace another one.
pub(crate) fn is_leftover(name: &str) -> bool {
    let is_hidden_snapshot = name.starts_with(".2") && name.ends_with(REMOVED);
    let suffix = name.rsplit_once(".tmp_").map(|(_, suffix)| suffix);
    let is_temporary =
        |suffix: &str| suffix.len() == 6 && suffix.bytes().all(|c| c.is_ascii_alphanumeric());
    is_hidden_snapshot || suffix.is_some_and(is_temporary)
}

/// Removes leftovers. Files count only if they were last changed before `before` (Unix seconds): younger ones can belong to a
/// write that is under way. What cannot be removed is told and tried again the next time.
pub(crate) fn remove_old(paths: &[PathBuf], before: i64, log: &dyn TaskLog) {
    let before = Duration::from_secs(u64::try_from(before).unwrap_or_default());
    let mut removed = 0_u64;
    for path in paths {
        let done = match std::fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => remove_dir(path).map(|()| true),
            Ok(metadata) => match metadata.modified() {
                Ok(time) if time < SystemTime::UNIX_EPOCH + before => {
                    dir_listing::remove_file_if_present(path).map(|()| true)
                }
                _ => Ok(false),
            },
            Err(_) => Ok(false),
        };
        match done {
            Ok(done) => removed += u64::from(done),
            Err(error) => log.warn(&error.to_string()),
        }
    }
    if removed > 0 {
        log.info(&format!(
            "Removed {removed} leftovers of writes that were cut off"
        ));
    }
}

fn hidden_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{REMOVED}"))
}

fn remove_dir(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(DatastoreError::io("remove snapshot directory", path)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::fs;

    use backstop_types::AuthId;

    use super::*;
    use crate::fixture::{TestStore, age};

    fn root() -> Namespace {
        Namespace::root()
    }

    /// A snapshot directory as a backup has it that is under way, or was cut off.
    fn begun(test: &TestStore, snapshot: &str) -> Snapshot {
        let snapshot: Snapshot = snapshot.parse().unwrap();
        drop(
            test.store
                .create_group_locked(&root(), &snapshot.group, &AuthId::root()),
        );
        let path = test.store.snapshot_path(&root(), &snapshot);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("root.pxar.tmp_didx"), "x").unwrap();
        snapshot
    }

    #[test]
    fn what_a_crash_left_goes_and_everything_else_stays() {
        let test = TestStore::empty();
        let kept = test.backup("vm/100/2024-01-01T00:00:00Z", &[b"a"]);
        let old = begun(&test, "vm/100/2024-01-02T00:00:00Z");
        age(&test.store.snapshot_path(&root(), &old));
        let cut_off = begun(&test, "vm/100/2024-01-03T00:00:00Z");
        let group = test.store.group_path(&root(), &kept.group);
        let half_removed = group.join(".2023-01-01T00:00:00Z.removed");
        fs::create_dir(&half_removed).unwrap();
        fs::write(half_removed.join("index.json.blob"), "x").unwrap();
        let manifest = test
            .store
            .snapshot_path(&root(), &kept)
            .join("index.json.blob");
        fs::write(manifest.with_extension("tmp_aB3dE9"), "x").unwrap();
        let found = test
            .store
            .clear_leftovers(&root(), &kept.group, 1_500_000_000)
            .unwrap();
        let wanted = Leftovers {
            unfinished: vec![cut_off],
            remains: 2,
            group: false,
        };
        assert_eq!(found, wanted);
        let mut names: Vec<_> = fs::read_dir(&group)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z", "owner"]
        );
        assert_eq!(fs::read_dir(manifest.parent().unwrap()).unwrap().count(), 2);
        let again = test
            .store
            .clear_leftovers(&root(), &kept.group, 1_500_000_000)
            .unwrap();
        assert!(again.is_empty());
    }

    #[test]
    fn what_is_in_use_stays() {
        let test = TestStore::empty();
        let running = begun(&test, "vm/100/2024-01-03T00:00:00Z");
        let clear = || {
            test.store
                .clear_leftovers(&root(), &running.group, 0)
                .unwrap()
        };
        let group_lock = test.store.lock_group(&root(), &running.group).unwrap();
        assert!(clear().is_empty());
        drop(group_lock);
        let mode = LockMode::Exclusive;
        let lock = test
            .store
            .lock_snapshot_name(&root(), &running, mode)
            .unwrap();
        assert!(clear().is_empty());
        drop(lock);
        let wanted = Leftovers {
            unfinished: vec![running.clone()],
            remains: 0,
            group: true,
        };
        assert_eq!(clear(), wanted, "the group held nothing else");
        assert!(!test.store.group_exists(&root(), &running.group));
        assert!(clear().is_empty(), "no such group");
    }

    #[test]
    fn garbage_collection_removes_leftovers_but_no_write_that_is_under_way() {
        let test = TestStore::empty();
        let snapshot = test.backup("vm/100/2024-01-01T00:00:00Z", &[b"a"]);
        let path = test.store.snapshot_path(&root(), &snapshot);
        let old = path.join("index.json.tmp_aB3dE9");
        let young = path.join("index.json.tmp_young1");
        let other = path.join("notes.tmp_backup-of-mine");
        for file in [&old, &young, &other] {
            fs::write(file, "x").unwrap();
        }
        age(&old);
        age(&other);
        let half_removed = path.with_file_name(".2023-01-01T00:00:00Z.removed");
        fs::create_dir(&half_removed).unwrap();
        test.store
            .collect_garbage(None, &crate::task_log::Silent)
            .unwrap();
        assert!(!old.exists() && !half_removed.exists());
        assert!(young.exists() && other.exists());
        assert!(test.store.is_finished(&root(), &snapshot));
    }

    #[test]
    fn a_removal_that_was_cut_off_hinders_no_later_one() {
        let test = TestStore::empty();
        let snapshot = test.backup("vm/100/2024-01-01T00:00:00Z", &[b"a"]);
        let path = test.store.snapshot_path(&root(), &snapshot);
        fs::create_dir(hidden_path(&path)).unwrap();
        fs::write(hidden_path(&path).join("old"), "x").unwrap();
        test.store
            .remove_snapshot(&root(), &snapshot, false)
            .unwrap();
        assert_eq!(test.store.groups(&root()).unwrap(), []);
    }
}
