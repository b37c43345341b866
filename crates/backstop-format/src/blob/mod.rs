//! Data blobs: the envelope around every chunk and every `.blob` file. See `docs/formats/blobs.md`.
//!
//! A blob is a magic number that names its kind, a CRC-32 over the payload and the payload: plain or compressed, then
//! perhaps encrypted. Nothing here trusts a length or a digest that it did not compute itself.

mod decode;
mod encode;

pub use encode::BlobEncoder;

use crate::crypt::{CryptKey, Seal};
use crate::digest::Digest;
use crate::error::{FormatError, Result};

/// Largest plaintext of a chunk, in bytes.
pub const MAX_CHUNK_SIZE: usize = 16 << 20;
/// Largest plaintext of any blob, in bytes.
pub const MAX_BLOB_SIZE: usize = 128 << 20;
/// Largest encoded chunk, in bytes: an incompressible, encrypted one.
pub const MAX_ENCODED_CHUNK_SIZE: usize = MAX_CHUNK_SIZE + ENCRYPTED_HEADER_SIZE;
/// Header of unencrypted blobs: magic and CRC, in bytes. Also the size of the smallest blob.
pub const HEADER_SIZE: usize = 12;
/// Header of encrypted blobs: magic, CRC, IV and tag, in bytes.
pub const ENCRYPTED_HEADER_SIZE: usize = 44;

const MAGIC_PLAIN: [u8; 8] = [0x42, 0xab, 0x38, 0x07, 0xbe, 0x83, 0x70, 0xa1];
const MAGIC_ZSTD: [u8; 8] = [0x31, 0xb9, 0x58, 0x42, 0x6f, 0xb6, 0xa3, 0x7f];
const MAGIC_ENCRYPTED: [u8; 8] = [0x7b, 0x67, 0x85, 0xbe, 0x22, 0x2d, 0x4c, 0xf0];
const MAGIC_ENCRYPTED_ZSTD: [u8; 8] = [0xe6, 0x59, 0x1b, 0xbf, 0x0b, 0xbf, 0xd8, 0x0b];

/// How the payload of a blob is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobKind {
    /// As it is.
    Plain,
    /// One zstd frame.
    Zstd,
    /// Encrypted with AES-256-GCM.
    Encrypted,
    /// Compressed, then encrypted.
    EncryptedZstd,
}

impl BlobKind {
    /// The kind that a magic number names.
    pub fn from_magic(magic: &[u8; 8]) -> Option<Self> {
        match *magic {
            MAGIC_PLAIN => Some(BlobKind::Plain),
            MAGIC_ZSTD => Some(BlobKind::Zstd),
            MAGIC_ENCRYPTED => Some(BlobKind::Encrypted),
            MAGIC_ENCRYPTED_ZSTD => Some(BlobKind::EncryptedZstd),
            _ => None,
        }
    }

    /// The first eight bytes of blobs of this kind.
    pub fn magic(self) -> [u8; 8] {
        match self {
            BlobKind::Plain => MAGIC_PLAIN,
            BlobKind::Zstd => MAGIC_ZSTD,
            BlobKind::Encrypted => MAGIC_ENCRYPTED,
            BlobKind::EncryptedZstd => MAGIC_ENCRYPTED_ZSTD,
        }
    }

    /// Whether a key is needed to read the payload.
    pub fn is_encrypted(self) -> bool {
        matches!(self, BlobKind::Encrypted | BlobKind::EncryptedZstd)
    }

    /// Whether the payload is compressed.
    pub fn is_compressed(self) -> bool {
        matches!(self, BlobKind::Zstd | BlobKind::EncryptedZstd)
    }

    /// Bytes before the payload.
    pub fn header_size(self) -> usize {
        if self.is_encrypted() {
            ENCRYPTED_HEADER_SIZE
        } else {
            HEADER_SIZE
        }
    }
}

/// What a chunk must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedChunk {
    /// Its name.
    pub digest: Digest,
    /// Length of its plaintext, in bytes.
    pub size: u64,
}

/// A blob in its encoded form, header included. Its magic number and length are known to be sound; whether its CRC is,
/// depends on how it was made: see [`DataBlob::parse`] and [`DataBlob::load`].
#[derive(Clone, PartialEq, Eq)]
pub struct DataBlob {
    raw: Vec<u8>,
    kind: BlobKind,
}

impl std::fmt::Debug for DataBlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataBlob")
            .field("kind", &self.kind)
            .field("length", &self.raw.len())
            .finish()
    }
}

impl DataBlob {
    /// Encodes `data`; for many blobs, [`BlobEncoder`] is faster.
    ///
    /// # Errors
    /// `data` is larger than [`MAX_BLOB_SIZE`], or the crypto library fails.
    pub fn encode(data: &[u8], key: Option<&CryptKey>, compress: bool) -> Result<Self> {
        let key = key.map(|key| std::sync::Arc::new(key.clone()));
        BlobEncoder::new(key, compress).encode(data)
    }

    /// Accepts encoded bytes whose magic number and length are sound. The CRC is **not** checked: for chunks that a client
    /// sends, whose CRC the receiver replaces by [`refresh_crc`](Self::refresh_crc).
    ///
    /// # Errors
    /// Too few bytes for the header, or an unknown magic number.
    pub fn parse(raw: Vec<u8>) -> Result<Self> {
        let too_short = |needed: usize| FormatError::TooShort {
            what: "data blob",
            length: raw.len() as u64,
            needed: needed as u64,
        };
        if raw.len() < HEADER_SIZE {
            return Err(too_short(HEADER_SIZE));
        }
        let magic = raw
            .first_chunk::<8>()
            .ok_or_else(|| too_short(HEADER_SIZE))?;
        let kind = BlobKind::from_magic(magic).ok_or(FormatError::UnknownMagic {
            what: "data blob",
            found: *magic,
        })?;
        if raw.len() < kind.header_size() {
            return Err(too_short(kind.header_size()));
        }
        Ok(DataBlob { raw, kind })
    }

    /// As [`parse`](Self::parse), and the CRC must be right: for everything that comes from a disk or from a server.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and [`FormatError::WrongCrc`].
    pub fn load(raw: Vec<u8>) -> Result<Self> {
        let blob = Self::parse(raw)?;
        blob.verify_crc()?;
        Ok(blob)
    }

    /// Compares the stored CRC with that of the payload.
    ///
    /// # Errors
    /// [`FormatError::WrongCrc`].
    pub fn verify_crc(&self) -> Result<()> {
        let stored = self
            .raw
            .get(8..12)
            .and_then(|bytes| bytes.first_chunk::<4>())
            .map_or(0, |b| u32::from_le_bytes(*b));
        let computed = crc32fast::hash(self.payload());
        if stored == computed {
            Ok(())
        } else {
            Err(FormatError::WrongCrc { stored, computed })
        }
    }

    /// Writes the CRC of the payload into the header.
    pub fn refresh_crc(&mut self) {
        let crc = crc32fast::hash(self.payload());
        if let Some(field) = self.raw.get_mut(8..12) {
            field.copy_from_slice(&crc.to_le_bytes());
        }
    }

    /// How the payload is stored.
    pub fn kind(&self) -> BlobKind {
        self.kind
    }

    /// Whether a key is needed to read it.
    pub fn is_encrypted(&self) -> bool {
        self.kind.is_encrypted()
    }

    /// The encoded bytes, header included.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The encoded bytes, header included.
    pub fn into_raw(self) -> Vec<u8> {
        self.raw
    }

    /// The plaintext of a blob that holds it as it is, neither compressed nor encrypted.
    pub fn plaintext(&self) -> Option<&[u8]> {
        (self.kind == BlobKind::Plain).then(|| self.payload())
    }

    fn payload(&self) -> &[u8] {
        self.raw.get(self.kind.header_size()..).unwrap_or(&[])
    }

    fn seal(&self) -> Option<Seal> {
        if !self.kind.is_encrypted() {
            return None;
        }
        let iv = *self.raw.get(12..28)?.first_chunk::<16>()?;
        let tag = *self.raw.get(28..44)?.first_chunk::<16>()?;
        Some(Seal { iv, tag })
    }

    fn assemble(kind: BlobKind, seal: Option<Seal>, payload: &[u8]) -> Self {
        let mut raw = Vec::with_capacity(kind.header_size() + payload.len());
        raw.extend_from_slice(&kind.magic());
        raw.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
        if let Some(seal) = seal {
            raw.extend_from_slice(&seal.iv);
            raw.extend_from_slice(&seal.tag);
        }
        raw.extend_from_slice(payload);
        DataBlob { raw, kind }
    }

    /// The plaintext. The CRC is not looked at; `limit` bounds the result, in bytes.
    ///
    /// # Errors
    /// The blob is encrypted and no key was given or the key does not fit; it cannot be decompressed; or it holds more than
    /// `limit` bytes.
    pub fn decode(&self, key: Option<&CryptKey>, limit: usize) -> Result<Vec<u8>> {
        decode::decode(self, key, limit)
    }

    /// The plaintext of a chunk, whose digest and length must be the stated ones.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), and [`FormatError::WrongDigest`], [`FormatError::WrongLength`].
    pub fn decode_chunk(
        &self,
        key: Option<&CryptKey>,
        digest: &Digest,
        size: u64,
    ) -> Result<Vec<u8>> {
        let mut plain = Vec::new();
        let expected = ExpectedChunk {
            digest: *digest,
            size,
        };
        let opened = self.open_chunk(key, &expected, &mut plain)?;
        if self.kind == BlobKind::Plain {
            return Ok(opened.to_vec());
        }
        Ok(plain)
    }

    /// As [`decode_chunk`](Self::decode_chunk), without a new buffer: the plaintext is in `scratch`, whose capacity is used
    /// again, or in the blob itself when it is stored as it is.
    ///
    /// # Errors
    /// As [`decode_chunk`](Self::decode_chunk).
    pub fn open_chunk<'a>(
        &'a self,
        key: Option<&CryptKey>,
        expected: &ExpectedChunk,
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8]> {
        decode::open_chunk(self, key, expected, scratch)
    }

    /// Opens two chunks at a time, which is faster than one after the other. Each has its own outcome.
    pub fn open_two_chunks<'a>(
        blobs: [&'a Self; 2],
        key: Option<&CryptKey>,
        expected: [&ExpectedChunk; 2],
        scratch: [&'a mut Vec<u8>; 2],
    ) -> [Result<&'a [u8]>; 2] {
        decode::open_two_chunks(blobs, key, expected, scratch)
    }

    /// Checks an unencrypted chunk against its name and length, as a server can do it: without keeping the plaintext.
    ///
    /// # Errors
    /// [`FormatError::KeyNeeded`] for an encrypted chunk; it cannot be decompressed; wrong digest or length.
    pub fn verify_plain_chunk(&self, digest: &Digest, size: u64) -> Result<()> {
        decode::verify_plain_chunk(self, digest, size)
    }
}

/// Whether all bytes are zero. Stops early at the first block that is not.
pub fn is_zero(data: &[u8]) -> bool {
    let (blocks, rest) = data.as_chunks::<256>();
    // Folding whole blocks lets the compiler use wide registers; all() over blocks stops early.
    blocks
        .iter()
        .all(|block| block.iter().fold(0, |sum, byte| sum | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests;
