//! The chunks of one index: many on their way at the same time, each checked before it is stored, each at most once per run.

use std::collections::HashSet;

use backstop_datastore::{Datastore, DatastoreError, DigestSet};
use backstop_format::Digest;
use backstop_format::blob::{DataBlob, MAX_CHUNK_SIZE};
use backstop_format::index::{AnyIndex, ChunkIndex, ChunkSpan};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::error::{Result, SyncError};
use super::fetched::Record;
use super::pull::Run;
use super::report::Moved;
use super::source::OpenSnapshot;

/// How many chunks of an index are on their way.
pub(super) const IN_FLIGHT: usize = 32;

/// What counts for the chunks of a group.
pub(super) struct GroupChunks {
    /// The chunks of its last snapshot.
    pub known: DigestSet,
    /// What is remembered of earlier runs.
    pub record: std::sync::Arc<Record>,
}

/// Why a chunk is not what its index says.
type Fault = String;

/// Sees to it that the target has all chunks of an index.
pub(super) async fn pull_chunks(
    run: &Run,
    group: &GroupChunks,
    source: &OpenSnapshot,
    index: &AnyIndex,
    is_encrypted: bool,
) -> Result<Moved> {
    let mut seen = HashSet::new();
    let spans = (0..index.chunk_count()).filter_map(|position| {
        let span = index.chunk(position);
        match &span {
            Some(span) if !seen.insert(span.digest) => None,
            _ => Some((position, span)),
        }
    });
    stream::iter(spans)
        .map(|(position, span)| async move {
            let usable = span.filter(|span| span.size() <= MAX_CHUNK_SIZE as u64);
            let span = usable.ok_or_else(|| {
                SyncError::Content(format!("the index has no usable chunk {position}"))
            })?;
            pull_chunk(run, group, source, span, is_encrypted).await
        })
        .buffer_unordered(IN_FLIGHT)
        .try_fold(Moved::default(), |sum, bytes| async move {
            Ok(Moved {
                chunks: sum.chunks + u64::from(bytes.is_some()),
                bytes: sum.bytes + bytes.unwrap_or(0),
            })
        })
        .await
}

/// Sees to it that the target has a chunk. Returns how many bytes were fetched for it.
async fn pull_chunk(
    run: &Run,
    group: &GroupChunks,
    source: &OpenSnapshot,
    span: ChunkSpan,
    is_encrypted: bool,
) -> Result<Option<u64>> {
    let (digest, size) = (span.digest, span.size());
    if run.fetched.contains(&digest) {
        return Ok(None);
    }
    let _gate = run.fetched.gate(&digest).await;
    if run.fetched.contains(&digest) {
        return Ok(None);
    }
    if group.known.contains(&digest) {
        let touched = run
            .target
            .store_chunk(move |store| store.chunks().touch(&digest));
        if touched.await? {
            return Ok(None);
        }
    }
    if group.record.earlier.contains(&digest) {
        let sound = run.target.store_chunk(move |store| {
            Ok(is_sound(store, &digest, size, is_encrypted) && store.chunks().touch(&digest)?)
        });
        if sound.await? {
            run.fetched.insert(&digest);
            return Ok(None);
        }
    }
    let Ok(_permit) = run.in_flight.acquire().await else {
        return Err(SyncError::Broken("the server is shutting down".to_owned()));
    };
    let raw = fetch(source, &digest, size).await?;
    let bytes = raw.len() as u64;
    let record = std::sync::Arc::clone(&group.record);
    let stored = run.target.store_chunk(move |store| {
        let blob = match check(raw, &digest, size, is_encrypted) {
            Ok(blob) => blob,
            Err(fault) => return Ok(Err(fault)),
        };
        store.chunks().insert(&digest, &blob)?;
        if let Err(error) = record.add(&digest) {
            // Only a run that is cut off would need it.
            tracing::warn!(%error, "unable to note a chunk that was fetched");
        }
        Ok(Ok(()))
    });
    stored.await?.map_err(SyncError::Content)?;
    run.fetched.insert(&digest);
    Ok(Some(bytes))
}

/// Fetches a chunk as the source stores it, unchecked; `size` is that of its plaintext.
pub(super) async fn fetch(source: &OpenSnapshot, digest: &Digest, size: u64) -> Result<Vec<u8>> {
    // Most chunks are compressed to less than half.
    let expected = usize::try_from(size / 2).unwrap_or(0);
    let fetched = source.chunk(digest, expected).await;
    fetched.map_err(|error| match error {
        SyncError::Content(reason) => SyncError::Content(reason),
        error if error.is_of_one_snapshot() => {
            SyncError::Content(format!("chunk {digest}: {error}"))
        }
        error => error,
    })
}

/// Checks a chunk as it came: CRC and, unless it is encrypted, length and SHA-256.
pub(super) fn check(
    raw: Vec<u8>,
    digest: &Digest,
    size: u64,
    is_encrypted: bool,
) -> std::result::Result<DataBlob, Fault> {
    let fault = |reason: String| format!("chunk {digest} is damaged at the source - {reason}");
    let blob = DataBlob::load(raw).map_err(|error| fault(error.to_string()))?;
    match (blob.is_encrypted(), is_encrypted) {
        (true, true) => Ok(blob),
        (false, false) => match blob.verify_plain_chunk(digest, size) {
            Ok(()) => Ok(blob),
            Err(error) => Err(fault(error.to_string())),
        },
        (true, false) => Err(fault("it is encrypted, its archive is not".to_owned())),
        (false, true) => Err(fault("it is not encrypted, its archive is".to_owned())),
    }
}

/// Whether the target's copy of a chunk is whole. An earlier run stored it, but nobody knows what happened since.
fn is_sound(store: &Datastore, digest: &Digest, size: u64, is_encrypted: bool) -> bool {
    let raw: std::result::Result<Vec<u8>, DatastoreError> = store.chunks().read_raw(digest);
    raw.is_ok_and(|raw| check(raw, digest, size, is_encrypted).is_ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use backstop_format::CryptKey;

    use super::*;

    #[test]
    fn a_chunk_that_is_not_what_the_index_says_is_refused() {
        let data = b"some data that is a chunk";
        let (digest, size) = (Digest::of(data), data.len() as u64);
        let plain = DataBlob::encode(data, None, true).unwrap();
        assert!(check(plain.raw().to_vec(), &digest, size, false).is_ok());
        assert!(check(plain.raw().to_vec(), &digest, size + 1, false).is_err());
        assert!(check(plain.raw().to_vec(), &Digest::of(b"x"), size, false).is_err());
        assert!(check(plain.raw().to_vec(), &digest, size, true).is_err());
        let mut broken = plain.raw().to_vec();
        *broken.last_mut().unwrap() ^= 1;
        let fault = check(broken, &digest, size, false).unwrap_err();
        assert!(fault.contains("is damaged at the source"), "{fault}");
        assert!(check(Vec::new(), &digest, size, false).is_err());
        let key = CryptKey::generate().unwrap();
        let sealed = DataBlob::encode(data, Some(&key), true).unwrap();
        assert!(check(sealed.raw().to_vec(), &digest, size, true).is_ok());
        assert!(check(sealed.raw().to_vec(), &digest, size, false).is_err());
    }
}
