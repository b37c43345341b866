//! What a worker sees of its own task.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backstop_types::Upid;
use backstop_types::record::TaskState;
use tokio::sync::watch;

use crate::http::ApiError;
use crate::http::error::chain;

use super::log::TaskLog;

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
}

impl TaskContext {
    pub(super) fn new(upid: Upid, log: TaskLog) -> Self {
        let inner = Inner {
            upid,
            log,
            warnings: AtomicU64::new(0),
            abort: watch::Sender::new(false),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The task's id.
    pub fn upid(&self) -> &Upid {
        &self.inner.upid
    }

    /// Writes a message to the log.
    pub fn log(&self, text: impl fmt::Display) {
        self.inner.log.write(&text.to_string());
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

    /// Asks the worker to end; the first request is noted in the log.
    pub fn request_abort(&self) {
        if !self.inner.abort.send_replace(true) {
            self.log("received abort request ...");
        }
    }

    /// Writes the last line and tells what it says.
    pub(super) fn finish(&self, result: Result<(), TaskFailure>) -> TaskState {
        let status = match (result, self.warnings()) {
            (Err(failure), _) => TaskState::Error(failure.0),
            (Ok(()), 0) => TaskState::Ok,
            (Ok(()), count) => TaskState::Warnings(count),
        };
        self.inner.log.finish(&status.log_line());
        status
    }
}
