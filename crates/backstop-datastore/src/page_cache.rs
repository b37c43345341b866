//! Keeps bulk data from filling the page cache: what a backup writes is read again by nobody soon.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsRawFd;

use parking_lot::Mutex;
use rustix::fs::{Advice, fadvise};

/// Files that may wait for their data to reach the disk.
const WAITING: usize = 32;
/// Smaller files are not worth the calls; in bytes.
const WORTHWHILE: u64 = 128 << 10;

/// Tells the kernel that the pages of a file are not needed.
pub(crate) fn forget(file: &File) {
    // A hint: where it is not supported, nothing is lost.
    let _ = fadvise(file, 0, None, Advice::DontNeed);
}

/// Written files whose pages can be dropped only once they are on disk.
#[derive(Default)]
pub(crate) struct WrittenFiles(Mutex<VecDeque<File>>);

impl WrittenFiles {
    /// Starts write-back of a file of `size` bytes, and drops the pages of the one that has waited longest.
    pub(crate) fn add(&self, file: File, size: u64) {
        if size < WORTHWHILE {
            return;
        }
        start_write_back(&file);
        let oldest = {
            let mut waiting = self.0.lock();
            waiting.push_back(file);
            if waiting.len() > WAITING {
                waiting.pop_front()
            } else {
                None
            }
        };
        if let Some(oldest) = oldest {
            forget(&oldest);
        }
    }

    /// Drops what waits, so that no handle keeps the file system busy.
    pub(crate) fn clear(&self) {
        let waiting = std::mem::take(&mut *self.0.lock());
        waiting.iter().for_each(forget);
    }
}

/// Sends a file's pages on their way to the disk, without waiting. (Telling the kernel at once that they are not needed does
/// that too, but first makes all processors drain their lists.)
fn start_write_back(file: &File) {
    // SAFETY: the descriptor is valid for the call, which takes no pointers.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}
