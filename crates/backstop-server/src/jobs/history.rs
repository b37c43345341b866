//! What is remembered of a job beyond its last run: when it last succeeded, how often it failed since, what a sync moved and
//! how far it is behind its source. Format: `docs/formats/jobs.md`.
//!
//! It lies in a file of its own beside the state file, which keeps its stock form. Losing it costs nothing but the knowledge.

use backstop_types::Upid;
use backstop_types::record::TaskState;
use serde::{Deserialize, Serialize};

/// What a sync has seen at its source, and what of that is not at the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SourceView {
    /// When the source was looked at, in seconds since 1970.
    pub seen: i64,
    /// How many snapshots that the job is to copy are there and not here.
    pub missing: u64,
    /// The time of the newest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_missing: Option<i64>,
    /// The time of the oldest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_missing: Option<i64>,
}

impl SourceView {
    /// Counts a snapshot of this time, in seconds since 1970, that is not at the target.
    pub fn miss(&mut self, time: i64) {
        self.missing += 1;
        self.newest_missing = self.newest_missing.max(Some(time));
        self.oldest_missing = Some(self.oldest_missing.map_or(time, |oldest| oldest.min(time)));
    }
}

/// What a run of a sync has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SyncOutcome {
    /// Bytes of chunks that were moved, as they are stored.
    pub bytes: u64,
    /// How many chunks that were.
    pub chunks: u64,
    /// Snapshots that were copied.
    pub snapshots: u64,
    /// What is left; `None` when not all of the source could be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceView>,
}

/// What is remembered of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct JobHistory {
    /// The task of the last run that is counted here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upid: Option<Upid>,
    /// When a run last ended without an error, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<i64>,
    /// How many runs failed since then.
    #[serde(default)]
    pub failures: u64,
    /// Whether the last run, which the schedule wanted, could not begin: it is tried again each minute.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub owed: bool,
    /// The task of a sync that did what `moved` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_by: Option<Upid>,
    /// What the last run did, for a sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<SyncOutcome>,
    /// The source of a sync as it was seen last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceView>,
}

impl JobHistory {
    /// Notes what a run of a sync did, before its end is counted.
    pub fn note(&mut self, upid: &Upid, outcome: SyncOutcome) {
        self.moved_by = Some(upid.clone());
        self.moved = Some(outcome);
        self.source = outcome.source.or(self.source);
    }

    /// Counts the end of a run; one that is counted already stays as it is.
    pub fn count(&mut self, upid: &Upid, endtime: i64, state: &TaskState) {
        if self.upid.as_ref() == Some(upid) {
            return;
        }
        self.upid = Some(upid.clone());
        match state {
            TaskState::Ok | TaskState::Warnings(_) => {
                self.last_success = Some(endtime);
                self.failures = 0;
            }
            TaskState::Error(_) | TaskState::Unknown => self.failures += 1,
        }
        // A run that did not come so far has noted nothing.
        if self.moved_by.as_ref() != Some(upid) {
            self.moved_by = None;
            self.moved = None;
        }
    }

    /// What is shown of it.
    pub fn shown(&self, now: i64) -> ShownHistory {
        let moved = self.moved;
        // What an earlier run saw says nothing of now.
        let view = moved.and_then(|moved| moved.source);
        ShownHistory {
            last_success: self.last_success,
            failures: self.failures,
            bytes: moved.map(|moved| moved.bytes),
            chunks: moved.map(|moved| moved.chunks),
            snapshots: moved.map(|moved| moved.snapshots),
            source_seen: self.source.map(|source| source.seen),
            missing: view.map(|view| view.missing),
            lag: view.map(|view| {
                let newest = view.newest_missing;
                newest.map_or(0, |newest| now.saturating_sub(newest).max(0))
            }),
            behind_since: view.and_then(|view| view.oldest_missing),
        }
    }
}

/// What lists show of the history of a job. Times are seconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ShownHistory {
    /// When a run last ended without an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<i64>,
    /// How many runs failed since then.
    pub failures: u64,
    /// Bytes that the last run moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Chunks that it moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunks: Option<u64>,
    /// Snapshots that it copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<u64>,
    /// When a run last saw all of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_seen: Option<i64>,
    /// Snapshots at the source that were not here after the last run; left out when it could not see all of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<u64>,
    /// Age of the newest of them in seconds, 0 without any; left out as `missing`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// Time of the oldest of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind_since: Option<i64>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn upid(number: u32) -> Upid {
        format!("UPID:vm:00007067:000CF758:{number:08X}:6B00CCA1:syncjob:x:root@pam:")
            .parse()
            .unwrap()
    }

    #[test]
    fn failures_are_counted_once_each_until_a_run_succeeds() {
        let mut history = JobHistory::default();
        let failed = TaskState::Error("no".to_owned());
        history.count(&upid(1), 100, &failed);
        history.count(&upid(1), 100, &failed);
        history.count(&upid(2), 200, &TaskState::Unknown);
        assert_eq!((history.failures, history.last_success), (2, None));
        history.count(&upid(3), 300, &TaskState::Warnings(1));
        history.count(&upid(4), 400, &failed);
        assert_eq!((history.failures, history.last_success), (1, Some(300)));
        let text = serde_json::to_string(&history).unwrap();
        assert_eq!(serde_json::from_str::<JobHistory>(&text).unwrap(), history);
    }

    #[test]
    fn the_lag_is_the_age_of_the_newest_snapshot_that_is_missing_and_unknown_when_the_source_is() {
        let mut view = SourceView {
            seen: 1000,
            ..SourceView::default()
        };
        let outcome = |view| SyncOutcome {
            source: Some(view),
            ..SyncOutcome::default()
        };
        let mut history = JobHistory::default();
        history.note(&upid(1), outcome(view));
        history.count(&upid(1), 1001, &TaskState::Ok);
        let shown = history.shown(2000);
        assert_eq!((shown.lag, shown.missing), (Some(0), Some(0)));
        for time in [700, 900, 800] {
            view.miss(time);
        }
        let failed = TaskState::Error("no".to_owned());
        history.note(&upid(2), outcome(view));
        history.count(&upid(2), 1002, &failed);
        let shown = history.shown(2000);
        assert_eq!((shown.lag, shown.missing), (Some(1100), Some(3)));
        assert_eq!(shown.behind_since, Some(700));
        history.note(&upid(3), SyncOutcome::default());
        history.count(&upid(3), 1003, &failed);
        let shown = history.shown(3000);
        assert_eq!(
            (shown.lag, shown.missing, shown.bytes),
            (None, None, Some(0))
        );
        assert_eq!(shown.source_seen, Some(1000));
        // One that died has noted nothing.
        history.count(&upid(4), 1004, &failed);
        let shown = history.shown(3000);
        assert_eq!((shown.lag, shown.bytes, shown.failures), (None, None, 3));
    }
}
