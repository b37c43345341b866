//! Locks on groups, snapshots and manifests: files outside the datastore, locked with `flock`, under the names that stock
//! servers use. See `docs/formats/datastore.md`.
//!
//! Lock order: group, snapshot, manifest.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backstop_format::Digest;
use backstop_types::{BackupGroup, Namespace, Snapshot};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{DatastoreError, Result};
use crate::ownership;

/// Longest name that is used as it is, in bytes, plus one.
const LONG_NAME: usize = 255;
const KEPT_PART: usize = 80;
/// Pause between two attempts at a lock with a waiting time.
const PAUSE: Duration = Duration::from_millis(20);

/// Whether others may hold the same lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Together with other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

/// How long a refusal must last to count. A child that this process starts holds a copy of every lock until it runs its own
/// program, so that a lock which was just released can still seem to be held.
const INHERITED: Duration = Duration::from_millis(100);

/// A lock; dropping it releases it.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// Takes the lock, waiting up to `wait` for it. `what` begins the error's text.
    pub(crate) fn take(path: PathBuf, mode: LockMode, wait: Duration, what: &str) -> Result<Self> {
        let busy = |reason| DatastoreError::Locked {
            what: format!("{what} {path:?}"),
            reason,
        };
        if let Some(dir) = path.parent() {
            ownership::create_dir_all(dir, 0o755)
                .map_err(DatastoreError::io("create lock directory", dir))?;
        }
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o660)
            .open(&path)
            .map_err(DatastoreError::io("open lock file", &path))?;
        ownership::inherit(&file, &path).map_err(DatastoreError::io("set the owner of", &path))?;
        let operation = match mode {
            LockMode::Shared => FlockOperation::NonBlockingLockShared,
            LockMode::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        let wait = wait.max(INHERITED);
        let start = Instant::now();
        loop {
            match flock(&file, operation) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if start.elapsed() < wait => std::thread::sleep(PAUSE),
                Err(Errno::WOULDBLOCK) => return Err(busy("it is in use by another task")),
                Err(error) => return Err(DatastoreError::sys("lock", &path)(error)),
            }
        }
        // Its last holder may have removed the file, and somebody else may hold a new one of that name.
        let held = file
            .metadata()
            .map_err(DatastoreError::io("look at lock file", &path))?;
        match std::fs::metadata(&path) {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => {
                Ok(FileLock { file, path })
            }
            _ => Err(busy(
                "could not acquire lock, another thread modified the lock file",
            )),
        }
    }

    /// Removes the file of a lock whose object is gone, then releases it.
    pub(crate) fn remove(self) {
        // A leftover is empty and is used again by the next holder.
        let _ = std::fs::remove_file(&self.path);
    }

    /// Makes an exclusive lock shared, or the reverse, without waiting.
    ///
    /// # Errors
    /// Others hold it.
    pub fn convert(&self, mode: LockMode) -> Result<()> {
        let operation = match mode {
            LockMode::Shared => FlockOperation::NonBlockingLockShared,
            LockMode::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        let start = Instant::now();
        loop {
            match flock(&self.file, operation) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if start.elapsed() < INHERITED => std::thread::sleep(PAUSE),
                Err(_) => {
                    return Err(DatastoreError::Locked {
                        what: format!("unable to change lock {:?}", self.path),
                        reason: "it is in use by another task",
                    });
                }
            }
        }
    }
}

/// The lock files of one datastore.
#[derive(Clone, Debug)]
pub(crate) struct LockFiles(pub(crate) PathBuf);

impl LockFiles {
    pub(crate) fn group(&self, namespace: &Namespace, group: &BackupGroup) -> PathBuf {
        self.path(namespace, &group.to_string())
    }

    pub(crate) fn snapshot(&self, namespace: &Namespace, snapshot: &Snapshot) -> PathBuf {
        self.path(namespace, &snapshot.to_string())
    }

    pub(crate) fn manifest(&self, namespace: &Namespace, snapshot: &Snapshot) -> PathBuf {
        self.path(namespace, &format!("{snapshot}/.index.json.lck"))
    }

    fn path(&self, namespace: &Namespace, relative: &str) -> PathBuf {
        let mut dir = self.0.clone();
        if !namespace.is_root() {
            dir.push(namespace.components().collect::<Vec<_>>().join(":"));
        }
        dir.join(file_name(relative))
    }
}

/// The name of a lock file, in its sub-directory for long ones.
fn file_name(relative: &str) -> PathBuf {
    let escaped = escape(relative);
    if escaped.len() < LONG_NAME {
        return escaped.into();
    }
    // Escaped names are ASCII, so every position is a boundary.
    let first = escaped.get(..KEPT_PART).unwrap_or_default();
    let last = escaped.get(escaped.len() - KEPT_PART..).unwrap_or_default();
    let name = format!("{first}...{last}-{}", Digest::of(relative.as_bytes()));
    Path::new("hashed").join(name)
}

/// A path as systemd writes it into unit names.
fn escape(path: &str) -> String {
    let path = path.trim_start_matches('/');
    let mut escaped = String::with_capacity(path.len() + 16);
    for (position, byte) in path.bytes().enumerate() {
        match byte {
            b'/' => escaped.push('-'),
            b'.' if position == 0 => escaped.push_str("\\x2e"),
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' | b'.' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("\\x{byte:02x}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn files() -> LockFiles {
        LockFiles("/locks/store".into())
    }

    #[test]
    fn lock_files_have_the_stock_names() {
        let root = Namespace::root();
        let snapshot: Snapshot = "vm/100/2022-05-02T08:11:33Z".parse().unwrap();
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        assert_eq!(
            path(files().group(&root, &snapshot.group)),
            "/locks/store/vm-100"
        );
        assert_eq!(
            path(files().group(&"a/b".parse().unwrap(), &snapshot.group)),
            "/locks/store/a:b/vm-100"
        );
        assert_eq!(
            path(files().snapshot(&root, &snapshot)),
            r"/locks/store/vm-100-2022\x2d05\x2d02T08\x3a11\x3a33Z"
        );
        assert_eq!(
            path(files().manifest(&root, &snapshot)),
            r"/locks/store/vm-100-2022\x2d05\x2d02T08\x3a11\x3a33Z-.index.json.lck"
        );
    }

    #[test]
    fn long_names_are_shortened_without_collisions() {
        let id = "a-b".repeat(100);
        let name = file_name(&format!("host/{id}"));
        assert_eq!(name.parent().unwrap(), Path::new("hashed"));
        let text = name.file_name().unwrap().to_str().unwrap();
        assert_eq!(text.len(), 80 + 3 + 80 + 1 + 64);
        assert!(text.starts_with(r"host-a\x2dba\x2db"));
        assert_ne!(name, file_name(&format!("host/{id}x")));
        // "host-" and 249 letters are 254, one more is 255.
        assert!(
            file_name(&format!("host/{}", "a".repeat(249)))
                .parent()
                .unwrap()
                .as_os_str()
                .is_empty()
        );
        assert!(
            !file_name(&format!("host/{}", "a".repeat(250)))
                .parent()
                .unwrap()
                .as_os_str()
                .is_empty()
        );
    }

    #[test]
    fn exclusive_locks_exclude_and_shared_ones_share() {
        let dir = tempfile::tempdir().unwrap();
        let take = |mode| {
            FileLock::take(
                dir.path().join("x/vm-1"),
                mode,
                Duration::ZERO,
                "unable to acquire lock",
            )
        };
        let first = take(LockMode::Shared).unwrap();
        let second = take(LockMode::Shared).unwrap();
        let error = take(LockMode::Exclusive).unwrap_err();
        assert!(
            error.is_retryable() && error.to_string().starts_with("unable to acquire lock \""),
            "{error}"
        );
        drop(first);
        second.convert(LockMode::Exclusive).unwrap();
        assert!(take(LockMode::Shared).is_err());
        second.remove();
        take(LockMode::Exclusive).unwrap();
    }

    #[test]
    fn a_lock_on_a_removed_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm-1");
        let held = FileLock::take(path.clone(), LockMode::Exclusive, Duration::ZERO, "").unwrap();
        let waiting = {
            let path = path.clone();
            std::thread::spawn(move || {
                FileLock::take(path, LockMode::Exclusive, Duration::from_secs(20), "")
            })
        };
        // The waiter has opened the file when a second descriptor is there; both outcomes below are legal for it, but it must
        // never hold a lock on a file that has no name.
        held.remove();
        if let Ok(lock) = waiting.join().unwrap() {
            assert_eq!(
                lock.file.metadata().unwrap().ino(),
                std::fs::metadata(&path).unwrap().ino()
            );
        }
    }
}
