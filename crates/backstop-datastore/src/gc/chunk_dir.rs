//! One chunk directory: what is in it, by handles and short names, which costs a fraction of what whole paths cost.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use backstop_format::Digest;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, StatxFlags, Timespec, Timestamps, UTIME_NOW,
    UTIME_OMIT,
};
use rustix::io::Errno;

use crate::error::{DatastoreError, Result};

/// Buffer for listings, in bytes: a directory of a store of millions of chunks needs one call.
const LISTING: usize = 64 << 10;

/// Memory for listings, one per thread.
pub(super) struct ListingBuffer(Box<[MaybeUninit<u8>]>);

impl Default for ListingBuffer {
    fn default() -> Self {
        ListingBuffer(Box::new_uninit_slice(LISTING))
    }
}

/// What the name of a file in a chunk directory says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Chunk(Digest),
    Bad(Digest),
    /// What a crash has left of a write.
    Temporary(Digest),
    /// None of the store's business.
    Stray,
}

impl Name {
    pub(super) fn parse(name: &[u8]) -> Self {
        Self::parse_known(name).unwrap_or(Name::Stray)
    }

    fn parse_known(name: &[u8]) -> Option<Self> {
        let (hex, rest) = name.split_first_chunk::<64>()?;
        let mut digest = Digest([0; 32]);
        for (byte, pair) in digest.0.iter_mut().zip(hex.as_chunks::<2>().0) {
            *byte = hex_value(pair[0])? << 4 | hex_value(pair[1])?;
        }
        match rest {
            [] => Some(Name::Chunk(digest)),
            [b'.', b'0'..=b'9', b'.', b'b', b'a', b'd'] => Some(Name::Bad(digest)),
            // The marker is that of stores in object storage, which keep none of their chunks here.
            _ if rest.starts_with(b".tmp_") && rest.len() == 11 || rest == b".using" => {
                Some(Name::Temporary(digest))
            }
            _ => None,
        }
    }
}

/// Chunk files are named in lower case.
fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// What is known of a file.
#[derive(Clone, Copy)]
pub(super) struct Status {
    pub(super) is_file: bool,
    /// In bytes.
    pub(super) size: u64,
    /// Last use or last write, in seconds since 1970: restored copies of a datastore can have old access times.
    pub(super) used: i64,
}

/// An open directory.
pub(super) struct ChunkDir {
    fd: OwnedFd,
    path: PathBuf,
}

impl ChunkDir {
    /// `None`: it does not exist.
    pub(super) fn open(path: &Path) -> Result<Option<Self>> {
        // Links are followed: chunks that somebody has moved to another disk are chunks.
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(ChunkDir {
                fd,
                path: path.to_owned(),
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(DatastoreError::sys("list", path)(error)),
        }
    }

    /// Where a file of this directory is.
    pub(super) fn file_path(&self, name: &CStr) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        self.path.join(std::ffi::OsStr::from_bytes(name.to_bytes()))
    }

    /// Calls `visit` with names, types (where the file system tells them) and inode numbers.
    pub(super) fn list(
        &self,
        buffer: &mut ListingBuffer,
        mut visit: impl FnMut(&CStr, FileType, u64),
    ) -> Result<()> {
        let mut entries = RawDir::new(&self.fd, &mut buffer.0);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(DatastoreError::sys("list", &self.path))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                visit(entry.file_name(), entry.file_type(), entry.ino());
            }
        }
        Ok(())
    }

    /// `None`: it is gone.
    pub(super) fn status(&self, name: &CStr) -> Result<Option<Status>> {
        let wanted = StatxFlags::TYPE | StatxFlags::SIZE | StatxFlags::ATIME | StatxFlags::MTIME;
        match rustix::fs::statx(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW, wanted) {
            Ok(found) => Ok(Some(Status {
                is_file: FileType::from_raw_mode(found.stx_mode.into()) == FileType::RegularFile,
                size: found.stx_size,
                used: found.stx_atime.tv_sec.max(found.stx_mtime.tv_sec),
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(DatastoreError::sys("look at", self.file_path(name))(error)),
        }
    }

    /// Sets the access time to the present.
    pub(super) fn touch(&self, name: &CStr) -> Result<()> {
        let now = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_NOW,
            },
            last_modification: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
        };
        match rustix::fs::utimensat(&self.fd, name, &now, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(DatastoreError::sys(
                "renew the access time of",
                self.file_path(name),
            )(error)),
        }
    }

    pub(super) fn remove(&self, name: &CStr) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(DatastoreError::sys(
                "remove unused chunk",
                self.file_path(name),
            )(error)),
        }
    }
}

/// A file of a listing.
pub(super) struct Entry {
    pub(super) name: Name,
    pub(super) file: CString,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn only_names_that_the_store_gives_are_its_own() {
        let digest = Digest::of(b"x");
        let name = |rest: &str| Name::parse(format!("{digest}{rest}").as_bytes());
        assert_eq!(name(""), Name::Chunk(digest));
        assert_eq!(name(".0.bad"), Name::Bad(digest));
        assert_eq!(name(".9.bad"), Name::Bad(digest));
        assert_eq!(name(".tmp_aB3dE9"), Name::Temporary(digest));
        assert_eq!(name(".using"), Name::Temporary(digest));
        for rest in [".10.bad", ".bad", ".tmp_aB3", ".tmp_aB3dE9x", ".saved", "0"] {
            assert_eq!(name(rest), Name::Stray, "{rest}");
        }
        assert_eq!(
            Name::parse(digest.to_string().to_uppercase().as_bytes()),
            Name::Stray
        );
        assert_eq!(Name::parse(b"README"), Name::Stray);
    }
}
