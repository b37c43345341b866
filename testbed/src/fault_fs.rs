//! A file system that fails on demand: it passes everything through to a directory, until it is told to answer with
//! errors, to hang, or to look like the empty directory that is left when a mount has gone.
//!
//! It stands for a network file system. Nothing is cached in the kernel, so a fault is felt at once.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    Session, SessionUnmounter, TimeOrNow, WriteFlags,
};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::mount::UnmountFlags;

/// Nothing is cached.
const TTL: Duration = Duration::ZERO;
/// Requests that are answered, or hang, at once.
const THREADS: usize = 16;

/// What is wrong with the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Everything fails with this error number, such as `libc::ESTALE`.
    Error(i32),
    /// Nothing is answered until the fault changes.
    Hang,
    /// As [`Fault::Hang`], but only for opening and looking at chunks.
    HangOnChunks,
    /// The mount point is an empty directory.
    Bare,
}

/// The entries of a directory.
type Listing = Vec<(OsString, FileType)>;

/// A mounted file system with faults. Dropping it heals and unmounts it.
pub struct FaultFs {
    gate: Arc<Gate>,
    target: PathBuf,
    unmounter: Option<SessionUnmounter>,
}

impl FaultFs {
    /// Whether this process may mount it.
    #[must_use]
    pub fn is_possible() -> bool {
        let device = File::options().read(true).write(true).open("/dev/fuse");
        crate::is_root() && device.is_ok()
    }

    /// Shows the directory `source` at the directory `target`.
    ///
    /// # Errors
    ///
    /// When it cannot be mounted.
    pub fn mount(source: &Path, target: &Path) -> Result<Self> {
        let gate = Arc::new(Gate::default());
        let filesystem = Passthrough::new(source, Arc::clone(&gate));
        let mut config = Config::default();
        config.n_threads = Some(THREADS);
        config.mount_options = vec![MountOption::FSName("faults".to_owned())];
        let mut session = Session::new(filesystem, target, &config)
            .with_context(|| format!("mounting at {}", target.display()))?;
        let unmounter = session.unmount_callable();
        std::thread::spawn(move || session.run());
        Ok(Self {
            gate,
            target: target.to_owned(),
            unmounter: Some(unmounter),
        })
    }

    /// What is wrong from now on. What hangs is answered accordingly.
    pub fn set(&self, fault: Fault) {
        self.gate.lock().fault = fault;
        self.gate.changed.notify_all();
    }

    /// Waits until this many requests hang.
    pub fn wait_for_hanging(&self, count: usize) {
        let mut state = self.gate.lock();
        while state.hanging < count {
            state = self
                .gate
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for FaultFs {
    fn drop(&mut self) {
        self.set(Fault::None);
        // In use or not, it must not stay.
        let _ = rustix::mount::unmount(&self.target, UnmountFlags::DETACH);
        drop(self.unmounter.take());
    }
}

#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

struct GateState {
    fault: Fault,
    hanging: usize,
}

impl Default for GateState {
    fn default() -> Self {
        Self {
            fault: Fault::None,
            hanging: 0,
        }
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request pass, with the fault that it must heed.
    fn pass(&self, is_chunk: bool) -> Result<Fault, Errno> {
        let hangs = |fault| fault == Fault::Hang || (is_chunk && fault == Fault::HangOnChunks);
        let mut state = self.lock();
        if hangs(state.fault) {
            state.hanging += 1;
            self.changed.notify_all();
            while hangs(state.fault) {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            state.hanging -= 1;
        }
        match state.fault {
            Fault::Error(number) => Err(Errno::from_i32(number)),
            fault => Ok(fault),
        }
    }
}

#[derive(Default)]
struct Names {
    paths: HashMap<u64, PathBuf>,
    numbers: HashMap<PathBuf, u64>,
    files: HashMap<u64, Arc<File>>,
    listings: HashMap<u64, Arc<Listing>>,
    next: u64,
}

impl Names {
    fn number(&mut self, path: PathBuf) -> u64 {
        if let Some(number) = self.numbers.get(&path) {
            return *number;
        }
        self.next += 1;
        self.paths.insert(self.next, path.clone());
        self.numbers.insert(path, self.next);
        self.next
    }

    fn forget(&mut self, path: &Path) {
        if let Some(number) = self.numbers.remove(path) {
            self.paths.remove(&number);
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        self.forget(to);
        let moved: Vec<(PathBuf, u64)> = self
            .numbers
            .iter()
            .filter(|(path, _)| path.starts_with(from))
            .map(|(path, number)| (path.clone(), *number))
            .collect();
        for (path, number) in moved {
            self.numbers.remove(&path);
            let rest = path.strip_prefix(from).unwrap_or(Path::new(""));
            let path = if rest.as_os_str().is_empty() {
                to.to_owned()
            } else {
                to.join(rest)
            };
            self.numbers.insert(path.clone(), number);
            self.paths.insert(number, path);
        }
    }

    fn keep(&mut self, file: File) -> u64 {
        self.next += 1;
        self.files.insert(self.next, Arc::new(file));
        self.next
    }
}

struct Passthrough {
    gate: Arc<Gate>,
    names: Mutex<Names>,
}

impl Passthrough {
    fn new(source: &Path, gate: Arc<Gate>) -> Self {
        let mut names = Names::default();
        // The first number is that of the root.
        names.number(source.to_owned());
        Self {
            gate,
            names: Mutex::new(names),
        }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The path of an object, once the gate is open.
    fn path(&self, ino: INodeNo) -> Result<PathBuf, Errno> {
        self.gate.pass(false)?;
        let path = self.names().paths.get(&ino.0).cloned();
        path.ok_or_else(|| Errno::from_i32(libc::ESTALE))
    }

    /// The path of an entry of a directory, once the gate is open.
    fn entry(&self, parent: INodeNo, name: &OsStr) -> Result<PathBuf, Errno> {
        // The only names of that length are those of chunks.
        let is_chunk = name.len() == 64;
        if self.gate.pass(is_chunk)? == Fault::Bare && parent == INodeNo::ROOT {
            return Err(Errno::from_i32(libc::ENOENT));
        }
        Ok(self.path(parent)?.join(name))
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<File>, Errno> {
        self.gate.pass(false)?;
        let file = self.names().files.get(&handle.0).cloned();
        file.ok_or_else(|| Errno::from_i32(libc::EBADF))
    }

    fn attributes(&self, path: PathBuf) -> Result<FileAttr, Errno> {
        let metadata = fs::symlink_metadata(&path)?;
        Ok(attributes(self.names().number(path), &metadata))
    }
}

fn kind(metadata: &Metadata) -> FileType {
    let ty = metadata.file_type();
    match () {
        () if ty.is_dir() => FileType::Directory,
        () if ty.is_symlink() => FileType::Symlink,
        () if ty.is_socket() => FileType::Socket,
        () => FileType::RegularFile,
    }
}

fn time(seconds: i64, nanoseconds: i64) -> SystemTime {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    let nanoseconds = u32::try_from(nanoseconds).unwrap_or(0);
    UNIX_EPOCH + Duration::new(seconds, nanoseconds)
}

fn attributes(number: u64, metadata: &Metadata) -> FileAttr {
    let changed = time(metadata.ctime(), metadata.ctime_nsec());
    FileAttr {
        ino: INodeNo(number),
        size: metadata.size(),
        blocks: metadata.blocks(),
        atime: time(metadata.atime(), metadata.atime_nsec()),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        ctime: changed,
        crtime: changed,
        kind: kind(metadata),
        perm: u16::try_from(metadata.mode() & 0o7777).unwrap_or(0),
        nlink: u32::try_from(metadata.nlink()).unwrap_or(1),
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn stamp(wanted: Option<TimeOrNow>) -> Timespec {
    match wanted {
        None => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        Some(TimeOrNow::Now) => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
        Some(TimeOrNow::SpecificTime(time)) => {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            Timespec {
                tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(since.subsec_nanos()),
            }
        }
    }
}

fn listing(path: &Path) -> io::Result<Listing> {
    let entries = fs::read_dir(path)?.map(|entry| {
        let entry = entry?;
        let kind = if entry.file_type()?.is_dir() {
            FileType::Directory
        } else {
            FileType::RegularFile
        };
        Ok((entry.file_name(), kind))
    });
    entries.collect()
}

fn options(flags: i32) -> fs::OpenOptions {
    let mut options = File::options();
    let access = flags & libc::O_ACCMODE;
    options
        .read(access != libc::O_WRONLY)
        .write(access != libc::O_RDONLY)
        .custom_flags(flags & (libc::O_TRUNC | libc::O_EXCL | libc::O_CREAT));
    options
}

/// Answers with what a closure yields, or with its error.
macro_rules! answer {
    ($reply:ident, $result:expr, $found:pat => $answer:expr) => {
        match $result {
            Ok($found) => $answer,
            Err(error) => $reply.error(error),
        }
    };
}

impl Filesystem for Passthrough {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self
            .entry(parent, name)
            .and_then(|path| self.attributes(path));
        answer!(reply, found, attr => reply.entry(&TTL, &attr, Generation(0)));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let look = || match fh.map(|fh| self.file(fh)) {
            Some(Ok(file)) => Ok(attributes(ino.0, &file.metadata()?)),
            _ => Ok(attributes(ino.0, &fs::symlink_metadata(self.path(ino)?)?)),
        };
        answer!(reply, look(), attr => reply.attr(&TTL, &attr));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = || -> Result<FileAttr, Errno> {
            let path = self.path(ino)?;
            if let Some(mode) = mode {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o7777))?;
            }
            if uid.is_some() || gid.is_some() {
                std::os::unix::fs::lchown(&path, uid, gid)?;
            }
            if let Some(size) = size {
                File::options().write(true).open(&path)?.set_len(size)?;
            }
            if atime.is_some() || mtime.is_some() {
                let times = Timestamps {
                    last_access: stamp(atime),
                    last_modification: stamp(mtime),
                };
                rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(io::Error::from)?;
            }
            Ok(attributes(ino.0, &fs::symlink_metadata(&path)?))
        };
        answer!(reply, change(), attr => reply.attr(&TTL, &attr));
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let make = || -> Result<FileAttr, Errno> {
            let path = self.entry(parent, name)?;
            fs::DirBuilder::new().mode(mode & !umask).create(&path)?;
            self.attributes(path)
        };
        answer!(reply, make(), attr => reply.entry(&TTL, &attr, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = || -> Result<(), Errno> {
            let path = self.entry(parent, name)?;
            fs::remove_file(&path)?;
            self.names().forget(&path);
            Ok(())
        };
        answer!(reply, remove(), () => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = || -> Result<(), Errno> {
            let path = self.entry(parent, name)?;
            fs::remove_dir(&path)?;
            self.names().forget(&path);
            Ok(())
        };
        answer!(reply, remove(), () => reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let rename = || -> Result<(), Errno> {
            let (from, to) = (self.entry(parent, name)?, self.entry(new_parent, new_name)?);
            let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
            rustix::fs::renameat_with(CWD, &from, CWD, &to, flags).map_err(io::Error::from)?;
            self.names().rename(&from, &to);
            Ok(())
        };
        answer!(reply, rename(), () => reply.ok());
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let open = || -> Result<u64, Errno> {
            let file = options(flags.0).open(self.path(ino)?)?;
            Ok(self.names().keep(file))
        };
        answer!(reply, open(), number => reply.opened(FileHandle(number), FopenFlags::empty()));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let create = || -> Result<(FileAttr, u64), Errno> {
            let path = self.entry(parent, name)?;
            let mut options = options(flags | libc::O_CREAT);
            let file = options.write(true).mode(mode & !umask).open(&path)?;
            let attributes = self.attributes(path)?;
            Ok((attributes, self.names().keep(file)))
        };
        answer!(reply, create(), (attr, number) => reply.created(
            &TTL, &attr, Generation(0), FileHandle(number), FopenFlags::empty()
        ));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = || -> Result<Vec<u8>, Errno> {
            let file = self.file(fh)?;
            let mut data = vec![0; size as usize];
            let mut filled = 0;
            while let Some(rest) = data.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match file.read_at(rest, offset + filled as u64)? {
                    0 => break,
                    count => filled += count,
                }
            }
            data.truncate(filled);
            Ok(data)
        };
        answer!(reply, read(), data => reply.data(&data));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write = || -> Result<u32, Errno> {
            self.file(fh)?.write_all_at(data, offset)?;
            Ok(u32::try_from(data.len()).unwrap_or(u32::MAX))
        };
        answer!(reply, write(), count => reply.written(count));
    }

    fn flush(&self, _: &Request, _: INodeNo, fh: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        answer!(reply, self.file(fh), _ => reply.ok());
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.names().files.remove(&fh.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(reply, self.file(fh), _ => reply.ok());
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let list = || -> Result<u64, Errno> {
            let path = self.path(ino)?;
            let listing = if self.gate.pass(false)? == Fault::Bare && ino == INodeNo::ROOT {
                Listing::new()
            } else {
                listing(&path)?
            };
            let mut names = self.names();
            names.next += 1;
            let number = names.next;
            names.listings.insert(number, Arc::new(listing));
            Ok(number)
        };
        answer!(reply, list(), number => reply.opened(FileHandle(number), FopenFlags::empty()));
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.names().listings.remove(&fh.0);
        reply.ok();
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let list = || -> Result<Arc<Listing>, Errno> {
            self.gate.pass(false)?;
            let listing = self.names().listings.get(&fh.0).cloned();
            listing.ok_or_else(|| Errno::from_i32(libc::EBADF))
        };
        match list() {
            Ok(entries) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                for (position, (name, kind)) in entries.iter().enumerate().skip(from) {
                    // The numbers in listings are not looked at; each entry is looked up.
                    if reply.add(INodeNo(u64::MAX), position as u64 + 1, *kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let look = || -> Result<rustix::fs::StatVfs, Errno> {
            let path = self.path(ino)?;
            Ok(rustix::fs::statvfs(path).map_err(io::Error::from)?)
        };
        answer!(reply, look(), space => reply.statfs(
            space.f_blocks,
            space.f_bfree,
            space.f_bavail,
            space.f_files,
            space.f_ffree,
            4096,
            255,
            u32::try_from(space.f_frsize).unwrap_or(4096),
        ));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn faults_come_and_go() {
        if !FaultFs::is_possible() {
            println!("skipped: mounting needs root and /dev/fuse");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("source"), dir.path().join("target"));
        fs::create_dir_all(source.join("a")).unwrap();
        fs::create_dir(&target).unwrap();
        let faults = FaultFs::mount(&source, &target).unwrap();
        let file = target.join("a/file");
        fs::write(&file, "hello").unwrap();
        fs::rename(&file, target.join("a/other")).unwrap();
        let file = target.join("a/other");
        assert_eq!(fs::read_to_string(&file).unwrap(), "hello");
        faults.set(Fault::Error(libc::ESTALE));
        let error = fs::read_to_string(&file).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
        assert!(rustix::fs::statvfs(&target).is_err());
        faults.set(Fault::Bare);
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
        assert!(!file.exists());
        faults.set(Fault::Hang);
        let reader = std::thread::spawn(move || fs::read_to_string(file));
        faults.wait_for_hanging(1);
        assert!(!reader.is_finished());
        faults.set(Fault::None);
        assert_eq!(reader.join().unwrap().unwrap(), "hello");
        fs::remove_dir_all(target.join("a")).unwrap();
        assert_eq!(fs::read_dir(&source).unwrap().count(), 0);
    }
}
