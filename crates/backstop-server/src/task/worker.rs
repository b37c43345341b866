//! What a worker sees of its own task.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backstop_types::Upid;
use backstop_types::record::TaskState;
use futures_util::future::select_all;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::datastores::{Place, Unavailable};
use crate::http::ApiError;
use crate::http::error::chain;

use super::log::TaskLog;

/// How long calls under way have when a datastore is lost, before the worker is asked to end.
const ANSWERING: Duration = Duration::from_secs(1);
/// How long the worker then has, before it is left to itself.
const ENDING: Duration = Duration::from_secs(4);

/// Why a worker failed. Every `std::error::Error` converts into one, its causes joined by `: `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFailure(String);

impl TaskFailure {
    /// A failure with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for TaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for TaskFailure {
    fn from(err: E) -> Self {
        Self(chain(&err))
    }
}

impl From<ApiError> for TaskFailure {
    fn from(err: ApiError) -> Self {
        Self(err.to_string())
    }
}

/// The task of a worker: its log, its warnings, and the wish to end it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TaskContext {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    upid: Upid,
    log: TaskLog,
    warnings: AtomicU64,
    abort: watch::Sender<bool>,
    /// Where the datastores are that it works on.
    places: Vec<Arc<Place>>,
    /// Nothing is logged any more after the last line, whatever an abandoned worker does.
    ended: RwLock<bool>,
}

impl TaskContext {
    pub(super) fn new(upid: Upid, log: TaskLog, places: Vec<Arc<Place>>) -> Self {
        let inner = Inner {
            upid,
            log,
            warnings: AtomicU64::new(0),
            abort: watch::Sender::new(false),
            places,
            ended: RwLock::new(false),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Whether it works on a datastore.
    pub(super) fn needs_datastores(&self) -> bool {
        !self.inner.places.is_empty()
    }

    /// Why its work is given up, if that is so.
    fn loss(&self) -> Option<Unavailable> {
        self.inner.places.iter().find_map(|place| place.loss())
    }

    /// Waits until one of its datastores is lost and the worker, having been asked to end, has had time for that.
    pub(super) async fn given_up(&self) -> TaskFailure {
        let waits = self.inner.places.iter().map(|place| Box::pin(place.lost()));
        if waits.len() == 0 {
            return std::future::pending().await;
        }
        let (loss, ..) = select_all(waits).await;
        // Calls under way are answered first, so that a client is told the reason.
        tokio::time::sleep(ANSWERING).await;
        self.inner.abort.send_replace(true);
        tokio::time::sleep(ENDING).await;
        TaskFailure::from(loss)
    }

    /// The task's id.
    pub fn upid(&self) -> &Upid {
        &self.inner.upid
    }

    /// Writes a message to the log, unless the task has ended.
    pub fn log(&self, text: impl fmt::Display) {
        let ended = self.inner.ended.read();
        if !*ended {
            self.inner.log.write(&text.to_string());
        }
    }

    /// Writes a warning to the log. A task with warnings does not end as `OK`.
    pub fn warn(&self, text: impl fmt::Display) {
        self.inner.warnings.fetch_add(1, Ordering::Relaxed);
        self.log(text);
    }

    /// Number of warnings so far.
    pub fn warnings(&self) -> u64 {
        self.inner.warnings.load(Ordering::Relaxed)
    }

    /// Whether somebody wants the task to end. Long loops ask this often.
    pub fn abort_requested(&self) -> bool {
        *self.inner.abort.borrow()
    }

    /// Fails when somebody wants the task to end.
    ///
    /// # Errors
    /// `abort requested - aborting task`.
    pub fn check_abort(&self) -> Result<(), TaskFailure> {
        if self.abort_requested() {
            Err(TaskFailure::new("abort requested - aborting task"))
        } else {
            Ok(())
        }
    }

    /// Waits until somebody wants the task to end.
    pub async fn aborted(&self) {
        let mut abort = self.inner.abort.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = abort.wait_for(|abort| *abort).await;
    }

    /// Asks the worker to end; the first request is noted in the log, before the worker learns of it: afterwards the
    /// log may be closed already.
    pub fn request_abort(&self) {
        self.inner.abort.send_if_modified(|abort| {
            if *abort {
                return false;
            }
            self.log("received abort request ...");
            *abort = true;
            true
        });
    }

    /// Writes the last line and tells what it says; `None` if that was done already.
    pub(super) fn finish(&self, result: Result<(), TaskFailure>) -> Option<TaskState> {
        // What a worker says of a lost datastore is a consequence.
        let result = result.map_err(|failure| self.loss().map_or(failure, TaskFailure::from));
        let status = match (result, self.warnings()) {
            (Err(failure), _) => TaskState::Error(failure.0),
            (Ok(()), 0) => TaskState::Ok,
            (Ok(()), count) => TaskState::Warnings(count),
        };
        let mut ended = self.inner.ended.write();
        if std::mem::replace(&mut *ended, true) {
            return None;
        }
        self.inner.log.finish(&status.log_line());
        Some(status)
    }
}
