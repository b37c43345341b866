//! The check that a file system keeps explicit updates of access times, on which garbage collection relies for chunks that
//! running backups use.

use std::os::unix::fs::MetadataExt;

use backstop_format::Digest;
use backstop_format::blob::DataBlob;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};

use crate::chunk_store::ChunkStore;
use crate::error::{DatastoreError, Result};

const CHUNK_SIZE: usize = 4 << 20;
/// How far the access time is put back before it is renewed, in seconds.
const STEP_BACK: i64 = 60;

/// Puts the access time of the all-zero chunk back a little, renews it in the usual way, and looks whether that had effect.
pub(crate) fn check(chunks: &ChunkStore) -> Result<()> {
    let zeros = vec![0; CHUNK_SIZE];
    let digest = Digest::of(&zeros);
    let blob = DataBlob::encode(&zeros, None, true).map_err(|source| DatastoreError::Damaged {
        path: chunks.chunk_path(&digest),
        source,
    })?;
    chunks.insert(&digest, &blob)?;

    let path = chunks.chunk_path(&digest);
    let refuse = |reason: String| DatastoreError::AccessTimes {
        path: path.clone(),
        reason,
    };
    let look = || std::fs::metadata(&path).map_err(DatastoreError::io("look at chunk", &path));
    let _guard = chunks.lock(&digest);
    let first = look()?;
    let earlier = Timestamps {
        last_access: Timespec {
            tv_sec: first.atime().saturating_sub(STEP_BACK),
            tv_nsec: 0,
        },
        last_modification: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
    };
    rustix::fs::utimensat(CWD, &path, &earlier, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(DatastoreError::sys("change the access time of", &path))?;
    let second = look()?;
    drop(_guard);
    chunks.touch(&digest)?;
    let third = look()?;
    if second.atime() >= first.atime() {
        return Err(refuse(format!(
            "its access time stayed {} although it was put back",
            first.atime()
        )));
    }
    if third.atime() <= second.atime() {
        return Err(refuse(format!(
            "its access time stayed {} although it was renewed",
            second.atime()
        )));
    }
    Ok(())
}
