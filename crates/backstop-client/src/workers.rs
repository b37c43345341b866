//! Threads for work that costs CPU: hashing, compression, encryption, and their inverses.
//!
//! One set per client process serves all archives and downloads, so that cores are neither idle nor fought for. Jobs must
//! not block on other jobs; how many wait is bounded by those who submit them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

type Job = Box<dyn FnOnce() + Send>;

/// A set of worker threads; they end when the last handle is dropped and all jobs are done.
#[derive(Clone)]
pub(crate) struct Workers {
    jobs: Arc<flume::Sender<Job>>,
    count: usize,
}

impl Workers {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    /// The system refuses to start even one thread.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let (jobs, queue) = flume::unbounded::<Job>();
        let mut started = 0;
        for number in 0..count.max(1) {
            let queue = queue.clone();
            let spawned = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || work(&queue));
            match spawned {
                Ok(_) => started += 1,
                Err(error) if started == 0 => return Err(error),
                // Fewer threads than cores are slower, not wrong.
                Err(error) => {
                    tracing::warn!("only {started} of {count} worker threads started - {error}");
                    break;
                }
            }
        }
        Ok(Self {
            jobs: Arc::new(jobs),
            count: started,
        })
    }

    /// The process-wide set: one thread per core.
    pub fn shared() -> std::io::Result<Self> {
        static SHARED: OnceLock<Workers> = OnceLock::new();
        if let Some(workers) = SHARED.get() {
            return Ok(workers.clone());
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = Self::start(cores)?;
        Ok(SHARED.get_or_init(|| workers).clone())
    }

    /// How many threads there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Queues a job. A panic in it ends the job, not the thread.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) {
        // Workers live as long as this sender, so that a failure to send cannot happen.
        let _ = self.jobs.send(Box::new(job));
    }
}

fn work(queue: &flume::Receiver<Job>) {
    while let Ok(job) = queue.recv() {
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a worker's job panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_panicking_job_is_reported_and_the_worker_lives_on() {
        let workers = Workers::start(1).unwrap();
        let (sender, results) = std::sync::mpsc::channel();
        let lost = sender.clone();
        workers.submit(move || {
            let _held_until_the_panic = lost;
            panic!("for the test")
        });
        workers.submit(move || sender.send(7).unwrap());
        assert_eq!(results.iter().collect::<Vec<_>>(), [7]);
    }
}
