//! Reading blobs: decrypt, decompress within a bound, check.

use std::cell::RefCell;
use std::io::Read;

use super::{DataBlob, MAX_CHUNK_SIZE};
use crate::crypt::CryptKey;
use crate::digest::{Digest, DigestBuilder};
use crate::error::{FormatError, Result};

/// Piece in which a plain chunk is checked: small enough for the processor's cache.
const CHECK_PIECE: usize = 128 << 10;

thread_local! {
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

pub(super) fn decode(blob: &DataBlob, key: Option<&CryptKey>, limit: usize) -> Result<Vec<u8>> {
    let stored = match blob.seal() {
        None => None,
        Some(seal) => {
            let key = key.ok_or(FormatError::KeyNeeded)?;
            if !blob.kind.is_compressed() && blob.payload().len() > limit {
                return Err(too_large(limit));
            }
            let mut plain = vec![0; blob.payload().len()];
            key.decrypt(&seal, blob.payload(), &mut plain)?;
            Some(plain)
        }
    };
    if blob.kind.is_compressed() {
        return decompress(stored.as_deref().unwrap_or(blob.payload()), limit);
    }
    match stored {
        Some(plain) => Ok(plain),
        None if blob.payload().len() > limit => Err(too_large(limit)),
        None => Ok(blob.payload().to_vec()),
    }
}

pub(super) fn decode_chunk(
    blob: &DataBlob,
    key: Option<&CryptKey>,
    digest: &Digest,
    size: u64,
) -> Result<Vec<u8>> {
    let plain = decode(blob, key, chunk_limit(size))?;
    check_length(size, plain.len() as u64)?;
    let found = match key {
        Some(key) if blob.is_encrypted() => key.chunk_digest(&plain),
        _ => Digest::of(&plain),
    };
    check_digest(digest, found)?;
    Ok(plain)
}

pub(super) fn verify_plain_chunk(blob: &DataBlob, digest: &Digest, size: u64) -> Result<()> {
    if blob.is_encrypted() {
        return Err(FormatError::KeyNeeded);
    }
    let payload = blob.payload();
    let found = if blob.kind.is_compressed() {
        let mut decoder =
            zstd::stream::read::Decoder::with_buffer(payload).map_err(|error| failed(&error))?;
        let mut builder = DigestBuilder::new();
        let mut piece = vec![0; CHECK_PIECE];
        let mut length = 0u64;
        loop {
            let count = decoder.read(&mut piece).map_err(|error| failed(&error))?;
            if count == 0 {
                break;
            }
            length = length.saturating_add(count as u64);
            if length > size {
                return Err(FormatError::WrongLength {
                    what: "chunk",
                    expected: size,
                    found: length,
                });
            }
            builder.update(piece.get(..count).unwrap_or(&[]));
        }
        check_length(size, length)?;
        builder.finish()
    } else {
        check_length(size, payload.len() as u64)?;
        Digest::of(payload)
    };
    check_digest(digest, found)
}

/// Decompresses at most `limit` bytes. Frames state their length or not; what they state is not believed.
fn decompress(payload: &[u8], limit: usize) -> Result<Vec<u8>> {
    if let Ok(Some(stated)) = zstd::zstd_safe::get_frame_content_size(payload) {
        let stated = usize::try_from(stated).unwrap_or(usize::MAX);
        if stated > limit {
            return Err(too_large(limit));
        }
        if let Some(plain) = decompress_at_once(payload, stated) {
            return Ok(plain);
        }
    }
    // A frame without length, or several frames, or damage: the streaming decoder knows.
    let decoder =
        zstd::stream::read::Decoder::with_buffer(payload).map_err(|error| failed(&error))?;
    let mut plain = Vec::new();
    decoder
        .take(limit as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|error| failed(&error))?;
    if plain.len() > limit {
        Err(too_large(limit))
    } else {
        Ok(plain)
    }
}

fn decompress_at_once(payload: &[u8], length: usize) -> Option<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Decompressor::new().ok();
        }
        let mut plain = Vec::with_capacity(length);
        slot.as_mut()?
            .decompress_to_buffer(payload, &mut plain)
            .ok()?;
        (plain.len() == length).then_some(plain)
    })
}

fn chunk_limit(size: u64) -> usize {
    usize::try_from(size)
        .unwrap_or(usize::MAX)
        .min(MAX_CHUNK_SIZE)
}

fn check_length(expected: u64, found: u64) -> Result<()> {
    if expected == found {
        Ok(())
    } else {
        Err(FormatError::WrongLength {
            what: "chunk",
            expected,
            found,
        })
    }
}

fn check_digest(expected: &Digest, found: Digest) -> Result<()> {
    if *expected == found {
        Ok(())
    } else {
        Err(FormatError::WrongDigest {
            what: "chunk",
            expected: *expected,
            found,
        })
    }
}

fn too_large(limit: usize) -> FormatError {
    FormatError::TooLarge {
        what: "decoded data",
        limit: limit as u64,
    }
}

fn failed(error: &std::io::Error) -> FormatError {
    FormatError::Zstd {
        operation: "decompression",
        reason: error.to_string(),
    }
}
