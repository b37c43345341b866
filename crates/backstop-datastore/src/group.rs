//! Groups: all backups of one source, with their owner and notes.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use backstop_types::record::DeleteStats;
use backstop_types::{AuthId, BackupGroup, BackupType, Namespace, SyncLevel};

use crate::atomic_file;
use crate::datastore::Datastore;
use crate::dir_listing;
use crate::error::{DatastoreError, Result};
use crate::lock_file::{FileLock, LockMode};

pub(crate) const OWNER: &str = "owner";
pub(crate) const NOTES: &str = "notes";
/// Largest notes or owner file that is read, in bytes.
const MAX_TEXT: u64 = 1 << 20;

impl Datastore {
    /// The directory of a group.
    pub fn group_path(&self, namespace: &Namespace, group: &BackupGroup) -> PathBuf {
        let mut path = self.namespace_path(namespace);
        path.push(group.ty.as_str());
        path.push(group.id.as_str());
        path
    }

    /// The groups of a namespace, sorted.
    ///
    /// # Errors
    /// The namespace does not exist, or the disk fails.
    pub fn groups(&self, namespace: &Namespace) -> Result<Vec<BackupGroup>> {
        self.check_present()?;
        self.require_namespace(namespace)?;
        let path = self.namespace_path(namespace);
        let mut groups = Vec::new();
        for ty in BackupType::ALL {
            groups.extend(dir_listing::subdirs(&path.join(ty.as_str()), |name| {
                name.parse().ok().map(|id| BackupGroup::new(ty, id))
            })?);
        }
        groups.sort();
        Ok(groups)
    }

    /// Whether a group exists.
    pub fn group_exists(&self, namespace: &Namespace, group: &BackupGroup) -> bool {
        self.group_path(namespace, group).is_dir()
    }

    /// Takes the lock of a group, without waiting.
    ///
    /// # Errors
    /// [`DatastoreError::Locked`].
    pub fn lock_group(&self, namespace: &Namespace, group: &BackupGroup) -> Result<FileLock> {
        FileLock::take(
            self.locks.group(namespace, group),
            LockMode::Exclusive,
            Duration::ZERO,
            "unable to acquire backup group lock",
        )
    }

    /// Locks a group, creating it when it does not exist. Returns its owner, which for a new group is `owner`.
    ///
    /// # Errors
    /// The namespace does not exist, the group is in use, or its owner cannot be read.
    pub fn create_group_locked(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
        owner: &AuthId,
    ) -> Result<(AuthId, FileLock)> {
        self.require_namespace(namespace)?;
        let lock = self.lock_group(namespace, group)?;
        let path = self.group_path(namespace, group);
        crate::ownership::create_dir_all(&path, 0o755)
            .map_err(DatastoreError::io("create group directory", &path))?;
        let file = path.join(OWNER);
        if file.exists() {
            return Ok((self.owner(namespace, group)?, lock));
        }
        // As a whole: a group with an empty owner file could be neither used nor repaired by a later backup.
        let sync = self.tuning().sync_level != SyncLevel::None;
        atomic_file::replace(&file, format!("{owner}\n").as_bytes(), sync)?;
        Ok((owner.clone(), lock))
    }

    /// Who owns a group.
    ///
    /// # Errors
    /// The group does not exist, or its owner file holds no valid id.
    pub fn owner(&self, namespace: &Namespace, group: &BackupGroup) -> Result<AuthId> {
        let file = self.group_path(namespace, group).join(OWNER);
        let text = match read_text(&file)? {
            Some(text) => text,
            None if !self.group_exists(namespace, group) => {
                return Err(DatastoreError::NoSuchGroup(group.clone()));
            }
            None => {
                return Err(DatastoreError::Invalid {
                    path: file,
                    reason: "the group has no owner; set one with change-owner".into(),
                });
            }
        };
        let first = text.lines().next().unwrap_or_default().trim_end();
        first.parse().map_err(|error| DatastoreError::Invalid {
            path: file,
            reason: format!("{error}"),
        })
    }

    /// Makes somebody else the owner.
    ///
    /// # Errors
    /// The group does not exist or is in use.
    pub fn set_owner(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
        owner: &AuthId,
    ) -> Result<()> {
        let _lock = self.lock_existing_group(namespace, group)?;
        let file = self.group_path(namespace, group).join(OWNER);
        atomic_file::replace(&file, format!("{owner}\n").as_bytes(), false)
    }

    /// The notes of a group.
    ///
    /// # Errors
    /// The disk fails.
    pub fn group_notes(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
    ) -> Result<Option<String>> {
        read_text(&self.group_path(namespace, group).join(NOTES))
    }

    /// Replaces the notes of a group.
    ///
    /// # Errors
    /// The group does not exist or is in use.
    pub fn set_group_notes(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
        notes: &str,
    ) -> Result<()> {
        let _lock = self.lock_existing_group(namespace, group)?;
        let file = self.group_path(namespace, group).join(NOTES);
        atomic_file::replace(&file, notes.as_bytes(), false)
    }

    fn lock_existing_group(&self, namespace: &Namespace, group: &BackupGroup) -> Result<FileLock> {
        let lock = self.lock_group(namespace, group)?;
        if self.group_exists(namespace, group) {
            return Ok(lock);
        }
        lock.remove();
        Err(DatastoreError::NoSuchGroup(group.clone()))
    }

    /// Removes all snapshots of a group that are not protected, and the group when none is left. If a retention lock keeps one,
    /// nothing is removed.
    ///
    /// # Errors
    /// The group does not exist; a snapshot of it is locked; it or a snapshot of it is in use, in which case the removal stops
    /// there.
    pub fn remove_group(&self, namespace: &Namespace, group: &BackupGroup) -> Result<DeleteStats> {
        let lock = self.lock_existing_group(namespace, group)?;
        self.check_group_unlocked(namespace, group)?;
        let mut stats = DeleteStats::default();
        for time in self.snapshot_times(namespace, group)? {
            match self.remove_snapshot_of_locked_group(namespace, &group.snapshot(time)) {
                Ok(()) => stats.removed_snapshots += 1,
                Err(DatastoreError::Protected(_)) => stats.protected_snapshots += 1,
                Err(error) => return Err(error),
            }
        }
        if stats.protected_snapshots == 0 {
            self.remove_group_dir(namespace, group, lock)?;
            stats.removed_groups = 1;
        }
        Ok(stats)
    }

    /// Removes the directory of a group that has no snapshots.
    pub(crate) fn remove_group_dir(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
        lock: FileLock,
    ) -> Result<()> {
        let path = self.group_path(namespace, group);
        self.announce_removal(namespace, group);
        self.remove_hidden_snapshots(namespace, group)?;
        dir_listing::remove_file_if_present(&path.join(NOTES))?;
        dir_listing::remove_file_if_present(&path.join(OWNER))?;
        match std::fs::remove_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(DatastoreError::io("remove group directory", &path))?,
        }
        lock.remove();
        Ok(())
    }

    /// Removes a group that has lost its last snapshot, unless somebody uses it.
    pub(crate) fn remove_group_if_empty(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
    ) -> Result<()> {
        let Ok(lock) = self.lock_group(namespace, group) else {
            return Ok(());
        };
        if self.snapshot_times(namespace, group)?.is_empty() {
            self.remove_group_dir(namespace, group, lock)?;
        }
        Ok(())
    }
}

/// The text of a small file; `None` when it does not exist.
fn read_text(path: &std::path::Path) -> Result<Option<String>> {
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(DatastoreError::io("open", path))?,
    };
    let mut text = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, MAX_TEXT), &mut text)
        .map_err(DatastoreError::io("read", path))?;
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}
