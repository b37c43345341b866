//! Where the archiver puts its streams. The upload pipeline implements these traits; so can a file.

use std::io::{self, Write};

use backstop_format::Digest;

/// A chunk of the previous snapshot's payload archive that is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReusedChunk {
    /// Digest of the chunk.
    pub digest: Digest,
    /// Plain length in bytes.
    pub size: u64,
    /// Of these, bytes that no file of the new archive refers to.
    pub padding: u64,
}

/// Takes the payload stream of a split archive.
pub trait PayloadSink: Write {
    /// The content of a file begins at this absolute offset of the stream: a good place for a chunk
    /// boundary. Offsets increase, and each comes before the bytes that stand there.
    fn suggest_boundary(&mut self, offset: u64) {
        let _ = offset;
    }

    /// Ends the current chunk here and puts these known chunks next into the stream; it then goes on
    /// behind them. All bytes written before belong in front.
    fn inject(&mut self, chunks: &[ReusedChunk]) -> io::Result<()>;
}

impl<T: PayloadSink + ?Sized> PayloadSink for &mut T {
    fn suggest_boundary(&mut self, offset: u64) {
        (**self).suggest_boundary(offset);
    }

    fn inject(&mut self, chunks: &[ReusedChunk]) -> io::Result<()> {
        (**self).inject(chunks)
    }
}

impl<T: PayloadSink + ?Sized> PayloadSink for Box<T> {
    fn suggest_boundary(&mut self, offset: u64) {
        (**self).suggest_boundary(offset);
    }

    fn inject(&mut self, chunks: &[ReusedChunk]) -> io::Result<()> {
        (**self).inject(chunks)
    }
}

/// Stands for the payload stream of archives that have none.
impl PayloadSink for io::Sink {
    fn inject(&mut self, _chunks: &[ReusedChunk]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A payload sink for places that know no chunks (a local file): nothing can be re-used.
#[derive(Debug)]
pub struct PlainPayload<W>(pub W);

impl<W: Write> Write for PlainPayload<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> PayloadSink for PlainPayload<W> {
    fn inject(&mut self, _chunks: &[ReusedChunk]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
