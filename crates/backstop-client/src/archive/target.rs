//! Making objects below the target directory.
//!
//! Every object is made relative to an open directory by a single, checked path component, without
//! following symbolic links; nothing outside of the target can be reached.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use backstop_format::blob::is_zero;
use backstop_format::pxar::entry::{Device, MODE_BLOCK, MODE_CHAR, Metadata};
use backstop_format::pxar::item::is_valid_name;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::apply::{Applier, Inherited};
use super::error::{ArchiveError, Result};

/// Zero runs of this many bytes become holes.
const HOLE: usize = 4096;

/// A directory that is being filled. Its metadata is applied when the last user
/// [releases](release) it.
pub(crate) struct OpenDirectory {
    pub fd: OwnedFd,
    /// Path below the target.
    pub path: Vec<u8>,
    pub inherited: Inherited,
    parent: Option<Arc<OpenDirectory>>,
    metadata: Option<Metadata>,
}

impl OpenDirectory {
    fn new(
        fd: OwnedFd,
        path: Vec<u8>,
        parent: Option<Arc<OpenDirectory>>,
        metadata: Option<Metadata>,
    ) -> Result<Self> {
        let stat = rustix::fs::fstat(&fd).map_err(|err| ArchiveError::file("stat", &path, err))?;
        let inherited = Inherited { gid: stat.st_gid };
        Ok(Self {
            fd,
            path,
            inherited,
            parent,
            metadata,
        })
    }

    /// Creates (or enters) the target directory. `metadata` is applied to it at the end.
    pub fn target(path: &Path, may_exist: bool, metadata: Option<Metadata>) -> Result<Self> {
        let failed = |action, err: Errno| ArchiveError::File {
            action,
            path: path.into(),
            source: err.into(),
        };
        match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) if may_exist => {}
            Err(err) => return Err(failed("create target directory", err)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty());
        let fd = fd.map_err(|err| failed("open target directory", err))?;
        Self::new(fd, Vec::new(), None, metadata)
    }

    /// Creates (or enters) a directory in `parent`.
    pub fn create(
        parent: &Arc<OpenDirectory>,
        name: &[u8],
        metadata: &Metadata,
        path: &[u8],
        applier: &Applier<'_>,
    ) -> Result<Self> {
        check_name(name, path)?;
        // Not accessible to others before owner and permissions are final.
        match rustix::fs::mkdirat(&parent.fd, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) if applier.options.allow_existing_dirs => {}
            Err(err) => return Err(ArchiveError::file("create directory", path, err)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent.fd, name, flags, Mode::empty());
        let fd = fd.map_err(|err| ArchiveError::file("open directory", path, err))?;
        applier.before_data(fd.as_fd(), metadata, path)?;
        Self::new(
            fd,
            path.to_vec(),
            Some(parent.clone()),
            Some(metadata.clone()),
        )
    }
}

/// Gives a directory up. The last one to do so applies its metadata, and releases its parent.
pub(crate) fn release(
    directory: Arc<OpenDirectory>,
    applier: &Applier<'_>,
    mut failed: impl FnMut(ArchiveError),
) {
    let mut next = Some(directory);
    while let Some(directory) = next.take().and_then(Arc::into_inner) {
        if let Some(metadata) = &directory.metadata
            && let Err(err) = applier.finish(directory.fd.as_fd(), metadata, None, &directory.path)
        {
            failed(err);
        }
        next = directory.parent;
    }
}

fn check_name(name: &[u8], path: &[u8]) -> Result<()> {
    match is_valid_name(name) {
        true => Ok(()),
        false => Err(ArchiveError::refused(
            path,
            "its name is not a single path component",
        )),
    }
}

/// Creates a regular file for writing, with permissions for its owner only.
pub(crate) fn create_file(
    directory: &OpenDirectory,
    name: &[u8],
    path: &[u8],
    overwrite: bool,
) -> Result<File> {
    check_name(name, path)?;
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    let mode = Mode::RUSR | Mode::WUSR;
    let failed = |err: Errno| ArchiveError::file("create file", path, err);
    match rustix::fs::openat(
        &directory.fd,
        name,
        flags | OFlags::CREATE | OFlags::EXCL,
        mode,
    ) {
        Ok(fd) => return Ok(File::from(fd)),
        Err(Errno::EXIST) if overwrite => {}
        Err(err) => return Err(failed(err)),
    }
    // Not blocking, lest a fifo of that name stops everything.
    let fd =
        rustix::fs::openat(&directory.fd, name, flags | OFlags::NONBLOCK, mode).map_err(failed)?;
    let stat = rustix::fs::fstat(&fd).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(failed(Errno::EXIST));
    }
    rustix::fs::ftruncate(&fd, 0).map_err(failed)?;
    Ok(File::from(fd))
}

/// Writes `data` at `offset` of a file that is empty there; zero runs are left out. Returns
/// whether the last bytes were left out.
fn write_sparse(file: &File, data: &[u8], mut offset: u64) -> std::io::Result<bool> {
    let mut rest = data;
    loop {
        let is_hole = |block: &&[u8]| block.len() == HOLE && is_zero(block);
        let holes = rest.chunks(HOLE).take_while(is_hole).count() * HOLE;
        offset += holes as u64;
        rest = rest.get(holes..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(holes > 0);
        }
        let filled = rest
            .chunks(HOLE)
            .take_while(|block| !is_hole(block))
            .count()
            * HOLE;
        let (run, tail) = rest.split_at(filled.min(rest.len()));
        file.write_all_at(run, offset)?;
        offset += run.len() as u64;
        rest = tail;
        if rest.is_empty() {
            return Ok(false);
        }
    }
}

/// Writes a file whose content is in memory.
pub(crate) fn write_content(file: &File, data: &[u8], path: &[u8]) -> Result<()> {
    let written = write_sparse(file, data, 0).and_then(|hole_at_end| match hole_at_end {
        true => file.set_len(data.len() as u64),
        false => Ok(()),
    });
    written.map_err(|err| ArchiveError::file("write", path, err))
}

/// Copies a file's content; `buffer` should be large and a multiple of 4096 bytes.
pub(crate) fn copy_content(
    file: &File,
    content: &mut dyn Read,
    size: u64,
    buffer: &mut [u8],
    path: &[u8],
) -> Result<()> {
    let mut offset = 0u64;
    let mut hole_at_end = false;
    while offset < size {
        let wanted = usize::try_from(size - offset)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        content
            .read_exact(part)
            .map_err(|err| ArchiveError::file("read archived content of", path, err))?;
        let written = write_sparse(file, part, offset);
        hole_at_end = written.map_err(|err| ArchiveError::file("write", path, err))?;
        offset += part.len() as u64;
    }
    if hole_at_end {
        file.set_len(size)
            .map_err(|err| ArchiveError::file("write", path, err))?;
    }
    Ok(())
}

/// Opens what was just made, without following it.
fn reopen(directory: &OpenDirectory, name: &[u8], path: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&directory.fd, name, flags, Mode::empty());
    fd.map_err(|err| ArchiveError::file("open", path, err))
}

/// Calls `make`; where something is in its way and `overwrite` is set, removes that (never a
/// directory) and calls it again.
fn make_or_replace(
    directory: &OpenDirectory,
    name: &[u8],
    overwrite: bool,
    make: impl Fn() -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    match make() {
        Err(Errno::EXIST) if overwrite => {
            rustix::fs::unlinkat(&directory.fd, name, AtFlags::empty())?;
            make()
        }
        made => made,
    }
}

/// Makes a symbolic link with its metadata.
pub(crate) fn create_symlink(
    directory: &OpenDirectory,
    name: &[u8],
    target: &[u8],
    metadata: &Metadata,
    path: &[u8],
    applier: &Applier<'_>,
) -> Result<()> {
    check_name(name, path)?;
    if target.contains(&0) {
        return Err(ArchiveError::refused(
            path,
            "its link target contains a NUL byte",
        ));
    }
    let overwrite = applier.options.overwrite_symlinks;
    make_or_replace(directory, name, overwrite, || {
        rustix::fs::symlinkat(target, &directory.fd, name)
    })
    .map_err(|err| ArchiveError::file("create symbolic link", path, err))?;
    let fd = reopen(directory, name, path)?;
    applier.finish_special(fd.as_fd(), metadata, true, path)
}

/// Makes a further name of a file extracted before. `target` is relative to `root`, the target
/// directory.
pub(crate) fn create_hardlink(
    root: BorrowedFd<'_>,
    directory: &OpenDirectory,
    name: &[u8],
    target: &[u8],
    path: &[u8],
    overwrite: bool,
) -> Result<()> {
    check_name(name, path)?;
    let outside =
        || ArchiveError::refused(path, "its hard link target leaves the target directory");
    let failed = |err: Errno| ArchiveError::file("create hard link", path, err);
    let (parents, file) = match target.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => target.split_at(slash),
        None => (&b""[..], target),
    };
    let file = file.strip_prefix(b"/").unwrap_or(file);
    if !is_valid_name(file) {
        return Err(outside());
    }
    let mut parent: Option<OwnedFd> = None;
    if !parents.is_empty() {
        for component in parents.split(|&byte| byte == b'/') {
            if !is_valid_name(component) {
                return Err(outside());
            }
            let from = parent.as_ref().map_or(root, AsFd::as_fd);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            parent =
                Some(rustix::fs::openat(from, component, flags, Mode::empty()).map_err(failed)?);
        }
    }
    let from = parent.as_ref().map_or(root, AsFd::as_fd);
    let stat = rustix::fs::statat(from, file, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(ArchiveError::refused(
            path,
            "its hard link target is not a regular file",
        ));
    }
    make_or_replace(directory, name, overwrite, || {
        rustix::fs::linkat(from, file, &directory.fd, name, AtFlags::empty())
    })
    .map_err(failed)
}

/// Makes a device, fifo or socket with its metadata. `device` is given for devices.
pub(crate) fn create_special(
    directory: &OpenDirectory,
    name: &[u8],
    kind: FileType,
    device: Option<Device>,
    metadata: &Metadata,
    path: &[u8],
    applier: &Applier<'_>,
) -> Result<()> {
    check_name(name, path)?;
    let number = match device {
        Some(device) => device
            .to_dev()
            .ok_or_else(|| ArchiveError::refused(path, "its device number is invalid"))?,
        None => 0,
    };
    let overwrite = applier.options.overwrite_files;
    let mode = Mode::RUSR | Mode::WUSR;
    make_or_replace(directory, name, overwrite, || {
        rustix::fs::mknodat(&directory.fd, name, kind, mode, number)
    })
    .map_err(|err| ArchiveError::file("create special file", path, err))?;
    let fd = reopen(directory, name, path)?;
    applier.finish_special(fd.as_fd(), metadata, false, path)
}

/// The kind of device that a mode describes.
pub(crate) fn device_kind(metadata: &Metadata, path: &[u8]) -> Result<FileType> {
    match metadata.stat.file_type() {
        MODE_BLOCK => Ok(FileType::BlockDevice),
        MODE_CHAR => Ok(FileType::CharacterDevice),
        _ => Err(ArchiveError::refused(
            path,
            "it is a device without a device's mode",
        )),
    }
}
