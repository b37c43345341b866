//! Bodies of uploads: receiving them within their announced length, and checking chunks before they are stored.
//!
//! Receiving is asynchronous and bounded by `encoded-size` (at most 16 MiB and 44 bytes). Checking, which decodes and
//! hashes, is the business of [`super::chunk_gate`].

use std::fmt;

use backstop_format::Digest;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use backstop_format::blob::DataBlob;
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
}
