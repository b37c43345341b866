//! Files that are whole or not there, also after a power failure.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::OFlags;

/// Makes a folder that only its owner enters, with those above it.
///
/// # Errors
/// When it cannot be made.
pub fn create_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(path)
}

/// Replaces a file (0600). `modified`: what is noted as the time of its last change; now, unless said otherwise.
///
/// # Errors
/// When it cannot be written; the old one is there still then.
pub fn replace(path: &Path, content: &[u8], modified: Option<SystemTime>) -> io::Result<()> {
    let temporary = path.with_extension(format!("tmp_{}", uuid::Uuid::new_v4().simple()));
    replace_by(&temporary, path, content, modified)
}

/// As [`replace`], by way of a file of this name, which nobody else writes meanwhile.
pub(crate) fn replace_by(
    temporary: &Path,
    path: &Path,
    content: &[u8],
    modified: Option<SystemTime>,
) -> io::Result<()> {
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(temporary)?;
        file.write_all(content)?;
        if let Some(modified) = modified {
            file.set_modified(modified)?;
        }
        file.sync_all()?;
        fs::rename(temporary, path)
    })();
    if written.is_err() {
        // Best effort: the failure to report is the first one.
        let _ = fs::remove_file(temporary);
        return written;
    }
    sync_folder(path)
}

/// Removes a file for good; one that is not there is removed already.
///
/// # Errors
/// When it cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(path),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(err) => Err(err),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
