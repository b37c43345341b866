//! The chunks of one archive: fetched, decoded and verified, by position.
//!
//! Decoding runs on the worker threads. Every chunk is checked for CRC, encryption, digest and length before anybody sees it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backstop_format::blob::{ExpectedChunk, MAX_CHUNK_SIZE, MAX_ENCODED_CHUNK_SIZE};
use backstop_format::index::{AnyIndex, ChunkIndex, ChunkSpan};
use backstop_format::{CryptMode, Digest, FormatError};
use parking_lot::Mutex;

use super::ReaderSession;
use super::decoding::Chunk;
use crate::error::{ClientError, Result};

/// The chunks of one archive. Clones share everything.
#[derive(Clone)]
pub struct ChunkSource {
    shared: Arc<Shared>,
}

struct Shared {
    session: Arc<ReaderSession>,
    name: String,
    index: AnyIndex,
    mode: CryptMode,
    /// Digests of all-zero chunks by length.
    zeros: Mutex<HashMap<u64, Digest>>,
    transferred: AtomicU64,
}

impl ChunkSource {
    pub(super) fn new(
        session: Arc<ReaderSession>,
        name: &str,
        index: AnyIndex,
        mode: CryptMode,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                session,
                name: name.to_owned(),
                index,
                mode,
                zeros: Mutex::default(),
                transferred: AtomicU64::new(0),
            }),
        }
    }

    /// Name of the archive on the server.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The index.
    pub fn index(&self) -> &AnyIndex {
        &self.shared.index
    }

    /// Bytes received from the server so far.
    pub fn transferred(&self) -> u64 {
        self.shared.transferred.load(Ordering::Relaxed)
    }

    /// Where a chunk lies in the archive.
    ///
    /// # Errors
    /// There is no chunk at this position, or it is larger than any chunk may be.
    pub(crate) fn span(&self, position: usize) -> Result<ChunkSpan> {
        self.shared
            .index
            .chunk(position)
            .filter(|span| span.size() <= MAX_CHUNK_SIZE as u64)
            .ok_or_else(|| {
                ClientError::mismatch(
                    &*self.shared.name,
                    format!("the index has no usable chunk {position}"),
                )
            })
    }

    /// Whether a chunk is known to be all zeros without being fetched.
    pub(crate) fn is_zero_chunk(&self, span: &ChunkSpan) -> bool {
        let size = span.size();
        let known = self.shared.zeros.lock().get(&size).copied();
        let zero = known.unwrap_or_else(|| {
            let zeros = vec![0; usize::try_from(size).unwrap_or(0).min(MAX_CHUNK_SIZE)];
            let digest = match (self.shared.mode, self.shared.session.key()) {
                (CryptMode::Encrypt, Some(key)) => key.chunk_digest(&zeros),
                _ => Digest::of(&zeros),
            };
            self.shared.zeros.lock().insert(size, digest);
            digest
        });
        zero == span.digest
    }

    /// The content of a chunk.
    ///
    /// # Errors
    /// Network failures; damaged or exchanged data, wrong key.
    pub async fn fetch(&self, position: usize) -> Result<Vec<u8>> {
        let decoding = self.shared.session.decoding().clone();
        self.fetch_map(position, move |chunk| Ok(decoding.to_buffer(chunk)))
            .await
    }

    /// Takes back the buffer of a chunk that was fetched, for the next ones.
    pub(crate) fn recycle(&self, buffer: Vec<u8>) {
        self.shared.session.decoding().buffers().put(buffer);
    }

    /// Fetches a chunk and does something with its content on the worker thread that decoded it.
    pub(crate) async fn fetch_with<F>(&self, position: usize, consume: F) -> Result<()>
    where
        F: FnOnce(&[u8]) -> Result<()> + Send + 'static,
    {
        let decoding = self.shared.session.decoding().clone();
        let work = move |chunk: Chunk| {
            consume(chunk.bytes())?;
            decoding.recycle(chunk);
            Ok(())
        };
        self.fetch_map(position, work).await
    }

    async fn fetch_map<T, F>(&self, position: usize, consume: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Chunk) -> Result<T> + Send + 'static,
    {
        let span = self.span(position)?;
        // Bounded by the largest chunk; most chunks are compressed to less.
        let expected = usize::try_from(span.size() / 2).unwrap_or(0);
        let raw = self
            .shared
            .session
            .raw_chunk(&span.digest, expected, MAX_ENCODED_CHUNK_SIZE)
            .await
            .map_err(|error| error.in_archive("fetching a chunk of", &self.shared.name))?;
        self.shared
            .transferred
            .fetch_add(raw.len() as u64, Ordering::Relaxed);
        let (sender, outcome) = tokio::sync::oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let expected = ExpectedChunk {
            digest: span.digest,
            size: span.size(),
        };
        let deliver = move |chunk: std::result::Result<Chunk, FormatError>| {
            let result = chunk
                .map_err(|source| ClientError::Data {
                    what: format!("{}, chunk {}", shared.name, expected.digest),
                    source,
                })
                .and_then(consume);
            // Nobody listens only when the restore has failed already.
            let _ = sender.send(result);
        };
        let decoding = self.shared.session.decoding();
        decoding.submit(raw, self.shared.mode, expected, deliver);
        outcome.await.unwrap_or_else(|_| {
            Err(ClientError::Invalid(
                "internal error: decoding a chunk panicked".to_owned(),
            ))
        })
    }
}
