//! Applying a retention rule to a group.

use backstop_calendar::retention::{Candidate, KeepOptions, Verdict, explain};
use backstop_types::{BackupGroup, Namespace, Snapshot};
use jiff::tz::TimeZone;

use crate::datastore::Datastore;
use crate::error::{DatastoreError, Result};

/// What became, or would become, of a snapshot.
#[derive(Debug)]
pub struct PrunedSnapshot {
    /// Which one.
    pub snapshot: Snapshot,
    /// What the rule says, and why.
    pub verdict: Verdict,
    /// For a snapshot that was to be removed: whether it is gone. Always `Ok` otherwise and in a dry run.
    pub outcome: Result<()>,
}

impl Datastore {
    /// What a retention rule says about each snapshot of a group, oldest first. What it does not keep, but a retention lock
    /// does, is marked as locked.
    ///
    /// # Errors
    /// The disk fails.
    pub fn prune_selection(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
        keep: &KeepOptions,
        zone: &TimeZone,
    ) -> Result<Vec<(Snapshot, Verdict)>> {
        let mut snapshots = self.snapshots(namespace, group)?;
        snapshots.reverse();
        let candidates: Vec<Candidate> = snapshots
            .iter()
            .map(|info| Candidate {
                time: info.snapshot.time.epoch(),
                finished: info.is_finished(),
                protected: info.protected,
            })
            .collect();
        let verdicts = explain(&candidates, keep, zone);
        let lock = self.retention_lock().in_namespace(namespace)?;
        let mut selection = Vec::with_capacity(snapshots.len());
        for (info, mut verdict) in snapshots.into_iter().zip(verdicts) {
            if let Some(lock) = lock.as_ref().filter(|_| !verdict.mark.keeps())
                && let Some(locked) = lock.locked(&info.snapshot)?
            {
                verdict = Verdict::locked(locked.until);
            }
            selection.push((info.snapshot, verdict));
        }
        Ok(selection)
    }

    /// Removes the snapshots of a group that a retention rule does not keep, oldest first. A snapshot that cannot be removed
    /// does not keep the others from being removed; its outcome says why. With `dry_run`, nothing is removed. `each` is told
    /// of every snapshot as soon as its fate is known, and ends the work before the next one when it fails.
    ///
    /// # Errors
    /// The group's snapshots cannot be listed, or `each` fails.
    pub fn prune_group<E: From<DatastoreError>>(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
        keep: &KeepOptions,
        zone: &TimeZone,
        dry_run: bool,
        mut each: impl FnMut(PrunedSnapshot) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        for (snapshot, verdict) in self.prune_selection(namespace, group, keep, zone)? {
            let outcome = if verdict.mark.keeps() || dry_run {
                Ok(())
            } else {
                self.remove_snapshot(namespace, &snapshot, false)
            };
            each(PrunedSnapshot {
                snapshot,
                verdict,
                outcome,
            })?;
        }
        Ok(())
    }
}
