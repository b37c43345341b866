//! Bodies of uploads: receiving them within their announced length, and checking chunks before they are stored.
//!
//! Receiving is asynchronous and bounded by `encoded-size` (at most 16 MiB and 44 bytes). Checking decodes and
//! hashes, so it must run on the blocking pool.

use std::fmt;
use std::sync::Arc;

use backstop_format::blob::DataBlob;
use backstop_format::{Digest, FormatError};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::sync::Semaphore;

use super::error::SessionError;

/// What a client says about a chunk before it sends it.
#[derive(Clone, Copy, Debug)]
pub struct ChunkAnnouncement {
    /// Name of the chunk.
    pub digest: Digest,
    /// Plain size, bytes.
    pub size: u32,
    /// Size of the body, bytes.
    pub encoded_size: usize,
}

/// How a body missed its announced length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthMismatch {
    /// Bytes that arrived, counted no further than the piece that exceeded the announcement.
    pub received: usize,
    /// Whether there were more than announced.
    pub too_many: bool,
}

/// Reads a body of exactly `length` bytes. The outer error is a broken connection.
pub async fn read_exactly<B>(
    mut body: B,
    length: usize,
) -> Result<Result<Vec<u8>, LengthMismatch>, SessionError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: fmt::Display,
{
    let mut content: Vec<u8> = Vec::with_capacity(length);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|err| {
            SessionError::Body(format!("unable to read the uploaded data - {err}"))
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let received = content.len().saturating_add(data.len());
        if received > length {
            return Ok(Err(LengthMismatch {
                received,
                too_many: true,
            }));
        }
        content.extend_from_slice(&data);
    }
    if content.len() < length {
        return Ok(Err(LengthMismatch {
            received: content.len(),
            too_many: false,
        }));
    }
    Ok(Ok(content))
}

/// Reads the body of a chunk upload.
pub async fn read_chunk<B>(body: B, announced: &ChunkAnnouncement) -> Result<Vec<u8>, SessionError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: fmt::Display,
{
    read_exactly(body, announced.encoded_size)
        .await?
        .map_err(|mismatch| match mismatch.too_many {
            true => SessionError::ChunkTooLarge,
            false => SessionError::ChunkTooSmall,
        })
}

/// Reads and checks the body of a blob upload. Blocks only for the checksum of at most 16 MiB of a blob's raw data.
pub async fn read_blob<B>(body: B, encoded_size: usize) -> Result<Vec<u8>, SessionError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: fmt::Display,
{
    read_exactly(body, encoded_size)
        .await?
        .map_err(|mismatch| SessionError::BlobLength {
            announced: encoded_size,
            received: mismatch.received,
        })
}

/// Checks a received chunk and gives it a CRC of our own. A plain chunk must decode to what was announced; an
/// encrypted one cannot be looked into. Decodes and hashes: call it on the blocking pool only.
pub fn check_chunk(raw: Vec<u8>, announced: &ChunkAnnouncement) -> Result<DataBlob, SessionError> {
    let mut blob = DataBlob::parse(raw)?;
    if !blob.is_encrypted() {
        blob.verify_plain_chunk(&announced.digest, u64::from(announced.size))
            .map_err(|err| match err {
                FormatError::WrongLength {
                    expected, found, ..
                } => SessionError::ChunkLength {
                    announced: expected,
                    found,
                },
                FormatError::WrongDigest { .. } => SessionError::ChunkDigest,
                other => SessionError::Format(other),
            })?;
    }
    blob.refresh_crc();
    Ok(blob)
}

/// The gate in front of the blocking pool for chunk checks of all sessions: as many at once as keep processors and
/// disks busy, in the order in which the chunks arrived, so that no session can starve the others.
#[derive(Clone, Debug)]
pub struct ChunkGate {
    permits: Arc<Semaphore>,
}

impl ChunkGate {
    /// A gate for `threads` concurrent checks.
    pub fn new(threads: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(threads.max(1))),
        }
    }

    /// Runs `work` on the blocking pool when its turn has come. Work that has begun runs to its end even if the
    /// caller goes away, so it must own what it needs.
    pub async fn run<T, F>(&self, work: F) -> Result<T, SessionError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, SessionError> + Send + 'static,
    {
        let stopped = || SessionError::Datastore("the server is shutting down".to_owned());
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| stopped())?;
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        })
        .await
        .map_err(|_| stopped())?
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use backstop_format::crypt::CryptKey;
    use http_body_util::Full;

    fn announce(plain: &[u8], blob: &DataBlob) -> ChunkAnnouncement {
        ChunkAnnouncement {
            digest: Digest::of(plain),
            size: u32::try_from(plain.len()).unwrap(),
            encoded_size: blob.raw().len(),
        }
    }

    fn body(bytes: &[u8]) -> Full<Bytes> {
        Full::new(Bytes::copy_from_slice(bytes))
    }

    #[tokio::test]
    async fn a_body_must_have_exactly_the_announced_length() {
        let blob = DataBlob::encode(b"hello", None, false).unwrap();
        let announced = announce(b"hello", &blob);
        assert_eq!(
            read_chunk(body(blob.raw()), &announced).await.unwrap(),
            blob.raw()
        );
        let longer = [blob.raw(), b"x"].concat();
        assert_eq!(
            read_chunk(body(&longer), &announced)
                .await
                .unwrap_err()
                .to_string(),
            "uploaded chunk is larger than announced."
        );
        let shorter = &blob.raw()[..blob.raw().len() - 1];
        assert_eq!(
            read_chunk(body(shorter), &announced)
                .await
                .unwrap_err()
                .to_string(),
            "uploaded chunk has unexpected size."
        );
        assert_eq!(
            read_blob(body(shorter), blob.raw().len())
                .await
                .unwrap_err()
                .to_string(),
            "got blob with unexpected length (17 != 16)"
        );
    }

    #[test]
    fn the_server_computes_its_own_crc() {
        let blob = DataBlob::encode(b"hello", None, false).unwrap();
        let mut raw = blob.raw().to_vec();
        raw[8..12].fill(0);
        let stored = check_chunk(raw, &announce(b"hello", &blob)).unwrap();
        assert_eq!(stored.raw(), blob.raw());
    }

    #[test]
    fn a_plain_chunk_that_is_not_what_its_digest_names_is_refused() {
        for compress in [false, true] {
            let plain = vec![b'a'; 5000];
            let blob = DataBlob::encode(&plain, None, compress).unwrap();
            let announced = announce(&plain, &blob);
            let other = ChunkAnnouncement {
                digest: Digest([1; 32]),
                ..announced
            };
            let err = check_chunk(blob.raw().to_vec(), &other).unwrap_err();
            assert_eq!(err.to_string(), "detected chunk with wrong digest.");
            let longer = ChunkAnnouncement {
                size: 5001,
                ..announced
            };
            let err = check_chunk(blob.raw().to_vec(), &longer).unwrap_err();
            assert_eq!(
                err.to_string(),
                "detected chunk with wrong length (5001 != 5000)"
            );
        }
    }

    #[test]
    fn no_flipped_bit_of_a_plain_chunk_gets_through() {
        let plain: Vec<u8> = (0..200u8).collect();
        for compress in [false, true] {
            let blob = DataBlob::encode(&plain, None, compress).unwrap();
            let announced = announce(&plain, &blob);
            for position in (0..8).chain(12..blob.raw().len()) {
                for bit in 0..8 {
                    let mut raw = blob.raw().to_vec();
                    raw[position] ^= 1 << bit;
                    // a zstd frame has redundant bits: what is stored must decode to what was announced
                    if let Ok(stored) = check_chunk(raw, &announced) {
                        assert_eq!(stored.decode(None, 1000).unwrap(), plain);
                    }
                }
            }
        }
    }

    #[test]
    fn an_encrypted_chunk_passes_with_a_new_crc() {
        let blob = DataBlob::encode(b"hello", Some(&CryptKey::new([7; 32])), false).unwrap();
        let mut raw = blob.raw().to_vec();
        raw[8..12].fill(0);
        let announced = ChunkAnnouncement {
            digest: Digest([9; 32]),
            size: 5,
            encoded_size: raw.len(),
        };
        check_chunk(raw, &announced).unwrap().verify_crc().unwrap();
    }

    #[test]
    fn what_is_no_blob_is_no_chunk() {
        let announced = ChunkAnnouncement {
            digest: Digest([9; 32]),
            size: 5,
            encoded_size: 20,
        };
        for raw in [vec![0; 20], vec![], vec![0x42; 11]] {
            assert!(check_chunk(raw, &announced).is_err());
        }
    }
}
