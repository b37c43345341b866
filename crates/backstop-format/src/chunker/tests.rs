//! Promises of the chunker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::digest::Digest;

/// The pseudo-random stream of the test vectors.
pub(super) fn split_mix(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut data = Vec::with_capacity(length + 8);
    while data.len() < length {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        data.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    data.truncate(length);
    data
}

fn lengths(data: &[u8], average: usize, piece: usize) -> Vec<usize> {
    let mut chunker = Chunker::new(average);
    let (mut lengths, mut current) = (vec![], 0);
    for mut rest in data.chunks(piece) {
        while !rest.is_empty() {
            match chunker.scan(rest) {
                Some(length) => {
                    assert!(length > 0 && length <= rest.len());
                    lengths.push(current + length);
                    current = 0;
                    rest = &rest[length..];
                }
                None => {
                    current += rest.len();
                    rest = &[];
                }
            }
        }
    }
    if current > 0 {
        lengths.push(current);
    }
    lengths
}

/// The rule as the format states it, byte by byte.
fn naive_lengths(data: &[u8], average: usize) -> Vec<usize> {
    let (min, max, mask) = (average / 4, average * 4, average as u32 * 2 - 1);
    let (mut lengths, mut start, mut hash) = (vec![], 0, 0u32);
    for (at, byte) in data.iter().enumerate() {
        let count = at - start + 1;
        hash = hash.rotate_left(1) ^ TABLE[usize::from(*byte)];
        if count > 64 {
            hash ^= TABLE[usize::from(data[at - 64])];
            if count >= max || (count >= min && hash & mask >= mask - 2) {
                lengths.push(count);
                start = at + 1;
                hash = 0;
            }
        }
    }
    if start < data.len() {
        lengths.push(data.len() - start);
    }
    lengths
}

#[test]
fn the_table_is_that_of_the_format() {
    let bytes: Vec<u8> = TABLE.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(
        Digest::of(&bytes).to_string(),
        "5b52080d38287da9d2e278466e3e0db7ec98e5e8b226f50612a56fa012b1f660"
    );
}

#[test]
fn published_vectors_are_cut_as_stated() {
    let data = split_mix(1 << 20, 0);
    assert_eq!(
        Digest::of(&data).to_string(),
        "bc9d1d01517351f3e2c02d32495b3bfbcba5ec54e5f1a44b06f51755d0086a01"
    );
    assert_eq!(
        lengths(&data, 65536, data.len()),
        [
            42266, 25239, 63420, 243810, 17007, 154881, 156051, 48851, 121106, 28849, 73243, 19621,
            31246, 22986
        ]
    );
    let data = split_mix(8 << 20, 0);
    assert_eq!(
        lengths(&data, 512 << 10, data.len()),
        [
            391742, 154881, 1262931, 208106, 334612, 630433, 211438, 473409, 1593151, 501971,
            152496, 277607, 331754, 648643, 228898, 986536
        ]
    );
    let data = split_mix(64 << 20, 0);
    assert_eq!(
        lengths(&data, 4 << 20, 1 << 20),
        [
            6524531, 5420603, 1220715, 8483787, 3108787, 2226701, 4298473, 10105674, 1615388,
            1620454, 1513539, 1956545, 2713093, 2734853, 10512778, 1933229, 1119714
        ]
    );
    let counter: Vec<u8> = (0u32..1 << 18).flat_map(u32::to_le_bytes).collect();
    assert_eq!(
        lengths(&counter, 65536, 777),
        [143377, 262144, 262144, 262144, 118767]
    );
    assert_eq!(
        lengths(&vec![0; 40 << 20], 4 << 20, 1 << 20),
        [16777216, 16777216, 8388608]
    );
    assert!(lengths(&[], 4 << 20, 1).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn cuts_do_not_depend_on_the_pieces(seed: u64, length in 1usize..300_000, piece in 1usize..70_000, average in 10u32..14) {
        let data = split_mix(length, seed);
        let whole = naive_lengths(&data, 1 << average);
        prop_assert_eq!(&lengths(&data, 1 << average, length), &whole);
        prop_assert_eq!(&lengths(&data, 1 << average, piece), &whole);
    }

    #[test]
    fn repetitive_data_is_cut_by_the_same_rule(word in proptest::collection::vec(any::<u8>(), 1..100), piece in 1usize..5000) {
        let data: Vec<u8> = word.iter().copied().cycle().take(60_000).collect();
        prop_assert_eq!(lengths(&data, 1024, piece), naive_lengths(&data, 1024));
    }

    #[test]
    fn pieces_of_few_bytes_are_no_exception(seed: u64, pieces in proptest::collection::vec(1usize..130, 1..400)) {
        let data = split_mix(pieces.iter().sum(), seed);
        let mut chunker = Chunker::new(1024);
        let (mut found, mut current, mut at) = (vec![], 0, 0);
        for piece in pieces {
            let mut rest = &data[at..at + piece];
            at += piece;
            while let Some(length) = chunker.scan(rest) {
                found.push(current + length);
                current = 0;
                rest = &rest[length..];
            }
            current += rest.len();
        }
        if current > 0 {
            found.push(current);
        }
        prop_assert_eq!(found, naive_lengths(&data, 1024));
    }
}
