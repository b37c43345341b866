//! One item with what is known of its delivery, as it lies in its file.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Limits, seconds};

/// Longest reason of a failure that is kept, in characters.
const LONGEST_ERROR: usize = 500;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Head {
    pub lane: String,
    pub queued: i64,
    #[serde(default)]
    pub attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_failure: Option<i64>,
    pub next_try: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
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
    /// A time further ahead than any wait comes from a clock that was set back.
    pub fn is_due(&self, now: i64, longest_wait: Duration) -> bool {
        self.next_try <= now || self.next_try.saturating_sub(now) > seconds(longest_wait).max(1)
    }

    pub fn failed(&mut self, reason: String, now: i64, limits: &Limits) {
        self.attempts = self.attempts.saturating_add(1);
        self.first_failure.get_or_insert(now);
        self.next_try = now.saturating_add(limits.wait(self.attempts));
        self.last_error = Some(reason.chars().take(LONGEST_ERROR).collect());
    }
}
