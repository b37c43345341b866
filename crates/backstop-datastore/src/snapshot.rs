//! Snapshots: single backups, with their files, protection and removal.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backstop_format::blob::{DataBlob, ENCRYPTED_HEADER_SIZE, MAX_BLOB_SIZE};
use backstop_format::index::{AnyIndex, DynamicIndex, FixedIndex};
use backstop_types::{ArchiveKind, ArchiveName, BackupGroup, BackupTime, Namespace, Snapshot};

use crate::atomic_file;
use crate::datastore::Datastore;
use crate::dir_listing;
use crate::error::{DatastoreError, Result};
use crate::lock_file::{FileLock, LockMode};

/// Name of the file that protects a snapshot.
const PROTECTED: &str = ".protected";
/// Largest index file that is read, in bytes: 64 million entries.
const MAX_INDEX_SIZE: u64 = 40 * (64 << 20) + 4096;
const MAX_BLOB_FILE_SIZE: u64 = (MAX_BLOB_SIZE + ENCRYPTED_HEADER_SIZE) as u64;

/// A snapshot with what its directory tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Which one.
    pub snapshot: Snapshot,
    /// Names of its files, sorted; the manifest is one of them when the backup was finished.
    pub files: Vec<String>,
    /// Whether it is protected from removal.
    pub protected: bool,
}

impl SnapshotInfo {
    /// Whether its backup was finished.
    pub fn is_finished(&self) -> bool {
        self.files.iter().any(|file| file == ArchiveName::MANIFEST)
    }
}

impl Datastore {
    /// The directory of a snapshot.
    pub fn snapshot_path(&self, namespace: &Namespace, snapshot: &Snapshot) -> PathBuf {
        self.group_path(namespace, &snapshot.group)
            .join(snapshot.time.to_string())
    }

    /// Whether a snapshot exists, finished or not.
    pub fn snapshot_exists(&self, namespace: &Namespace, snapshot: &Snapshot) -> bool {
        self.snapshot_path(namespace, snapshot).is_dir()
    }

    /// Whether a snapshot's backup was finished.
    pub fn is_finished(&self, namespace: &Namespace, snapshot: &Snapshot) -> bool {
        self.snapshot_path(namespace, snapshot)
            .join(ArchiveName::MANIFEST)
            .is_file()
    }

    /// The times of a group's snapshots, newest first, unfinished ones included.
    ///
    /// # Errors
    /// The disk fails. A group that does not exist has none.
    pub fn snapshot_times(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
    ) -> Result<Vec<BackupTime>> {
        let mut times: Vec<BackupTime> =
            dir_listing::subdirs(&self.group_path(namespace, group), |name| name.parse().ok())?;
        times.sort_unstable_by(|a, b| b.cmp(a));
        Ok(times)
    }

    /// A group's snapshots with their files, newest first.
    ///
    /// # Errors
    /// The disk fails. A group that does not exist has none, and snapshots that vanish meanwhile are left out.
    pub fn snapshots(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
    ) -> Result<Vec<SnapshotInfo>> {
        let mut found = Vec::new();
        for time in self.snapshot_times(namespace, group)? {
            match self.snapshot_info(namespace, &group.snapshot(time)) {
                Err(DatastoreError::NoSuchSnapshot(_)) => {}
                info => found.push(info?),
            }
        }
        Ok(found)
    }

    /// A snapshot with its files.
    ///
    /// # Errors
    /// [`DatastoreError::NoSuchSnapshot`], or the disk fails.
    pub fn snapshot_info(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
    ) -> Result<SnapshotInfo> {
        let path = self.snapshot_path(namespace, snapshot);
        let mut info = SnapshotInfo {
            snapshot: snapshot.clone(),
            files: Vec::new(),
            protected: false,
        };
        dir_listing::entries(&path, |entry| {
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                return Ok(());
            };
            if name == PROTECTED {
                info.protected = true;
            } else if has_known_extension(name) && entry.file_type()?.is_file() {
                info.files.push(name.to_owned());
            }
            Ok(())
        })?;
        if info.files.is_empty() && !path.is_dir() {
            return Err(DatastoreError::NoSuchSnapshot(snapshot.clone()));
        }
        info.files.sort();
        Ok(info)
    }

    /// The newest snapshot of a group whose backup was finished.
    ///
    /// # Errors
    /// The disk fails.
    pub fn last_finished(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
    ) -> Result<Option<Snapshot>> {
        let mut snapshots = self
            .snapshot_times(namespace, group)?
            .into_iter()
            .map(|time| group.snapshot(time));
        Ok(snapshots.find(|snapshot| self.is_finished(namespace, snapshot)))
    }

    /// Takes the lock of a snapshot, without waiting.
    ///
    /// # Errors
    /// [`DatastoreError::Locked`]; [`DatastoreError::NoSuchSnapshot`] when there is nothing to lock.
    pub fn lock_snapshot(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
        mode: LockMode,
    ) -> Result<FileLock> {
        let lock = self.lock_snapshot_name(namespace, snapshot, mode)?;
        if self.snapshot_exists(namespace, snapshot) {
            return Ok(lock);
        }
        if mode == LockMode::Exclusive {
            lock.remove();
        }
        Err(DatastoreError::NoSuchSnapshot(snapshot.clone()))
    }

    /// As [`lock_snapshot`](Self::lock_snapshot), for a snapshot that need not exist yet.
    pub(crate) fn lock_snapshot_name(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
        mode: LockMode,
    ) -> Result<FileLock> {
        let what = match mode {
            LockMode::Exclusive => "unable to acquire snapshot lock",
            LockMode::Shared => "unable to acquire shared snapshot lock",
        };
        FileLock::take(
            self.locks.snapshot(namespace, snapshot),
            mode,
            Duration::ZERO,
            what,
        )
    }

    /// Whether a snapshot is protected from removal.
    pub fn is_protected(&self, namespace: &Namespace, snapshot: &Snapshot) -> bool {
        // Anything but a clear "no" counts as protected.
        let marker = self.snapshot_path(namespace, snapshot).join(PROTECTED);
        !matches!(std::fs::symlink_metadata(marker), Err(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Protects a snapshot from removal, or no longer.
    ///
    /// # Errors
    /// The snapshot does not exist or is in use.
    pub fn set_protected(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
        protected: bool,
    ) -> Result<()> {
        let _lock = self.lock_snapshot(namespace, snapshot, LockMode::Exclusive)?;
        let marker = self.snapshot_path(namespace, snapshot).join(PROTECTED);
        if protected {
            File::create(&marker)
                .and_then(|created| crate::ownership::inherit(&created, &marker))
                .map_err(DatastoreError::io("create", &marker))
        } else {
            dir_listing::remove_file_if_present(&marker)
        }
    }

    /// Opens a file of a snapshot for reading.
    ///
    /// # Errors
    /// [`DatastoreError::NoSuchSnapshot`], [`DatastoreError::NoSuchFile`], or the disk fails.
    pub fn open_file(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
        name: &ArchiveName,
    ) -> Result<File> {
        let path = self.snapshot_path(namespace, snapshot).join(name.as_str());
        // The name is one component and not followed when it is a link, so nothing outside the directory can be meant.
        match File::options()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
        {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.check_present()?;
                if self.snapshot_exists(namespace, snapshot) {
                    Err(DatastoreError::NoSuchFile { path })
                } else {
                    Err(DatastoreError::NoSuchSnapshot(snapshot.clone()))
                }
            }
            other => other.map_err(DatastoreError::io("open", &path)),
        }
    }

    pub(crate) fn read_file(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
        name: &ArchiveName,
    ) -> Result<(PathBuf, Vec<u8>)> {
        let path = self.snapshot_path(namespace, snapshot).join(name.as_str());
        let limit = if name.kind() == ArchiveKind::Blob {
            MAX_BLOB_FILE_SIZE
        } else {
            MAX_INDEX_SIZE
        };
        let file = self.open_file(namespace, snapshot, name)?;
        let raw = read_bounded(file, &path, limit)?;
        Ok((path, raw))
    }

    /// Reads a blob of a snapshot and checks its CRC.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file), and [`DatastoreError::Damaged`].
    pub fn load_blob(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
        name: &ArchiveName,
    ) -> Result<DataBlob> {
        let (path, raw) = self.read_file(namespace, snapshot, name)?;
        DataBlob::load(raw).map_err(|source| DatastoreError::Damaged { path, source })
    }

    /// Reads an index of a snapshot and checks it.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file), and [`DatastoreError::Damaged`].
    pub fn load_index(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
        name: &ArchiveName,
    ) -> Result<AnyIndex> {
        let (path, raw) = self.read_file(namespace, snapshot, name)?;
        parse_index(&path, &raw, name.kind())
    }

    /// Stores the log that a client sends after its backup. There can be one per snapshot.
    ///
    /// # Errors
    /// The snapshot is in use or has a log already, or the disk fails.
    pub fn store_client_log(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
        log: &DataBlob,
    ) -> Result<()> {
        let _lock = self.lock_snapshot(namespace, snapshot, LockMode::Shared)?;
        let path = self
            .snapshot_path(namespace, snapshot)
            .join(ArchiveName::CLIENT_LOG);
        if path.exists() {
            return Err(DatastoreError::Invalid {
                path,
                reason: "backup already contains a log.".into(),
            });
        }
        atomic_file::replace(&path, log.raw(), false)
    }

    /// Removes a snapshot, and its group when that was the last one. With `force`, the caller holds the snapshot's lock.
    ///
    /// # Errors
    /// It does not exist, is in use, protected or locked, or the disk fails.
    pub fn remove_snapshot(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
        force: bool,
    ) -> Result<()> {
        if force {
            self.remove_snapshot_dir(namespace, snapshot)?;
        } else {
            self.remove_snapshot_of_locked_group(namespace, snapshot)?;
        }
        self.remove_group_if_empty(namespace, &snapshot.group)
    }

    /// Removes a snapshot under its own locks; the group stays.
    pub fn remove_snapshot_of_locked_group(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
    ) -> Result<()> {
        let lock = self.lock_snapshot(namespace, snapshot, LockMode::Exclusive)?;
        let manifest_lock = self.lock_manifest(namespace, snapshot)?;
        self.remove_snapshot_dir(namespace, snapshot)?;
        manifest_lock.remove();
        lock.remove();
        Ok(())
    }

    fn remove_snapshot_dir(&self, namespace: &Namespace, snapshot: &Snapshot) -> Result<()> {
        if self.is_protected(namespace, snapshot) && self.snapshot_exists(namespace, snapshot) {
            return Err(DatastoreError::Protected(snapshot.clone()));
        }
        self.remove_snapshot_files(self.permit_removal(namespace, snapshot)?)
    }
}

/// Whether a file belongs to the listing of a snapshot.
pub(crate) fn has_known_extension(name: &str) -> bool {
    matches!(name.rsplit_once('.'), Some((_, "blob" | "fidx" | "didx")))
}

/// Checks and reads an index of the kind that its name states.
pub(crate) fn parse_index(path: &Path, raw: &[u8], kind: ArchiveKind) -> Result<AnyIndex> {
    let parsed = match kind {
        ArchiveKind::Fixed => FixedIndex::parse(raw).map(AnyIndex::Fixed),
        ArchiveKind::Dynamic => DynamicIndex::parse(raw).map(AnyIndex::Dynamic),
        ArchiveKind::Blob => {
            return Err(DatastoreError::Invalid {
                path: path.to_owned(),
                reason: "it is no index".into(),
            });
        }
    };
    parsed.map_err(|source| DatastoreError::Damaged {
        path: path.to_owned(),
        source,
    })
}

/// All of a file, up to a limit in bytes.
pub(crate) fn read_bounded(file: File, path: &Path, limit: u64) -> Result<Vec<u8>> {
    let size = file
        .metadata()
        .map_err(DatastoreError::io("look at", path))?
        .len();
    if size > limit {
        let reason = format!("it has {size} bytes, more than the limit of {limit}");
        return Err(DatastoreError::Invalid {
            path: path.to_owned(),
            reason,
        });
    }
    let mut raw = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(limit)
        .read_to_end(&mut raw)
        .map_err(DatastoreError::io("read", path))?;
    Ok(raw)
}

#[cfg(test)]
mod tests;
