//! The tree of an archive in the words of the kernel's FUSE protocol. Translates and logs; decides nothing.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use backstop_format::read_at::ReadAt;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};

use super::tree::{ArchiveTree, Attributes, Kind, MAX_NAME, TreeError};

/// How long the kernel may rely on what it was told: an archive never changes.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Block size that is shown.
const BLOCK: u32 = 4096;
/// Requests that the kernel sends ahead of need (reading ahead) at most at one time. The threads beyond that many stay
/// free for questions that somebody waits for.
pub(super) const MAX_BACKGROUND: u16 = 12;

/// Kernel features that are used where they exist.
const WANTED: [InitFlags; 5] = [
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    // Without it, permission checks would take an ACL's mask for the permissions of the group.
    InitFlags::FUSE_POSIX_ACL,
];

pub(super) struct ArchiveFilesystem<R, P> {
    tree: ArchiveTree<R, P>,
    opens_alone: bool,
    opens_directories_alone: bool,
}

impl<R: ReadAt, P: ReadAt> ArchiveFilesystem<R, P> {
    pub(super) fn new(tree: ArchiveTree<R, P>) -> Self {
        Self {
            tree,
            opens_alone: false,
            opens_directories_alone: false,
        }
    }

    /// The error code for a failure, which is logged if it is not the kernel's own.
    fn failed(
        &self,
        action: &str,
        inode: INodeNo,
        name: Option<&OsStr>,
        error: &TreeError,
    ) -> Errno {
        if matches!(error, TreeError::UnknownInode(_)) {
            return Errno::ESTALE;
        }
        let mut path = self.tree.path(inode.0);
        if let Some(name) = name {
            path = format!("{path}/{}", name.to_string_lossy());
        }
        tracing::error!("{action} {path:?} failed - {error}");
        Errno::EIO
    }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Symlink => FileType::Symlink,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::CharDevice => FileType::CharDevice,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
    }
}

fn file_attr(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.inode),
        size: attributes.size,
        blocks: attributes.size.div_ceil(512),
        atime: attributes.modified,
        mtime: attributes.modified,
        ctime: attributes.modified,
        crtime: attributes.modified,
        kind: file_type(attributes.kind),
        perm: attributes.permissions,
        // The number of names is known only after reading the whole archive. One means "unknown" for directories.
        nlink: 1,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: attributes.device,
        blksize: BLOCK,
        flags: 0,
    }
}

/// Says to the kernel that a name does not exist, in a way that it may remember.
fn absent(reply: ReplyEntry) {
    let nothing = Attributes {
        inode: 0,
        kind: Kind::File,
        permissions: 0,
        size: 0,
        uid: 0,
        gid: 0,
        modified: std::time::UNIX_EPOCH,
        device: 0,
    };
    reply.entry(&FOREVER, &file_attr(&nothing), Generation(0));
}

/// Answers a question for an attribute's value or the list of names: first comes one for the size.
fn answer(reply: ReplyXattr, size: u32, data: &[u8]) {
    match u32::try_from(data.len()) {
        Ok(length) if size == 0 => reply.size(length),
        Ok(length) if length <= size => reply.data(data),
        _ => reply.error(Errno::ERANGE),
    }
}

impl<R, P> Filesystem for ArchiveFilesystem<R, P>
where
    R: ReadAt + Send + Sync + 'static,
    P: ReadAt + Send + Sync + 'static,
{
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in WANTED {
            // Refused by kernels that do not have it, and done without then.
            let _ = config.add_capabilities(flag);
        }
        let has = |flag| config.capabilities().contains(flag);
        self.opens_alone = has(InitFlags::FUSE_NO_OPEN_SUPPORT);
        self.opens_directories_alone = has(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.tree.lookup(parent.0, name.as_bytes()) {
            Ok(Some(found)) => reply.entry(&FOREVER, &file_attr(&found), Generation(0)),
            Ok(None) => absent(reply),
            Err(error) => reply.error(self.failed("looking up", parent, Some(name), &error)),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        self.tree.forget(ino.0, count);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.tree.attributes(ino.0) {
            Ok(found) => reply.attr(&FOREVER, &file_attr(&found)),
            Err(error) => reply.error(self.failed("asking for", ino, None, &error)),
        }
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        match self.tree.link_target(ino.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(self.failed("following", ino, None, &error)),
        }
    }

    fn open(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.opens_alone {
            // The kernel does not ask again, and keeps what it has read.
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        }
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.opens_directories_alone {
            reply.error(Errno::ENOSYS);
        } else {
            let keep = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
            reply.opened(FileHandle(0), keep);
        }
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.tree.read(ino.0, offset, size) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(self.failed("reading", ino, None, &error)),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.tree.list(ino.0, offset, false, |line| {
            let (inode, kind) = (INodeNo(line.attributes.inode), line.attributes.kind);
            !reply.add(
                inode,
                line.next,
                file_type(kind),
                OsStr::from_bytes(line.name),
            )
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.failed("listing", ino, None, &error)),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.tree.list(ino.0, offset, true, |line| {
            let attr = file_attr(&line.attributes);
            let name = OsStr::from_bytes(line.name);
            !reply.add(attr.ino, line.next, name, &FOREVER, &attr, Generation(0))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.failed("listing", ino, None, &error)),
        }
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let blocks = self.tree.size().div_ceil(u64::from(BLOCK));
        reply.statfs(blocks, 0, 0, 0, 0, BLOCK, MAX_NAME as u32, BLOCK);
    }

    fn getxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        match self.tree.attribute(ino.0, name.as_bytes()) {
            Ok(Some(value)) => answer(reply, size, &value),
            Ok(None) => reply.error(Errno::NO_XATTR),
            Err(error) => reply.error(self.failed("reading an attribute of", ino, None, &error)),
        }
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.tree.attribute_names(ino.0) {
            Ok(names) => answer(reply, size, &names),
            Err(error) => reply.error(self.failed("listing the attributes of", ino, None, &error)),
        }
    }
}
