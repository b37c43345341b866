//! The running totals of an index that is being written: where the next chunk starts, and the checksum over all entries.

use backstop_format::{Digest, DigestBuilder};

use super::IndexKind;

/// Totals of the entries so far.
pub(crate) struct IndexSum {
    kind: IndexKind,
    chunks: u64,
    size: u64,
    checksum: DigestBuilder,
}

impl IndexSum {
    pub fn new(kind: IndexKind) -> Self {
        Self {
            kind,
            chunks: 0,
            size: 0,
            checksum: DigestBuilder::new(),
        }
    }

    /// Counts a chunk; returns its start offset.
    pub fn add(&mut self, digest: &Digest, size: u64) -> u64 {
        let start = self.size;
        self.size += size;
        self.chunks += 1;
        if self.kind == IndexKind::Dynamic {
            self.checksum.update(&self.size.to_le_bytes());
        }
        self.checksum.update(digest.as_bytes());
        start
    }

    /// Number of chunks.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Size of the archive, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The checksum over all entries.
    pub fn finish(self) -> Digest {
        self.checksum.finish()
    }
}
