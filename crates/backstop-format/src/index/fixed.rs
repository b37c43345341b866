//! Fixed index (`.fidx`): equal chunks of a disk image; only the last may be short.

use super::{
    ChunkIndex, ChunkSpan, HEADER_SIZE, Identity, check_checksum, field, read_header, too_short,
};
use crate::digest::Digest;
use crate::error::{FormatError, Result};

pub(super) const MAGIC: [u8; 8] = [0x2f, 0x7f, 0x41, 0xed, 0x91, 0xfd, 0x0f, 0xcd];
pub(super) const ENTRY_SIZE: usize = 32;

/// Most slots that an index may have: 256 TiB in chunks of 4 MiB. Bounds the memory of a builder to 2 GiB, of which only
/// what is used becomes real.
pub const MAX_FIXED_SLOTS: u64 = 1 << 26;

/// A parsed `.fidx` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedIndex {
    identity: Identity,
    size: u64,
    chunk_size: u64,
    digests: Vec<Digest>,
    checksum: Digest,
}

impl FixedIndex {
    /// Checks and reads a file.
    ///
    /// # Errors
    /// Wrong magic, length, chunk size or checksum.
    pub fn parse(raw: impl AsRef<[u8]>) -> Result<Self> {
        let raw = raw.as_ref();
        let (identity, stored) = read_header(raw, MAGIC, "fixed index")?;
        let (header, entries) = raw
            .split_first_chunk::<HEADER_SIZE>()
            .ok_or_else(|| too_short(raw))?;
        let size = u64::from_le_bytes(field(header, 64));
        let chunk_size = u64::from_le_bytes(field(header, 72));
        let count = slot_count(size, chunk_size)?;
        let (digests, rest) = entries.as_chunks::<ENTRY_SIZE>();
        if digests.len() as u64 != count || !rest.is_empty() {
            return Err(invalid(format!(
                "{} bytes of entries where {count} digests are expected",
                entries.len()
            )));
        }
        let checksum = Digest::of(entries);
        check_checksum(stored, checksum)?;
        Ok(FixedIndex {
            identity,
            size,
            chunk_size,
            digests: digests.iter().copied().map(Digest).collect(),
            checksum,
        })
    }

    /// Size of all chunks but the last, in bytes.
    pub fn chunk_size(&self) -> u64 {
        self.chunk_size
    }
}

impl ChunkIndex for FixedIndex {
    fn chunk_count(&self) -> usize {
        self.digests.len()
    }
    fn size(&self) -> u64 {
        self.size
    }
    fn digest(&self, position: usize) -> Option<&Digest> {
        self.digests.get(position)
    }
    fn chunk(&self, position: usize) -> Option<ChunkSpan> {
        let digest = *self.digests.get(position)?;
        let start = self.chunk_size.checked_mul(position as u64)?;
        Some(ChunkSpan {
            digest,
            start,
            end: start.saturating_add(self.chunk_size).min(self.size),
        })
    }
    fn locate(&self, offset: u64) -> Option<usize> {
        if offset >= self.size {
            return None;
        }
        usize::try_from(offset / self.chunk_size).ok()
    }
    fn checksum(&self) -> Digest {
        self.checksum
    }
    fn ctime(&self) -> i64 {
        self.identity.ctime
    }
    fn uuid(&self) -> [u8; 16] {
        self.identity.uuid
    }
}

/// Collects the chunks of an image, in any order, and gives the file.
#[derive(Debug)]
pub struct FixedIndexBuilder {
    identity: Identity,
    /// Stated from the start, or fixed by the first short chunk.
    size: Option<u64>,
    /// Whether the size was stated from the start.
    sized: bool,
    chunk_size: u64,
    slots: Vec<[u8; ENTRY_SIZE]>,
    /// End of the farthest chunk.
    end: u64,
}

impl FixedIndexBuilder {
    /// For an image of `size` bytes, or of a size that its last chunk will tell.
    ///
    /// # Errors
    /// `chunk_size` is no power of two, `size` is zero, or there are more than [`MAX_FIXED_SLOTS`] chunks.
    pub fn new(size: Option<u64>, chunk_size: u64) -> Result<Self> {
        let count = match size {
            Some(size) => slot_count(size, chunk_size)?,
            None => slot_count(chunk_size, chunk_size).map(|_| 0)?,
        };
        let count = usize::try_from(count)
            .map_err(|_| invalid("too many chunks for this machine".into()))?;
        // All-zero memory comes from the system untouched, so that a large image costs nothing until it is filled.
        let slots = vec![[0; ENTRY_SIZE]; count];
        Ok(FixedIndexBuilder {
            identity: Identity::new(),
            size,
            sized: size.is_some(),
            chunk_size,
            slots,
            end: 0,
        })
    }

    /// For an image of which most chunks are those of its previous backup; [`add`](Self::add) replaces the others.
    pub fn from_previous(previous: &FixedIndex) -> Self {
        FixedIndexBuilder {
            identity: Identity::new(),
            size: Some(previous.size),
            sized: true,
            chunk_size: previous.chunk_size,
            slots: previous.digests.iter().map(|digest| digest.0).collect(),
            end: previous.size,
        }
    }

    /// Sets uuid and creation time instead of a random one and the present.
    #[must_use]
    pub fn with_identity(mut self, uuid: [u8; 16], ctime: i64) -> Self {
        self.identity = Identity { uuid, ctime };
        self
    }

    /// Records the chunk at `start`. A later chunk at the same place replaces it.
    ///
    /// # Errors
    /// [`FormatError::ChunkDoesNotFit`]: empty, unaligned, too long, past the end, or short though it is not the last.
    pub fn add(&mut self, start: u64, len: u64, digest: &Digest) -> Result<()> {
        let misfit = |reason: String| Err(FormatError::ChunkDoesNotFit { reason });
        if len == 0 || len > self.chunk_size {
            return misfit(format!(
                "it has {len} bytes, chunks of this index have {}",
                self.chunk_size
            ));
        }
        if !start.is_multiple_of(self.chunk_size) {
            return misfit(format!(
                "offset {start} is not a multiple of {}",
                self.chunk_size
            ));
        }
        let Some(end) = start.checked_add(len) else {
            return misfit(format!("offset {start} is past all ends"));
        };
        match self.size {
            Some(size) if end > size => {
                return misfit(format!("it ends at {end}, the image at {size}"));
            }
            Some(size) if len < self.chunk_size && end != size => {
                return misfit(format!(
                    "it has {len} bytes, but only the last chunk, ending at {size}, may be short"
                ));
            }
            None if len < self.chunk_size && end < self.end => {
                return misfit(format!(
                    "it has {len} bytes, but a chunk after it exists already"
                ));
            }
            _ => {}
        }
        let slot = start / self.chunk_size;
        if slot >= MAX_FIXED_SLOTS {
            return Err(too_many());
        }
        let slot = usize::try_from(slot).map_err(|_| too_many())?;
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, [0; ENTRY_SIZE]);
        }
        if let Some(entry) = self.slots.get_mut(slot) {
            *entry = digest.0;
        }
        self.end = self.end.max(end);
        if self.size.is_none() && len < self.chunk_size {
            self.size = Some(end);
        }
        Ok(())
    }

    /// Number of chunks of the image; grows while the size is unknown.
    pub fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// Size stated at the start, in bytes.
    pub fn stated_size(&self) -> Option<u64> {
        if self.sized { self.size } else { None }
    }

    /// The file, its checksum and the size of the image in bytes.
    ///
    /// # Errors
    /// No chunk was added, or chunks are missing.
    pub fn finish(self) -> Result<(Vec<u8>, Digest, u64)> {
        let size = self.size.unwrap_or(self.end);
        let count = slot_count(size, self.chunk_size)?;
        // No chunk is named by 32 zero bytes, so these mark the places that nothing was recorded for.
        let filled = self
            .slots
            .iter()
            .filter(|slot| **slot != [0; ENTRY_SIZE])
            .count();
        if filled as u64 != count || self.slots.len() as u64 != count {
            return Err(invalid(format!("{filled} of {count} chunks were added")));
        }
        let entries = self.slots.as_flattened();
        let checksum = Digest::of(entries);
        let mut raw = self.identity.header(MAGIC, &checksum);
        raw.reserve_exact(HEADER_SIZE + entries.len() - raw.len());
        raw.extend_from_slice(&size.to_le_bytes());
        raw.extend_from_slice(&self.chunk_size.to_le_bytes());
        raw.resize(HEADER_SIZE, 0);
        raw.extend_from_slice(entries);
        Ok((raw, checksum, size))
    }
}

/// Number of chunks of an image.
pub(super) fn slot_count(size: u64, chunk_size: u64) -> Result<u64> {
    if !chunk_size.is_power_of_two() {
        return Err(invalid(format!(
            "chunk size {chunk_size} is not a power of two"
        )));
    }
    if size == 0 {
        return Err(invalid("the image is empty".into()));
    }
    let count = size.div_ceil(chunk_size);
    if count > MAX_FIXED_SLOTS {
        Err(too_many())
    } else {
        Ok(count)
    }
}

fn too_many() -> FormatError {
    invalid(format!("it would have more than {MAX_FIXED_SLOTS} chunks"))
}

pub(super) fn invalid(reason: String) -> FormatError {
    FormatError::InvalidIndex {
        kind: "fixed",
        reason,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const UUID: [u8; 16] = [
        0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x46, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee,
        0xff,
    ];

    #[test]
    fn the_published_example_is_written() {
        let mut builder = FixedIndexBuilder::new(Some(5 << 20), 4 << 20)
            .unwrap()
            .with_identity(UUID, 1_700_000_000);
        builder
            .add(4 << 20, 1 << 20, &Digest::of(&vec![0; 1 << 20]))
            .unwrap();
        builder
            .add(0, 4 << 20, &Digest::of(&vec![0; 4 << 20]))
            .unwrap();
        let (raw, checksum, size) = builder.finish().unwrap();
        assert_eq!((raw.len(), size), (4160, 5 << 20));
        assert_eq!(
            checksum.to_string(),
            "f8bd3b7fc59d52351f1518fcecab6a686585ff0a707e9da79d717a1ed108ea2a"
        );
        let head: [u8; 32] = [
            0x2f, 0x7f, 0x41, 0xed, 0x91, 0xfd, 0x0f, 0xcd, 0x00, 0x11, 0x22, 0x33, 0x44, 0x55,
            0x46, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x00, 0xf1, 0x53, 0x65, 0,
            0, 0, 0,
        ];
        assert_eq!(raw.get(..32).unwrap(), head);
        assert_eq!(
            raw.get(64..80).unwrap(),
            [0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0]
        );
    }

    proptest! {
        #[test]
        fn what_is_built_is_parsed(
            digests in proptest::collection::vec(any::<[u8; 32]>(), 1..40), last in 1u64..=4096, stated: bool, order: u64,
        ) {
            let size = (digests.len() as u64 - 1) * 4096 + last;
            let mut builder = FixedIndexBuilder::new(stated.then_some(size), 4096).unwrap();
            let mut order: Vec<usize> = (0..digests.len()).map(|i| (i + order as usize % 64) % digests.len()).collect();
            if !stated {
                order.sort_unstable();
            }
            for i in order {
                let len = if i + 1 == digests.len() { last } else { 4096 };
                builder.add(i as u64 * 4096, len, &Digest(digests[i])).unwrap();
            }
            let (raw, checksum, built) = builder.finish().unwrap();
            prop_assert_eq!(built, size);
            let index = FixedIndex::parse(&raw).unwrap();
            prop_assert_eq!(index.checksum(), checksum);
            prop_assert_eq!(index.size(), size);
            for (i, digest) in digests.iter().enumerate() {
                let span = index.chunk(i).unwrap();
                prop_assert_eq!(span.digest.0, *digest);
                prop_assert_eq!(index.locate(span.start), Some(i));
                prop_assert_eq!(index.locate(span.end - 1), Some(i));
            }
            prop_assert_eq!(index.locate(size), None);
            let again = FixedIndexBuilder::from_previous(&index).with_identity(index.uuid(), index.ctime());
            prop_assert_eq!(again.finish().unwrap().0, raw);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(fields in proptest::collection::vec(any::<u64>(), 2), length in 0usize..100) {
            let mut raw = Identity::new().header(MAGIC, &Digest::of(&[]));
            raw.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
            raw.resize(HEADER_SIZE + length, 0);
            let _ = FixedIndex::parse(raw);
        }
    }

    #[test]
    fn a_changed_or_cut_index_is_refused() {
        let mut builder = FixedIndexBuilder::new(Some(8192), 4096).unwrap();
        builder.add(0, 4096, &Digest::of(b"a")).unwrap();
        builder.add(4096, 4096, &Digest::of(b"b")).unwrap();
        let (raw, ..) = builder.finish().unwrap();
        for cut in [0, 7, 4095, 4096, 4097, raw.len() - 1] {
            assert!(FixedIndex::parse(raw.get(..cut).unwrap()).is_err(), "{cut}");
        }
        for at in [0, 40, 64, 72, 4096, raw.len() - 1] {
            let mut raw = raw.clone();
            raw[at] ^= 1;
            assert!(FixedIndex::parse(raw).is_err(), "{at}");
        }
    }

    #[test]
    fn chunks_that_do_not_fit_are_refused() {
        let digest = Digest::of(b"a");
        let mut builder = FixedIndexBuilder::new(Some(10_000), 4096).unwrap();
        for (start, len) in [
            (0, 0),
            (0, 4097),
            (1, 4096),
            (0, 4095),
            (8192, 1807),
            (8192, 4096),
            (12288, 4096),
            (!4095, 4096),
        ] {
            assert!(builder.add(start, len, &digest).is_err(), "{start} {len}");
        }
        assert!(FixedIndexBuilder::new(Some(0), 4096).is_err());
        assert!(FixedIndexBuilder::new(Some(1), 0).is_err());
        assert!(FixedIndexBuilder::new(Some(1), 4097).is_err());
        assert!(FixedIndexBuilder::new(Some(u64::MAX), 4096).is_err());
    }

    #[test]
    fn an_image_of_unknown_size_ends_with_its_short_chunk() {
        let digest = Digest::of(b"a");
        let mut builder = FixedIndexBuilder::new(None, 4096).unwrap();
        builder.add(0, 4096, &digest).unwrap();
        builder.add(4096, 100, &digest).unwrap();
        assert!(builder.add(8192, 4096, &digest).is_err());
        assert!(builder.add(8192, 50, &digest).is_err());
        assert_eq!(builder.finish().unwrap().2, 4196);
        assert!(
            FixedIndexBuilder::new(None, 4096)
                .unwrap()
                .finish()
                .is_err()
        );
    }

    #[test]
    fn an_index_with_missing_chunks_is_not_finished() {
        let mut builder = FixedIndexBuilder::new(Some(8192), 4096).unwrap();
        builder.add(4096, 4096, &Digest::of(b"b")).unwrap();
        builder.add(4096, 4096, &Digest::of(b"c")).unwrap();
        assert!(builder.finish().is_err());
    }
}
