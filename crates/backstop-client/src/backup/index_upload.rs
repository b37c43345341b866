//! The sending end of a pipeline: uploads new chunks, many at a time, and appends all to the index in stream order.
//!
//! A chunk is appended only after the server has confirmed it. One append is under way at a time, with everything that
//! has become ready meanwhile, so that a slow network costs few round trips.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use backstop_format::Digest;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc::UnboundedReceiver;

use super::chunk_stage::{Counters, Prepared};
use crate::error::{ClientError, Result};
use crate::writer::{BackupSession, IndexKind, IndexSum, IndexWriter, MAX_APPEND};

/// Figures of a completely uploaded index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UploadedIndex {
    pub chunks: u64,
    pub size: u64,
    pub checksum: Digest,
    /// Bytes of chunks that had to be uploaded.
    pub uploaded: u64,
    /// Their encoded size.
    pub compressed: u64,
    pub injected: u64,
    pub injected_chunks: u64,
}

/// Where the calls go; the session in earnest, a recorder in tests.
pub(crate) trait IndexTarget: Send + Sync {
    fn upload(
        &self,
        digest: Digest,
        size: u64,
        blob: bytes::Bytes,
    ) -> impl Future<Output = Result<()>> + Send;
    fn append(&self, entries: Vec<(u64, Digest)>) -> impl Future<Output = Result<()>> + Send;
    fn known(&self) -> &crate::writer::known_chunks::KnownChunks;
}

/// One index of a session.
pub(crate) struct SessionIndex {
    pub session: Arc<BackupSession>,
    pub writer: IndexWriter,
}

impl IndexTarget for SessionIndex {
    async fn upload(&self, digest: Digest, size: u64, blob: bytes::Bytes) -> Result<()> {
        self.session
            .upload_chunk(self.writer, &digest, size, blob)
            .await
    }

    async fn append(&self, entries: Vec<(u64, Digest)>) -> Result<()> {
        self.session.append(self.writer, &entries).await
    }

    fn known(&self) -> &crate::writer::known_chunks::KnownChunks {
        self.session.known()
    }
}

/// Chunks that have come out of the stage, by their distance from the next one to append.
#[derive(Default)]
struct Waiting {
    next: u64,
    queue: VecDeque<Option<Entry>>,
}

struct Entry {
    digest: Digest,
    size: u64,
    _slot: super::budget::Permit,
}

impl Waiting {
    fn insert(&mut self, sequence: u64, entry: Entry) {
        // Sequences are handed out once each and are bounded by the number of slots.
        let distance = usize::try_from(sequence.saturating_sub(self.next)).unwrap_or(usize::MAX);
        while self.queue.len() <= distance {
            self.queue.push_back(None);
        }
        if let Some(place) = self.queue.get_mut(distance) {
            *place = Some(entry);
        }
    }

    /// Takes the next entry if it has arrived and `usable` agrees.
    fn take_if(&mut self, usable: impl FnOnce(&Digest) -> bool) -> Option<Entry> {
        match self.queue.front() {
            Some(Some(entry)) if usable(&entry.digest) => {}
            _ => return None,
        }
        self.next += 1;
        self.queue.pop_front().flatten()
    }
}

/// Uploads and appends until the stage has no more chunks of this stream. The index stays open: whether the source ended
/// well is for the caller to know.
pub(crate) async fn upload_index<T: IndexTarget>(
    target: &T,
    kind: IndexKind,
    mut prepared: UnboundedReceiver<Result<Prepared>>,
    counters: &Counters,
) -> Result<UploadedIndex> {
    let mut sum = IndexSum::new(kind);
    let mut figures = UploadedIndex {
        chunks: 0,
        size: 0,
        checksum: Digest([0; 32]),
        uploaded: 0,
        compressed: 0,
        injected: 0,
        injected_chunks: 0,
    };
    let known = target.known();
    let mut confirmations = known.confirmations();
    let mut waiting = Waiting::default();
    let mut uploads = FuturesUnordered::new();
    let mut append: Option<Pin<Box<dyn Future<Output = Result<()>> + Send + '_>>> = None;
    let mut open = true;
    loop {
        // Marks the present as seen before looking, so that no confirmation is missed.
        confirmations.borrow_and_update();
        if append.is_none() {
            let mut batch = Vec::new();
            while batch.len() < MAX_APPEND
                && let Some(entry) = waiting.take_if(|digest| known.is_confirmed(digest))
            {
                batch.push((sum.add(&entry.digest, entry.size), entry.digest));
            }
            if !batch.is_empty() {
                append = Some(Box::pin(target.append(batch)));
            }
        }
        if !open && append.is_none() && uploads.is_empty() && waiting.queue.is_empty() {
            break;
        }
        let blocked = append.is_none() && !waiting.queue.is_empty();
        tokio::select! {
            item = prepared.recv(), if open => match item {
                Some(item) => {
                    let item = item?;
                    if item.injected {
                        figures.injected += item.size;
                        figures.injected_chunks += 1;
                    }
                    let (digest, size) = (item.digest, item.size);
                    waiting.insert(item.sequence, Entry { digest, size, _slot: item._slot });
                    if let Some((blob, permit)) = item.upload {
                        figures.uploaded += size;
                        figures.compressed += blob.len() as u64;
                        uploads.push(async move {
                            let encoded = blob.len() as u64;
                            target.upload(digest, size, blob).await?;
                            drop(permit);
                            counters.uploaded.fetch_add(encoded, Ordering::Relaxed);
                            Ok::<_, ClientError>(digest)
                        });
                    }
                }
                None => open = false,
            },
            Some(done) = uploads.next(), if !uploads.is_empty() => known.confirm(&done?),
            result = async { match &mut append {
                Some(append) => append.await,
                None => std::future::pending().await,
            } }, if append.is_some() => {
                append = None;
                result?;
            }
            _ = confirmations.changed(), if blocked => {}
        }
    }
    (figures.chunks, figures.size) = (sum.chunks(), sum.size());
    figures.checksum = sum.finish();
    Ok(figures)
}
