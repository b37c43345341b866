//! Which snapshots of a group a retention rule keeps.
//!
//! A pure function of times and marks: it removes nothing and knows no files. The periods are those of the local time zone,
//! as in stock servers, so that changing the zone can change what is kept.

use std::collections::HashSet;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// How many snapshots to keep; unset options take no part. Without any, everything is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepOptions {
    /// The newest ones.
    pub last: Option<u64>,
    /// The newest of each of so many hours.
    pub hourly: Option<u64>,
    /// The newest of each of so many days.
    pub daily: Option<u64>,
    /// The newest of each of so many weeks, which start on Monday.
    pub weekly: Option<u64>,
    /// The newest of each of so many months.
    pub monthly: Option<u64>,
    /// The newest of each of so many years.
    pub yearly: Option<u64>,
}

impl KeepOptions {
    /// Whether no option is set, so that everything is kept.
    pub fn keeps_all(&self) -> bool {
        *self == KeepOptions::default()
    }
}

/// A snapshot as the selection sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// When it was started, in seconds since 1970.
    pub time: i64,
    /// Whether its backup was finished.
    pub finished: bool,
    /// Whether it is protected from removal.
    pub protected: bool,
}

/// What becomes of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It is kept by an option.
    Keep,
    /// It is the newest and unfinished: its backup may be running.
    KeepPartial,
    /// It is protected.
    Protected,
    /// It goes.
    Remove,
}

impl Mark {
    /// Whether the snapshot stays.
    pub fn keeps(self) -> bool {
        self != Mark::Remove
    }

    /// The name that the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Mark::Keep => "keep",
            Mark::KeepPartial => "keep-partial",
            Mark::Protected => "protected",
            Mark::Remove => "remove",
        }
    }
}

#[derive(Clone, Copy)]
enum Period {
    Snapshot,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// Identifies a period among those of its kind.
type PeriodId = (i64, i8, i8, i8);

impl Period {
    fn id(self, time: i64, zone: &TimeZone) -> PeriodId {
        if let Period::Snapshot = self {
            return (time, 0, 0, 0);
        }
        // Outside the years that the calendar knows, each snapshot is a period of its own.
        let Ok(timestamp) = Timestamp::from_second(time) else {
            return (time, -1, -1, -1);
        };
        let local = zone.to_datetime(timestamp);
        let year = i64::from(local.year());
        match self {
            Period::Snapshot => (time, 0, 0, 0),
            Period::Hour => (year, local.month(), local.day(), local.hour()),
            Period::Day => (year, local.month(), local.day(), 0),
            Period::Week => {
                let week = local.date().iso_week_date();
                (week.year().into(), week.week(), 0, 0)
            }
            Period::Month => (year, local.month(), 0, 0),
            Period::Year => (year, 0, 0, 0),
        }
    }
}

/// Marks each candidate, in the order given, which does not matter. They are the snapshots of one group.
pub fn select(candidates: &[Candidate], keep: &KeepOptions, zone: &TimeZone) -> Vec<Mark> {
    if keep.keeps_all() {
        return candidates
            .iter()
            .map(|candidate| {
                if candidate.protected {
                    Mark::Protected
                } else {
                    Mark::Keep
                }
            })
            .collect();
    }
    let mut newest_first: Vec<usize> = (0..candidates.len()).collect();
    newest_first.sort_by_key(|position| {
        candidates
            .get(*position)
            .map(|candidate| std::cmp::Reverse(candidate.time))
    });

    let mut marks: Vec<Option<Mark>> = vec![None; candidates.len()];
    for (rank, position) in newest_first.iter().enumerate() {
        if let (Some(candidate), Some(mark)) = (candidates.get(*position), marks.get_mut(*position))
            && !candidate.finished
        {
            *mark = Some(if rank == 0 {
                Mark::KeepPartial
            } else {
                Mark::Remove
            });
        }
    }
    let phases = [
        (Period::Snapshot, keep.last),
        (Period::Hour, keep.hourly),
        (Period::Day, keep.daily),
        (Period::Week, keep.weekly),
        (Period::Month, keep.monthly),
        (Period::Year, keep.yearly),
    ];
    for (period, count) in phases {
        if let Some(count) = count {
            run_phase(candidates, &newest_first, &mut marks, period, count, zone);
        }
    }
    candidates
        .iter()
        .zip(marks)
        .map(|(candidate, mark)| match mark {
            _ if candidate.protected => Mark::Protected,
            Some(mark) => mark,
            None => Mark::Remove,
        })
        .collect()
}

/// One option: the newest of each of `count` periods that no earlier option has covered.
fn run_phase(
    candidates: &[Candidate],
    newest_first: &[usize],
    marks: &mut [Option<Mark>],
    period: Period,
    count: u64,
    zone: &TimeZone,
) {
    let covered: HashSet<PeriodId> = candidates
        .iter()
        .zip(marks.iter())
        .filter(|(_, mark)| **mark == Some(Mark::Keep))
        .map(|(candidate, _)| period.id(candidate.time, zone))
        .collect();
    let mut chosen = HashSet::new();
    for position in newest_first {
        let (Some(candidate), Some(mark)) = (candidates.get(*position), marks.get_mut(*position))
        else {
            continue;
        };
        if mark.is_some() {
            continue;
        }
        if candidate.protected {
            *mark = Some(Mark::Protected);
            continue;
        }
        let id = period.id(candidate.time, zone);
        if covered.contains(&id) {
            continue;
        }
        if chosen.contains(&id) {
            *mark = Some(Mark::Remove);
        } else if chosen.len() as u64 >= count {
            break;
        } else {
            chosen.insert(id);
            *mark = Some(Mark::Keep);
        }
    }
}

#[cfg(test)]
mod tests;
