//! One item with what is known of its delivery, as it lies in its file.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::limits::{Limits, seconds};
use super::outcome::Undelivered;

/// Longest reason of a failure that is kept, in characters.
const LONGEST_ERROR: usize = 500;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Head {
    pub lane: String,
    pub queued: i64,
    #[serde(default)]
    pub attempts: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refusals: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_failure: Option<i64>,
    pub next_try: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    pub head: Head,
    pub item: Value,
}

impl Entry {
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

impl Head {
    pub fn new(lane: &str, now: i64) -> Self {
        Self {
            lane: lane.to_owned(),
            queued: now,
            attempts: 0,
            refusals: 0,
            first_failure: None,
            next_try: now,
            last_error: None,
        }
    }

    /// A time further ahead than any wait comes from a clock that was set back.
    pub fn is_due(&self, now: i64, longest_wait: Duration) -> bool {
        self.next_try <= now || self.next_try.saturating_sub(now) > seconds(longest_wait).max(1)
    }

    /// Notes a failure. `wait`: how long the receiver wants to be left alone.
    pub fn failed(&mut self, reason: &str, now: i64, limits: &Limits, wait: Duration) {
        self.attempts = self.attempts.saturating_add(1);
        self.first_failure.get_or_insert(now);
        let wait = seconds(wait.min(limits.longest_wait)).max(limits.wait(self.attempts));
        self.next_try = now.saturating_add(wait);
        self.last_error = Some(reason.chars().take(LONGEST_ERROR).collect());
    }

    pub fn undelivered(self, id: String, refused: bool) -> Undelivered {
        Undelivered {
            id,
            lane: self.lane,
            queued: self.queued,
            attempts: self.attempts,
            first_failure: self.first_failure,
            next_try: self.next_try,
            last_error: self.last_error,
            refused,
        }
    }
}
