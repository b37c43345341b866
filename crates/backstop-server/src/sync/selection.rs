//! Which snapshots of a group are pulled. Pure.

use std::collections::{BTreeSet, HashSet};

use backstop_format::Digest;
use backstop_types::BackupTime;
use backstop_types::record::SyncJobConfig;

use super::source::Listed;

/// What there is at the target.
#[derive(Debug, Default)]
pub(super) struct Present {
    /// The newest finished snapshot.
    pub last: Option<BackupTime>,
    /// Snapshots that are to be pulled again, as they are damaged here.
    pub corrupt: HashSet<BackupTime>,
    /// Snapshots that an earlier run could not get.
    pub retry: BTreeSet<BackupTime>,
    /// Of the manifest of the newest finished snapshot.
    pub manifest: Option<Digest>,
}

/// What to do with the snapshots of a group, oldest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// To be pulled, or compared.
    pub pull: Vec<BackupTime>,
    /// Still being written.
    pub unfinished: Vec<BackupTime>,
    /// Older than what the target has.
    pub old: Vec<BackupTime>,
    /// Not among the newest that are wanted.
    pub beyond: Vec<BackupTime>,
}

impl Plan {
    /// What is left out, and why.
    pub fn left_out(&self) -> [(&[BackupTime], &'static str); 2] {
        [
            (
                &self.old,
                "older than the newest snapshot present on sync target",
            ),
            (&self.beyond, "due to transfer-last"),
        ]
    }

    /// Leaves out the newest snapshot of the target, for a target at which nothing can be compared.
    pub fn without(mut self, last: Option<BackupTime>) -> Self {
        if let Some(position) = self.pull.iter().position(|time| Some(*time) == last) {
            self.old.push(self.pull.remove(position));
        }
        self
    }
}

/// The rules of a job.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rules {
    pub verified_only: bool,
    pub encrypted_only: bool,
    pub transfer_last: Option<usize>,
}

impl Rules {
    pub fn of(config: &SyncJobConfig) -> Self {
        Self {
            verified_only: config.verified_only,
            encrypted_only: config.encrypted_only,
            transfer_last: config.transfer_last,
        }
    }

    /// Whether the filters let a snapshot through.
    pub fn admit(self, is_verified: bool, is_encrypted: bool) -> bool {
        (is_verified || !self.verified_only) && (is_encrypted || !self.encrypted_only)
    }

    /// The finished snapshots that the filters let through.
    pub fn admitted(self, listed: &[Listed]) -> impl Iterator<Item = BackupTime> {
        let admitted = listed.iter().filter(move |listed| {
            listed.is_finished && self.admit(listed.is_verified, listed.is_encrypted)
        });
        admitted.map(|listed| listed.snapshot.time)
    }

    /// Decides on the snapshots that the source lists, oldest first.
    pub fn plan(self, listed: &[Listed], present: &Present) -> Plan {
        let mut plan = Plan::default();
        let unfinished = listed.iter().filter(|listed| !listed.is_finished);
        plan.unfinished = unfinished.map(|item| item.snapshot.time).collect();
        let admitted: Vec<BackupTime> = self.admitted(listed).collect();
        let first = match self.transfer_last {
            Some(count) => admitted.len().saturating_sub(count),
            None => 0,
        };
        for (position, time) in admitted.into_iter().enumerate() {
            if present.corrupt.contains(&time) {
                plan.pull.push(time);
            } else if present.last.is_some_and(|last| time < last) && !present.retry.contains(&time)
            {
                plan.old.push(time);
            } else if position < first && present.last != Some(time) {
                plan.beyond.push(time);
            } else {
                plan.pull.push(time);
            }
        }
        plan
    }
}

/// How the log says that snapshots are left out; `None` when there are none.
pub(super) fn skipped(times: &[BackupTime], reason: &str) -> Option<String> {
    let (first, last) = (times.first()?, times.last()?);
    let span = match times.len() {
        1 => first.to_string(),
        _ => format!("{first} .. {last}"),
    };
    Some(format!(
        "skipped: {} snapshot(s) ({span}) - {reason}",
        times.len()
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use backstop_types::BackupGroup;
    use proptest::prelude::*;

    use super::*;

    fn time(number: i64) -> BackupTime {
        BackupTime::new(number).unwrap()
    }

    fn listed(number: i64, is_finished: bool, is_verified: bool) -> Listed {
        let group: BackupGroup = "vm/1".parse().unwrap();
        Listed {
            snapshot: group.snapshot(time(number)),
            is_finished,
            is_verified,
            is_encrypted: number % 2 == 0,
            mark: None,
        }
    }

    fn numbers(times: &[BackupTime]) -> Vec<i64> {
        times.iter().map(|time| time.epoch()).collect()
    }

    #[test]
    fn what_is_older_than_the_target_is_left_out_and_the_newest_is_compared() {
        let all: Vec<Listed> = (1..=6)
            .map(|number| listed(number, number != 6, true))
            .collect();
        let mut present = Present {
            last: Some(time(3)),
            ..Present::default()
        };
        let plan = Rules::default().plan(&all, &present);
        assert_eq!(numbers(&plan.old), [1, 2]);
        assert_eq!(numbers(&plan.pull), [3, 4, 5]);
        assert_eq!(numbers(&plan.unfinished), [6]);
        present.corrupt.insert(time(1));
        present.retry.insert(time(2));
        let plan = Rules::default().plan(&all, &present);
        assert_eq!(numbers(&plan.pull), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn the_last_ones_are_counted_after_the_filters() {
        let all: Vec<Listed> = (1..=6)
            .map(|number| listed(number, true, number != 5))
            .collect();
        let rules = Rules {
            verified_only: true,
            transfer_last: Some(2),
            ..Rules::default()
        };
        let plan = rules.plan(&all, &Present::default());
        assert_eq!(numbers(&plan.pull), [4, 6]);
        assert_eq!(numbers(&plan.beyond), [1, 2, 3]);
        let present = Present {
            last: Some(time(2)),
            ..Present::default()
        };
        // The newest one here is compared, whatever its position.
        assert_eq!(numbers(&rules.plan(&all, &present).pull), [2, 4, 6]);
        let encrypted = Rules {
            encrypted_only: true,
            ..Rules::default()
        };
        let plan = encrypted.plan(&all, &Present::default());
        assert_eq!(numbers(&plan.pull), [2, 4, 6]);
    }

    #[test]
    fn the_log_names_one_time_or_the_first_and_the_last() {
        assert_eq!(skipped(&[], "x"), None);
        assert_eq!(
            skipped(&[time(0)], "x").unwrap(),
            "skipped: 1 snapshot(s) (1970-01-01T00:00:00Z) - x"
        );
        assert_eq!(
            skipped(&[time(0), time(1), time(2)], "x").unwrap(),
            "skipped: 3 snapshot(s) (1970-01-01T00:00:00Z .. 1970-01-01T00:00:02Z) - x"
        );
    }

    proptest! {
        #[test]
        fn every_snapshot_is_accounted_for_once(
            flags in prop::collection::vec(any::<(bool, bool)>(), 0..12),
            last in prop::option::of(0i64..12),
            transfer_last in prop::option::of(1usize..5),
        ) {
            let all: Vec<Listed> = flags.iter().enumerate()
                .map(|(number, (finished, verified))| listed(number as i64, *finished, *verified)).collect();
            let present = Present { last: last.map(time), ..Present::default() };
            let rules = Rules { transfer_last, ..Rules::default() };
            let plan = rules.plan(&all, &present);
            let mut found = [plan.pull.clone(), plan.unfinished, plan.old, plan.beyond].concat();
            found.sort_unstable();
            let wanted: Vec<BackupTime> = all.iter().map(|listed| listed.snapshot.time).collect();
            prop_assert_eq!(found, wanted);
            prop_assert!(plan.pull.iter().all(|time| last.is_none_or(|last| time.epoch() >= last)));
        }
    }
}
