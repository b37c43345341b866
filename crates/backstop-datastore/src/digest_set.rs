//! Sets of digests that many threads fill: exact, and as small as a table of 32-byte keys can be.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};

use backstop_format::Digest;
use parking_lot::Mutex;

/// One for each first byte.
const SHARDS: usize = 256;

/// Hashes digests. They are random already, except that clients choose those of encrypted chunks: so all bytes count, mixed
/// with numbers that nobody knows, and no choice of digests makes a table slow.
#[derive(Clone, Copy)]
pub(crate) struct DigestHash([u64; 2]);

impl Default for DigestHash {
    fn default() -> Self {
        let random = RandomState::new();
        DigestHash([random.hash_one(0), random.hash_one(1) | 1])
    }
}

impl BuildHasher for DigestHash {
    type Hasher = DigestHasher;

    fn build_hasher(&self) -> DigestHasher {
        DigestHasher {
            state: self.0[0],
            factor: self.0[1],
        }
    }
}

pub(crate) struct DigestHasher {
    state: u64,
    factor: u64,
}

impl DigestHasher {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.state ^ word).wrapping_mul(u128::from(self.factor));
        // Both halves, as truncation is meant here.
        self.state = (product as u64) ^ ((product >> 64) as u64);
        self.factor = self.factor.rotate_left(23) | 1;
    }
}

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.state
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.mix(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.mix(u64::from(number));
    }

    /// The lengths of keys, which are all alike.
    fn write_usize(&mut self, _: usize) {}
}

/// A growing set.
pub struct DigestSet(Box<[Mutex<HashSet<Digest, DigestHash>>]>);

impl Default for DigestSet {
    fn default() -> Self {
        Self::new()
    }
}

impl DigestSet {
    /// An empty set.
    pub fn new() -> Self {
        let hash = DigestHash::default();
        DigestSet(
            (0..SHARDS)
                .map(|_| Mutex::new(HashSet::with_hasher(hash)))
                .collect(),
        )
    }

    /// Adds a digest; says whether it is new.
    pub fn insert(&self, digest: &Digest) -> bool {
        let [first, ..] = digest.0;
        self.0
            .get(usize::from(first))
            .is_some_and(|shard| shard.lock().insert(*digest))
    }

    /// Whether it has the digest.
    pub fn contains(&self, digest: &Digest) -> bool {
        let [first, ..] = digest.0;
        self.0
            .get(usize::from(first))
            .is_some_and(|shard| shard.lock().contains(digest))
    }

    /// The finished set; tables become lists one by one, so that memory shrinks.
    pub(crate) fn into_sorted(self) -> SortedDigests {
        let sorted = |shard: Mutex<HashSet<Digest, DigestHash>>| {
            let mut list: Box<[Digest]> = shard.into_inner().into_iter().collect();
            list.sort_unstable();
            list
        };
        SortedDigests(self.0.into_iter().map(sorted).collect())
    }
}

/// A finished set.
pub(crate) struct SortedDigests(Vec<Box<[Digest]>>);

impl SortedDigests {
    /// Number of digests.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|shard| shard.len()).sum()
    }

    /// The digests that begin with these two bytes, in order.
    pub(crate) fn with_prefix(&self, prefix: u16) -> &[Digest] {
        let [first, second] = prefix.to_be_bytes();
        let shard = self
            .0
            .get(usize::from(first))
            .map_or(&[][..], |shard| shard);
        let start = shard.partition_point(|digest| digest.0[1] < second);
        let end = shard.partition_point(|digest| digest.0[1] <= second);
        shard.get(start..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_inserted_is_found_under_its_prefix_and_nothing_else(
            digests in prop::collection::vec((any::<[u8; 2]>(), any::<u8>()), 0..200)
        ) {
            let set = DigestSet::new();
            let mut model = BTreeSet::new();
            for (prefix, last) in digests {
                let mut digest = Digest([7; 32]);
                digest.0[..2].copy_from_slice(&prefix);
                digest.0[31] = last;
                assert_eq!(set.insert(&digest), model.insert(digest));
            }
            let sorted = set.into_sorted();
            assert_eq!(sorted.len(), model.len());
            let all: Vec<Digest> = (0..=u16::MAX)
                .flat_map(|prefix| sorted.with_prefix(prefix).iter().copied())
                .collect();
            assert_eq!(all, model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn digests_that_differ_in_one_byte_hash_differently() {
        let hash = DigestHash::default();
        let hashes: BTreeSet<u64> = (0..32)
            .flat_map(|at| (1..=255u8).map(move |value| (at, value)))
            .map(|(at, value)| {
                let mut digest = Digest([0; 32]);
                digest.0[at] = value;
                hash.hash_one(digest)
            })
            .collect();
        assert_eq!(hashes.len(), 32 * 255);
    }
}
