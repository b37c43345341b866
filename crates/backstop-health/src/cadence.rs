//! How often a group is backed up, learnt from when it was.
//!
//! The middle one of the last intervals is what is usual; the limit comes from an interval that nine in ten do not exceed, so that
//! a pause at each weekend belongs to the cadence, and one long outage does not.

use crate::number::{median, percentile};

/// Intervals that must be known.
pub const ENOUGH: usize = 4;
/// The least that a backup may be late, in seconds.
const LEAST_GRACE: i64 = 3600;
/// Backups within this time are one, in seconds: a second attempt is no cadence.
const ONE: i64 = 60;

/// What was learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cadence {
    /// The usual interval, in seconds.
    pub usual: i64,
    /// An age above this is unusual, in seconds.
    pub limit: i64,
    /// An age above this is beyond all reason, in seconds.
    pub worse: i64,
}

impl Cadence {
    /// From the times of backups, newest first; or how many intervals are known, when those are too few.
    pub fn learn(times: &[i64]) -> Result<Self, usize> {
        let pairs = times.windows(2).filter_map(|pair| match pair {
            [newer, older] => Some(newer.saturating_sub(*older)),
            _ => None,
        });
        let mut intervals: Vec<i64> = pairs.filter(|interval| *interval > ONE).collect();
        let count = intervals.len();
        let (Some(usual), Some(long)) = (median(&mut intervals), percentile(&mut intervals, 90))
        else {
            return Err(count);
        };
        if count < ENOUGH {
            return Err(count);
        }
        let limit = long.saturating_add((long / 2).max(LEAST_GRACE));
        let worse = long.saturating_mul(3).saturating_add(LEAST_GRACE);
        Ok(Self {
            usual,
            limit,
            worse,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;

    fn times(intervals: &[i64]) -> Vec<i64> {
        let mut time = 1_800_000_000;
        let mut times = vec![time];
        for interval in intervals {
            time -= interval;
            times.push(time);
        }
        times
    }

    #[test]
    fn a_daily_backup_may_be_half_a_day_late() {
        let daily = Cadence::learn(&times(&[DAY; 10])).unwrap();
        assert_eq!((daily.usual, daily.limit), (DAY, 36 * HOUR));
        assert_eq!(daily.worse, 73 * HOUR);
        let hourly = Cadence::learn(&times(&[HOUR; 10])).unwrap();
        assert_eq!((hourly.usual, hourly.limit), (HOUR, 2 * HOUR));
    }

    #[test]
    fn a_weekend_belongs_to_the_cadence_and_one_outage_does_not() {
        let week = [DAY, DAY, DAY, DAY, 3 * DAY];
        let working_days = Cadence::learn(&times(&week.repeat(4))).unwrap();
        assert_eq!(working_days.usual, DAY);
        assert!(working_days.limit > 3 * DAY, "{working_days:?}");
        let mut outage = [DAY; 20];
        outage[7] = 40 * DAY;
        assert_eq!(
            Cadence::learn(&times(&outage)),
            Cadence::learn(&times(&[DAY; 20]))
        );
    }

    #[test]
    fn few_backups_tell_nothing_and_attempts_right_after_another_are_none() {
        assert_eq!(Cadence::learn(&[]), Err(0));
        assert_eq!(Cadence::learn(&times(&[DAY; 3])), Err(3));
        assert_eq!(Cadence::learn(&times(&[5, DAY, 5, DAY, DAY])), Err(3));
        assert!(Cadence::learn(&[i64::MAX, 0, i64::MIN]).is_err());
    }
}
