//! What can go wrong while an archive is written or read.

use std::io;

/// Failure of reading or writing a pxar archive. Positions are byte offsets in the metadata stream
/// (for version 1: in the archive) unless the text says "payload".
#[derive(Debug, thiserror::Error)]
pub enum PxarError {
    /// The underlying stream failed.
    #[error("pxar archive: {action} at byte {position} failed: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Where in the stream.
        position: u64,
        /// Why.
        source: io::Error,
    },
    /// The stream ends inside an item or a directory.
    #[error("pxar archive is cut off at byte {position}: {missing} missing")]
    Truncated {
        /// Where the stream ended.
        position: u64,
        /// What should have followed.
        missing: &'static str,
    },
    /// An item announces less than its header or more than its type allows.
    #[error(
        "pxar archive is damaged: {item} item at byte {position} has an impossible size of {size} bytes"
    )]
    BadSize {
        /// Name of the item type.
        item: &'static str,
        /// Position of the item header.
        position: u64,
        /// Announced size.
        size: u64,
    },
    /// An item type that this format does not have.
    #[error(
        "pxar archive is damaged or newer than this program: unknown item type {kind:#018x} at byte {position}"
    )]
    UnknownItem {
        /// The type constant found.
        kind: u64,
        /// Position of the item header.
        position: u64,
    },
    /// A known item in a place where it must not be.
    #[error(
        "pxar archive is damaged: unexpected {item} item at byte {position}, expected {expected}"
    )]
    UnexpectedItem {
        /// Name of the item type.
        item: &'static str,
        /// Position of the item header.
        position: u64,
        /// What belongs there.
        expected: &'static str,
    },
    /// The archive announces a version other than 1 and 2.
    #[error("pxar archive has format version {0}; this program reads versions 1 and 2")]
    UnknownVersion(u64),
    /// The content of an item breaks a rule.
    #[error("pxar archive is damaged: {item} item at byte {position}: {problem}")]
    BadContent {
        /// Name of the item type.
        item: &'static str,
        /// Position of the item header.
        position: u64,
        /// The rule that was broken.
        problem: &'static str,
    },
    /// A file name that no directory can hold.
    #[error("pxar archive is damaged: invalid file name {:?} at byte {position}", String::from_utf8_lossy(.name))]
    BadName {
        /// The name found.
        name: Vec<u8>,
        /// Position of the item header.
        position: u64,
    },
    /// A limit of this implementation, see [`super::item`].
    #[error("pxar archive exceeds the limit of {limit} {what} at byte {position}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// Where it was exceeded.
        position: u64,
    },
    /// A goodbye table is inconsistent.
    #[error("pxar archive is damaged: directory table ending at byte {end}: {problem}")]
    BadTable {
        /// Position behind the table.
        end: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// The payload stream does not fit the metadata stream.
    #[error(
        "pxar payload stream is damaged or belongs to another archive: at byte {position}: {problem}"
    )]
    BadPayload {
        /// Position in the payload stream.
        position: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// File contents are asked from a split archive whose payload stream was not given.
    #[error("file contents lie in the payload archive (.ppxar), which was not given")]
    NoPayload,
    /// A hard link does not lead to an earlier regular file.
    #[error(
        "pxar archive is damaged: hard link at byte {position} does not lead to a regular file before it"
    )]
    BadHardlink {
        /// Position of the link's FILENAME header.
        position: u64,
    },
    /// The operation does not apply to this kind of entry.
    #[error("{:?} is not a {expected}", String::from_utf8_lossy(.name))]
    WrongKind {
        /// Name of the entry.
        name: Vec<u8>,
        /// What the operation needs.
        expected: &'static str,
    },
    /// The writer was used in an order the format does not allow.
    #[error("cannot write pxar archive: {0}")]
    Usage(&'static str),
    /// The caller gave the writer something that the format cannot hold.
    #[error("cannot store {:?} in a pxar archive: {problem}", String::from_utf8_lossy(.name))]
    Unstorable {
        /// Name of the entry.
        name: Vec<u8>,
        /// Which rule it breaks.
        problem: &'static str,
    },
}

impl PxarError {
    pub(crate) fn io(action: &'static str, position: u64, source: io::Error) -> Self {
        Self::Io {
            action,
            position,
            source,
        }
    }
}

/// Result of archive operations.
pub type Result<T> = std::result::Result<T, PxarError>;
