//! Files on the file system of a cluster, which does not support every call: files are replaced by a rename, permissions cannot be
//! set, and locks are directories that whoever holds them may leave behind only for two minutes.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, Timespec, Timestamps};
use rustix::io::Errno;

/// How often a lock that is held is tried, once a second.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// Whether nothing can be written there: mounted read-only, or without quorum, which the file system shows as a directory that not
/// even root may write to.
pub(super) fn is_read_only(folder: &Path) -> bool {
    let is_mounted_so = rustix::fs::statvfs(folder)
        .is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY));
    let has_no_quorum = std::fs::metadata(folder).is_ok_and(|found| found.mode() & 0o200 == 0);
    is_mounted_so || has_no_quorum
}

pub(super) fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
}

/// How many links may lead to a file.
const MOST_LINKS: usize = 40;

/// What a path is a link to, below a root; the path itself if it is none, and also when there is nothing.
pub(super) fn behind_links(root: &Path, path: PathBuf) -> std::io::Result<PathBuf> {
    let mut path = path;
    for _ in 0..MOST_LINKS {
        match std::fs::read_link(&path) {
            Ok(target) => {
                path = match target.strip_prefix("/") {
                    Ok(below) => root.join(below),
                    Err(_) => path.parent().unwrap_or(root).join(target),
                };
            }
            Err(err) if matches!(err.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => {
                return Ok(path);
            }
            Err(err) => return Err(err),
        }
    }
    Err(Errno::LOOP.into())
}

/// Replaces a file as a whole, keeping its mode where there are modes. A link would be replaced, too: see [`behind_links`].
pub(super) fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!("{name}.tmp.{}", std::process::id()));
    let mode = std::fs::metadata(path).map(|found| found.mode() & 0o777);
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode.unwrap_or(0o644))
            .open(&temporary)?;
        file.write_all(text)?;
        synced(file.sync_all())?;
        drop(file);
        std::fs::rename(&temporary, path)
    };
    let written = write();
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    synced(File::open(folder).and_then(|folder| folder.sync_all()))
}

/// Not every file system can sync; one that cannot needs none, or has no more to give.
fn synced(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(err)
            if matches!(
                Errno::from_io_error(&err),
                Some(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM)
            ) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// A lock that all nodes of a cluster respect. Dropping it gives it free.
#[derive(Debug)]
pub(super) struct ClusterLock(PathBuf);

impl ClusterLock {
    /// Takes a lock; `None` where there is no cluster to lock in.
    pub fn take(folder: &Path, name: &str) -> std::io::Result<Option<Self>> {
        if !folder.is_dir() {
            return Ok(None);
        }
        let path = folder.join(name);
        for attempt in 0..ATTEMPTS {
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Some(Self(path))),
                Err(err) if err.kind() == ErrorKind::AlreadyExists => {}
                Err(err) => return Err(err),
            }
            // Asks the file system to take it away from a holder that is gone.
            let zero = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let times = Timestamps {
                last_access: zero,
                last_modification: zero,
            };
            let _ = rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty());
            if attempt + 1 < ATTEMPTS {
                std::thread::sleep(PAUSE);
            }
        }
        Err(std::io::Error::other(format!(
            "another node holds the lock {path:?}; try again"
        )))
    }
}

impl Drop for ClusterLock {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}
