//! Reading archives from front to back.
//!
//! Memory use is bounded: one entry, the names of the open directories (at most
//! [`MAX_DEPTH`](super::item::MAX_DEPTH)) and a fixed buffer. Sources are read in small pieces:
//! give a buffered reader where a read is a system call.

use std::io::{self, Empty, Read, Seek, SeekFrom};

use super::attributes::ItemReader;
use super::entry::{Entry, EntryKind, Metadata, PayloadPlace};
use super::item::{self, Header, MAX_DEPTH};
use super::{PxarError, Result};

/// What the archive holds next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all events are entries")]
pub enum Event {
    /// An entry. After a directory its children follow, then [`Event::Leave`]. The first event is
    /// the root directory, with an empty name.
    Entry(Entry),
    /// The directory entered last ends.
    Leave,
}

type Skip<R> = fn(&mut R, from: u64, to: u64) -> io::Result<()>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    InTree,
    Done,
    Failed,
}

/// Sequential reader of both versions.
pub struct Decoder<R, P = Empty> {
    archive: ItemReader<R>,
    skip_archive: Skip<R>,
    payload: Option<ItemReader<P>>,
    skip_payload: Skip<P>,
    state: State,
    depth: usize,
    pending: Option<Header>,
    /// The file whose content can be read now.
    content: Option<Content>,
    prelude: Option<Vec<u8>>,
    version: u8,
    payload_started: bool,
}

#[derive(Debug, Clone, Copy)]
struct Content {
    place: PayloadPlace,
    size: u64,
    /// For inline content: position behind it.
    end: u64,
    /// Bytes not read yet; content that was never opened has all of them.
    left: u64,
    opened: bool,
}

impl<R: Read> Decoder<R> {
    /// Reads an archive of one stream, or only the metadata of a split archive.
    pub fn new(archive: R) -> Self {
        Self::build(archive, skip_reading, None, skip_reading)
    }
}

impl<R: Read, P: Read> Decoder<R, P> {
    /// Reads a split archive. Contents not asked for are read over.
    pub fn split(archive: R, payload: P) -> Self {
        Self::build(archive, skip_reading, Some(payload), skip_reading)
    }

    /// Reads a split archive, seeking in the payload stream over what is not asked for. Contents
    /// may then also lie before ones already read.
    pub fn split_seekable(archive: R, payload: P) -> Self
    where
        P: Seek,
    {
        Self::build(archive, skip_reading, Some(payload), skip_seeking)
    }

    fn build(archive: R, skip_archive: Skip<R>, payload: Option<P>, skip_payload: Skip<P>) -> Self {
        Self {
            archive: ItemReader {
                inner: archive,
                position: 0,
            },
            skip_archive,
            payload: payload.map(|inner| ItemReader { inner, position: 0 }),
            skip_payload,
            state: State::Start,
            depth: 0,
            pending: None,
            content: None,
            prelude: None,
            version: 1,
            payload_started: false,
        }
    }

    /// Lets the decoder seek in the archive over contents that are not asked for.
    pub fn seek_over_contents(mut self) -> Self
    where
        R: Seek,
    {
        self.skip_archive = skip_seeking;
        self
    }

    /// Format version: 1, or 2 once the first event of a split archive was read.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// The prelude, available after the first event.
    pub fn prelude(&self) -> Option<&[u8]> {
        self.prelude.as_deref()
    }

    /// Number of directories that are open (the root is one).
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Bytes of the metadata stream consumed so far.
    pub fn position(&self) -> u64 {
        self.archive.position
    }

    /// The next event; `None` after the root directory has ended. What follows the archive in the
    /// stream is not looked at. After an error every further call fails.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        let state = std::mem::replace(&mut self.state, State::Failed);
        let event = match state {
            State::Start => self.root().map(Some),
            State::InTree => self.in_tree().map(Some),
            State::Done => Ok(None),
            State::Failed => Err(PxarError::Usage("reading after an error")),
        }?;
        self.state = match event {
            None => State::Done,
            Some(Event::Leave) if self.depth == 0 => State::Done,
            Some(_) => State::InTree,
        };
        Ok(event)
    }

    /// The content of the file that [`Decoder::next_event`] returned last.
    pub fn content(&mut self) -> Result<ContentReader<'_, R, P>> {
        if self.content.is_none_or(|content| content.opened) {
            return Err(PxarError::Usage("no file content to read here"));
        }
        self.open_content()?;
        Ok(ContentReader { decoder: self })
    }

    fn root(&mut self) -> Result<Event> {
        let mut header = self.expect_header("the root directory")?;
        if header.kind == item::FORMAT_VERSION {
            let [version] = self.archive.words(&header)?;
            if version != 2 {
                return Err(PxarError::UnknownVersion(version));
            }
            self.version = 2;
            header = self.expect_header("the root directory")?;
            if header.kind == item::PRELUDE {
                self.prelude = Some(self.archive.content(&header)?);
                header = self.expect_header("the root directory")?;
            }
        }
        let (metadata, kind) = self.entry(&header)?;
        match kind {
            EntryKind::Directory => self.enter(Vec::new(), metadata),
            _ => Err(header.bad("the root is not a directory")),
        }
    }

    fn in_tree(&mut self) -> Result<Event> {
        self.skip_content()?;
        let header = match self.pending.take() {
            Some(header) => header,
            None => self.expect_header("a file name or the end of a directory")?,
        };
        match header.kind {
            item::FILENAME => self.child(&header),
            item::GOODBYE => {
                let from = self.archive.position;
                self.skip_archive_to(from, header.end())?;
                self.depth = self.depth.saturating_sub(1);
                Ok(Event::Leave)
            }
            _ => Err(header.unexpected("a file name or the end of a directory")),
        }
    }

    fn child(&mut self, filename: &Header) -> Result<Event> {
        let name = self.archive.filename(filename)?;
        let header = self.expect_header("the entry after a file name")?;
        if header.kind == item::HARDLINK {
            let kind = self.archive.hardlink(&header)?;
            return Ok(Event::Entry(Entry {
                name,
                metadata: Metadata::default(),
                kind,
            }));
        }
        let (metadata, kind) = self.entry(&header)?;
        match kind {
            EntryKind::Directory => return self.enter(name, metadata),
            EntryKind::File { size, place } => {
                let end = self.archive.position.saturating_add(match place {
                    PayloadPlace::Inline(_) => size,
                    PayloadPlace::Referenced(_) => 0,
                });
                self.content = Some(Content {
                    place,
                    size,
                    end,
                    left: size,
                    opened: false,
                });
            }
            _ => {}
        }
        Ok(Event::Entry(Entry {
            name,
            metadata,
            kind,
        }))
    }

    fn enter(&mut self, name: Vec<u8>, metadata: Metadata) -> Result<Event> {
        if self.depth >= MAX_DEPTH {
            let (limit, position) = (MAX_DEPTH as u64, self.archive.position);
            return Err(PxarError::Limit {
                what: "nested directories",
                limit,
                position,
            });
        }
        self.depth += 1;
        Ok(Event::Entry(Entry {
            name,
            metadata,
            kind: EntryKind::Directory,
        }))
    }

    fn entry(&mut self, first: &Header) -> Result<(Metadata, EntryKind)> {
        let (metadata, next) = self.archive.metadata(first)?;
        if next.is_none() {
            return Err(self.archive.truncated("the end of a directory"));
        }
        let (kind, pending) = self.archive.kind(&metadata, next)?;
        self.pending = pending;
        Ok((metadata, kind))
    }

    fn expect_header(&mut self, missing: &'static str) -> Result<Header> {
        match self.archive.header()? {
            Some(header) => Ok(header),
            None => Err(self.archive.truncated(missing)),
        }
    }

    fn skip_archive_to(&mut self, from: u64, to: u64) -> Result<()> {
        (self.skip_archive)(&mut self.archive.inner, from, to)
            .map_err(|err| skip_error(err, from))?;
        self.archive.position = to;
        Ok(())
    }

    fn skip_content(&mut self) -> Result<()> {
        match self.content.take() {
            Some(content) if matches!(content.place, PayloadPlace::Inline(_)) => {
                self.skip_archive_to(self.archive.position, content.end)
            }
            _ => Ok(()),
        }
    }

    fn open_content(&mut self) -> Result<()> {
        let Some(content) = &mut self.content else {
            return Ok(());
        };
        content.opened = true;
        let PayloadPlace::Referenced(offset) = content.place else {
            return Ok(());
        };
        let payload = self.payload.as_mut().ok_or(PxarError::NoPayload)?;
        if !self.payload_started {
            let problem = "it does not begin with the start marker";
            match payload.header() {
                Ok(Some(start)) if start.kind == item::PAYLOAD_START_MARKER => {}
                Err(err @ PxarError::Io { .. }) => return Err(err),
                _ => {
                    return Err(PxarError::BadPayload {
                        position: 0,
                        problem,
                    });
                }
            }
            self.payload_started = true;
        }
        let from = payload.position;
        (self.skip_payload)(&mut payload.inner, from, offset).map_err(|err| match err.kind() {
            io::ErrorKind::UnexpectedEof => PxarError::BadPayload {
                position: from,
                problem: "it ends before a referenced file",
            },
            io::ErrorKind::InvalidInput => PxarError::BadPayload {
                position: offset,
                problem: "the referenced file lies before data that was already read",
            },
            _ => PxarError::io("reading payload", from, err),
        })?;
        payload.position = offset;
        let problem = "no file content of the recorded size stands there";
        match payload.header() {
            Ok(Some(found)) if found.kind == item::PAYLOAD && found.content == content.size => {
                Ok(())
            }
            Err(err @ PxarError::Io { .. }) => Err(err),
            _ => Err(PxarError::BadPayload {
                position: offset,
                problem,
            }),
        }
    }
}

fn skip_error(err: io::Error, position: u64) -> PxarError {
    match err.kind() {
        io::ErrorKind::UnexpectedEof => PxarError::Truncated {
            position,
            missing: "rest of an item",
        },
        _ => PxarError::io("reading", position, err),
    }
}

fn skip_reading<R: Read>(reader: &mut R, from: u64, to: u64) -> io::Result<()> {
    let bytes = to.checked_sub(from).ok_or(io::ErrorKind::InvalidInput)?;
    if bytes > 0 && io::copy(&mut reader.take(bytes), &mut io::sink())? < bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Seeks relative to the current position, so that the archive may begin anywhere in its source.
/// A position behind the end shows at the next read.
fn skip_seeking<R: Seek>(reader: &mut R, from: u64, to: u64) -> io::Result<()> {
    if from != to {
        let by = i128::from(to) - i128::from(from);
        let by = i64::try_from(by).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        reader.seek(SeekFrom::Current(by))?;
    }
    Ok(())
}

/// The content of one file. What is not read is skipped by the next event.
pub struct ContentReader<'a, R, P> {
    decoder: &'a mut Decoder<R, P>,
}

impl<R, P> ContentReader<'_, R, P> {
    /// Bytes not read yet.
    pub fn left(&self) -> u64 {
        self.decoder.content.map_or(0, |content| content.left)
    }
}

impl<R: Read, P: Read> Read for ContentReader<'_, R, P> {
    /// `UnexpectedEof` when the stream ends before the announced size.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(content) = &mut self.decoder.content else {
            return Ok(0);
        };
        let n = usize::try_from(content.left)
            .unwrap_or(usize::MAX)
            .min(buf.len());
        let Some(buf) = buf.get_mut(..n).filter(|buf| !buf.is_empty()) else {
            return Ok(0);
        };
        let (read, position) = match (content.place, &mut self.decoder.payload) {
            (PayloadPlace::Inline(_), _) => {
                let archive = &mut self.decoder.archive;
                (archive.inner.read(buf)?, &mut archive.position)
            }
            (PayloadPlace::Referenced(_), Some(payload)) => {
                (payload.inner.read(buf)?, &mut payload.position)
            }
            (PayloadPlace::Referenced(_), None) => {
                return Err(io::Error::other(PxarError::NoPayload));
            }
        };
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "archive is cut off inside file content",
            ));
        }
        *position = position.saturating_add(read as u64);
        content.left = content.left.saturating_sub(read as u64);
        Ok(read)
    }
}
