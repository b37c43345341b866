//! Keeps bulk data from filling the page cache: what a backup writes, and what a verification reads, is read again by nobody
//! soon.
//!
//! The kernel is told so a little after the fact. Pages of a written file can only be dropped once they are on disk; pages that
//! were just read still wait in a list of the processor, and dropping them would make all processors empty theirs.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{Advice, fadvise};

/// Files that were read, whose pages wait to be dropped.
const WAITING_READ: usize = 16;
/// Files that were written, whose pages wait to be dropped. When the disk is so much slower than the network, the kernel
/// decides over the rest.
const WAITING_WRITTEN: usize = 1 << 16;
/// Smaller files are not worth the calls; in bytes.
const WORTHWHILE: u64 = 16 << 10;

/// Tells the kernel that the pages of a file are not needed.
fn forget(file: &File) {
    // A hint: where it is not supported, nothing is lost.
    let _ = fadvise(file, 0, None, Advice::DontNeed);
}

/// Files that were read once.
#[derive(Default)]
pub(crate) struct ReadFiles(Mutex<VecDeque<File>>);

impl ReadFiles {
    /// Drops the pages of the file that has waited longest.
    pub(crate) fn add(&self, file: File) {
        let oldest = {
            let mut waiting = self.0.lock();
            waiting.push_back(file);
            if waiting.len() > WAITING_READ {
                waiting.pop_front()
            } else {
                None
            }
        };
        if let Some(oldest) = oldest {
            forget(&oldest);
        }
    }

    /// Drops the pages of all files that wait.
    pub(crate) fn clear(&self) {
        let waiting = std::mem::take(&mut *self.0.lock());
        waiting.iter().for_each(forget);
    }
}

impl Drop for ReadFiles {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Files that were written.
#[derive(Default)]
pub(crate) struct WrittenFiles(Arc<Mutex<Written>>);

#[derive(Default)]
struct Written {
    waiting: VecDeque<PathBuf>,
    /// Whether a thread is at work.
    working: bool,
}

impl WrittenFiles {
    /// Sends the pages of a file of `size` bytes on their way to the disk, without waiting. (Telling the kernel at once that they
    /// are not needed does that too, but at a price.)
    pub(crate) fn start(file: &File, size: u64) {
        if size >= WORTHWHILE {
            write_back(file, libc::SYNC_FILE_RANGE_WRITE);
        }
    }

    /// Drops the pages of a file, for which [`start`](Self::start) was called, when they are on disk. The file is named, not
    /// kept open, so that nothing keeps its file system busy.
    pub(crate) fn add(&self, path: &Path, size: u64) {
        if size < WORTHWHILE {
            return;
        }
        let mut written = self.0.lock();
        if written.waiting.len() >= WAITING_WRITTEN {
            return;
        }
        written.waiting.push_back(path.to_owned());
        if !written.working {
            let shared = Arc::clone(&self.0);
            let thread = std::thread::Builder::new().name("page-cache".into());
            written.working = thread.spawn(move || work(&shared)).is_ok();
        }
    }

    /// Leaves to the kernel what still waits.
    pub(crate) fn clear(&self) {
        self.0.lock().waiting.clear();
    }
}

impl Drop for WrittenFiles {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Works until nothing waits.
fn work(written: &Mutex<Written>) {
    loop {
        let path = {
            let mut written = written.lock();
            match written.waiting.pop_front() {
                Some(path) => path,
                None => {
                    written.working = false;
                    return;
                }
            }
        };
        let opened = File::options()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path);
        // One that is gone has no pages.
        if let Ok(file) = opened {
            write_back(
                &file,
                libc::SYNC_FILE_RANGE_WAIT_BEFORE
                    | libc::SYNC_FILE_RANGE_WRITE
                    | libc::SYNC_FILE_RANGE_WAIT_AFTER,
            );
            forget(&file);
        }
    }
}

fn write_back(file: &File, flags: libc::c_uint) {
    // SAFETY: the descriptor is valid for the call, which takes no pointers.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_was_written_is_worked_off_and_what_is_gone_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let files = WrittenFiles::default();
        for number in 0..20 {
            let path = dir.path().join(number.to_string());
            std::fs::write(&path, vec![1; 64 << 10]).unwrap();
            WrittenFiles::start(&File::open(&path).unwrap(), 64 << 10);
            files.add(&path, 64 << 10);
            if number % 3 == 0 {
                std::fs::remove_file(&path).unwrap();
            }
        }
        files.add(Path::new("/nonexistent/small"), 1);
        let mut rounds = 0u64;
        while files.0.lock().working {
            std::thread::yield_now();
            rounds += 1;
            assert!(rounds < 1_000_000_000, "the thread does not end");
        }
        assert!(files.0.lock().waiting.is_empty());
    }
}
