//! Which jobs are due. Pure decisions: the time is given, and jobs are reached through a trait.
//!
//! A job is due when the next moment of its schedule after its last start has come, however long ago that was: what was
//! missed is made up for once. A job that cannot be started now has failed, once for each moment of its schedule that passes meanwhile,
//! and is owed a run: it is tried again in each pass until it starts. One whose datastore is closed on purpose has not failed, and
//! is tried again as well. Nothing that is wrong with one job keeps another from running.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use backstop_calendar::CalendarEvent;
use jiff::tz::TimeZone;

use super::JobId;

/// A last start that lies further in the future shows that the clock was wrong then, in seconds.
const CLOCK_TOLERANCE: i64 = 300;

/// A job with its schedule as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scheduled {
    pub job: JobId,
    pub schedule: String,
}

/// What a schedule counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastRun {
    /// It runs now.
    Running,
    /// Its last start, or the time at which it was made or changed, in seconds since 1970.
    At(i64),
    /// The same of a run that could not begin: the job is owed one.
    Owed(i64),
}

/// What became of the wish to start a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attempt {
    Started,
    /// It runs already.
    Busy,
    /// Its datastore is closed on purpose, in this way.
    Closed(String),
    /// It cannot be started, for this reason.
    Refused(String),
}

/// What the scheduler needs of jobs.
pub(super) trait Jobs {
    /// All jobs that have a schedule, in the order in which they are to be started.
    fn scheduled(&self) -> Vec<Scheduled>;
    /// When a job was last started.
    fn last_run(&self, job: &JobId, now: i64) -> Result<LastRun, String>;
    /// Lets the schedule of a job count from now on.
    fn count_from(&self, job: &JobId, now: i64) -> Result<(), String>;
    /// Starts a job, which is not waited for.
    fn start(&self, scheduled: &Scheduled) -> Attempt;
    /// Notes a run that could not begin as one that failed, so that the job is owed one.
    fn fail(&self, scheduled: &Scheduled, reason: &str) -> Result<(), String>;
}

/// Remembers from pass to pass what was said of a job, and when it was started.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    complaints: HashMap<JobId, String>,
    started: HashMap<JobId, i64>,
}

impl Scheduler {
    /// Starts all jobs that are due at `now`. Returns what is to be said, which is written to the log as well.
    pub fn pass(&mut self, now: i64, zone: &TimeZone, jobs: &dyn Jobs) -> Vec<String> {
        let scheduled = jobs.scheduled();
        let is_there = |job: &JobId| scheduled.iter().any(|scheduled| scheduled.job == *job);
        self.complaints.retain(|job, _| is_there(job));
        self.started.retain(|job, _| is_there(job));
        let mut said = Vec::new();
        for scheduled in &scheduled {
            let consider = AssertUnwindSafe(|| self.consider(scheduled, now, zone, jobs));
            let trouble = catch_unwind(consider).unwrap_or_else(|_| {
                Err("a fault of the program; see the messages before".to_owned())
            });
            match trouble {
                Ok(()) => {
                    self.complaints.remove(&scheduled.job);
                }
                Err(reason) => {
                    let text = format!("{} does not run by its schedule: {reason}", scheduled.job);
                    let before = self.complaints.insert(scheduled.job.clone(), text.clone());
                    if before.as_ref() != Some(&text) {
                        tracing::error!("{text}");
                        said.push(text);
                    }
                }
            }
        }
        said
    }

    fn consider(
        &mut self,
        scheduled: &Scheduled,
        now: i64,
        zone: &TimeZone,
        jobs: &dyn Jobs,
    ) -> Result<(), String> {
        let job = &scheduled.job;
        let event: CalendarEvent = scheduled
            .schedule
            .parse()
            .map_err(|err| format!("schedule '{}' makes no sense - {err}", scheduled.schedule))?;
        let (last, is_owed) = match jobs.last_run(job, now)? {
            LastRun::Running => return Ok(()),
            LastRun::At(last) => (last, false),
            LastRun::Owed(last) => (last, true),
        };
        let last = if last > now.saturating_add(CLOCK_TOLERANCE) {
            tracing::warn!(%job, last, now, "the clock was set back; the schedule of this job counts from now on");
            self.started.remove(job);
            jobs.count_from(job, now)?;
            now
        } else {
            // A start of this process counts even if it could not be written down.
            let started = self.started.get(job).copied();
            last.max(started.filter(|started| *started <= now).unwrap_or(last))
        };
        let next = event.next_after(last, zone);
        let is_due = next.is_some_and(|next| next <= now);
        if !is_due && !is_owed {
            return Ok(());
        }
        match jobs.start(scheduled) {
            Attempt::Started => {
                self.started.insert(job.clone(), now);
                Ok(())
            }
            Attempt::Busy => Ok(()),
            Attempt::Closed(reason) => Err(reason),
            Attempt::Refused(reason) => {
                if is_due {
                    jobs.fail(scheduled, &reason)
                        .map_err(|err| format!("{reason}; and that cannot be noted - {err}"))?;
                    self.started.insert(job.clone(), now);
                }
                Err(reason)
            }
        }
    }
}

/// Seconds until the next full minute, 1 to 60.
pub(super) fn until_next_minute(now: i64) -> u64 {
    60 - now.rem_euclid(60).unsigned_abs()
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
