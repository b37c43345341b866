//! Times of files, on which garbage collection relies for chunks that running backups use, and the check that a file system keeps
//! them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use backstop_format::Digest;
use backstop_format::blob::DataBlob;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;

use crate::chunk_store::ChunkStore;
use crate::clock;
use crate::error::{DatastoreError, Result};

/// How far a file's clock may be behind before more is done about it, in seconds.
pub(crate) const EXACTNESS: i64 = 2;
const CHUNK_SIZE: usize = 4 << 20;
/// How far the times are put back before they are renewed, in seconds.
const STEP_BACK: i64 = 60;

const fn at(seconds: i64, nanoseconds: i64) -> Timespec {
    Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    }
}

/// Sets the access time to the present. `false`: no such file.
pub(crate) fn touch(path: &Path) -> Result<bool> {
    change(
        path,
        &Timestamps {
            last_access: at(0, UTIME_NOW),
            last_modification: at(0, UTIME_OMIT),
        },
    )
}

/// Sets access and modification time, in seconds since 1970. `false`: no such file.
pub(crate) fn set(path: &Path, accessed: i64, modified: i64) -> Result<bool> {
    change(
        path,
        &Timestamps {
            last_access: at(accessed, 0),
            last_modification: at(modified, 0),
        },
    )
}

fn change(path: &Path, times: &Timestamps) -> Result<bool> {
    match rustix::fs::utimensat(CWD, path, times, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(DatastoreError::sys("renew the access time of", path)(error)),
    }
}

/// What a check has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Whether access times are kept; otherwise modification times are, and serve instead.
    pub(crate) access_times: bool,
    /// How many seconds the clock of the file system is behind that of this host, as that of a file server can be.
    pub(crate) behind: i64,
}

/// Puts the times of the all-zero chunk back a little, renews them in the usual way, and looks whether that had effect.
pub(crate) fn check(chunks: &ChunkStore) -> Result<Kept> {
    let zeros = vec![0; CHUNK_SIZE];
    let digest = Digest::of(&zeros);
    let blob = DataBlob::encode(&zeros, None, true).map_err(|source| DatastoreError::Damaged {
        path: chunks.chunk_path(&digest),
        source,
    })?;
    chunks.insert(&digest, &blob)?;

    let path = chunks.chunk_path(&digest);
    let look = || std::fs::metadata(&path).map_err(DatastoreError::io("look at chunk", &path));
    let guard = chunks.lock(&digest);
    let earlier = look()?.atime().saturating_sub(STEP_BACK);
    let step_back = Timestamps {
        last_access: at(earlier, 0),
        last_modification: at(0, UTIME_OMIT),
    };
    change(&path, &step_back)?;
    let put_back = look()?.atime();
    touch(&path)?;
    let (now, touched) = (clock::now(), look()?.atime());
    let kept = put_back == earlier && touched > earlier;
    if !kept {
        set(&path, earlier, earlier)?;
    }
    drop(guard);
    // Fails unless one of both times is kept.
    chunks.touch(&digest)?;
    Ok(Kept {
        access_times: kept,
        behind: if kept {
            now.saturating_sub(touched).max(0)
        } else {
            0
        },
    })
}
