//! Reading the digests of one index file after the other.
//!
//! Most indexes repeat, chunk for chunk, the one that was read before them: the next backup of the same archive. So the reader
//! remembers that one and tells which digests it has just seen in the same order; they need no look into the large set.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use backstop_format::Digest;
use backstop_format::index::{HEADER_SIZE, IndexKind, IndexScanner};

use crate::error::{DatastoreError, Result};
use crate::page_cache::ReadFiles;
use crate::task_log::TaskLog;

/// Entries of both sizes fit into it without a rest, in bytes.
const PIECE: usize = 40 * 32 * 1024;
/// How many entries may be missing between two that follow each other.
const LOOK_AHEAD: usize = 16;

/// The kind of index that a file name states.
pub(super) fn index_kind(path: &Path) -> Option<IndexKind> {
    match path.extension()?.to_str()? {
        "fidx" => Some(IndexKind::Fixed),
        "didx" => Some(IndexKind::Dynamic),
        _ => None,
    }
}

/// Whether a digest was just seen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Yes, in this group and this run.
    Before,
    /// Perhaps; the reader does not know.
    Unknown,
}

/// What the header of an index tells.
pub(super) struct Identity {
    /// Indexes that agree in this have the same entries.
    pub(super) key: (IndexKind, Digest, u64),
    /// Number of entries.
    pub(super) entries: u64,
}

/// Reads indexes; the memory of one thread.
pub(super) struct IndexReader {
    buffer: Vec<u8>,
    /// By archive name.
    previous: HashMap<OsString, Vec<Digest>>,
    /// Digests that may still be remembered.
    room: usize,
    capacity: usize,
    read: ReadFiles,
}

impl IndexReader {
    /// Remembers at most so many digests.
    pub(super) fn new(capacity: usize) -> Self {
        IndexReader {
            buffer: vec![0; PIECE],
            previous: HashMap::new(),
            room: capacity,
            capacity,
            read: ReadFiles::default(),
        }
    }

    /// Before the first index of another group.
    pub(super) fn forget(&mut self) {
        self.previous.clear();
        self.room = self.capacity;
    }

    /// Names all digests of an index. Where `is_known` says that the same entries were read before, none is named.
    ///
    /// Returns the size of the archive in bytes, `None` when its entries were known, and what its header says. `Ok(None)`: the
    /// file is gone.
    pub(super) fn read(
        &mut self,
        path: &Path,
        kind: IndexKind,
        log: &dyn TaskLog,
        is_known: impl FnOnce(&Identity) -> bool,
        mut visit: impl FnMut(&Digest, Seen),
    ) -> Result<Option<(Identity, Option<u64>)>> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(DatastoreError::io("open index", path))?,
        };
        let failed = |error: io::Error| DatastoreError::io("read index", path)(error);
        let damaged = |source| DatastoreError::Damaged {
            path: path.to_owned(),
            source,
        };
        let length = file.metadata().map_err(failed)?.len();
        let mut header = [0; HEADER_SIZE];
        match file.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(DatastoreError::Invalid {
                    path: path.to_owned(),
                    reason: format!("it has {length} bytes, less than the header of an index"),
                });
            }
            other => other.map_err(failed)?,
        }
        let mut scanner = IndexScanner::new(kind, &header, length).map_err(damaged)?;
        let identity = Identity {
            key: (kind, *scanner.stated_checksum(), length),
            entries: scanner.entries(),
        };
        if is_known(&identity) {
            return Ok(Some((identity, None)));
        }
        let name = path.file_name().unwrap_or_default();
        let previous = self.previous.remove(name).unwrap_or_default();
        self.room += previous.len();
        let mut follower = Follower {
            previous: &previous,
            next: 0,
            last: None,
            remembered: Vec::new(),
            room: self.room,
        };
        loop {
            if log.is_aborted() {
                return Err(DatastoreError::Aborted);
            }
            let count = fill(&mut file, &mut self.buffer).map_err(failed)?;
            let records = self.buffer.get(..count).unwrap_or_default();
            if records.is_empty() {
                break;
            }
            scanner
                .scan(records, |digest| visit(digest, follower.see(digest)))
                .map_err(damaged)?;
        }
        let size = scanner.finish().map_err(damaged)?;
        self.read.add(file);
        let remembered = follower.remembered;
        self.room -= remembered.len();
        self.previous.insert(name.to_owned(), remembered);
        Ok(Some((identity, Some(size))))
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Compares an index with the one before it.
struct Follower<'a> {
    previous: &'a [Digest],
    /// Where in `previous` the next digest is expected.
    next: usize,
    last: Option<Digest>,
    remembered: Vec<Digest>,
    room: usize,
}

impl Follower<'_> {
    fn see(&mut self, digest: &Digest) -> Seen {
        if self.remembered.len() < self.room {
            self.remembered.push(*digest);
        }
        let ahead = self.previous.get(self.next..).unwrap_or_default();
        let found = ahead
            .iter()
            .take(LOOK_AHEAD)
            .position(|candidate| candidate == digest);
        if let Some(skipped) = found {
            self.next += skipped + 1;
            self.last = Some(*digest);
            return Seen::Before;
        }
        // Images have long runs of the same chunk.
        if self.last.replace(*digest) == Some(*digest) {
            return Seen::Before;
        }
        Seen::Unknown
    }
}
