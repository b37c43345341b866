//! A mounted archive, from the mount to its end.
//!
//! Root mounts directly, others through the helper `fusermount3`. Never leaves a mount behind that it could undo.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use backstop_format::read_at::ReadAt;
use fuser::{Config, Filesystem, MountOption, Session, SessionUnmounter};
use rustix::mount::UnmountFlags;
use tokio::sync::oneshot;

use super::filesystem::{ArchiveFilesystem, MAX_BACKGROUND};
use super::image::ImageFilesystem;
use super::tree::ArchiveTree;

const DEVICE: &str = "/dev/fuse";

/// Threads that answer the kernel: one for each request ahead of need, and some for those that somebody waits for, so
/// that a slow chunk holds up only who wants it.
const THREADS: usize = MAX_BACKGROUND as usize + 4;

/// Why an archive could not be mounted, or its mount not be ended.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel has no FUSE, or the container was not given it.
    #[error(
        "unable to mount - {DEVICE} does not exist: load the kernel module ('modprobe fuse'), or give the container this device"
    )]
    NoDevice,
    /// The device is there but refuses.
    #[error("unable to mount - {DEVICE} cannot be opened: {0}")]
    Device(io::Error),
    /// The place to mount at is no directory, or cannot be seen.
    #[error("unable to mount at {path:?} - {source}")]
    Target {
        /// The place.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// Users other than root need a helper that is not installed.
    #[error(
        "unable to mount at {path:?} - not allowed directly, and the helper fusermount3 (package fuse3) is not installed"
    )]
    NoHelper {
        /// The place.
        path: PathBuf,
    },
    /// The kernel or the helper refused.
    #[error("unable to mount at {path:?} - {source}")]
    Mount {
        /// The place.
        path: PathBuf,
        /// What they said.
        source: io::Error,
    },
    /// The mount could not be ended.
    #[error("unable to unmount {path:?} - {source}")]
    Unmount {
        /// The place.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The connection to the kernel broke.
    #[error("the mount at {path:?} broke off - {source}")]
    Broken {
        /// The place.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Checks that this system offers FUSE to this process.
///
/// # Errors
/// It does not.
pub fn check_device() -> Result<(), MountError> {
    match OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(MountError::NoDevice),
        Err(error) => Err(MountError::Device(error)),
    }
}

/// An archive that is mounted; dropping this ends the mount.
pub struct MountedArchive {
    target: PathBuf,
    unmounter: SessionUnmounter,
    ended: oneshot::Receiver<io::Result<()>>,
}

/// Mounts the archive at the directory `target`, under the name `source` in the list of mounts. Blocks until it is done.
///
/// # Errors
/// The target is no directory, or the system does not allow it.
pub fn mount<R, P>(
    tree: ArchiveTree<R, P>,
    target: &Path,
    source: &str,
) -> Result<MountedArchive, MountError>
where
    R: ReadAt + Send + Sync + 'static,
    P: ReadAt + Send + Sync + 'static,
{
    check_device()?;
    let at_target = |source| MountError::Target {
        path: target.to_owned(),
        source,
    };
    let target = target.canonicalize().map_err(at_target)?;
    if !File::open(&target)
        .and_then(|file| file.metadata())
        .map_err(at_target)?
        .is_dir()
    {
        return Err(at_target(io::ErrorKind::NotADirectory.into()));
    }
    serve(ArchiveFilesystem::new(tree), target, source)
}

/// Mounts an image on the file `target`, as [`mount`] does.
pub(super) fn mount_image<R>(
    image: R,
    target: &Path,
    source: &str,
) -> Result<MountedArchive, MountError>
where
    R: ReadAt + Send + Sync + 'static,
{
    serve(ImageFilesystem(image), target.to_owned(), source)
}

/// Mounts a file system and answers the kernel until the mount ends.
fn serve<F: Filesystem + Send + Sync + 'static>(
    filesystem: F,
    target: PathBuf,
    source: &str,
) -> Result<MountedArchive, MountError> {
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    config.mount_options = vec![
        MountOption::RO,
        MountOption::DefaultPermissions,
        // A comma would begin another option.
        MountOption::FSName(source.replace(',', "_")),
    ];
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => MountError::NoHelper {
            path: target.clone(),
        },
        _ => MountError::Mount {
            path: target.clone(),
            source,
        },
    };
    let mut session = Session::new(filesystem, &target, &config).map_err(failed)?;
    let unmounter = session.unmount_callable();
    let (sender, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("mount".to_owned())
        .spawn(move || {
            // Nobody listens any more after an end that was asked for.
            let _ = sender.send(session.run());
        })
        .map_err(failed)?;
    Ok(MountedArchive {
        target,
        unmounter,
        ended,
    })
}

impl MountedArchive {
    /// Where it is mounted.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Waits until somebody unmounts it.
    ///
    /// # Errors
    /// It ended otherwise.
    pub async fn ended(&mut self) -> Result<(), MountError> {
        let outcome = (&mut self.ended).await;
        outcome
            .unwrap_or_else(|_| Err(io::Error::other("the thread that served it is gone")))
            .map_err(|source| MountError::Broken {
                path: self.target.clone(),
                source,
            })
    }

    /// Unmounts it. If it is in use, it vanishes from the tree at once and fails for those who still use it when this
    /// process ends.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn unmount(&mut self) -> Result<(), MountError> {
        let busy = rustix::io::Errno::BUSY.raw_os_error();
        match self.unmounter.unmount() {
            Err(error) if error.raw_os_error() == Some(busy) => {
                tracing::warn!("{:?} is in use and is detached", self.target);
                rustix::mount::unmount(&self.target, UnmountFlags::DETACH).map_err(io::Error::from)
            }
            other => other,
        }
        .map_err(|source| MountError::Unmount {
            path: self.target.clone(),
            source,
        })
    }
}

impl Drop for MountedArchive {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            tracing::error!("{error}");
        }
    }
}
