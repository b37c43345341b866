//! The bytes of a datastore and nothing else: blobs, chunker, indexes, manifest, catalog, pxar, key files and encryption.
//!
//! This crate knows no paths, no network and no async code; it works on slices and on the `std::io` traits. It must never
//! panic on bytes that come from outside, and never allocate more than a stated bound because such bytes say so.
//! The formats are described in `docs/formats/`.

pub mod blob;
pub mod catalog;
pub mod chunker;
pub mod continuity;
pub mod crypt;
pub mod digest;
pub mod error;
mod gcm;
pub mod index;
pub mod key_file;
pub mod manifest;
pub mod master_key;
pub mod pxar;
pub mod read_at;
mod scrypt;
pub mod varint;

pub use crypt::{CryptKey, CryptMode};
pub use digest::{Digest, DigestBuilder, DigestPair, Fingerprint};
pub use error::{FormatError, Result};
