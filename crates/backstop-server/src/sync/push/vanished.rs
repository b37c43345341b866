//! Removing at the target what is gone here: snapshots, groups, namespaces.
//!
//! Only what belongs to the account of the remote and passes the group filter is removed, never what is protected, and never
//! what is still here, whatever filter or missing privilege kept it from being pushed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use backstop_types::{BackupGroup, GroupFilter, Namespace, Privileges};

use super::Run;
use super::group::GroupPush;
use super::target::{GroupThere, SnapshotThere};
use crate::sync::error::Result;
use crate::sync::namespaces;
use crate::sync::place::Place;
use crate::sync::source::Listed;

/// The snapshots of a group at the target that are not listed here, protected ones among them.
pub(super) fn snapshots<'a>(
    listed: &[Listed],
    present: &'a [SnapshotThere],
) -> impl Iterator<Item = &'a SnapshotThere> {
    let here: HashSet<_> = listed.iter().map(|item| item.snapshot.time).collect();
    let gone = move |there: &&SnapshotThere| !here.contains(&there.time);
    present.iter().filter(gone)
}

/// Removes the snapshots of a group that are not listed here.
pub(super) async fn remove_snapshots(
    push: &GroupPush<'_>,
    listed: &[Listed],
    present: &[SnapshotThere],
) -> Result<()> {
    let (run, namespace) = (push.run, push.place.target);
    for there in snapshots(listed, present) {
        let snapshot = push.group.snapshot(there.time);
        if there.is_protected {
            push.log(format!("Kept protected snapshot {snapshot} on remote"));
            continue;
        }
        run.require(namespace, Privileges::REMOTE_DATASTORE_PRUNE)?;
        match run.target.remove_snapshot(namespace, &snapshot).await {
            Ok(()) => {
                push.log(format!("Removed vanished snapshot {snapshot} from remote"));
                let count = &run.report.removed_snapshots;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => run.failed(&format!(
                "Failed to remove vanished snapshot {snapshot} from remote - {error}"
            )),
        }
    }
    Ok(())
}

/// Whether a group is one that this job may remove.
pub(super) fn is_removable(run: &Run, group: &BackupGroup, there: &GroupThere) -> bool {
    there.is_own && GroupFilter::selects(&run.config.group_filter, group)
}

/// The groups of a namespace of the target that are not here, and that may be removed.
pub(super) async fn groups(
    run: &Run,
    source: &Namespace,
    there: &HashMap<BackupGroup, GroupThere>,
) -> Result<Vec<BackupGroup>> {
    // All of them, whoever may read them: what is only hidden has not vanished.
    let here: HashSet<_> = run.local.all_groups(source).await?.into_iter().collect();
    let mut vanished: Vec<BackupGroup> = there
        .iter()
        .filter(|(group, there)| !here.contains(*group) && is_removable(run, group, there))
        .map(|(group, _)| group.clone())
        .collect();
    vanished.sort();
    Ok(vanished)
}

/// Removes the groups of a namespace that are not here.
pub(super) async fn remove_groups(
    run: &Run,
    place: &Place<'_>,
    there: &HashMap<BackupGroup, GroupThere>,
) -> Result<()> {
    for group in groups(run, place.source, there).await? {
        if let Err(error) = remove_group(run, place.target, &group).await {
            run.failed(&format!(
                "Failed to remove vanished group {group} from remote - {error}"
            ));
        }
    }
    Ok(())
}

/// Removes a group but for its protected snapshots; returns how many these are.
async fn remove_group(run: &Run, namespace: &Namespace, group: &BackupGroup) -> Result<u64> {
    run.require(namespace, Privileges::REMOTE_DATASTORE_PRUNE)?;
    let stats = run.target.remove_group(namespace, group).await?;
    run.task
        .log(format!("Removed vanished group {group} from remote"));
    if stats.protected_snapshots > 0 {
        run.task.log(format!(
            "Kept {} protected snapshots of group {group} on remote",
            stats.protected_snapshots
        ));
    }
    let report = &run.report;
    for (counter, count) in [
        (&report.removed_snapshots, stats.removed_snapshots),
        (&report.removed_groups, stats.removed_groups),
    ] {
        counter.fetch_add(count, Ordering::Relaxed);
    }
    Ok(stats.protected_snapshots)
}

/// The namespaces below the target's anchor that have no counterpart here, parents first; `there` are all of the target.
pub(super) async fn namespaces(run: &Run, there: Vec<Namespace>) -> Result<Vec<Namespace>> {
    let (anchor, depth) = (&run.mapping.target, run.config.max_depth);
    let here: HashSet<Namespace> = run
        .local
        .namespaces(&run.mapping.source, None)
        .await?
        .iter()
        .filter_map(|namespace| run.mapping.map(namespace).ok())
        .collect();
    let mut vanished: Vec<Namespace> = there
        .into_iter()
        .filter(|namespace| {
            let below = namespace.depth().saturating_sub(anchor.depth());
            anchor.contains(namespace)
                && namespace != anchor
                && depth.is_none_or(|depth| below <= depth)
                && !here.contains(namespace)
        })
        .collect();
    namespaces::sort(&mut vanished);
    Ok(vanished)
}

/// Removes them.
pub(super) async fn remove_namespaces(run: &Run, there: Vec<Namespace>) -> Result<()> {
    for namespace in namespaces(run, there).await?.iter().rev() {
        match remove_namespace(run, namespace).await {
            Ok(None) => {
                run.task.log(format!(
                    "Successfully removed vanished namespace {namespace} from remote"
                ));
                let count = &run.report.removed_namespaces;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Some(kept)) => run.task.log(format!(
                "Did not remove namespace {namespace} from remote - {kept} remain"
            )),
            Err(error) => run.failed(&format!(
                "Failed to remove vanished namespace {namespace} from remote - {error}"
            )),
        }
    }
    Ok(())
}

/// Removes a namespace with the groups that may be removed. Returns what keeps it from going.
async fn remove_namespace(run: &Run, namespace: &Namespace) -> Result<Option<&'static str>> {
    run.require(namespace, Privileges::REMOTE_DATASTORE_MODIFY)?;
    let mut kept = None;
    let mut groups: Vec<_> = run.target.groups(namespace).await?.into_iter().collect();
    groups.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (group, there) in groups {
        if !is_removable(run, &group, &there) {
            kept.get_or_insert("groups of other owners, or that the group filter leaves out,");
        } else if remove_group(run, namespace, &group).await? > 0 {
            kept.get_or_insert("protected snapshots");
        }
    }
    if kept.is_some() {
        return Ok(kept);
    }
    let below = run.target.namespaces().await?;
    let has_some_below = below
        .iter()
        .any(|other| other != namespace && namespace.contains(other));
    if has_some_below {
        return Ok(Some("namespaces below it"));
    }
    run.target.remove_empty_namespace(namespace).await?;
    Ok(None)
}
