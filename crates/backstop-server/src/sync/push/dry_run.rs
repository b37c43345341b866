//! What a push would do. Nothing is sent, made or removed at the target, and nothing here is noted.
//!
//! The target is only asked for its lists, and of the snapshots here only the manifests are read: which snapshots would be sent,
//! which groups there belong to somebody else, what would be made and removed. A damaged chunk shows in a run.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use backstop_types::{BackupGroup, BackupTime, ByteSize, Namespace, Privileges};

use super::group::{present, warn_of_foreign};
use super::snapshot::{Form, form_of, partly_encrypted};
use super::target::GroupThere;
use super::{Run, vanished};
use crate::sync::error::{Result, SyncError};
use crate::sync::namespaces::named;
use crate::sync::selection::{Present, skipped};
use crate::sync::snapshot::{manifest_name, parse_manifest};
use crate::sync::source_local::{is_encrypted, is_verified};

/// What would be done.
#[derive(Default)]
struct Count {
    groups: AtomicU64,
    snapshots: AtomicU64,
    bytes: AtomicU64,
    removed_snapshots: AtomicU64,
    removed_groups: AtomicU64,
    removed_namespaces: AtomicU64,
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// Tells what a push would do.
///
/// # Errors
/// Either side does not show its namespaces, or they do not fit below the target.
pub(super) async fn tell(run: &Run) -> Result<()> {
    let namespaces = run.mapped_namespaces().await?;
    let there = run.target.namespaces().await?;
    let mut made = BTreeSet::new();
    let count = Count::default();
    for namespace in &namespaces {
        run.task.log("----");
        if let Err(error) = tell_namespace(run, namespace, &there, &mut made, &count).await {
            run.failed(&format!("Cannot sync {} - {error}", named(namespace)));
        }
    }
    if run.config.remove_vanished {
        tell_vanished_namespaces(run, there, &count).await?;
    }
    let total = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    run.task.log(format!(
        "Summary: dry run: {} snapshots of {} groups would be sent ({} before what the target has already)",
        total(&count.snapshots),
        total(&count.groups),
        ByteSize::binary(total(&count.bytes)),
    ));
    if run.config.remove_vanished {
        run.task.log(format!(
            "Summary: dry run: would be removed at the target: snapshots: {}, groups: {}, namespaces: {}",
            total(&count.removed_snapshots),
            total(&count.removed_groups),
            total(&count.removed_namespaces),
        ));
    }
    run.task
        .log("Summary: dry run: nothing was sent, nothing was changed");
    Ok(())
}

async fn tell_namespace(
    run: &Run,
    source: &Namespace,
    there: &[Namespace],
    made: &mut BTreeSet<Namespace>,
    count: &Count,
) -> Result<()> {
    let target = run.mapping.map(source).map_err(SyncError::Content)?;
    let (from, to) = (&run.config.store, &run.config.remote_store);
    run.task.log(format!(
        "Would sync datastore '{from}', {} into datastore '{to}', {}",
        named(source),
        named(&target)
    ));
    for missing in super::missing_namespaces(&target, there)? {
        run.require(&target, Privileges::REMOTE_DATASTORE_MODIFY)?;
        if made.insert(missing.clone()) {
            run.task
                .log(format!("Would create namespace {missing} on remote"));
        }
    }
    run.require(&target, Privileges::REMOTE_DATASTORE_BACKUP)?;
    let groups = run.selected_groups(source).await?;
    let groups_there = match made.contains(&target) {
        true => HashMap::new(),
        false => run.target.groups(&target).await?,
    };
    for group in &groups {
        let there = groups_there.get(group);
        let told = tell_group(run, (source, &target), group, there, count);
        if let Err(error) = told.await {
            run.failed(&format!("sync group {group} would fail - {error}"));
        }
    }
    if run.config.remove_vanished {
        for group in vanished::groups(run, source, &groups_there).await? {
            tell_removal(run, &target, &group, count).await?;
        }
    }
    Ok(())
}

async fn tell_group(
    run: &Run,
    (source, target): (&Namespace, &Namespace),
    group: &BackupGroup,
    there: Option<&GroupThere>,
    count: &Count,
) -> Result<()> {
    if there.is_some_and(|there| !there.is_own) {
        warn_of_foreign(run, group);
        return Ok(());
    }
    let log = |text: String| run.task.log(format!("[{group}]: {text}"));
    let listed = run.source.snapshots(source, group).await?;
    let present = match there {
        Some(there) => {
            let needs_all = run.config.remove_vanished;
            present(run, target, group, &listed, there, needs_all).await?
        }
        None => Vec::new(),
    };
    let last = present.iter().rfind(|item| item.is_finished);
    let last = last.map(|item| item.time);
    let at_target = Present {
        last,
        ..Present::default()
    };
    let plan = run.rules.plan(&listed, &at_target).without(last);
    for (times, reason) in plan.left_out() {
        if let Some(text) = skipped(times, reason) {
            log(text);
        }
    }
    let mut sent = 0;
    for time in &plan.pull {
        match look(run, source, group, *time).await {
            Ok(Some((bytes, how))) => {
                let size = ByteSize::binary(bytes);
                log(format!("would send snapshot {time} ({size}{how})"));
                add(&count.bytes, bytes);
                sent += 1;
            }
            Ok(None) => {}
            Err(SyncError::Content(error)) => {
                let snapshot = group.snapshot(*time);
                run.failed(&format!("sync snapshot {snapshot} would fail - {error}"));
            }
            Err(error) => return Err(error),
        }
    }
    add(&count.snapshots, sent);
    add(&count.groups, u64::from(sent > 0));
    if run.config.remove_vanished {
        for gone in vanished::snapshots(&listed, &present) {
            if gone.is_protected {
                continue;
            }
            run.require(target, Privileges::REMOTE_DATASTORE_PRUNE)?;
            let time = gone.time;
            log(format!("would remove vanished snapshot {time} from remote"));
            add(&count.removed_snapshots, 1);
        }
    }
    Ok(())
}

/// How many bytes the files of a snapshot have, and what would become of them. `None`: it would be left out, which is said.
async fn look(
    run: &Run,
    namespace: &Namespace,
    group: &BackupGroup,
    time: BackupTime,
) -> Result<Option<(u64, &'static str)>> {
    let snapshot = group.snapshot(time);
    let left_out = |reason: &str| {
        run.task
            .log(format!("[{group}]: {time}: would be skipped, {reason}"));
        Ok(None)
    };
    let Some(source) = run.source.open(namespace, &snapshot).await? else {
        return left_out("as it has vanished since the start");
    };
    let Some(raw) = source.file(&manifest_name()?).await? else {
        return left_out("as it has vanished since the start");
    };
    let manifest = parse_manifest(raw, &snapshot)?;
    let (verified, encrypted) = (is_verified(&manifest), is_encrypted(&manifest));
    if !run.rules.admit(verified, encrypted) {
        return left_out("did not match verified-only/encrypted-only filter");
    }
    let bytes = manifest.files.iter().map(|file| file.size);
    let bytes = bytes.fold(0, u64::saturating_add);
    let how = match form_of(run.key.as_ref(), &manifest) {
        None => {
            let warning = partly_encrypted(&snapshot);
            run.task.warn(format!("[{group}]: {warning}"));
            return Ok(None);
        }
        Some(Form::Sealed(_)) => ", encrypted on the fly",
        Some(Form::Stored) if encrypted => ", encrypted already",
        Some(Form::Stored) => "",
    };
    Ok(Some((bytes, how)))
}

/// Tells what a removal of a group would remove; returns whether something would be kept.
async fn tell_removal(
    run: &Run,
    namespace: &Namespace,
    group: &BackupGroup,
    count: &Count,
) -> Result<bool> {
    run.require(namespace, Privileges::REMOTE_DATASTORE_PRUNE)?;
    let snapshots = run.target.snapshots(namespace, group).await?;
    let kept = snapshots.iter().filter(|item| item.is_protected).count();
    let removed = (snapshots.len() - kept) as u64;
    add(&count.removed_snapshots, removed);
    if kept > 0 {
        run.task.log(format!(
            "Would remove {removed} snapshots of vanished group {group} from remote, and keep {kept} that are protected"
        ));
        return Ok(true);
    }
    run.task.log(format!(
        "Would remove vanished group {group} from remote ({removed} snapshots)"
    ));
    add(&count.removed_groups, 1);
    Ok(false)
}

async fn tell_vanished_namespaces(run: &Run, there: Vec<Namespace>, count: &Count) -> Result<()> {
    let mut left = there.clone();
    for namespace in vanished::namespaces(run, there).await?.iter().rev() {
        match tell_vanished_namespace(run, namespace, &left, count).await {
            Ok(true) => {
                run.task.log(format!(
                    "Would remove vanished namespace {namespace} from remote"
                ));
                add(&count.removed_namespaces, 1);
                left.retain(|other| other != namespace);
            }
            Ok(false) => run.task.log(format!(
                "Would keep vanished namespace {namespace} on remote, as something remains in it"
            )),
            Err(error) => run.failed(&format!(
                "Removing the vanished namespace {namespace} from remote would fail - {error}"
            )),
        }
    }
    Ok(())
}

/// Tells what of a namespace would be removed; returns whether that is all. `left` are the namespaces that remain so far.
async fn tell_vanished_namespace(
    run: &Run,
    namespace: &Namespace,
    left: &[Namespace],
    count: &Count,
) -> Result<bool> {
    run.require(namespace, Privileges::REMOTE_DATASTORE_MODIFY)?;
    let mut is_empty = !left
        .iter()
        .any(|other| other != namespace && namespace.contains(other));
    let mut groups: Vec<_> = run.target.groups(namespace).await?.into_iter().collect();
    groups.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (group, there) in groups {
        let is_removable = vanished::is_removable(run, &group, &there);
        let is_gone = is_removable && !tell_removal(run, namespace, &group, count).await?;
        is_empty &= is_gone;
    }
    Ok(is_empty)
}
