//! The chunks of one index: many on their way at the same time, each checked before it is sent, each at most once per snapshot.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backstop_client::writer::{CopiedIndex, IndexCopy};
use backstop_format::blob::{DataBlob, MAX_CHUNK_SIZE};
use backstop_format::index::{AnyIndex, ChunkIndex as _, ChunkSpan};
use backstop_format::{CryptKey, Digest};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;

use super::Run;
use super::snapshot::Form;
use crate::http::error::chain;
use crate::sync::chunks::check;
use crate::sync::error::{Result, SyncError};
use crate::sync::in_flight::{CHUNKS_AT_ONCE, Flight};
use crate::sync::report::Moved;
use crate::sync::source::OpenSnapshot;

/// An index that is being pushed.
pub(super) struct IndexPush<'a> {
    pub run: &'a Run,
    pub source: &'a OpenSnapshot,
    pub index: &'a AnyIndex,
    /// Whether its chunks are encrypted here.
    pub is_encrypted: bool,
    pub form: &'a Form,
}

/// What one index has cost, and the names that its chunks got when they were encrypted.
#[derive(Default)]
struct Progress {
    chunks: AtomicU64,
    bytes: AtomicU64,
    names: Mutex<HashMap<Digest, Digest>>,
}

impl IndexPush<'_> {
    /// Sends what the target lacks, and writes the index.
    ///
    /// # Errors
    /// [`SyncError::Content`]: a chunk is damaged here. Others: the target refuses something, or cannot be reached.
    pub async fn run(&self, copy: IndexCopy<'_>) -> Result<(CopiedIndex, Moved)> {
        let progress = Progress::default();
        let entries = stream::iter(0..self.index.chunk_count())
            .map(|position| self.chunk(&copy, &progress, position))
            .buffered(CHUNKS_AT_ONCE);
        let written = copy.write(entries).await?;
        let moved = Moved {
            chunks: progress.chunks.load(Ordering::Relaxed),
            bytes: progress.bytes.load(Ordering::Relaxed),
        };
        Ok((written, moved))
    }

    /// Sees to it that the target has a chunk; returns its name there, and its size.
    async fn chunk(
        &self,
        copy: &IndexCopy<'_>,
        progress: &Progress,
        position: usize,
    ) -> Result<(Digest, u64)> {
        let span = self.index.chunk(position);
        let span = span.filter(|span| span.size() <= MAX_CHUNK_SIZE as u64);
        let span = span.ok_or_else(|| {
            SyncError::Content(format!("the index has no usable chunk {position}"))
        })?;
        let digest = match self.form {
            Form::Stored => self.stored(copy, progress, span).await?,
            Form::Sealed(key) => self.sealed(copy, progress, span, key).await?,
        };
        copy.arrived(&digest).await?;
        Ok((digest, span.size()))
    }

    async fn stored(
        &self,
        copy: &IndexCopy<'_>,
        progress: &Progress,
        span: ChunkSpan,
    ) -> Result<Digest> {
        if copy.wants(&span.digest) {
            let flight = self.begin(span).await?;
            let blob = self.read(span).await?;
            send(copy, progress, (&span.digest, span.size()), blob).await?;
            flight.arrived();
        }
        Ok(span.digest)
    }

    async fn sealed(
        &self,
        copy: &IndexCopy<'_>,
        progress: &Progress,
        span: ChunkSpan,
        key: &Arc<CryptKey>,
    ) -> Result<Digest> {
        let known = progress.names.lock().get(&span.digest).copied();
        if let Some(name) = known {
            return Ok(name);
        }
        let flight = self.begin(span).await?;
        let blob = self.read(span).await?;
        let own = Arc::clone(key);
        let named = self.run.local.work(move |_| {
            let plain = blob.decode(None, MAX_CHUNK_SIZE);
            Ok(plain.map(|plain| (own.chunk_digest(&plain), plain)))
        });
        let unusable = |error: backstop_format::FormatError| {
            SyncError::Content(format!("chunk {}: {}", span.digest, chain(&error)))
        };
        let (name, plain) = named.await?.map_err(unusable)?;
        progress.names.lock().insert(span.digest, name);
        if copy.wants(&name) {
            let own = Arc::clone(key);
            let blob = self
                .run
                .local
                .work(move |_| Ok(DataBlob::encode(&plain, Some(&own), true)));
            let blob = blob.await?.map_err(unusable)?;
            send(copy, progress, (&name, span.size()), blob).await?;
            flight.arrived();
        }
        Ok(name)
    }

    /// Waits until a chunk may be read and sent.
    async fn begin(&self, span: ChunkSpan) -> Result<Flight<'_>> {
        let flight = self.run.in_flight.begin(span.size()).await;
        flight.ok_or_else(|| SyncError::Broken("the server is shutting down".to_owned()))
    }

    /// Reads a chunk and checks it.
    async fn read(&self, span: ChunkSpan) -> Result<DataBlob> {
        let raw = self.source.chunk(&span.digest, 0, 0).await?;
        let is_encrypted = self.is_encrypted;
        let checked = self
            .run
            .local
            .work(move |_| Ok(check(raw, &span.digest, span.size(), is_encrypted)));
        checked.await?.map_err(SyncError::Content)
    }
}

async fn send(
    copy: &IndexCopy<'_>,
    progress: &Progress,
    (digest, size): (&Digest, u64),
    blob: DataBlob,
) -> Result<()> {
    let raw = Bytes::from(blob.into_raw());
    let bytes = raw.len() as u64;
    copy.send(digest, size, raw).await?;
    progress.chunks.fetch_add(1, Ordering::Relaxed);
    progress.bytes.fetch_add(bytes, Ordering::Relaxed);
    Ok(())
}
