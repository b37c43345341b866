//! Moving groups to another namespace of the same datastore.
//!
//! A snapshot is at its old place or at its new one, never at both or neither: each move is one renaming. What is in use is not
//! moved: the group is locked at both places, and each snapshot while it moves.

mod namespace;

use std::io;
use std::path::{Path, PathBuf};

use backstop_types::{AuthId, BackupGroup, BackupTime, Namespace, Snapshot};

use crate::datastore::Datastore;
use crate::error::{DatastoreError, Result};
use crate::group::{NOTES, OWNER};
use crate::lock_file::{FileLock, LockMode};
use crate::move_journal;
use crate::ownership;
use crate::retention_lock::permit::MovePermit;
use crate::task_log::TaskLog;

pub use namespace::NamespaceMove;

/// Most snapshots that are locked at the same time; each lock is an open file.
const MAX_LOCKED: usize = 512;

/// Why a group or namespace is not moved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MoveRefusal {
    /// It is the root.
    #[error("cannot move root namespace")]
    RootNamespace,
    /// It is there already.
    #[error("source and target namespace must be different")]
    SameNamespace,
    /// There is no such namespace.
    #[error("source namespace '{0}' does not exist")]
    NoSource(Namespace),
    /// There is no namespace to move to.
    #[error("target namespace '{0}' does not exist")]
    NoTarget(Namespace),
    /// There is no namespace to create the new one in.
    #[error("target parent namespace '{0}' does not exist")]
    NoTargetParent(Namespace),
    /// A namespace cannot lie in itself.
    #[error("cannot move namespace '{from}' into its own subtree (target: '{to}')")]
    OwnSubtree {
        /// What was to be moved.
        from: Namespace,
        /// To where.
        to: Namespace,
    },
    /// Namespaces would become too deep, or their names too long.
    #[error(
        "namespace depth limit exceeded: source subtree depth ({below}) + target depth ({target}) would exceed max ({})",
        Namespace::MAX_DEPTH
    )]
    TooDeep {
        /// Levels below the namespace that was to be moved.
        below: usize,
        /// Levels of the target.
        target: usize,
    },
    /// There is no such group.
    #[error("group '{group}' does not exist in namespace '{namespace}'")]
    NoGroup {
        /// The group.
        group: BackupGroup,
        /// Where it was looked for.
        namespace: Namespace,
    },
    /// The target has a group of that name, and merging was not asked for.
    #[error(
        "group '{group}' already exists in target namespace '{namespace}' and merge-group is disabled"
    )]
    GroupExists {
        /// The group.
        group: BackupGroup,
        /// Where it exists.
        namespace: Namespace,
    },
    /// The groups to merge belong to different owners.
    #[error(
        "cannot merge group '{group}' from '{from}' into '{to}': owner mismatch (source: {from_owner}, target: {to_owner})"
    )]
    OwnerMismatch {
        /// The group.
        group: BackupGroup,
        /// From which namespace.
        from: Namespace,
        /// To which namespace.
        to: Namespace,
        /// Who owns it in the former.
        from_owner: AuthId,
        /// Who owns it in the latter.
        to_owner: AuthId,
    },
    /// Snapshots of the source are not newer than those of the target.
    #[error("cannot merge group '{group}' from '{from}' into '{to}': snapshot time mismatch")]
    TimeMismatch {
        /// The group.
        group: BackupGroup,
        /// From which namespace.
        from: Namespace,
        /// To which namespace.
        to: Namespace,
    },
    /// Some groups of a namespace stay where they are.
    #[error("{}", namespace::partial(.failed, .busy))]
    Partial {
        /// Those that cannot be moved.
        failed: Vec<(Namespace, BackupGroup)>,
        /// Those that are in use.
        busy: Vec<(Namespace, BackupGroup)>,
    },
}

impl Datastore {
    /// Whether a group could be moved; takes no locks, so that the answer can be wrong when the move begins.
    ///
    /// # Errors
    /// [`MoveRefusal`].
    pub fn check_group_move(
        &self,
        from: &Namespace,
        group: &BackupGroup,
        to: &Namespace,
        merge: bool,
    ) -> Result<()> {
        let named = |namespace: &Namespace| (group.clone(), namespace.clone());
        if from == to {
            return Err(MoveRefusal::SameNamespace.into());
        }
        if !self.namespace_exists(to) {
            return Err(MoveRefusal::NoTarget(to.clone()).into());
        }
        if !self.group_exists(from, group) {
            let (group, namespace) = named(from);
            return Err(MoveRefusal::NoGroup { group, namespace }.into());
        }
        if !merge && self.group_exists(to, group) {
            let (group, namespace) = named(to);
            return Err(MoveRefusal::GroupExists { group, namespace }.into());
        }
        if to != from {
            let times = self.snapshot_times(from, group)?;
            self.check_locks_of_move(from, group, to, &times)?;
        }
        Ok(())
    }

    /// Moves a group with its owner, notes and snapshots to another namespace, which must exist. A group of that name there gets
    /// the snapshots when `merge` is set, both have the same owner, and all snapshots that come are newer than those it has; it
    /// keeps its own notes if it has any.
    ///
    /// # Errors
    /// [`MoveRefusal`]; the group is in use at one of the places, or a snapshot is; the disk fails. Merging can stop half-way:
    /// the older snapshots have then moved, the newer ones have not, and moving again moves the rest.
    pub fn move_group(
        &self,
        from: &Namespace,
        group: &BackupGroup,
        to: &Namespace,
        merge: bool,
        log: &dyn TaskLog,
    ) -> Result<()> {
        self.check_present()?;
        let lock = self.lock_group(from, group)?;
        if let Err(error) = self.check_group_move(from, group, to, merge) {
            if !self.group_exists(from, group) {
                lock.remove();
            }
            return Err(error);
        }
        let _target_lock = self.lock_group(to, group)?;
        let merging = self.group_exists(to, group);
        if merging && !merge {
            let (group, namespace) = (group.clone(), to.clone());
            return Err(MoveRefusal::GroupExists { group, namespace }.into());
        }
        let verb = if merging { "merging" } else { "moving" };
        log.info(&format!("{verb} group '{group}' from '{from}' to '{to}'"));
        let mut times = self.snapshot_times(from, group)?;
        times.reverse();
        let relocation = Relocation {
            datastore: self,
            permit: self.permit_move(from, group, to, times)?,
        };
        let times = &relocation.permit.times;
        if !merging && times.len() <= MAX_LOCKED {
            relocation.whole()?;
            lock.remove();
            return Ok(());
        }
        if merging {
            relocation.check_merge(log)?;
        } else {
            relocation.create_target()?;
        }
        for batch in times.chunks(MAX_LOCKED) {
            relocation.batch(batch, log)?;
        }
        relocation.notes(log)?;
        drop(relocation);
        let path = self.group_path(from, group);
        log.info(&format!("removing backup group {path:?}"));
        self.remove_group_dir(from, group, lock)
    }
}

/// A group on its way, locked at both places.
struct Relocation<'a> {
    datastore: &'a Datastore,
    permit: MovePermit<'a>,
}

/// A snapshot that nobody else uses.
struct LockedSnapshot {
    snapshot: Snapshot,
    lock: FileLock,
}

impl Relocation<'_> {
    /// Moves the directory of the group as it is.
    fn whole(&self) -> Result<()> {
        let snapshots = self.lock(&self.permit.times)?;
        self.note_indexes(&snapshots)?;
        let old = self
            .datastore
            .group_path(self.permit.from, self.permit.group);
        let new = self.datastore.group_path(self.permit.to, self.permit.group);
        create_parent(&new)?;
        self.datastore
            .announce_removal(self.permit.from, self.permit.group);
        rename(&old, &new)?;
        for locked in snapshots {
            self.release_moved(locked);
        }
        Ok(())
    }

    /// Moves some snapshots into the group at the target.
    fn batch(&self, times: &[BackupTime], log: &dyn TaskLog) -> Result<()> {
        let snapshots = self.lock(times)?;
        self.note_indexes(&snapshots)?;
        for locked in snapshots {
            if log.is_aborted() {
                return Err(DatastoreError::Aborted);
            }
            rename(
                &self
                    .datastore
                    .snapshot_path(self.permit.from, &locked.snapshot),
                &self
                    .datastore
                    .snapshot_path(self.permit.to, &locked.snapshot),
            )?;
            self.release_moved(locked);
        }
        Ok(())
    }

    fn lock(&self, times: &[BackupTime]) -> Result<Vec<LockedSnapshot>> {
        times
            .iter()
            .map(|time| {
                let snapshot = self.permit.group.snapshot(*time);
                let lock = self.datastore.lock_snapshot(
                    self.permit.from,
                    &snapshot,
                    LockMode::Exclusive,
                )?;
                Ok(LockedSnapshot { snapshot, lock })
            })
            .collect()
    }

    /// Tells garbage collections where the indexes will be.
    fn note_indexes(&self, snapshots: &[LockedSnapshot]) -> Result<()> {
        let mut indexes = Vec::new();
        for LockedSnapshot { snapshot, .. } in snapshots {
            let dir = self.datastore.snapshot_path(self.permit.to, snapshot);
            let files = self
                .datastore
                .snapshot_info(self.permit.from, snapshot)?
                .files;
            indexes.extend(
                files
                    .iter()
                    .filter(|file| file.ends_with(".fidx") || file.ends_with(".didx"))
                    .map(|file| dir.join(file)),
            );
        }
        move_journal::append(self.datastore, &indexes)
    }

    /// Removes the lock files of a snapshot that is no longer at the source.
    fn release_moved(&self, LockedSnapshot { snapshot, lock }: LockedSnapshot) {
        // A manifest is changed under the lock of its snapshot only, so nobody holds this one.
        let _ = std::fs::remove_file(self.datastore.locks.manifest(self.permit.from, &snapshot));
        lock.remove();
    }

    fn check_merge(&self, log: &dyn TaskLog) -> Result<()> {
        let times = &self.permit.times;
        let from_owner = self.datastore.owner(self.permit.from, self.permit.group)?;
        let to_owner = self.datastore.owner(self.permit.to, self.permit.group)?;
        let (group, from, to) = (
            self.permit.group.clone(),
            self.permit.from.clone(),
            self.permit.to.clone(),
        );
        if from_owner != to_owner {
            return Err(MoveRefusal::OwnerMismatch {
                group,
                from,
                to,
                from_owner,
                to_owner,
            }
            .into());
        }
        let newest = self
            .datastore
            .snapshot_times(self.permit.to, self.permit.group)?
            .into_iter()
            .next();
        match (times.first(), newest) {
            (Some(oldest), Some(newest)) if newest >= *oldest => {
                log.info(&format!("oldest source snapshot: {oldest}"));
                log.info(&format!("conflicting target snapshot: {newest}"));
                Err(MoveRefusal::TimeMismatch { group, from, to }.into())
            }
            _ => Ok(()),
        }
    }

    /// Makes the group at the target, empty, for the same owner.
    fn create_target(&self) -> Result<()> {
        let owner = self.datastore.owner(self.permit.from, self.permit.group)?;
        let path = self.datastore.group_path(self.permit.to, self.permit.group);
        ownership::create_dir_all(&path, 0o755)
            .map_err(DatastoreError::io("create group directory", &path))?;
        crate::atomic_file::replace(&path.join(OWNER), format!("{owner}\n").as_bytes(), false)
    }

    fn notes(&self, log: &dyn TaskLog) -> Result<()> {
        let Some(notes) = self
            .datastore
            .group_notes(self.permit.from, self.permit.group)?
        else {
            return Ok(());
        };
        match self
            .datastore
            .group_notes(self.permit.to, self.permit.group)?
        {
            None => rename(
                &self.notes_path(self.permit.from),
                &self.notes_path(self.permit.to),
            ),
            Some(kept) => {
                if kept != notes {
                    log.warn(&format!(
                        "group notes differ during merge of '{}' from '{}' into '{}' - keeping target's notes",
                        self.permit.group, self.permit.from, self.permit.to
                    ));
                }
                Ok(())
            }
        }
    }

    fn notes_path(&self, namespace: &Namespace) -> PathBuf {
        self.datastore
            .group_path(namespace, self.permit.group)
            .join(NOTES)
    }
}

fn create_parent(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    match ownership::create_dir(parent, 0o755) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(DatastoreError::io("create directory", parent)),
    }
}

fn rename(old: &Path, new: &Path) -> Result<()> {
    std::fs::rename(old, new).map_err(DatastoreError::io("move here", new))
}

#[cfg(test)]
mod tests;
