//! What a run has done so far, and what went wrong.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use backstop_types::{ByteSize, Namespace};
use parking_lot::Mutex;

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
    pub snapshots: AtomicU64,
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

    /// Tells what was done, and how the run ends.
    pub fn finish(&self, removes_vanished: bool, task: &TaskContext) -> Result<(), TaskFailure> {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (chunks, bytes) = (count(&self.chunks), count(&self.bytes));
        let (moved, moves) = match self.direction {
            Direction::Pull => ("pulled", "pull"),
            Direction::Push => ("pushed", "push"),
        };
        if chunks > 0 {
            task.log(format!(
                "Summary: sync job {moved} {} in {chunks} chunks (average rate: {}/s)",
                ByteSize::binary(bytes),
                rate(bytes, self.started),
            ));
        } else {
            task.log(format!("Summary: sync job found no new data to {moves}"));
        }
        if removes_vanished {
            task.log(format!(
                "Summary: removed vanished: snapshots: {}, groups: {}, namespaces: {}",
                count(&self.removed_snapshots),
                count(&self.removed_groups),
                count(&self.removed_namespaces),
            ));
        }
        match self.first_error.lock().take() {
            None => Ok(()),
            Some(error) => Err(TaskFailure::new(format!(
                "sync failed with some errors. The first one: {error}"
            ))),
        }
    }
}

/// Bytes per second since a moment.
pub(super) fn rate(bytes: u64, since: Instant) -> ByteSize {
    let micros = since.elapsed().as_micros().max(1);
    let rate = u128::from(bytes) * 1_000_000 / micros;
    ByteSize::binary(u64::try_from(rate).unwrap_or(u64::MAX))
}
