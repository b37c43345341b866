//! What a pull would do. Nothing at the target or of what is remembered is touched, and no chunk is fetched.
//!
//! It shows what the lists of the source tell: which groups and snapshots would come, which groups belong to somebody else, and
//! what would be removed. What only a manifest tells (a filter that it does not pass, another content) shows in a run.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use backstop_datastore::DatastoreError;
use backstop_types::{BackupGroup, BackupTime, GroupFilter, Namespace, Privileges};

use super::error::{Result, SyncError};
use super::group::owner_fault;
use super::namespaces::{self, named};
use super::pull::Run;
use super::selection::{Present, skipped};
use super::source::Listed;
use super::vanished::may_remove;

/// What would be done.
#[derive(Default)]
struct Count {
    groups: AtomicU64,
    snapshots: AtomicU64,
    removed: AtomicU64,
}

/// What is at the target of a group.
struct Here {
    present: Present,
    times: Vec<BackupTime>,
    /// Who else it belongs to.
    fault: Option<SyncError>,
}

/// Tells what a pull would do.
///
/// # Errors
/// The source does not show its namespaces, or they do not fit below the target.
pub(super) async fn tell(run: &Run) -> Result<()> {
    let mut namespaces = run.namespaces().await?;
    run.mapping
        .check_depth(&namespaces)
        .map_err(SyncError::Broken)?;
    namespaces::sort(&mut namespaces);
    let count = Count::default();
    for namespace in &namespaces {
        run.task.log("----");
        if let Err(error) = tell_namespace(run, namespace, &count).await {
            run.failed(&format!("Cannot sync {} - {error}", named(namespace)));
        }
    }
    if run.config.remove_vanished {
        tell_vanished_namespaces(run, &namespaces).await?;
    }
    let total = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    run.task.log(format!(
        "Summary: dry run: {} snapshots of {} groups would be copied, {} removed; nothing was changed",
        total(&count.snapshots),
        total(&count.groups),
        total(&count.removed)
    ));
    Ok(())
}

async fn tell_namespace(run: &Run, source: &Namespace, count: &Count) -> Result<()> {
    let target = run.mapping.map(source).map_err(SyncError::Content)?;
    let (from, to) = (&run.config.remote_store, &run.config.store);
    run.task.log(format!(
        "Would sync datastore '{from}', {} into datastore '{to}', {}",
        named(source),
        named(&target)
    ));
    let ns = target.clone();
    let exists = run
        .target
        .work(move |store| Ok(store.namespace_exists(&ns)));
    if exists.await? {
        run.require(&target, Privileges::DATASTORE_BACKUP)?;
    } else {
        let parent = target.parent().unwrap_or_else(Namespace::root);
        run.require(&parent, Privileges::DATASTORE_MODIFY)?;
        run.task.log(format!("Would create namespace {target}"));
    }
    let listed = run.source.groups(source).await?;
    let mut groups: Vec<BackupGroup> = listed.iter().map(|listed| listed.group.clone()).collect();
    groups.retain(|group| GroupFilter::selects(&run.config.group_filter, group));
    groups.sort();
    groups.dedup();
    run.task.log(format!(
        "Found {} groups to sync (out of {} total)",
        groups.len(),
        listed.len()
    ));
    let mut lists = run.lists(source, &listed).await;
    for group in &groups {
        let listed = match &mut lists {
            Some(lists) => lists.remove(group).unwrap_or_default(),
            None => run.source.snapshots(source, group).await?,
        };
        if let Err(error) = tell_group(run, &target, group, &listed, count).await {
            run.failed(&format!("sync group {group} would fail - {error}"));
        }
    }
    if !run.config.remove_vanished {
        return Ok(());
    }
    let ns = target.clone();
    let at_source: HashSet<&BackupGroup> = listed.iter().map(|listed| &listed.group).collect();
    for group in run.target.work(move |store| store.groups(&ns)).await? {
        if !at_source.contains(&group) && may_remove(run, &target, &group).await? {
            run.task
                .log(format!("Would delete vanished group '{group}'"));
            count.removed.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

async fn tell_group(
    run: &Run,
    target: &Namespace,
    group: &BackupGroup,
    listed: &[Listed],
    count: &Count,
) -> Result<()> {
    let here = look(run, target, group).await?;
    if let Some(fault) = here.fault {
        return Err(fault);
    }
    let log = |text: String| run.task.log(format!("[{group}]: {text}"));
    let plan = run.rules.plan(listed, &here.present);
    for (times, reason) in plan.left_out() {
        if let Some(text) = skipped(times, reason) {
            log(text);
        }
    }
    let new = plan.pull.iter();
    let new = new.filter(|time| here.present.last != Some(**time));
    let mut copied = 0;
    for time in new {
        log(format!("would copy snapshot {time}"));
        copied += 1;
    }
    count.snapshots.fetch_add(copied, Ordering::Relaxed);
    count
        .groups
        .fetch_add(u64::from(copied > 0), Ordering::Relaxed);
    if run.config.remove_vanished {
        let at_source: HashSet<BackupTime> = listed.iter().map(|item| item.snapshot.time).collect();
        for time in here.times.iter().filter(|time| !at_source.contains(time)) {
            log(format!("would delete vanished snapshot {time}"));
            count.removed.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// What is at the target; of snapshots that would go, only those that may.
async fn look(run: &Run, namespace: &Namespace, group: &BackupGroup) -> Result<Here> {
    let (ns, own, owner) = (namespace.clone(), group.clone(), run.owner.clone());
    let (store_name, fault_ns) = (run.config.store.clone(), namespace.clone());
    run.target
        .work(move |store| {
            let fault = match store.owner(&ns, &own) {
                Ok(found) if found == owner => None,
                Ok(found) => Some(owner_fault(&owner, &found, &store_name, &fault_ns, &own)),
                Err(DatastoreError::NoSuchGroup(_)) => None,
                Err(error) => return Err(error),
            };
            let mut times = store.snapshot_times(&ns, &own)?;
            let present = Present {
                last: store.last_finished(&ns, &own)?.map(|last| last.time),
                ..Present::default()
            };
            times.retain(|time| {
                let snapshot = own.snapshot(*time);
                let is_locked = store.retention_locked(&ns, &snapshot);
                !store.is_protected(&ns, &snapshot) && matches!(is_locked, Ok(None))
            });
            Ok(Here {
                present,
                times,
                fault,
            })
        })
        .await
}

async fn tell_vanished_namespaces(run: &Run, source: &[Namespace]) -> Result<()> {
    let synced: Vec<Namespace> = source
        .iter()
        .filter_map(|ns| run.mapping.map(ns).ok())
        .collect();
    for namespace in super::vanished::namespaces(run, &synced).await? {
        run.task
            .log(format!("Would remove vanished namespace {namespace}"));
    }
    Ok(())
}
