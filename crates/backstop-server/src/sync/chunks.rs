//! The chunks of one index: many on their way at the same time, each checked before it is stored, each at most once per run.

use std::collections::HashSet;
use std::sync::Arc;

use backstop_client::ClientError;
use backstop_datastore::{Datastore, DatastoreError, DigestSet};
use backstop_format::Digest;
use backstop_format::blob::{DataBlob, MAX_CHUNK_SIZE};
use backstop_format::index::{AnyIndex, ChunkIndex, ChunkSpan};
use backstop_types::{Namespace, Snapshot};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::OnceCell;

use super::error::{Result, SyncError};
use super::fetched::Record;
use super::in_flight::CHUNKS_AT_ONCE;
use super::place::Place;
use super::pull::Run;
use super::report::Moved;
use super::source::OpenSnapshot;

/// What counts for the chunks of a group.
pub(super) struct GroupChunks {
    /// Its last snapshot when the run began.
    pub last: Option<Snapshot>,
    /// The chunks of that, once they were asked for.
    known: OnceCell<DigestSet>,
    /// What is remembered of earlier runs.
    pub record: Arc<Record>,
}

impl GroupChunks {
    pub fn new(last: Option<Snapshot>, record: Record) -> Self {
        Self {
            last,
            known: OnceCell::new(),
            record: Arc::new(record),
        }
    }

    /// The chunks of the group's last snapshot.
    async fn known(&self, run: &Run, namespace: &Namespace) -> Result<&DigestSet> {
        let read = async {
            let Some(last) = self.last.clone() else {
                return Ok(DigestSet::new());
            };
            let (ns, task) = (namespace.clone(), run.task.clone());
            let digests = run.target.work(move |store| {
                Ok(store.chunk_digests(&ns, &last).unwrap_or_else(|error| {
                    let group = &last.group;
                    task.log(format!(
                        "[{group}]: the chunks of {last} are not known, all are fetched anew - {error}"
                    ));
                    DigestSet::new()
                }))
            });
            digests.await
        };
        self.known.get_or_try_init(|| read).await
    }
}

/// What is the same for all chunks of an index.
struct Fetch<'a> {
    run: &'a Run,
    group: &'a GroupChunks,
    known: &'a DigestSet,
    source: &'a OpenSnapshot,
    is_encrypted: bool,
}

/// Why a chunk is not what its index says.
type Fault = String;

/// Sees to it that the target has all chunks of an index.
pub(super) async fn pull_chunks(
    run: &Run,
    place: &Place<'_>,
    group: &GroupChunks,
    source: &OpenSnapshot,
    index: &AnyIndex,
    is_encrypted: bool,
) -> Result<Moved> {
    let known = group.known(run, place.target).await?;
    let fetch = &Fetch {
        run,
        group,
        known,
        source,
        is_encrypted,
    };
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
            fetch.pull(span).await
        })
        .buffer_unordered(CHUNKS_AT_ONCE)
        .try_fold(Moved::default(), |sum, bytes| async move {
            Ok(Moved {
                chunks: sum.chunks + u64::from(bytes.is_some()),
                bytes: sum.bytes + bytes.unwrap_or(0),
            })
        })
        .await
}

impl Fetch<'_> {
    /// Sees to it that the target has a chunk. Returns how many bytes were fetched for it.
    async fn pull(&self, span: ChunkSpan) -> Result<Option<u64>> {
        let run = self.run;
        let digest = span.digest;
        if run.fetched.contains(&digest) {
            return Ok(None);
        }
        let _gate = run.fetched.gate(&digest).await;
        if run.fetched.contains(&digest) || self.is_here(&span).await? {
            return Ok(None);
        }
        let Some(flight) = run.in_flight.begin(span.size()).await else {
            return Err(SyncError::Broken("the server is shutting down".to_owned()));
        };
        let raw = fetch(self.source, &digest, span.size()).await?;
        flight.arrived();
        let bytes = raw.len() as u64;
        let (record, is_encrypted) = (Arc::clone(&self.group.record), self.is_encrypted);
        let stored = run.target.store_chunk(move |store| {
            let blob = match check(raw, &digest, span.size(), is_encrypted) {
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

    /// Whether a chunk need not be fetched: the group's last snapshot has it, or an earlier run has fetched it.
    async fn is_here(&self, span: &ChunkSpan) -> Result<bool> {
        let (run, digest, size) = (self.run, span.digest, span.size());
        if self.known.contains(&digest) {
            let touched = run
                .target
                .store_chunk(move |store| store.chunks().touch(&digest));
            if touched.await? {
                return Ok(true);
            }
        }
        if !self.group.record.earlier.contains(&digest) {
            return Ok(false);
        }
        let is_encrypted = self.is_encrypted;
        let sound = run.target.store_chunk(move |store| {
            Ok(is_sound(store, &digest, size, is_encrypted) && store.chunks().touch(&digest)?)
        });
        let is_sound = sound.await?;
        if is_sound {
            run.fetched.insert(&digest);
        }
        Ok(is_sound)
    }
}

/// Fetches a chunk as the source stores it, unchecked; `size` is that of its plaintext.
pub(super) async fn fetch(source: &OpenSnapshot, digest: &Digest, size: u64) -> Result<Vec<u8>> {
    let size = usize::try_from(size).unwrap_or(MAX_CHUNK_SIZE);
    // Most chunks are compressed to less than half; none grows by more than that.
    let (expected, limit) = (size / 2, size + size / 64 + (4 << 10));
    let fetched = source.chunk(digest, expected, limit).await;
    fetched.map_err(|error| match error {
        SyncError::Content(reason) => SyncError::Content(reason),
        SyncError::Source(ClientError::Protocol { reason, .. }) => SyncError::Content(format!(
            "chunk {digest} is damaged at the source - {reason}"
        )),
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
