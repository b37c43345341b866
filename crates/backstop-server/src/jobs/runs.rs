//! The runs of jobs in this process.
//!
//! That a task has ended is seen a moment before the end is noted and the job is free again. Whoever has seen it may start the job
//! again: this makes such a start wait for the note. Must never make anybody wait for a run.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use backstop_types::Upid;
use parking_lot::{Condvar, Mutex};

use super::{JobId, JobLock, JobStateError, JobStates};

/// Longest time that is waited for a note, which is two small files. A disk that hangs longer keeps the job busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// The tasks of the jobs whose end is not noted yet.
#[derive(Debug, Default)]
pub struct JobRuns {
    tasks: Mutex<HashMap<JobId, Upid>>,
    noted: Condvar,
}

impl JobRuns {
    /// Locks a job; `None`: it runs. Blocking.
    ///
    /// # Errors
    /// As for [`JobStates::lock`].
    pub fn lock(
        &self,
        states: &JobStates,
        job: &JobId,
        is_running: impl Fn(&Upid) -> bool,
    ) -> Result<Option<JobLock>, JobStateError> {
        let deadline = Instant::now() + PATIENCE;
        let mut tasks = self.tasks.lock();
        loop {
            if let Some(lock) = states.lock(job)? {
                return Ok(Some(lock));
            }
            let has_ended = tasks.get(job).is_some_and(|upid| !is_running(upid));
            if !has_ended || self.noted.wait_until(&mut tasks, deadline).timed_out() {
                return Ok(None);
            }
        }
    }

    /// Remembers that a task is the run of a job.
    pub fn begin(&self, job: &JobId, upid: &Upid) {
        self.tasks.lock().insert(job.clone(), upid.clone());
    }

    /// Whether the end of this run of a job is not noted yet.
    pub fn is_under_way(&self, job: &JobId, upid: &Upid) -> bool {
        self.tasks.lock().get(job) == Some(upid)
    }

    /// Gives the job free: the end of this run is noted.
    pub fn end(&self, job: &JobId, upid: &Upid, lock: JobLock) {
        let mut tasks = self.tasks.lock();
        drop(lock);
        if tasks.get(job) == Some(upid) {
            tasks.remove(job);
        }
        self.noted.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;

    use super::*;
    use crate::jobs::JobKind;

    #[test]
    fn a_job_whose_task_has_ended_is_had_when_that_is_noted_and_one_that_runs_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let states = JobStates::new(dir.path().to_owned());
        let runs = Arc::new(JobRuns::default());
        let job = JobId::new(JobKind::Prune, "daily");
        let upid: Upid = "UPID:elsa:0000C0DE:00000001:00000002:65000000:prunejob:daily:root@pam:"
            .parse()
            .unwrap();
        let running = Arc::new(AtomicBool::new(true));
        let looks = Arc::new(AtomicUsize::new(0));
        let lock = {
            let (running, looks) = (Arc::clone(&running), Arc::clone(&looks));
            let (runs, states, job) = (Arc::clone(&runs), states.clone(), job.clone());
            move || {
                let is_running = |_: &Upid| {
                    looks.fetch_add(1, Ordering::SeqCst);
                    running.load(Ordering::SeqCst)
                };
                runs.lock(&states, &job, is_running).unwrap()
            }
        };
        let own = lock().unwrap();
        assert!(lock().is_none(), "locked, by whomever");
        assert_eq!(looks.load(Ordering::SeqCst), 0);
        runs.begin(&job, &upid);
        assert!(lock().is_none(), "its task runs");
        running.store(false, Ordering::SeqCst);
        looks.store(0, Ordering::SeqCst);
        let waiting = thread::spawn(lock);
        // It has looked under the mutex that the end needs, so it waits when that is had.
        while looks.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        runs.end(&job, &upid, own);
        assert!(waiting.join().unwrap().is_some());
    }
}
