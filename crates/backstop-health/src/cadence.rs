//! How often a group is backed up, learnt from when it was.
//!
//! What counts is a pause: how old the newest backup became before another one was there. A pause that belongs to a cadence comes
//! again; an outage does not. So the longest pause that came at least twice is the measure, once there was time enough for all to
//! come twice, and one that comes on the same day of each week (a weekend) is the measure of that day only. Whoever is backed up by
//! hand, irregularly, is given three times the longest pause.

use crate::number::median;

/// Intervals that must be known.
pub const ENOUGH: usize = 4;
/// The least that a backup may be late, in seconds.
const LEAST_GRACE: i64 = 3600;
/// Backups within this time are one, in seconds: a second attempt is no cadence.
const ONE: i64 = 60;
const WEEK: i64 = 7 * 86_400;
/// Fewer pauses follow a rule only when none is much longer than the usual one.
const MANY: usize = 8;
/// A cadence shows itself in a week with its weekend. What is watched for less is not judged by it alone; in seconds.
pub const LEARNING: i64 = 8 * 86_400;
/// After this time, each pause that belongs to a cadence was there twice; in seconds.
const TWICE: i64 = 16 * 86_400;
/// Pauses that begin within this time are at the same time of the week, in seconds.
const SAME: i64 = 12 * 3600;
/// So many pauses at the same time of the week, and no others, are those of a weekly rest.
const RESTS: usize = 3;

/// A pause: a backup, and how old it became as the newest one; in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// When the backup was made.
    pub from: i64,
    /// How old it became.
    pub age: i64,
}

/// What is known of a group.
#[derive(Debug, Clone, Copy)]
pub struct History<'a> {
    /// Times of backups, newest first.
    pub times: &'a [i64],
    /// Pauses that were watched.
    pub pauses: &'a [Pause],
    /// For how long it was watched, in seconds.
    pub watched: i64,
}

/// What was learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cadence {
    /// The usual interval, in seconds.
    pub usual: i64,
    /// The longest pause that belongs to it now, in seconds.
    pub pause: i64,
    /// Whether there is no rule in it.
    pub irregular: bool,
    /// Whether it was not watched for long enough to know a week.
    pub is_new: bool,
    /// An age above this is unusual, in seconds.
    pub limit: i64,
    /// An age above this is beyond all reason, in seconds.
    pub worse: i64,
}

impl Cadence {
    /// Of a group; or how many intervals are known, when those are too few.
    pub fn learn(history: History) -> Result<Self, usize> {
        let mut intervals: Vec<i64> = gaps(history.times).map(|gap| gap.age).collect();
        let count = intervals.len();
        let usual = median(&mut intervals).filter(|_| count >= ENOUGH);
        let (Some(usual), Some(newest)) = (usual, history.times.first()) else {
            return Err(count);
        };
        let pauses = merged(history);
        let clusters: Vec<&[Pause]> = pauses.chunk_by(|a, b| alike(a.age, b.age)).collect();
        let longest = |cluster: &[Pause]| cluster.first().map_or(0, |pause| pause.age);
        let recurrent = clusters.iter().copied().filter(|cluster| cluster.len() > 1);
        let in_rule: usize = recurrent.clone().map(<[Pause]>::len).sum();
        let all = pauses.first().map_or(0, |pause| pause.age);
        // Of a few, two may be alike by chance.
        let irregular = in_rule.saturating_mul(4) < pauses.len().saturating_mul(3)
            || (pauses.len() < MANY && all > usual.saturating_add(usual / 2));
        let pause = match irregular || history.watched < TWICE {
            true => all,
            false => {
                let mut here = recurrent
                    .clone()
                    .filter(|rest| !is_elsewhere(rest, *newest));
                let here = here.next().or(recurrent.clone().next());
                here.map_or(all, longest)
            }
        };
        let (limit, worse) = match irregular {
            true => (pause.saturating_mul(3), pause.saturating_mul(6)),
            false => (
                pause.saturating_add((pause / 2).max(LEAST_GRACE)),
                pause.saturating_mul(3).saturating_add(LEAST_GRACE),
            ),
        };
        let is_new = history.watched < LEARNING;
        let (least, least_worse) = match is_new {
            true => (LEARNING, LEARNING * 2),
            false => (0, 0),
        };
        Ok(Self {
            usual,
            pause,
            irregular,
            is_new,
            limit: limit.max(least),
            worse: worse.max(least_worse),
        })
    }
}

/// The intervals between backups.
fn gaps(times: &[i64]) -> impl Iterator<Item = Pause> {
    let pairs = times.windows(2).filter_map(|pair| match pair {
        [newer, older] => Some(Pause {
            from: *older,
            age: newer.saturating_sub(*older),
        }),
        _ => None,
    });
    pairs.filter(|gap| gap.age > ONE)
}

/// All pauses, the longest first; each once, as what was watched where it was.
fn merged(history: History) -> Vec<Pause> {
    let mut pauses: Vec<Pause> = gaps(history.times).collect();
    pauses.extend(history.pauses.iter().filter(|pause| pause.age > ONE));
    pauses.sort_unstable_by_key(|pause| (pause.from, std::cmp::Reverse(pause.age)));
    pauses.dedup_by_key(|pause| pause.from);
    pauses.sort_unstable_by_key(|pause| std::cmp::Reverse(pause.age));
    pauses
}

/// Whether two pauses are as long as each other, but for what always varies.
fn alike(longer: i64, shorter: i64) -> bool {
    longer.saturating_sub(shorter) <= (shorter / 4).max(600)
}

/// Whether these pauses are a weekly rest, and a backup at this time is not followed by it: neither shortly before it, nor in it.
fn is_elsewhere(rests: &[Pause], newest: i64) -> bool {
    let after = |from: i64, at: i64| at.saturating_sub(from).rem_euclid(WEEK);
    let same = |a: i64, b: i64| {
        let after = after(a, b);
        after.min(WEEK - after) <= SAME
    };
    let Some(first) = rests.first() else {
        return false;
    };
    rests.len() >= RESTS
        && rests.iter().all(|rest| same(first.from, rest.from))
        && rests.iter().all(|rest| {
            let after = after(rest.from, newest);
            after > rest.age && after < WEEK - SAME
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;

    /// Backups with these intervals, the newest first, watched for long.
    fn learn(intervals: &[i64]) -> Result<Cadence, usize> {
        let mut time = 1_800_000_000;
        let mut times = vec![time];
        for interval in intervals {
            time -= interval;
            times.push(time);
        }
        let history = History {
            times: &times,
            pauses: &[],
            watched: 100 * DAY,
        };
        Cadence::learn(history)
    }

    #[test]
    fn a_daily_backup_may_be_half_a_day_late() {
        let daily = learn(&[DAY; 10]).unwrap();
        assert_eq!((daily.usual, daily.limit), (DAY, 36 * HOUR));
        assert_eq!(daily.worse, 73 * HOUR);
        let hourly = learn(&[HOUR; 10]).unwrap();
        assert_eq!((hourly.usual, hourly.limit), (HOUR, 2 * HOUR));
    }

    #[test]
    fn a_weekend_belongs_to_the_cadence_and_one_outage_does_not() {
        // The newest backup is followed by a weekend.
        let week = [DAY, DAY, DAY, DAY, 3 * DAY];
        let working_days = learn(&week.repeat(3)).unwrap();
        assert_eq!(working_days.usual, DAY);
        assert_eq!(working_days.limit, 108 * HOUR, "{working_days:?}");
        // It is not: a weekend is no matter of a Tuesday.
        let tuesday = [DAY, 3 * DAY, DAY, DAY, DAY].repeat(3);
        assert_eq!(learn(&tuesday).unwrap().limit, 36 * HOUR);
        // Two weekends are no rule yet.
        assert_eq!(learn(&tuesday[..10]).unwrap().limit, 108 * HOUR);
        let mut outage = [DAY; 20];
        outage[7] = 40 * DAY;
        assert_eq!(learn(&outage), learn(&[DAY; 20]));
    }

    #[test]
    fn what_comes_irregularly_is_given_three_times_the_longest_pause() {
        let by_hand = learn(&[40, 3, 11, 1, 25, 6].map(|days| days * DAY)).unwrap();
        assert!(by_hand.irregular);
        assert_eq!(by_hand.limit, 120 * DAY);
    }

    #[test]
    fn few_backups_tell_nothing_and_attempts_right_after_another_are_none() {
        assert_eq!(learn(&[]), Err(0));
        assert_eq!(learn(&[DAY; 3]), Err(3));
        assert_eq!(learn(&[5, DAY, 5, DAY, DAY]), Err(3));
        let extreme = History {
            times: &[i64::MAX, 5, 4, 3, 2, 1, 0, i64::MIN],
            pauses: &[Pause {
                from: i64::MIN,
                age: i64::MAX,
            }],
            watched: i64::MAX,
        };
        assert!(Cadence::learn(extreme).is_err());
    }
}
