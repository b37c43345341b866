//! The ways in which bytes of a datastore can be wrong.
//!
//! Errors carry what was found and what was expected, so that the layers above can name the file and the remedy.
//! They never carry key material or passphrases.

use crate::digest::{Digest, Fingerprint};

/// Result of this crate's operations.
pub type Result<T> = std::result::Result<T, FormatError>;

/// Why bytes could not be read or written as the format demands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Fewer bytes than the smallest possible object of this kind has.
    #[error("{what} is too small ({length} bytes, at least {needed} expected)")]
    TooShort {
        /// The kind of object.
        what: &'static str,
        /// Length found, in bytes.
        length: u64,
        /// Smallest possible length, in bytes.
        needed: u64,
    },
    /// The first eight bytes name no known format.
    #[error("{what} starts with the unknown magic number {}", hex(.found))]
    UnknownMagic {
        /// The kind of object that was expected.
        what: &'static str,
        /// The eight bytes found.
        found: [u8; 8],
    },
    /// The stored CRC does not fit the stored bytes: the data was damaged after it was written.
    #[error("data blob has wrong CRC checksum: stored {stored:08x}, computed {computed:08x}")]
    WrongCrc {
        /// The CRC in the header.
        stored: u32,
        /// The CRC of the bytes.
        computed: u32,
    },
    /// A digest or index checksum does not fit the content.
    #[error("{what} has the wrong digest: expected {expected}, got {found}")]
    WrongDigest {
        /// The kind of object.
        what: &'static str,
        /// What the referrer asked for.
        expected: Digest,
        /// What the content gives.
        found: Digest,
    },
    /// The decoded length differs from what the referrer states.
    #[error("{what} has the wrong length: expected {expected} bytes, got {found}")]
    WrongLength {
        /// The kind of object.
        what: &'static str,
        /// Length that the referrer states, in bytes.
        expected: u64,
        /// Length found, in bytes.
        found: u64,
    },
    /// The content is, or would become, larger than the reader is willing to accept.
    #[error("{what} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The kind of object.
        what: &'static str,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The blob is encrypted and no key was given.
    #[error("blob is encrypted; give the key that it was made with")]
    KeyNeeded,
    /// Encrypted content where plain content was demanded, or the reverse.
    #[error("blob is {found}, but its index says it must be {expected}")]
    WrongEncryption {
        /// `"encrypted"` or `"not encrypted"`.
        expected: &'static str,
        /// `"encrypted"` or `"not encrypted"`.
        found: &'static str,
    },
    /// Authenticated decryption failed: wrong key or changed bytes.
    #[error("unable to decrypt: the key does not fit, or the data was changed")]
    Decrypt,
    /// The crypto library refused an operation that should always succeed.
    #[error("crypto library refused: {operation}")]
    Crypto {
        /// What was attempted.
        operation: &'static str,
    },
    /// Compression or decompression failed.
    #[error("{operation} failed: {reason}")]
    Zstd {
        /// `"compression"` or `"decompression"`.
        operation: &'static str,
        /// The text of the compression library.
        reason: String,
    },
    /// A chain of certificates breaks one of its own rules.
    #[error("certificate chain is invalid: {reason}")]
    InvalidChain {
        /// The broken rule.
        reason: String,
    },
    /// An index breaks one of its own rules.
    #[error("{kind} index is invalid: {reason}")]
    InvalidIndex {
        /// `"fixed"` or `"dynamic"`.
        kind: &'static str,
        /// The broken rule.
        reason: String,
    },
    /// A chunk does not fit into the index that is being built.
    #[error("chunk does not fit into the index: {reason}")]
    ChunkDoesNotFit {
        /// The broken rule, with the numbers.
        reason: String,
    },
    /// JSON text is malformed or lacks a field.
    #[error("{what} is not valid: {reason}")]
    InvalidJson {
        /// `"manifest"` or `"key file"`.
        what: &'static str,
        /// The parser's text.
        reason: String,
    },
    /// A value cannot be part of a signed text.
    #[error("manifest cannot be signed: {reason}")]
    NotCanonical {
        /// The offending value.
        reason: &'static str,
    },
    /// The manifest was signed by another key.
    #[error(
        "wrong key - unable to verify signature since manifest's key {manifest} does not match provided key {given}"
    )]
    WrongManifestKey {
        /// Fingerprint recorded in the manifest.
        manifest: Fingerprint,
        /// Fingerprint of the key at hand.
        given: Fingerprint,
    },
    /// The signature does not fit the manifest.
    #[error("wrong signature in manifest: its protected part was changed after it was signed")]
    WrongSignature,
    /// A key file cannot be opened.
    #[error("unable to open encryption key: {reason}")]
    Key {
        /// What is wrong with it.
        reason: String,
    },
    /// The RSA key cannot be used.
    #[error("master key is unusable: {reason}")]
    MasterKey {
        /// What is wrong with it.
        reason: String,
    },
    /// A text is no digest or fingerprint.
    #[error("'{text}' is not {expected}")]
    InvalidHex {
        /// The offending text, cut to a readable length.
        text: String,
        /// What it should be.
        expected: &'static str,
    },
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
