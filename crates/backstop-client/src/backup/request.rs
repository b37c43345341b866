//! What to back up, where to, and how.
//!
//! Plain data: nothing is checked against the file system here.

use std::path::PathBuf;
use std::sync::Arc;

use backstop_format::CryptMode;
use backstop_format::crypt::CryptKey;
use backstop_types::{Namespace, Snapshot};

/// Smallest chunk size that may be asked for, in bytes.
pub const MIN_CHUNK_SIZE: usize = 64 << 10;

/// Chunk size of images and average chunk size of trees, in bytes, unless asked otherwise; also the largest.
pub const DEFAULT_CHUNK_SIZE: usize = 4 << 20;

/// What kind of source an archive is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// A directory tree (`.pxar`).
    Tree,
    /// A disk image: regular file, block device or FIFO (`.img`).
    Image,
    /// A configuration file (`.conf`), stored as one blob.
    Config,
    /// A log file (`.log`), stored as one blob.
    Log,
}

/// One archive of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveSpec {
    /// Name as the user gives it, e.g. `root.pxar`, `disk.img`, `etc.conf`.
    pub name: String,
    /// Kind of the source; has to agree with the name's extension.
    pub kind: SourceKind,
    /// Where the source is.
    pub path: PathBuf,
}

/// How changes since the previous backup of a tree are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ChangeDetection {
    /// One self-contained archive and a catalog; everything is read.
    #[default]
    Legacy,
    /// Split archive; everything is read.
    Data,
    /// Split archive; files whose metadata did not change are taken over from the previous snapshot.
    Metadata,
}

/// Encryption or signature of a backup.
#[derive(Clone)]
pub struct CryptConfig {
    /// [`CryptMode::Encrypt`] or [`CryptMode::SignOnly`].
    pub mode: CryptMode,
    /// The key.
    pub key: Arc<CryptKey>,
    /// The key encrypted for a master key, stored as `rsa-encrypted.key.blob`.
    pub escrow: Option<Vec<u8>>,
}

/// How a directory tree is walked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeOptions {
    /// Exclude patterns in the order given.
    pub exclude: Vec<String>,
    /// Whether mount points are crossed.
    pub all_file_systems: bool,
    /// Paths whose file systems are entered although they are other ones.
    pub include_dev: Vec<PathBuf>,
    /// Whether `lost+found` is left out.
    pub skip_lost_and_found: bool,
    /// Whether extended attributes that are too big to read are left out instead of failing.
    pub skip_e2big_xattr: bool,
    /// Most directory entries held in memory.
    pub entries_max: usize,
}

impl Default for TreeOptions {
    fn default() -> Self {
        Self {
            exclude: Vec::new(),
            all_file_systems: false,
            include_dev: Vec::new(),
            skip_lost_and_found: false,
            skip_e2big_xattr: false,
            entries_max: 1 << 20,
        }
    }
}

/// A backup to be made.
#[derive(Clone)]
pub struct BackupRequest {
    /// Datastore on the server.
    pub datastore: String,
    /// Namespace in the datastore.
    pub namespace: Namespace,
    /// Group and time of the new snapshot.
    pub snapshot: Snapshot,
    /// The archives, uploaded in this order.
    pub archives: Vec<ArchiveSpec>,
    /// Encryption or signature; `None` for neither.
    pub crypt: Option<CryptConfig>,
    /// Change detection of trees.
    pub change_detection: ChangeDetection,
    /// Chunk size of images and average chunk size of trees; a power of two,
    /// [`MIN_CHUNK_SIZE`] to [`DEFAULT_CHUNK_SIZE`].
    pub chunk_size: usize,
    /// How trees are walked.
    pub tree: TreeOptions,
    /// Open a session and say what would be uploaded, but upload nothing.
    pub dry_run: bool,
    /// Ask the server to bypass its local cache of an object store.
    pub no_cache: bool,
    /// The repository as it is to be named in log lines.
    pub repository: String,
}

/// What a backup did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackupSummary {
    /// Figures of each archive, in upload order.
    pub archives: Vec<ArchiveSummary>,
}

/// What was done for one archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiveSummary {
    /// File name on the server.
    pub name: String,
    /// Size of the archive in bytes.
    pub size: u64,
    /// Bytes of it that the server did not know.
    pub uploaded: u64,
    /// Bytes that were sent for them.
    pub compressed: u64,
    /// Bytes of chunks that the server knew or that were taken over from the previous snapshot.
    pub reused: u64,
    /// Bytes of chunks taken over from the previous snapshot without being read.
    pub injected: u64,
    /// Number of such chunks.
    pub injected_chunks: u64,
    /// Number of chunks in the archive.
    pub chunks: u64,
    /// Time taken in milliseconds.
    pub milliseconds: u64,
}
