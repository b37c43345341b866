//! Walking a directory tree in archive order.
//!
//! Everything is opened relative to its directory and without following symbolic links. The walk
//! decides what belongs into an archive; what it finds goes to a receiver in batches.

use std::collections::{HashSet, VecDeque};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, mpsc};

use backstop_format::pxar::entry::{
    Device, MODE_BLOCK, MODE_CHAR, MODE_DIRECTORY, MODE_FIFO, MODE_FILE, MODE_SOCKET, MODE_SYMLINK,
    MODE_TYPE_MASK, Metadata,
};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::crew::{Crew, Found, Outcome, find};
use super::error::{ArchiveError, Result, display_path};
use super::flags::magic;
use super::metadata::{MetadataReader, archive_stat, file_system_magic};
use super::options::{CreateOptions, DeviceSet};
use super::pattern::{MatchType, Pattern, evaluate};
use crate::activity::Activity;

/// Name of the files with exclude patterns.
const EXCLUDE_FILE: &[u8] = b".pxarexclude";
/// Name of the file in the archive root that records the command line's patterns.
pub(crate) const EXCLUDE_CLI: &[u8] = b".pxarexclude-cli";
/// Largest exclude file that is read: 16 MiB.
const MAX_EXCLUDE_FILE: u64 = 16 << 20;
/// Items handed over at once.
const BATCH: usize = 32;
/// Files that one thread of the crew opens at a time.
const GROUP: usize = 16;
/// Groups that are opened ahead of the walk. Together at most 512 open files.
const GROUPS_AHEAD: usize = 32;

/// Device and inode number.
pub(crate) type Inode = (u64, u64);

/// One finding of the walk.
#[derive(Debug)]
pub(crate) struct Item {
    /// Last path component.
    pub name: Vec<u8>,
    pub metadata: Metadata,
    pub kind: ItemKind,
}

#[derive(Debug)]
pub(crate) enum ItemKind {
    /// Its children follow, then [`ItemKind::Leave`].
    Directory,
    Leave,
    File {
        file: FileHandle,
        size: u64,
        /// Set when the file has several names.
        inode: Option<Inode>,
    },
    Symlink(Vec<u8>),
    Device(Device),
    Fifo,
    Socket,
}

/// A file that can be closed and opened again.
#[derive(Debug)]
pub(crate) struct FileHandle {
    /// The open file, until it is closed.
    pub open: Option<File>,
    pub directory: Arc<OwnedFd>,
    identity: Identity,
}

/// Shows whether a file is still the one that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    inode: Inode,
    size: i64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Identity {
    fn of(stat: &Stat) -> Self {
        let nanos = |nanos| i64::try_from(nanos).unwrap_or(0);
        Self {
            inode: (stat.st_dev, stat.st_ino),
            size: stat.st_size,
            mtime: (stat.st_mtime, nanos(stat.st_mtime_nsec)),
            ctime: (stat.st_ctime, nanos(stat.st_ctime_nsec)),
        }
    }
}

fn file_kind(directory: &Arc<OwnedFd>, file: File, stat: &Stat) -> ItemKind {
    let (open, directory) = (Some(file), directory.clone());
    ItemKind::File {
        file: FileHandle {
            open,
            directory,
            identity: Identity::of(stat),
        },
        size: u64::try_from(stat.st_size).unwrap_or(0),
        inode: (stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino)),
    }
}

impl Item {
    /// Closes the file of a file.
    pub fn close(&mut self) {
        if let ItemKind::File { file, .. } = &mut self.kind {
            file.open = None;
        }
    }

    /// Opens the file of a file again. What has changed since it was found is found anew.
    pub fn reopen(&mut self, metadata: &mut MetadataReader) -> Opened<()> {
        let ItemKind::File {
            file:
                FileHandle {
                    open: None,
                    directory,
                    identity,
                },
            ..
        } = &self.kind
        else {
            return Ok(());
        };
        let name = CString::new(self.name.as_slice()).map_err(|_| Errno::NOENT)?;
        // Something else has this name now: the file has vanished.
        let opened = match open_and_stat(directory.as_fd(), &name, MODE_FILE) {
            Err(Errno::LOOP | Errno::NXIO) => None,
            opened => opened?,
        };
        let (fd, stat) = opened.ok_or(Errno::NOENT)?;
        if Identity::of(&stat) != *identity {
            self.metadata = metadata.read(fd.as_fd(), &stat)?;
        }
        self.kind = file_kind(directory, File::from(fd), &stat);
        Ok(())
    }
}

/// Says that an entry is left out because of `err`; any other error ends the walk.
pub(crate) fn warn_left_out(
    activity: &dyn Activity,
    path: &[u8],
    name: &[u8],
    err: Errno,
) -> Result<()> {
    let shown = display_path(path);
    match err {
        Errno::NOENT => activity.warn(&format!("warning: file vanished while reading: {shown:?}")),
        Errno::STALE => activity.warn(&format!(
            "warning: stale file handle encountered while reading: {shown:?}"
        )),
        Errno::ACCESS => {
            let name = display_path(name);
            activity.warn(&format!("failed to open file: {name:?}: access denied"));
        }
        err => return Err(ArchiveError::file("read metadata of", path, err)),
    }
    Ok(())
}

/// Takes what the walk finds; false ends the walk.
pub(crate) type Receiver<'a> = &'a mut dyn FnMut(Vec<Item>) -> bool;

struct Directory {
    fd: Arc<OwnedFd>,
    /// Names still to be visited, last first.
    names: Vec<(CString, FileType)>,
    /// Those before them, which are being opened.
    ahead: VecDeque<Group>,
    /// Those before them, which have been opened.
    opened: VecDeque<(CString, Outcome)>,
    count: usize,
    device: u64,
    /// Length of the path of this directory.
    path: usize,
    /// Number of patterns that hold outside of it.
    patterns: usize,
}

/// Files that a thread of the crew opens.
struct Group {
    names: Vec<CString>,
    outcomes: mpsc::Receiver<Vec<Outcome>>,
}

/// The next name of a directory.
enum Next {
    /// Nothing has been looked at yet.
    Name(CString, FileType),
    /// A file that belongs into the archive.
    File(CString, Outcome),
}

pub(crate) struct Walk<'a> {
    crew: Option<Crew>,
    options: &'a CreateOptions,
    activity: &'a dyn Activity,
    devices: Option<HashSet<u64>>,
    metadata: MetadataReader,
    patterns: Vec<Pattern>,
    /// Path below the source, without leading slash.
    path: Vec<u8>,
    entries: usize,
    /// Contents will be read soon.
    prefetch: bool,
    batch: Vec<Item>,
    receiver: Receiver<'a>,
}

/// The source directory, opened and checked.
pub(crate) struct Source {
    pub fd: OwnedFd,
    stat: Stat,
    pub metadata: Metadata,
}

impl Source {
    /// Opens the directory to be archived; a symbolic link at its end is not followed.
    pub fn open(path: &Path, options: &CreateOptions) -> Result<Self> {
        use std::os::unix::ffi::OsStrExt as _;
        let bytes = path.as_os_str().as_bytes();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|err| ArchiveError::file("open source directory", bytes, err))?;
        let stat = rustix::fs::fstat(&fd).map_err(|err| ArchiveError::file("stat", bytes, err))?;
        let magic = file_system_magic(fd.as_fd());
        let magic =
            magic.map_err(|err| ArchiveError::file("find file system type of", bytes, err))?;
        if magic::VIRTUAL.contains(&magic) {
            let problem = "refusing to back up a virtual file system";
            return Err(ArchiveError::BadSource {
                path: path.into(),
                problem,
            });
        }
        let metadata = MetadataReader::new(options.features, options.skip_e2big_xattr)
            .read(fd.as_fd(), &stat)
            .map_err(|err| ArchiveError::file("read metadata of", bytes, err))?;
        Ok(Self { fd, stat, metadata })
    }
}

/// Outcome of opening an entry that may fail without ending the walk.
type Opened<T> = std::result::Result<T, Errno>;
/// What became of an entry: `None` when it is left out; the second value is the descriptor and
/// device of a directory that is to be entered.
type Visited = Option<(Item, Option<(OwnedFd, u64)>)>;

impl<'a> Walk<'a> {
    /// Visits everything below `source`.
    pub fn run(
        source: Source,
        options: &'a CreateOptions,
        activity: &'a dyn Activity,
        prefetch: bool,
        receiver: Receiver<'a>,
    ) -> Result<()> {
        let devices = match &options.devices {
            DeviceSet::All => None,
            DeviceSet::SourceAnd(paths) => {
                let mut devices = HashSet::from([source.stat.st_dev]);
                for path in paths {
                    let stat = rustix::fs::stat(path).map_err(|err| ArchiveError::File {
                        action: "stat",
                        path: path.clone(),
                        source: err.into(),
                    })?;
                    devices.insert(stat.st_dev);
                }
                Some(devices)
            }
        };
        std::thread::scope(|scope| {
            let mut walk = Self {
                crew: Crew::start(scope, options, prefetch),
                options,
                activity,
                devices,
                metadata: MetadataReader::new(options.features, options.skip_e2big_xattr),
                patterns: options.exclude.clone(),
                path: Vec::new(),
                entries: 0,
                prefetch,
                batch: Vec::with_capacity(BATCH),
                receiver,
            };
            walk.tree(source)
        })
    }

    fn tree(&mut self, source: Source) -> Result<()> {
        let device = source.stat.st_dev;
        let mut open = vec![self.directory(source.fd, device)?];
        while let Some(directory) = open.last_mut() {
            let Some(next) = self.next(directory)? else {
                self.entries = self.entries.saturating_sub(directory.count);
                self.patterns.truncate(directory.patterns);
                open.pop();
                if open.is_empty() {
                    break;
                }
                if !self.give(Item {
                    name: Vec::new(),
                    metadata: Metadata::default(),
                    kind: ItemKind::Leave,
                }) {
                    return Ok(());
                }
                continue;
            };
            let (name, file_type, outcome) = match next {
                Next::Name(name, file_type) => {
                    if !self.enters(directory.path, directory.fd.as_fd(), &name, file_type)? {
                        continue;
                    }
                    (name, file_type, None)
                }
                Next::File(name, outcome) => {
                    self.set_path(directory.path, &name);
                    (name, FileType::RegularFile, Some(outcome))
                }
            };
            let Some((item, descend)) = self.entry(directory, &name, file_type, outcome)? else {
                continue;
            };
            let is_directory = matches!(item.kind, ItemKind::Directory);
            if !self.give(item) {
                return Ok(());
            }
            match descend {
                Some((fd, device)) => {
                    let directory = self.directory(fd, device)?;
                    open.push(directory);
                }
                None if is_directory => {
                    let kind = ItemKind::Leave;
                    if !self.give(Item {
                        name: Vec::new(),
                        metadata: Metadata::default(),
                        kind,
                    }) {
                        return Ok(());
                    }
                }
                None => {}
            }
        }
        if !self.batch.is_empty() {
            (self.receiver)(std::mem::take(&mut self.batch));
        }
        Ok(())
    }

    /// Makes `name` in the directory at the first `directory` bytes of the path the current one.
    fn set_path(&mut self, directory: usize, name: &CString) {
        self.path.truncate(directory);
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.as_bytes());
    }

    /// Whether an entry belongs into the archive by its name and type.
    fn enters(
        &mut self,
        path: usize,
        directory: BorrowedFd<'_>,
        name: &CString,
        file_type: FileType,
    ) -> Result<bool> {
        self.set_path(path, name);
        let is_record = path == 0 && name.as_bytes() == EXCLUDE_CLI;
        Ok(!is_record && !self.is_excluded(directory, name, file_type)?)
    }

    /// The next name of a directory. Files are opened ahead, in groups.
    fn next(&mut self, directory: &mut Directory) -> Result<Option<Next>> {
        loop {
            if let Some((name, outcome)) = directory.opened.pop_front() {
                return Ok(Some(Next::File(name, outcome)));
            }
            while directory.ahead.len() < GROUPS_AHEAD
                && let Some(group) = self.group(directory)?
            {
                directory.ahead.push_back(group);
            }
            let Some(group) = directory.ahead.pop_front() else {
                let next = directory.names.pop();
                return Ok(next.map(|(name, file_type)| Next::Name(name, file_type)));
            };
            let outcomes = group.outcomes.recv().unwrap_or_default().into_iter();
            // Should a thread have failed, the walk opens the file itself.
            let outcomes = outcomes.chain(std::iter::repeat_with(|| Ok(None)));
            directory.opened = group.names.into_iter().zip(outcomes).collect();
        }
    }

    /// Starts opening the next files of a directory; `None` when something else or not enough of them comes next.
    fn group(&mut self, directory: &mut Directory) -> Result<Option<Group>> {
        let is_file = |entry: &&(CString, FileType)| entry.1 == FileType::RegularFile;
        let count = directory
            .names
            .iter()
            .rev()
            .take(GROUP)
            .take_while(is_file)
            .count();
        if count < 2 || self.crew.is_none() {
            return Ok(None);
        }
        let mut names = Vec::with_capacity(count);
        for _ in 0..count {
            let Some((name, file_type)) = directory.names.pop() else {
                break;
            };
            if self.enters(directory.path, directory.fd.as_fd(), &name, file_type)? {
                names.push(name);
            }
        }
        let crew = self.crew.as_ref();
        Ok(crew.map(|crew| Group {
            outcomes: crew.open(&directory.fd, names.clone()),
            names,
        }))
    }

    fn give(&mut self, item: Item) -> bool {
        self.batch.push(item);
        if self.batch.len() < BATCH {
            return true;
        }
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        (self.receiver)(batch)
    }

    /// Reads the names of the directory at the current path, and its exclude file.
    fn directory(&mut self, fd: OwnedFd, device: u64) -> Result<Directory> {
        let mut names = Vec::new();
        let mut entries = rustix::fs::Dir::read_from(&fd);
        loop {
            let entry = match &mut entries {
                Ok(entries) => entries.next(),
                Err(err) => Some(Err(*err)),
            };
            let entry = match entry {
                Some(Ok(entry)) => entry,
                Some(Err(err)) => {
                    warn_left_out(self.activity, &self.path, &self.path, err)?;
                    break;
                }
                None => break,
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            names.push((name.to_owned(), entry.file_type()));
            if self.entries.saturating_add(names.len()) > self.options.entries_max {
                let limit = self.options.entries_max;
                return Err(ArchiveError::TooManyEntries {
                    limit,
                    path: display_path(&self.path),
                });
            }
        }
        names.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        self.entries += names.len();
        let patterns = self.patterns.len();
        if names
            .iter()
            .any(|(name, _)| name.as_bytes() == EXCLUDE_FILE)
        {
            self.read_exclude_file(fd.as_fd());
        }
        let (count, path) = (names.len(), self.path.len());
        Ok(Directory {
            fd: Arc::new(fd),
            names,
            ahead: VecDeque::new(),
            opened: VecDeque::new(),
            count,
            device,
            path,
            patterns,
        })
    }

    fn read_exclude_file(&mut self, directory: BorrowedFd<'_>) {
        use std::io::Read as _;
        let file = match open_at(directory, c".pxarexclude", OFlags::NONBLOCK) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return,
            Err(err) => return self.warn_exclude_file(&err.into()),
        };
        let mut text = Vec::new();
        let read = match file.metadata() {
            Ok(metadata) if !metadata.is_file() => return,
            Ok(_) => file.take(MAX_EXCLUDE_FILE).read_to_end(&mut text),
            Err(err) => Err(err),
        };
        if let Err(err) = read {
            return self.warn_exclude_file(&err);
        }
        for line in text.split(|&byte| byte == b'\n') {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            match Pattern::parse_exclude_line(line, &self.path) {
                Ok(pattern) => {
                    if pattern.was_normalised() {
                        let line = String::from_utf8_lossy(line);
                        let path = display_path(&self.path);
                        self.activity
                            .warn(&format!("normalized pattern {line:?} in {path:?}"));
                    }
                    self.patterns.push(pattern);
                }
                Err(err) => {
                    let path = display_path(&self.path);
                    self.activity
                        .warn(&format!("bad pattern in {path:?}: {err}"));
                }
            }
        }
    }

    fn warn_exclude_file(&self, err: &std::io::Error) {
        let path = display_path(&self.path);
        self.activity.warn(&format!(
            "ignoring .pxarexclude after read error in {path:?}: {err}"
        ));
    }

    fn is_excluded(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CString,
        file_type: FileType,
    ) -> Result<bool> {
        if self.patterns.is_empty() {
            return Ok(false);
        }
        let mut path = Vec::with_capacity(self.path.len() + 1);
        path.push(b'/');
        path.extend_from_slice(&self.path);
        let mode = || match file_type {
            FileType::Unknown => {
                match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => Ok(Some(u64::from(stat.st_mode))),
                    // The entry itself will give the warning.
                    Err(Errno::NOENT | Errno::ACCESS | Errno::STALE) => Ok(None),
                    Err(err) => Err(err),
                }
            }
            file_type => Ok(Some(u64::from(file_type.as_raw_mode()) & MODE_TYPE_MASK)),
        };
        let verdict = evaluate(&self.patterns, &path, mode);
        let verdict = verdict.map_err(|err| ArchiveError::file("stat", &self.path, err))?;
        Ok(verdict == Some(MatchType::Exclude))
    }

    /// Opens and reads one entry.
    fn entry(
        &mut self,
        directory: &Directory,
        name: &CString,
        file_type: FileType,
        outcome: Option<Outcome>,
    ) -> Result<Visited> {
        match self.open_entry(directory, name, file_type, outcome) {
            Ok(found) => Ok(found),
            Err(err) => {
                warn_left_out(self.activity, &self.path, name.as_bytes(), err)?;
                Ok(None)
            }
        }
    }

    /// `outcome` is there when the crew has opened the file.
    fn open_entry(
        &mut self,
        directory: &Directory,
        name: &CString,
        file_type: FileType,
        outcome: Option<Outcome>,
    ) -> Opened<Visited> {
        let parent = directory.fd.as_fd();
        let prefetch = self.prefetch;
        let mut open = |kind| match kind {
            MODE_FILE => find(&directory.fd, name, &mut self.metadata, prefetch),
            kind => Ok(open_and_stat(parent, name, kind)?.map(|(fd, stat)| {
                let metadata = self.metadata.read(fd.as_fd(), &stat);
                Box::new(Found { fd, stat, metadata })
            })),
        };
        // The type in the directory saves a system call per file; what is opened is looked at again.
        let opened = match (outcome, file_type) {
            (Some(outcome), _) => outcome,
            (None, FileType::RegularFile) => open(MODE_FILE),
            (None, FileType::Directory) => open(MODE_DIRECTORY),
            _ => Ok(None),
        };
        let opened = match opened {
            // The type has changed since.
            Err(Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => None,
            opened => opened?,
        };
        let (fd, stat, metadata) = match opened {
            Some(found) => {
                let Found { fd, stat, metadata } = *found;
                (Some(fd), stat, metadata?)
            }
            None => {
                let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                match u64::from(stat.st_mode) & MODE_TYPE_MASK {
                    kind @ (MODE_FILE | MODE_DIRECTORY) => {
                        // Changed again: whoever does that may call it vanished.
                        let found = open(kind)?.ok_or(Errno::NOENT)?;
                        let Found { fd, stat, metadata } = *found;
                        (Some(fd), stat, metadata?)
                    }
                    _ => {
                        let metadata = Metadata {
                            stat: archive_stat(&stat),
                            ..Metadata::default()
                        };
                        (None, stat, metadata)
                    }
                }
            }
        };
        let features = &self.options.features;
        let mut descend = None;
        let kind = match (u64::from(stat.st_mode) & MODE_TYPE_MASK, fd) {
            (MODE_FILE, Some(fd)) => file_kind(&directory.fd, File::from(fd), &stat),
            (MODE_DIRECTORY, Some(fd)) => {
                if self.may_enter(fd.as_fd(), &stat, directory.device)? {
                    descend = Some((fd, stat.st_dev));
                } else {
                    let path = display_path(&self.path);
                    self.activity
                        .info(&format!("skipping mount point: {path:?}"));
                }
                ItemKind::Directory
            }
            (MODE_SYMLINK, _) => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
                ItemKind::Symlink(target.into_bytes())
            }
            (MODE_BLOCK | MODE_CHAR, _) if features.device_nodes => {
                ItemKind::Device(Device::from_dev(stat.st_rdev))
            }
            (MODE_FIFO, _) if features.fifos => ItemKind::Fifo,
            (MODE_SOCKET, _) if features.sockets => ItemKind::Socket,
            (MODE_BLOCK | MODE_CHAR | MODE_FIFO | MODE_SOCKET, _) => return Ok(None),
            _ => return Err(Errno::OPNOTSUPP),
        };
        let name = name.as_bytes().to_vec();
        Ok(Some((
            Item {
                name,
                metadata,
                kind,
            },
            descend,
        )))
    }

    fn may_enter(&self, fd: BorrowedFd<'_>, stat: &Stat, parent: u64) -> Opened<bool> {
        if stat.st_dev == parent {
            return Ok(true);
        }
        if self
            .devices
            .as_ref()
            .is_some_and(|devices| !devices.contains(&stat.st_dev))
        {
            return Ok(false);
        }
        Ok(!magic::VIRTUAL.contains(&file_system_magic(fd)?))
    }
}

/// Opens a file or directory; `None` when it turns out to be of another kind.
pub(crate) fn open_and_stat(
    parent: BorrowedFd<'_>,
    name: &CString,
    kind: u64,
) -> Opened<Option<(OwnedFd, Stat)>> {
    let flags = if kind == MODE_DIRECTORY {
        OFlags::DIRECTORY
    } else {
        OFlags::NONBLOCK
    };
    let fd = open_at(parent, name, flags)?;
    let stat = rustix::fs::fstat(&fd)?;
    Ok((u64::from(stat.st_mode) & MODE_TYPE_MASK == kind).then_some((fd, stat)))
}

fn open_at(parent: BorrowedFd<'_>, name: &std::ffi::CStr, flags: OFlags) -> Opened<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    match rustix::fs::openat(parent, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(parent, name, flags, Mode::empty()),
        opened => opened,
    }
}
