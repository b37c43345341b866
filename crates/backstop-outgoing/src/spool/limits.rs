//! How much is kept, for how long, and how often it is tried.

use std::time::Duration;

/// The limits of a spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most items of a lane; a further one displaces the oldest of its lane.
    pub items: usize,
    /// After this time an item is dropped.
    pub age: Duration,
    /// How long to wait after the first failure; each further one doubles it.
    pub first_wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
    /// After so many refusals an item is set aside.
    pub refusals: u32,
}

impl Default for Limits {
    /// 1000 items of each lane for 7 days; tried after 10 seconds, and at least once an hour; set aside after four refusals.
    fn default() -> Self {
        Self {
            items: 1000,
            age: Duration::from_secs(7 * 24 * 3600),
            first_wait: Duration::from_secs(10),
            longest_wait: Duration::from_secs(3600),
            refusals: 4,
        }
    }
}

impl Limits {
    /// How long to wait after this many failures.
    pub fn wait(&self, failures: u32) -> i64 {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1).min(31));
        let wait = self.first_wait.saturating_mul(doubled.unwrap_or(u32::MAX));
        seconds(wait.min(self.longest_wait)).max(1)
    }
}

pub(super) fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
