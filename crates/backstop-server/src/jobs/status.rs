//! What lists of jobs show of their runs.

use std::path::Path;

use backstop_calendar::CalendarEvent;
use backstop_types::Upid;
use backstop_types::record::TaskState;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::scheduler::LastRun;
use super::state::JobResult;
use super::{JobHistory, JobId, JobState, JobStateError, JobStates, ShownHistory};
use crate::server::Server;
use crate::task::{is_alive, read_status};

/// The last run of a job and the next one. Times are seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct JobStatus {
    /// When it runs next; in the past if it is about to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_run: Option<i64>,
    /// How the last run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run_state: Option<String>,
    /// The task of the last run, which may be under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run_upid: Option<Upid>,
    /// When the last run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run_endtime: Option<i64>,
    /// What is remembered beyond that; nothing of a job that never ran on this kind of server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backstop: Option<ShownHistory>,
}

impl JobStatus {
    /// The status of a job with this schedule, if it has one that is in force. Blocking.
    ///
    /// # Errors
    /// When its state file cannot be read.
    pub fn of(server: &Server, job: &JobId, schedule: Option<&str>) -> Result<Self, JobStateError> {
        let now = Timestamp::now().as_second();
        let state = current(server, job, now)?;
        Self::new(server.job_states(), job, schedule, state, now)
    }

    /// The same for who is not the server; `tasks` is the folder with the logs of tasks. Blocking.
    ///
    /// # Errors
    /// When its state file cannot be read.
    pub fn by_files(
        states: &JobStates,
        tasks: &Path,
        job: &JobId,
        schedule: Option<&str>,
    ) -> Result<Self, JobStateError> {
        let now = Timestamp::now().as_second();
        let state = ended_unless(states.load(job, now)?, tasks, |upid| {
            is_alive(upid.pid, upid.pstart)
        });
        Self::new(states, job, schedule, state, now)
    }

    fn new(
        states: &JobStates,
        job: &JobId,
        schedule: Option<&str>,
        state: JobState,
        now: i64,
    ) -> Result<Self, JobStateError> {
        let event = schedule.and_then(|text| text.parse::<CalendarEvent>().ok());
        let reference = reference(&state, now);
        let mut history = states.history(job)?;
        let mut status = Self {
            next_run: event.and_then(|event| event.next_after(reference, &TimeZone::system())),
            ..Self::default()
        };
        match state {
            JobState::Created { .. } | JobState::Unknown => {}
            JobState::Started { upid } => status.last_run_upid = Some(upid),
            JobState::Finished { upid, state, .. } => {
                let (endtime, text) = state.end();
                // One that nobody has counted: it died with its server, or another kind of server ran it.
                if let Some(history) = &mut history {
                    history.count(&upid, endtime, &state.task_state());
                }
                status.last_run_upid = Some(upid);
                status.last_run_endtime = Some(endtime);
                status.last_run_state = Some(text);
            }
        }
        status.backstop = history.map(|history| history.shown(now));
        Ok(status)
    }
}

/// What is known of a job for whoever judges it.
#[derive(Debug, Clone, Default)]
pub(crate) struct JobLook {
    /// What its schedule counts from, in seconds since 1970.
    pub reference: i64,
    /// Since when it runs, in seconds since 1970.
    pub running: Option<i64>,
    /// Its last run that has ended, when it ended, and how.
    pub last: Option<(Upid, i64, TaskState)>,
    /// What is remembered beyond that.
    pub history: Option<JobHistory>,
}

/// Looks at a job. A run whose end is not noted yet, and not told, is still under way. Blocks for small files.
///
/// # Errors
/// When its files cannot be read.
pub(crate) fn look(server: &Server, job: &JobId, now: i64) -> Result<JobLook, JobStateError> {
    let folder = server.roots().task_logs();
    let is_running =
        |upid: &Upid| server.tasks().is_running(upid) || server.job_runs().is_under_way(job, upid);
    let state = ended_unless(server.job_states().load(job, now)?, &folder, is_running);
    let mut look = JobLook {
        reference: reference(&state, now),
        history: server.job_states().history(job)?,
        ..JobLook::default()
    };
    match state {
        JobState::Created { .. } | JobState::Unknown => {}
        JobState::Started { upid } => {
            look.running = Some(upid.starttime);
            // The state file knows of one run only; the one before is in the history, and its log says how it ended.
            let before = look.history.as_ref();
            let before = before.and_then(|history| history.upid.clone());
            look.last = before.filter(|before| *before != upid).map(|before| {
                let (end, state) = server.tasks().status(&before);
                (before, end, state)
            });
        }
        JobState::Finished { upid, state, .. } => {
            let (end, state) = (state.end().0, state.task_state());
            if let Some(history) = &mut look.history {
                history.count(&upid, end, &state);
            }
            look.last = Some((upid, end, state));
        }
    }
    Ok(look)
}

/// The state of a job as it is now.
fn current(server: &Server, job: &JobId, now: i64) -> Result<JobState, JobStateError> {
    let (state, tasks) = (server.job_states().load(job, now)?, server.tasks());
    let folder = server.roots().task_logs();
    Ok(ended_unless(state, &folder, |upid| tasks.is_running(upid)))
}

/// A run that was begun and does not run any more has ended, and its log in the folder `tasks` says how.
fn ended_unless(state: JobState, tasks: &Path, is_running: impl Fn(&Upid) -> bool) -> JobState {
    match state {
        JobState::Started { upid } if !is_running(&upid) => {
            let (endtime, state) = read_status(tasks, &upid);
            JobState::Finished {
                upid,
                state: JobResult::new(endtime, state),
                updated: None,
            }
        }
        state => state,
    }
}

/// What the schedule counts from.
fn reference(state: &JobState, now: i64) -> i64 {
    match state {
        JobState::Created { time } => *time,
        JobState::Started { upid } => upid.starttime,
        JobState::Finished { upid, updated, .. } => updated.unwrap_or(upid.starttime),
        JobState::Unknown => now,
    }
}

/// What the scheduler needs to know of the last run of a job.
///
/// # Errors
/// When its state file cannot be read, or written.
pub(super) fn last_run(server: &Server, job: &JobId, now: i64) -> Result<LastRun, JobStateError> {
    let state = current(server, job, now)?;
    if let JobState::Started { .. } = state {
        return Ok(LastRun::Running);
    }
    let states = server.job_states();
    let reference = reference(&state, now);
    if state == JobState::Unknown || !states.exists(job) {
        // From now on it is known what the schedule counts from.
        states.create(job, reference)?;
    }
    let has_failed = matches!(
        &state,
        JobState::Finished {
            state: JobResult::Error { .. },
            ..
        }
    );
    match has_failed && states.history(job)?.is_some_and(|history| history.owed) {
        true => Ok(LastRun::Owed(reference)),
        false => Ok(LastRun::At(reference)),
    }
}
