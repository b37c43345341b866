//! Replacing a file as a whole: readers see the old content or the new one, never a part.
//!
//! The temporary lies in the same directory and is removed when anything fails.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use crate::error::{DatastoreError, Result};
use crate::ownership;

/// Mode of all files in a datastore.
pub(crate) const FILE_MODE: u32 = 0o644;

const ATTEMPTS: usize = 16;

pub(crate) struct AtomicFile {
    file: Option<File>,
    temporary: PathBuf,
    target: PathBuf,
    renamed: bool,
}

impl AtomicFile {
    /// Opens a temporary `<stem>.tmp_XXXXXX` beside the target.
    pub(crate) fn create(target: &Path) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            let temporary = target.with_extension(format!("tmp_{}", random_suffix()));
            match OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(FILE_MODE)
                .open(&temporary)
            {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(DatastoreError::io("create temporary file", &temporary)(
                        error,
                    ));
                }
                Ok(file) => return Self::started(file, temporary, target),
            }
        }
        Err(DatastoreError::io("create temporary file for", target)(
            std::io::ErrorKind::AlreadyExists.into(),
        ))
    }

    /// Opens a temporary of a given name, which replaces one that a crash has left.
    pub(crate) fn create_as(target: &Path, temporary: PathBuf) -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&temporary)
            .map_err(DatastoreError::io("create temporary file", &temporary))?;
        Self::started(file, temporary, target)
    }

    fn started(file: File, temporary: PathBuf, target: &Path) -> Result<Self> {
        let started = AtomicFile {
            file: Some(file),
            temporary,
            target: target.to_owned(),
            renamed: false,
        };
        if let Some(file) = &started.file {
            rustix::fs::fchmod(file, Mode::from_raw_mode(FILE_MODE))
                .map_err(DatastoreError::sys("set the mode of", &started.temporary))?;
            ownership::inherit(file, &started.temporary)
                .map_err(DatastoreError::io("set the owner of", &started.temporary))?;
        }
        Ok(started)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.file {
            Some(file) => file
                .write_all(bytes)
                .map_err(DatastoreError::io("write", &self.temporary)),
            None => Ok(()),
        }
    }

    /// The file as written so far.
    pub(crate) fn handle(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Puts the new content in place. With `sync` it has reached the disk when this returns.
    pub(crate) fn commit(mut self, sync: bool) -> Result<()> {
        if let Some(file) = self.file.take() {
            if sync {
                file.sync_all()
                    .map_err(DatastoreError::io("synchronise", &self.temporary))?;
            }
            close(file).map_err(DatastoreError::io("write", &self.temporary))?;
        }
        std::fs::rename(&self.temporary, &self.target)
            .map_err(DatastoreError::io("put in place", &self.target))?;
        self.renamed = true;
        if sync && let Some(dir) = self.target.parent() {
            sync_dir(dir)?;
        }
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.renamed {
            // The error that led here is reported already; a leftover is harmless.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Replaces `target` by a file with this content.
pub(crate) fn replace(target: &Path, bytes: &[u8], sync: bool) -> Result<()> {
    let mut file = AtomicFile::create(target)?;
    file.write(bytes)?;
    file.commit(sync)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|handle| handle.sync_all())
        .map_err(DatastoreError::io("synchronise directory", dir))
}

/// Closes and reports the errors that network file systems report only now.
fn close(file: File) -> std::io::Result<()> {
    let descriptor = file.into_raw_fd();
    // SAFETY: `into_raw_fd` gave up ownership of a valid descriptor, which is closed here once.
    let code = unsafe { libc::close(descriptor) };
    let error = std::io::Error::last_os_error();
    // After EINTR Linux has closed the descriptor all the same.
    if code == 0 || error.kind() == std::io::ErrorKind::Interrupted {
        Ok(())
    } else {
        Err(error)
    }
}

fn random_suffix() -> String {
    const LETTERS: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    uuid::Uuid::new_v4()
        .as_bytes()
        .iter()
        .take(6)
        .map(|byte| char::from(LETTERS[usize::from(*byte) % 62]))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("index.json.blob");
        replace(&target, b"one", true).unwrap();
        let mut unfinished = AtomicFile::create(&target).unwrap();
        unfinished.write(b"two").unwrap();
        let name = unfinished
            .temporary
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        assert!(
            name.starts_with("index.json.tmp_") && name.len() == 21,
            "{name}"
        );
        drop(unfinished);
        assert_eq!(std::fs::read(&target).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        replace(&target, b"three", false).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"three");
        assert_eq!(
            target.metadata().unwrap().permissions().mode() & 0o777,
            0o644
        );
    }
}
