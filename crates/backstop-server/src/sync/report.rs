//! What a run has done so far, what is left, and what went wrong.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use backstop_types::{BackupTime, ByteSize, Namespace};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::jobs::{SourceView, SyncOutcome};
use crate::task::{TaskContext, TaskFailure};

/// Where the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// To here.
    Pull,
    /// From here.
    Push,
}

/// Numbers of a run, and its first error.
pub(super) struct Report {
    direction: Direction,
    chunks: AtomicU64,
    bytes: AtomicU64,
    started: Instant,
    pub removed_snapshots: AtomicU64,
    pub removed_groups: AtomicU64,
    pub removed_namespaces: AtomicU64,
    pub groups: AtomicU64,
    /// Snapshots that are done, whether there was anything to copy or not.
    pub snapshots: AtomicU64,
    /// Snapshots that were copied, or copied again.
    pub copied: AtomicU64,
    /// What of the source is missing here.
    missing: Mutex<SourceView>,
    /// Whether all lists of the source could be had.
    saw_all: AtomicBool,
    /// Whether the run has come to its end.
    is_complete: AtomicBool,
    first_error: Mutex<Option<String>>,
}

/// What was fetched or sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moved {
    pub chunks: u64,
    pub bytes: u64,
}

impl Report {
    pub fn new(direction: Direction) -> Self {
        Self {
            direction,
            chunks: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            started: Instant::now(),
            removed_snapshots: AtomicU64::new(0),
            removed_groups: AtomicU64::new(0),
            removed_namespaces: AtomicU64::new(0),
            groups: AtomicU64::new(0),
            snapshots: AtomicU64::new(0),
            copied: AtomicU64::new(0),
            missing: Mutex::default(),
            saw_all: AtomicBool::new(true),
            is_complete: AtomicBool::new(false),
            first_error: Mutex::new(None),
        }
    }

    /// Counts what was fetched or sent.
    pub fn moved(&self, moved: Moved) {
        self.chunks.fetch_add(moved.chunks, Ordering::Relaxed);
        self.bytes.fetch_add(moved.bytes, Ordering::Relaxed);
    }

    /// Notes an error, which does not end the run.
    pub fn failed(&self, text: &str) {
        self.first_error
            .lock()
            .get_or_insert_with(|| text.to_owned());
    }

    /// How far the run is, after a namespace of the source.
    pub fn progress(&self, source: &Namespace) -> String {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let name = match source.is_root() {
            true => "root namespace".to_owned(),
            false => format!("namespace {source}"),
        };
        format!(
            "Finished syncing {name}, current progress: {} groups, {} snapshots",
            count(&self.groups),
            count(&self.snapshots)
        )
    }

    /// Notes snapshots that are to be copied and are not at the target.
    pub fn missing(&self, times: impl IntoIterator<Item = BackupTime>) {
        let mut missing = self.missing.lock();
        times
            .into_iter()
            .for_each(|time| missing.miss(time.epoch()));
    }

    /// Notes that some of the source could not be seen.
    pub fn unseen(&self) {
        self.saw_all.store(false, Ordering::Relaxed);
    }

    /// Notes that everything was tried.
    pub fn complete(&self) {
        self.is_complete.store(true, Ordering::Relaxed);
    }

    /// What is remembered of the run so far.
    pub fn outcome(&self) -> SyncOutcome {
        let is_set = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let saw_all = is_set(&self.is_complete) && is_set(&self.saw_all);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let source = SourceView {
            seen: Timestamp::now().as_second(),
            ..*self.missing.lock()
        };
        SyncOutcome {
            bytes: count(&self.bytes),
            chunks: count(&self.chunks),
            snapshots: count(&self.copied),
            source: saw_all.then_some(source),
        }
    }

    /// Tells what was done, and how the run ends.
    pub fn finish(&self, removes_vanished: bool, task: &TaskContext) -> Result<(), TaskFailure> {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let outcome = self.outcome();
        let (moved, moves) = match self.direction {
            Direction::Pull => ("pulled", "pull"),
            Direction::Push => ("pushed", "push"),
        };
        if outcome.chunks > 0 {
            task.log(format!(
                "Summary: sync job {moved} {} in {} chunks (average rate: {}/s)",
                ByteSize::binary(outcome.bytes),
                outcome.chunks,
                rate(outcome.bytes, self.started),
            ));
        } else {
            task.log(format!("Summary: sync job found no new data to {moves}"));
        }
        task.log(format!(
            "Summary: snapshots copied: {}, {}",
            outcome.snapshots,
            left(outcome.source.as_ref(), Timestamp::now().as_second())
        ));
        if removes_vanished {
            task.log(format!(
                "Summary: removed vanished: snapshots: {}, groups: {}, namespaces: {}",
                count(&self.removed_snapshots),
                count(&self.removed_groups),
                count(&self.removed_namespaces),
            ));
        }
        self.end()
    }

    /// How the run ends.
    pub fn end(&self) -> Result<(), TaskFailure> {
        match self.first_error.lock().take() {
            None => Ok(()),
            Some(error) => Err(TaskFailure::new(format!(
                "sync failed with some errors. The first one: {error}"
            ))),
        }
    }
}

/// How far the target is behind the source.
fn left(source: Option<&SourceView>, now: i64) -> String {
    let Some(source) = source else {
        return "still missing: unknown, as not all of the source could be seen".to_owned();
    };
    let newest = source.newest_missing.map(BackupTime::new);
    let Some(Ok(newest)) = newest else {
        return "still missing: 0".to_owned();
    };
    let lag = age(now.saturating_sub(newest.epoch()));
    format!(
        "still missing: {} (the newest one of {newest}, {lag} ago)",
        source.missing
    )
}

/// A span of time in its largest unit.
fn age(seconds: i64) -> String {
    let seconds = seconds.max(0);
    for (unit, length) in [("days", 86_400), ("hours", 3600), ("minutes", 60)] {
        if seconds >= 2 * length {
            return format!("{} {unit}", seconds / length);
        }
    }
    format!("{seconds} seconds")
}

/// Bytes per second since a moment.
pub(super) fn rate(bytes: u64, since: Instant) -> ByteSize {
    let micros = since.elapsed().as_micros().max(1);
    let rate = u128::from(bytes) * 1_000_000 / micros;
    ByteSize::binary(u64::try_from(rate).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_summary_says_what_is_missing_and_how_old_it_is() {
        let report = Report::new(Direction::Pull);
        assert_eq!(report.outcome().source, None);
        report.complete();
        assert_eq!(
            left(report.outcome().source.as_ref(), 0),
            "still missing: 0"
        );
        report.missing([7, 3600, 1800].map(|time| BackupTime::new(time).unwrap()));
        assert_eq!(
            left(report.outcome().source.as_ref(), 3600 + 7300),
            "still missing: 3 (the newest one of 1970-01-01T01:00:00Z, 2 hours ago)"
        );
        report.unseen();
        assert!(left(report.outcome().source.as_ref(), 0).contains("unknown"));
    }
}
