//! Worker tasks: what runs in the background, its log, and the lists of running and finished tasks.
//!
//! Files are those of a stock server, so that either server reads what the other left: `tasks/XX/UPID` for logs,
//! `tasks/active` and `tasks/archive` for the lists. A worker that fails or panics ends as a failed task and never
//! takes the server with it.

mod entry;
mod list;
mod log;
mod process;
mod registry;
mod repeats;
mod rotation;
mod work_log;
mod worker;

pub use entry::TaskEntry;
pub use list::TaskList;
pub(crate) use log::read_status;
pub use log::{LogPage, path_of as log_path, read_page};
pub(crate) use process::{is_alive, this_process};
pub use registry::{TaskRegistry, TaskSpec};
pub use worker::{TaskContext, TaskFailure};

use std::io;
use std::path::PathBuf;

/// Why a task could not be started, or task files could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A file of the task lists or a task log.
    #[error("unable to {action} {path:?} - {source}{}", remedy(.source))]
    File {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process holds the lock on the lists for too long; trying again can help.
    #[error("Unable to acquire lock {path:?} within {seconds} s")]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// The server is about to end.
    #[error("the server is shutting down, no new task is started")]
    ShuttingDown,
}

impl TaskError {
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free space on the file system of the logs"
        }
        _ => "",
    }
}
