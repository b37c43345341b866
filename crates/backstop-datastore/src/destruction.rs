//! Removing a datastore with everything in it.

use std::fs;
use std::io;
use std::path::Path;

use backstop_types::{DatastoreName, Tuning};

use crate::chunk_store::CHUNKS;
use crate::datastore::Datastore;
use crate::error::{DatastoreError, Result};
use crate::process_lock::LOCK_FILE;
use crate::retention_lock::FILE as RETENTION_LOCK;
use crate::retention_lock::permit::{DestructionPermit, refuse};

/// Where snapshots lie.
const CONTENT: [&str; 4] = ["vm", "ct", "host", "ns"];

impl Datastore {
    /// Fails when a retention lock keeps a snapshot of the datastore at `path`, which need not be whole. Lock files lie in
    /// `locks_dir`, in a directory with the datastore's name.
    ///
    /// # Errors
    /// [`DatastoreError::RetentionLocked`], or the disk fails.
    pub fn check_unlocked(name: &DatastoreName, path: &Path, locks_dir: &Path) -> Result<()> {
        match Self::open(name, path, locks_dir, Tuning::default()) {
            Ok(datastore) => refuse(datastore.retention_lock().any_locked()?),
            Err(error @ DatastoreError::NoChunkStore { .. }) => check_ruin(path, error),
            Err(error) => Err(error),
        }
    }

    /// Removes what a datastore consists of, and nothing else that lies in its directory. A removal that was cut off can be
    /// repeated.
    ///
    /// # Errors
    /// A retention lock keeps a snapshot; nothing is removed then. Or the disk fails.
    pub fn destroy(name: &DatastoreName, path: &Path, locks_dir: &Path) -> Result<()> {
        match Self::open(name, path, locks_dir, Tuning::default()) {
            Ok(datastore) => remove_content(path, Some(datastore.permit_destruction()?)),
            Err(error @ DatastoreError::NoChunkStore { .. }) => {
                check_ruin(path, error)?;
                remove_content(path, None)
            }
            Err(error) => Err(error),
        }
    }
}

/// What an earlier removal left has no chunks and, as chunks go last, no snapshots. Snapshots without chunks are damage that a
/// lock may still speak about.
fn check_ruin(path: &Path, error: DatastoreError) -> Result<()> {
    let has_snapshots = CONTENT.iter().any(|folder| path.join(folder).exists());
    if has_snapshots && path.join(RETENTION_LOCK).exists() {
        Err(error)
    } else {
        Ok(())
    }
}

/// Snapshots go first, the lock last, so that a removal that is cut off leaves none unlocked.
fn remove_content(path: &Path, _permit: Option<DestructionPermit>) -> Result<()> {
    let absent = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    for folder in CONTENT.into_iter().chain([CHUNKS]) {
        let folder = path.join(folder);
        absent(fs::remove_dir_all(&folder)).map_err(DatastoreError::io("remove", &folder))?;
    }
    for file in [".gc-status", LOCK_FILE, RETENTION_LOCK] {
        let file = path.join(file);
        absent(fs::remove_file(&file)).map_err(DatastoreError::io("remove", &file))?;
    }
    Ok(())
}
