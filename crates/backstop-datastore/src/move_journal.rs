//! The journal of moved indexes: paths of indexes at the place that they are about to appear at.
//!
//! A collection of garbage that walks a datastore while a snapshot moves could miss it at both places. So the new paths are
//! written here before the move, and the collection reads them after its walk. Stock servers do the same in the same file; see
//! `docs/formats/datastore.md`.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::datastore::Datastore;
use crate::error::{DatastoreError, Result};
use crate::lock_file::{FileLock, LockMode};

const WAIT: Duration = Duration::from_secs(10);
/// Largest journal, in bytes.
const MAX_SIZE: u64 = 64 << 20;

fn lock(datastore: &Datastore) -> Result<(FileLock, PathBuf)> {
    let path = datastore.locks.0.join("move-journal");
    let lock = FileLock::take(
        path.clone(),
        LockMode::Exclusive,
        WAIT,
        "unable to lock move journal",
    )?;
    Ok((lock, path))
}

/// Notes the paths that indexes are about to have. Only then they may be moved there.
pub(crate) fn append(datastore: &Datastore, indexes: &[PathBuf]) -> Result<()> {
    if indexes.is_empty() {
        return Ok(());
    }
    let mut lines = Vec::new();
    for index in indexes {
        let index = index.as_os_str().as_bytes();
        if index.contains(&b'\n') {
            return Err(DatastoreError::Invalid {
                path: datastore.path().to_owned(),
                reason: "nothing can be moved in a datastore whose path has a line break".into(),
            });
        }
        lines.extend_from_slice(index);
        lines.push(b'\n');
    }
    let (_lock, path) = lock(datastore)?;
    let failed = |error: io::Error| DatastoreError::io("write move journal", &path)(error);
    let mut file = File::options().append(true).open(&path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    if size.saturating_add(lines.len() as u64) >= MAX_SIZE {
        return Err(DatastoreError::Invalid {
            path,
            reason: "the move journal is full; it is emptied by the next garbage collection".into(),
        });
    }
    file.write_all(&lines).map_err(failed)
}

/// The paths in the journal, which is emptied. Paths outside the datastore are left out.
pub(crate) fn drain(datastore: &Datastore) -> Result<Vec<PathBuf>> {
    if !datastore.locks.0.join("move-journal").exists() {
        return Ok(Vec::new());
    }
    let (_lock, path) = lock(datastore)?;
    let failed = |error: io::Error| DatastoreError::io("read move journal", &path)(error);
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    let mut text = Vec::new();
    (&mut file)
        .take(MAX_SIZE)
        .read_to_end(&mut text)
        .map_err(failed)?;
    if file.stream_position().map_err(failed)? >= MAX_SIZE {
        return Err(DatastoreError::Invalid {
            path,
            reason: "the journal is too long".into(),
        });
    }
    file.set_len(0).map_err(failed)?;
    Ok(text
        .split(|byte| *byte == b'\n')
        .map(|line| PathBuf::from(std::ffi::OsStr::from_bytes(line)))
        .filter(|line| line.starts_with(datastore.path()))
        .collect())
}
