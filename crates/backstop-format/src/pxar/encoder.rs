//! Writing archives from front to back.
//!
//! Children of a directory should be added in ascending byte order of their names; the encoder does
//! not reorder them. Metadata is collected in a small buffer, so the sinks see few large writes.

use std::io::{self, Write};

use super::attributes::put_metadata;
use super::entry::{Device, Metadata};
use super::goodbye::{Slot, put_table};
use super::item::{self, HEADER_SIZE, put_header};
use super::{PxarError, Result, name_hash};

const BUFFER: usize = 128 * 1024;
/// Content writes from this size on bypass the buffer.
const DIRECT_WRITE: usize = 16 * 1024;

/// Where a file begins in the metadata stream: what a hard link to it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkOffset(u64);

struct Stream<W> {
    sink: W,
    buffer: Vec<u8>,
    /// Bytes before the start of `buffer`.
    flushed: u64,
}

impl<W: Write> Stream<W> {
    fn new(sink: W) -> Self {
        Self {
            sink,
            buffer: Vec::with_capacity(BUFFER),
            flushed: 0,
        }
    }

    fn position(&self) -> u64 {
        self.flushed.saturating_add(self.buffer.len() as u64)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.sink.write_all(&self.buffer)?;
            self.flushed = self.position();
            self.buffer.clear();
        }
        Ok(())
    }

    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.buffer.len() >= BUFFER {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn content(&mut self, data: &[u8]) -> io::Result<()> {
        if data.len() < DIRECT_WRITE && self.buffer.len() + data.len() <= BUFFER {
            self.buffer.extend_from_slice(data);
            return Ok(());
        }
        self.flush()?;
        self.sink.write_all(data)?;
        self.flushed = self.flushed.saturating_add(data.len() as u64);
        Ok(())
    }
}

struct OpenDirectory {
    /// Position of the FILENAME header (root: 0).
    filename: u64,
    /// Position of the directory's first item (root: 0).
    start: u64,
    hash: u64,
    /// Children; offsets are absolute positions until the table is written.
    children: Vec<Slot>,
}

/// Writes one archive: version 1 into `W`, or version 2 with metadata into `W` and file contents into `P`.
pub struct Encoder<W, P = io::Sink> {
    archive: Stream<W>,
    payload: Option<Stream<P>>,
    directories: Vec<OpenDirectory>,
    /// Set while a file's content is incomplete, and after a failed write.
    unfinished: bool,
    last_reference: u64,
}

impl<W: Write> Encoder<W> {
    /// Begins a version 1 archive whose root directory has `root` as metadata.
    pub fn new(archive: W, root: &Metadata) -> Result<Self> {
        Self::begin(archive, None, root, None)
    }
}

impl<W: Write, P: Write> Encoder<W, P> {
    /// Begins a version 2 (split) archive. `prelude` is stored as it is; at most 16 MiB.
    pub fn split(archive: W, payload: P, root: &Metadata, prelude: Option<&[u8]>) -> Result<Self> {
        Self::begin(archive, Some(payload), root, prelude)
    }

    fn begin(
        archive: W,
        payload: Option<P>,
        root: &Metadata,
        prelude: Option<&[u8]>,
    ) -> Result<Self> {
        let mut archive = Stream::new(archive);
        let out = &mut archive.buffer;
        let payload = payload.map(|sink| {
            put_header(out, item::FORMAT_VERSION, 8);
            out.extend_from_slice(&2u64.to_le_bytes());
            let mut payload = Stream::new(sink);
            put_header(&mut payload.buffer, item::PAYLOAD_START_MARKER, 0);
            payload
        });
        if let Some(prelude) = prelude {
            if prelude.len() as u64 > item::MAX_PRELUDE {
                return Err(PxarError::Usage("the prelude is larger than 16 MiB"));
            }
            put_header(out, item::PRELUDE, prelude.len() as u64);
            out.extend_from_slice(prelude);
        }
        put_metadata(out, root, b"/")?;
        let directories = vec![OpenDirectory {
            filename: 0,
            start: 0,
            hash: 0,
            children: Vec::new(),
        }];
        Ok(Self {
            archive,
            payload,
            directories,
            unfinished: false,
            last_reference: 0,
        })
    }

    /// Bytes written to the metadata stream so far (version 1: to the archive).
    pub fn position(&self) -> u64 {
        self.archive.position()
    }

    /// Bytes of the payload stream so far, that is the position of the next PAYLOAD header;
    /// `None` in version 1. Some of them may still be in the encoder's buffer.
    pub fn payload_position(&self) -> Option<u64> {
        self.payload.as_ref().map(Stream::position)
    }

    /// The payload sink, for side information such as suggested chunk boundaries. Bytes written to
    /// it directly corrupt the archive.
    pub fn payload_sink(&mut self) -> Option<&mut P> {
        self.payload.as_mut().map(|payload| &mut payload.sink)
    }

    /// Hands all buffered bytes to the sinks (without flushing the sinks themselves).
    pub fn flush(&mut self) -> Result<()> {
        let position = self.position();
        self.archive
            .flush()
            .map_err(|err| PxarError::io("writing", position, err))?;
        if let Some(payload) = &mut self.payload {
            let position = payload.position();
            payload
                .flush()
                .map_err(|err| PxarError::io("writing payload", position, err))?;
        }
        Ok(())
    }

    /// Accounts for `bytes` that the payload sink has put into the payload stream by itself at the
    /// current position (re-used chunks). Call [`Encoder::flush`] before the sink does so.
    pub fn advance_payload(&mut self, bytes: u64) -> Result<()> {
        let payload = self
            .payload
            .as_mut()
            .ok_or(PxarError::Usage("no payload stream"))?;
        if !payload.buffer.is_empty() {
            return Err(PxarError::Usage(
                "payload bytes injected before the buffer was flushed",
            ));
        }
        payload.flushed = payload.flushed.checked_add(bytes).ok_or(PxarError::Usage(
            "the payload stream is larger than 2^64 bytes",
        ))?;
        Ok(())
    }

    /// Adds a regular file of exactly `size` bytes, which are then written to the returned writer.
    pub fn create_file(
        &mut self,
        metadata: &Metadata,
        name: &[u8],
        size: u64,
    ) -> Result<FileWriter<'_, W, P>> {
        if size > u64::MAX - HEADER_SIZE {
            return Err(PxarError::Unstorable {
                name: name.to_vec(),
                problem: "file is too large",
            });
        }
        let start = self.begin_child(metadata, name)?;
        match &mut self.payload {
            None => put_header(&mut self.archive.buffer, item::PAYLOAD, size),
            Some(payload) => {
                let reference = payload.position();
                put_header(&mut payload.buffer, item::PAYLOAD, size);
                put_reference(&mut self.archive.buffer, reference, size);
                self.last_reference = reference;
            }
        }
        self.unfinished = true;
        Ok(FileWriter {
            left: size,
            size,
            start,
            hash: name_hash(name),
            encoder: self,
        })
    }

    /// Adds a regular file whose PAYLOAD item already stands (or will stand) at `offset` in the
    /// payload stream. Offsets must increase strictly from file to file.
    pub fn add_payload_ref(
        &mut self,
        metadata: &Metadata,
        name: &[u8],
        size: u64,
        offset: u64,
    ) -> Result<LinkOffset> {
        if self.payload.is_none() {
            return Err(PxarError::Usage("no payload stream"));
        }
        if offset <= self.last_reference || offset < HEADER_SIZE {
            return Err(PxarError::Usage("payload references must increase"));
        }
        let start = self.begin_child(metadata, name)?;
        put_reference(&mut self.archive.buffer, offset, size);
        self.last_reference = offset;
        self.end_child(start, name_hash(name), 0)?;
        Ok(LinkOffset(start))
    }

    /// Adds a symbolic link.
    pub fn add_symlink(&mut self, metadata: &Metadata, name: &[u8], target: &[u8]) -> Result<()> {
        if target.len() > item::MAX_LINK_TARGET || target.contains(&0) {
            let problem = "the link target is too long or contains NUL";
            return Err(PxarError::Unstorable {
                name: name.to_vec(),
                problem,
            });
        }
        let start = self.begin_child(metadata, name)?;
        let out = &mut self.archive.buffer;
        put_header(out, item::SYMLINK, target.len() as u64 + 1);
        out.extend_from_slice(target);
        out.push(0);
        self.end_child(start, name_hash(name), 0)
    }

    /// Adds a further name of a file added before; `target` is that file's path relative to the
    /// archive root, without leading slash.
    pub fn add_hardlink(&mut self, name: &[u8], target: &[u8], link: LinkOffset) -> Result<()> {
        let unstorable = |problem| PxarError::Unstorable {
            name: name.to_vec(),
            problem,
        };
        if target.is_empty() || target.len() > item::MAX_LINK_TARGET || target.contains(&0) {
            return Err(unstorable(
                "the path of the hard link's target is empty, too long or contains NUL",
            ));
        }
        let offset = self
            .position()
            .checked_sub(link.0)
            .filter(|&offset| offset > 0);
        let offset = offset.ok_or(unstorable("the hard link's target does not come before it"))?;
        let start = self.begin_name(name)?;
        let out = &mut self.archive.buffer;
        put_header(out, item::HARDLINK, target.len() as u64 + 9);
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(target);
        out.push(0);
        self.end_child(start, name_hash(name), 0)
    }

    /// Adds a block or character device; `metadata` holds the matching mode.
    pub fn add_device(&mut self, metadata: &Metadata, name: &[u8], device: Device) -> Result<()> {
        let start = self.begin_child(metadata, name)?;
        let out = &mut self.archive.buffer;
        put_header(out, item::DEVICE, 16);
        out.extend_from_slice(&device.major.to_le_bytes());
        out.extend_from_slice(&device.minor.to_le_bytes());
        self.end_child(start, name_hash(name), 0)
    }

    /// Adds a fifo or socket; `metadata` holds the matching mode.
    pub fn add_special(&mut self, metadata: &Metadata, name: &[u8]) -> Result<()> {
        let start = self.begin_child(metadata, name)?;
        self.end_child(start, name_hash(name), 0)
    }

    /// Begins a directory; its children follow until [`Encoder::finish_directory`].
    pub fn create_directory(&mut self, metadata: &Metadata, name: &[u8]) -> Result<()> {
        if self.directories.len() >= item::MAX_DEPTH {
            let (limit, position) = (item::MAX_DEPTH as u64, self.position());
            return Err(PxarError::Limit {
                what: "nested directories",
                limit,
                position,
            });
        }
        let filename = self.begin_child(metadata, name)?;
        let start = filename.saturating_add(HEADER_SIZE + name.len() as u64 + 1);
        self.directories.push(OpenDirectory {
            filename,
            start,
            hash: name_hash(name),
            children: Vec::new(),
        });
        self.flush_if_full()
    }

    /// Ends the directory begun last.
    pub fn finish_directory(&mut self) -> Result<()> {
        if self.directories.len() < 2 {
            return Err(PxarError::Usage("no directory is open"));
        }
        if let Some(directory) = self.end_directory()? {
            self.end_child(directory.filename, directory.hash, 0)?;
        }
        Ok(())
    }

    /// Ends the archive and returns its sinks; all directories must be finished.
    pub fn finish(mut self) -> Result<(W, Option<P>)> {
        if self.directories.len() != 1 {
            return Err(PxarError::Usage("a directory is not finished"));
        }
        self.end_directory()?;
        if let Some(payload) = &mut self.payload {
            put_header(&mut payload.buffer, item::PAYLOAD_TAIL_MARKER, 0);
        }
        self.flush()?;
        Ok((self.archive.sink, self.payload.map(|payload| payload.sink)))
    }

    fn end_directory(&mut self) -> Result<Option<OpenDirectory>> {
        self.check_finished()?;
        let position = self.position();
        let mut directory = self.directories.pop();
        if let Some(directory) = &mut directory {
            put_table(
                &mut self.archive.buffer,
                &mut directory.children,
                position,
                directory.start,
            );
        }
        Ok(directory)
    }

    fn check_finished(&self) -> Result<()> {
        match self.unfinished {
            true => Err(PxarError::Usage("the content of a file is incomplete")),
            false => Ok(()),
        }
    }

    fn begin_name(&mut self, name: &[u8]) -> Result<u64> {
        self.check_finished()?;
        if !item::is_valid_name(name) {
            return Err(PxarError::Unstorable {
                name: name.to_vec(),
                problem: "invalid file name",
            });
        }
        let start = self.position();
        let out = &mut self.archive.buffer;
        put_header(out, item::FILENAME, name.len() as u64 + 1);
        out.extend_from_slice(name);
        out.push(0);
        Ok(start)
    }

    fn begin_child(&mut self, metadata: &Metadata, name: &[u8]) -> Result<u64> {
        let length = self.archive.buffer.len();
        let start = self.begin_name(name)?;
        if let Err(err) = put_metadata(&mut self.archive.buffer, metadata, name) {
            self.archive.buffer.truncate(length);
            return Err(err);
        }
        Ok(start)
    }

    /// Records a finished child; `extra` is content that lies in the payload stream.
    fn end_child(&mut self, start: u64, hash: u64, extra: u64) -> Result<()> {
        let size = self.position().saturating_sub(start).saturating_add(extra);
        match self.directories.last_mut() {
            Some(directory) => directory.children.push(Slot {
                hash,
                offset: start,
                size,
            }),
            None => return Err(PxarError::Usage("the archive is finished")),
        }
        self.flush_if_full()
    }

    fn flush_if_full(&mut self) -> Result<()> {
        let position = self.position();
        self.archive
            .flush_if_full()
            .map_err(|err| PxarError::io("writing", position, err))
    }
}

fn put_reference(out: &mut Vec<u8>, offset: u64, size: u64) {
    put_header(out, item::PAYLOAD_REF, 16);
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&size.to_le_bytes());
}

/// Takes the content of one file. Must be [finished](FileWriter::finish) after exactly the
/// announced number of bytes; dropped before that, it leaves an archive that cannot be continued.
pub struct FileWriter<'a, W, P> {
    encoder: &'a mut Encoder<W, P>,
    left: u64,
    size: u64,
    start: u64,
    hash: u64,
}

impl<W: Write, P: Write> FileWriter<'_, W, P> {
    /// Bytes still to be written.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Ends the file. Fails when bytes are missing.
    pub fn finish(self) -> Result<LinkOffset> {
        if self.left > 0 {
            return Err(PxarError::Usage(
                "the content of a file is shorter than announced",
            ));
        }
        self.encoder.unfinished = false;
        let extra = if self.encoder.payload.is_some() {
            self.size
        } else {
            0
        };
        self.encoder.end_child(self.start, self.hash, extra)?;
        Ok(LinkOffset(self.start))
    }
}

impl<W: Write, P: Write> Write for FileWriter<'_, W, P> {
    /// Writes all of `data`; an error when that is more than announced.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(data.len() as u64);
        let left = left.ok_or_else(|| io::Error::other("more file content than announced"))?;
        match &mut self.encoder.payload {
            Some(payload) => payload.content(data)?,
            None => self.encoder.archive.content(data)?,
        }
        self.left = left;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
