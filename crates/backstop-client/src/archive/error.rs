//! Why a tree could not be archived or extracted.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use backstop_format::catalog::CatalogError;
use backstop_format::pxar::PxarError;

use super::pattern::PatternError;

/// Result of this module's operations.
pub type Result<T> = std::result::Result<T, ArchiveError>;

/// Failure of archiving or extracting a tree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The archive itself could not be read or written.
    #[error(transparent)]
    Pxar(#[from] PxarError),
    /// The catalog could not be written.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// An exclude or selection pattern is not valid.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A file system call failed.
    #[error("failed to {action} {path:?} - {source}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The source is not something a tree archive can be made of.
    #[error("cannot archive {path:?} - {problem}")]
    BadSource {
        /// The source.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More directory entries along one path than allowed.
    #[error(
        "exceeded allowed number of file entries (> {limit}) in {path:?} - raise --entries-max"
    )]
    TooManyEntries {
        /// The limit.
        limit: usize,
        /// The directory that exceeded it.
        path: PathBuf,
    },
    /// The archive asks for something that must not be done.
    #[error("refusing to extract {path:?} - {problem}")]
    Refused {
        /// The entry.
        path: PathBuf,
        /// Why.
        problem: &'static str,
    },
    /// The chunks of the previous archive do not fit its metadata.
    #[error("cannot re-use data of the previous archive - {0}")]
    Reuse(&'static str),
    /// Errors were logged while the rest was extracted.
    #[error("there were errors")]
    SomeFailed,
}

impl ArchiveError {
    pub(crate) fn file(action: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::File {
            action,
            path: display_path(path),
            source: source.into(),
        }
    }

    pub(crate) fn refused(path: &[u8], problem: &'static str) -> Self {
        Self::Refused {
            path: display_path(path),
            problem,
        }
    }
}

pub(crate) fn display_path(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}
