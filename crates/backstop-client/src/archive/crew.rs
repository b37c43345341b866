//! Threads that open the files of a directory ahead of the walk.
//!
//! Opening a file and reading its metadata are several system calls, each of which may wait for a disk or a server. The walk
//! names files in groups; the order of what it gives away stays its own. Nothing is decided here.

use std::ffi::CString;
use std::num::NonZeroU64;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::Scope;

use backstop_format::pxar::entry::{MODE_FILE, Metadata};
use rustix::fs::Stat;
use rustix::io::Errno;

use super::metadata::MetadataReader;
use super::options::CreateOptions;
use super::walk::open_and_stat;

/// Threads at least, so that waiting overlaps even where there are few processors.
const MIN_THREADS: usize = 4;
const MAX_THREADS: usize = 16;
/// Bytes at the beginning of each file that are read ahead.
const PREFETCH: Option<NonZeroU64> = NonZeroU64::new(1 << 20);

/// A file that was opened.
pub(crate) struct Found {
    pub fd: OwnedFd,
    pub stat: Stat,
    pub metadata: Result<Metadata, Errno>,
}

/// What became of a name; `None` when it is no regular file.
pub(crate) type Outcome = Result<Option<Box<Found>>, Errno>;

struct Job {
    directory: Arc<OwnedFd>,
    names: Vec<CString>,
    outcomes: mpsc::Sender<Vec<Outcome>>,
}

/// The threads; they end when this is dropped.
pub(crate) struct Crew {
    jobs: flume::Sender<Job>,
}

impl Crew {
    /// Starts the threads; `None` when the system refuses them all.
    pub fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        options: &'scope CreateOptions,
        prefetch: bool,
    ) -> Option<Self> {
        let (jobs, queue) = flume::unbounded::<Job>();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut started = 0;
        for number in 0..cores.clamp(MIN_THREADS, MAX_THREADS) {
            let queue = queue.clone();
            let work = move || {
                let mut metadata = MetadataReader::new(options.features, options.skip_e2big_xattr);
                while let Ok(job) = queue.recv() {
                    let find = |name| find(&job.directory, name, &mut metadata, prefetch);
                    // The walk may have ended.
                    let _ = job.outcomes.send(job.names.iter().map(find).collect());
                }
            };
            let thread = std::thread::Builder::new().name(format!("walk-{number}"));
            if thread.spawn_scoped(scope, work).is_err() {
                break;
            }
            started += 1;
        }
        (started > 0).then_some(Self { jobs })
    }

    /// Has `names` opened, which the directory says are regular files. Gives one outcome for each, in this order.
    pub fn open(
        &self,
        directory: &Arc<OwnedFd>,
        names: Vec<CString>,
    ) -> mpsc::Receiver<Vec<Outcome>> {
        let (outcomes, receiver) = mpsc::channel();
        let directory = Arc::clone(directory);
        // If this fails the receiver says so.
        let _ = self.jobs.send(Job {
            directory,
            names,
            outcomes,
        });
        receiver
    }
}

/// Opens a regular file and reads its metadata. With `prefetch` the kernel is told that its content will be read soon.
pub(crate) fn find(
    directory: &OwnedFd,
    name: &CString,
    metadata: &mut MetadataReader,
    prefetch: bool,
) -> Outcome {
    let Some((fd, stat)) = open_and_stat(directory.as_fd(), name, MODE_FILE)? else {
        return Ok(None);
    };
    if prefetch && stat.st_size > 0 {
        // Advice only.
        let _ = rustix::fs::fadvise(&fd, 0, PREFETCH, rustix::fs::Advice::WillNeed);
    }
    let metadata = metadata.read(fd.as_fd(), &stat);
    Ok(Some(Box::new(Found { fd, stat, metadata })))
}
