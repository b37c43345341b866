//! How fast this machine and its connection are at what a backup consists of.
//!
//! The server keeps nothing of it: the session belongs to the group `host/benchmark` and is never finished.

use std::time::{Duration, Instant};

use backstop_format::blob::{BlobEncoder, DataBlob};
use backstop_format::{CryptKey, Digest, FormatError};
use backstop_types::{BackupGroup, BackupTime, Namespace};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::connection::HttpClient;
use crate::error::{ClientError, Result};
use crate::writer::{BackupSession, SessionTarget};

/// Size of the blocks that are uploaded and worked on, in bytes.
const BLOCK_SIZE: usize = 4 << 20;

/// Uploads under way at a time.
const IN_FLIGHT: usize = 16;

/// What was done in which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measurement {
    /// Number of blocks.
    pub blocks: u64,
    /// Their size in sum, in bytes.
    pub bytes: u64,
    /// Time taken.
    pub elapsed: Duration,
}

impl Measurement {
    /// Bytes per second.
    pub fn speed(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Uploads blocks for at least `duration` to measure the connection.
///
/// # Errors
/// Refusals of the server and network failures.
pub async fn upload(
    client: &HttpClient,
    datastore: &str,
    no_cache: bool,
    duration: Duration,
) -> Result<Measurement> {
    let invalid = |error: &dyn std::fmt::Display| ClientError::Invalid(error.to_string());
    let group: BackupGroup = "host/benchmark".parse().map_err(|error| invalid(&error))?;
    let time =
        BackupTime::new(jiff::Timestamp::now().as_second()).map_err(|error| invalid(&error))?;
    let target = SessionTarget {
        datastore: datastore.to_owned(),
        namespace: Namespace::root(),
        snapshot: group.snapshot(time),
        no_cache,
        benchmark: true,
    };
    let session = BackupSession::start(client, &target).await?;
    let block = Bytes::from(vec![b'A'; BLOCK_SIZE]);
    let started = Instant::now();
    let mut uploads = FuturesUnordered::new();
    let mut blocks = 0;
    loop {
        while uploads.len() < IN_FLIGHT && started.elapsed() < duration {
            uploads.push(session.speed_test(block.clone()));
        }
        match uploads.next().await {
            Some(result) => {
                result?;
                blocks += 1;
            }
            None => break,
        }
    }
    Ok(measured(blocks, started))
}

/// Speeds of one core, in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LocalSpeeds {
    /// SHA-256.
    pub sha256: f64,
    /// Compression as backups use it.
    pub compress: f64,
    /// Its inverse.
    pub decompress: f64,
    /// Encryption as backups use it.
    pub encrypt: f64,
    /// Decompressing a chunk and checking its digest.
    pub verify: f64,
}

/// Measures this machine; blocks for about five times `duration`.
///
/// # Errors
/// The crypto or compression library fails.
pub fn local(duration: Duration) -> Result<LocalSpeeds> {
    let failed = ClientError::data("benchmark");
    measure_all(duration).map_err(failed)
}

fn measure_all(duration: Duration) -> std::result::Result<LocalSpeeds, FormatError> {
    let data = text_like();
    let key = CryptKey::generate()?;
    let digest = Digest::of(&data);
    let mut encoder = BlobEncoder::new(None, true);
    let packed = encoder.encode(&data)?;
    let size = data.len() as u64;
    let mut cipher = vec![0; data.len()];
    Ok(LocalSpeeds {
        sha256: repeat(duration, || {
            std::hint::black_box(Digest::of(&data));
            Ok(())
        })?,
        compress: repeat(duration, || encoder.encode(&data).map(drop))?,
        decompress: repeat(duration, || packed.decode(None, BLOCK_SIZE).map(drop))?,
        encrypt: repeat(duration, || key.encrypt(&data, &mut cipher).map(drop))?,
        verify: repeat(duration, || {
            DataBlob::load(packed.raw().to_vec())?
                .decode_chunk(None, &digest, size)
                .map(drop)
        })?,
    })
}

fn repeat(
    duration: Duration,
    mut work: impl FnMut() -> std::result::Result<(), FormatError>,
) -> std::result::Result<f64, FormatError> {
    let started = Instant::now();
    let mut blocks = 0;
    while blocks == 0 || started.elapsed() < duration {
        work()?;
        blocks += 1;
    }
    Ok(measured(blocks, started).speed())
}

fn measured(blocks: u64, started: Instant) -> Measurement {
    Measurement {
        blocks,
        bytes: blocks * BLOCK_SIZE as u64,
        elapsed: started.elapsed(),
    }
}

/// A block that compresses about as well as usual files do.
fn text_like() -> Vec<u8> {
    let mut data = Vec::with_capacity(BLOCK_SIZE);
    let mut state: u32 = 1;
    while data.len() < BLOCK_SIZE {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        data.extend_from_slice(format!("{:x} ", state >> 18).as_bytes());
    }
    data.truncate(BLOCK_SIZE);
    data
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn every_local_speed_is_measured() {
        let speeds = local(Duration::ZERO).unwrap();
        for speed in [
            speeds.sha256,
            speeds.compress,
            speeds.decompress,
            speeds.encrypt,
            speeds.verify,
        ] {
            assert!(speed.is_finite() && speed > 1e6, "{speeds:?}");
        }
    }
}
