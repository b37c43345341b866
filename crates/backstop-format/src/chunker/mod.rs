//! Content-defined chunking: where a stream is cut depends on its content alone, so that equal stretches of data give
//! equal chunks wherever they lie. See `docs/formats/chunking.md`.
//!
//! The cuts are part of the format: a chunker that cuts elsewhere deduplicates with nothing that exists. They must never
//! depend on how the stream is handed over in pieces.

mod payload;
mod table;

pub use payload::PayloadChunker;

use table::TABLE;

/// Average chunk size of archives and images, in bytes.
pub const DEFAULT_CHUNK_SIZE: usize = 4 << 20;

/// Bytes that the rolling hash looks back on.
const WINDOW: usize = 64;

/// Finds the cuts of a stream that is handed over piece by piece.
#[derive(Clone)]
pub struct Chunker {
    hash: u32,
    /// Bytes of the current chunk seen so far.
    count: usize,
    /// The last bytes seen; byte number `n` of the chunk lies at `n % WINDOW`.
    window: [u8; WINDOW],
    min: usize,
    max: usize,
    mask: u32,
    threshold: u32,
}

impl Chunker {
    /// For an average chunk size of `average` bytes, which is taken to the next power of two within 1 KiB to 4 MiB. Chunks
    /// have between a quarter of it and four times it.
    pub fn new(average: usize) -> Self {
        let average = average
            .clamp(1 << 10, DEFAULT_CHUNK_SIZE)
            .next_power_of_two();
        // At most 4 MiB, so the mask fits.
        let mask = (average as u32) * 2 - 1;
        Chunker {
            hash: 0,
            count: 0,
            window: [0; WINDOW],
            min: average / 4,
            max: average * 4,
            mask,
            threshold: mask - 2,
        }
    }

    /// Smallest chunk that is cut, in bytes; the last chunk of a stream may be smaller.
    pub fn min_size(&self) -> usize {
        self.min
    }

    /// Largest chunk, in bytes.
    pub fn max_size(&self) -> usize {
        self.max
    }

    /// Forgets the current chunk; the next byte starts a new one.
    pub fn reset(&mut self) {
        self.hash = 0;
        self.count = 0;
    }

    /// Looks at the next bytes of the stream. `Some(n)`: the chunk ends after the first `n` of them, and the caller continues
    /// with the others. `None`: all belong to the chunk, which goes on.
    pub fn scan(&mut self, data: &[u8]) -> Option<usize> {
        let mut position = 0;
        // No cut is possible before `min`, and the hash there depends on the last 64 bytes only: skip those before.
        let skip_end = self.min - WINDOW;
        if self.count < skip_end {
            position = data.len().min(skip_end - self.count);
            self.count += position;
        }
        while self.count < self.min {
            let byte = *data.get(position)?;
            self.hash = self.hash.rotate_left(1) ^ value(byte);
            self.remember(byte);
            position += 1;
            if self.count == self.min && self.is_cut() {
                return self.cut_at(position);
            }
        }
        // The bytes that leave the window lie in earlier data …
        while position < WINDOW {
            let byte = *data.get(position)?;
            let leaving = self.window.get(self.count % WINDOW).copied().unwrap_or(0);
            self.hash = self.hash.rotate_left(1) ^ value(leaving) ^ value(byte);
            self.remember(byte);
            position += 1;
            if self.is_cut() || self.count >= self.max {
                return self.cut_at(position);
            }
        }
        // … and from here on in this data.
        let end = data.len().min(position + (self.max - self.count));
        if let Some(cut) = self.roll(data, position, end) {
            return self.cut_at(cut);
        }
        self.count += end - position;
        if self.count >= self.max {
            return self.cut_at(end);
        }
        self.remember_tail(data);
        None
    }

    /// Moves the window over `data[from..to]`, with `from >= WINDOW`, and gives the position after the first byte that makes a
    /// cut.
    fn roll(&mut self, data: &[u8], mut from: usize, to: usize) -> Option<usize> {
        let mut strides = Strides::default();
        while to - from >= STRIDE * LANES {
            let stretch = data.get(from - WINDOW..from + STRIDE * LANES)?;
            strides.sum(stretch);
            if let Some(offset) = strides.first_cut(self.mask, self.threshold) {
                return Some(from + offset + 1);
            }
            self.hash = strides.last_hash();
            from += STRIDE * LANES;
        }
        let leaving = data.get(from - WINDOW..to - WINDOW)?;
        let entering = data.get(from..to)?;
        let mut hash = self.hash;
        for (offset, (out, new)) in leaving.iter().zip(entering).enumerate() {
            hash = hash.rotate_left(1) ^ (value(*out) ^ value(*new));
            if hash & self.mask >= self.threshold {
                return Some(from + offset + 1);
            }
        }
        self.hash = hash;
        None
    }

    fn is_cut(&self) -> bool {
        self.hash & self.mask >= self.threshold
    }

    fn cut_at(&mut self, position: usize) -> Option<usize> {
        self.reset();
        Some(position)
    }

    fn remember(&mut self, byte: u8) {
        if let Some(place) = self.window.get_mut(self.count % WINDOW) {
            *place = byte;
        }
        self.count += 1;
    }

    /// Keeps the last bytes of a piece for the next one.
    fn remember_tail(&mut self, data: &[u8]) {
        let Some(tail) = data.last_chunk::<WINDOW>() else {
            return;
        };
        let (first, second) = tail.split_at(WINDOW - self.count % WINDOW);
        let (low, high) = self.window.split_at_mut(self.count % WINDOW);
        high.copy_from_slice(first);
        low.copy_from_slice(second);
    }
}

/// Bytes that are looked at in one go, by each of the lanes.
const STRIDE: usize = 1024;
const LANES: usize = 2;

/// The hashes of two neighbouring strides, computed side by side.
///
/// A byte leaves the window after 64 steps, in which the 32-bit hash has come around twice. So the hash of a window is the
/// running hash at its end, with nothing ever leaving, XOR the running hash before its start; where the running hash began
/// does not matter. That costs one look-up per byte instead of two, and two strides fill the time in which one would wait.
struct Strides {
    /// Running hashes, from the start of the window before the stride.
    sums: [[u32; WINDOW + STRIDE]; LANES],
}

impl Default for Strides {
    fn default() -> Self {
        Self {
            sums: [[0; WINDOW + STRIDE]; LANES],
        }
    }
}

impl Strides {
    /// Takes the strides, preceded by the window before them.
    fn sum(&mut self, stretch: &[u8]) {
        let lane = |from: usize| stretch.get(from..)?.first_chunk::<{ WINDOW + STRIDE }>();
        let (Some(first), Some(second)) = (lane(0), lane(STRIDE)) else {
            return;
        };
        let [one, two] = &mut self.sums;
        let mut hashes = [0u32; LANES];
        let sums = one.iter_mut().zip(two.iter_mut());
        for (sums, bytes) in sums.zip(first.iter().zip(second)) {
            hashes[0] = hashes[0].rotate_left(1) ^ value(*bytes.0);
            hashes[1] = hashes[1].rotate_left(1) ^ value(*bytes.1);
            *sums.0 = hashes[0];
            *sums.1 = hashes[1];
        }
    }

    /// Where in the strides the first cut is.
    fn first_cut(&self, mask: u32, threshold: u32) -> Option<usize> {
        // Masks have far less than 31 bits; processors compare signed numbers faster.
        let (mask, threshold) = (mask.cast_signed(), threshold.cast_signed());
        let cuts = |lane: &[u32; WINDOW + STRIDE], at: usize| {
            (lane[at] ^ lane[at + WINDOW]).cast_signed() & mask >= threshold
        };
        for (position, lane) in self.sums.iter().enumerate() {
            // Without a way out of the loop the compiler can look at several places at once.
            let any = (0..STRIDE).fold(0, |any, at| any | i32::from(cuts(lane, at)));
            if any != 0 {
                return (0..STRIDE)
                    .find(|at| cuts(lane, *at))
                    .map(|at| position * STRIDE + at);
            }
        }
        None
    }

    /// The hash of the last window.
    fn last_hash(&self) -> u32 {
        let [.., last] = &self.sums;
        last[STRIDE - 1] ^ last[STRIDE + WINDOW - 1]
    }
}

fn value(byte: u8) -> u32 {
    TABLE[usize::from(byte)]
}

#[cfg(test)]
mod tests;
