//! Tasks and the server's version.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AuthId, TokenName, Upid, UserId};

/// How a task ended, as its log and the task lists say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// Without any trouble.
    Ok,
    /// With this many warnings.
    Warnings(u64),
    /// With an error.
    Error(String),
    /// Nobody knows: its process died or its log is damaged.
    Unknown,
}

impl TaskState {
    /// Reads the text of a task list; whatever is none of the fixed words is an error message.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "OK" => Self::Ok,
            "unknown" => Self::Unknown,
            other => match other.strip_prefix("WARNINGS: ").map(str::parse) {
                Some(Ok(count)) => Self::Warnings(count),
                _ => Self::Error(other.to_string()),
            },
        }
    }

    /// Whether the work was done: no trouble, or warnings only.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Ok | Self::Warnings(_))
    }

    /// The word by which lists are filtered: `ok`, `warning`, `error`, `unknown`.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warnings(_) => "warning",
            Self::Error(_) => "error",
            Self::Unknown => "unknown",
        }
    }

    /// The last line of the log, without its time.
    #[must_use]
    pub fn log_line(&self) -> String {
        match self {
            Self::Error(message) => format!("TASK ERROR: {message}"),
            other => format!("TASK {other}"),
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("OK"),
            Self::Warnings(count) => write!(f, "WARNINGS: {count}"),
            Self::Error(message) => f.write_str(message),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// A task in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskItem {
    /// Its identity.
    pub upid: Upid,
    /// Always `localhost`.
    pub node: String,
    /// Process id.
    pub pid: u32,
    /// Start time of the process in clock ticks since boot.
    pub pstart: u64,
    /// Start in seconds since the epoch.
    pub starttime: i64,
    /// Kind of work.
    pub worker_type: String,
    /// What it works on; null for nothing.
    #[serde(default)]
    pub worker_id: Option<String>,
    /// Who started it.
    pub user: AuthId,
    /// End in seconds since the epoch; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endtime: Option<i64>,
    /// How it ended; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

impl TaskItem {
    /// A task, running or ended.
    #[must_use]
    pub fn new(upid: Upid, end: Option<(i64, &TaskState)>) -> Self {
        Self {
            node: "localhost".to_string(),
            pid: upid.pid,
            pstart: upid.pstart,
            starttime: upid.starttime,
            worker_type: upid.worker_type.clone(),
            worker_id: upid.worker_id.clone(),
            user: upid.auth_id.clone(),
            endtime: end.map(|(time, _)| time),
            status: end.map(|(_, state)| state.to_string()),
            upid,
        }
    }
}

/// Whether a task is still at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskStatusKind {
    /// It is.
    Running,
    /// It has ended.
    Stopped,
}

/// The state of one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// Its identity.
    pub upid: Upid,
    /// The server's host name.
    pub node: String,
    /// Process id.
    pub pid: u32,
    /// Start time of the process in clock ticks since boot.
    pub pstart: u64,
    /// Start in seconds since the epoch.
    pub starttime: i64,
    /// Kind of work.
    #[serde(rename = "type")]
    pub worker_type: String,
    /// What it works on; null for nothing.
    #[serde(default)]
    pub id: Option<String>,
    /// The user who started it, for a token the one it belongs to.
    pub user: UserId,
    /// The token that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenid: Option<TokenName>,
    /// Whether it is at work.
    pub status: TaskStatusKind,
    /// How it ended; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exitstatus: Option<String>,
    /// End in seconds since the epoch; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endtime: Option<i64>,
}

impl TaskStatus {
    /// The state of a task, running or ended.
    #[must_use]
    pub fn new(upid: Upid, end: Option<(i64, &TaskState)>) -> Self {
        Self {
            node: upid.node.clone(),
            pid: upid.pid,
            pstart: upid.pstart,
            starttime: upid.starttime,
            worker_type: upid.worker_type.clone(),
            id: upid.worker_id.clone(),
            user: upid.auth_id.user().clone(),
            tokenid: upid.auth_id.token_name().cloned(),
            status: if end.is_some() {
                TaskStatusKind::Stopped
            } else {
                TaskStatusKind::Running
            },
            exitstatus: end.map(|(_, state)| state.to_string()),
            endtime: end.map(|(time, _)| time),
            upid,
        }
    }
}

/// A line of a task's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Its number, from 1.
    pub n: u64,
    /// Its text.
    pub t: String,
}

/// The server's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// Which build.
    pub repoid: String,
    /// Third number of the version.
    pub release: String,
    /// First and second number of the version.
    pub version: String,
}
