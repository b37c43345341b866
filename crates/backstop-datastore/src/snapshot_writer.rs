//! Writing a new snapshot: its directory, its files, and the manifest that makes it a finished one.
//!
//! The manifest is put in place last, after everything that it names has reached the disk as the sync level demands. A
//! snapshot that has a manifest after a crash is complete.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use backstop_format::blob::DataBlob;
use backstop_format::manifest::Manifest;
use backstop_types::{ArchiveKind, ArchiveName, Namespace, Snapshot, SyncLevel};

use crate::atomic_file::{self, AtomicFile};
use crate::datastore::Datastore;
use crate::dir_listing;
use crate::error::{DatastoreError, Result};
use crate::lock_file::{FileLock, LockMode};
use crate::manifest_file::check_identity;

/// A snapshot that is being written. Dropping it without [`finish`](Self::finish) removes it.
pub struct SnapshotWriter {
    datastore: Arc<Datastore>,
    namespace: Namespace,
    snapshot: Snapshot,
    path: PathBuf,
    /// Opened before the first write, so that it learns of all write errors of the file system since then.
    filesystem: File,
    lock: Option<FileLock>,
    finished: bool,
}

impl Datastore {
    /// Creates the directory of a new snapshot and locks it exclusively. Its group exists, and the caller holds its lock.
    ///
    /// # Errors
    /// [`DatastoreError::SnapshotExists`], [`DatastoreError::NoSuchGroup`], or the disk fails.
    pub fn create_snapshot(
        self: &Arc<Self>,
        namespace: &Namespace,
        snapshot: &Snapshot,
    ) -> Result<SnapshotWriter> {
        self.check_present()?;
        let path = self.snapshot_path(namespace, snapshot);
        let filesystem =
            File::open(self.path()).map_err(DatastoreError::io("open", self.path()))?;
        let lock = self.lock_snapshot_name(namespace, snapshot, LockMode::Exclusive)?;
        match crate::ownership::create_dir(&path, 0o755) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(DatastoreError::SnapshotExists(snapshot.clone()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                lock.remove();
                return Err(DatastoreError::NoSuchGroup(snapshot.group.clone()));
            }
            Err(error) => {
                return Err(DatastoreError::io("create snapshot directory", &path)(
                    error,
                ));
            }
        }
        Ok(SnapshotWriter {
            datastore: Arc::clone(self),
            namespace: namespace.clone(),
            snapshot: snapshot.clone(),
            path,
            filesystem,
            lock: Some(lock),
            finished: false,
        })
    }
}

impl SnapshotWriter {
    /// Which snapshot this is.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// In which namespace it lies.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its directory.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    fn syncs_files(&self) -> bool {
        self.datastore.tuning().sync_level == SyncLevel::File
    }

    /// Stores a blob, replacing an earlier one of that name.
    ///
    /// # Errors
    /// The name is that of the manifest or of an index, or the disk fails.
    pub fn store_blob(&self, name: &ArchiveName, blob: &DataBlob) -> Result<()> {
        let path = self.path.join(name.as_str());
        if name.kind() != ArchiveKind::Blob || name.as_str() == ArchiveName::MANIFEST {
            return Err(DatastoreError::Invalid {
                path,
                reason: "it is no name of a blob".into(),
            });
        }
        atomic_file::replace(&path, blob.raw(), self.syncs_files())
    }

    /// Stores an index file. It is complete when it appears under its name.
    ///
    /// # Errors
    /// The name is that of a blob, or the disk fails.
    pub fn store_index(&self, name: &ArchiveName, raw: &[u8]) -> Result<()> {
        let path = self.path.join(name.as_str());
        let extension = match name.kind() {
            ArchiveKind::Fixed => "tmp_fidx",
            ArchiveKind::Dynamic => "tmp_didx",
            ArchiveKind::Blob => {
                return Err(DatastoreError::Invalid {
                    path,
                    reason: "it is no name of an index".into(),
                });
            }
        };
        let mut file = AtomicFile::create_as(&path, path.with_extension(extension))?;
        file.write(raw)?;
        file.commit(self.syncs_files())
    }

    /// Makes the snapshot a finished one and releases its lock. When this returns, the backup survives a crash as the sync
    /// level promises.
    ///
    /// # Errors
    /// The manifest is that of another snapshot, or the disk fails; the snapshot is then removed.
    pub fn finish(mut self, manifest: &Manifest) -> Result<()> {
        check_identity(manifest, &self.snapshot).map_err(|reason| DatastoreError::Invalid {
            path: self.path.join(ArchiveName::MANIFEST),
            reason,
        })?;
        settle(
            &self.datastore,
            &self.filesystem,
            &self.namespace,
            &self.snapshot,
            manifest,
        )?;
        self.finished = true;
        Ok(())
    }

    /// Removes what was written.
    ///
    /// # Errors
    /// The disk fails.
    pub fn abort(mut self) -> Result<()> {
        self.finished = true;
        self.remove()
    }

    /// The files go, and so does the lock. A group without snapshots goes with them unless its lock is held.
    fn remove(&mut self) -> Result<()> {
        let permit = Datastore::permit_abort(&self.namespace, &self.snapshot);
        self.datastore.remove_snapshot_files(permit)?;
        if let Some(lock) = self.lock.take() {
            lock.remove();
        }
        Ok(())
    }
}

/// Puts the manifest in place after everything that it names has reached the disk as the sync level demands. `filesystem`
/// was opened before the first of it was written.
pub(crate) fn settle(
    datastore: &Datastore,
    filesystem: &File,
    namespace: &Namespace,
    snapshot: &Snapshot,
    manifest: &Manifest,
) -> Result<()> {
    let path = datastore.snapshot_path(namespace, snapshot);
    let sync_level = datastore.tuning().sync_level;
    if sync_level == SyncLevel::Filesystem {
        rustix::fs::syncfs(filesystem)
            .map_err(DatastoreError::sys("synchronise the file system of", &path))?;
    }
    datastore.store_manifest(namespace, snapshot, manifest, sync_level != SyncLevel::None)?;
    if sync_level != SyncLevel::None {
        // The directory itself is an entry of the group's.
        path.parent().map_or(Ok(()), atomic_file::sync_dir)?;
    }
    Ok(())
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = self.remove()
        {
            tracing::error!(snapshot = %self.snapshot, %error, "unable to remove unfinished snapshot");
        }
    }
}

impl Datastore {
    /// Removes a group that has no snapshots; the caller gives up its lock. For sessions that created a group and failed.
    ///
    /// # Errors
    /// The disk fails.
    pub fn remove_group_without_snapshots(
        &self,
        namespace: &Namespace,
        group: &backstop_types::BackupGroup,
        lock: FileLock,
    ) -> Result<bool> {
        if !self.snapshot_times(namespace, group)?.is_empty() {
            return Ok(false);
        }
        self.remove_group_dir(namespace, group, lock)?;
        let type_dir = self.namespace_path(namespace).join(group.ty.as_str());
        dir_listing::remove_if_empty(&type_dir)?;
        Ok(true)
    }
}
