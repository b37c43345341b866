//! Looking entries up through the directory tables, in any order.
//!
//! Children always lie strictly inside their directory, and in a listing no two of them overlap,
//! so that walking a hostile archive ends after at most as many entries as its size allows.

use std::io::{self, BufReader};

use super::attributes::ItemReader;
use super::entry::{Entry, EntryKind, Metadata, PayloadPlace};
use super::goodbye::{self, SLOT_SIZE, Slot};
use super::item::{self, HEADER_SIZE, Header, MAX_TABLE_ENTRIES};
use super::{PxarError, Result, name_hash};
use crate::read_at::{ReadAt, Section, SequentialReader};

/// Bytes read at once when an entry is decoded.
const READ_AHEAD: usize = 1024;

/// Random access to an archive of either version.
#[derive(Debug)]
pub struct Accessor<R, P = Vec<u8>> {
    archive: R,
    payload: Option<P>,
    root: Node,
    prelude: Option<Vec<u8>>,
    version: u8,
}

/// An entry found by an [`Accessor`], with its place in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name, metadata and kind.
    pub entry: Entry,
    /// Position of the FILENAME header; 0 for the root.
    position: u64,
    /// For directories: position behind the directory's table; else 0.
    end: u64,
}

impl Node {
    /// A number that is unique among the entries of the archive and stable over time.
    pub fn id(&self) -> u64 {
        self.position
    }

    /// What [`Accessor::node_at`] needs to find this entry again.
    pub fn place(&self) -> NodePlace {
        NodePlace {
            position: self.position,
            end: self.end,
        }
    }
}

/// Where an entry stands in its archive: far smaller than the decoded [`Node`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodePlace {
    position: u64,
    end: u64,
}

impl NodePlace {
    /// The same number as [`Node::id`].
    pub fn id(&self) -> u64 {
        self.position
    }
}

/// The table of a directory, to be kept for several look-ups: 28 bytes per child.
#[derive(Debug, Clone)]
pub struct DirectoryTable {
    /// Position of the directory's first item.
    start: u64,
    /// Position of the GOODBYE header.
    position: u64,
    /// In stored order.
    slots: Vec<Slot>,
    /// Indexes of `slots` in archive order.
    order: Vec<u32>,
}

impl DirectoryTable {
    /// Number of children.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The directory has no children.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

impl<R: ReadAt> Accessor<R> {
    /// Opens an archive of one stream, or only the metadata of a split archive.
    pub fn new(archive: R) -> Result<Self> {
        Self::open(archive, None)
    }
}

impl<R: ReadAt, P: ReadAt> Accessor<R, P> {
    /// Opens a split archive.
    pub fn split(archive: R, payload: P) -> Result<Self> {
        Self::open(archive, Some(payload))
    }

    fn open(archive: R, payload: Option<P>) -> Result<Self> {
        let end = archive.size();
        let mut items = item_reader(&archive, 0, end);
        let (mut version, mut prelude) = (1, None);
        let truncated = || PxarError::Truncated {
            position: end,
            missing: "the root directory",
        };
        let mut header = items.header()?.ok_or_else(truncated)?;
        if header.kind == item::FORMAT_VERSION {
            let [found] = items.words(&header)?;
            if found != 2 {
                return Err(PxarError::UnknownVersion(found));
            }
            version = 2;
            header = items.header()?.ok_or_else(truncated)?;
            if header.kind == item::PRELUDE {
                prelude = Some(items.content(&header)?);
                header = items.header()?.ok_or_else(truncated)?;
            }
        }
        let (metadata, next) = items.metadata(&header)?;
        let (kind, _) = items.kind(&metadata, next)?;
        drop(items);
        if kind != EntryKind::Directory {
            return Err(header.bad("the root is not a directory"));
        }
        let entry = Entry {
            name: Vec::new(),
            metadata,
            kind: EntryKind::Directory,
        };
        let root = Node {
            entry,
            position: 0,
            end,
        };
        Ok(Self {
            archive,
            payload,
            root,
            prelude,
            version,
        })
    }

    /// The root directory.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Format version, 1 or 2.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// The prelude of a split archive.
    pub fn prelude(&self) -> Option<&[u8]> {
        self.prelude.as_deref()
    }

    /// Opens a directory: reads its table (24 bytes per child).
    pub fn directory(&self, node: &Node) -> Result<Directory<'_, R, P>> {
        if node.entry.kind != EntryKind::Directory {
            return Err(PxarError::WrongKind {
                name: node.entry.name.clone(),
                expected: "directory",
            });
        }
        let end = node.end;
        let bad = |problem| PxarError::BadTable { end, problem };
        let mut tail = [0; SLOT_SIZE as usize];
        let tail_at = end
            .checked_sub(SLOT_SIZE)
            .ok_or(bad("no room for a table"))?;
        self.read(&mut tail, tail_at)?;
        let tail = Slot::parse(&tail);
        if tail.hash != item::GOODBYE_TAIL_MARKER {
            return Err(bad("it does not end with the tail marker"));
        }
        let table = end
            .checked_sub(tail.size)
            .ok_or(bad("it is larger than the archive"))?;
        let start = table
            .checked_sub(tail.offset)
            .ok_or(bad("its directory begins before the archive"))?;
        if start < node.position {
            return Err(bad("its directory begins before its name"));
        }
        let mut header = [0; HEADER_SIZE as usize];
        self.read(&mut header, table)?;
        let header = Header::parse(&header, table)?;
        if header.kind != item::GOODBYE || header.end() != end || header.content % SLOT_SIZE != 0 {
            return Err(bad("there is no table of the recorded size"));
        }
        let count = (header.content / SLOT_SIZE).saturating_sub(1);
        if count > MAX_TABLE_ENTRIES {
            return Err(PxarError::Limit {
                what: "entries per directory",
                limit: MAX_TABLE_ENTRIES,
                position: table,
            });
        }
        let mut bytes = vec![0; usize::try_from(count * SLOT_SIZE).unwrap_or(0)];
        self.read(&mut bytes, header.content_start())?;
        let slots = bytes
            .as_chunks::<{ SLOT_SIZE as usize }>()
            .0
            .iter()
            .map(Slot::parse)
            .collect();
        Ok(Directory {
            accessor: self,
            start,
            table,
            slots,
        })
    }

    /// Decodes an entry again that was found before in this archive.
    pub fn node_at(&self, place: NodePlace) -> Result<Node> {
        if place.position == self.root.position {
            return Ok(self.root.clone());
        }
        let limit = match place.end {
            0 => self.archive.size(),
            end => end,
        };
        let mut node = self.node(place.position, limit)?;
        if node.entry.kind == EntryKind::Directory {
            node.end = place.end;
        }
        Ok(node)
    }

    /// Reads the table of a directory for [`Self::child_named`] and [`Self::child_at`].
    pub fn table(&self, node: &Node) -> Result<DirectoryTable> {
        let Directory {
            start,
            table,
            slots,
            ..
        } = self.directory(node)?;
        // The number of slots is below MAX_TABLE_ENTRIES.
        let mut order: Vec<u32> = (0..).take(slots.len()).collect();
        let offset = |index: &u32| slots.get(*index as usize).map_or(0, |slot| slot.offset);
        order.sort_unstable_by_key(|index| std::cmp::Reverse(offset(index)));
        if order
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if offset(a) == offset(b)))
        {
            return Err(PxarError::BadTable {
                end: node.end,
                problem: "two children stand at the same place",
            });
        }
        Ok(DirectoryTable {
            start,
            position: table,
            slots,
            order,
        })
    }

    /// The child called `name` of the directory that `table` belongs to.
    pub fn child_named(&self, table: &DirectoryTable, name: &[u8]) -> Result<Option<Node>> {
        for slot in goodbye::find(&table.slots, name_hash(name)) {
            let node = self.child(slot, table.start, table.position, table.position)?;
            if node.entry.name == name {
                return Ok(Some(node));
            }
        }
        Ok(None)
    }

    /// The child number `index` in archive order; `None` behind the last one.
    pub fn child_at(&self, table: &DirectoryTable, index: usize) -> Result<Option<Node>> {
        let slot = |index: usize| table.slots.get(*table.order.get(index)? as usize);
        let Some(found) = slot(index) else {
            return Ok(None);
        };
        let following = index.checked_add(1).and_then(slot);
        let following = following.map_or(0, |slot| slot.offset);
        let limit = table.position.saturating_sub(following);
        self.child(found, table.start, table.position, limit)
            .map(Some)
    }

    /// Finds the entry at `path`; slashes separate components, empty ones are ignored. Hard links
    /// and symbolic links are not followed. `None` when there is no such entry.
    pub fn lookup(&self, path: &[u8]) -> Result<Option<Node>> {
        let mut node = self.root.clone();
        for name in path
            .split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty())
        {
            if node.entry.kind != EntryKind::Directory {
                return Ok(None);
            }
            match self.directory(&node)?.lookup(name)? {
                Some(child) => node = child,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    /// The regular file that a hard link stands for; any other node is returned as it is.
    pub fn follow_hardlink(&self, node: Node) -> Result<Node> {
        let EntryKind::Hardlink { offset, .. } = node.entry.kind else {
            return Ok(node);
        };
        let bad = PxarError::BadHardlink {
            position: node.position,
        };
        let target = match node.position.checked_sub(offset) {
            Some(position) if offset > 0 => self.node(position, node.position)?,
            _ => return Err(bad),
        };
        match target.entry.kind {
            EntryKind::File { .. } => Ok(target),
            _ => Err(bad),
        }
    }

    /// The content of a regular file.
    pub fn content(&self, node: &Node) -> Result<Content<'_, R, P>> {
        let EntryKind::File { size, place } = node.entry.kind else {
            return Err(PxarError::WrongKind {
                name: node.entry.name.clone(),
                expected: "regular file",
            });
        };
        match place {
            PayloadPlace::Inline(start) => {
                let end = start.saturating_add(size);
                if end > self.archive.size() {
                    let position = self.archive.size();
                    return Err(PxarError::Truncated {
                        position,
                        missing: "rest of a file",
                    });
                }
                Ok(Content::Inline(Section::new(&self.archive, start, end)))
            }
            PayloadPlace::Referenced(offset) => {
                let payload = self.payload.as_ref().ok_or(PxarError::NoPayload)?;
                let problem = "no file content of the recorded size stands there";
                let bad = PxarError::BadPayload {
                    position: offset,
                    problem,
                };
                let mut header = [0; HEADER_SIZE as usize];
                match payload.read_exact_at(&mut header, offset) {
                    Ok(()) => {}
                    Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Err(bad),
                    Err(err) => return Err(PxarError::io("reading payload", offset, err)),
                }
                match Header::parse(&header, offset) {
                    Ok(header)
                        if header.kind == item::PAYLOAD
                            && header.content == size
                            && header.end() <= payload.size() =>
                    {
                        Ok(Content::Payload(Section::new(
                            payload,
                            header.content_start(),
                            header.end(),
                        )))
                    }
                    _ => Err(bad),
                }
            }
        }
    }

    /// The child in `slot` of the directory that begins at `start` and whose table stands at
    /// `table`; what follows the child begins at `limit`.
    fn child(&self, slot: &Slot, start: u64, table: u64, limit: u64) -> Result<Node> {
        let bad = |problem| PxarError::BadTable {
            end: table,
            problem,
        };
        let position = match table.checked_sub(slot.offset) {
            Some(position) if position > start && position < table => position,
            _ => return Err(bad("a child lies outside its directory")),
        };
        // In split archives the recorded size of a file may include content that lies elsewhere.
        let end = position
            .checked_add(slot.size)
            .ok_or(bad("a child's size is impossible"))?;
        let mut node = self.node(position, end.min(limit))?;
        if node.entry.kind == EntryKind::Directory {
            if end > limit {
                return Err(bad("a subdirectory overlaps what follows it"));
            }
            node.end = end;
        }
        Ok(node)
    }

    fn read(&self, buf: &mut [u8], position: u64) -> Result<()> {
        self.archive
            .read_exact_at(buf, position)
            .map_err(|err| match err.kind() {
                io::ErrorKind::UnexpectedEof => PxarError::Truncated {
                    position,
                    missing: "rest of a directory table",
                },
                _ => PxarError::io("reading", position, err),
            })
    }

    /// Decodes the entry whose FILENAME header stands at `position`; it ends at `limit` at the latest.
    fn node(&self, position: u64, limit: u64) -> Result<Node> {
        let mut items = item_reader(&self.archive, position, limit);
        let truncated = || PxarError::Truncated {
            position: limit,
            missing: "rest of an entry",
        };
        let header = items.header()?.ok_or_else(truncated)?;
        if header.kind != item::FILENAME {
            return Err(header.unexpected("a file name"));
        }
        let name = items.filename(&header)?;
        let header = items.header()?.ok_or_else(truncated)?;
        let (metadata, kind) = if header.kind == item::HARDLINK {
            (Metadata::default(), items.hardlink(&header)?)
        } else {
            let (metadata, next) = items.metadata(&header)?;
            let (kind, _) = items.kind(&metadata, next)?;
            (metadata, kind)
        };
        Ok(Node {
            entry: Entry {
                name,
                metadata,
                kind,
            },
            position,
            end: 0,
        })
    }
}

fn item_reader<R: ReadAt>(archive: &R, start: u64, end: u64) -> ItemReader<impl io::Read> {
    let section = SequentialReader::new(Section::new(archive, start, end));
    ItemReader {
        inner: BufReader::with_capacity(READ_AHEAD, section),
        position: start,
    }
}

/// An open directory.
#[derive(Debug)]
pub struct Directory<'a, R, P> {
    accessor: &'a Accessor<R, P>,
    /// Position of the directory's first item.
    start: u64,
    /// Position of the GOODBYE header.
    table: u64,
    slots: Vec<Slot>,
}

impl<'a, R: ReadAt, P: ReadAt> Directory<'a, R, P> {
    /// Number of children.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The directory has no children.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The child called `name`.
    pub fn lookup(&self, name: &[u8]) -> Result<Option<Node>> {
        for slot in goodbye::find(&self.slots, name_hash(name)) {
            let node = self.child(slot, self.table)?;
            if node.entry.name == name {
                return Ok(Some(node));
            }
        }
        Ok(None)
    }

    /// All children in archive order (ascending names in archives of the usual writers).
    pub fn children(&self) -> Result<Children<'a, R, P>> {
        let mut slots = self.slots.clone();
        slots.sort_unstable_by_key(|slot| std::cmp::Reverse(slot.offset));
        if slots
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a.offset == b.offset))
        {
            return Err(self.bad("two children stand at the same place"));
        }
        let (accessor, start, table) = (self.accessor, self.start, self.table);
        Ok(Children {
            directory: Directory {
                accessor,
                start,
                table,
                slots,
            },
            next: 0,
        })
    }

    /// All children in the order of the stored table, as servers list them.
    pub fn children_in_table_order(
        &self,
    ) -> impl Iterator<Item = Result<Node>> + use<'a, '_, R, P> {
        self.slots.iter().map(|slot| self.child(slot, self.table))
    }

    fn bad(&self, problem: &'static str) -> PxarError {
        PxarError::BadTable {
            end: self.table,
            problem,
        }
    }

    fn child(&self, slot: &Slot, limit: u64) -> Result<Node> {
        self.accessor.child(slot, self.start, self.table, limit)
    }
}

/// The children of a directory in archive order.
#[derive(Debug)]
pub struct Children<'a, R, P> {
    /// Its slots are sorted by position.
    directory: Directory<'a, R, P>,
    next: usize,
}

impl<R: ReadAt, P: ReadAt> Iterator for Children<'_, R, P> {
    type Item = Result<Node>;

    fn next(&mut self) -> Option<Self::Item> {
        let directory = &self.directory;
        let slot = directory.slots.get(self.next)?;
        self.next += 1;
        let following = directory.slots.get(self.next).map_or(0, |slot| slot.offset);
        Some(directory.child(slot, directory.table.saturating_sub(following)))
    }
}

/// The content of one file, for reading anywhere.
#[derive(Debug)]
pub enum Content<'a, R, P> {
    /// In the archive itself.
    Inline(Section<&'a R>),
    /// In the payload stream.
    Payload(Section<&'a P>),
}

impl<R: ReadAt, P: ReadAt> ReadAt for Content<'_, R, P> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Inline(section) => section.read_at(buf, offset),
            Self::Payload(section) => section.read_at(buf, offset),
        }
    }

    fn size(&self) -> u64 {
        match self {
            Self::Inline(section) => section.size(),
            Self::Payload(section) => section.size(),
        }
    }
}
