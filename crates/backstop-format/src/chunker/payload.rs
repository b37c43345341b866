//! Chunking of payload streams: file contents one after another, where a cut at the start of a file lets the next backup
//! re-use that file's chunks.

use std::collections::VecDeque;

use super::Chunker;

/// Like [`Chunker`], but also cuts at suggested offsets where the size of the chunk allows it, and at forced offsets always.
///
/// Offsets count from the start of the stream. Each must be announced before the byte that it points at is scanned.
/// The cuts do not depend on how the stream is handed over in pieces.
pub struct PayloadChunker {
    chunker: Chunker,
    /// Stream offset of the next byte to scan.
    position: u64,
    /// Stream offset of the current chunk's first byte.
    base: u64,
    suggested: VecDeque<u64>,
    forced: VecDeque<u64>,
}

impl PayloadChunker {
    /// For an average chunk size as in [`Chunker::new`].
    pub fn new(average: usize) -> Self {
        PayloadChunker {
            chunker: Chunker::new(average),
            position: 0,
            base: 0,
            suggested: VecDeque::new(),
            forced: VecDeque::new(),
        }
    }

    /// Offset of the next byte to scan.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Announces a good place for a cut: the start of a file. Offsets must not decrease; one that lies behind the scanned
    /// data, or less than the smallest chunk after a cut, is ignored.
    pub fn suggest(&mut self, offset: u64) {
        self.suggested.push_back(offset);
    }

    /// Demands a cut before the byte at `offset`. Returns `false`, and does nothing, when that byte was scanned already or
    /// an earlier demand lies behind it.
    #[must_use]
    pub fn force(&mut self, offset: u64) -> bool {
        if offset < self.position || self.forced.back().is_some_and(|last| offset < *last) {
            return false;
        }
        self.forced.push_back(offset);
        true
    }

    /// Lets the stream offset jump by `size` bytes, which known chunks fill. Call it at a cut: the next byte starts a chunk.
    pub fn inject(&mut self, size: u64) {
        self.position = self.position.saturating_add(size);
        self.base = self.position;
        self.chunker.reset();
    }

    /// As [`Chunker::scan`]. `Some(0)` means that the chunk ended before these bytes.
    pub fn scan(&mut self, data: &[u8]) -> Option<usize> {
        let data_end = self.position.saturating_add(data.len() as u64);
        let forced = self.next_forced();
        let cut = match (self.next_suggested(), forced) {
            (Some(suggested), Some(forced)) => Some(suggested.min(forced)),
            (suggested, forced) => suggested.or(forced),
        };
        // A place beyond this data is for a later piece.
        let cut = cut.filter(|cut| *cut <= data_end);
        let within = match cut.and_then(|cut| usize::try_from(cut - self.position).ok()) {
            Some(length) => data.get(..length).unwrap_or(data),
            None => data,
        };
        let found = match self.chunker.scan(within) {
            Some(length) => Some(length),
            // At the end of this data the next call decides: it may bring the byte that starts the file.
            None if cut.is_some() && (self.position + within.len() as u64) < data_end => {
                Some(within.len())
            }
            None => None,
        };
        self.position += found.unwrap_or(within.len()) as u64;
        if found.is_some() {
            self.base = self.position;
            self.chunker.reset();
        }
        found
    }

    /// The next demanded cut that is not already one.
    fn next_forced(&mut self) -> Option<u64> {
        while self
            .forced
            .front()
            .is_some_and(|offset| *offset <= self.base)
        {
            self.forced.pop_front();
        }
        self.forced.front().copied()
    }

    /// The next suggestion that makes a chunk of allowed size.
    fn next_suggested(&mut self) -> Option<u64> {
        let earliest = self
            .position
            .max(self.base.saturating_add(self.chunker.min_size() as u64));
        while self
            .suggested
            .front()
            .is_some_and(|offset| *offset < earliest)
        {
            self.suggested.pop_front();
        }
        self.suggested.front().copied()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::tests::split_mix;
    use super::*;
    use proptest::prelude::*;

    fn cut(data: &[u8], suggested: &[u64], forced: &[u64], piece: usize) -> Vec<u64> {
        let mut chunker = PayloadChunker::new(65536);
        suggested.iter().for_each(|offset| chunker.suggest(*offset));
        forced
            .iter()
            .for_each(|offset| assert!(chunker.force(*offset)));
        let (mut ends, mut end) = (vec![], 0);
        for piece in data.chunks(piece) {
            let mut rest = piece;
            while !rest.is_empty() {
                match chunker.scan(rest) {
                    Some(length) => {
                        end += length as u64;
                        ends.push(end);
                        rest = &rest[length..];
                    }
                    None => {
                        end += rest.len() as u64;
                        rest = &[];
                    }
                }
                assert_eq!(chunker.position(), end);
            }
        }
        if ends.last() != Some(&end) {
            ends.push(end);
        }
        ends
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn cuts_do_not_depend_on_the_pieces(
            mut suggested in proptest::collection::vec(0u64..1 << 20, 0..40),
            mut forced in proptest::collection::vec(0u64..1 << 20, 0..4), piece in 1usize..300_000,
        ) {
            suggested.sort_unstable();
            forced.sort_unstable();
            let data = split_mix(1 << 20, 0);
            let whole = cut(&data, &suggested, &forced, data.len());
            prop_assert_eq!(&whole, &cut(&data, &suggested, &forced, piece.max(100)));
            for offset in forced.iter().filter(|offset| **offset > 0) {
                prop_assert!(whole.contains(offset));
            }
            let sizes = std::iter::once(whole[0]).chain(whole.windows(2).map(|pair| pair[1] - pair[0]));
            for (size, end) in sizes.zip(&whole) {
                prop_assert!(size <= 4 * 65536);
                prop_assert!(size >= 16384 || *end == data.len() as u64 || forced.contains(end));
            }
        }
    }

    #[test]
    fn a_chunk_ends_where_a_file_starts() {
        let ends = cut(
            &split_mix(1 << 20, 0),
            &[16, 20000, 21000, 100_000, 140_000, 600_000, 700_000],
            &[],
            4096,
        );
        for file in [20000, 100_000, 600_000, 700_000] {
            assert!(ends.contains(&file), "{file} in {ends:?}");
        }
        // Too near to the cut before them: a file start, or a cut that the content made.
        assert!([16, 21000, 140_000].iter().all(|file| !ends.contains(file)));
    }

    #[test]
    fn without_announcements_the_cuts_are_the_plain_ones() {
        let data = split_mix(1 << 20, 0);
        let mut plain = Chunker::new(65536);
        let mut ends = vec![];
        let mut end = 0;
        while let Some(length) = plain.scan(&data[end..]) {
            end += length;
            ends.push(end as u64);
        }
        ends.push(data.len() as u64);
        assert_eq!(cut(&data, &[], &[], 1000), ends);
    }

    #[test]
    fn injected_chunks_move_the_offsets() {
        let mut chunker = PayloadChunker::new(65536);
        assert!(chunker.force(100));
        assert_eq!(chunker.scan(&[7; 300]), Some(100));
        chunker.inject(1 << 30);
        assert_eq!(chunker.position(), 100 + (1 << 30));
        assert!(!chunker.force(200), "a place behind the stream is refused");
        assert_eq!(chunker.scan(&[7; 200]), None);
        assert!(chunker.force(chunker.position()));
        assert_eq!(chunker.scan(&[7; 10]), Some(0));
        assert_eq!(chunker.scan(&[7; 10]), None);
    }
}
