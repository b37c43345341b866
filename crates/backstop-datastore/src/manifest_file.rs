//! The manifest of a snapshot on disk: reading it, and changing its unprotected part under its lock.

use std::path::PathBuf;
use std::time::Duration;

use backstop_format::blob::DataBlob;
use backstop_format::manifest::{Manifest, VerifyState};
use backstop_types::{ArchiveName, Namespace, Snapshot};

use crate::atomic_file;
use crate::datastore::Datastore;
use crate::error::{DatastoreError, Result};
use crate::lock_file::{FileLock, LockMode};
use crate::snapshot::read_bounded;

const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Largest manifest file that is read, in bytes.
const MAX_SIZE: u64 = 16 << 20;

impl Datastore {
    /// Takes the lock under which a manifest is changed, waiting up to five seconds.
    ///
    /// # Errors
    /// [`DatastoreError::Locked`].
    pub fn lock_manifest(&self, namespace: &Namespace, snapshot: &Snapshot) -> Result<FileLock> {
        FileLock::take(
            self.locks.manifest(namespace, snapshot),
            LockMode::Exclusive,
            LOCK_WAIT,
            "unable to acquire manifest lock",
        )
    }

    fn manifest_path(&self, namespace: &Namespace, snapshot: &Snapshot) -> PathBuf {
        self.snapshot_path(namespace, snapshot)
            .join(ArchiveName::MANIFEST)
    }

    /// Reads a manifest; also returns the size of its file in bytes.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn load_manifest(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
    ) -> Result<(Manifest, u64)> {
        let path = self.manifest_path(namespace, snapshot);
        let name = ArchiveName::MANIFEST
            .parse()
            .map_err(|error| DatastoreError::Invalid {
                path: path.clone(),
                reason: format!("{error}"),
            })?;
        let raw = read_bounded(self.open_file(namespace, snapshot, &name)?, &path, MAX_SIZE)?;
        let size = raw.len() as u64;
        let manifest = DataBlob::load(raw)
            .and_then(|blob| Manifest::from_blob(&blob))
            .map_err(|source| DatastoreError::Damaged {
                path: path.clone(),
                source,
            })?;
        // A directory that was copied to another group by hand can still be restored.
        if let Err(reason) = check_identity(&manifest, snapshot) {
            tracing::warn!(?path, reason);
        }
        Ok((manifest, size))
    }

    /// Changes the unprotected part of a manifest under its lock, and returns the manifest as written. Changes of the signed
    /// part are not written.
    ///
    /// # Errors
    /// As [`load_manifest`](Self::load_manifest); the lock is not to be had; or the disk fails.
    pub fn update_manifest(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
        change: impl FnOnce(&mut Manifest),
    ) -> Result<Manifest> {
        let lock = self.lock_manifest(namespace, snapshot)?;
        let (mut manifest, _) = match self.load_manifest(namespace, snapshot) {
            Err(error @ DatastoreError::NoSuchSnapshot(_)) => {
                lock.remove();
                return Err(error);
            }
            other => other?,
        };
        let mut changed = manifest.clone();
        change(&mut changed);
        manifest.unprotected = changed.unprotected;
        self.store_manifest(namespace, snapshot, &manifest, false)?;
        Ok(manifest)
    }

    /// Replaces the file of a manifest; the caller holds its lock, or the snapshot exclusively.
    pub(crate) fn store_manifest(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
        manifest: &Manifest,
        sync: bool,
    ) -> Result<()> {
        let path = self.manifest_path(namespace, snapshot);
        let blob = manifest
            .to_blob()
            .map_err(|source| DatastoreError::Damaged {
                path: path.clone(),
                source,
            })?;
        atomic_file::replace(&path, blob.raw(), sync)
    }

    /// Replaces the notes of a snapshot, which must not be moved or removed meanwhile.
    ///
    /// # Errors
    /// As [`update_manifest`](Self::update_manifest); the snapshot is being written, moved or removed.
    pub fn set_notes(&self, namespace: &Namespace, snapshot: &Snapshot, notes: &str) -> Result<()> {
        let _lock = self.lock_snapshot(namespace, snapshot, LockMode::Shared)?;
        self.update_manifest(namespace, snapshot, |manifest| manifest.set_notes(notes))
            .map(drop)
    }

    /// Records the result of a verification.
    ///
    /// # Errors
    /// As [`update_manifest`](Self::update_manifest).
    pub fn set_verify_state(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
        state: &VerifyState,
    ) -> Result<()> {
        self.update_manifest(namespace, snapshot, |manifest| {
            manifest.set_verify_state(Some(state))
        })
        .map(drop)
    }
}

/// Whether a manifest is that of a snapshot.
pub(crate) fn check_identity(
    manifest: &Manifest,
    snapshot: &Snapshot,
) -> std::result::Result<(), String> {
    let stated = (
        manifest.backup_type.as_str(),
        manifest.backup_id.as_str(),
        manifest.backup_time,
    );
    let meant = (
        snapshot.group.ty.as_str(),
        snapshot.group.id.as_str(),
        snapshot.time.epoch(),
    );
    if stated == meant {
        Ok(())
    } else {
        Err(format!(
            "it is the manifest of {}/{} at {}, not of {snapshot}",
            stated.0, stated.1, stated.2
        ))
    }
}
