//! A byte stream that is cut into chunks by content on a thread of its own.
//!
//! The archiver writes, the chunker thread cuts ahead of the workers. Suggested cuts and chunks taken over from the
//! previous snapshot travel in the stream, so that they take effect exactly where they were written.

use std::io::{self, Write};
use std::thread::JoinHandle;

use backstop_format::chunker::PayloadChunker;

use super::chunk_stage::Feeder;
use crate::archive::{PayloadSink, ReusedChunk};
use crate::error::{ClientError, Result};

/// Size of the blocks that are handed to the chunker thread.
const BLOCK_SIZE: usize = 1 << 20;

/// Blocks under way to the chunker thread.
const BLOCKS_AHEAD: usize = 4;

enum Message {
    Data(Block),
    Inject(Vec<ReusedChunk>),
    End,
}

/// A piece of the stream, and the cuts that were proposed while it was written.
#[derive(Default)]
struct Block {
    data: Vec<u8>,
    suggestions: Vec<u64>,
}

/// The writing end of a stream. Dropped without [`ChunkSink::finish`], the stream counts as failed.
pub(crate) struct ChunkSink {
    messages: flume::Sender<Message>,
    empty: flume::Receiver<Block>,
    block: Block,
}

/// The chunker thread of a stream.
pub(crate) struct ChunkerThread {
    thread: JoinHandle<Result<()>>,
}

impl ChunkerThread {
    /// Waits for the thread. Blocks.
    ///
    /// # Errors
    /// The stream was not finished, or feeding the stage failed.
    pub fn join(self) -> Result<()> {
        self.thread.join().unwrap_or_else(|_| {
            Err(ClientError::Invalid(
                "internal error: the chunker panicked".to_owned(),
            ))
        })
    }
}

/// Starts a chunker thread; `average` is the average chunk size in bytes.
pub(crate) fn chunk_stream(feeder: Feeder, average: usize) -> Result<(ChunkSink, ChunkerThread)> {
    let (messages, received) = flume::bounded(BLOCKS_AHEAD);
    let (recycle, empty) = flume::bounded(BLOCKS_AHEAD + 2);
    let thread = std::thread::Builder::new()
        .name("chunker".to_owned())
        .spawn(move || cut(feeder, average, &received, &recycle))?;
    let sink = ChunkSink {
        messages,
        empty,
        block: Block::default(),
    };
    Ok((sink, ChunkerThread { thread }))
}

impl ChunkSink {
    /// Ends the stream.
    pub fn finish(mut self) -> io::Result<()> {
        self.hand_over()?;
        self.send(Message::End)
    }

    fn hand_over(&mut self) -> io::Result<()> {
        if self.block.data.is_empty() && self.block.suggestions.is_empty() {
            return Ok(());
        }
        let next = self.empty.try_recv().unwrap_or_default();
        let block = std::mem::replace(&mut self.block, next);
        self.send(Message::Data(block))
    }

    fn send(&self, message: Message) -> io::Result<()> {
        // The chunker thread ends early only when the backup has failed; its own error tells why.
        self.messages
            .send(message)
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the upload has failed"))
    }
}

impl Write for ChunkSink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let block = &mut self.block.data;
        block.reserve_exact(BLOCK_SIZE.saturating_sub(block.len()));
        let room = BLOCK_SIZE.saturating_sub(block.len());
        let piece = data.get(..room.min(data.len())).unwrap_or(data);
        block.extend_from_slice(piece);
        if block.len() >= BLOCK_SIZE {
            self.hand_over()?;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PayloadSink for ChunkSink {
    fn suggest_boundary(&mut self, offset: u64) {
        self.block.suggestions.push(offset);
    }

    fn inject(&mut self, chunks: &[ReusedChunk]) -> io::Result<()> {
        self.hand_over()?;
        self.send(Message::Inject(chunks.to_vec()))
    }
}

fn cut(
    mut feeder: Feeder,
    average: usize,
    messages: &flume::Receiver<Message>,
    recycle: &flume::Sender<Block>,
) -> Result<()> {
    let mut chunker = PayloadChunker::new(average);
    let mut chunk = feeder.buffer(average);
    loop {
        match messages.recv() {
            Ok(Message::Data(mut block)) => {
                block
                    .suggestions
                    .drain(..)
                    .for_each(|offset| chunker.suggest(offset));
                let mut rest = block.data.as_slice();
                while !rest.is_empty() {
                    let (piece, after, ended) = match chunker.scan(rest) {
                        Some(length) => {
                            let (piece, after) =
                                rest.split_at_checked(length).unwrap_or((rest, &[]));
                            (piece, after, true)
                        }
                        None => (rest, &[][..], false),
                    };
                    chunk.extend_from_slice(piece);
                    rest = after;
                    if ended {
                        feed(&mut feeder, &mut chunk, average)?;
                    }
                }
                block.data.clear();
                // A full return queue only means that there are blocks enough.
                let _ = recycle.try_send(block);
            }
            Ok(Message::Inject(chunks)) => {
                feed(&mut feeder, &mut chunk, average)?;
                for ReusedChunk { digest, size, .. } in chunks {
                    feeder.feed_known(digest, size)?;
                    chunker.inject(size);
                }
            }
            Ok(Message::End) => return feed(&mut feeder, &mut chunk, average),
            // The sink was dropped: its owner failed and reports why.
            Err(_) => return Err(ClientError::Cancelled),
        }
    }
}

/// Hands over the chunk, unless it is empty, and starts a new one.
fn feed(feeder: &mut Feeder, chunk: &mut Vec<u8>, average: usize) -> Result<()> {
    if chunk.is_empty() {
        return Ok(());
    }
    let next = feeder.buffer(average);
    feeder.feed(std::mem::replace(chunk, next))
}
