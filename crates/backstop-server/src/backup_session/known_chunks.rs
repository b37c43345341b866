//! The chunks that one backup session may refer to.
//!
//! A chunk becomes known by a completed upload or by fetching an index of the previous snapshot, never by
//! merely existing in the datastore: otherwise a client could read foreign data by guessing digests.
//!
//! Memory: about 48 bytes per chunk; the number of chunks is bounded by what was really uploaded and by
//! the indexes of the previous snapshot.

use std::collections::HashMap;

use backstop_format::Digest;

/// Whether a chunk is stored encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Uploaded as plain (possibly compressed) data.
    Plain,
    /// Uploaded encrypted.
    Encrypted,
    /// Taken from the previous snapshot without looking at the chunk.
    Unseen,
}

/// What the session knows about a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownChunk {
    /// Plain size in bytes, at most 16 MiB.
    pub size: u32,
    /// How it was uploaded.
    pub encryption: Encryption,
}

/// Map from digest to what is known about the chunk.
#[derive(Debug, Default)]
pub struct KnownChunks {
    chunks: HashMap<Digest, KnownChunk>,
}

impl KnownChunks {
    /// Registers a chunk. An upload says more than the previous snapshot does and is never replaced by it.
    pub fn insert(&mut self, digest: Digest, chunk: KnownChunk) {
        if chunk.encryption == Encryption::Unseen {
            self.chunks.entry(digest).or_insert(chunk);
        } else {
            self.chunks.insert(digest, chunk);
        }
    }

    /// What is known about `digest`; `None` if this session may not refer to it.
    pub fn get(&self, digest: &Digest) -> Option<KnownChunk> {
        self.chunks.get(digest).copied()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_an_upload_showed_outweighs_the_previous_snapshot() {
        let mut known = KnownChunks::default();
        let digest = Digest([1; 32]);
        known.insert(
            digest,
            KnownChunk {
                size: 7,
                encryption: Encryption::Plain,
            },
        );
        known.insert(
            digest,
            KnownChunk {
                size: 9,
                encryption: Encryption::Unseen,
            },
        );
        assert_eq!(
            known.get(&digest),
            Some(KnownChunk {
                size: 7,
                encryption: Encryption::Plain
            })
        );
    }

    #[test]
    fn a_chunk_nobody_registered_is_unknown() {
        assert_eq!(KnownChunks::default().get(&Digest([1; 32])), None);
    }
}
