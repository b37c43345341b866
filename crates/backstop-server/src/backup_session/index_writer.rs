//! The index that a client is writing: dynamic (any chunk sizes, in order) or fixed (4 MiB slots, any order).
//!
//! Pure bookkeeping in memory over the builders of `backstop-format`; the finished bytes are handed out once,
//! by `close`. A writer whose close failed stays closed: the client has lost track of its own data, so the
//! session can only be abandoned.
//!
//! Memory: 40 bytes per dynamic entry, 32 bytes per fixed slot, bounded by
//! [`MAX_DYNAMIC_ENTRIES`] and `backstop_format::index::MAX_FIXED_SLOTS`.

use std::fmt;

use backstop_format::Digest;
use backstop_format::index::{ChunkIndex, DynamicIndexBuilder, FixedIndex, FixedIndexBuilder};

use super::error::SessionError;
use super::known_chunks::{Encryption, KnownChunk};
use super::statistics::UploadStatistics;

/// Chunk size of every fixed index, bytes.
pub const FIXED_CHUNK_SIZE: u64 = 4 << 20;

/// Largest number of entries of a dynamic index (2.5 GiB of memory; 256 TiB at the usual 4 MiB).
pub const MAX_DYNAMIC_ENTRIES: u64 = 64 << 20;

/// Kind of an index writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKind {
    /// `.didx`
    Dynamic,
    /// `.fidx`
    Fixed,
}

impl fmt::Display for IndexKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dynamic => "dynamic",
            Self::Fixed => "fixed",
        })
    }
}

/// What the client claims when it closes a writer.
#[derive(Clone, Copy, Debug)]
pub struct CloseClaim {
    /// Number of appended chunks.
    pub chunk_count: u64,
    /// Size of the archive, bytes.
    pub size: u64,
    /// Checksum over the entries.
    pub csum: Digest,
}

/// A closed index, ready to be stored.
#[derive(Debug)]
pub struct ClosedIndex {
    /// Server-side archive name.
    pub name: String,
    /// The complete index file.
    pub bytes: Vec<u8>,
    /// Checksum over the entries, as computed here.
    pub csum: Digest,
    /// Size of the archive, bytes.
    pub size: u64,
    /// Which kinds of chunks it refers to.
    pub content: ContentKinds,
    /// Lines for the task log.
    pub log: Vec<String>,
    /// Sums over the uploads through this writer.
    pub statistics: UploadStatistics,
}

/// Whether an index refers to chunks that were uploaded plain, and to ones that were uploaded encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentKinds {
    /// At least one plain chunk.
    pub plain: bool,
    /// At least one encrypted chunk.
    pub encrypted: bool,
}

impl ContentKinds {
    fn add(&mut self, encryption: Encryption) {
        match encryption {
            Encryption::Plain => self.plain = true,
            Encryption::Encrypted => self.encrypted = true,
            Encryption::Unseen => {}
        }
    }
}

enum Entries {
    Dynamic {
        builder: DynamicIndexBuilder,
        end: u64,
    },
    Fixed {
        builder: Box<FixedIndexBuilder>,
        announced_size: Option<u64>,
        incremental: bool,
        short_chunks: u32,
        /// Start of the last slot if its reused chunk has another length than the image needs now.
        stale_end: Option<u64>,
    },
}

/// One open (or failed) writer of a session.
pub struct IndexWriter {
    name: String,
    /// `None` after a close, failed or not.
    entries: Option<Entries>,
    kind: IndexKind,
    appended: u64,
    statistics: UploadStatistics,
    content: ContentKinds,
}

impl IndexWriter {
    /// Starts a dynamic index.
    pub fn dynamic(name: String) -> Self {
        let entries = Entries::Dynamic {
            builder: DynamicIndexBuilder::new(),
            end: 0,
        };
        Self::new(name, IndexKind::Dynamic, entries)
    }

    /// Starts a fixed index of `size` bytes, or one that grows until a short chunk ends it.
    pub fn fixed(name: String, size: Option<u64>) -> Result<Self, SessionError> {
        let builder = Box::new(FixedIndexBuilder::new(size, FIXED_CHUNK_SIZE)?);
        let entries = Entries::Fixed {
            builder,
            announced_size: size,
            incremental: false,
            short_chunks: 0,
            stale_end: None,
        };
        Ok(Self::new(name, IndexKind::Fixed, entries))
    }

    /// Starts a fixed index of `size` bytes that keeps the entries of `previous` until they are overwritten.
    ///
    /// `expected` is the checksum that the client remembers of `previous`.
    pub fn incremental(
        name: String,
        size: u64,
        previous: &FixedIndex,
        expected: &Digest,
    ) -> Result<Self, SessionError> {
        let found = previous.checksum();
        if found != *expected {
            return Err(SessionError::ReuseChecksum {
                expected: *expected,
                found,
            });
        }
        let new = size.div_ceil(FIXED_CHUNK_SIZE);
        let old = u64::try_from(previous.chunk_count()).unwrap_or(u64::MAX);
        if old != new {
            return Err(SessionError::ReuseSize { previous: old, new });
        }
        if previous.chunk_size() != FIXED_CHUNK_SIZE {
            return Err(SessionError::Index(
                "can't reuse file with different chunk size".to_owned(),
            ));
        }
        let (builder, stale_end) = if previous.size() == size {
            (FixedIndexBuilder::from_previous(previous), None)
        } else {
            (resized(previous, size)?, Some((new - 1) * FIXED_CHUNK_SIZE))
        };
        let builder = Box::new(builder);
        let entries = Entries::Fixed {
            builder,
            announced_size: Some(size),
            incremental: true,
            short_chunks: 0,
            stale_end,
        };
        Ok(Self::new(name, IndexKind::Fixed, entries))
    }

    fn new(name: String, kind: IndexKind, entries: Entries) -> Self {
        Self {
            name,
            entries: Some(entries),
            kind,
            appended: 0,
            statistics: UploadStatistics::default(),
            content: ContentKinds::default(),
        }
    }

    /// Archive name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Kind of the index.
    pub fn kind(&self) -> IndexKind {
        self.kind
    }

    fn closed(&self, action: &'static str) -> SessionError {
        SessionError::AlreadyClosed {
            kind: self.kind,
            name: self.name.clone(),
            action,
        }
    }

    /// Whether a chunk of `size` plain bytes may be uploaded through this writer.
    pub fn check_upload(&self, size: u64) -> Result<(), SessionError> {
        match &self.entries {
            None => Err(self.closed("register chunk")),
            Some(Entries::Fixed { .. }) if size > FIXED_CHUNK_SIZE => {
                Err(SessionError::LargeChunk {
                    name: self.name.clone(),
                    size,
                    chunk_size: FIXED_CHUNK_SIZE,
                })
            }
            Some(_) => Ok(()),
        }
    }

    /// Counts a completed upload of `size` plain bytes that is stored in `stored` bytes.
    pub fn register_upload(
        &mut self,
        size: u64,
        stored: u64,
        duplicate: bool,
    ) -> Result<(), SessionError> {
        self.check_upload(size)?;
        if let Some(Entries::Fixed { short_chunks, .. }) = &mut self.entries
            && size < FIXED_CHUNK_SIZE
        {
            *short_chunks = short_chunks.saturating_add(1);
            if *short_chunks > 1 {
                return Err(SessionError::MultipleEndChunks {
                    name: self.name.clone(),
                });
            }
        }
        self.statistics.add(size, stored, duplicate);
        Ok(())
    }

    /// Puts a known chunk at `offset` (its start in the archive).
    pub fn append(
        &mut self,
        offset: u64,
        digest: &Digest,
        chunk: KnownChunk,
    ) -> Result<(), SessionError> {
        let size = u64::from(chunk.size);
        let Some(entries) = &mut self.entries else {
            return Err(self.closed("append chunk"));
        };
        match entries {
            Entries::Dynamic { builder, end } => {
                if offset != *end {
                    let name = self.name.clone();
                    return Err(SessionError::StrangeOffset {
                        name,
                        expected: *end,
                        got: offset,
                    });
                }
                check_entries(
                    IndexKind::Dynamic,
                    &self.name,
                    self.appended,
                    MAX_DYNAMIC_ENTRIES,
                )?;
                *end = builder.append(size, digest)?;
            }
            Entries::Fixed {
                builder, stale_end, ..
            } => {
                builder.add(offset, size, digest)?;
                if *stale_end == Some(offset) {
                    *stale_end = None;
                }
            }
        }
        self.appended = self.appended.saturating_add(1);
        self.content.add(chunk.encryption);
        Ok(())
    }

    /// The writer with all its entries; what stays behind is closed.
    pub fn take(&mut self) -> Result<Self, SessionError> {
        let entries = self.entries.take().ok_or_else(|| self.closed("close"))?;
        Ok(Self {
            name: self.name.clone(),
            entries: Some(entries),
            ..*self
        })
    }

    /// Compares the claim with what was appended and hands out the index. On failure the writer is unusable.
    pub fn close(&mut self, claim: &CloseClaim) -> Result<ClosedIndex, SessionError> {
        let Some(entries) = self.entries.take() else {
            return Err(self.closed("close"));
        };
        match entries {
            Entries::Dynamic { builder, end } => self.close_dynamic(builder, end, claim),
            Entries::Fixed {
                stale_end: Some(start),
                ..
            } => Err(SessionError::StaleEnd {
                name: self.name.clone(),
                start,
            }),
            Entries::Fixed {
                builder,
                announced_size,
                incremental,
                ..
            } => self.close_fixed(*builder, announced_size, incremental, claim),
        }
    }

    fn close_dynamic(
        &self,
        builder: DynamicIndexBuilder,
        end: u64,
        claim: &CloseClaim,
    ) -> Result<ClosedIndex, SessionError> {
        if self.appended != claim.chunk_count {
            return Err(self.chunk_count(self.appended, claim.chunk_count));
        }
        if end != claim.size {
            return Err(self.file_size(end, claim.size));
        }
        let (bytes, csum, _) = builder.finish()?;
        self.closed_index(bytes, csum, end, claim)
    }

    fn close_fixed(
        &self,
        builder: FixedIndexBuilder,
        announced_size: Option<u64>,
        incremental: bool,
        claim: &CloseClaim,
    ) -> Result<ClosedIndex, SessionError> {
        if self.appended != claim.chunk_count {
            let name = self.name.clone();
            return Err(SessionError::AppendCount {
                name,
                expected: self.appended,
                got: claim.chunk_count,
            });
        }
        if !incremental {
            if let Some(size) = announced_size {
                let slots = size.div_ceil(FIXED_CHUNK_SIZE);
                if slots != claim.chunk_count {
                    return Err(self.chunk_count(slots, claim.chunk_count));
                }
                if size != claim.size {
                    return Err(self.file_size(size, claim.size));
                }
            } else if claim.chunk_count == 0 {
                return Err(SessionError::Index(
                    "fidx file must have at least one chunk".to_owned(),
                ));
            }
        }
        let (bytes, csum, size) = builder.finish()?;
        if !incremental && announced_size.is_none() {
            let slots = size.div_ceil(FIXED_CHUNK_SIZE);
            if slots != claim.chunk_count {
                return Err(self.chunk_count(slots, claim.chunk_count));
            }
            if size != claim.size {
                return Err(self.file_size(size, claim.size));
            }
        }
        self.closed_index(bytes, csum, size, claim)
    }

    fn closed_index(
        &self,
        bytes: Vec<u8>,
        csum: Digest,
        size: u64,
        claim: &CloseClaim,
    ) -> Result<ClosedIndex, SessionError> {
        if csum != claim.csum {
            return Err(SessionError::Checksum {
                kind: self.kind,
                name: self.name.clone(),
            });
        }
        let mut uuid = [0; 16];
        if let Some(header) = bytes.get(8..24) {
            uuid.copy_from_slice(header);
        }
        let log = self
            .statistics
            .log_lines(&self.name, &uuid, &csum, size, claim.chunk_count);
        Ok(ClosedIndex {
            name: self.name.clone(),
            bytes,
            csum,
            size,
            content: self.content,
            log,
            statistics: self.statistics,
        })
    }

    fn chunk_count(&self, expected: u64, got: u64) -> SessionError {
        SessionError::ChunkCount {
            kind: self.kind,
            name: self.name.clone(),
            expected,
            got,
        }
    }

    fn file_size(&self, expected: u64, got: u64) -> SessionError {
        SessionError::FileSize {
            kind: self.kind,
            name: self.name.clone(),
            expected,
            got,
        }
    }
}

/// The entries of `previous` for an image of another size that has as many chunks.
fn resized(previous: &FixedIndex, size: u64) -> Result<FixedIndexBuilder, SessionError> {
    let mut builder = FixedIndexBuilder::new(Some(size), FIXED_CHUNK_SIZE)?;
    for position in 0..previous.chunk_count() {
        let Some(span) = previous.chunk(position) else {
            break;
        };
        builder.add(
            span.start,
            FIXED_CHUNK_SIZE.min(size.saturating_sub(span.start)),
            &span.digest,
        )?;
    }
    Ok(builder)
}

/// `index` is the position of an entry about to be written.
fn check_entries(kind: IndexKind, name: &str, index: u64, limit: u64) -> Result<(), SessionError> {
    if index < limit {
        return Ok(());
    }
    Err(SessionError::TooManyEntries {
        kind,
        name: name.to_owned(),
        limit,
    })
}
