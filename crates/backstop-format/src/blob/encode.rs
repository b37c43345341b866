//! Making blobs: probe, compress, encrypt.

use std::sync::Arc;

use super::{BlobKind, DataBlob, MAX_BLOB_SIZE};
use crate::crypt::CryptKey;
use crate::error::{FormatError, Result};

const COMPRESSION_LEVEL: i32 = 1;
/// Data shorter than this is compressed without a probe, in bytes.
const PROBE_FROM: usize = 512 << 10;
const PROBE_PIECES: usize = 4;
const PROBE_PIECE: usize = 16 << 10;

/// Encodes many blobs with one compression context and one set of buffers. Make one per thread.
pub struct BlobEncoder {
    key: Option<Arc<CryptKey>>,
    compressor: Option<zstd::bulk::Compressor<'static>>,
    compressed: Vec<u8>,
    encrypted: Vec<u8>,
}

impl BlobEncoder {
    /// Encrypts when a key is given; compresses, when asked to, whatever becomes smaller by it.
    pub fn new(key: Option<Arc<CryptKey>>, compress: bool) -> Self {
        // Without a context (out of memory) blobs are stored uncompressed, which every reader understands.
        let compressor = compress
            .then(|| zstd::bulk::Compressor::new(COMPRESSION_LEVEL).ok())
            .flatten();
        BlobEncoder {
            key,
            compressor,
            compressed: Vec::new(),
            encrypted: Vec::new(),
        }
    }

    /// The key that blobs are encrypted with.
    pub fn key(&self) -> Option<&CryptKey> {
        self.key.as_deref()
    }

    /// Encodes one blob.
    ///
    /// # Errors
    /// `data` is larger than [`MAX_BLOB_SIZE`], or the crypto library fails.
    pub fn encode(&mut self, data: &[u8]) -> Result<DataBlob> {
        if data.len() > MAX_BLOB_SIZE {
            return Err(FormatError::TooLarge {
                what: "data of a blob",
                limit: MAX_BLOB_SIZE as u64,
            });
        }
        let compressed = self.compress(data);
        let payload = if compressed {
            self.compressed.as_slice()
        } else {
            data
        };
        match &self.key {
            None => {
                let kind = if compressed {
                    BlobKind::Zstd
                } else {
                    BlobKind::Plain
                };
                Ok(DataBlob::assemble(kind, None, payload))
            }
            Some(key) => {
                let kind = if compressed {
                    BlobKind::EncryptedZstd
                } else {
                    BlobKind::Encrypted
                };
                self.encrypted.resize(payload.len(), 0);
                let seal = key.encrypt(payload, &mut self.encrypted)?;
                Ok(DataBlob::assemble(kind, Some(seal), &self.encrypted))
            }
        }
    }

    /// Whether `self.compressed` now holds a smaller form of `data`.
    fn compress(&mut self, data: &[u8]) -> bool {
        let Some(compressor) = &mut self.compressor else {
            return false;
        };
        if data.is_empty() || looks_incompressible(compressor, data, &mut self.compressed) {
            return false;
        }
        self.compressed.clear();
        // Room for the plaintext's length only: zstd then gives up on data that would grow.
        self.compressed.reserve(data.len());
        match compressor.compress_to_buffer(data, &mut self.compressed) {
            Ok(length) => length < data.len(),
            Err(_) => false,
        }
    }
}

/// Compresses a few samples. Compressing random data costs as much time as hashing it, for nothing.
fn looks_incompressible(
    compressor: &mut zstd::bulk::Compressor<'static>,
    data: &[u8],
    scratch: &mut Vec<u8>,
) -> bool {
    if data.len() < PROBE_FROM {
        return false;
    }
    let stride = (data.len() - PROBE_PIECE) / (PROBE_PIECES - 1);
    (0..PROBE_PIECES).all(|piece| {
        let Some(sample) = data.get(piece * stride..piece * stride + PROBE_PIECE) else {
            return false;
        };
        scratch.clear();
        scratch.reserve(PROBE_PIECE + 1024);
        match compressor.compress_to_buffer(sample, scratch) {
            // Less than 2 % gained.
            Ok(length) => length > PROBE_PIECE - PROBE_PIECE / 50,
            Err(_) => true,
        }
    })
}
