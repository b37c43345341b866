//! Jumps of the clock: what it says against the time that has passed since the host started, and, after a start of the server, against
//! what it said before. That it is ahead then cannot be told from a long pause.

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A difference that is no jump, in seconds: clocks are set right little by little.
const TOLERANCE: i64 = 30;
/// Jumps that are remembered.
const KEPT: usize = 16;

/// The jumps that were seen: when, and by how many seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Jumps {
    #[serde(default)]
    seen: Vec<(i64, i64)>,
    /// The clock and the time since the start of the host when it was looked at last. Not valid for another start.
    #[serde(skip)]
    last: Option<(i64, i64)>,
    /// What the clock said last; valid for another start, too.
    #[serde(default)]
    clock: Option<i64>,
}

/// The clock and the time since the start of the host, in seconds, at the same moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub clock: i64,
    passed: i64,
}

impl Now {
    /// Reads both.
    pub fn read() -> Self {
        Self {
            clock: Timestamp::now().as_second(),
            passed: clock_gettime(ClockId::Boottime).tv_sec,
        }
    }
}

impl Jumps {
    /// Takes in what the clock has said. Tells whether it has jumped.
    pub fn look(&mut self, now: Now) -> bool {
        self.look_at(now.clock, now.passed)
    }

    fn look_at(&mut self, now: i64, passed: i64) -> bool {
        let before = self.last.replace((now, passed));
        let said = self.clock.replace(now);
        let expected = match (before, said) {
            (Some((clock, start)), _) => clock.saturating_add(passed.saturating_sub(start)),
            // Time has passed, nobody knows how much.
            (None, Some(said)) => said.max(now),
            (None, None) => return false,
        };
        let by = now.saturating_sub(expected);
        if by.saturating_abs() <= TOLERANCE {
            return false;
        }
        tracing::warn!(by, "the clock has jumped by so many seconds");
        self.seen.push((now, by));
        let surplus = self.seen.len().saturating_sub(KEPT);
        self.seen.drain(..surplus);
        true
    }

    /// The jumps, oldest first.
    pub fn seen(&self) -> &[(i64, i64)] {
        &self.seen
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_and_one_that_drifts_is_not() {
        let mut jumps = Jumps::default();
        assert!(!jumps.look_at(1000, 5));
        assert!(!jumps.look_at(1060, 65));
        assert!(!jumps.look_at(1149, 125));
        assert!(jumps.look_at(8409, 185));
        assert!(!jumps.look_at(8469, 245));
        assert!(jumps.look_at(929, 305));
        assert_eq!(jumps.seen(), [(8409, 7200), (929, -7600)]);
        // After a restart, it may be any time later, and no earlier one.
        let text = serde_json::to_string(&jumps).unwrap();
        let mut again: Jumps = serde_json::from_str(&text).unwrap();
        assert!(!again.look_at(1_000_000, 1));
        assert_eq!(again.seen(), jumps.seen());
        let mut again: Jumps = serde_json::from_str(&text).unwrap();
        assert!(again.look_at(0, 1));
        assert_eq!(again.seen().last(), Some(&(0, -929)));
    }
}
