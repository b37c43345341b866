//! A push that waits until its receiver can be reached. What arrives late must not look like news: a receiver takes it for something that
//! happens as it comes.

use serde::{Deserialize, Serialize};

use crate::event::{Event, LONGEST_MESSAGE, one_line};
use crate::receiver::{Push, Signal};

/// What arrives so many seconds after its run has ended says when that was.
const LATE: i64 = 5 * 60;
/// What is older than this, in seconds, is not told when a newer run of the same source has ended.
const OLD: i64 = 3600;

/// A push as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingPush {
    /// The push.
    #[serde(flatten)]
    pub push: Push,
    /// When its run ended, or began for the push of a start, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<i64>,
    /// What ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How many earlier runs are not told, in whose place it is.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl WaitingPush {
    /// The push of an event.
    pub fn of(event: &Event) -> Self {
        let seconds = i64::try_from(event.duration / 1000).unwrap_or(0);
        Self {
            push: event.push(),
            ended: Some(event.started.saturating_add(seconds)),
            source: Some(event.source.to_string()),
            skipped: 0,
        }
    }

    /// Whether it is told in the place of an earlier one that waits still.
    pub fn replaces(&self, earlier: &Self, now: i64) -> bool {
        let is_old = |ended: i64| now.saturating_sub(ended) > OLD;
        self.push.signal != Signal::Start
            && self.source.is_some()
            && self.source == earlier.source
            && earlier.ended.is_some_and(is_old)
    }

    /// Counts an earlier one that is not told.
    pub fn absorb(&mut self, earlier: &Self) {
        let runs = u64::from(earlier.push.signal != Signal::Start);
        self.skipped = (self.skipped.saturating_add(earlier.skipped)).saturating_add(runs);
    }

    /// What a receiver is told now; `None` for the start of a run that is told too late to be one. `shown` writes a time for people.
    pub fn told(&self, now: i64, shown: impl Fn(i64) -> String) -> Option<Push> {
        let late = self.ended.filter(|ended| now.saturating_sub(*ended) > LATE);
        if late.is_some() && self.push.signal == Signal::Start {
            return None;
        }
        let mut notes = Vec::new();
        if let Some(ended) = late {
            notes.push(format!("ended {}", shown(ended)));
        }
        match self.skipped {
            0 => {}
            1 => notes.push("1 earlier run not told".to_owned()),
            runs => notes.push(format!("{runs} earlier runs not told")),
        }
        let mut push = self.push.clone();
        if !notes.is_empty() {
            let note = format!(" ({})", notes.join("; "));
            let room = LONGEST_MESSAGE.saturating_sub(note.chars().count());
            push.message = one_line(&push.message, room) + &note;
        }
        Some(push)
    }
}
