//! Permits: the proof that no lock forbids what is about to happen to a snapshot. The functions that remove and move
//! snapshots demand one, so that no caller can forget to ask. While a permit is held, no lock changes.

use backstop_types::{BackupGroup, BackupTime, Namespace, Snapshot};

use super::{Attempt, Hold, RetentionLocked};
use crate::datastore::Datastore;
use crate::error::Result;

/// Permits to remove one snapshot.
pub(crate) struct RemovalPermit<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) snapshot: &'a Snapshot,
    /// Absent where nothing is lost.
    _hold: Option<Hold<'a>>,
}

/// Permits to move snapshots of one group to another namespace.
pub(crate) struct MovePermit<'a> {
    pub(crate) from: &'a Namespace,
    pub(crate) to: &'a Namespace,
    pub(crate) group: &'a BackupGroup,
    /// Those that may move, oldest first.
    pub(crate) times: Vec<BackupTime>,
    _hold: Hold<'a>,
}

/// Permits to give a finished snapshot other content.
pub(crate) struct OverwritingPermit<'a> {
    _hold: Hold<'a>,
}

/// Permits to remove everything.
pub(crate) struct DestructionPermit<'a> {
    _hold: Hold<'a>,
}

impl Datastore {
    /// Asks whether a snapshot may be removed.
    ///
    /// # Errors
    /// It is locked, or the locks cannot be read.
    pub(crate) fn permit_removal<'a>(
        &'a self,
        namespace: &'a Namespace,
        snapshot: &'a Snapshot,
    ) -> Result<RemovalPermit<'a>> {
        let hold = self.retention_lock().hold()?;
        refuse(self.retention_locked(namespace, snapshot)?)?;
        Ok(RemovalPermit {
            namespace,
            snapshot,
            _hold: Some(hold),
        })
    }

    /// The permit of whoever writes a snapshot and gives it up: it was never told to be finished.
    pub(crate) fn permit_abort<'a>(
        namespace: &'a Namespace,
        snapshot: &'a Snapshot,
    ) -> RemovalPermit<'a> {
        RemovalPermit {
            namespace,
            snapshot,
            _hold: None,
        }
    }

    /// Asks whether snapshots of a group may move: what is locked only to where it stays so for at least as long, whatever
    /// requests take effect there.
    ///
    /// # Errors
    /// One is locked, or the locks cannot be read.
    pub(crate) fn permit_move<'a>(
        &'a self,
        from: &'a Namespace,
        group: &'a BackupGroup,
        to: &'a Namespace,
        times: Vec<BackupTime>,
    ) -> Result<MovePermit<'a>> {
        let hold = self.retention_lock().hold()?;
        self.check_locks_of_move(from, group, to, &times)?;
        Ok(MovePermit {
            from,
            to,
            group,
            times,
            _hold: hold,
        })
    }

    pub(crate) fn check_locks_of_move(
        &self,
        from: &Namespace,
        group: &BackupGroup,
        to: &Namespace,
        times: &[BackupTime],
    ) -> Result<()> {
        let Some(lock) = self.retention_lock().in_namespace(from)? else {
            return Ok(());
        };
        let status = self.retention_lock().status()?;
        let there = status.and_then(|status| status.locks.governing_to_come(to));
        if there.is_some_and(|there| there.days >= lock.governing().days) {
            return Ok(());
        }
        for time in times {
            let locked = lock.locked(&group.snapshot(*time))?;
            refuse(locked.map(|locked| RetentionLocked {
                attempt: Attempt::Move { to: to.clone() },
                ..locked
            }))?;
        }
        Ok(())
    }

    /// Asks whether a finished snapshot may get other content.
    ///
    /// # Errors
    /// It is locked, or the locks cannot be read.
    pub(crate) fn permit_overwriting(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
    ) -> Result<OverwritingPermit<'_>> {
        let hold = self.retention_lock().hold()?;
        let locked = self.retention_locked(namespace, snapshot)?;
        refuse(locked.map(|locked| RetentionLocked {
            attempt: Attempt::Overwriting,
            ..locked
        }))?;
        Ok(OverwritingPermit { _hold: hold })
    }

    /// Asks whether all data of the datastore may be removed.
    ///
    /// # Errors
    /// A snapshot is locked, or the locks cannot be read.
    pub(crate) fn permit_destruction(&self) -> Result<DestructionPermit<'_>> {
        let hold = self.retention_lock().hold()?;
        refuse(self.retention_lock().any_locked()?)?;
        Ok(DestructionPermit { _hold: hold })
    }

    /// Whether a snapshot is locked, and until when. What is about to remove several snapshots asks this before it begins;
    /// whatever it answers, a locked one cannot be removed.
    ///
    /// # Errors
    /// The locks cannot be read, or the disk fails.
    pub fn retention_locked(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
    ) -> Result<Option<RetentionLocked>> {
        match self.retention_lock().in_namespace(namespace)? {
            Some(lock) => lock.locked(snapshot),
            None => Ok(None),
        }
    }

    /// Fails when a snapshot of a group is locked.
    ///
    /// # Errors
    /// One is, or the disk fails.
    pub(crate) fn check_group_unlocked(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
    ) -> Result<()> {
        let Some(lock) = self.retention_lock().in_namespace(namespace)? else {
            return Ok(());
        };
        for time in self.snapshot_times(namespace, group)? {
            refuse(lock.locked(&group.snapshot(time))?)?;
        }
        Ok(())
    }
}

pub(crate) fn refuse(locked: Option<RetentionLocked>) -> Result<()> {
    match locked {
        Some(locked) => Err(locked.into()),
        None => Ok(()),
    }
}
