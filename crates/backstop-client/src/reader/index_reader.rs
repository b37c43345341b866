//! Random access to an archive, with a bounded cache of decoded chunks and read-ahead for sequential access.
//!
//! Implements [`ReadAt`], for threads only: reading blocks while a chunk is fetched. Many threads may read at once; a chunk
//! that several want is fetched once.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use backstop_format::index::ChunkIndex as _;
use backstop_format::read_at::ReadAt;
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;

use super::ChunkSource;
use crate::error::ClientError;

/// Decoded bytes that are kept, unless asked otherwise.
const DEFAULT_CACHE: u64 = 64 << 20;

/// Chunks fetched ahead when chunks are read one after another.
const READ_AHEAD: usize = 4;

/// Random access to an archive. Clones share the cache.
#[derive(Clone)]
pub struct RemoteIndexReader {
    shared: Arc<Shared>,
}

struct Shared {
    source: ChunkSource,
    runtime: Handle,
    capacity: u64,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    /// Most recently used last.
    slots: VecDeque<(usize, Arc<Slot>)>,
    /// Position read last.
    last: Option<usize>,
}

/// A decoded chunk, or why there is none; for all who wait for it.
type Outcome = Result<Arc<Vec<u8>>, Arc<ClientError>>;

/// A chunk that is being fetched or has been.
#[derive(Default)]
struct Slot {
    content: Mutex<Option<Outcome>>,
    filled: Condvar,
}

/// Fills a slot; one that is dropped unfilled (a runtime that shuts down) wakes the waiters with an error.
struct Filler(Option<Arc<Slot>>);

impl Filler {
    fn fill(mut self, content: Result<Vec<u8>, ClientError>) {
        self.set(content);
    }

    fn set(&mut self, content: Result<Vec<u8>, ClientError>) {
        if let Some(slot) = self.0.take() {
            *slot.content.lock() = Some(content.map(Arc::new).map_err(Arc::new));
            slot.filled.notify_all();
        }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.set(Err(ClientError::Cancelled));
    }
}

impl RemoteIndexReader {
    /// A reader that fetches through the given runtime and keeps 64 MiB of decoded chunks.
    pub fn new(source: ChunkSource, runtime: Handle) -> Self {
        Self::with_cache(source, runtime, DEFAULT_CACHE)
    }

    /// As [`Self::new`]; `capacity` is the size of the cache in bytes. A chunk in use is always kept.
    pub fn with_cache(source: ChunkSource, runtime: Handle, capacity: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                source,
                runtime,
                capacity,
                cache: Mutex::default(),
            }),
        }
    }

    /// The chunks behind this reader.
    pub fn source(&self) -> &ChunkSource {
        &self.shared.source
    }

    fn chunk(&self, position: usize) -> io::Result<Arc<Vec<u8>>> {
        let slot = {
            let mut cache = self.shared.cache.lock();
            let slot = self.slot(&mut cache, position);
            let sequential = cache.last.is_some_and(|last| last + 1 == position);
            if cache.last != Some(position) {
                cache.last = Some(position);
            }
            if sequential {
                let end = self.shared.source.index().chunk_count();
                for ahead in (position + 1)..(position + 1 + READ_AHEAD).min(end) {
                    self.slot(&mut cache, ahead);
                }
            }
            slot
        };
        let mut content = slot.content.lock();
        while content.is_none() {
            slot.filled.wait(&mut content);
        }
        match content.as_ref() {
            Some(Ok(chunk)) => Ok(Arc::clone(chunk)),
            Some(Err(error)) => {
                let error = ClientError::Shared(Arc::clone(error));
                drop(content);
                self.forget(position, &slot);
                Err(error.into_io())
            }
            None => Err(ClientError::Cancelled.into_io()),
        }
    }

    /// The slot of a chunk, made the most recently used; starts fetching if it is new.
    fn slot(&self, cache: &mut Cache, position: usize) -> Arc<Slot> {
        if let Some(place) = cache.slots.iter().position(|(at, _)| *at == position) {
            if let Some(entry) = cache.slots.remove(place) {
                cache.slots.push_back(entry);
            }
        } else {
            let slot = Arc::new(Slot::default());
            cache.slots.push_back((position, Arc::clone(&slot)));
            let filler = Filler(Some(slot));
            let source = self.shared.source.clone();
            self.shared.runtime.spawn(async move {
                let content = source.fetch(position).await;
                filler.fill(content);
            });
            self.evict(cache);
        }
        match cache.slots.back() {
            Some((_, slot)) => Arc::clone(slot),
            None => Arc::default(),
        }
    }

    /// Drops the least recently used chunks beyond the capacity; by their size in the index, fetched or not.
    fn evict(&self, cache: &mut Cache) {
        let size = |position: usize| {
            self.shared
                .source
                .span(position)
                .map_or(0, |span| span.size())
        };
        let mut total: u64 = cache
            .slots
            .iter()
            .map(|(position, _)| size(*position))
            .sum();
        while total > self.shared.capacity && cache.slots.len() > READ_AHEAD + 1 {
            if let Some((position, _)) = cache.slots.pop_front() {
                total -= size(position).min(total);
            }
        }
    }

    /// Lets a failed fetch be tried again by the next reader.
    fn forget(&self, position: usize, failed: &Arc<Slot>) {
        self.shared
            .cache
            .lock()
            .slots
            .retain(|(at, slot)| *at != position || !Arc::ptr_eq(slot, failed));
    }
}

impl ReadAt for RemoteIndexReader {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if buf.is_empty() || offset >= self.size() {
            return Ok(0);
        }
        let source = &self.shared.source;
        let Some(position) = source.index().locate(offset) else {
            return Ok(0);
        };
        let span = source.span(position).map_err(ClientError::into_io)?;
        let chunk = self.chunk(position)?;
        let within = usize::try_from(offset.saturating_sub(span.start)).unwrap_or(usize::MAX);
        let rest = chunk.get(within..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let (Some(to), Some(from)) = (buf.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    fn size(&self) -> u64 {
        self.shared.source.index().size()
    }
}
