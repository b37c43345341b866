//! Where the data of a backup session goes: a new snapshot of a locked group, and the previous one as its base.
//!
//! Everything here blocks. The locks are those of the group (exclusive), of the new snapshot (exclusive), of the base
//! (shared) and the shared lock of the chunk store, which keeps garbage collection from chunks that no index names yet.

use std::io::Read;
use std::path::PathBuf;

use backstop_datastore::{
    DatastoreError, FileLock, InsertResult, LockMode, SnapshotWriter, WriterGuard,
};
use backstop_format::Digest;
use backstop_format::blob::DataBlob;
use backstop_format::index::{AnyIndex, FixedIndex};
use backstop_format::manifest::{Manifest, VerifyResult};
use backstop_types::{ArchiveKind, ArchiveName, AuthId, DatastoreName, Namespace, Snapshot};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::acceptance::SnapshotIdentity;
use super::error::SessionError;
use crate::datastores::DatastoreHandle;
use crate::http::ApiError;

/// What a client wants to back up.
#[derive(Clone, Debug)]
pub struct BackupRequest {
    /// In which datastore.
    pub store: DatastoreName,
    /// Where.
    pub ns: Namespace,
    /// As which snapshot.
    pub snapshot: Snapshot,
    /// On whose behalf.
    pub auth_id: AuthId,
    /// Whether everything is thrown away at the end.
    pub benchmark: bool,
}

/// A file of the base.
#[derive(Debug)]
pub struct PreviousFile {
    /// Its content.
    pub bytes: Bytes,
    /// What it is.
    pub kind: ArchiveKind,
    /// The base.
    pub snapshot: Snapshot,
}

/// Locks that are given back at the end of a session or when it is finished.
struct Locks {
    group: FileLock,
    _base: Option<FileLock>,
    _chunks: WriterGuard,
}

/// The snapshot that a session writes.
pub struct BackupTarget {
    datastore: DatastoreHandle,
    request: BackupRequest,
    base: Option<Snapshot>,
    writer: RwLock<Option<SnapshotWriter>>,
    locks: Mutex<Option<Locks>>,
}

type Result<T> = std::result::Result<T, SessionError>;

impl BackupTarget {
    /// Takes the locks. The snapshot does not exist yet: see [`create`](Self::create).
    ///
    /// # Errors
    /// In the order in which stock servers check: namespace, group lock, owner, base, time, existing snapshot.
    pub fn open(
        datastore: DatastoreHandle,
        request: BackupRequest,
    ) -> std::result::Result<Self, ApiError> {
        let BackupRequest {
            ns,
            snapshot,
            auth_id,
            benchmark,
            ..
        } = &request;
        if !datastore.namespace_exists(ns) {
            return Err(ApiError::not_found("namespace not found"));
        }
        let (owner, group_lock) = datastore.create_group_locked(ns, &snapshot.group, auth_id)?;
        if !benchmark && !auth_id.owns(&owner) {
            return Err(ApiError::bad_request(format!(
                "backup owner check failed ({auth_id} != {owner})"
            )));
        }
        let base = find_base(&datastore, ns, snapshot)?;
        if base.as_ref().is_some_and(|base| snapshot.time <= base.time) {
            return Err(ApiError::bad_request(
                "backup timestamp is older than last backup.",
            ));
        }
        let base_lock = match &base {
            Some(base) => Some(datastore.lock_snapshot(ns, base, LockMode::Shared)?),
            None => None,
        };
        let chunks = datastore.hold_writer()?;
        if datastore.snapshot_exists(ns, snapshot) {
            return Err(ApiError::bad_request("backup directory already exists."));
        }
        let locks = Locks {
            group: group_lock,
            _base: base_lock,
            _chunks: chunks,
        };
        Ok(Self {
            datastore,
            base,
            writer: RwLock::default(),
            locks: Mutex::new(Some(locks)),
            request,
        })
    }

    /// Creates the snapshot. The task that writes it is on disk by then: what a server leaves that is cut off is found by
    /// its tasks.
    ///
    /// # Errors
    /// The disk fails.
    pub fn create(&self) -> std::result::Result<(), ApiError> {
        let BackupRequest { ns, snapshot, .. } = &self.request;
        let writer = self.datastore.create_snapshot(ns, snapshot)?;
        *self.writer.write() = Some(writer);
        Ok(())
    }

    /// The datastore.
    pub fn datastore(&self) -> &DatastoreHandle {
        &self.datastore
    }

    /// What the client asked for.
    pub fn request(&self) -> &BackupRequest {
        &self.request
    }

    /// What the manifest has to say.
    pub fn identity(&self) -> SnapshotIdentity {
        let snapshot = &self.request.snapshot;
        SnapshotIdentity {
            backup_type: snapshot.group.ty.to_string(),
            backup_id: snapshot.group.id.to_string(),
            backup_time: snapshot.time.epoch(),
        }
    }

    /// Directory of the new snapshot, for the log.
    pub fn path(&self) -> PathBuf {
        self.datastore
            .snapshot_path(&self.request.ns, &self.request.snapshot)
    }

    /// The same below the datastore.
    pub fn relative_path(&self) -> PathBuf {
        let path = self.path();
        path.strip_prefix(self.datastore.path())
            .map(PathBuf::from)
            .unwrap_or(path)
    }

    /// Time of the base.
    pub fn previous_time(&self) -> Option<i64> {
        self.base.as_ref().map(|base| base.time.epoch())
    }

    /// Stores a chunk.
    pub fn insert_chunk(&self, digest: &Digest, blob: &DataBlob) -> Result<InsertResult> {
        self.datastore.chunks().insert(digest, blob).map_err(failed)
    }

    /// Stores a blob, replacing one of the same name.
    pub fn store_blob(&self, name: &str, blob: &DataBlob) -> Result<()> {
        let name = archive_name(name)?;
        self.with_writer(|writer| writer.store_blob(&name, blob))
    }

    /// Stores a complete index, replacing one of the same name.
    pub fn store_index(&self, name: &str, raw: &[u8]) -> Result<()> {
        let name = archive_name(name)?;
        self.with_writer(|writer| writer.store_index(&name, raw))
    }

    fn with_writer<T>(
        &self,
        work: impl FnOnce(&SnapshotWriter) -> std::result::Result<T, DatastoreError>,
    ) -> Result<T> {
        let writer = self.writer.read();
        work(writer.as_ref().ok_or(SessionError::Abandoned)?).map_err(failed)
    }

    /// The index of the base that a new index builds upon.
    pub fn previous_fixed_index(&self, name: &str) -> Result<FixedIndex> {
        let base = self.base.as_ref().ok_or(SessionError::NoPreviousToReuse)?;
        let name = archive_name(name)?;
        if !self
            .datastore
            .snapshot_path(&self.request.ns, base)
            .join(name.as_str())
            .exists()
        {
            return Err(SessionError::NoPreviousArchive);
        }
        match self
            .datastore
            .load_index(&self.request.ns, base, &name)
            .map_err(failed)?
        {
            AnyIndex::Fixed(index) => Ok(index),
            AnyIndex::Dynamic(_) => Err(SessionError::WrongArchiveExtension {
                name: name.to_string(),
            }),
        }
    }

    /// A file of the base.
    pub fn previous_file(&self, name: &str) -> Result<PreviousFile> {
        let base = self.base.as_ref().ok_or(SessionError::NoPrevious)?;
        let name: ArchiveName = archive_name(name)?;
        let path = self
            .datastore
            .snapshot_path(&self.request.ns, base)
            .join(name.as_str());
        let mut file = match self.datastore.open_file(&self.request.ns, base, &name) {
            Ok(file) => file,
            Err(_) if name.kind() == ArchiveKind::Blob && !path.exists() => {
                return Err(SessionError::NotFound(format!(
                    "open file {path:?} failed - not found"
                )));
            }
            Err(err) => return Err(failed(err)),
        };
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(|err| {
            SessionError::Datastore(format!("reading file {path:?} failed: {err}"))
        })?;
        Ok(PreviousFile {
            bytes: content.into(),
            kind: name.kind(),
            snapshot: base.clone(),
        })
    }

    /// Fails if the base is gone.
    pub fn check_base(&self) -> Result<()> {
        match &self.base {
            Some(base) if !self.datastore.snapshot_exists(&self.request.ns, base) => {
                Err(SessionError::BaseRemoved {
                    snapshot: base.to_string(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Stores the manifest, which makes the snapshot a finished one, and brings it to the disk as the datastore's
    /// settings demand.
    pub fn complete(&self, manifest: &Manifest) -> Result<()> {
        let writer = self.writer.write().take().ok_or(SessionError::Abandoned)?;
        writer.finish(manifest).map_err(failed)
    }

    /// Gives the locks back.
    pub fn release(&self) {
        drop(self.locks.lock().take());
    }

    /// Removes the snapshot if it is not finished, and its group if nothing else is in it, and gives the locks back.
    pub fn remove(&self) -> Result<()> {
        let writer = self.writer.write().take();
        writer
            .map_or(Ok(()), SnapshotWriter::abort)
            .inspect_err(|_| self.release())
            .map_err(failed)?;
        if let Some(locks) = self.locks.lock().take() {
            let (ns, group) = (&self.request.ns, &self.request.snapshot.group);
            self.datastore
                .remove_group_without_snapshots(ns, group, locks.group)
                .map_err(failed)?;
        }
        Ok(())
    }
}

/// The newest finished snapshot, unless it is known to be damaged; then there is no base at all.
fn find_base(
    datastore: &DatastoreHandle,
    ns: &Namespace,
    snapshot: &Snapshot,
) -> std::result::Result<Option<Snapshot>, DatastoreError> {
    let Some(last) = datastore.last_finished(ns, &snapshot.group)? else {
        return Ok(None);
    };
    let (manifest, _) = datastore.load_manifest(ns, &last)?;
    let damaged = manifest
        .verify_state()
        .is_some_and(|verify| verify.state == VerifyResult::Failed);
    Ok(if damaged { None } else { Some(last) })
}

fn archive_name(name: &str) -> Result<ArchiveName> {
    name.parse()
        .map_err(|_| SessionError::WrongArchiveExtension {
            name: name.to_owned(),
        })
}

fn failed(err: DatastoreError) -> SessionError {
    SessionError::Datastore(crate::http::error::chain(&err))
}
