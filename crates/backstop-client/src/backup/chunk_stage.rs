//! What happens to chunks on a worker thread: recognise zeros, hash, look up, compress, encrypt.
//!
//! Where several wait, a worker takes two at a time, which halves the cost of hashing (see [`PairQueue`]).
//! Every chunk that enters leaves as exactly one [`Prepared`] or one error, even if the worker panics.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backstop_format::blob::{BlobEncoder, MAX_CHUNK_SIZE, is_zero};
use backstop_format::digest::PairQueue;
use backstop_format::{CryptKey, CryptMode, Digest};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;

use super::budget::{Budget, Permit};
use crate::buffers::Buffers;
use crate::error::{ClientError, Result};
use crate::workers::Workers;
use crate::writer::known_chunks::KnownChunks;

/// Bytes of chunks, read and encoded, that all archives of a backup together hold at a time.
///
/// Beyond it are only: the compressed copy of each chunk that is being encoded, one growing chunk and a few MiB of stream
/// blocks per open stream, and buffers kept for later use; in sum less than 300 MiB.
const MEMORY_BUDGET: usize = 96 << 20;

/// Chunks of one stream that wait for their place in the index.
const MAX_WAITING: usize = 8192;

/// What all archives of a backup share.
#[derive(Clone)]
pub(crate) struct Stage {
    shared: Arc<StageShared>,
    workers: Workers,
    pub buffers: Buffers,
    memory: Budget,
}

struct StageShared {
    key: Option<Arc<CryptKey>>,
    encoders: Mutex<Vec<BlobEncoder>>,
    waiting: PairQueue<Waiting>,
    /// Digests of all-zero chunks by length.
    zeros: Mutex<HashMap<u64, Digest>>,
    known: Arc<KnownChunks>,
}

/// A chunk that is ready for the index.
pub(crate) struct Prepared {
    /// Position in its stream.
    pub sequence: u64,
    pub digest: Digest,
    pub size: u64,
    /// Encoded chunk and its share of the memory budget, if it has to be uploaded.
    pub upload: Option<(Bytes, Option<Permit>)>,
    /// Whether it was taken over from the previous snapshot without being read.
    pub injected: bool,
    /// Keeps the number of waiting chunks bounded.
    pub _slot: Permit,
}

/// Figures of one stream that are shown while it runs.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Bytes of the archive read or taken over.
    pub processed: AtomicU64,
    /// Encoded bytes whose upload was confirmed.
    pub uploaded: AtomicU64,
}

enum Content {
    Bytes(Vec<u8>),
    Zeros(u64),
}

impl Content {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(data) => Some(data),
            Self::Zeros(_) => None,
        }
    }

    fn size(&self) -> u64 {
        match self {
            Self::Bytes(data) => data.len() as u64,
            Self::Zeros(size) => *size,
        }
    }
}

/// A chunk on its way to a worker thread.
struct Waiting {
    content: Content,
    sequence: u64,
    memory: Option<Permit>,
    slot: Permit,
    ticket: Ticket,
}

impl Stage {
    /// A stage for one backup session. The key is used only in [`CryptMode::Encrypt`].
    pub fn new(
        workers: Workers,
        mode: CryptMode,
        key: Option<&Arc<CryptKey>>,
        known: Arc<KnownChunks>,
    ) -> Self {
        let key = match mode {
            CryptMode::Encrypt => key.cloned(),
            CryptMode::None | CryptMode::SignOnly => None,
        };
        Self {
            shared: Arc::new(StageShared {
                key,
                encoders: Mutex::default(),
                waiting: PairQueue::new(workers.count()),
                zeros: Mutex::default(),
                known,
            }),
            workers,
            buffers: Buffers::default(),
            memory: Budget::new(MEMORY_BUDGET),
        }
    }

    /// Stops everybody who feeds this stage.
    pub fn cancel(&self) {
        self.memory.close();
    }

    /// An entry for the chunks of one stream, and the other end at which they come out in any order.
    pub fn feeder(
        &self,
    ) -> (
        Feeder,
        tokio::sync::mpsc::UnboundedReceiver<Result<Prepared>>,
    ) {
        // Unbounded, so that a worker never waits for a stream; `slots` bounds what is under way.
        let (out, prepared) = tokio::sync::mpsc::unbounded_channel();
        let feeder = Feeder {
            stage: self.clone(),
            slots: Budget::new(MAX_WAITING),
            out,
            sequence: 0,
            counters: Arc::default(),
        };
        (feeder, prepared)
    }
}

/// Takes the chunks of one stream in order.
pub(crate) struct Feeder {
    stage: Stage,
    slots: Budget,
    out: UnboundedSender<Result<Prepared>>,
    sequence: u64,
    counters: Arc<Counters>,
}

impl Feeder {
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// An empty buffer for the next chunk.
    pub fn buffer(&self, capacity: usize) -> Vec<u8> {
        let mut buffer = self.stage.buffers.take(capacity);
        buffer.clear();
        buffer
    }

    /// A buffer of a certain length, with any content, to be overwritten entirely.
    pub fn buffer_to_fill(&self, length: usize) -> Vec<u8> {
        let mut buffer = self.stage.buffers.take(length);
        buffer.resize(length, 0);
        buffer
    }

    /// Hands over a chunk; waits while too much is under way.
    pub fn feed(&mut self, data: Vec<u8>) -> Result<()> {
        let memory = self.stage.memory.take(data.capacity())?;
        let size = data.len() as u64;
        self.submit(Content::Bytes(data), size, Some(memory))
    }

    /// Hands over a chunk that is known to be all zeros.
    pub fn feed_zeros(&mut self, size: u64) -> Result<()> {
        self.submit(Content::Zeros(size), size, None)
    }

    /// Hands over a chunk of the previous snapshot that need not be read.
    pub fn feed_known(&mut self, digest: Digest, size: u64) -> Result<()> {
        let slot = self.slots.take(1)?;
        let prepared = Prepared {
            sequence: self.next(size),
            digest,
            size,
            upload: None,
            injected: true,
            _slot: slot,
        };
        self.out
            .send(Ok(prepared))
            .map_err(|_| ClientError::Cancelled)
    }

    fn next(&mut self, size: u64) -> u64 {
        self.counters.processed.fetch_add(size, Ordering::Relaxed);
        let sequence = self.sequence;
        self.sequence += 1;
        sequence
    }

    fn submit(&mut self, content: Content, size: u64, memory: Option<Permit>) -> Result<()> {
        if self.out.is_closed() {
            return Err(ClientError::Cancelled);
        }
        let slot = self.slots.take(1)?;
        let sequence = self.next(size);
        let waiting = Waiting {
            content,
            sequence,
            memory,
            slot,
            ticket: Ticket {
                out: Some(self.out.clone()),
            },
        };
        if self.stage.shared.waiting.push(size, waiting) {
            let stage = self.stage.clone();
            let work = move || {
                let waiting = &stage.shared.waiting;
                waiting.work(|first, second| stage.prepare_waiting(first, second));
            };
            self.stage.workers.submit(work);
        }
        Ok(())
    }
}

/// Delivers the outcome of a job; a job that panics delivers that.
struct Ticket {
    out: Option<UnboundedSender<Result<Prepared>>>,
}

impl Ticket {
    fn deliver(&mut self, result: Result<Prepared>) {
        if let Some(out) = self.out.take() {
            // The receiver is gone only when the backup has failed already.
            let _ = out.send(result);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.deliver(Err(ClientError::Invalid(
            "internal error: preparing a chunk panicked".to_owned(),
        )));
    }
}

impl Stage {
    fn prepare_waiting(&self, first: Waiting, second: Option<Waiting>) {
        match second {
            None => {
                let digest = self.digest_of(&first.content);
                self.prepare(first, digest);
            }
            Some(second) => {
                let digests = match (self.to_hash(&first), self.to_hash(&second)) {
                    (Some(one), Some(two)) => self.digests([one, two]),
                    _ => [&first, &second].map(|chunk| self.digest_of(&chunk.content)),
                };
                self.prepare(first, digests[0]);
                self.prepare(second, digests[1]);
            }
        }
    }

    /// The bytes of a chunk, unless they are all zero.
    fn to_hash<'a>(&self, chunk: &'a Waiting) -> Option<&'a [u8]> {
        chunk.content.bytes().filter(|data| !is_zero(data))
    }

    fn digest_of(&self, content: &Content) -> Digest {
        match content.bytes() {
            Some(data) if is_zero(data) => self.zero_digest(content.size(), Some(data)),
            Some(data) => self.digest(data),
            None => self.zero_digest(content.size(), None),
        }
    }

    fn prepare(&self, chunk: Waiting, digest: Digest) {
        let Waiting {
            content,
            sequence,
            memory,
            slot,
            mut ticket,
        } = chunk;
        let size = content.size();
        let result = self
            .upload_form(content, digest, memory)
            .map(|upload| Prepared {
                sequence,
                digest,
                size,
                upload,
                injected: false,
                _slot: slot,
            });
        ticket.deliver(result);
    }

    /// What has to be uploaded of a chunk, if the server does not know it.
    fn upload_form(
        &self,
        content: Content,
        digest: Digest,
        memory: Option<Permit>,
    ) -> Result<Option<(Bytes, Option<Permit>)>> {
        let upload = if self.shared.known.claim(&digest) {
            let encoded = match &content {
                Content::Bytes(data) => self.encode(data)?,
                Content::Zeros(size) => self.encode(&zeros(*size))?,
            };
            let memory = memory.map(|mut permit| {
                permit.shrink(encoded.len());
                permit
            });
            Some((encoded, memory))
        } else {
            None
        };
        if let Content::Bytes(data) = content {
            self.buffers.put(data);
        }
        Ok(upload)
    }

    /// The digest of an all-zero chunk, computed once per length.
    fn zero_digest(&self, size: u64, data: Option<&[u8]>) -> Digest {
        if let Some(digest) = self.shared.zeros.lock().get(&size) {
            return *digest;
        }
        let digest = match data {
            Some(data) => self.digest(data),
            None => self.digest(&zeros(size)),
        };
        self.shared.zeros.lock().insert(size, digest);
        digest
    }

    fn digest(&self, data: &[u8]) -> Digest {
        match &self.shared.key {
            Some(key) => key.chunk_digest(data),
            None => Digest::of(data),
        }
    }

    fn digests(&self, data: [&[u8]; 2]) -> [Digest; 2] {
        match &self.shared.key {
            Some(key) => key.two_chunk_digests(data),
            None => Digest::of_two(data),
        }
    }

    fn encode(&self, data: &[u8]) -> Result<Bytes> {
        let encoder = self.shared.encoders.lock().pop();
        let mut encoder =
            encoder.unwrap_or_else(|| BlobEncoder::new(self.shared.key.clone(), true));
        let blob = encoder.encode(data).map_err(ClientError::data("chunk"))?;
        self.shared.encoders.lock().push(encoder);
        Ok(Bytes::from(blob.into_raw()))
    }
}

/// Zeros of a chunk's length; callers keep it within the largest chunk.
fn zeros(size: u64) -> Vec<u8> {
    vec![0; usize::try_from(size).unwrap_or(0).min(MAX_CHUNK_SIZE)]
}
