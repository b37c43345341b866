//! Threads that write small files while the archive is read on.
//!
//! All files of one directory go to the same thread: two threads that make files in one directory
//! only wait for its lock in the kernel. For each thread, at most [`QUEUED_FILES`] files of at most
//! [`SMALL_FILE`] bytes wait.

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use backstop_format::pxar::entry::Metadata;

use super::apply::Applier;
use super::error::{ArchiveError, Result, display_path};
use super::target::{OpenDirectory, create_file, release, write_content};

/// Largest file that is written by a thread of the pool.
pub(crate) const SMALL_FILE: u64 = 512 << 10;
const QUEUED_FILES: usize = 32;

/// One file to be written.
pub(crate) struct Job {
    pub directory: Arc<OpenDirectory>,
    pub name: Vec<u8>,
    pub path: Vec<u8>,
    pub metadata: Metadata,
    pub data: Vec<u8>,
}

/// Errors of all threads.
pub(crate) struct Failures<'a> {
    pub applier: &'a Applier<'a>,
    first: Mutex<Option<ArchiveError>>,
    /// No further work is worth doing.
    abort: AtomicBool,
    count: AtomicU64,
}

impl<'a> Failures<'a> {
    pub fn new(applier: &'a Applier<'a>) -> Self {
        let (abort, count) = (AtomicBool::new(false), AtomicU64::new(0));
        Self {
            applier,
            first: Mutex::new(None),
            abort,
            count,
        }
    }

    /// Logs an error, or keeps it as the one that ends the extraction.
    pub fn add(&self, err: ArchiveError) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if self.applier.options.keep_going {
            self.applier.activity.warn(&format!("error: {err}"));
            return;
        }
        self.first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(err);
        self.abort.store(true, Ordering::Release);
    }

    pub fn is_aborted(&self) -> bool {
        self.abort.load(Ordering::Acquire)
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub fn take(&self) -> Option<ArchiveError> {
        self.first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    pub fn release(&self, directory: Arc<OpenDirectory>) {
        release(directory, self.applier, |err| self.add(err));
    }
}

/// The pool, as the reading thread sees it.
pub(crate) struct Writers {
    queues: Vec<flume::Sender<Job>>,
    buffers: flume::Receiver<Vec<u8>>,
    pending: Arc<Pending>,
}

#[derive(Default)]
struct Pending {
    count: Mutex<usize>,
    done: Condvar,
}

impl Pending {
    fn change(&self, by: isize) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_add_signed(by);
        if *count == 0 {
            self.done.notify_all();
        }
    }

    fn wait(&self) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        while *count > 0 {
            count = self
                .done
                .wait(count)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Writers {
    /// Starts the threads; they end when the pool is dropped.
    pub fn start<'scope, 'env: 'scope>(
        scope: &'scope std::thread::Scope<'scope, 'env>,
        failures: &'env Failures<'env>,
        threads: usize,
    ) -> Self {
        let (used, buffers) = flume::bounded(QUEUED_FILES);
        let pending = Arc::new(Pending::default());
        let queues = (0..threads.max(1))
            .map(|_| {
                let (jobs, queue) = flume::bounded::<Job>(QUEUED_FILES);
                let (used, pending) = (used.clone(), pending.clone());
                scope.spawn(move || {
                    for mut job in queue {
                        let _done = Done(&pending);
                        if !failures.is_aborted()
                            && let Err(err) = write(&job, failures.applier)
                        {
                            failures.add(err);
                        }
                        job.data.clear();
                        let _ = used.try_send(job.data);
                        failures.release(job.directory);
                    }
                });
                jobs
            })
            .collect();
        Self {
            queues,
            buffers,
            pending,
        }
    }

    /// An empty buffer for a file's content.
    pub fn buffer(&self) -> Vec<u8> {
        self.buffers.try_recv().unwrap_or_default()
    }

    /// Queues a file; waits while the queue is full.
    pub fn write(&self, job: Job) -> Result<()> {
        let ended = |job: Job| ArchiveError::File {
            action: "write",
            path: display_path(&job.path),
            source: std::io::Error::other("the writing thread has ended"),
        };
        let number = (Arc::as_ptr(&job.directory).addr() >> 6) % self.queues.len().max(1);
        let Some(queue) = self.queues.get(number) else {
            return Err(ended(job));
        };
        self.pending.change(1);
        queue.send(job).map_err(|flume::SendError(job)| {
            self.pending.change(-1);
            ended(job)
        })
    }

    /// Waits until all queued files are written.
    pub fn wait(&self) {
        self.pending.wait();
    }
}

/// Counts a job as done, even if it panics.
struct Done<'a>(&'a Pending);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.change(-1);
    }
}

fn write(job: &Job, applier: &Applier<'_>) -> Result<()> {
    let overwrite = applier.options.overwrite_files;
    let file = create_file(&job.directory, &job.name, &job.path, overwrite)?;
    applier.before_data(file.as_fd(), &job.metadata, &job.path)?;
    write_content(&file, &job.data, &job.path)?;
    let inherited = (!overwrite).then_some(job.directory.inherited);
    applier.finish(file.as_fd(), &job.metadata, inherited, &job.path)
}
