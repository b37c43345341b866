//! What was learnt of the usual: how long jobs run, when groups were backed up. Losing it costs nothing but the time to learn it
//! again.

mod lateness;
mod rhythm;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Moment;
use crate::cadence::{Cadence, History};
use crate::facts::JobFacts;
use crate::number::median;

use lateness::Lateness;
use rhythm::Rhythm;

/// Runs of a job that are remembered.
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
    /// What was watched of groups.
    #[serde(default)]
    rhythms: BTreeMap<String, Rhythm>,
    /// When datastores were first seen.
    #[serde(default)]
    first_seen: BTreeMap<String, i64>,
    /// Jobs that wait for being started.
    #[serde(default)]
    late: BTreeMap<String, Lateness>,
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
        let past: Vec<i64> = times.iter().copied().filter(|time| *time <= now).collect();
        let known = self.backups.get(group).map_or(&[][..], Vec::as_slice);
        if past.is_empty() && known.is_empty() {
            return false;
        }
        let rhythm = self.rhythms.entry(group.to_owned()).or_insert_with(|| {
            let seen = if past.len() > known.len() {
                &past
            } else {
                known
            };
            Rhythm::new(seen, now)
        });
        let Some(news) = rhythm.take(known, &past, now) else {
            return false;
        };
        self.backups.insert(group.to_owned(), news);
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

    /// How often a group is backed up; or how many intervals are known, when those are too few.
    pub(crate) fn cadence(&self, group: &str, now: i64) -> Result<Cadence, usize> {
        let times = self.backups(group);
        match self.rhythms.get(group) {
            Some(rhythm) => rhythm.history(times, now, Cadence::learn),
            None => Cadence::learn(History {
                times,
                pauses: &[],
                watched: 0,
            }),
        }
    }

    /// Notes whether a job that is due waits for being started, in a server that runs since `started`. Tells whether there is news.
    pub fn note_lateness(&mut self, job: &JobFacts, started: i64, moment: &Moment) -> bool {
        let object = job.object();
        let known = self.late.get(&object);
        let Some(due) = crate::job::due(job, moment) else {
            return self.late.remove(&object).is_some();
        };
        let now = Lateness::since(
            known.filter(|known| known.due == due),
            due,
            started,
            moment.now,
        );
        if known == Some(&now) {
            return false;
        }
        self.late.insert(object, now);
        true
    }

    /// For how many seconds a job that was due then waits for being started while a server could have started it.
    pub(crate) fn lateness(&self, job: &str, due: i64) -> Option<i64> {
        let known = self.late.get(job).filter(|known| known.due == due)?;
        Some(known.waited)
    }

    /// When a datastore was first seen; that is `now` if it was not.
    pub fn first_seen(&mut self, datastore: &str, now: i64) -> i64 {
        *self.first_seen.entry(datastore.to_owned()).or_insert(now)
    }

    /// Forgets what is not there any more. `is_there` is asked for each job, group and `datastore/NAME`.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) -> bool {
        let count = |learnt: &Self| {
            [
                learnt.runs.len(),
                learnt.backups.len(),
                learnt.rhythms.len(),
                learnt.first_seen.len(),
                learnt.late.len(),
            ]
        };
        let before = count(self);
        self.runs.retain(|job, _| is_there(job));
        self.backups.retain(|group, _| is_there(group));
        self.rhythms.retain(|group, _| is_there(group));
        self.late.retain(|job, _| is_there(job));
        self.first_seen
            .retain(|name, _| is_there(&format!("datastore/{name}")));
        before != count(self)
    }
}
