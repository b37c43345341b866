//! What a retention rule makes of backups that follow a schedule, or of given ones.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::event::CalendarEvent;
use crate::retention::{Candidate, KeepOptions, Verdict, explain};

/// Most comparisons that a simulation may cost: backups times those that are there at the same time.
const MAX_WORK: usize = 4_000_000;
const DAY: i64 = 86_400;

/// A backup and its fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimulatedBackup {
    /// When it was made, in seconds since 1970.
    pub time: i64,
    /// What was decided about it last.
    pub verdict: Verdict,
    /// When it was removed, in seconds since 1970; unset while it is there.
    pub removed_at: Option<i64>,
}

/// How many backups are there at the end of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimulatedDay {
    /// The day in local time.
    pub date: Date,
    /// The number of backups that are there.
    pub kept: usize,
}

/// All that a simulation tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Simulation {
    /// The days on which there was a backup, oldest first. Empty for given backups.
    pub days: Vec<SimulatedDay>,
    /// All backups, oldest first.
    pub backups: Vec<SimulatedBackup>,
}

/// Why there is no simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SimulationError {
    /// It would take too long.
    #[error(
        "the schedule makes too many backups in {days} days to simulate with these rules; choose fewer days"
    )]
    TooMuch {
        /// How many days were asked for.
        days: u32,
    },
}

/// Lets backups happen by `schedule` for `days` days up to `end`, and applies the rules after each of them.
///
/// # Errors
/// When that is too much to compute.
pub fn simulate(
    schedule: &CalendarEvent,
    keep: &KeepOptions,
    end: i64,
    days: u32,
    zone: &TimeZone,
) -> Result<Simulation, SimulationError> {
    let too_much = SimulationError::TooMuch { days };
    let mut result = Simulation::default();
    let mut there: Vec<usize> = Vec::new();
    let mut work = 0usize;
    let mut last = end.saturating_sub(i64::from(days).saturating_mul(DAY));
    while let Some(time) = schedule.next_after(last, zone).filter(|time| *time <= end) {
        last = time;
        work = work.saturating_add(there.len()).saturating_add(1);
        if work > MAX_WORK {
            return Err(too_much);
        }
        there.push(result.backups.len());
        let verdict = decide(&[time], &KeepOptions::default(), zone);
        result.backups.extend(verdict);
        prune(&mut result.backups, &mut there, keep, time, zone);
        let Ok(date) = Timestamp::from_second(time).map(|time| zone.to_datetime(time).date())
        else {
            continue;
        };
        let kept = there.len();
        match result.days.last_mut() {
            Some(day) if day.date == date => day.kept = kept,
            _ => result.days.push(SimulatedDay { date, kept }),
        }
    }
    Ok(result)
}

/// Applies the rules to the backups at the places `there`, and takes out those that go.
fn prune(
    backups: &mut [SimulatedBackup],
    there: &mut Vec<usize>,
    keep: &KeepOptions,
    now: i64,
    zone: &TimeZone,
) {
    let times: Vec<i64> = there
        .iter()
        .filter_map(|place| backups.get(*place).map(|backup| backup.time))
        .collect();
    let mut verdicts = verdicts(&times, keep, zone).into_iter();
    there.retain(|place| {
        let (Some(verdict), Some(backup)) = (verdicts.next(), backups.get_mut(*place)) else {
            return false;
        };
        backup.verdict = verdict;
        backup.removed_at = (!verdict.mark.keeps()).then_some(now);
        verdict.mark.keeps()
    });
}

/// Applies the rules once to backups that were made at these times. Returns them oldest first, each once.
pub fn decide(times: &[i64], keep: &KeepOptions, zone: &TimeZone) -> Vec<SimulatedBackup> {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.dedup();
    let verdicts = verdicts(&times, keep, zone);
    let backup = |(time, verdict)| SimulatedBackup {
        time,
        verdict,
        removed_at: None,
    };
    times.into_iter().zip(verdicts).map(backup).collect()
}

fn verdicts(times: &[i64], keep: &KeepOptions, zone: &TimeZone) -> Vec<Verdict> {
    let candidates: Vec<Candidate> = times
        .iter()
        .map(|time| Candidate {
            time: *time,
            finished: true,
            protected: false,
        })
        .collect();
    explain(&candidates, keep, zone)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const END: i64 = 1_767_182_400; // 2025-12-31 12:00 UTC

    fn keep(last: u64, daily: u64, weekly: u64) -> KeepOptions {
        let some = |count| (count > 0).then_some(count);
        KeepOptions {
            last: some(last),
            daily: some(daily),
            weekly: some(weekly),
            ..KeepOptions::default()
        }
    }

    fn run(schedule: &str, keep: &KeepOptions, days: u32) -> Simulation {
        simulate(&schedule.parse().unwrap(), keep, END, days, &TimeZone::UTC).unwrap()
    }

    #[test]
    fn backups_happen_by_schedule_and_go_by_the_rules() {
        let simulation = run("6,18:00", &keep(1, 3, 0), 7);
        assert_eq!(simulation.backups.len(), 14);
        let kept: Vec<String> = simulation
            .backups
            .iter()
            .filter(|backup| backup.removed_at.is_none())
            .map(|backup| {
                let time = Timestamp::from_second(backup.time).unwrap();
                format!("{time} {}", backup.verdict.reason)
            })
            .collect();
        assert_eq!(
            kept,
            [
                "2025-12-28T18:00:00Z keep-daily 3 of 3",
                "2025-12-29T18:00:00Z keep-daily 2 of 3",
                "2025-12-30T18:00:00Z keep-daily 1 of 3",
                "2025-12-31T06:00:00Z keep-last 1 of 1",
            ]
        );
        let per_day: Vec<usize> = simulation.days.iter().map(|day| day.kept).collect();
        assert_eq!(per_day, [1, 2, 3, 4, 4, 4, 4, 4]);
        assert_eq!(simulation.days[0].date.to_string(), "2025-12-24");
    }

    #[test]
    fn a_backup_goes_when_the_first_one_comes_that_makes_it_needless() {
        let simulation = run("6,18:00", &keep(1, 1, 0), 3);
        let lives: Vec<(i64, Option<i64>)> = simulation
            .backups
            .iter()
            .map(|backup| {
                let end = backup.removed_at.map(|end| (end - backup.time) / 3600);
                ((backup.time - END) / 3600, end)
            })
            .collect();
        // Those of the evening stand for their day until the next day has one of its own.
        let (morning, evening) = (Some(12), Some(36));
        assert_eq!(
            lives,
            [
                (-66, evening),
                (-54, morning),
                (-42, evening),
                (-30, morning),
                (-18, None),
                (-6, None)
            ]
        );
    }

    #[test]
    fn given_moments_are_judged_once_and_in_order() {
        let times = [END, END - 100, END - 90_000, END - 100];
        let decided = decide(&times, &keep(0, 1, 0), &TimeZone::UTC);
        let seen: Vec<(i64, bool)> = decided
            .iter()
            .map(|backup| (backup.time, backup.verdict.mark.keeps()))
            .collect();
        assert_eq!(
            seen,
            [(END - 90_000, false), (END - 100, false), (END, true)]
        );
        assert!(
            run("minutely", &KeepOptions::default(), 0)
                .backups
                .is_empty()
        );
    }

    #[test]
    fn what_takes_too_long_is_refused() {
        let schedule: CalendarEvent = "*:*:*".parse().unwrap();
        let error =
            simulate(&schedule, &KeepOptions::default(), END, 30, &TimeZone::UTC).unwrap_err();
        assert_eq!(error, SimulationError::TooMuch { days: 30 });
    }
}
