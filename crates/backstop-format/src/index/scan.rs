//! Walking the digests of an index file piece by piece, so that memory does not grow with the archive.

use super::{HEADER_SIZE, check_checksum, dynamic, field, fixed, read_header};
use crate::digest::{Digest, DigestBuilder};
use crate::error::{FormatError, Result};

/// The two kinds of index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IndexKind {
    /// `.fidx`
    Fixed,
    /// `.didx`
    Dynamic,
}

impl IndexKind {
    /// Length of an entry, in bytes.
    pub const fn entry_size(self) -> usize {
        match self {
            IndexKind::Fixed => fixed::ENTRY_SIZE,
            IndexKind::Dynamic => dynamic::ENTRY_SIZE,
        }
    }
}

/// Checks an index as a whole while its entries pass by. What it has told before [`finish`](Self::finish) succeeds may come
/// from a damaged file.
pub struct IndexScanner {
    kind: IndexKind,
    stored: Digest,
    checksum: DigestBuilder,
    entries: u64,
    seen: u64,
    /// Of a dynamic index: where the last chunk that passed by ends. Of a fixed one: the size of the image.
    size: u64,
}

impl IndexScanner {
    /// Starts with the header of a file of `length` bytes.
    ///
    /// # Errors
    /// Wrong magic, length or chunk size.
    pub fn new(kind: IndexKind, header: &[u8; HEADER_SIZE], length: u64) -> Result<Self> {
        let area = length.saturating_sub(HEADER_SIZE as u64);
        let entry_size = kind.entry_size() as u64;
        let (stored, size) = match kind {
            IndexKind::Fixed => {
                let (_, stored) = read_header(header, fixed::MAGIC, "fixed index")?;
                let size = u64::from_le_bytes(field(header, 64));
                let count = fixed::slot_count(size, u64::from_le_bytes(field(header, 72)))?;
                if count.checked_mul(entry_size) != Some(area) {
                    return Err(fixed::invalid(format!(
                        "{area} bytes of entries where {count} digests are expected"
                    )));
                }
                (stored, size)
            }
            IndexKind::Dynamic => {
                let (_, stored) = read_header(header, dynamic::MAGIC, "dynamic index")?;
                if area == 0 || !area.is_multiple_of(entry_size) {
                    return Err(dynamic::invalid(format!(
                        "{area} bytes of entries, not a multiple of {entry_size}"
                    )));
                }
                (stored, 0)
            }
        };
        Ok(IndexScanner {
            kind,
            stored,
            checksum: DigestBuilder::new(),
            entries: area / entry_size,
            seen: 0,
            size,
        })
    }

    /// The checksum of all entries, as the header states it.
    pub fn stated_checksum(&self) -> &Digest {
        &self.stored
    }

    /// Number of entries.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Size of a fixed index's image in bytes; of a dynamic index, that of the part that has passed by.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next entries, a multiple of [`IndexKind::entry_size`] bytes, and names their digests in order.
    ///
    /// # Errors
    /// The offsets of a dynamic index do not grow, or there are more entries than the file's length allows.
    pub fn scan(&mut self, records: &[u8], mut visit: impl FnMut(&Digest)) -> Result<()> {
        self.checksum.update(records);
        self.seen += (records.len() / self.kind.entry_size()) as u64;
        match self.kind {
            IndexKind::Fixed => {
                for record in records.as_chunks::<{ fixed::ENTRY_SIZE }>().0 {
                    visit(&Digest(*record));
                }
            }
            IndexKind::Dynamic => {
                for record in records.as_chunks::<{ dynamic::ENTRY_SIZE }>().0 {
                    let (end, digest) = dynamic::parse_entry(record);
                    if end <= self.size {
                        return Err(dynamic::invalid(format!(
                            "a chunk ends at {end}, the one before at {}",
                            self.size
                        )));
                    }
                    self.size = end;
                    visit(&digest);
                }
            }
        }
        Ok(())
    }

    /// After the last entry: returns the size of the archive in bytes.
    ///
    /// # Errors
    /// Entries are missing, or the checksum is wrong.
    pub fn finish(self) -> Result<u64> {
        if self.seen != self.entries {
            return Err(FormatError::WrongLength {
                what: "index",
                expected: self.entries * self.kind.entry_size() as u64,
                found: self.seen * self.kind.entry_size() as u64,
            });
        }
        check_checksum(self.stored, self.checksum.finish())?;
        Ok(self.size)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::{
        ChunkIndex, DynamicIndex, DynamicIndexBuilder, FixedIndex, FixedIndexBuilder,
    };
    use super::*;
    use proptest::prelude::*;

    /// Scans a file in pieces of so many entries.
    fn scan(kind: IndexKind, raw: &[u8], piece: usize) -> Result<(Vec<Digest>, u64)> {
        let Some((header, entries)) = raw.split_first_chunk::<HEADER_SIZE>() else {
            return Err(super::super::too_short(raw));
        };
        let mut scanner = IndexScanner::new(kind, header, raw.len() as u64)?;
        let mut digests = vec![];
        for records in entries.chunks(piece * kind.entry_size()) {
            scanner.scan(records, |digest| digests.push(*digest))?;
        }
        Ok((digests, scanner.finish()?))
    }

    fn dynamic(lengths: &[u64]) -> Vec<u8> {
        let mut builder = DynamicIndexBuilder::new();
        for length in lengths {
            builder
                .append(*length, &Digest::of(&length.to_le_bytes()))
                .unwrap();
        }
        builder.finish().unwrap().0
    }

    fn fixed(count: u64) -> Vec<u8> {
        let mut builder = FixedIndexBuilder::new(Some(count * 4096 - 1), 4096).unwrap();
        for slot in 0..count {
            let length = if slot + 1 == count { 4095 } else { 4096 };
            builder
                .add(slot * 4096, length, &Digest::of(&slot.to_le_bytes()))
                .unwrap();
        }
        builder.finish().unwrap().0
    }

    fn agree(kind: IndexKind, raw: &[u8], piece: usize) {
        let scanned = scan(kind, raw, piece);
        let parsed: Result<Box<dyn ChunkIndex>> = match kind {
            IndexKind::Fixed => FixedIndex::parse(raw).map(|index| Box::new(index) as _),
            IndexKind::Dynamic => DynamicIndex::parse(raw).map(|index| Box::new(index) as _),
        };
        match (scanned, parsed) {
            (Ok((digests, size)), Ok(index)) => {
                let all: Vec<Digest> = (0..index.chunk_count())
                    .map(|i| *index.digest(i).unwrap())
                    .collect();
                assert_eq!((digests, size), (all, index.size()));
            }
            (scanned, parsed) => assert!(scanned.is_err() && parsed.is_err()),
        }
    }

    proptest! {
        #[test]
        fn a_scan_says_what_parsing_says(
            lengths in prop::collection::vec(1u64..9_000_000, 1..40),
            piece in 1usize..50,
            damage in prop::option::of((any::<prop::sample::Index>(), 1u8..)),
            cut in prop::option::of(1usize..100),
        ) {
            for (kind, mut raw) in [
                (IndexKind::Dynamic, dynamic(&lengths)),
                (IndexKind::Fixed, fixed(lengths.len() as u64)),
            ] {
                if let Some((at, change)) = &damage {
                    // What the header keeps besides magic, checksum and sizes nobody checks.
                    let at = at.index(raw.len());
                    raw[at] ^= change;
                }
                if let Some(cut) = cut {
                    raw.truncate(raw.len() - cut);
                }
                agree(kind, &raw, piece);
            }
        }
    }
}
