//! The time that locks go by. It never runs faster than time passes, so that a clock that is set forward opens nothing.
//!
//! While the process runs, the wall clock is compared with one that nobody can set. Across the end of a process the latest
//! moment that is known to have come bridges the gap, which is believed to be what the wall clock says if it is short
//! enough. Otherwise time goes on from that moment, until somebody confirms the clock. A clock that is behind makes snapshots
//! younger, which opens nothing either, so it is believed.

use std::sync::OnceLock;

use rustix::time::{ClockId, clock_gettime};

use crate::clock;

/// How far the wall clock may be ahead of the time that has passed, in seconds: a correction.
pub const SLACK: i64 = 3600;
/// How long nobody may have looked before the wall clock needs a confirmation, in seconds.
pub const LONGEST_GAP: i64 = 7 * 86_400;

/// The clocks that time is told from.
pub trait Clock: Send + Sync {
    /// The clock of the system, in seconds since 1970. Anybody may set it.
    fn wall(&self) -> i64;
    /// What the clock of the system would show had nobody set it since the process began.
    fn steady(&self) -> i64;
}

/// The clocks of the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// The wall clock and the time since boot, both at the same moment.
static BEGIN: OnceLock<(i64, i64)> = OnceLock::new();

fn since_boot() -> i64 {
    // Goes on while the machine is suspended.
    clock_gettime(ClockId::Boottime).tv_sec
}

impl SystemClock {
    /// Remembers the present as the begin of the process, unless that was done before.
    pub fn begin() -> Self {
        BEGIN.get_or_init(|| (clock::now(), since_boot()));
        Self
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> i64 {
        clock::now()
    }

    fn steady(&self) -> i64 {
        let (wall, boot) = *BEGIN.get_or_init(|| (clock::now(), since_boot()));
        wall.saturating_add(since_boot().saturating_sub(boot))
    }
}

/// A moment that was trusted, with the steady clock at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    time: i64,
    steady: i64,
}

/// What the time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedTime {
    /// What locks go by, in seconds since 1970.
    pub now: i64,
    /// What may be remembered as having come.
    pub seen: i64,
    /// How far the wall clock is ahead, in seconds; 0 when it is trusted.
    pub ahead: i64,
}

impl TrustedTime {
    /// Tells the time, and moves the anchor on. `seen` is the latest moment that is known to have come.
    pub fn tell(clock: &dyn Clock, anchor: &mut Option<Anchor>, seen: i64) -> Self {
        let (wall, steady) = (clock.wall(), clock.steady());
        let passed = match *anchor {
            Some(anchor) => anchor
                .time
                .saturating_add(steady.saturating_sub(anchor.steady).max(0)),
            None => {
                let plausible = wall.min(steady.saturating_add(SLACK));
                if plausible.saturating_sub(seen) <= LONGEST_GAP {
                    plausible
                } else {
                    seen
                }
            }
        };
        // Another process may have seen more.
        let passed = passed.max(seen);
        *anchor = Some(Anchor {
            time: passed,
            steady,
        });
        let ahead = wall.saturating_sub(passed);
        Self {
            now: wall.min(passed.saturating_add(SLACK)),
            seen: wall.min(passed),
            ahead: if ahead > SLACK { ahead } else { 0 },
        }
    }

    /// The time of a datastore that has no locks yet.
    pub fn first(clock: &dyn Clock) -> Self {
        let (wall, steady) = (clock.wall(), clock.steady());
        let now = wall.min(steady.saturating_add(SLACK));
        Self {
            now,
            seen: now,
            ahead: 0,
        }
    }
}

#[cfg(test)]
#[path = "trusted_time_tests.rs"]
mod tests;
