//! When a group was backed up, as far as it is remembered: the last backups, and the longest pauses between them.
//!
//! Bounded: for each group [`BACKUPS`] times, [`PAUSES`] pauses of two numbers each, and two numbers more.

use serde::{Deserialize, Serialize};

use crate::cadence::{History, Pause};

/// Backups of a group that are remembered.
pub const BACKUPS: usize = 16;
/// Pauses of a group that are remembered: the longest.
pub const PAUSES: usize = 12;
/// For how long a pause is remembered, in seconds; it takes some weeks to know a weekend.
const REMEMBERED: i64 = 35 * 86_400;
/// The newest intervals that tell whether what is older was thinned by pruning.
const NEWEST: usize = 5;

/// What was watched of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rhythm {
    /// Since when it is watched.
    since: i64,
    /// Backups from before this time were thinned by pruning, or may have been, and tell nothing.
    from: i64,
    /// Pauses: when a backup was made, and how old it was when the next one was there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pauses: Vec<(i64, i64)>,
}

impl Rhythm {
    /// Begins to watch a group that has these backups, newest first.
    pub fn new(times: &[i64], now: i64) -> Self {
        Self {
            since: now,
            from: thinned_before(times),
            pauses: Vec::new(),
        }
    }

    /// Takes in backups, newest first and none in the future, to those that are known. Returns those that are known then, when that
    /// is news.
    pub fn take(&mut self, known: &[i64], times: &[i64], now: i64) -> Option<Vec<i64>> {
        let new = times.iter().copied().take(BACKUPS);
        let mut merged: Vec<i64> = new.chain(known.iter().copied()).collect();
        merged.retain(|time| *time >= self.from);
        merged.sort_unstable_by(|a, b| b.cmp(a));
        merged.dedup();
        merged.truncate(BACKUPS);
        if merged == known {
            return None;
        }
        if let (Some(newest), Some(before)) = (merged.first(), known.first())
            && newest > before
        {
            self.pauses.push((*before, now.saturating_sub(*before)));
            let oldest = merged.last().copied().unwrap_or(*newest);
            let begin = oldest.min(newest.saturating_sub(REMEMBERED));
            self.pauses.retain(|(from, _)| *from >= begin);
            // Of equal ones, the newer.
            self.pauses
                .sort_unstable_by_key(|(from, age)| std::cmp::Reverse((*age, *from)));
            self.pauses.truncate(PAUSES);
        }
        Some(merged)
    }

    /// What is known of the group, and hands it to `learn`.
    pub fn history<T>(&self, times: &[i64], now: i64, learn: impl FnOnce(History) -> T) -> T {
        let pauses: Vec<Pause> = self
            .pauses
            .iter()
            .map(|(from, age)| Pause {
                from: *from,
                age: *age,
            })
            .collect();
        learn(History {
            times,
            pauses: &pauses,
            watched: now.saturating_sub(self.since).max(0),
        })
    }
}

/// The time before which backups were thinned: intervals that only grow, the older they are, and are never as short again as the
/// newest ones come from pruning, and not from how they were made. `times` are newest first.
fn thinned_before(times: &[i64]) -> i64 {
    let gaps = || {
        times.windows(2).filter_map(|pair| match pair {
            [newer, older] => Some((*older, newer.saturating_sub(*older))),
            _ => None,
        })
    };
    let mut newest: Vec<i64> = gaps().map(|(_, gap)| gap).take(NEWEST).collect();
    let enough = newest.len() == NEWEST;
    match crate::number::median(&mut newest).filter(|_| enough) {
        Some(usual) => gaps()
            .rfind(|(_, gap)| *gap <= usual.saturating_add(usual / 2))
            .map_or(i64::MIN, |(older, _)| older),
        None => i64::MIN,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const DAY: i64 = 86_400;

    fn days(days: &[i64]) -> Vec<i64> {
        days.iter().map(|day| 1_800_000_000 - day * DAY).collect()
    }

    #[test]
    fn what_pruning_has_left_is_no_cadence() {
        // Daily for a week, then weekly, then monthly.
        let kept = days(&[0, 1, 2, 3, 4, 5, 6, 13, 20, 27, 58, 88]);
        assert_eq!(thinned_before(&kept), kept[6]);
        // Weekends come again and again, and are none of it.
        let working = days(&[0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 14, 15, 16]);
        assert_eq!(thinned_before(&working), working[12]);
        let weekly = days(&[0, 7, 14, 21, 28, 35, 42]);
        assert_eq!(thinned_before(&weekly), weekly[6]);
        // Few tell nothing.
        assert_eq!(thinned_before(&days(&[0, 1, 30])), i64::MIN);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_holds_the_longest_pauses() {
        let mut rhythm = Rhythm::new(&[0], 0);
        let mut known = vec![0];
        for hour in 1..2000_i64 {
            // A long pause each 100 hours.
            let time = hour * 3600 + hour / 100 * 7 * DAY / 10;
            known = rhythm.take(&known, &[time], time + 60).unwrap();
            assert_eq!(rhythm.take(&known, &[time], time + 120), None);
            assert!(known.len() <= BACKUPS && rhythm.pauses.len() <= PAUSES);
        }
        let long = rhythm.pauses.iter().filter(|(_, age)| *age > DAY / 2);
        // In 35 days of 4 days and 17 hours each.
        assert_eq!(long.count(), 7);
    }
}
