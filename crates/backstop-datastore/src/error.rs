//! Why an operation on a datastore failed: what was attempted, on what, why, and what to do.

use std::io;
use std::path::{Path, PathBuf};

use backstop_format::{Digest, FormatError};
use backstop_types::{BackupGroup, Namespace, Snapshot};

use crate::relocation::MoveRefusal;
use crate::retention_lock::{RetentionLockRefusal, RetentionLocked};

/// Result of this crate's operations.
pub type Result<T> = std::result::Result<T, DatastoreError>;

/// Why an operation on a datastore failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatastoreError {
    /// The system refused an operation on a file.
    #[error("unable to {attempt} {path:?} - {source}{}", remedy(.source))]
    Io {
        /// What was attempted, as in "unable to …".
        attempt: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// There is no chunk store where the datastore should be.
    #[error(
        "unable to open chunk store at {path:?} - {source}; is the file system mounted, and is this the datastore's path?"
    )]
    NoChunkStore {
        /// The `.chunks` directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A directory cannot become, or be taken over as, a datastore.
    #[error("unable to create datastore at {path:?} - {reason}")]
    NotCreatable {
        /// The datastore's directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A chunk that something refers to is not in the store.
    #[error("chunk {digest} is missing from the chunk store")]
    NoSuchChunk {
        /// Its name.
        digest: Digest,
    },
    /// A stored file is damaged.
    #[error("{path:?} is damaged - {source}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FormatError,
    },
    /// A chunk must not replace the one stored under its name.
    #[error("refusing to store chunk {digest} - {reason}")]
    ChunkConflict {
        /// Its name.
        digest: Digest,
        /// Why not.
        reason: &'static str,
    },
    /// Ten corrupt copies of a chunk are kept already.
    #[error(
        "chunk {digest} is corrupt, but cannot be set aside: ten corrupt copies are there already; remove the oldest"
    )]
    TooManyCorruptCopies {
        /// Its name.
        digest: Digest,
    },
    /// Somebody else holds a lock that is needed. Trying again later can help.
    #[error("{what} - {reason}")]
    Locked {
        /// Which lock, as in "unable to acquire snapshot lock \"…\"".
        what: String,
        /// Who may hold it.
        reason: &'static str,
    },
    /// The namespace does not exist.
    #[error("namespace '{0}' not found")]
    NoSuchNamespace(Namespace),
    /// The group does not exist.
    #[error("group '{0}' does not exist")]
    NoSuchGroup(BackupGroup),
    /// The snapshot does not exist.
    #[error("snapshot {0} does not exist.")]
    NoSuchSnapshot(Snapshot),
    /// The snapshot does not hold a file of that name.
    #[error("open file {path:?} failed - not found")]
    NoSuchFile {
        /// Where it should be.
        path: PathBuf,
    },
    /// The namespace exists already.
    #[error("namespace '{0}' already exists")]
    NamespaceExists(Namespace),
    /// The snapshot exists already.
    #[error("backup directory already exists.")]
    SnapshotExists(Snapshot),
    /// The snapshot is protected.
    #[error("cannot remove protected snapshot")]
    Protected(Snapshot),
    /// A retention lock keeps the snapshot.
    #[error(transparent)]
    RetentionLocked(Box<RetentionLocked>),
    /// A retention lock is not changed as asked.
    #[error(transparent)]
    RetentionLock(Box<RetentionLockRefusal>),
    /// A name's stored form is no valid name.
    #[error("{path:?} is invalid - {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        reason: String,
    },
    /// The file system does not keep access times, on which garbage collection relies.
    #[error(
        "access time safety check on {path:?} failed - {reason}; garbage collection is not safe here. Mount the file \
         system so that explicit access time updates are kept, or switch gc-atime-safety-check off at your own risk"
    )]
    AccessTimes {
        /// The chunk that the check was made with.
        path: PathBuf,
        /// What was seen.
        reason: String,
    },
    /// A group or namespace cannot be moved.
    #[error(transparent)]
    Move(Box<MoveRefusal>),
    /// Another datastore lies inside this one, so that it is not clear which indexes belong to which chunks.
    #[error(
        "Aborting GC for safety reasons: nested datastores not allowed: there is another one at {path:?}; move it elsewhere"
    )]
    Nested {
        /// Directory of the other one.
        path: PathBuf,
    },
    /// Another garbage collection of this datastore is running.
    #[error("garbage collection already running")]
    GarbageCollectionRunning,
    /// The observer asked to stop.
    #[error("abort requested - aborting task")]
    Aborted,
}

impl From<MoveRefusal> for DatastoreError {
    fn from(refusal: MoveRefusal) -> Self {
        Self::Move(Box::new(refusal))
    }
}

impl From<RetentionLocked> for DatastoreError {
    fn from(locked: RetentionLocked) -> Self {
        Self::RetentionLocked(Box::new(locked))
    }
}

impl From<RetentionLockRefusal> for DatastoreError {
    fn from(refusal: RetentionLockRefusal) -> Self {
        Self::RetentionLock(Box::new(refusal))
    }
}

impl DatastoreError {
    /// An error of the system while doing something to a file.
    pub(crate) fn io(
        attempt: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| DatastoreError::Io {
            attempt,
            path,
            source,
        }
    }

    /// As [`io`](Self::io), for calls of rustix.
    pub(crate) fn sys(
        attempt: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.as_ref().to_owned();
        move |source| DatastoreError::Io {
            attempt,
            path,
            source: source.into(),
        }
    }

    /// Whether the named object does not exist.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NoSuchChunk { .. }
            | Self::NoSuchNamespace(_)
            | Self::NoSuchGroup(_)
            | Self::NoSuchSnapshot(_)
            | Self::NoSuchFile { .. } => true,
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }

    /// Whether the same operation may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Locked { .. } | Self::GarbageCollectionRunning => true,
            Self::Io { source, .. } | Self::NoChunkStore { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StaleNetworkFileHandle
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::Interrupted
            ),
            _ => false,
        }
    }

    /// Whether the file system is full.
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull => "; free space on the datastore, or extend it",
        io::ErrorKind::QuotaExceeded => "; raise the quota of the datastore's file system",
        io::ErrorKind::ReadOnlyFilesystem => {
            "; the file system is mounted read-only, see the kernel's log for the cause"
        }
        io::ErrorKind::StaleNetworkFileHandle => {
            "; the network file system was lost, it will be tried again"
        }
        _ => "",
    }
}
