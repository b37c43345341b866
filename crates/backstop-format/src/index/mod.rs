//! Index files: which chunks, in which order, make up an archive. See `docs/formats/indexes.md`.
//!
//! A parsed index has been checked wholly: magic, lengths, increasing offsets and the checksum in its header. Code that
//! holds one needs no further checks to walk it.

mod dynamic;
mod fixed;
mod scan;

pub use dynamic::{DynamicIndex, DynamicIndexBuilder};
pub use fixed::{FixedIndex, FixedIndexBuilder, MAX_FIXED_SLOTS};
pub use scan::{IndexKind, IndexScanner};

use crate::digest::Digest;
use crate::error::{FormatError, Result};

/// Header of both kinds of index, in bytes; a constant of the format, not the host's page size.
pub const HEADER_SIZE: usize = 4096;

/// One chunk of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSpan {
    /// The chunk's name.
    pub digest: Digest,
    /// Offset of its first byte in the archive.
    pub start: u64,
    /// Offset after its last byte.
    pub end: u64,
}

impl ChunkSpan {
    /// Its length, in bytes.
    pub fn size(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// What fixed and dynamic indexes have in common.
pub trait ChunkIndex: Send + Sync {
    /// Number of chunks, at least one.
    fn chunk_count(&self) -> usize;
    /// Size of the archive, in bytes.
    fn size(&self) -> u64;
    /// Digest of chunk `position`.
    fn digest(&self, position: usize) -> Option<&Digest>;
    /// Chunk `position` with its place in the archive.
    fn chunk(&self, position: usize) -> Option<ChunkSpan>;
    /// Position of the chunk that holds byte `offset`.
    fn locate(&self, offset: u64) -> Option<usize>;
    /// The index checksum, as the manifest states it; computed from the entries.
    fn checksum(&self) -> Digest;
    /// Creation time, in seconds since 1970.
    fn ctime(&self) -> i64;
    /// Random identity of the file.
    fn uuid(&self) -> [u8; 16];
}

/// An index of either kind.
#[derive(Clone, Debug)]
pub enum AnyIndex {
    /// From a `.fidx` file.
    Fixed(FixedIndex),
    /// From a `.didx` file.
    Dynamic(DynamicIndex),
}

impl AnyIndex {
    /// Parses an index file of the kind that its magic number names.
    ///
    /// # Errors
    /// As [`FixedIndex::parse`] and [`DynamicIndex::parse`].
    pub fn parse(raw: &[u8]) -> Result<Self> {
        match raw.first_chunk::<8>() {
            Some(magic) if *magic == fixed::MAGIC => FixedIndex::parse(raw).map(AnyIndex::Fixed),
            Some(magic) if *magic == dynamic::MAGIC => {
                DynamicIndex::parse(raw).map(AnyIndex::Dynamic)
            }
            Some(magic) => Err(FormatError::UnknownMagic {
                what: "index",
                found: *magic,
            }),
            None => Err(too_short(raw)),
        }
    }

    fn inner(&self) -> &dyn ChunkIndex {
        match self {
            AnyIndex::Fixed(index) => index,
            AnyIndex::Dynamic(index) => index,
        }
    }
}

impl ChunkIndex for AnyIndex {
    fn chunk_count(&self) -> usize {
        self.inner().chunk_count()
    }
    fn size(&self) -> u64 {
        self.inner().size()
    }
    fn digest(&self, position: usize) -> Option<&Digest> {
        self.inner().digest(position)
    }
    fn chunk(&self, position: usize) -> Option<ChunkSpan> {
        self.inner().chunk(position)
    }
    fn locate(&self, offset: u64) -> Option<usize> {
        self.inner().locate(offset)
    }
    fn checksum(&self) -> Digest {
        self.inner().checksum()
    }
    fn ctime(&self) -> i64 {
        self.inner().ctime()
    }
    fn uuid(&self) -> [u8; 16] {
        self.inner().uuid()
    }
}

/// The header fields that both kinds share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    uuid: [u8; 16],
    ctime: i64,
}

impl Identity {
    /// A random identity, created now.
    fn new() -> Self {
        let ctime = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        Identity {
            uuid: uuid::Uuid::new_v4().into_bytes(),
            ctime,
        }
    }

    /// Magic, identity and checksum: the first 64 bytes of a header of 4096, the others zero.
    fn header(&self, magic: [u8; 8], checksum: &Digest) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER_SIZE);
        header.extend_from_slice(&magic);
        header.extend_from_slice(&self.uuid);
        header.extend_from_slice(&self.ctime.to_le_bytes());
        header.extend_from_slice(&checksum.0);
        header
    }
}

/// Reads magic, identity and checksum; the caller reads what follows.
fn read_header(raw: &[u8], magic: [u8; 8], what: &'static str) -> Result<(Identity, Digest)> {
    let header = raw
        .first_chunk::<HEADER_SIZE>()
        .ok_or_else(|| too_short(raw))?;
    let found: [u8; 8] = field(header, 0);
    if found != magic {
        return Err(FormatError::UnknownMagic { what, found });
    }
    let identity = Identity {
        uuid: field(header, 8),
        ctime: i64::from_le_bytes(field(header, 24)),
    };
    Ok((identity, Digest(field(header, 32))))
}

/// `N` bytes of the header at a constant offset.
fn field<const N: usize>(header: &[u8; HEADER_SIZE], at: usize) -> [u8; N] {
    header
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .unwrap_or([0; N])
}

fn too_short(raw: &[u8]) -> FormatError {
    FormatError::TooShort {
        what: "index",
        length: raw.len() as u64,
        needed: HEADER_SIZE as u64,
    }
}

fn check_checksum(stored: Digest, computed: Digest) -> Result<()> {
    if stored == computed {
        Ok(())
    } else {
        Err(FormatError::WrongDigest {
            what: "index",
            expected: stored,
            found: computed,
        })
    }
}
