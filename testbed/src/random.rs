//! A small deterministic generator (SplitMix64), so that a failing test fails again.

/// The generator. Equal seeds give equal streams on every machine.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts a stream.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 when `limit` is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number().checked_rem(limit).unwrap_or(0)
    }

    /// `size` bytes that do not compress.
    pub fn bytes(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size + 8);
        while bytes.len() < size {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(size);
        bytes
    }

    /// `size` bytes of words, which compress about three to one.
    pub fn text(&mut self, size: usize) -> Vec<u8> {
        const WORDS: &[&str] = &[
            "chunk",
            "index",
            "datastore",
            "snapshot",
            "the",
            "of",
            "and",
            "restore",
            "archive",
            "group",
            "owner",
            "a",
            "verify",
            "namespace",
            "blob",
            "to",
            "in",
            "is",
        ];
        let mut bytes = Vec::with_capacity(size + 32);
        while bytes.len() < size {
            let number = self.number();
            let word = WORDS
                .get((number % WORDS.len() as u64) as usize)
                .copied()
                .unwrap_or("word");
            bytes.extend_from_slice(word.as_bytes());
            if number >> 60 == 0 {
                bytes.extend_from_slice(format!(" {}\n", number & 0xFFFF).as_bytes());
            } else {
                bytes.push(b' ');
            }
        }
        bytes.truncate(size);
        bytes
    }
}
