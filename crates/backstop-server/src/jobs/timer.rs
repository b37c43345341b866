//! The thread that looks for due jobs, at the start and at each full minute.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use backstop_types::AuthId;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::scheduler::{Attempt, Jobs, LastRun, Scheduled, Scheduler, until_next_minute};
use super::{JobId, JobKind, SOURCES, StartError, runner, status};
use crate::config::{SectionFile, jobs};
use crate::datastores::{LookupError, Unavailable};
use crate::http::error::chain;
use crate::server::Server;

/// The running timer. Dropping it ends it soon, without waiting.
#[derive(Debug)]
pub struct Timer {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Timer {
    /// Starts to look for due jobs of `server`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(server: Arc<Server>) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let run = move || {
            let mut scheduler = Scheduler::default();
            loop {
                let now = Timestamp::now().as_second();
                let pass = || scheduler.pass(now, &TimeZone::system(), &Configured(&server));
                if catch_unwind(AssertUnwindSafe(pass)).is_err() {
                    tracing::error!("a look for due jobs is lost to a fault of the program");
                }
                // The clock may jump meanwhile, so this never waits for longer than a minute.
                let wait = until_next_minute(Timestamp::now().as_second());
                match stopped.recv_timeout(Duration::from_secs(wait)) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        let thread = Builder::new().name("schedule".to_owned()).spawn(run)?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends it and waits for that, at most for the start of a job. Blocking.
    pub fn stop(mut self) {
        let thread = self.thread.take();
        drop(self);
        if let Some(thread) = thread {
            // It contains its panics; one that escaped has ended it all the same.
            let _ = thread.join();
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // Nobody receives this when it has ended already.
        let _ = self.stop.send(());
    }
}

/// The jobs in the configuration of a server.
struct Configured<'a>(&'a Arc<Server>);

impl Configured<'_> {
    fn of_file(&self, file: SectionFile, kind: JobKind, key: &str) -> Vec<Scheduled> {
        let loaded = match self.0.config().sections(file) {
            Ok(loaded) => loaded,
            Err(err) => {
                tracing::error!(err = chain(&err), "jobs of this file do not run");
                return Vec::new();
            }
        };
        let sections = loaded.data.iter();
        let scheduled = sections.filter_map(|(id, section)| {
            let is_disabled = jobs::is_disabled(&section.properties);
            let schedule = section.properties.get(key)?.as_str()?;
            (!is_disabled).then(|| Scheduled {
                job: JobId::new(kind, id),
                schedule: schedule.to_owned(),
            })
        });
        scheduled.collect()
    }
}

impl Jobs for Configured<'_> {
    fn scheduled(&self) -> Vec<Scheduled> {
        let sources = SOURCES.into_iter();
        let scheduled = sources.filter_map(|(file, kind, key)| Some((file, kind, key?)));
        scheduled
            .flat_map(|(file, kind, key)| self.of_file(file, kind, key))
            .collect()
    }

    fn last_run(&self, job: &JobId, now: i64) -> Result<LastRun, String> {
        status::last_run(self.0, job, now).map_err(|err| chain(&err))
    }

    fn count_from(&self, job: &JobId, now: i64) -> Result<(), String> {
        self.0
            .job_states()
            .count_from(job, now)
            .map_err(|err| chain(&err))
    }

    fn start(&self, scheduled: &Scheduled) -> Attempt {
        let schedule = Some(scheduled.schedule.as_str());
        match runner::start(self.0, &scheduled.job, &AuthId::root(), schedule) {
            Ok(_) => Attempt::Started,
            Err(err) if err.is_running() => Attempt::Busy,
            Err(err) if is_closed(self.0, &err) => Attempt::Closed(chain(&err)),
            Err(err) => Attempt::Refused(chain(&err)),
        }
    }

    fn fail(&self, scheduled: &Scheduled, reason: &str) -> Result<(), String> {
        let failed = runner::fail(self.0, &scheduled.job, &scheduled.schedule, reason);
        failed.map(|_| ()).map_err(|err| chain(&err))
    }
}

/// Whether a job cannot be started because somebody has closed its datastore, or taken it away as one does with a removable one.
fn is_closed(server: &Server, err: &StartError) -> bool {
    let (StartError::Lookup(LookupError::Unavailable { name, .. })
    | StartError::Lookup(LookupError::Absent(Unavailable { name, .. }))) = err
    else {
        return false;
    };
    let config = server.datastores().config(name);
    config.is_ok_and(|config| config.maintenance_mode.is_some() || config.backing_device.is_some())
}
