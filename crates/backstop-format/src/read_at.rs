//! Positioned reading: what random access to an archive or catalog needs from its source.
//!
//! A source may be a byte slice, a local file or a backup archive reassembled from chunks.
//! Nothing here caches or retries.

use std::fs::File;
use std::io;
use std::sync::Arc;

/// A byte source of known size that is read at absolute positions.
pub trait ReadAt {
    /// Reads up to `buf.len()` bytes at `offset`.
    ///
    /// Returns the number of bytes read, which may be less than asked for; 0 means that
    /// `offset` is at or behind the end (or that `buf` is empty).
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// The size in bytes.
    fn size(&self) -> u64;

    /// Fills `buf` completely from `offset`; `UnexpectedEof` when the source ends before.
    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read_at(buf, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    let rest = buf;
                    buf = rest.get_mut(n..).ok_or(io::ErrorKind::InvalidData)?;
                    offset = offset.saturating_add(n as u64);
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.get(offset..))
            .unwrap_or_default();
        let n = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        Ok(n)
    }

    fn size(&self) -> u64 {
        self.len() as u64
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.as_slice().read_at(buf, offset)
    }

    fn size(&self) -> u64 {
        self.len() as u64
    }
}

macro_rules! delegate {
    ($($pointer:ty),*) => {$(
        impl<T: ReadAt + ?Sized> ReadAt for $pointer {
            fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
                (**self).read_at(buf, offset)
            }

            fn size(&self) -> u64 {
                (**self).size()
            }

            fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
                (**self).read_exact_at(buf, offset)
            }
        }
    )*};
}

delegate!(&T, Box<T>, Arc<T>);

/// A local file with the size it had when it was wrapped.
#[derive(Debug)]
pub struct FileReadAt {
    file: File,
    size: u64,
}

impl FileReadAt {
    /// Wraps an open file; its size is asked once.
    pub fn new(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file, size })
    }
}

impl ReadAt for FileReadAt {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.file, buf, offset)
    }

    fn size(&self) -> u64 {
        self.size
    }
}

/// The part `start..end` of a source as a source of its own.
#[derive(Debug, Clone)]
pub struct Section<R> {
    source: R,
    start: u64,
    end: u64,
}

impl<R: ReadAt> Section<R> {
    /// The bytes `start..end` of `source`; `end` is cut to the source's size.
    pub fn new(source: R, start: u64, end: u64) -> Self {
        let end = end.min(source.size());
        Self {
            source,
            start: start.min(end),
            end,
        }
    }
}

impl<R: ReadAt> ReadAt for Section<R> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let Some(left) = self.size().checked_sub(offset) else {
            return Ok(0);
        };
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        match buf.get_mut(..n) {
            Some(buf) if n > 0 => self.source.read_at(buf, self.start.saturating_add(offset)),
            _ => Ok(0),
        }
    }

    fn size(&self) -> u64 {
        self.end - self.start
    }
}

/// Reads a source from a position onwards, as [`io::Read`] and [`io::Seek`].
#[derive(Debug, Clone)]
pub struct SequentialReader<R> {
    source: R,
    position: u64,
}

impl<R: ReadAt> SequentialReader<R> {
    /// A reader that starts at the first byte.
    pub fn new(source: R) -> Self {
        Self {
            source,
            position: 0,
        }
    }
}

impl<R: ReadAt> io::Read for SequentialReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read_at(buf, self.position)?;
        self.position = self.position.saturating_add(n as u64);
        Ok(n)
    }
}

impl<R: ReadAt> io::Seek for SequentialReader<R> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let position = match to {
            io::SeekFrom::Start(position) => Some(position),
            io::SeekFrom::Current(by) => self.position.checked_add_signed(by),
            io::SeekFrom::End(by) => self.source.size().checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::io::{Read, Seek};

    #[test]
    fn a_section_shows_nothing_outside_its_bounds() {
        let section = Section::new(b"0123456789".to_vec(), 3, 7);
        let mut buf = [0u8; 16];
        assert_eq!(section.size(), 4);
        assert_eq!(section.read_at(&mut buf, 0).unwrap(), 4);
        assert_eq!(&buf[..4], b"3456");
        assert_eq!(section.read_at(&mut buf, 3).unwrap(), 1);
        assert_eq!(section.read_at(&mut buf, 4).unwrap(), 0);
        assert_eq!(section.read_at(&mut buf, u64::MAX).unwrap(), 0);
        assert!(section.read_exact_at(&mut buf[..5], 0).is_err());
    }

    #[test]
    fn sequential_reading_and_seeking_agree_with_the_source() {
        let mut reader = SequentialReader::new(b"hello world".to_vec());
        reader.seek(io::SeekFrom::End(-5)).unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "world");
        assert!(reader.seek(io::SeekFrom::Current(-100)).is_err());
    }
}
