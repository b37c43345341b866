//! The catalog of a backup: names, sizes and times of all entries of its version 1 pxar archives
//! (`docs/formats/catalog.md`).
//!
//! The reader is meant for hostile input: it never follows a reference forwards, and walking the
//! whole catalog takes no more work than its size allows.

use std::io::{self, Write};

use crate::read_at::ReadAt;
use crate::varint;

/// First bytes of every catalog.
pub const MAGIC: [u8; 8] = [0x91, 0xfd, 0x60, 0xf9, 0xc4, 0x67, 0x58, 0xd5];
/// Longest name; stock readers refuse 4096 bytes.
pub const MAX_NAME: usize = 4095;
/// Largest directory block that is read into memory: 512 MiB.
pub const MAX_BLOCK: u64 = 512 << 20;
/// Deepest nesting that is written or walked.
pub const MAX_DEPTH: usize = crate::pxar::item::MAX_DEPTH;

/// Failure of reading or writing a catalog.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The underlying stream failed.
    #[error("catalog: {action} at byte {position} failed: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Where in the stream.
        position: u64,
        /// Why.
        source: io::Error,
    },
    /// The bytes break the format.
    #[error("catalog is damaged at byte {position}: {problem}")]
    Damaged {
        /// Position of the directory block or field.
        position: u64,
        /// Which rule is broken.
        problem: &'static str,
    },
    /// The writer was given something the format cannot hold, or was used in the wrong order.
    #[error("cannot write catalog entry {:?}: {problem}", String::from_utf8_lossy(.name))]
    Unstorable {
        /// Name of the entry.
        name: Vec<u8>,
        /// Which rule it breaks.
        problem: &'static str,
    },
}

/// Result of catalog operations.
pub type Result<T> = std::result::Result<T, CatalogError>;

fn damaged(position: u64, problem: &'static str) -> CatalogError {
    CatalogError::Damaged { position, problem }
}

/// Kind of an entry with what the catalog records about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatalogKind {
    /// A directory (or an archive, in the root block).
    Directory(DirectoryRef),
    /// A regular file.
    File {
        /// Content length in bytes.
        size: u64,
        /// Modification time, seconds since 1970.
        mtime: i64,
    },
    /// A symbolic link.
    Symlink,
    /// A later name of a file.
    Hardlink,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
    /// A fifo.
    Fifo,
    /// A socket.
    Socket,
}

impl CatalogKind {
    /// The type letter: `d f l h b c p s`.
    pub const fn letter(&self) -> u8 {
        match self {
            Self::Directory(_) => b'd',
            Self::File { .. } => b'f',
            Self::Symlink => b'l',
            Self::Hardlink => b'h',
            Self::BlockDevice => b'b',
            Self::CharDevice => b'c',
            Self::Fifo => b'p',
            Self::Socket => b's',
        }
    }
}

/// Position of a directory block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DirectoryRef(u64);

/// One entry of a directory block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogEntry<'a> {
    /// The name: one path component, any bytes but `/` and NUL.
    pub name: &'a [u8],
    /// Kind and attributes.
    pub kind: CatalogKind,
}

/// Writes a catalog from front to back.
pub struct CatalogWriter<W> {
    sink: W,
    position: u64,
    /// Open directories, the root first: name, entry count, encoded entries with child positions
    /// still to be turned into distances.
    directories: Vec<OpenDirectory>,
}

#[derive(Default)]
struct OpenDirectory {
    name: Vec<u8>,
    count: u64,
    /// Encoded entries in pieces: the distance to a child directory depends on where this block
    /// will start, so each piece may end with a child's position.
    entries: Vec<u8>,
    /// Insertion points in `entries` with the child's block position.
    children: Vec<(usize, u64)>,
}

impl<W: Write> CatalogWriter<W> {
    /// Begins a catalog.
    pub fn new(sink: W) -> Result<Self> {
        let mut writer = Self {
            sink,
            position: 0,
            directories: vec![OpenDirectory::default()],
        };
        writer.put(&MAGIC)?;
        Ok(writer)
    }

    /// Begins a directory; at the top level an archive, named with its server file name.
    pub fn start_directory(&mut self, name: &[u8]) -> Result<()> {
        check_name(name)?;
        if self.directories.len() > MAX_DEPTH {
            let problem = "directories are nested too deeply";
            return Err(CatalogError::Unstorable {
                name: name.to_vec(),
                problem,
            });
        }
        self.directories.push(OpenDirectory {
            name: name.to_vec(),
            ..OpenDirectory::default()
        });
        Ok(())
    }

    /// Ends the directory begun last and enters it into its parent.
    pub fn end_directory(&mut self) -> Result<()> {
        if self.directories.len() < 2 {
            return Err(CatalogError::Unstorable {
                name: Vec::new(),
                problem: "no directory is open",
            });
        }
        let Some(directory) = self.directories.pop() else {
            return Ok(());
        };
        let start = self.position;
        self.put(&directory.block(start))?;
        if let Some(parent) = self.directories.last_mut() {
            parent.add(b'd', &directory.name);
            parent.children.push((parent.entries.len(), start));
        }
        Ok(())
    }

    /// Adds a regular file.
    pub fn add_file(&mut self, name: &[u8], size: u64, mtime: i64) -> Result<()> {
        let directory = self.current(name)?;
        directory.add(b'f', name);
        varint::write_u64(&mut directory.entries, size);
        varint::write_i64(&mut directory.entries, mtime);
        Ok(())
    }

    /// Adds an entry that has nothing but a kind and a name.
    pub fn add_special(&mut self, kind: CatalogKind, name: &[u8]) -> Result<()> {
        let letter = match kind {
            CatalogKind::Directory(_) | CatalogKind::File { .. } => {
                let problem = "files and directories have attributes";
                return Err(CatalogError::Unstorable {
                    name: name.to_vec(),
                    problem,
                });
            }
            kind => kind.letter(),
        };
        self.current(name)?.add(letter, name);
        Ok(())
    }

    /// Writes the root block and returns the sink; all directories must have been ended.
    pub fn finish(mut self) -> Result<W> {
        let root = match (self.directories.pop(), self.directories.is_empty()) {
            (Some(root), true) => root,
            _ => {
                return Err(CatalogError::Unstorable {
                    name: Vec::new(),
                    problem: "a directory is not finished",
                });
            }
        };
        let start = self.position;
        self.put(&root.block(start))?;
        self.put(&start.to_le_bytes())?;
        Ok(self.sink)
    }

    fn current(&mut self, name: &[u8]) -> Result<&mut OpenDirectory> {
        check_name(name)?;
        let problem = "no directory is open";
        self.directories
            .last_mut()
            .ok_or_else(|| CatalogError::Unstorable {
                name: name.to_vec(),
                problem,
            })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let position = self.position;
        self.sink
            .write_all(bytes)
            .map_err(|source| CatalogError::Io {
                action: "writing",
                position,
                source,
            })?;
        self.position = position.saturating_add(bytes.len() as u64);
        Ok(())
    }
}

impl OpenDirectory {
    fn add(&mut self, letter: u8, name: &[u8]) {
        self.count += 1;
        self.entries.push(letter);
        varint::write_u64(&mut self.entries, name.len() as u64);
        self.entries.extend_from_slice(name);
    }

    /// The complete block for position `start`.
    fn block(&self, start: u64) -> Vec<u8> {
        let mut table = Vec::with_capacity(self.entries.len() + 4 * self.children.len() + 10);
        varint::write_u64(&mut table, self.count);
        let mut from = 0;
        for &(at, child) in &self.children {
            table.extend_from_slice(self.entries.get(from..at).unwrap_or_default());
            varint::write_u64(&mut table, start.saturating_sub(child));
            from = at;
        }
        table.extend_from_slice(self.entries.get(from..).unwrap_or_default());
        let mut block = Vec::with_capacity(table.len() + 10);
        varint::write_u64(&mut block, table.len() as u64);
        block.append(&mut table);
        block
    }
}

fn is_valid_name(name: &[u8]) -> bool {
    name.len() <= MAX_NAME && crate::pxar::item::is_valid_name(name)
}

fn check_name(name: &[u8]) -> Result<()> {
    match is_valid_name(name) {
        true => Ok(()),
        false => Err(CatalogError::Unstorable {
            name: name.to_vec(),
            problem: "invalid file name",
        }),
    }
}

/// Reads a catalog at random.
#[derive(Debug)]
pub struct CatalogReader<R> {
    source: R,
    root: DirectoryRef,
}

impl<R: ReadAt> CatalogReader<R> {
    /// Opens a catalog: checks the magic and finds the root block.
    pub fn new(source: R) -> Result<Self> {
        let end = source.size().checked_sub(8).filter(|&end| end >= 8);
        let end = end.ok_or(damaged(0, "it is shorter than its header"))?;
        let mut reader = Self {
            source,
            root: DirectoryRef(0),
        };
        let mut word = [0; 8];
        reader.read(&mut word, 0)?;
        if word != MAGIC {
            return Err(damaged(
                0,
                "it does not begin with the catalog's magic number",
            ));
        }
        reader.read(&mut word, end)?;
        reader.root = DirectoryRef(u64::from_le_bytes(word));
        Ok(reader)
    }

    /// The root block: one directory entry per archive.
    pub fn root(&self) -> DirectoryRef {
        self.root
    }

    /// Reads a directory block (at most [`MAX_BLOCK`] bytes) and checks all of it.
    pub fn directory(&self, at: DirectoryRef) -> Result<CatalogDirectory> {
        let start = at.0;
        let end = self.source.size().saturating_sub(8);
        let available = match end.checked_sub(start) {
            Some(available) if start >= 8 => available,
            _ => return Err(damaged(start, "a directory block lies outside the catalog")),
        };
        let mut head = [0; 10];
        let head = head
            .get_mut(..usize::try_from(available).unwrap_or(10).min(10))
            .unwrap_or_default();
        self.read(head, start)?;
        let mut rest = &*head;
        let length =
            varint::read_u64(&mut rest).ok_or(damaged(start, "bad length of a directory block"))?;
        let head_size = (head.len() - rest.len()) as u64;
        if length == 0 || length > available - head_size {
            return Err(damaged(start, "impossible length of a directory block"));
        }
        if length > MAX_BLOCK {
            return Err(damaged(start, "a directory block is larger than 512 MiB"));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.read(&mut bytes, start + head_size)?;
        let mut rest = bytes.as_slice();
        let count = varint::read_u64(&mut rest).ok_or(damaged(start, "bad number of entries"))?;
        let first = bytes.len() - rest.len();
        for _ in 0..count {
            parse_entry(&mut rest, start)?;
        }
        if !rest.is_empty() {
            return Err(damaged(
                start,
                "bytes follow the last entry of a directory block",
            ));
        }
        Ok(CatalogDirectory {
            start,
            length: length + head_size,
            bytes,
            first,
        })
    }

    /// Finds the entry at `path`: one leading slash is dropped, components are compared exactly, the
    /// first one is an archive's server file name. `None` when there is no such entry; the root
    /// itself is found as a directory.
    pub fn lookup(&self, path: &[u8]) -> Result<Option<CatalogKind>> {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let mut kind = CatalogKind::Directory(self.root);
        if path.is_empty() {
            return Ok(Some(kind));
        }
        for name in path.split(|&byte| byte == b'/') {
            let CatalogKind::Directory(at) = kind else {
                return Ok(None);
            };
            match self
                .directory(at)?
                .entries()
                .find(|entry| entry.name == name)
            {
                Some(entry) => kind = entry.kind,
                None => return Ok(None),
            }
        }
        Ok(Some(kind))
    }

    /// Visits all entries below `at`, parents before children, in stored order. `visit` gets the
    /// path relative to `at` (no leading slash) and the entry, and says whether to descend.
    pub fn walk<E: From<CatalogError>>(
        &self,
        at: DirectoryRef,
        mut visit: impl FnMut(&[u8], &CatalogEntry<'_>) -> std::result::Result<bool, E>,
    ) -> std::result::Result<(), E> {
        // The blocks of a sound catalog are disjoint, so all of them together are no longer than it.
        let mut budget = self.source.size();
        let mut path = Vec::new();
        let mut open = vec![self.walked_directory(at, &mut budget, 0)?];
        while let Some((directory, position, path_length)) = open.last_mut() {
            path.truncate(*path_length);
            let Some(entry) = directory.entry_at(position) else {
                open.pop();
                continue;
            };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(entry.name);
            let descend = visit(&path, &entry)?;
            if let (CatalogKind::Directory(child), true) = (entry.kind, descend) {
                if open.len() >= MAX_DEPTH {
                    return Err(damaged(child.0, "directories are nested too deeply").into());
                }
                let child = self.walked_directory(child, &mut budget, path.len())?;
                open.push(child);
            }
        }
        Ok(())
    }

    fn walked_directory(
        &self,
        at: DirectoryRef,
        budget: &mut u64,
        path: usize,
    ) -> Result<(CatalogDirectory, usize, usize)> {
        let directory = self.directory(at)?;
        let problem = "directory blocks are referenced several times";
        *budget = budget
            .checked_sub(directory.length)
            .ok_or(damaged(at.0, problem))?;
        let first = directory.first;
        Ok((directory, first, path))
    }

    fn read(&self, buf: &mut [u8], position: u64) -> Result<()> {
        self.source
            .read_exact_at(buf, position)
            .map_err(|source| CatalogError::Io {
                action: "reading",
                position,
                source,
            })
    }
}

/// A directory block that was read and checked.
#[derive(Debug)]
pub struct CatalogDirectory {
    start: u64,
    length: u64,
    bytes: Vec<u8>,
    first: usize,
}

impl CatalogDirectory {
    /// The entries in stored order.
    pub fn entries(&self) -> impl Iterator<Item = CatalogEntry<'_>> {
        let mut position = self.first;
        std::iter::from_fn(move || self.entry_at(&mut position))
    }

    /// The entry that begins at `position` of the block; moves `position` behind it.
    fn entry_at(&self, position: &mut usize) -> Option<CatalogEntry<'_>> {
        let mut rest = self
            .bytes
            .get(*position..)
            .filter(|rest| !rest.is_empty())?;
        let entry = parse_entry(&mut rest, self.start).ok()?;
        *position = self.bytes.len() - rest.len();
        Some(entry)
    }
}

fn parse_entry<'a>(rest: &mut &'a [u8], start: u64) -> Result<CatalogEntry<'a>> {
    let cut = || damaged(start, "a directory block ends inside an entry");
    let (&letter, tail) = rest.split_first().ok_or_else(cut)?;
    *rest = tail;
    let length = varint::read_u64(rest).ok_or_else(cut)?;
    let length = usize::try_from(length)
        .ok()
        .filter(|&length| length <= MAX_NAME);
    let length = length.ok_or(damaged(start, "a name is too long"))?;
    let (name, tail) = rest.split_at_checked(length).ok_or_else(cut)?;
    *rest = tail;
    if !is_valid_name(name) {
        return Err(damaged(start, "invalid file name"));
    }
    let kind = match letter {
        b'd' => {
            let distance = varint::read_u64(rest).ok_or_else(cut)?;
            match start.checked_sub(distance) {
                Some(child) if distance > 0 => CatalogKind::Directory(DirectoryRef(child)),
                _ => {
                    return Err(damaged(
                        start,
                        "a subdirectory does not lie before its parent",
                    ));
                }
            }
        }
        b'f' => CatalogKind::File {
            size: varint::read_u64(rest).ok_or_else(cut)?,
            mtime: varint::read_i64(rest).ok_or_else(cut)?,
        },
        b'l' => CatalogKind::Symlink,
        b'h' => CatalogKind::Hardlink,
        b'b' => CatalogKind::BlockDevice,
        b'c' => CatalogKind::CharDevice,
        b'p' => CatalogKind::Fifo,
        b's' => CatalogKind::Socket,
        _ => return Err(damaged(start, "unknown type of entry")),
    };
    Ok(CatalogEntry { name, kind })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn example() -> Vec<u8> {
        let mut writer = CatalogWriter::new(Vec::new()).unwrap();
        writer.start_directory(b"root.pxar.didx").unwrap();
        writer.add_file(b"a.txt", 6, 1_700_000_001).unwrap();
        writer.start_directory(b"dir").unwrap();
        writer.add_special(CatalogKind::Symlink, b"ln").unwrap();
        writer.end_directory().unwrap();
        writer.add_file(b"old", 300, -1).unwrap();
        writer.end_directory().unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn the_documented_example_has_the_documented_bytes() {
        let expected: &[u8] = b"\x91\xfd\x60\xf9\xc4\x67\x58\xd5\x05\x01\x6c\x02\x6c\x6e\x1d\x03\
            \x66\x05\x61\x2e\x74\x78\x74\x06\x81\xe2\xcf\xaa\x06\x64\x03\x64\
            \x69\x72\x06\x66\x03\x6f\x6c\x64\xac\x02\x81\x00\x12\x01\x64\x0e\
            \x72\x6f\x6f\x74\x2e\x70\x78\x61\x72\x2e\x64\x69\x64\x78\x1e\x2c\
            \x00\x00\x00\x00\x00\x00\x00";
        assert_eq!(example(), expected);
    }

    fn listing(reader: &CatalogReader<Vec<u8>>) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        reader.walk(reader.root(), |path, entry| {
            let letter = entry.kind.letter() as char;
            lines.push(format!("{letter} {}", String::from_utf8_lossy(path)));
            Ok::<_, CatalogError>(true)
        })?;
        Ok(lines)
    }

    #[test]
    fn a_catalog_is_walked_and_looked_up() {
        let reader = CatalogReader::new(example()).unwrap();
        assert_eq!(
            listing(&reader).unwrap(),
            [
                "d root.pxar.didx",
                "f root.pxar.didx/a.txt",
                "d root.pxar.didx/dir",
                "l root.pxar.didx/dir/ln",
                "f root.pxar.didx/old"
            ]
        );
        let old = CatalogKind::File {
            size: 300,
            mtime: -1,
        };
        assert_eq!(reader.lookup(b"/root.pxar.didx/old").unwrap(), Some(old));
        assert_eq!(
            reader.lookup(b"root.pxar.didx/dir/ln").unwrap(),
            Some(CatalogKind::Symlink)
        );
        assert!(reader.lookup(b"/").unwrap().is_some());
        for missing in [
            &b"/root.pxar.didx/"[..],
            b"root.pxar.didx//old",
            b"nothing",
            b"root.pxar.didx/old/x",
        ] {
            assert_eq!(reader.lookup(missing).unwrap(), None);
        }
    }

    #[test]
    fn a_catalog_with_an_open_directory_is_not_finished() {
        let mut writer = CatalogWriter::new(Vec::new()).unwrap();
        writer.start_directory(b"x").unwrap();
        assert!(writer.finish().is_err());
        let mut writer = CatalogWriter::new(Vec::new()).unwrap();
        assert!(writer.end_directory().is_err());
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 4096]] {
            assert!(writer.add_file(name, 0, 0).is_err());
        }
    }

    #[test]
    fn a_directory_that_refers_to_itself_or_outside_is_refused() {
        for distance in [0u8, 1, 9, 100] {
            let mut bytes = MAGIC.to_vec();
            bytes.extend([5, 1, b'd', 1, b'x', distance]);
            bytes.extend(8u64.to_le_bytes());
            let reader = CatalogReader::new(bytes).unwrap();
            assert!(listing(&reader).is_err(), "{distance}");
        }
    }

    #[test]
    fn directories_that_share_their_children_do_not_blow_up_the_walk() {
        // Forty levels of directories that each refer twice to the next would be 2^40 entries.
        let mut bytes = MAGIC.to_vec();
        let mut child = 8u64;
        bytes.extend([1, 0]);
        for _ in 0..40 {
            let start = bytes.len() as u64;
            let distance = (start - child) as u8;
            bytes.extend([9, 2, b'd', 1, b'a', distance, b'd', 1, b'b', distance]);
            child = start;
        }
        bytes.extend(child.to_le_bytes());
        let reader = CatalogReader::new(bytes).unwrap();
        assert!(matches!(
            listing(&reader),
            Err(CatalogError::Damaged { .. })
        ));
    }

    proptest! {
        #[test]
        fn damaged_catalogs_never_panic(at in 0usize..71, bytes: [u8; 3], cut in 0usize..72) {
            let mut catalog = example();
            for (to, from) in catalog.iter_mut().skip(at).zip(bytes) {
                *to = from;
            }
            catalog.truncate(cut);
            if let Ok(reader) = CatalogReader::new(catalog) {
                let _ = listing(&reader);
            }
        }
    }
}
