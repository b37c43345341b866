//! A notification that could not be given to all of its targets, as the disk refuses it. It is tried without being kept until it is taken
//! or can be kept.

use std::path::PathBuf;

use backstop_outgoing::Limits;

use crate::notification::Notification;

/// What is left of a notification.
#[derive(Debug)]
pub(super) struct Unfinished {
    /// Its file; `None` when it is in memory alone.
    pub path: Option<PathBuf>,
    /// Whom it was not given to.
    pub sends: Vec<Send>,
}

#[derive(Debug)]
pub(super) struct Send {
    pub target: String,
    pub telling: Notification,
    attempts: u32,
    next: i64,
}

impl Unfinished {
    pub fn of(path: Option<PathBuf>, sends: Vec<(String, Notification)>) -> Self {
        let sends = sends.into_iter().map(|(target, telling)| Send {
            target,
            telling,
            attempts: 0,
            next: i64::MIN,
        });
        Self {
            path,
            sends: sends.collect(),
        }
    }
}

impl Send {
    /// Whether it is to be tried now, which counts as tried.
    pub fn is_due(&mut self, now: i64) -> bool {
        if now < self.next {
            return false;
        }
        self.attempts = self.attempts.saturating_add(1);
        self.next = now.saturating_add(Limits::default().wait(self.attempts));
        true
    }
}
