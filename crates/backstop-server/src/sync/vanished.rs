//! Removing at the target what is gone at the source: snapshots, groups, namespaces.
//!
//! Only what belongs to the owner of the job and passes its group filter is removed, never what is protected or under a
//! retention lock, and never what
//! the source still has, whatever filter kept it from being pulled.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use backstop_datastore::DatastoreError;
use backstop_types::record::DeleteStats;
use backstop_types::{BackupGroup, BackupTime, GroupFilter, Namespace, Privileges};

use super::error::{Result, SyncError};
use super::group::GroupPull;
use super::place::Place;
use super::pull::Run;
use super::source::Listed;

/// Removes the snapshots of a group that the source does not list. The group is locked.
pub(super) async fn remove_snapshots(group: &GroupPull<'_>, listed: &[Listed]) -> Result<()> {
    let at_source: HashSet<BackupTime> = listed.iter().map(|item| item.snapshot.time).collect();
    let (ns, own) = (group.place.target.clone(), group.group.clone());
    let times = group
        .run
        .target
        .work(move |store| store.snapshot_times(&ns, &own));
    let mut gone = times.await?;
    gone.retain(|time| !at_source.contains(time));
    if gone.is_empty() {
        return Ok(());
    }
    // The list may be hours old; what is removed is not there now.
    let listed = group.run.source.snapshots(group.place.source, group.group);
    let listed = listed.await?;
    let at_source: HashSet<BackupTime> = listed.iter().map(|item| item.snapshot.time).collect();
    gone.retain(|time| !at_source.contains(time));
    for time in gone {
        let snapshot = group.group.snapshot(time);
        let (ns, own) = (group.place.target.clone(), snapshot.clone());
        let removed = group.run.target.work(move |store| {
            if store.is_protected(&ns, &own) {
                return Err(DatastoreError::Protected(own));
            }
            store.remove_snapshot_of_locked_group(&ns, &own)
        });
        match removed.await {
            Ok(()) => {
                group.log(format!("delete vanished snapshot {snapshot}"));
                let count = &group.run.report.removed_snapshots;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(SyncError::Target(DatastoreError::Protected(_))) => {
                let own = group.group;
                group.log(format!(
                    "{own}: don't delete vanished snapshot {snapshot} (protected)"
                ));
            }
            Err(SyncError::Target(DatastoreError::RetentionLocked(locked))) => {
                group.log(format!("don't delete vanished snapshot: {locked}"));
            }
            Err(error) => {
                return Err(SyncError::Broken(format!(
                    "unable to remove vanished snapshot {snapshot} - {error}"
                )));
            }
        }
    }
    Ok(())
}

/// Removes the groups of a namespace that the source does not have.
pub(super) async fn remove_groups(
    run: &Run,
    place: &Place<'_>,
    at_source: &[BackupGroup],
) -> Result<()> {
    let namespace = place.target;
    let ns = namespace.clone();
    let at_source: HashSet<&BackupGroup> = at_source.iter().collect();
    let mut gone = run.target.work(move |store| store.groups(&ns)).await?;
    gone.retain(|group| !at_source.contains(group));
    if gone.is_empty() {
        return Ok(());
    }
    // The list may be hours old; what is removed is not there now.
    let listed = run.source.groups(place.source).await?;
    let at_source: HashSet<&BackupGroup> = listed.iter().map(|listed| &listed.group).collect();
    gone.retain(|group| !at_source.contains(group));
    for group in gone {
        if !may_remove(run, namespace, &group).await? {
            continue;
        }
        match remove_group(run, namespace, &group).await {
            Ok(_) => {}
            Err(SyncError::Target(DatastoreError::RetentionLocked(locked))) => {
                run.task.log(format!("Kept group '{group}': {locked}"));
            }
            Err(error) => run.failed(&format!("delete vanished group {group} failed - {error}")),
        }
    }
    Ok(())
}

/// Whether a group belongs to the owner of the job, and is one that the job is about.
pub(super) async fn may_remove(
    run: &Run,
    namespace: &Namespace,
    group: &BackupGroup,
) -> Result<bool> {
    if !GroupFilter::selects(&run.config.group_filter, group) {
        return Ok(false);
    }
    let (ns, own, owner) = (namespace.clone(), group.clone(), run.owner.clone());
    run.target
        .work(move |store| {
            let found = store.owner(&ns, &own);
            Ok(found.is_ok_and(|found| owner.owns(&found)))
        })
        .await
}

/// Removes a group but for its protected snapshots.
async fn remove_group(
    run: &Run,
    namespace: &Namespace,
    group: &BackupGroup,
) -> Result<DeleteStats> {
    run.task.log(format!("Delete vanished group '{group}'"));
    let (ns, own) = (namespace.clone(), group.clone());
    let removed = run.target.work(move |store| store.remove_group(&ns, &own));
    let stats = removed.await?;
    let report = &run.report;
    for (counter, count) in [
        (&report.removed_snapshots, stats.removed_snapshots),
        (&report.removed_groups, stats.removed_groups),
    ] {
        counter.fetch_add(count, Ordering::Relaxed);
    }
    if stats.protected_snapshots > 0 {
        run.task
            .log(format!("Kept some protected snapshots of group '{group}'"));
    }
    Ok(stats)
}

/// The namespaces of the target that have no counterpart at the source, parents before their children.
pub(super) async fn namespaces(run: &Run, synced: &[Namespace]) -> Result<Vec<Namespace>> {
    let anchor = run.mapping.target.clone();
    let depth = run.config.max_depth;
    let found = run.target.work({
        let anchor = anchor.clone();
        move |store| match store.namespace_exists(&anchor) {
            true => store.namespaces(&anchor, depth),
            false => Ok(Vec::new()),
        }
    });
    let mut found = found.await?;
    found.retain(|ns| {
        let is_visible = run.is_granted(ns, Privileges::DATASTORE_BACKUP)
            || run.is_granted(ns, Privileges::DATASTORE_AUDIT);
        is_visible && !ns.is_root() && *ns != anchor && !synced.contains(ns)
    });
    super::namespaces::sort(&mut found);
    Ok(found)
}

/// Removes the namespaces of the target that have no counterpart at the source.
pub(super) async fn remove_namespaces(run: &Run, synced: &[Namespace]) -> Result<()> {
    for namespace in namespaces(run, synced).await?.iter().rev() {
        match remove_namespace(run, namespace).await {
            Ok(None) => {
                run.task.log(format!("Removed namespace {namespace}"));
                let count = &run.report.removed_namespaces;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Some(reason)) => run.task.log(format!(
                "Did not remove namespace {namespace} - {reason} remain"
            )),
            Err(error) => {
                run.failed(&format!("Failed to remove namespace {namespace} - {error}"));
            }
        }
    }
    Ok(())
}

/// Removes a namespace with the groups that may be removed. Returns what keeps it from going.
async fn remove_namespace(run: &Run, namespace: &Namespace) -> Result<Option<&'static str>> {
    let parent = namespace.parent().unwrap_or_else(Namespace::root);
    run.require(&parent, Privileges::DATASTORE_MODIFY)?;
    let ns = namespace.clone();
    let mut kept = None;
    for group in run.target.work(move |store| store.groups(&ns)).await? {
        if !may_remove(run, namespace, &group).await? {
            kept.get_or_insert("groups of other owners, or that the group filter leaves out,");
            continue;
        }
        match remove_group(run, namespace, &group).await {
            Err(SyncError::Target(DatastoreError::RetentionLocked(locked))) => {
                run.task.log(format!("Kept group '{group}': {locked}"));
                kept.get_or_insert("snapshots under a retention lock");
            }
            removed => {
                if removed?.protected_snapshots > 0 {
                    kept.get_or_insert("protected snapshots");
                }
            }
        }
    }
    if kept.is_some() {
        return Ok(kept);
    }
    let ns = namespace.clone();
    let removed = run.target.work(move |store| {
        if store.namespaces(&ns, Some(1))?.len() > 1 {
            return Ok(Some("namespaces below it"));
        }
        let removal = store.remove_namespace(&ns, false)?;
        Ok((!removal.complete).then_some("some of its files"))
    });
    removed.await
}
