//! Giving extracted objects their metadata.
//!
//! Works on open descriptors only. What the target's file system cannot hold is said once per
//! kind and left out; everything else that fails is an error.

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU8, Ordering};

use backstop_format::pxar::entry::{Metadata, Timestamp};
use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::error::{ArchiveError, Result};
use super::metadata::is_stored;
use super::options::ExtractOptions;
use super::{acl, flags};
use crate::activity::Activity;

/// What a file system turned out not to support.
#[derive(Clone, Copy)]
enum Lack {
    Xattrs = 1,
    Acls = 2,
    Flags = 4,
    ProjectIds = 8,
    Fcaps = 16,
}

/// Applies metadata as the options say.
pub(crate) struct Applier<'a> {
    pub options: &'a ExtractOptions,
    pub activity: &'a dyn Activity,
    warned: AtomicU8,
    uid: u32,
    gid: u32,
}

/// The group of the directory in which an object was newly made: the object has either this group
/// or the one of this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inherited {
    pub gid: u32,
}

impl<'a> Applier<'a> {
    pub fn new(options: &'a ExtractOptions, activity: &'a dyn Activity) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        Self {
            options,
            activity,
            warned: AtomicU8::new(0),
            uid,
            gid,
        }
    }

    fn lacks(&self, lack: Lack, text: &str) {
        if self.warned.fetch_or(lack as u8, Ordering::Relaxed) & lack as u8 == 0 {
            self.activity.warn(&format!(
                "target file system does not support {text}, they are not restored"
            ));
        }
    }

    /// Flags that have to be set before data is written.
    pub fn before_data(&self, fd: BorrowedFd<'_>, metadata: &Metadata, path: &[u8]) -> Result<()> {
        let initial = metadata.stat.flags & flags::INITIAL;
        if initial == 0 {
            return Ok(());
        }
        self.chattr(fd, initial, flags::INITIAL, path)
    }

    fn chattr(&self, fd: BorrowedFd<'_>, archive: u64, mask: u64, path: &[u8]) -> Result<()> {
        match flags::set_chattr(fd, archive, mask) {
            Ok(()) => Ok(()),
            Err(err) if flags::is_unsupported(err) => {
                self.lacks(Lack::Flags, "file flags");
                Ok(())
            }
            Err(err) => Err(ArchiveError::file("set file flags of", path, err)),
        }
    }

    /// All metadata of a file or directory, after its content.
    pub fn finish(
        &self,
        fd: BorrowedFd<'_>,
        metadata: &Metadata,
        inherited: Option<Inherited>,
        path: &[u8],
    ) -> Result<()> {
        let stat = &metadata.stat;
        if !self.options.ignore_ownership && !self.owner_is_right(metadata, inherited) {
            let (uid, gid) = (owner(stat.uid), group(stat.gid));
            let changed = rustix::fs::fchown(fd, uid, gid);
            changed.map_err(|err| ArchiveError::file("set ownership of", path, err))?;
        }
        self.xattrs(fd, metadata, path)?;
        if let Some(id) = metadata.quota_project_id.filter(|&id| id != 0) {
            self.project_id(fd, id, path)?;
        }
        if !self.options.ignore_permissions {
            let mode = Mode::from_raw_mode(stat.permissions());
            let changed = rustix::fs::fchmod(fd, mode);
            changed.map_err(|err| ArchiveError::file("set permissions of", path, err))?;
        }
        let changed = rustix::fs::futimens(fd, &timestamps(stat.mtime));
        changed.map_err(|err| ArchiveError::file("set time of", path, err))?;
        if stat.flags & flags::ALL_CHATTR != 0 {
            self.chattr(fd, stat.flags, flags::ALL_CHATTR, path)?;
        }
        if stat.flags & flags::ALL_FAT != 0 {
            match flags::set_fat(fd, stat.flags) {
                Ok(()) => {}
                Err(err) if flags::is_unsupported(err) => self.lacks(Lack::Flags, "file flags"),
                Err(err) => return Err(ArchiveError::file("set FAT attributes of", path, err)),
            }
        }
        Ok(())
    }

    /// A new file of this process already has the archived owner.
    fn owner_is_right(&self, metadata: &Metadata, inherited: Option<Inherited>) -> bool {
        let stat = &metadata.stat;
        inherited.is_some_and(|directory| {
            stat.uid == self.uid && stat.gid == self.gid && directory.gid == self.gid
        })
    }

    fn xattrs(&self, fd: BorrowedFd<'_>, metadata: &Metadata, path: &[u8]) -> Result<()> {
        let features = &self.options.features;
        if features.xattrs {
            for xattr in &metadata.xattrs {
                if !is_stored(&xattr.name) {
                    self.activity.warn(&format!(
                        "skipping extended attribute {:?} of {:?}: not of a kind that archives hold",
                        String::from_utf8_lossy(&xattr.name),
                        super::error::display_path(path)
                    ));
                    continue;
                }
                match set(fd, xattr.name.as_slice(), &xattr.value) {
                    Err(Errno::OPNOTSUPP) => self.lacks(Lack::Xattrs, "extended attributes"),
                    result => {
                        result.map_err(|err| {
                            ArchiveError::file("set extended attributes of", path, err)
                        })?;
                    }
                }
            }
        }
        if let Some(fcaps) = metadata.fcaps.as_ref().filter(|_| features.fcaps) {
            match set(fd, b"security.capability", fcaps) {
                Err(Errno::OPNOTSUPP) => self.lacks(Lack::Fcaps, "file capabilities"),
                result => {
                    result
                        .map_err(|err| ArchiveError::file("set file capabilities of", path, err))?;
                }
            }
        }
        if !features.acls || metadata.acl.is_empty() {
            return Ok(());
        }
        let invalid = || ArchiveError::refused(path, "its ACL is invalid");
        if metadata.acl.has_access() {
            let value = acl::access_value(&metadata.acl, metadata.stat.permissions())
                .ok_or_else(invalid)?;
            self.acl(fd, acl::ACCESS, &value, path)?;
        }
        if metadata.acl.has_default() {
            let value = acl::default_value(&metadata.acl).ok_or_else(invalid)?;
            self.acl(fd, acl::DEFAULT, &value, path)?;
        }
        Ok(())
    }

    fn acl(&self, fd: BorrowedFd<'_>, name: &str, value: &[u8], path: &[u8]) -> Result<()> {
        match set(fd, name.as_bytes(), value) {
            Err(Errno::OPNOTSUPP) => {
                self.lacks(Lack::Acls, "ACLs");
                Ok(())
            }
            result => result.map_err(|err| ArchiveError::file("set ACL of", path, err)),
        }
    }

    fn project_id(&self, fd: BorrowedFd<'_>, id: u64, path: &[u8]) -> Result<()> {
        let id = u32::try_from(id)
            .map_err(|_| ArchiveError::refused(path, "its project id is invalid"))?;
        match flags::set_project_id(fd, id) {
            Err(err) if flags::is_unsupported(err) => {
                self.lacks(Lack::ProjectIds, "project ids");
                Ok(())
            }
            result => result.map_err(|err| ArchiveError::file("set project id of", path, err)),
        }
    }

    /// Metadata of a symbolic link, device, fifo or socket, given as a path-only descriptor.
    pub fn finish_special(
        &self,
        fd: BorrowedFd<'_>,
        metadata: &Metadata,
        is_symlink: bool,
        path: &[u8],
    ) -> Result<()> {
        let stat = &metadata.stat;
        if !self.options.ignore_ownership {
            let (uid, gid) = (owner(stat.uid), group(stat.gid));
            let changed = rustix::fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH);
            changed.map_err(|err| ArchiveError::file("set ownership of", path, err))?;
        }
        if !is_symlink && !self.options.ignore_permissions {
            // Path-only descriptors can be changed through procfs only.
            let through = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let changed = rustix::fs::chmod(through, Mode::from_raw_mode(stat.permissions()));
            changed.map_err(|err| ArchiveError::file("set permissions of", path, err))?;
        }
        let changed = rustix::fs::utimensat(fd, c"", &timestamps(stat.mtime), AtFlags::EMPTY_PATH);
        changed.map_err(|err| ArchiveError::file("set time of", path, err))
    }
}

fn set(fd: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())
}

fn owner(uid: u32) -> Option<Uid> {
    (uid != u32::MAX).then(|| Uid::from_raw(uid))
}

fn group(gid: u32) -> Option<Gid> {
    (gid != u32::MAX).then(|| Gid::from_raw(gid))
}

fn timestamps(mtime: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.seconds,
            tv_nsec: mtime.nanos.into(),
        },
    }
}
