//! Reading, locking and replacing single files of the configuration directory.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use backstop_datastore::ownership;
use rustix::fs::FlockOperation;

use super::{Changes, ConfigError};

/// How long to wait for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a held lock is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// Largest file that is read, in bytes; configurations are far smaller.
const MAX_SIZE: u64 = 64 << 20;

/// Who may read a file. All belong to the owner of the directory, as whom the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileClass {
    /// Readable by the owner's group, too: 0640.
    Config,
    /// Secret: 0600.
    Secret,
    /// Hashes that a stock server's unprivileged process reads: 0640.
    Shared,
}

impl FileClass {
    const fn mode(self) -> u32 {
        match self {
            Self::Config | Self::Shared => 0o640,
            Self::Secret => 0o600,
        }
    }
}

/// The directory.
#[derive(Debug)]
pub(super) struct ConfigDir {
    path: PathBuf,
    changes: Option<Changes>,
}

/// Tells whether a file is still the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl ConfigDir {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            changes: None,
        }
    }

    pub(super) fn note_changes_in(&mut self, changes: Changes) {
        self.changes = Some(changes);
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The stamp of a file; `None` when it is absent.
    pub(super) fn stamp(&self, name: &str) -> Result<Option<Stamp>, ConfigError> {
        let path = self.path(name);
        match std::fs::metadata(&path) {
            Ok(metadata) => Ok(Some(Stamp {
                inode: metadata.ino(),
                size: metadata.size(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ConfigError::Io {
                action: "look at",
                path,
                source,
            }),
        }
    }

    /// The text of a file; an absent file is empty.
    pub(super) fn read(&self, name: &str) -> Result<String, ConfigError> {
        let path = self.path(name);
        let failed = |source| ConfigError::Io {
            action: "read",
            path: path.clone(),
            source,
        };
        let mut file = match File::open(&path) {
            Ok(file) => file.take(MAX_SIZE),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        // A part of a configuration is none.
        if bytes.len() as u64 >= MAX_SIZE {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        String::from_utf8(bytes).map_err(|_| ConfigError::NotText { path })
    }

    /// Takes the exclusive lock of a file, waiting up to 10 seconds.
    pub(super) fn lock(&self, lock_name: &str) -> Result<ConfigLock, ConfigError> {
        self.lock_within(lock_name, LOCK_TIMEOUT)
    }

    pub(super) fn lock_within(
        &self,
        lock_name: &str,
        timeout: Duration,
    ) -> Result<ConfigLock, ConfigError> {
        let path = self.path(lock_name);
        let failed = |source| ConfigError::Io {
            action: "open lock",
            path: path.clone(),
            source,
        };
        let is_new = !path.exists();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o660)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&path)
            .map_err(failed)?;
        if is_new {
            file.set_permissions(Permissions::from_mode(0o660))
                .map_err(failed)?;
            ownership::inherit(&file, &path).map_err(failed)?;
        }
        let deadline = Instant::now() + timeout;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(ConfigLock { _file: file }),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {
                    if Instant::now() >= deadline {
                        return Err(ConfigError::Locked { path });
                    }
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
    }

    /// Replaces a file in one step: whoever reads it sees the old content or the new, also after
    /// a power failure.
    pub(super) fn replace(
        &self,
        name: &str,
        content: &[u8],
        class: FileClass,
    ) -> Result<(), ConfigError> {
        let path = self.path(name);
        let failed = |action, source| ConfigError::Io {
            action,
            path: path.clone(),
            source,
        };
        let temporary = self.path(&format!("{name}.tmp_{}", uuid::Uuid::new_v4().simple()));
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
                .open(&temporary)?;
            file.write_all(content)?;
            ownership::inherit(&file, &temporary)?;
            file.set_permissions(Permissions::from_mode(class.mode()))?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)
        })();
        if let Err(source) = written {
            // Best effort: the failure to report is the first one.
            let _ = std::fs::remove_file(&temporary);
            return Err(failed("write", source));
        }
        if let Some(changes) = &self.changes {
            changes.note(name);
        }
        File::open(path.parent().unwrap_or(&self.path))
            .and_then(|directory| directory.sync_all())
            .map_err(|source| failed("write", source))
    }
}

/// An exclusive lock on a configuration file; dropping it releases it.
#[derive(Debug)]
pub struct ConfigLock {
    _file: File,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_replaced_file_has_its_mode_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let config = ConfigDir::new(dir.path().to_path_buf());
        for (class, mode) in [
            (FileClass::Config, 0o640),
            (FileClass::Secret, 0o600),
            (FileClass::Shared, 0o640),
        ] {
            config.replace("a.cfg", b"text", class).unwrap();
            let metadata = std::fs::metadata(config.path("a.cfg")).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, mode);
        }
        assert_eq!(config.read("a.cfg").unwrap(), "text");
        assert_eq!(config.read("absent.cfg").unwrap(), "");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_replaced_file_has_another_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let config = ConfigDir::new(dir.path().to_path_buf());
        assert_eq!(config.stamp("a").unwrap(), None);
        config.replace("a", b"1", FileClass::Config).unwrap();
        let first = config.stamp("a").unwrap();
        config.replace("a", b"2", FileClass::Config).unwrap();
        assert_ne!(config.stamp("a").unwrap(), first);
    }

    #[test]
    fn a_held_lock_is_reported_and_a_released_one_can_be_taken() {
        let dir = tempfile::tempdir().unwrap();
        let config = ConfigDir::new(dir.path().to_path_buf());
        let lock = config.lock(".a.lck").unwrap();
        let error = config.lock_within(".a.lck", Duration::ZERO).unwrap_err();
        assert!(
            error.to_string().starts_with("Unable to acquire lock"),
            "{error}"
        );
        drop(lock);
        config.lock_within(".a.lck", Duration::ZERO).unwrap();
        let mode = std::fs::metadata(config.path(".a.lck"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o660);
    }

    #[test]
    fn a_failed_write_names_the_file_and_keeps_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let config = ConfigDir::new(dir.path().join("missing"));
        let error = config
            .replace("a.cfg", b"x", FileClass::Config)
            .unwrap_err();
        assert!(error.to_string().contains("a.cfg"), "{error}");
    }
}
