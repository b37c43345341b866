//! What was learnt of the usual: how long jobs run, when groups were backed up. Losing it costs nothing but the time to learn it
//! again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::number::median;

/// Runs of a job, and backups of a group, that are remembered.
const KEPT: usize = 24;

/// A run that went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    /// Its start, which tells it from others.
    start: i64,
    seconds: i64,
}

/// All that was learnt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learnt {
    /// By job, oldest first.
    #[serde(default)]
    runs: BTreeMap<String, Vec<Run>>,
    /// Times of backups by group, newest first; also of those that were removed since.
    #[serde(default)]
    backups: BTreeMap<String, Vec<i64>>,
    /// When datastores were first seen.
    #[serde(default)]
    first_seen: BTreeMap<String, i64>,
}

impl Learnt {
    /// A run of a job that went well. Tells whether that is news.
    pub fn note_run(&mut self, job: &str, start: i64, end: i64) -> bool {
        let runs = self.runs.entry(job.to_owned()).or_default();
        if runs.iter().any(|run| run.start == start) {
            return false;
        }
        runs.push(Run {
            start,
            seconds: end.saturating_sub(start).max(0),
        });
        let surplus = runs.len().saturating_sub(KEPT);
        runs.drain(..surplus);
        true
    }

    /// How many runs of a job are known.
    pub fn durations(&self, job: &str) -> usize {
        self.runs.get(job).map_or(0, Vec::len)
    }

    /// How long a job usually runs, in seconds.
    pub fn usual_duration(&self, job: &str) -> Option<i64> {
        let runs = self.runs.get(job)?;
        let mut seconds: Vec<i64> = runs.iter().map(|run| run.seconds).collect();
        median(&mut seconds)
    }

    /// Backups of a group that are there at `now`. Times in the future are wrong and not learnt. Tells whether there is news.
    pub fn note_backups(&mut self, group: &str, times: &[i64], now: i64) -> bool {
        let newest = times.iter().copied().filter(|time| *time <= now).take(KEPT);
        let known = self.backups.get(group).map_or(&[][..], Vec::as_slice);
        let mut merged: Vec<i64> = newest.chain(known.iter().copied()).collect();
        merged.sort_unstable_by(|a, b| b.cmp(a));
        merged.dedup();
        merged.truncate(KEPT);
        if merged == known || merged.is_empty() {
            return false;
        }
        self.backups.insert(group.to_owned(), merged);
        true
    }

    /// Times of backups of a group, newest first.
    pub fn backups(&self, group: &str) -> &[i64] {
        self.backups.get(group).map_or(&[], Vec::as_slice)
    }

    /// The groups of which backups are known.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.backups.keys().map(String::as_str)
    }

    /// The datastores that were seen.
    pub fn datastores(&self) -> impl Iterator<Item = &str> {
        self.first_seen.keys().map(String::as_str)
    }

    /// When a datastore was first seen; that is `now` if it was not.
    pub fn first_seen(&mut self, datastore: &str, now: i64) -> i64 {
        *self.first_seen.entry(datastore.to_owned()).or_insert(now)
    }

    /// Forgets what is not there any more. `is_there` is asked for each job, group and `datastore/NAME`.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) -> bool {
        let before = (self.runs.len(), self.backups.len(), self.first_seen.len());
        self.runs.retain(|job, _| is_there(job));
        self.backups.retain(|group, _| is_there(group));
        self.first_seen
            .retain(|name, _| is_there(&format!("datastore/{name}")));
        before != (self.runs.len(), self.backups.len(), self.first_seen.len())
    }
}
