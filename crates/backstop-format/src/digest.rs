//! SHA-256 digests, which name chunks and check indexes, and the fingerprints by which keys and certificates are known.
//!
//! A [`Digest`] is written as plain hex, a [`Fingerprint`] as hex pairs joined by colons.

mod pair;
mod queue;

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::FormatError;

pub use pair::DigestPair;
pub use queue::PairQueue;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A SHA-256 digest. Text form: 64 lower-case hex digits; upper case is accepted when reading.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The SHA-256 of `data`.
    pub fn of(data: &[u8]) -> Self {
        Self::from_output(digest(&SHA256, data))
    }

    /// The SHA-256 of each, in little more time than that of the longer one alone.
    pub fn of_two(data: [&[u8]; 2]) -> [Self; 2] {
        let mut pair = DigestPair::new();
        pair.update(data);
        pair.finish()
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn from_output(output: aws_lc_rs::digest::Digest) -> Self {
        let mut bytes = [0; 32];
        // SHA-256 output is 32 bytes by definition; the zip keeps this free of panics.
        for (to, from) in bytes.iter_mut().zip(output.as_ref()) {
            *to = *from;
        }
        Digest(bytes)
    }
}

/// Computes a [`Digest`] from pieces.
#[derive(Clone)]
pub struct DigestBuilder(Context);

impl Default for DigestBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl DigestBuilder {
    /// Starts with no bytes.
    pub fn new() -> Self {
        DigestBuilder(Context::new(&SHA256))
    }

    /// Appends bytes.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The digest of everything appended.
    pub fn finish(self) -> Digest {
        Digest::from_output(self.0.finish())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(&self.0) {
            pair.copy_from_slice(&hex_pair(*byte));
        }
        f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        parse_hex(text.bytes())
            .map(Digest)
            .ok_or_else(|| invalid(text, "a digest of 64 hex digits"))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The SHA-256 by which a key or a certificate is known. Text form: 32 lower-case hex pairs joined by colons; colons and
/// case are ignored when reading.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight bytes in text form, as listings show them.
    pub fn short_id(&self) -> String {
        colon_hex(self.0.get(..8).unwrap_or(&[]))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&colon_hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        parse_hex(text.bytes().filter(|byte| *byte != b':'))
            .map(Fingerprint)
            .ok_or_else(|| invalid(text, "a fingerprint of 32 hex pairs"))
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn hex_pair(byte: u8) -> [u8; 2] {
    [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]
}

fn colon_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for (position, byte) in bytes.iter().enumerate() {
        if position > 0 {
            text.push(':');
        }
        text.extend(hex_pair(*byte).map(char::from));
    }
    text
}

/// Exactly 64 hex digits, or nothing.
fn parse_hex(mut digits: impl Iterator<Item = u8>) -> Option<[u8; 32]> {
    let mut bytes = [0u8; 32];
    for byte in &mut bytes {
        let high = char::from(digits.next()?).to_digit(16)?;
        let low = char::from(digits.next()?).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    digits.next().is_none().then_some(bytes)
}

fn invalid(text: &str, expected: &'static str) -> FormatError {
    FormatError::InvalidHex {
        text: text.chars().take(80).collect(),
        expected,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes: [u8; 32]) {
            prop_assert_eq!(Digest(bytes).to_string().parse::<Digest>().unwrap(), Digest(bytes));
            prop_assert_eq!(Fingerprint(bytes).to_string().parse::<Fingerprint>().unwrap(), Fingerprint(bytes));
            let json = serde_json::to_string(&Digest(bytes)).unwrap();
            prop_assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), Digest(bytes));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text: String) {
            let _ = text.parse::<Digest>();
            let _ = text.parse::<Fingerprint>();
        }
    }

    #[test]
    fn texts_of_other_lengths_or_letters_are_refused() {
        for text in [
            "",
            "00",
            &"0".repeat(63),
            &"0".repeat(65),
            &"g".repeat(64),
            &format!("{}:", "0".repeat(64)),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        assert!("0".repeat(66).parse::<Fingerprint>().is_err());
    }

    #[test]
    fn digests_in_pieces_equal_digests_at_once() {
        let mut builder = DigestBuilder::new();
        builder.update(b"hello ");
        builder.update(b"pbs");
        assert_eq!(builder.finish(), Digest::of(b"hello pbs"));
        assert_eq!(
            Digest::of(b"hello pbs").to_string(),
            "0721dd1a4f3844a9f16addb0180e00f8205fd6548af6e017960fd900624d368a"
        );
    }

    #[test]
    fn fingerprints_are_read_whatever_their_colons_and_case() {
        let text = "0E:AB:d446:0b6eb9ca345023dee2b778c790e54a1683b9659c0a57ae199090159b";
        let fingerprint: Fingerprint = text.parse().unwrap();
        assert_eq!(fingerprint.short_id(), "0e:ab:d4:46:0b:6e:b9:ca");
    }
}
