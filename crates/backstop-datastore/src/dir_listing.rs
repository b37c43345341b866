//! Listing and removing directories of a datastore.

use std::io;
use std::path::Path;

use crate::error::{DatastoreError, Result};

/// The sub-directories whose names `accept` takes. A missing directory has none; other entries are ignored.
pub(crate) fn subdirs<T>(dir: &Path, mut accept: impl FnMut(&str) -> Option<T>) -> Result<Vec<T>> {
    let mut found = Vec::new();
    entries(dir, |entry| {
        if let Some(accepted) = entry.file_name().to_str().and_then(&mut accept)
            // On file systems that do not tell the type in the listing, this asks for it.
            && entry.file_type()?.is_dir()
        {
            found.push(accepted);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Calls `visit` with each entry. A missing directory has none, and entries that vanish meanwhile are no error.
pub(crate) fn entries(
    dir: &Path,
    mut visit: impl FnMut(&std::fs::DirEntry) -> io::Result<()>,
) -> Result<()> {
    let listing = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(DatastoreError::io("list", dir))?,
    };
    for entry in listing {
        let entry = entry.map_err(DatastoreError::io("list", dir))?;
        match visit(&entry) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(DatastoreError::io("look at", entry.path()))?,
        }
    }
    Ok(())
}

/// Removes a directory if nothing is in it. Returns whether it is gone.
pub(crate) fn remove_if_empty(dir: &Path) -> Result<bool> {
    match std::fs::remove_dir(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
        Err(error) => Err(DatastoreError::io("remove directory", dir)(error)),
    }
}

/// Removes a file; a missing one is no error.
pub(crate) fn remove_file_if_present(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(DatastoreError::io("remove", path)),
    }
}
