//! An image as a file system of one file: the root of the mount is the file itself, so it is mounted on a file.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use backstop_format::read_at::ReadAt;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, INodeNo, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyOpen, ReplyStatfs, Request,
};

use super::filesystem::MAX_BACKGROUND;

/// How long the kernel may rely on what it was told: an image never changes.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const BLOCK: u32 = 4096;
/// Largest answer, in bytes; the kernel asks for less.
const MAX_READ: u32 = 8 << 20;

pub(super) struct ImageFilesystem<R>(pub(super) R);

impl<R: ReadAt> ImageFilesystem<R> {
    fn attributes(&self) -> FileAttr {
        let size = self.0.size();
        FileAttr {
            ino: INodeNo::ROOT,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: FileType::RegularFile,
            perm: 0o400,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK,
            flags: 0,
        }
    }

    /// What lies there, less only at the end of the image.
    fn content(&self, offset: u64, size: u32) -> io::Result<Vec<u8>> {
        let mut data = vec![0; size.min(MAX_READ) as usize];
        let mut filled = 0;
        while let Some(rest) = data.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset.saturating_add(filled as u64))? {
                0 => break,
                count => filled += count.min(rest.len()),
            }
        }
        data.truncate(filled);
        Ok(data)
    }
}

impl<R: ReadAt + Send + Sync + 'static> Filesystem for ImageFilesystem<R> {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn getattr(&self, _request: &Request, _: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes());
    }

    fn open(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.content(offset, size) {
            Ok(data) => reply.data(&data),
            Err(error) => {
                tracing::error!("reading {size} bytes of the image at {offset} failed - {error}");
                reply.error(Errno::EIO);
            }
        }
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let blocks = self.0.size().div_ceil(u64::from(BLOCK));
        reply.statfs(blocks, 0, 0, 0, 0, BLOCK, 255, BLOCK);
    }
}
