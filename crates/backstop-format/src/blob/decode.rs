//! Reading blobs: decrypt, decompress within a bound, check.

use std::cell::RefCell;
use std::io::Read;

use super::{DataBlob, ExpectedChunk, MAX_CHUNK_SIZE};
use crate::crypt::CryptKey;
use crate::digest::{Digest, DigestBuilder};
use crate::error::{FormatError, Result};

/// Piece in which a plain chunk is checked: small enough for the processor's cache.
const CHECK_PIECE: usize = 128 << 10;

thread_local! {
    /// Compressed data between decryption and decompression.
    static DECRYPTED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

pub(super) fn decode(blob: &DataBlob, key: Option<&CryptKey>, limit: usize) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    if let Some(stored) = blob.plaintext() {
        check_limit(stored.len(), limit)?;
        plain.extend_from_slice(stored);
    } else {
        decode_into(blob, key, limit, &mut plain)?;
    }
    Ok(plain)
}

/// Decodes a payload that is not the plaintext. At most `limit` bytes come out.
fn decode_into(
    blob: &DataBlob,
    key: Option<&CryptKey>,
    limit: usize,
    plain: &mut Vec<u8>,
) -> Result<()> {
    let Some(seal) = blob.seal() else {
        return decompress(blob.payload(), limit, plain);
    };
    let key = key.ok_or(FormatError::KeyNeeded)?;
    let length = blob.payload().len();
    if !blob.kind.is_compressed() {
        check_limit(length, limit)?;
        plain.resize(length, 0);
        return key.decrypt(&seal, blob.payload(), plain);
    }
    DECRYPTED.with_borrow_mut(|compressed| {
        compressed.resize(length, 0);
        key.decrypt(&seal, blob.payload(), compressed)?;
        decompress(compressed, limit, plain)
    })
}

/// The plaintext, not yet compared with the digest.
fn plaintext<'a>(
    blob: &'a DataBlob,
    key: Option<&CryptKey>,
    expected: &ExpectedChunk,
    scratch: &'a mut Vec<u8>,
) -> Result<&'a [u8]> {
    let plain = if let Some(stored) = blob.plaintext() {
        stored
    } else {
        decode_into(blob, key, chunk_limit(expected.size), scratch).map_err(|err| match err {
            FormatError::TooLarge { .. } if expected.size <= MAX_CHUNK_SIZE as u64 => {
                FormatError::WrongLength {
                    what: "chunk",
                    expected: expected.size,
                    found: stated_length(blob).unwrap_or(expected.size.saturating_add(1)),
                }
            }
            other => other,
        })?;
        scratch.as_slice()
    };
    check_length(expected.size, plain.len() as u64)?;
    Ok(plain)
}

/// The length that an unencrypted frame states.
fn stated_length(blob: &DataBlob) -> Option<u64> {
    let readable = blob.kind.is_compressed() && !blob.kind.is_encrypted();
    readable
        .then(|| zstd::zstd_safe::get_frame_content_size(blob.payload()).ok())
        .flatten()
        .flatten()
}

pub(super) fn open_chunk<'a>(
    blob: &'a DataBlob,
    key: Option<&CryptKey>,
    expected: &ExpectedChunk,
    scratch: &'a mut Vec<u8>,
) -> Result<&'a [u8]> {
    let plain = plaintext(blob, key, expected, scratch)?;
    let found = match key {
        Some(key) if blob.is_encrypted() => key.chunk_digest(plain),
        _ => Digest::of(plain),
    };
    check_digest(&expected.digest, found)?;
    Ok(plain)
}

pub(super) fn open_two_chunks<'a>(
    blobs: [&'a DataBlob; 2],
    key: Option<&CryptKey>,
    expected: [&ExpectedChunk; 2],
    scratch: [&'a mut Vec<u8>; 2],
) -> [Result<&'a [u8]>; 2] {
    let [first, second] = scratch;
    let plain = [
        plaintext(blobs[0], key, expected[0], first),
        plaintext(blobs[1], key, expected[1], second),
    ];
    let pieces = [0, 1].map(|at| plain[at].as_ref().map_or(&[][..], |plain| plain));
    let found = match (key, blobs.map(DataBlob::is_encrypted)) {
        (Some(key), [true, true]) => key.two_chunk_digests(pieces),
        (Some(key), [true, false]) => [key.chunk_digest(pieces[0]), Digest::of(pieces[1])],
        (Some(key), [false, true]) => [Digest::of(pieces[0]), key.chunk_digest(pieces[1])],
        _ => Digest::of_two(pieces),
    };
    let [one, two] = plain;
    [
        one.and_then(|plain| check_digest(&expected[0].digest, found[0]).map(|()| plain)),
        two.and_then(|plain| check_digest(&expected[1].digest, found[1]).map(|()| plain)),
    ]
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
fn decompress(payload: &[u8], limit: usize, plain: &mut Vec<u8>) -> Result<()> {
    plain.clear();
    if let Ok(Some(stated)) = zstd::zstd_safe::get_frame_content_size(payload) {
        let stated = usize::try_from(stated).unwrap_or(usize::MAX);
        check_limit(stated, limit)?;
        if decompress_at_once(payload, stated, plain) {
            return Ok(());
        }
        plain.clear();
    }
    // A frame without length, or several frames, or damage: the streaming decoder knows.
    let decoder =
        zstd::stream::read::Decoder::with_buffer(payload).map_err(|error| failed(&error))?;
    decoder
        .take(limit as u64 + 1)
        .read_to_end(plain)
        .map_err(|error| failed(&error))?;
    check_limit(plain.len(), limit)
}

/// Whether `plain` now holds the `length` bytes that the frame states.
fn decompress_at_once(payload: &[u8], length: usize, plain: &mut Vec<u8>) -> bool {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Decompressor::new().ok();
        }
        plain.reserve_exact(length);
        slot.as_mut().is_some_and(|decompressor| {
            decompressor.decompress_to_buffer(payload, plain).is_ok() && plain.len() == length
        })
    })
}

fn check_limit(length: usize, limit: usize) -> Result<()> {
    if length > limit {
        return Err(FormatError::TooLarge {
            what: "decoded data",
            limit: limit as u64,
        });
    }
    Ok(())
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

fn failed(error: &std::io::Error) -> FormatError {
    FormatError::Zstd {
        operation: "decompression",
        reason: error.to_string(),
    }
}
