//! Why a call of a backup session is refused.
//!
//! The texts are part of the protocol: operators and scripts know them, so they never change. What each
//! call answers is described in `docs/formats/backup-protocol.md`. Nothing in here performs I/O.

use backstop_format::{Digest, FormatError};
use http::StatusCode;

use super::index_writer::IndexKind;

/// A refused or failed call of a backup session. `Display` is the body of the HTTP answer.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// `finish` is being carried out; nothing may change any more.
    #[error("backup is already in the process of finishing.")]
    Finishing,
    /// `finish` succeeded earlier in this session.
    #[error("backup already marked as finished.")]
    Finished,
    /// The connection has ended; what still runs of it is refused.
    #[error("backup session has ended")]
    Abandoned,
    /// The session ended without a successful `finish`.
    #[error("backup ended but finished state is not set.")]
    NotFinished,
    /// Writer ids are never reused and the protocol knows 256 of them.
    #[error("too many index writers - a backup session can create at most {limit} of them")]
    TooManyWriters {
        /// Number of writers that one session may create.
        limit: u16,
    },
    /// Two open writers for one archive would overwrite each other.
    #[error("index '{name}' is already being written by writer '{wid}' of this session")]
    ArchiveInUse {
        /// Server-side archive name.
        name: String,
        /// The writer that holds it.
        wid: u16,
    },
    /// The name lacks the extension that this call needs.
    #[error("wrong archive extension: '{name}'")]
    WrongArchiveExtension {
        /// The name as sent.
        name: String,
    },
    /// A blob's name must end in `.blob`.
    #[error("wrong blob file extension: '{name}'")]
    WrongBlobExtension {
        /// The name as sent.
        name: String,
    },
    /// The writer id belongs to no open writer of this kind.
    #[error("{kind} writer '{wid}' not registered")]
    NotRegistered {
        /// Kind of writer that the call is about.
        kind: IndexKind,
        /// The id as sent.
        wid: u16,
    },
    /// A writer whose close failed can only be abandoned.
    #[error("{kind} writer '{name}' {action} failed - already closed")]
    AlreadyClosed {
        /// Kind of the writer.
        kind: IndexKind,
        /// Archive name.
        name: String,
        /// `append chunk`, `register chunk` or `close`.
        action: &'static str,
    },
    /// A fixed writer takes chunks of one size.
    #[error("fixed writer '{name}' - got large chunk ({size} > {chunk_size})")]
    LargeChunk {
        /// Archive name.
        name: String,
        /// Announced plain size, bytes.
        size: u64,
        /// Chunk size of the index, bytes.
        chunk_size: u64,
    },
    /// Only the last chunk of an image may be short.
    #[error("fixed writer '{name}' - detected multiple end chunks (chunk size too small)")]
    MultipleEndChunks {
        /// Archive name.
        name: String,
    },
    /// `digest-list` and `offset-list` must be of one length.
    #[error("offset list has wrong length ({offsets} != {digests})")]
    OffsetListLength {
        /// Number of offsets.
        offsets: usize,
        /// Number of digests.
        digests: usize,
    },
    /// A digest that this session neither uploaded nor took from the previous snapshot.
    #[error("no such chunk {digest}")]
    NoSuchChunk {
        /// The unknown digest.
        digest: Digest,
    },
    /// A dynamic index is written without gaps.
    #[error(
        "dynamic writer '{name}' append chunk failed - got strange chunk offset ({expected} != {got})"
    )]
    StrangeOffset {
        /// Archive name.
        name: String,
        /// End of what was appended so far, bytes.
        expected: u64,
        /// Offset as sent, bytes.
        got: u64,
    },
    /// An index that can only be an attack or a mistake.
    #[error("{kind} writer '{name}' - index would exceed {limit} entries")]
    TooManyEntries {
        /// Kind of the writer.
        kind: IndexKind,
        /// Archive name.
        name: String,
        /// Largest number of entries.
        limit: u64,
    },
    /// The reused last chunk belongs to an image of another size.
    #[error(
        "fixed writer '{name}' close failed - image size changed, but its last chunk (offset {start}) was not written"
    )]
    StaleEnd {
        /// Archive name.
        name: String,
        /// Start of the last slot, bytes.
        start: u64,
    },
    /// A chunk does not fit where a fixed index was told to put it, or an index is empty or has holes.
    #[error("{0}")]
    Index(String),
    /// `chunk-count` differs from the number of appended chunks (dynamic), or from the number of slots (fixed).
    #[error("{kind} writer '{name}' close failed - unexpected chunk count ({expected} != {got})")]
    ChunkCount {
        /// Kind of the writer.
        kind: IndexKind,
        /// Archive name.
        name: String,
        /// What the server counted.
        expected: u64,
        /// What the client sent.
        got: u64,
    },
    /// `chunk-count` differs from the number of chunks appended to a fixed index.
    #[error(
        "fixed writer '{name}' close failed - received wrong number of chunk ({expected} != {got})"
    )]
    AppendCount {
        /// Archive name.
        name: String,
        /// What the server counted.
        expected: u64,
        /// What the client sent.
        got: u64,
    },
    /// `size` differs from the sum of the chunks or the announced size.
    #[error("{kind} writer '{name}' close failed - unexpected file size ({expected} != {got})")]
    FileSize {
        /// Kind of the writer.
        kind: IndexKind,
        /// Archive name.
        name: String,
        /// What the server counted, bytes.
        expected: u64,
        /// What the client sent, bytes.
        got: u64,
    },
    /// `csum` differs from the checksum over the entries.
    #[error("{kind} writer '{name}' close failed - got unexpected checksum")]
    Checksum {
        /// Kind of the writer.
        kind: IndexKind,
        /// Archive name.
        name: String,
    },
    /// `reuse-csum` without `size`.
    #[error("size is required for incremental backups")]
    SizeRequired,
    /// `reuse-csum` in the first backup of a group.
    #[error("cannot reuse index - no valid previous backup exists")]
    NoPreviousToReuse,
    /// `reuse-csum` for an archive that the previous snapshot lacks.
    #[error("cannot reuse index - no previous backup exists for archive")]
    NoPreviousArchive,
    /// `reuse-csum` names another state than the previous snapshot has.
    #[error(
        "expected csum ({expected}) doesn't match last backup's ({found}), cannot do incremental backup"
    )]
    ReuseChecksum {
        /// As sent.
        expected: Digest,
        /// As computed from the previous snapshot's index.
        found: Digest,
    },
    /// The image has another number of chunks than in the previous snapshot.
    #[error("cannot reuse index - index sizes not equal ({previous} != {new})")]
    ReuseSize {
        /// Chunks in the previous index.
        previous: u64,
        /// Chunks that the announced size needs.
        new: u64,
    },
    /// More body bytes than `encoded-size`.
    #[error("uploaded chunk is larger than announced.")]
    ChunkTooLarge,
    /// Fewer body bytes than `encoded-size`.
    #[error("uploaded chunk has unexpected size.")]
    ChunkTooSmall,
    /// The decoded chunk has another length than announced.
    #[error("detected chunk with wrong length ({announced} != {found})")]
    ChunkLength {
        /// `size` as sent.
        announced: u64,
        /// Length of the decoded data.
        found: u64,
    },
    /// The decoded chunk is not what its digest names.
    #[error("detected chunk with wrong digest.")]
    ChunkDigest,
    /// A blob's body has another length than announced.
    #[error("got blob with unexpected length ({announced} != {received})")]
    BlobLength {
        /// `encoded-size` as sent.
        announced: usize,
        /// Bytes received; never counted beyond one more than announced.
        received: usize,
    },
    /// `previous` without a previous snapshot.
    #[error("no valid previous backup")]
    NoPrevious,
    /// `finish` with a writer that is still open.
    #[error("found open index writer - unable to finish backup")]
    OpenWriter,
    /// `finish` although nothing was uploaded.
    #[error("backup does not contain valid files (file count == 0)")]
    NoFiles,
    /// The base was deleted while this backup relied on its chunks.
    #[error(
        "base snapshot {snapshot} was removed during backup, cannot finish as chunks might be missing"
    )]
    BaseRemoved {
        /// Path of the base snapshot below its namespace.
        snapshot: String,
    },
    /// `finish` without an acceptable manifest.
    #[error("unable to update manifest blob - {0}")]
    Manifest(#[from] super::acceptance::ManifestRefusal),
    /// The data sent is no valid blob or chunk.
    #[error("{0}")]
    Format(#[from] FormatError),
    /// The body could not be read to its end.
    #[error("{0}")]
    Body(String),
    /// A file of the previous snapshot does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The datastore could not carry out the call; the text says what failed on which path.
    #[error("{0}")]
    Datastore(String),
}

impl SessionError {
    /// HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}
