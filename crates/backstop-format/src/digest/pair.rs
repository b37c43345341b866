//! Two SHA-256 digests at a time on one core.
//!
//! The rounds of SHA-256 depend on one another, so that a processor with instructions for them spends half of its time
//! waiting. Two independent messages fill the gaps: together they take little longer than one. Where the processor has no
//! such instructions, the two are computed one after the other. Must never give other digests than [`Digest::of`].

use super::{Digest, DigestBuilder};

/// Computes the digests of two messages side by side, from pieces.
pub struct DigestPair(Method);

enum Method {
    #[cfg(target_arch = "x86_64")]
    SideBySide(x86_64::Pair),
    InTurn([DigestBuilder; 2]),
}

impl Default for DigestPair {
    fn default() -> Self {
        Self::new()
    }
}

impl DigestPair {
    /// Starts with two empty messages.
    pub fn new() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(pair) = x86_64::Pair::new() {
            return Self(Method::SideBySide(pair));
        }
        Self(Method::InTurn(Default::default()))
    }

    /// Appends a piece to each message. Pieces of equal length are fastest; either may be empty.
    pub fn update(&mut self, pieces: [&[u8]; 2]) {
        match &mut self.0 {
            #[cfg(target_arch = "x86_64")]
            Method::SideBySide(pair) => pair.update(pieces),
            Method::InTurn(builders) => {
                for (builder, piece) in builders.iter_mut().zip(pieces) {
                    builder.update(piece);
                }
            }
        }
    }

    /// The digests of everything appended.
    pub fn finish(self) -> [Digest; 2] {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Method::SideBySide(pair) => pair.finish(),
            Method::InTurn(builders) => builders.map(DigestBuilder::finish),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
        _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
        _mm_shuffle_epi32,
    };

    use super::Digest;

    const BLOCK: usize = 64;

    /// FIPS 180-4, 5.3.3.
    const INITIAL: [u32; 8] = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];

    /// FIPS 180-4, 4.2.2, four rounds at a time.
    const ROUNDS: [[u32; 4]; 16] = [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
        [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
        [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
        [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
        [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
        [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
        [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
        [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
        [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ];

    /// Two messages under way. Exists only where the processor has the instructions.
    pub(super) struct Pair {
        states: [[u32; 8]; 2],
        tails: [Tail; 2],
    }

    /// The begun block of a message.
    #[derive(Clone, Copy)]
    struct Tail {
        block: [u8; BLOCK],
        filled: usize,
        /// Bytes of the whole message.
        length: u64,
    }

    impl Tail {
        /// Fills the begun block; gives it when it is full, and what is left of `piece`.
        fn fill<'a>(&mut self, piece: &'a [u8]) -> (Option<[u8; BLOCK]>, &'a [u8]) {
            let room = self.block.get_mut(self.filled..).unwrap_or_default();
            let (now, rest) = piece.split_at(piece.len().min(room.len()));
            room.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            self.filled += now.len();
            if self.filled < BLOCK {
                return (None, rest);
            }
            self.filled = 0;
            (Some(self.block), rest)
        }
    }

    impl Pair {
        pub fn new() -> Option<Self> {
            let able = is_x86_feature_detected!("sha")
                && is_x86_feature_detected!("ssse3")
                && is_x86_feature_detected!("sse4.1");
            able.then_some(Self {
                states: [INITIAL; 2],
                tails: [Tail {
                    block: [0; BLOCK],
                    filled: 0,
                    length: 0,
                }; 2],
            })
        }

        pub fn update(&mut self, pieces: [&[u8]; 2]) {
            let mut whole: [&[[u8; BLOCK]]; 2] = [&[]; 2];
            for lane in 0..2 {
                let mut piece = pieces[lane];
                let tail = &mut self.tails[lane];
                tail.length = tail.length.wrapping_add(piece.len() as u64);
                if tail.filled > 0 {
                    let (block, rest) = tail.fill(piece);
                    piece = rest;
                    if let Some(block) = block {
                        self.compress_one(lane, &[block]);
                    }
                }
                let (blocks, rest) = piece.as_chunks();
                whole[lane] = blocks;
                self.tails[lane].fill(rest);
            }
            let common = whole[0].len().min(whole[1].len());
            let (first, first_rest) = whole[0].split_at(common);
            let (second, second_rest) = whole[1].split_at(common);
            self.compress_both(first, second);
            self.compress_one(0, first_rest);
            self.compress_one(1, second_rest);
        }

        pub fn finish(mut self) -> [Digest; 2] {
            for lane in 0..2 {
                let tail = self.tails[lane];
                let mut end = [[0; BLOCK]; 2];
                let bytes = end.as_flattened_mut();
                let begun = tail.block.iter().take(tail.filled);
                let marked = begun.chain(std::iter::once(&0x80));
                bytes
                    .iter_mut()
                    .zip(marked)
                    .for_each(|(to, from)| *to = *from);
                let blocks = if tail.filled < BLOCK - 8 { 1 } else { 2 };
                let length = tail.length.wrapping_mul(8).to_be_bytes();
                let place = bytes.iter_mut().take(blocks * BLOCK).rev();
                place
                    .zip(length.iter().rev())
                    .for_each(|(to, from)| *to = *from);
                self.compress_one(lane, end.get(..blocks).unwrap_or_default());
            }
            self.states.map(|state| {
                let mut bytes = [0; 32];
                for (to, word) in bytes.chunks_exact_mut(4).zip(state) {
                    to.copy_from_slice(&word.to_be_bytes());
                }
                Digest(bytes)
            })
        }

        fn compress_one(&mut self, lane: usize, blocks: &[[u8; BLOCK]]) {
            let mut states = [self.states[lane]];
            // SAFETY: `new` has found that the processor has the instructions.
            unsafe { compress(&mut states, [blocks]) };
            self.states[lane] = states[0];
        }

        fn compress_both(&mut self, first: &[[u8; BLOCK]], second: &[[u8; BLOCK]]) {
            // SAFETY: `new` has found that the processor has the instructions.
            unsafe { compress(&mut self.states, [first, second]) };
        }
    }

    /// Works the blocks of each lane into its state; all lanes have equally many.
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn compress<const LANES: usize>(
        states: &mut [[u32; 8]; LANES],
        blocks: [&[[u8; BLOCK]]; LANES],
    ) {
        // The instructions want the eight words of a state in this order.
        let mut abef = [vector([0; 4]); LANES];
        let mut cdgh = abef;
        for lane in 0..LANES {
            let [a, b, c, d, e, f, g, h] = states[lane];
            abef[lane] = vector([f, e, b, a]);
            cdgh[lane] = vector([h, g, d, c]);
        }
        let count = blocks.iter().map(|lane| lane.len()).min().unwrap_or(0);
        let mut rest = blocks.map(<[_]>::iter);
        for _ in 0..count {
            let (abef_before, cdgh_before) = (abef, cdgh);
            let mut words = [[vector([0; 4]); 4]; LANES];
            for (words, blocks) in words.iter_mut().zip(&mut rest) {
                *words = blocks.next().map_or(*words, |block| message(block));
            }
            for (round, constants) in ROUNDS.iter().enumerate() {
                let constants = vector(*constants);
                for lane in 0..LANES {
                    let [w0, w1, w2, w3] = words[lane];
                    let low = _mm_add_epi32(w0, constants);
                    let high = _mm_shuffle_epi32(low, 0x0e);
                    cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], low);
                    abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], high);
                    let next = if round < 12 {
                        let sum =
                            _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8(w3, w2, 4));
                        _mm_sha256msg2_epu32(sum, w3)
                    } else {
                        w0
                    };
                    words[lane] = [w1, w2, w3, next];
                }
            }
            for lane in 0..LANES {
                abef[lane] = _mm_add_epi32(abef[lane], abef_before[lane]);
                cdgh[lane] = _mm_add_epi32(cdgh[lane], cdgh_before[lane]);
            }
        }
        for lane in 0..LANES {
            let [f, e, b, a] = elements(abef[lane]);
            let [h, g, d, c] = elements(cdgh[lane]);
            states[lane] = [a, b, c, d, e, f, g, h];
        }
    }

    /// The sixteen big-endian words of a block.
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn message(block: &[u8; BLOCK]) -> [__m128i; 4] {
        let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let (quarters, _) = block.as_chunks::<16>();
        let mut words = [vector([0; 4]); 4];
        for (word, quarter) in words.iter_mut().zip(quarters) {
            let bits = i128::from_le_bytes(*quarter);
            let loaded = _mm_set_epi64x((bits >> 64) as i64, bits as i64);
            *word = _mm_shuffle_epi8(loaded, swap);
        }
        words
    }

    /// Four words, the first one lowest.
    #[target_feature(enable = "sse4.1")]
    fn vector(words: [u32; 4]) -> __m128i {
        let [w0, w1, w2, w3] = words.map(u32::cast_signed);
        _mm_set_epi32(w3, w2, w1, w0)
    }

    #[target_feature(enable = "sse4.1")]
    fn elements(vector: __m128i) -> [u32; 4] {
        [
            _mm_extract_epi32(vector, 0),
            _mm_extract_epi32(vector, 1),
            _mm_extract_epi32(vector, 2),
            _mm_extract_epi32(vector, 3),
        ]
        .map(i32::cast_unsigned)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn two_at_a_time_give_the_digests_of_each_alone(
            first in prop::collection::vec(any::<u8>(), 0..700),
            second in prop::collection::vec(any::<u8>(), 0..700),
            cuts in prop::collection::vec((0usize..200, 0usize..200), 0..8),
        ) {
            prop_assert_eq!(Digest::of_two([&first, &second]), [Digest::of(&first), Digest::of(&second)]);
            let mut pair = DigestPair::new();
            let mut rest = [first.as_slice(), second.as_slice()];
            for (a, b) in cuts {
                let (now_a, later_a) = rest[0].split_at(a.min(rest[0].len()));
                let (now_b, later_b) = rest[1].split_at(b.min(rest[1].len()));
                pair.update([now_a, now_b]);
                rest = [later_a, later_b];
            }
            pair.update(rest);
            prop_assert_eq!(pair.finish(), [Digest::of(&first), Digest::of(&second)]);
        }
    }

    #[test]
    fn all_lengths_around_the_block_size_are_padded_rightly() {
        let data: Vec<u8> = (0..=255).cycle().take(300).collect();
        for length in 0..data.len() {
            let (a, b) = (&data[..length], &data[length..]);
            assert_eq!(
                Digest::of_two([a, b]),
                [Digest::of(a), Digest::of(b)],
                "{length}"
            );
        }
    }

    #[test]
    fn without_the_instructions_the_digests_are_the_same() {
        let mut pair = DigestPair(Method::InTurn(Default::default()));
        pair.update([b"hello ", b"x"]);
        pair.update([b"pbs", b""]);
        assert_eq!(pair.finish(), [Digest::of(b"hello pbs"), Digest::of(b"x")]);
    }
}
