//! An archive as one byte stream, read ahead: many chunks are fetched and decoded at once and delivered in order.
//!
//! Implements [`Read`] and [`Seek`], for threads only: reading blocks. An error is delivered at its place in the stream; a
//! stream that ends early is an error, never an end.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backstop_format::index::ChunkIndex as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::ChunkSource;
use crate::error::{ClientError, Result};

/// Chunks under way at most.
const MAX_CHUNKS_AHEAD: usize = 32;

/// Bytes of chunks under way at most, decoded; one chunk is always allowed.
const MAX_BYTES_AHEAD: u64 = 64 << 20;

/// Decoded chunks that wait for the reader beyond those under way.
const DELIVERED: usize = 2;

/// A seek forward over at most this many bytes waits for the chunks on the way instead of starting anew.
const SHORT_SEEK: u64 = 16 << 20;

/// How much is fetched ahead at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadAhead {
    /// All of the archive will be read.
    Full,
    /// Parts will be read: start with one chunk and fetch more ahead the longer the reader goes on without a seek.
    Growing,
}

/// A sequential reader of an archive.
pub struct ArchiveStream {
    source: ChunkSource,
    runtime: Handle,
    read_ahead: ReadAhead,
    chunks: mpsc::Receiver<Result<Vec<u8>>>,
    current: Vec<u8>,
    /// Position in the current chunk.
    within: usize,
    /// Offset in the archive of the current chunk's end.
    end: u64,
    delivered: Arc<AtomicU64>,
}

impl ArchiveStream {
    /// Starts fetching the whole archive on the given runtime.
    pub fn start(source: ChunkSource, runtime: &Handle) -> Self {
        Self::with_read_ahead(source, runtime, ReadAhead::Full)
    }

    /// Starts fetching from the beginning of the archive on the given runtime.
    pub fn with_read_ahead(source: ChunkSource, runtime: &Handle, read_ahead: ReadAhead) -> Self {
        let chunks = start_fetching(&source, runtime, read_ahead, 0);
        Self {
            source,
            runtime: runtime.clone(),
            read_ahead,
            chunks,
            current: Vec::new(),
            within: 0,
            end: 0,
            delivered: Arc::default(),
        }
    }

    /// A counter of the bytes of chunks that the reader has got so far.
    pub fn delivered(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.delivered)
    }

    /// The rest of the current chunk or the whole next one; `None` at the end of the archive.
    ///
    /// # Errors
    /// Network failures and damaged data.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>> {
        if self.within >= self.current.len() && !self.advance()? {
            return Ok(None);
        }
        let chunk = std::mem::take(&mut self.current);
        let within = std::mem::take(&mut self.within);
        Ok(Some(if within == 0 {
            chunk
        } else {
            chunk.get(within..).unwrap_or_default().to_vec()
        }))
    }

    /// Takes back the buffer of a chunk, for the next ones.
    pub fn recycle(&self, chunk: Vec<u8>) {
        self.source.recycle(chunk);
    }

    /// Waits for the next chunk; `false` at the end.
    fn advance(&mut self) -> Result<bool> {
        match self.chunks.blocking_recv() {
            Some(chunk) => {
                let read = std::mem::replace(&mut self.current, chunk?);
                self.source.recycle(read);
                self.within = 0;
                self.end += self.current.len() as u64;
                self.delivered
                    .fetch_add(self.current.len() as u64, Ordering::Relaxed);
                Ok(true)
            }
            None if self.end < self.source.index().size() => {
                Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
            }
            None => Ok(false),
        }
    }

    fn position(&self) -> u64 {
        let left = self.current.len().saturating_sub(self.within);
        self.end.saturating_sub(left as u64)
    }

    /// Continues at an absolute offset of at most the archive's size.
    fn go_to(&mut self, target: u64) -> Result<()> {
        let start = self.end.saturating_sub(self.current.len() as u64);
        if target < start || target > self.end.saturating_add(SHORT_SEEK) {
            let first = self.source.index().locate(target);
            let first = first.unwrap_or_else(|| self.source.index().chunk_count());
            self.chunks = start_fetching(&self.source, &self.runtime, self.read_ahead, first);
            self.current.clear();
            self.end = match self.source.index().chunk(first) {
                Some(span) => span.start,
                None => self.source.index().size(),
            };
        }
        while self.end < target && self.advance()? {}
        let back = usize::try_from(self.end.saturating_sub(target)).unwrap_or(usize::MAX);
        self.within = self.current.len().saturating_sub(back);
        Ok(())
    }
}

fn start_fetching(
    source: &ChunkSource,
    runtime: &Handle,
    read_ahead: ReadAhead,
    first: usize,
) -> mpsc::Receiver<Result<Vec<u8>>> {
    let (sender, chunks) = mpsc::channel(DELIVERED);
    runtime.spawn(fetch_in_order(source.clone(), sender, read_ahead, first));
    chunks
}

/// A fetch on a task of its own, so that it goes on while others are waited for; ends when dropped.
struct Fetch {
    task: JoinHandle<Result<Vec<u8>>>,
    size: u64,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn fetch_in_order(
    source: ChunkSource,
    sender: mpsc::Sender<Result<Vec<u8>>>,
    read_ahead: ReadAhead,
    first: usize,
) {
    let count = source.index().chunk_count();
    let mut next = first;
    let mut window = match read_ahead {
        ReadAhead::Full => MAX_CHUNKS_AHEAD,
        ReadAhead::Growing => 1,
    };
    let mut bytes: u64 = 0;
    let mut fetches: VecDeque<Fetch> = VecDeque::new();
    loop {
        while next < count
            && fetches.len() < window
            && (bytes < MAX_BYTES_AHEAD || fetches.is_empty())
        {
            let size = source.span(next).map_or(0, |span| span.size());
            let (source, position) = (source.clone(), next);
            let task = tokio::spawn(async move { source.fetch(position).await });
            fetches.push_back(Fetch { task, size });
            bytes += size;
            next += 1;
        }
        let Some(mut fetch) = fetches.pop_front() else {
            return;
        };
        let chunk = tokio::select! {
            chunk = &mut fetch.task => chunk.unwrap_or(Err(ClientError::Cancelled)),
            () = sender.closed() => return,
        };
        bytes -= fetch.size.min(bytes);
        let failed = chunk.is_err();
        window = (window * 2).min(MAX_CHUNKS_AHEAD);
        if sender.send(chunk).await.is_err() || failed {
            return;
        }
    }
}

impl Read for ArchiveStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        while self.within >= self.current.len() {
            if !self.advance().map_err(ClientError::into_io)? {
                return Ok(0);
            }
        }
        let rest = self.current.get(self.within..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.within += count;
        Ok(count)
    }
}

impl Seek for ArchiveStream {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let size = self.source.index().size();
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(offset) => self.position().checked_add_signed(offset),
            SeekFrom::End(offset) => size.checked_add_signed(offset),
        };
        let target = target.filter(|target| *target <= size).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "seek outside of the archive")
        })?;
        self.go_to(target).map_err(ClientError::into_io)?;
        Ok(target)
    }
}
