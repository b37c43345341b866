//! One group: what the target has of it, and its snapshots one after the other, oldest first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use backstop_datastore::DatastoreError;
use backstop_types::{BackupGroup, BackupTime, Namespace};

use super::target::{GroupThere, SnapshotThere};
use super::{Run, snapshot, vanished};
use crate::sync::error::{Result, SyncError};
use crate::sync::fetched::Record;
use crate::sync::place::Place;
use crate::sync::selection::{Plan, Present, skipped};
use crate::sync::source::Listed;

/// A group that is being pushed.
pub(super) struct GroupPush<'a> {
    pub run: &'a Run,
    pub place: &'a Place<'a>,
    pub group: &'a BackupGroup,
}

impl<'a> GroupPush<'a> {
    /// Pushes what is new of a group. Errors of single snapshots are noted in the report.
    ///
    /// # Errors
    /// The group could not be pushed, or not to its end.
    pub async fn run(
        run: &'a Run,
        place: &'a Place<'a>,
        group: &'a BackupGroup,
        there: Option<&GroupThere>,
    ) -> Result<()> {
        if there.is_some_and(|there| !there.is_own) {
            warn_of_foreign(run, group);
            return Ok(());
        }
        let push = Self { run, place, group };
        push.push(there).await
    }

    async fn push(&self, there: Option<&GroupThere>) -> Result<()> {
        let run = self.run;
        let listed = run.source.snapshots(self.place.source, self.group).await?;
        let record = self.record().await?;
        let needs_all = run.config.remove_vanished || !record.retry.is_empty();
        let present = match there {
            Some(there) => {
                let target = self.place.target;
                present(run, target, self.group, &listed, there, needs_all).await?
            }
            None => Vec::new(),
        };
        // What counts for the target, too, when it is asked to take a snapshot.
        let last = present.iter().rfind(|item| item.is_finished);
        let last = last.map(|item| item.time);
        let plan = run.rules.plan(
            &listed,
            &Present {
                last,
                ..Present::default()
            },
        );
        let plan = plan.without(last);
        self.tell(&plan);
        let (mut missed, stopped) = self.snapshots(&plan, last.is_some()).await;
        missed.extend(self.lost(&record, &listed, &present, last));
        self.close(record, missed.clone()).await?;
        if let Some(error) = stopped {
            return Err(error);
        }
        // Nothing is removed while something that may replace it could not be had.
        if run.config.remove_vanished && missed.is_empty() {
            vanished::remove_snapshots(self, &listed, &present).await?;
        }
        Ok(())
    }

    /// Writes to the log.
    pub fn log(&self, text: impl std::fmt::Display) {
        self.run.task.log(format!("[{}]: {text}", self.group));
    }

    /// Writes a warning to the log.
    pub fn warn(&self, text: impl std::fmt::Display) {
        self.run.task.warn(format!("[{}]: {text}", self.group));
    }

    fn tell(&self, plan: &Plan) {
        for time in &plan.unfinished {
            let snapshot = self.group.snapshot(*time);
            self.log(format!("skipping snapshot {snapshot} - in-progress backup"));
        }
        for (times, reason) in plan.left_out() {
            if let Some(text) = skipped(times, reason) {
                self.log(text);
            }
        }
    }

    /// Pushes the snapshots of a plan. Returns those that could not be sent, and why the rest was not tried, if that is so.
    async fn snapshots(
        &self,
        plan: &Plan,
        mut has_previous: bool,
    ) -> (BTreeSet<BackupTime>, Option<SyncError>) {
        let mut missed = BTreeSet::new();
        let total = plan.pull.len();
        for (number, time) in plan.pull.iter().enumerate() {
            let snapshot = self.group.snapshot(*time);
            self.log(format!("{time}: start sync"));
            match snapshot::push(self, &snapshot, has_previous).await {
                Ok(true) => {
                    has_previous = true;
                    self.run.report.snapshots.fetch_add(1, Ordering::Relaxed);
                    self.run.report.copied.fetch_add(1, Ordering::Relaxed);
                    self.log(format!("{time}: sync done"));
                }
                Ok(false) => {}
                Err(SyncError::Content(error)) => {
                    let text = format!("sync snapshot {snapshot} failed - {error}");
                    self.run.report.failed(&text);
                    self.run.report.missing([*time]);
                    self.log(text);
                    missed.insert(*time);
                }
                Err(error) => {
                    let error = SyncError::Broken(format!("snapshot {snapshot}: {error}"));
                    return (missed, Some(error));
                }
            }
            self.log(self.place.progress(number + 1, total));
        }
        if total == 0 {
            self.log(self.place.progress_without_snapshots());
        }
        (missed, None)
    }

    /// Snapshots that an earlier run could not send, and that the target no longer takes, as it has got newer ones since.
    fn lost(
        &self,
        record: &Record,
        listed: &[Listed],
        present: &[SnapshotThere],
        last: Option<BackupTime>,
    ) -> BTreeSet<BackupTime> {
        let is_lost = |time: &BackupTime| {
            last.is_some_and(|last| *time < last)
                && listed.iter().any(|item| item.snapshot.time == *time)
                && present.iter().all(|item| item.time != *time)
        };
        let lost: BTreeSet<BackupTime> = record
            .retry
            .iter()
            .copied()
            .filter(|time| is_lost(time))
            .collect();
        for time in &lost {
            self.warn(format!(
                "snapshot {} could not be sent by an earlier run and is missing at the target, which takes no snapshot that is \
                 older than the newest one it has; let the target pull it if it is needed there",
                self.group.snapshot(*time)
            ));
        }
        lost
    }

    async fn record(&self) -> Result<Arc<Record>> {
        let run = self.run;
        let (records, store) = (run.records.clone(), run.config.store.clone());
        let (ns, group) = (self.place.source.clone(), self.group.clone());
        let target = format!("to {}", run.target.acl_path(self.place.target));
        let opened = run.local.work(move |_| {
            let record = Record::open(&records, &store, &ns, &group, &target);
            record.map(Arc::new).map_err(|source| DatastoreError::Io {
                attempt: "read what is left to sync in",
                path: records,
                source,
            })
        });
        opened.await
    }

    async fn close(&self, record: Arc<Record>, missed: BTreeSet<BackupTime>) -> Result<()> {
        let closed = self.run.local.work(move |_| {
            if let Err(error) = record.close(&missed, true) {
                tracing::warn!(%error, "unable to note what is left to sync");
            }
            Ok(())
        });
        closed.await
    }
}

/// Says that a group at the target belongs to somebody else.
pub(super) fn warn_of_foreign(run: &Run, group: &BackupGroup) {
    run.task.warn(format!(
        "[{group}]: Group '{group}' not owned by remote user '{}' on target, skipping upload; \
         push into a namespace of its own (--remote-ns), or give the group there to that user (change-owner)",
        run.target.user()
    ));
}

/// What the target has of a group; unless all is needed, only the newest snapshot, if that shows that there is nothing to do.
pub(super) async fn present(
    run: &Run,
    namespace: &Namespace,
    group: &BackupGroup,
    listed: &[Listed],
    there: &GroupThere,
    needs_all: bool,
) -> Result<Vec<SnapshotThere>> {
    if let Some(last) = there.last
        && !needs_all
        && listed.iter().all(|item| item.snapshot.time <= last)
    {
        return Ok(vec![SnapshotThere {
            time: last,
            is_finished: true,
            is_protected: false,
        }]);
    }
    run.target.snapshots(namespace, group).await
}
