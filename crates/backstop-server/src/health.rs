//! Health: gathers the facts of this server, and keeps the one list of checks that `backstop_health` makes of them.
//!
//! A thread of its own gathers each minute and on demand; whoever asks gets the list that was made last, at once, with its age.
//! What a hanging file system does not tell is said to be unknown: it holds up neither the list nor anybody who asks. Nothing
//! here has an opinion; that is the crate's business.

mod audience;
mod clock;
mod configuration;
mod datastores;
mod deliveries;
mod gather;
mod jobs;
mod memory;
mod remotes;
mod settings;
mod visibility;
mod watch;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstop_health::facts::{CertificateFacts, GroupFacts};
use backstop_health::{Change, Check, Code, LedgerError, Moment};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use parking_lot::{Condvar, Mutex};

use crate::config::ConfigStore;
use crate::jobs::JobId;
use crate::roots::Roots;

pub(crate) use visibility::Eyes;
pub use watch::HealthWatch;

use datastores::Listings;
use memory::Memory;
use remotes::Remotes;

/// How long somebody who wants fresh checks waits for them.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long what was learnt may wait to be written down.
const LESSONS: Duration = Duration::from_secs(600);

/// The checks as they were at a time.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// When the facts were gathered, in seconds since 1970; 0: they never were.
    pub at: i64,
    /// How long that took, in milliseconds.
    pub milliseconds: u64,
    /// The checks.
    pub checks: Vec<Check>,
    /// The groups that they were made from.
    pub groups: Vec<GroupFacts>,
    /// The certificates.
    pub certificates: Vec<CertificateFacts>,
}

impl Checked {
    /// How old they are, in seconds.
    pub fn age(&self, now: i64) -> i64 {
        now.saturating_sub(self.at).max(0)
    }
}

/// How far the gathering thread is.
#[derive(Debug, Default)]
struct Progress {
    /// Numbers of gatherings: the last that somebody wants, the last that was begun, and the last that is done.
    wanted: u64,
    begun: u64,
    done: u64,
    /// Whether somebody waits for news.
    is_asked: bool,
    stops: bool,
}

/// Health of this server.
pub struct Health {
    memory: Mutex<Memory>,
    /// Since when something was learnt that is not written down.
    lessons: Mutex<Option<Instant>>,
    /// Held while the memory is written.
    writing: Mutex<()>,
    latest: Mutex<Arc<Checked>>,
    progress: Mutex<Progress>,
    moved: Condvar,
    listings: Listings,
    remotes: Remotes,
    /// The jobs of whose failure a notification of their run has told.
    told_runs: Mutex<HashSet<String>>,
    started: i64,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

impl Health {
    /// Health with what is remembered below these directories. Never fails: losing the memory costs only the memory.
    pub(crate) fn open(roots: &Roots) -> Self {
        Self {
            memory: Mutex::new(Memory::open(roots.var_lib().join(memory::FILE))),
            lessons: Mutex::default(),
            writing: Mutex::default(),
            latest: Mutex::default(),
            progress: Mutex::default(),
            moved: Condvar::new(),
            listings: Mutex::new(HashMap::new()),
            remotes: Mutex::new(HashMap::new()),
            told_runs: Mutex::default(),
            started: Timestamp::now().as_second(),
        }
    }

    /// The checks as they were made last. Never blocks.
    pub fn latest(&self) -> Arc<Checked> {
        Arc::clone(&self.latest.lock())
    }

    /// Has the facts gathered anew, and waits for that for some seconds; then the checks as they were made last. Blocking.
    pub fn fresh(&self) -> Arc<Checked> {
        // The one that is under way may have seen what was before.
        let mut progress = self.progress.lock();
        progress.is_asked = true;
        let next = progress.begun.saturating_add(1);
        drop(progress);
        self.wait_for(next)
    }

    /// Has the facts gathered anew, without waiting for that.
    fn want(&self) {
        let mut progress = self.progress.lock();
        progress.wanted = progress.wanted.max(progress.begun.saturating_add(1));
        self.moved.notify_all();
    }

    /// The checks as they were made last; waits for the first ones for some seconds. Blocking.
    pub fn first(&self) -> Arc<Checked> {
        self.wait_for(1)
    }

    fn wait_for(&self, number: u64) -> Arc<Checked> {
        let deadline = Instant::now() + PATIENCE;
        let mut progress = self.progress.lock();
        progress.wanted = progress.wanted.max(number);
        self.moved.notify_all();
        while progress.done < number && !progress.stops {
            if self.moved.wait_until(&mut progress, deadline).timed_out() {
                break;
            }
        }
        drop(progress);
        self.latest()
    }

    /// The last changes, oldest first.
    pub fn history(&self) -> Vec<Change> {
        self.memory.lock().ledger().history().cloned().collect()
    }

    /// Whether the failure of a job calls for nobody now: it is acknowledged, or expected in a maintenance window.
    pub(crate) fn is_quiet(&self, job: &JobId, config: &ConfigStore) -> bool {
        let windows = load_settings(config).map(|settings| settings.windows);
        let moment = Moment::new(Timestamp::now().as_second(), TimeZone::system());
        let memory = self.memory.lock();
        let object = jobs::object(job);
        memory.ledger().is_quiet(
            Code::JobFailed,
            &object,
            &windows.unwrap_or_default(),
            &moment,
        )
    }

    /// Notes that the failure of a job is told by a notification of its run, or that nobody wants to hear of it.
    pub(crate) fn run_was_told(&self, job: &JobId) {
        self.told_runs.lock().insert(jobs::object(job));
    }

    /// Notes that somebody knows of something. Blocks for a small file.
    ///
    /// # Errors
    /// There is no such check, or all is well with it.
    pub(crate) fn acknowledge(
        &self,
        (code, object): (Code, &str),
        by: &str,
        comment: &str,
        until: Option<i64>,
    ) -> Result<(), LedgerError> {
        let now = Timestamp::now().as_second();
        let mut memory = self.memory.lock();
        let ledger = memory.parts().ledger;
        ledger.acknowledge(code, object, by, comment, until, now)?;
        drop(memory);
        self.store();
        Ok(())
    }

    /// Takes that back. Blocks for a small file.
    ///
    /// # Errors
    /// It is not acknowledged.
    pub(crate) fn unacknowledge(&self, code: Code, object: &str) -> Result<(), LedgerError> {
        self.memory
            .lock()
            .parts()
            .ledger
            .unacknowledge(code, object)?;
        self.store();
        Ok(())
    }

    /// Writes down what a gathering has changed: news at once, and what was only learnt now and then, as it can be learnt again.
    fn remember(&self, is_news: bool) {
        let mut lessons = self.lessons.lock();
        // What the clock says is a lesson each time.
        *lessons = lessons.or_else(|| Some(Instant::now()));
        if is_news || lessons.is_some_and(|since| since.elapsed() >= LESSONS) {
            *lessons = None;
            drop(lessons);
            self.store();
        }
    }

    /// Writes down what is not yet. Blocks for a file.
    fn finish(&self) {
        if self.lessons.lock().take().is_some() {
            self.store();
        }
    }

    /// Writes down what is remembered. Blocks for a file.
    fn store(&self) {
        Memory::store(&self.memory, &self.writing);
    }
}

pub(crate) use settings::{edit as edit_settings, load as load_settings};
