//! Reads disk images: files, block devices and pipes, in chunks of fixed size.
//!
//! Holes are not read. Pages that were not in the page cache before are dropped from it afterwards, so that a backup
//! does not push out what the host works with.

use std::fs::File;
use std::io::{self, IoSliceMut, Read as _};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, SeekFrom, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::chunk_stage::Feeder;
use crate::error::{ClientError, Result};

/// An opened image.
#[derive(Debug)]
pub(crate) struct ImageSource {
    file: File,
    path: PathBuf,
    /// Size in bytes; unknown for a pipe.
    size: Option<u64>,
    /// Whether the file system can tell holes from data.
    sparse: bool,
}

impl ImageSource {
    /// Opens a regular file, block device or FIFO.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |what: &'static str| {
            move |source: io::Error| ClientError::File {
                what,
                path: path.to_owned(),
                source,
            }
        };
        let mut file = File::open(path).map_err(failed("opening"))?;
        let metadata = file
            .metadata()
            .map_err(failed("reading the attributes of"))?;
        let kind = metadata.file_type();
        let (size, sparse) = if kind.is_file() {
            (Some(metadata.len()), true)
        } else if kind.is_block_device() {
            let size = io::Seek::seek(&mut file, io::SeekFrom::End(0))
                .map_err(failed("finding the size of"))?;
            (Some(size), false)
        } else if kind.is_fifo() {
            (None, false)
        } else {
            return Err(ClientError::Invalid(format!(
                "'{}' is neither a regular file nor a block device nor a pipe",
                path.display()
            )));
        };
        if size == Some(0) {
            return Err(ClientError::Invalid(format!(
                "got zero-sized file '{}'",
                path.display()
            )));
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            size,
            sparse,
        })
    }

    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Feeds the whole image; returns its size. Blocks.
    ///
    /// # Errors
    /// Reading fails, the image became shorter meanwhile, or the upload has failed.
    pub fn feed(mut self, feeder: &mut Feeder, chunk_size: usize) -> Result<u64> {
        match self.size {
            Some(size) => self.feed_sized(feeder, chunk_size, size).map(|()| size),
            None => self.feed_pipe(feeder, chunk_size),
        }
    }

    fn feed_sized(&self, feeder: &mut Feeder, chunk_size: usize, size: u64) -> Result<()> {
        // A hint only.
        let _ = fadvise(&self.file, 0, None, Advice::Sequential);
        let mut data = Extent::default();
        let mut offset = 0;
        while offset < size {
            let length = (size - offset).min(chunk_size as u64);
            if self.sparse && data.is_hole(&self.file, offset, offset + length) {
                feeder.feed_zeros(length)?;
            } else {
                // At most one chunk.
                let mut buffer =
                    feeder.buffer_to_fill(usize::try_from(length).unwrap_or(chunk_size));
                self.read_at(&mut buffer, offset)?;
                feeder.feed(buffer)?;
            }
            offset += length;
        }
        // Behind the end of a file that became shorter there seem to be holes.
        let shrunk = self.sparse
            && self
                .file
                .metadata()
                .is_ok_and(|metadata| metadata.len() < size);
        if shrunk {
            return Err(self.read_failed(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let was_cached = match preadv2(
            &self.file,
            &mut [IoSliceMut::new(buffer)],
            offset,
            ReadWriteFlags::NOWAIT,
        ) {
            Ok(count) if count == buffer.len() => return Ok(()),
            Ok(count) => count,
            Err(_) => 0,
        };
        let rest = buffer.get_mut(was_cached..).unwrap_or_default();
        self.file
            .read_exact_at(rest, offset + was_cached as u64)
            .map_err(|error| self.read_failed(error))?;
        if let Some(length) = std::num::NonZeroU64::new(buffer.len() as u64) {
            let _ = fadvise(&self.file, offset, Some(length), Advice::DontNeed);
        }
        Ok(())
    }

    fn feed_pipe(&mut self, feeder: &mut Feeder, chunk_size: usize) -> Result<u64> {
        let mut total = 0;
        loop {
            let mut buffer = feeder.buffer(chunk_size);
            let count = (&mut self.file)
                .take(chunk_size as u64)
                .read_to_end(&mut buffer)
                .map_err(|error| self.read_failed(error))?;
            total += count as u64;
            if count > 0 {
                feeder.feed(buffer)?;
            }
            if count < chunk_size {
                break;
            }
        }
        if total == 0 {
            return Err(ClientError::Invalid(format!(
                "got no data from '{}'",
                self.path.display()
            )));
        }
        Ok(total)
    }

    fn read_failed(&self, error: io::Error) -> ClientError {
        let source = if error.kind() == io::ErrorKind::UnexpectedEof {
            io::Error::new(error.kind(), "the image became shorter while it was read")
        } else {
            error
        };
        ClientError::File {
            what: "reading",
            path: self.path.clone(),
            source,
        }
    }
}

/// The next stretch of data in a sparse file, as far as it has been looked up.
#[derive(Debug, Default)]
struct Extent {
    /// Nothing but holes lies between where the look-up began and here.
    data_start: u64,
    looked_from: Option<u64>,
}

impl Extent {
    /// Whether `[start, end)` is a hole entirely.
    fn is_hole(&mut self, file: &File, start: u64, end: u64) -> bool {
        let valid = self.looked_from.is_some_and(|from| from <= start) && start <= self.data_start;
        if !valid {
            self.looked_from = Some(start);
            self.data_start = match rustix::fs::seek(file, SeekFrom::Data(start)) {
                Ok(data) => data,
                // No more data at all.
                Err(Errno::NXIO) => u64::MAX,
                // The file system cannot tell.
                Err(_) => start,
            };
        }
        self.data_start >= end
    }
}
