//! The tree of an archive, asked by inode number as the kernel asks it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backstop_format::pxar::PxarError;
use backstop_format::pxar::accessor::{Accessor, DirectoryTable, Node};
use backstop_format::pxar::entry::{self, EntryKind, Timestamp};
use backstop_format::read_at::ReadAt;

use super::cache::Cache;
use super::inodes::Inodes;
use crate::archive::acl;

/// The inode number of the root directory.
pub const ROOT: u64 = 1;

/// Decoded entries that are kept, in bytes.
const NODE_CACHE: usize = 16 << 20;
/// Directory tables that are kept, in bytes.
const TABLE_CACHE: usize = 64 << 20;
/// Longest name of an attribute that the kernel takes.
const MAX_XATTR_NAME: usize = 255;
/// Longest name in a listing that every kernel takes; a longer one would spoil the whole listing.
pub(super) const MAX_NAME: usize = 1024;

const CAPABILITY: &[u8] = b"security.capability";

/// Why a question about the tree has no answer.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The kernel asks for something that it was never told of.
    #[error("inode {0} is not known")]
    UnknownInode(u64),
    /// The archive is damaged or cannot be reached.
    #[error(transparent)]
    Archive(#[from] PxarError),
    /// The archive says what no file system can say.
    #[error("{:?} has {what}, which this system cannot show", String::from_utf8_lossy(.name))]
    Impossible {
        /// Name of the entry.
        name: Vec<u8>,
        /// What is impossible about it.
        what: &'static str,
    },
}

type Result<T> = std::result::Result<T, TreeError>;

/// The kind of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
    /// A fifo.
    Fifo,
    /// A socket.
    Socket,
}

/// What `stat` shows of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Inode number; the same for all names of a file.
    pub inode: u64,
    /// Kind.
    pub kind: Kind,
    /// Set-id, sticky and permission bits.
    pub permissions: u16,
    /// Length of a file's content or of a link's target in bytes.
    pub size: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub modified: SystemTime,
    /// Device number in the kernel's 32-bit form; 0 for what is no device.
    pub device: u32,
}

/// One line of a directory listing.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// The name; `.` and `..` among them.
    pub name: &'a [u8],
    /// What it names.
    pub attributes: Attributes,
    /// Where the listing goes on after this line.
    pub next: u64,
}

/// An archive as a tree of inodes. Many threads may ask at once.
pub struct ArchiveTree<R, P> {
    accessor: Accessor<R, P>,
    size: u64,
    inodes: Inodes,
    nodes: Cache<Node>,
    tables: Cache<DirectoryTable>,
}

impl<R: ReadAt> ArchiveTree<R, Vec<u8>> {
    /// Opens an archive of one stream.
    ///
    /// # Errors
    /// It cannot be read, or is no archive.
    pub fn unified(archive: R) -> std::result::Result<Self, PxarError> {
        let size = archive.size();
        Ok(Self::over(Accessor::new(archive)?, size))
    }
}

impl<R: ReadAt, P: ReadAt> ArchiveTree<R, P> {
    /// Opens a split archive.
    ///
    /// # Errors
    /// It cannot be read, or is no archive.
    pub fn split(archive: R, payload: P) -> std::result::Result<Self, PxarError> {
        let size = archive.size().saturating_add(payload.size());
        Ok(Self::over(Accessor::split(archive, payload)?, size))
    }

    fn over(accessor: Accessor<R, P>, size: u64) -> Self {
        Self {
            accessor,
            size,
            inodes: Inodes::default(),
            nodes: Cache::new(NODE_CACHE),
            tables: Cache::new(TABLE_CACHE),
        }
    }

    /// Bytes of the archive, metadata included.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Finds `name` in a directory; `None` if it is not there. What is found is known until it is forgotten.
    ///
    /// # Errors
    /// As [`TreeError`] says.
    pub fn lookup(&self, directory: u64, name: &[u8]) -> Result<Option<Attributes>> {
        let table = self.table(directory)?;
        let Some(child) = self.accessor.child_named(&table, name)? else {
            return Ok(None);
        };
        let child = self.resolve(child)?;
        let found = attributes(&child)?;
        self.refer(&child, directory);
        Ok(Some(found))
    }

    /// The kernel drops `count` references to what it found.
    pub fn forget(&self, inode: u64, count: u64) {
        self.inodes.forget(inode, count);
    }

    /// What `stat` shows.
    ///
    /// # Errors
    /// As [`TreeError`] says.
    pub fn attributes(&self, inode: u64) -> Result<Attributes> {
        let node = self.node(inode)?;
        attributes(&node)
    }

    /// Lists a directory from `offset` (0, or the `next` of a line) until `visit` says that it has no room for a line.
    /// With `referring`, what was taken is known until it is forgotten, except `.` and `..`.
    ///
    /// # Errors
    /// The first line cannot be made. An error at a later line ends this listing; the next one begins with it.
    pub fn list(
        &self,
        directory: u64,
        offset: u64,
        referring: bool,
        mut visit: impl FnMut(&Listed<'_>) -> bool,
    ) -> Result<()> {
        let own = self.attributes(directory)?;
        let parent = self.inodes.get(directory).map_or(ROOT, |own| own.parent);
        let above = Attributes {
            inode: parent,
            ..own
        };
        for (next, name, attributes) in [(1, &b"."[..], own), (2, b"..", above)] {
            let line = Listed {
                name,
                attributes,
                next,
            };
            if offset < next && !visit(&line) {
                return Ok(());
            }
        }
        let table = self.table(directory)?;
        let mut taken = offset < 2;
        for next in offset.max(2)..u64::MAX {
            let index = usize::try_from(next - 2).unwrap_or(usize::MAX);
            let line = self.child(&table, index);
            let (name, child, attributes) = match line {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(()),
                Err(_) if taken => return Ok(()),
                Err(error) => return Err(error),
            };
            if name.len() > MAX_NAME {
                let path = self.path(directory);
                tracing::error!("{path:?} holds a name that is too long to be shown");
                continue;
            }
            let line = Listed {
                name: &name,
                attributes,
                next: next.saturating_add(1),
            };
            if !visit(&line) {
                return Ok(());
            }
            if referring {
                self.refer(&child, directory);
            }
            taken = true;
        }
        Ok(())
    }

    /// Reads from a file: `length` bytes from `offset`, fewer only at its end.
    ///
    /// # Errors
    /// As [`TreeError`] says. The content may be less than the archive announced.
    pub fn read(&self, inode: u64, offset: u64, length: u32) -> Result<Vec<u8>> {
        let node = self.node(inode)?;
        let content = self.accessor.content(&node)?;
        let left = content.size().saturating_sub(offset);
        let length = usize::try_from(left.min(u64::from(length))).unwrap_or(0);
        let mut buffer = vec![0; length];
        content
            .read_exact_at(&mut buffer, offset)
            .map_err(|source| PxarError::Io {
                action: "reading the content of a file",
                position: offset,
                source,
            })?;
        Ok(buffer)
    }

    /// Where a symbolic link points.
    ///
    /// # Errors
    /// As [`TreeError`] says.
    pub fn link_target(&self, inode: u64) -> Result<Vec<u8>> {
        let node = self.node(inode)?;
        match &node.entry.kind {
            EntryKind::Symlink(target) => Ok(target.clone()),
            _ => Err(impossible(&node, "no link target")),
        }
    }

    /// The names of the extended attributes, each followed by NUL.
    ///
    /// # Errors
    /// As [`TreeError`] says.
    pub fn attribute_names(&self, inode: u64) -> Result<Vec<u8>> {
        let node = self.node(inode)?;
        let metadata = &node.entry.metadata;
        let stored = metadata.xattrs.iter().map(|xattr| xattr.name.as_slice());
        let special = [
            (metadata.fcaps.is_some(), CAPABILITY),
            (metadata.acl.has_access(), acl::ACCESS.as_bytes()),
            (metadata.acl.has_default(), acl::DEFAULT.as_bytes()),
        ];
        let special = special.into_iter().filter(|(there, _)| *there);
        let names = stored.chain(special.map(|(_, name)| name));
        let mut list = Vec::new();
        for name in names.filter(|name| (1..=MAX_XATTR_NAME).contains(&name.len())) {
            list.extend_from_slice(name);
            list.push(0);
        }
        Ok(list)
    }

    /// The value of an extended attribute; `None` if there is no such attribute.
    ///
    /// # Errors
    /// As [`TreeError`] says.
    pub fn attribute(&self, inode: u64, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let node = self.node(inode)?;
        let metadata = &node.entry.metadata;
        let acl = &metadata.acl;
        if name == CAPABILITY && metadata.fcaps.is_some() {
            return Ok(metadata.fcaps.clone());
        }
        let special = if name == acl::ACCESS.as_bytes() && acl.has_access() {
            acl::access_value(acl, metadata.stat.permissions())
        } else if name == acl::DEFAULT.as_bytes() && acl.has_default() {
            acl::default_value(acl)
        } else {
            let stored = metadata.xattrs.iter().find(|xattr| xattr.name == name);
            return Ok(stored.map(|xattr| xattr.value.clone()));
        };
        special
            .map(Some)
            .ok_or_else(|| impossible(&node, "an access control list with numbers too large"))
    }

    /// The path of an inode for messages, as far as it is known without reading.
    pub fn path(&self, inode: u64) -> String {
        let mut names = Vec::new();
        let mut at = inode;
        while at != ROOT && names.len() < 64 {
            let name = self.nodes.get(at);
            names.push(name.map_or("…".into(), |node| {
                String::from_utf8_lossy(&node.entry.name).into_owned()
            }));
            at = self.inodes.get(at).map_or(ROOT, |inode| inode.parent);
        }
        names.push(String::new());
        names.reverse();
        names.join("/")
    }

    /// How many inodes are known beside the root.
    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.inodes.len()
    }

    /// The same tree with caches that keep nothing but the last value.
    #[cfg(test)]
    pub(super) fn forget_decoded(mut self) -> Self {
        self.nodes = Cache::new(0);
        self.tables = Cache::new(0);
        self
    }

    fn refer(&self, node: &Node, directory: u64) {
        self.inodes.refer(number(node), node.place(), directory);
    }

    fn node(&self, inode: u64) -> Result<Arc<Node>> {
        if let Some(node) = self.nodes.get(inode) {
            return Ok(node);
        }
        if inode == ROOT {
            return Ok(self.keep(self.accessor.root().clone()));
        }
        let known = self.inodes.get(inode);
        let place = known.ok_or(TreeError::UnknownInode(inode))?.place;
        Ok(self.keep(self.accessor.node_at(place)?))
    }

    fn keep(&self, node: Node) -> Arc<Node> {
        let (number, weight) = (number(&node), weight(&node));
        let node = Arc::new(node);
        self.nodes.insert(number, Arc::clone(&node), weight);
        node
    }

    fn table(&self, directory: u64) -> Result<Arc<DirectoryTable>> {
        if let Some(table) = self.tables.get(directory) {
            return Ok(table);
        }
        let node = self.node(directory)?;
        let table = Arc::new(self.accessor.table(&node)?);
        let weight = table.len().saturating_mul(28).saturating_add(128);
        self.tables.insert(directory, Arc::clone(&table), weight);
        Ok(table)
    }

    /// A child by its number, with its own name and with what stands behind it.
    #[expect(clippy::type_complexity, reason = "used in one place")]
    fn child(
        &self,
        table: &DirectoryTable,
        index: usize,
    ) -> Result<Option<(Vec<u8>, Arc<Node>, Attributes)>> {
        let Some(child) = self.accessor.child_at(table, index)? else {
            return Ok(None);
        };
        let name = child.entry.name.clone();
        let child = self.resolve(child)?;
        let attributes = attributes(&child)?;
        Ok(Some((name, child, attributes)))
    }

    /// The file that a hard link stands for, else the entry itself.
    fn resolve(&self, node: Node) -> Result<Arc<Node>> {
        let node = match node.entry.kind {
            EntryKind::Hardlink { .. } => self.accessor.follow_hardlink(node)?,
            _ => node,
        };
        Ok(self.keep(node))
    }
}

/// The inode number of an entry: its place in the archive, so that it is stable; the root stands at 0.
fn number(node: &Node) -> u64 {
    node.id().saturating_add(ROOT)
}

/// About how many bytes a decoded entry takes.
fn weight(node: &Node) -> usize {
    let metadata = &node.entry.metadata;
    let xattrs = metadata.xattrs.iter();
    let xattrs: usize = xattrs.map(|x| x.name.len() + x.value.len() + 48).sum();
    let acl = &metadata.acl;
    let lists = [
        &acl.users,
        &acl.groups,
        &acl.default_users,
        &acl.default_groups,
    ];
    let lists: usize = lists.iter().map(|list| list.len() * 16).sum();
    let target = match &node.entry.kind {
        EntryKind::Symlink(target) => target.len(),
        _ => 0,
    };
    let fcaps = metadata.fcaps.as_ref().map_or(0, Vec::len);
    size_of::<Node>() + 64 + node.entry.name.len() + xattrs + lists + target + fcaps
}

fn impossible(node: &Node, what: &'static str) -> TreeError {
    TreeError::Impossible {
        name: node.entry.name.clone(),
        what,
    }
}

fn attributes(node: &Node) -> Result<Attributes> {
    let stat = &node.entry.metadata.stat;
    let (kind, size) = match &node.entry.kind {
        EntryKind::Directory => (Kind::Directory, 0),
        EntryKind::File { size, .. } => (Kind::File, *size),
        EntryKind::Symlink(target) => (Kind::Symlink, target.len() as u64),
        EntryKind::Fifo => (Kind::Fifo, 0),
        EntryKind::Socket => (Kind::Socket, 0),
        EntryKind::Device(_) if stat.file_type() == entry::MODE_BLOCK => (Kind::BlockDevice, 0),
        EntryKind::Device(_) if stat.file_type() == entry::MODE_CHAR => (Kind::CharDevice, 0),
        EntryKind::Device(_) => return Err(impossible(node, "a mode that is not of a device")),
        EntryKind::Hardlink { .. } => return Err(impossible(node, "a hard link to a hard link")),
    };
    if i64::try_from(size).is_err() {
        return Err(impossible(node, "a size beyond all files"));
    }
    let device = match &node.entry.kind {
        EntryKind::Device(device) => device
            .to_dev()
            .and_then(|device| u32::try_from(device).ok())
            .ok_or_else(|| impossible(node, "a device number that is too large"))?,
        _ => 0,
    };
    Ok(Attributes {
        inode: number(node),
        kind,
        permissions: u16::try_from(stat.permissions()).unwrap_or(0),
        size,
        uid: stat.uid,
        gid: stat.gid,
        modified: system_time(stat.mtime).ok_or_else(|| impossible(node, "an impossible time"))?,
        device,
    })
}

fn system_time(time: Timestamp) -> Option<SystemTime> {
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = match time.seconds {
        0.. => UNIX_EPOCH.checked_add(seconds),
        _ => UNIX_EPOCH.checked_sub(seconds),
    };
    whole?.checked_add(Duration::from_nanos(u64::from(time.nanos)))
}
