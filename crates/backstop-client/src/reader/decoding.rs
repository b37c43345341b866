//! Fetched chunks on their way through a worker thread: CRC, decryption, decompression, digest and length.
//!
//! Where several wait, a worker takes two at a time, which halves the cost of hashing (see [`PairQueue`]). Nobody sees a chunk
//! that was not checked.

use std::sync::Arc;

use backstop_format::blob::{BlobKind, DataBlob, ExpectedChunk};
use backstop_format::digest::PairQueue;
use backstop_format::{CryptKey, CryptMode, FormatError};

use super::check_mode;
use crate::buffers::Buffers;
use crate::workers::Workers;

/// Decodes chunks on the worker threads. Clones share the queue.
#[derive(Clone)]
pub(super) struct Decoding {
    shared: Arc<Shared>,
    workers: Workers,
}

struct Shared {
    key: Option<Arc<CryptKey>>,
    waiting: PairQueue<Waiting>,
    buffers: Buffers,
}

type Consumer = Box<dyn FnOnce(Result<Chunk, FormatError>) + Send>;

struct Waiting {
    raw: Vec<u8>,
    mode: CryptMode,
    expected: ExpectedChunk,
    consume: Consumer,
}

/// A checked chunk.
pub(crate) struct Chunk {
    blob: DataBlob,
    /// The plaintext, unless the blob holds it as it is.
    plain: Vec<u8>,
}

impl Chunk {
    /// The plaintext.
    pub fn bytes(&self) -> &[u8] {
        match self.blob.plaintext() {
            Some(plain) => plain,
            None => &self.plain,
        }
    }
}

impl Decoding {
    /// For chunks that are decrypted with `key`.
    pub fn new(workers: Workers, key: Option<Arc<CryptKey>>) -> Self {
        Self {
            shared: Arc::new(Shared {
                key,
                waiting: PairQueue::new(workers.count()),
                buffers: Buffers::default(),
            }),
            workers,
        }
    }

    /// Buffers for chunks, to be given back.
    pub fn buffers(&self) -> &Buffers {
        &self.shared.buffers
    }

    /// Checks a chunk as it came from the server and calls `consume` with it on a worker thread. Neither is called when a
    /// worker panics.
    pub fn submit(
        &self,
        raw: Vec<u8>,
        mode: CryptMode,
        expected: ExpectedChunk,
        consume: impl FnOnce(Result<Chunk, FormatError>) + Send + 'static,
    ) {
        let waiting = Waiting {
            raw,
            mode,
            expected,
            consume: Box::new(consume),
        };
        if self.shared.waiting.push(expected.size, waiting) {
            let shared = Arc::clone(&self.shared);
            let work = move || {
                let waiting = &shared.waiting;
                waiting.work(|first, second| shared.work(first, second));
            };
            self.workers.submit(work);
        }
    }

    /// Takes the buffers of a chunk back.
    pub fn recycle(&self, chunk: Chunk) {
        self.shared.buffers.put(chunk.blob.into_raw());
        self.shared.buffers.put(chunk.plain);
    }

    /// The plaintext of a chunk as a buffer of its own, which may be given back.
    pub fn to_buffer(&self, chunk: Chunk) -> Vec<u8> {
        let Chunk { blob, plain } = chunk;
        let content = match blob.plaintext() {
            Some(stored) => stored.to_vec(),
            None => plain,
        };
        self.shared.buffers.put(blob.into_raw());
        content
    }
}

/// A chunk whose envelope is sound.
struct Sound {
    blob: DataBlob,
    expected: ExpectedChunk,
    consume: Consumer,
}

impl Shared {
    fn work(&self, first: Waiting, second: Option<Waiting>) {
        let second = second.and_then(|waiting| self.sound(waiting));
        match (self.sound(first), second) {
            (Some(one), Some(two)) => self.open_two(one, two),
            (Some(only), None) | (None, Some(only)) => self.open(only),
            (None, None) => {}
        }
    }

    /// Checks CRC and kind; delivers what is wrong.
    fn sound(&self, waiting: Waiting) -> Option<Sound> {
        let blob = DataBlob::load(waiting.raw).and_then(|blob| {
            check_mode(&blob, waiting.mode)?;
            Ok(blob)
        });
        match blob {
            Ok(blob) => Some(Sound {
                blob,
                expected: waiting.expected,
                consume: waiting.consume,
            }),
            Err(err) => {
                (waiting.consume)(Err(err));
                None
            }
        }
    }

    /// Room for the plaintext of a chunk.
    fn room(&self, chunk: &Sound) -> Vec<u8> {
        match chunk.blob.kind() {
            BlobKind::Plain => Vec::new(),
            _ => self
                .buffers
                .take(usize::try_from(chunk.expected.size).unwrap_or(0)),
        }
    }

    fn open(&self, chunk: Sound) {
        let mut plain = self.room(&chunk);
        let key = self.key.as_deref();
        let opened = chunk.blob.open_chunk(key, &chunk.expected, &mut plain);
        let outcome = opened.map(|_| ());
        deliver(chunk, plain, outcome);
    }

    fn open_two(&self, one: Sound, two: Sound) {
        let (mut plain_one, mut plain_two) = (self.room(&one), self.room(&two));
        let opened = DataBlob::open_two_chunks(
            [&one.blob, &two.blob],
            self.key.as_deref(),
            [&one.expected, &two.expected],
            [&mut plain_one, &mut plain_two],
        );
        let [outcome_one, outcome_two] = opened.map(|opened| opened.map(|_| ()));
        deliver(one, plain_one, outcome_one);
        deliver(two, plain_two, outcome_two);
    }
}

fn deliver(chunk: Sound, plain: Vec<u8>, outcome: Result<(), FormatError>) {
    let Sound { blob, consume, .. } = chunk;
    consume(outcome.map(|()| Chunk { blob, plain }));
}
