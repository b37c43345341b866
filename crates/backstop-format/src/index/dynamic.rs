//! Dynamic index (`.didx`): chunks of varying length, cut where the content says.

use super::{ChunkIndex, ChunkSpan, HEADER_SIZE, Identity, check_checksum, read_header, too_short};
use crate::digest::{Digest, DigestBuilder};
use crate::error::{FormatError, Result};

pub(super) const MAGIC: [u8; 8] = [0x1c, 0x91, 0x4e, 0xa5, 0x19, 0xba, 0xb3, 0xcd];
pub(super) const ENTRY_SIZE: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    end: u64,
    digest: Digest,
}

/// A parsed `.didx` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicIndex {
    identity: Identity,
    entries: Vec<Entry>,
    checksum: Digest,
}

impl DynamicIndex {
    /// Checks and reads a file.
    ///
    /// # Errors
    /// Wrong magic, length, order of offsets or checksum.
    pub fn parse(raw: impl AsRef<[u8]>) -> Result<Self> {
        let raw = raw.as_ref();
        let (identity, stored) = read_header(raw, MAGIC, "dynamic index")?;
        let area = raw.get(HEADER_SIZE..).ok_or_else(|| too_short(raw))?;
        let (records, rest) = area.as_chunks::<ENTRY_SIZE>();
        if !rest.is_empty() || records.is_empty() {
            return Err(invalid(format!(
                "{} bytes of entries, not a multiple of {ENTRY_SIZE}",
                area.len()
            )));
        }
        let mut entries = Vec::with_capacity(records.len());
        let mut previous = 0;
        for record in records {
            let (end, digest) = parse_entry(record);
            if end <= previous {
                return Err(invalid(format!(
                    "chunk {} ends at {end}, the one before at {previous}",
                    entries.len()
                )));
            }
            previous = end;
            entries.push(Entry { end, digest });
        }
        let checksum = Digest::of(area);
        check_checksum(stored, checksum)?;
        Ok(DynamicIndex {
            identity,
            entries,
            checksum,
        })
    }
}

/// The end of a chunk and its digest.
pub(super) fn parse_entry(record: &[u8; ENTRY_SIZE]) -> (u64, Digest) {
    let (end, digest) = record.split_at(8);
    let end = end
        .first_chunk::<8>()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let digest = digest.first_chunk::<32>().copied().unwrap_or_default();
    (end, Digest(digest))
}

impl ChunkIndex for DynamicIndex {
    fn chunk_count(&self) -> usize {
        self.entries.len()
    }
    fn size(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.end)
    }
    fn digest(&self, position: usize) -> Option<&Digest> {
        self.entries.get(position).map(|entry| &entry.digest)
    }
    fn chunk(&self, position: usize) -> Option<ChunkSpan> {
        let entry = self.entries.get(position)?;
        let start = match position.checked_sub(1) {
            Some(previous) => self.entries.get(previous)?.end,
            None => 0,
        };
        Some(ChunkSpan {
            digest: entry.digest,
            start,
            end: entry.end,
        })
    }
    fn locate(&self, offset: u64) -> Option<usize> {
        let position = self.entries.partition_point(|entry| entry.end <= offset);
        (position < self.entries.len()).then_some(position)
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

/// Collects the chunks of an archive in order and gives the file.
pub struct DynamicIndexBuilder {
    identity: Identity,
    area: Vec<u8>,
    end: u64,
    checksum: DigestBuilder,
}

impl Default for DynamicIndexBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl DynamicIndexBuilder {
    /// For a new archive.
    pub fn new() -> Self {
        DynamicIndexBuilder {
            identity: Identity::new(),
            area: Vec::new(),
            end: 0,
            checksum: DigestBuilder::new(),
        }
    }

    /// Sets uuid and creation time instead of a random one and the present.
    #[must_use]
    pub fn with_identity(mut self, uuid: [u8; 16], ctime: i64) -> Self {
        self.identity = Identity { uuid, ctime };
        self
    }

    /// Appends a chunk of `len` bytes and returns the new end of the archive.
    ///
    /// # Errors
    /// [`FormatError::ChunkDoesNotFit`]: the chunk is empty, or the archive becomes longer than 2^64 bytes.
    pub fn append(&mut self, len: u64, digest: &Digest) -> Result<u64> {
        if len == 0 {
            return Err(FormatError::ChunkDoesNotFit {
                reason: "it is empty".into(),
            });
        }
        let end = self
            .end
            .checked_add(len)
            .ok_or_else(|| FormatError::ChunkDoesNotFit {
                reason: "the archive is too long".into(),
            })?;
        let mut record = [0; ENTRY_SIZE];
        let (head, tail) = record.split_at_mut(8);
        head.copy_from_slice(&end.to_le_bytes());
        tail.copy_from_slice(&digest.0);
        self.checksum.update(&record);
        self.area.extend_from_slice(&record);
        self.end = end;
        Ok(end)
    }

    /// End of the last chunk: the size so far, in bytes.
    pub fn size(&self) -> u64 {
        self.end
    }

    /// Number of chunks so far.
    pub fn chunk_count(&self) -> usize {
        self.area.len() / ENTRY_SIZE
    }

    /// The file, its checksum and the size of the archive in bytes.
    ///
    /// # Errors
    /// No chunk was appended.
    pub fn finish(self) -> Result<(Vec<u8>, Digest, u64)> {
        if self.area.is_empty() {
            return Err(invalid("it has no chunks".into()));
        }
        let checksum = self.checksum.finish();
        let mut raw = self.identity.header(MAGIC, &checksum);
        raw.reserve_exact(HEADER_SIZE + self.area.len() - raw.len());
        raw.resize(HEADER_SIZE, 0);
        raw.extend_from_slice(&self.area);
        Ok((raw, checksum, self.end))
    }
}

pub(super) fn invalid(reason: String) -> FormatError {
    FormatError::InvalidIndex {
        kind: "dynamic",
        reason,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_published_example_is_written() {
        let mut builder = DynamicIndexBuilder::new();
        assert_eq!(
            builder
                .append(4 << 20, &Digest::of(&vec![0; 4 << 20]))
                .unwrap(),
            4 << 20
        );
        assert_eq!(
            builder
                .append(1 << 20, &Digest::of(&vec![0; 1 << 20]))
                .unwrap(),
            5 << 20
        );
        let (raw, checksum, size) = builder.finish().unwrap();
        assert_eq!((raw.len(), size), (4176, 5 << 20));
        assert_eq!(
            checksum.to_string(),
            "28a9800581289aba5a7430fbd35ec51395f52d4cf3572f4703ce7461e4897a61"
        );
    }

    proptest! {
        #[test]
        fn what_is_built_is_parsed(chunks in proptest::collection::vec((1u64..1 << 40, any::<[u8; 32]>()), 1..60)) {
            let mut builder = DynamicIndexBuilder::new();
            for (len, digest) in &chunks {
                builder.append(*len, &Digest(*digest)).unwrap();
            }
            prop_assert_eq!(builder.chunk_count(), chunks.len());
            let (raw, checksum, size) = builder.finish().unwrap();
            let index = DynamicIndex::parse(&raw).unwrap();
            prop_assert_eq!((index.checksum(), index.size(), index.chunk_count()), (checksum, size, chunks.len()));
            let mut again = DynamicIndexBuilder::new().with_identity(index.uuid(), index.ctime());
            for (i, (len, digest)) in chunks.iter().enumerate() {
                let span = index.chunk(i).unwrap();
                prop_assert_eq!((span.size(), span.digest.0), (*len, *digest));
                prop_assert_eq!(index.locate(span.start), Some(i));
                prop_assert_eq!(index.locate(span.end - 1), Some(i));
                again.append(span.size(), &span.digest).unwrap();
            }
            prop_assert_eq!(index.locate(size), None);
            prop_assert_eq!(again.finish().unwrap().0, raw);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(area in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut raw = Identity::new().header(MAGIC, &Digest::of(&area));
            raw.resize(HEADER_SIZE, 0);
            raw.extend(area);
            let _ = DynamicIndex::parse(raw);
        }
    }

    #[test]
    fn a_changed_or_cut_index_is_refused() {
        let mut builder = DynamicIndexBuilder::new();
        builder.append(10, &Digest::of(b"a")).unwrap();
        builder.append(10, &Digest::of(b"b")).unwrap();
        let (raw, ..) = builder.finish().unwrap();
        for cut in [0, 7, 4095, 4096, 4097, raw.len() - 40, raw.len() - 1] {
            assert!(
                DynamicIndex::parse(raw.get(..cut).unwrap()).is_err(),
                "{cut}"
            );
        }
        for at in [0, 40, 4096, 4110, raw.len() - 1] {
            let mut raw = raw.clone();
            raw[at] ^= 1;
            assert!(DynamicIndex::parse(raw).is_err(), "{at}");
        }
    }

    #[test]
    fn offsets_that_do_not_increase_are_refused() {
        for ends in [[10u64, 10], [10, 5], [0, 5]] {
            let area: Vec<u8> = ends
                .iter()
                .flat_map(|end| end.to_le_bytes().into_iter().chain([1; 32]))
                .collect();
            let mut raw = Identity::new().header(MAGIC, &Digest::of(&area));
            raw.resize(HEADER_SIZE, 0);
            raw.extend(area);
            assert!(
                matches!(
                    DynamicIndex::parse(raw),
                    Err(FormatError::InvalidIndex { .. })
                ),
                "{ends:?}"
            );
        }
    }

    #[test]
    fn an_empty_archive_has_no_index() {
        assert!(DynamicIndexBuilder::new().finish().is_err());
        assert!(
            DynamicIndexBuilder::new()
                .append(0, &Digest::of(b""))
                .is_err()
        );
    }
}
