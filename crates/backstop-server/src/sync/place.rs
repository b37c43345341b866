//! The namespace that is being synced, and how far that is.

use std::sync::atomic::{AtomicUsize, Ordering};

use backstop_types::Namespace;

/// The namespace that is being synced.
pub(super) struct Place<'a> {
    pub source: &'a Namespace,
    pub target: &'a Namespace,
    /// How many groups are synced from it.
    pub groups: usize,
    /// How many of them are done.
    pub done: AtomicUsize,
}

impl Place<'_> {
    /// How far the namespace is, after `done` of `total` snapshots of a group.
    pub fn progress(&self, done: usize, total: usize) -> String {
        let (groups, before) = (self.groups, self.done.load(Ordering::Relaxed));
        let share = done as f64 / total.max(1) as f64;
        percentage(before as f64 + share, groups, || {
            if groups == 1 {
                format!("{done}/{total} snapshots")
            } else if done == total {
                format!("{}/{groups} groups", before + 1)
            } else {
                format!(
                    "{before}/{groups} groups, {done}/{total} snapshots in group #{}",
                    before + 1
                )
            }
        })
    }

    /// The same after a group without anything to do.
    pub fn progress_without_snapshots(&self) -> String {
        let done = self.done.load(Ordering::Relaxed) + 1;
        percentage(done as f64, self.groups, || {
            format!("{done}/{} groups", self.groups)
        })
    }
}

fn percentage(done: f64, groups: usize, detail: impl FnOnce() -> String) -> String {
    let percent = 100.0 * done / groups.max(1) as f64;
    format!("percentage done: {:.2}% ({})", percent.min(100.0), detail())
}
