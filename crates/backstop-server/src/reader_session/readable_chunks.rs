//! The chunks that one reader session may fetch: those of the indexes that it downloaded, and no others.
//!
//! Otherwise a reader of one group could fetch any chunk of the datastore by its digest. Memory: about 40 bytes per
//! chunk of the indexes of one snapshot.

use std::collections::HashSet;

use backstop_format::Digest;
use backstop_format::index::ChunkIndex;
use parking_lot::RwLock;

/// The set of readable chunks of a session.
#[derive(Debug, Default)]
pub struct ReadableChunks {
    digests: RwLock<HashSet<Digest>>,
}

impl ReadableChunks {
    /// Adds all chunks of an index.
    pub fn add(&self, index: &dyn ChunkIndex) {
        let mut digests = self.digests.write();
        digests.extend(
            (0..index.chunk_count()).filter_map(|position| index.digest(position).copied()),
        );
    }

    /// Whether the session may fetch this chunk.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.digests.read().contains(digest)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use backstop_format::index::{DynamicIndex, DynamicIndexBuilder};

    #[test]
    fn only_chunks_of_downloaded_indexes_are_readable() {
        let mut builder = DynamicIndexBuilder::new();
        builder.append(5, &Digest([1; 32])).unwrap();
        let index = DynamicIndex::parse(builder.finish().unwrap().0).unwrap();
        let readable = ReadableChunks::default();
        assert!(!readable.contains(&Digest([1; 32])));
        readable.add(&index);
        assert!(readable.contains(&Digest([1; 32])));
        assert!(!readable.contains(&Digest([2; 32])));
    }
}
