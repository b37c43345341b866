//! Taking over a snapshot that exists elsewhere: its files as they are there, and its manifest last.
//!
//! A snapshot that is new here is removed unless it becomes complete. One that was here before keeps its manifest until all
//! its files are replaced, each as a whole. Who imports has checked the content of all chunks; files are checked here against
//! the manifest that names them.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use backstop_format::Digest;
use backstop_format::blob::DataBlob;
use backstop_format::index::{AnyIndex, ChunkIndex};
use backstop_format::manifest::{FileEntry, Manifest, VerifyResult};
use backstop_types::{ArchiveKind, ArchiveName, Namespace, Snapshot, SyncLevel};

use crate::atomic_file::AtomicFile;
use crate::datastore::Datastore;
use crate::digest_set::DigestSet;
use crate::dir_listing;
use crate::error::{DatastoreError, Result};
use crate::lock_file::{FileLock, LockMode};
use crate::manifest_file::check_identity;
use crate::retention_lock::permit::OverwritingPermit;
use crate::snapshot::parse_index;
use crate::snapshot_writer::settle;

/// A snapshot that is being taken over; it is locked exclusively.
pub struct SnapshotImport {
    datastore: Arc<Datastore>,
    namespace: Namespace,
    snapshot: Snapshot,
    path: PathBuf,
    /// Opened before the first write, so that it learns of all write errors of the file system since then.
    filesystem: File,
    lock: Option<FileLock>,
    /// Whether nothing was here before, and nothing is complete yet.
    removable: bool,
    /// The manifest of the finished snapshot that was here before; what it names may be repaired, even under a lock.
    before: Option<Manifest>,
}

impl Datastore {
    /// Locks a snapshot exclusively in order to take it over from elsewhere; its directory is made if it is missing. Its
    /// group exists, and the caller holds its lock.
    ///
    /// # Errors
    /// Somebody uses the snapshot, there is no such group, or the disk fails.
    pub fn import_snapshot(
        self: &Arc<Self>,
        namespace: &Namespace,
        snapshot: &Snapshot,
    ) -> Result<SnapshotImport> {
        self.check_present()?;
        let path = self.snapshot_path(namespace, snapshot);
        let filesystem =
            File::open(self.path()).map_err(DatastoreError::io("open", self.path()))?;
        let lock = self.lock_snapshot_name(namespace, snapshot, LockMode::Exclusive)?;
        let removable = match crate::ownership::create_dir(&path, 0o755) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                lock.remove();
                return Err(DatastoreError::NoSuchGroup(snapshot.group.clone()));
            }
            Err(error) => {
                return Err(DatastoreError::io("create snapshot directory", &path)(
                    error,
                ));
            }
        };
        let mut import = SnapshotImport {
            datastore: Arc::clone(self),
            namespace: namespace.clone(),
            snapshot: snapshot.clone(),
            path,
            filesystem,
            lock: Some(lock),
            removable,
            before: None,
        };
        // A manifest that cannot be read any more holds nothing that could be lost.
        import.before = match import.manifest() {
            _ if removable => None,
            Err(DatastoreError::Damaged { .. }) => None,
            manifest => manifest?,
        };
        Ok(import)
    }

    /// The digests of all chunks of a finished snapshot; none if its verification failed.
    ///
    /// # Errors
    /// Its manifest or an index cannot be read.
    pub fn chunk_digests(&self, namespace: &Namespace, snapshot: &Snapshot) -> Result<DigestSet> {
        let digests = DigestSet::new();
        let (manifest, _) = self.load_manifest(namespace, snapshot)?;
        let state = manifest.verify_state().map(|verify| verify.state);
        if state == Some(VerifyResult::Failed) {
            return Ok(digests);
        }
        for entry in &manifest.files {
            let Ok(name) = entry.filename.parse::<ArchiveName>() else {
                continue;
            };
            if name.kind() == ArchiveKind::Blob {
                continue;
            }
            let index = self.load_index(namespace, snapshot, &name)?;
            for position in 0..index.chunk_count() {
                if let Some(digest) = index.digest(position) {
                    digests.insert(digest);
                }
            }
        }
        Ok(digests)
    }
}

/// Compares a file as it is stored with what a manifest says of it. Returns the index that it is, if it is one.
///
/// # Errors
/// What is wrong with it.
pub fn check_file(
    name: &ArchiveName,
    raw: &[u8],
    entry: &FileEntry,
) -> std::result::Result<Option<AnyIndex>, String> {
    let path = PathBuf::from(name.as_str());
    let (index, size, checksum) = if name.kind() == ArchiveKind::Blob {
        DataBlob::load(raw.to_vec()).map_err(|error| format!("file '{name}': {error}"))?;
        (None, raw.len() as u64, Digest::of(raw))
    } else {
        let index = parse_index(&path, raw, name.kind()).map_err(|error| error.to_string())?;
        let (size, checksum) = (index.size(), index.checksum());
        (Some(index), size, checksum)
    };
    if size != entry.size {
        return Err(format!(
            "wrong size for file '{name}' ({} != {size})",
            entry.size
        ));
    }
    if checksum != entry.csum {
        return Err(format!("wrong checksum for file '{name}'"));
    }
    Ok(index)
}

/// Whether a file is what the manifest that was here says, or the log of a client, which comes once.
fn is_repair(before: &Manifest, name: &ArchiveName, raw: &[u8]) -> bool {
    name.as_str() == ArchiveName::CLIENT_LOG
        || before
            .file(name.as_str())
            .is_some_and(|entry| check_file(name, raw, entry).is_ok())
}

/// Whether two manifests tell of the same backup, whatever was noted of it since.
fn is_same_backup(before: &Manifest, manifest: &Manifest) -> bool {
    let key = |manifest: &Manifest| manifest.unprotected.get("key-fingerprint").cloned();
    before.files == manifest.files
        && before.signature == manifest.signature
        && key(before) == key(manifest)
}

impl SnapshotImport {
    /// Asks whether what was here may get other content.
    fn permit_overwriting(&self) -> Result<OverwritingPermit<'_>> {
        self.datastore
            .permit_overwriting(&self.namespace, &self.snapshot)
    }

    /// Whether nothing was here before.
    pub fn is_new(&self) -> bool {
        self.removable
    }

    /// The manifest that is here; `None`: the snapshot is not finished.
    ///
    /// # Errors
    /// It is damaged, or the disk fails.
    pub fn manifest(&self) -> Result<Option<Manifest>> {
        match self
            .datastore
            .load_manifest(&self.namespace, &self.snapshot)
        {
            Ok((manifest, _)) => Ok(Some(manifest)),
            Err(DatastoreError::NoSuchFile { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the file that a manifest names is here, just as the manifest says.
    ///
    /// # Errors
    /// The disk fails.
    pub fn has(&self, name: &ArchiveName, entry: &FileEntry) -> Result<bool> {
        match self
            .datastore
            .read_file(&self.namespace, &self.snapshot, name)
        {
            Ok((_, raw)) => Ok(check_file(name, &raw, entry).is_ok()),
            Err(DatastoreError::NoSuchFile { .. } | DatastoreError::Invalid { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the client's log is here.
    pub fn has_client_log(&self) -> bool {
        self.path.join(ArchiveName::CLIENT_LOG).exists()
    }

    /// Puts a file in place, whole.
    ///
    /// # Errors
    /// It is the manifest, which has its own way, or the disk fails.
    pub fn store_file(&self, name: &ArchiveName, raw: &[u8]) -> Result<()> {
        let path = self.path.join(name.as_str());
        if name.as_str() == ArchiveName::MANIFEST {
            return Err(DatastoreError::Invalid {
                path,
                reason: "the manifest comes last".into(),
            });
        }
        let _unlocked = match &self.before {
            Some(before) if !is_repair(before, name, raw) => Some(self.permit_overwriting()?),
            _ => None,
        };
        let mut file = AtomicFile::create_as(&path, path.with_extension("tmp"))?;
        file.write(raw)?;
        file.commit(self.datastore.tuning().sync_level == SyncLevel::File)
    }

    /// Puts the manifest in place, which makes the snapshot a finished one, and removes files that it does not name. When
    /// this returns, the snapshot survives a crash as the sync level promises. The lock is kept until this is dropped.
    ///
    /// # Errors
    /// It is the manifest of another snapshot, or the disk fails.
    pub fn finish(&mut self, manifest: &Manifest) -> Result<()> {
        check_identity(manifest, &self.snapshot).map_err(|reason| DatastoreError::Invalid {
            path: self.path.join(ArchiveName::MANIFEST),
            reason,
        })?;
        let unlocked = match &self.before {
            Some(before) if !is_same_backup(before, manifest) => Some(self.permit_overwriting()?),
            _ => None,
        };
        settle(
            &self.datastore,
            &self.filesystem,
            &self.namespace,
            &self.snapshot,
            manifest,
        )?;
        drop(unlocked);
        self.removable = false;
        let is_known = |name: &str| {
            name == ArchiveName::MANIFEST
                || name == ArchiveName::CLIENT_LOG
                || manifest.file(name).is_some()
        };
        let mut leftovers = Vec::new();
        dir_listing::entries(&self.path, |entry| {
            let name = entry.file_name();
            if let Some(name) = name.to_str()
                && !name.starts_with('.')
                && !is_known(name)
                && entry.file_type()?.is_file()
            {
                leftovers.push(self.path.join(name));
            }
            Ok(())
        })?;
        leftovers
            .iter()
            .try_for_each(|path| dir_listing::remove_file_if_present(path))
    }
}

impl Drop for SnapshotImport {
    fn drop(&mut self) {
        if !self.removable {
            return;
        }
        let permit = Datastore::permit_abort(&self.namespace, &self.snapshot);
        let removed = self.datastore.remove_snapshot_files(permit);
        match removed {
            Ok(()) => {
                if let Some(lock) = self.lock.take() {
                    lock.remove();
                }
            }
            Err(error) => {
                tracing::error!(snapshot = %self.snapshot, %error, "unable to remove unfinished snapshot");
            }
        }
    }
}

#[cfg(test)]
#[path = "snapshot_import/tests.rs"]
mod tests;
