//! One group: its lock, its owner, and its snapshots one after the other, oldest first.

use std::collections::{BTreeSet, HashSet};
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backstop_datastore::{Datastore, DatastoreError, FileLock};
use backstop_format::Digest;
use backstop_format::blob::MAX_BLOB_SIZE;
use backstop_format::manifest::VerifyResult;
use backstop_types::{
    ArchiveName, AuthId, BackupGroup, BackupTime, DatastoreName, Namespace, Snapshot,
};
use jiff::Timestamp;
use tokio::time::Instant;

use super::chunks::GroupChunks;
use super::compared::Sides;
use super::error::{Result, SyncError};
use super::fetched::Record;
use super::place::Place;
use super::pull::Run;
use super::selection::{Plan, Present, skipped};
use super::snapshot::{self, Outcome};
use super::source::Listed;

/// How long to wait for a group that something else works on.
pub(super) const GROUP_WAIT: Duration = Duration::from_secs(60);
/// Pause between two attempts.
pub(super) const PAUSE: Duration = Duration::from_millis(250);

/// A group that is being pulled.
pub(super) struct GroupPull<'a> {
    pub run: &'a Run,
    pub place: &'a Place<'a>,
    pub group: &'a BackupGroup,
    pub chunks: GroupChunks,
}

impl<'a> GroupPull<'a> {
    /// Pulls what is new of a group; `listed` is what the source lists of it, where that is known already. Errors of single
    /// snapshots are noted in the report.
    ///
    /// # Errors
    /// The group could not be pulled, or not to its end.
    pub async fn run(
        run: &'a Run,
        place: &'a Place<'a>,
        group: &'a BackupGroup,
        listed: Option<Vec<Listed>>,
    ) -> Result<()> {
        let listed = match listed {
            Some(listed) => listed,
            None => {
                let listed = run.source.snapshots(place.source, group).await;
                listed.inspect_err(|_| run.report.unseen())?
            }
        };
        let locked = lock(run, place, group).await;
        let locked = locked.and_then(|locked| {
            check_owner(run, place, group, &locked.owner)?;
            Ok(locked)
        });
        let locked = match locked {
            Ok(locked) => locked,
            Err(error) => {
                note_untouched(run, place, group, &listed).await;
                return Err(error);
            }
        };
        let done = Self::pull(run, place, group, &listed).await;
        if !locked.is_new {
            return done;
        }
        let (ns, own) = (place.target.clone(), group.clone());
        let tidied = run
            .target
            .work(move |store| store.remove_group_without_snapshots(&ns, &own, locked.lock));
        let tidied = tidied.await.map(|_| ());
        done.and(tidied)
    }

    async fn pull(
        run: &'a Run,
        place: &'a Place<'a>,
        group: &'a BackupGroup,
        listed: &[Listed],
    ) -> Result<()> {
        let (present, chunks) = look(run, place, group, listed).await?;
        let pull = Self {
            run,
            place,
            group,
            chunks,
        };
        let plan = run.rules.plan(listed, &present);
        pull.tell(&plan);
        let (missed, stopped) = pull.snapshots(&plan, &present, listed).await;
        let (record, times) = (Arc::clone(&pull.chunks.record), missed.clone());
        let is_complete = missed.is_empty() && stopped.is_none();
        let closed = run.target.work(move |_| {
            if let Err(error) = record.close(&times, is_complete) {
                tracing::warn!(%error, "unable to note what is left to sync");
            }
            Ok(())
        });
        closed.await?;
        if let Some(error) = stopped {
            return Err(error);
        }
        // Nothing is removed while something that may replace it could not be had.
        if run.config.remove_vanished && missed.is_empty() {
            super::vanished::remove_snapshots(&pull, listed).await?;
        }
        Ok(())
    }

    /// Writes to the log.
    pub fn log(&self, text: impl std::fmt::Display) {
        self.run.task.log(format!("[{}]: {text}", self.group));
    }

    fn tell(&self, plan: &Plan) {
        for time in &plan.unfinished {
            let snapshot = self.group.snapshot(*time);
            self.log(format!("skipping snapshot {snapshot} - in-progress backup"));
        }
        let group = self.group;
        for (times, reason) in plan.left_out() {
            if let Some(text) = skipped(times, reason) {
                self.log(format!("{group}: {text}"));
            }
        }
    }

    /// Pulls the snapshots of a plan. Returns those that could not be had, and why the rest was not tried, if that is so.
    async fn snapshots(
        &self,
        plan: &Plan,
        present: &Present,
        listed: &[Listed],
    ) -> (BTreeSet<BackupTime>, Option<SyncError>) {
        let mut missed = BTreeSet::new();
        let total = plan.pull.len();
        for (number, time) in plan.pull.iter().enumerate() {
            let snapshot = self.group.snapshot(*time);
            let report = &self.run.report;
            match self.snapshot(&snapshot, present, listed).await {
                Ok(outcome) => {
                    report.snapshots.fetch_add(1, Ordering::Relaxed);
                    if outcome == Outcome::Copied {
                        report.copied.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(error) if error.is_of_one_snapshot() => {
                    let text = format!("sync snapshot {snapshot} failed - {error}");
                    report.failed(&text);
                    self.log(text);
                    report.missing([*time]);
                    missed.insert(*time);
                }
                Err(error) => {
                    let untried = plan.pull.iter().skip(number);
                    report.missing(
                        untried
                            .clone()
                            .copied()
                            .filter(|time| present.last != Some(*time)),
                    );
                    // Those that an earlier run has missed are still missed.
                    missed.extend(untried.filter(|time| present.retry.contains(time)));
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

    /// Pulls a snapshot, unless it is known to be the same.
    async fn snapshot(
        &self,
        snapshot: &Snapshot,
        present: &Present,
        listed: &[Listed],
    ) -> Result<Outcome> {
        let (time, now) = (snapshot.time, Timestamp::now().as_second());
        let is_corrupt = present.corrupt.contains(&time);
        let listed = listed.iter().find(|listed| listed.snapshot.time == time);
        let mark = listed.and_then(|listed| listed.mark);
        let compared = self.run.compared.as_ref().zip(mark);
        let (ns, group) = (self.place.target, self.group);
        if let (Some((compared, listed)), Some(manifest)) = (compared, present.manifest)
            && !is_corrupt
            && compared.is_same(ns, group, time, Sides { listed, manifest }, now)
        {
            self.log(format!("{time}: no data changes"));
            return Ok(Outcome::Same);
        }
        let outcome = snapshot::pull(self, snapshot, is_corrupt).await?;
        if let Some((compared, listed)) = compared
            && outcome != Outcome::Left
        {
            let (ns, own) = (ns.clone(), snapshot.clone());
            let manifest = self
                .run
                .target
                .work(move |store| Ok(manifest(store, &ns, &own)));
            if let Some(manifest) = manifest.await? {
                compared.note(
                    self.place.target,
                    group,
                    time,
                    Sides { listed, manifest },
                    now,
                );
            }
        }
        Ok(outcome)
    }
}

/// A group that nobody else works on.
struct LockedGroup {
    owner: AuthId,
    lock: FileLock,
    /// Whether it was made just now.
    is_new: bool,
}

/// Locks a group, which is made if it is missing. Waits for whatever else works on it, for a while.
async fn lock(run: &Run, place: &Place<'_>, group: &BackupGroup) -> Result<LockedGroup> {
    let start = Instant::now();
    let mut is_told = false;
    loop {
        let (ns, own, owner) = (place.target.clone(), group.clone(), run.owner.clone());
        let locked = run.target.work(move |store| {
            let is_new = !store.group_exists(&ns, &own);
            let (owner, lock) = store.create_group_locked(&ns, &own, &owner)?;
            Ok(LockedGroup {
                owner,
                lock,
                is_new,
            })
        });
        let locked = locked.await;
        match locked {
            Err(SyncError::Target(DatastoreError::Locked { .. }))
                if start.elapsed() < GROUP_WAIT =>
            {
                if !is_told {
                    is_told = true;
                    let seconds = GROUP_WAIT.as_secs();
                    run.task.log(format!(
                        "[{group}]: something else works on this group; waiting for it, at most {seconds} seconds"
                    ));
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(SyncError::Broken(format!("group lock failed: {error}"))),
            Ok(locked) => return Ok(locked),
        }
    }
}

fn check_owner(run: &Run, place: &Place<'_>, group: &BackupGroup, found: &AuthId) -> Result<()> {
    let owner = &run.owner;
    if owner == found {
        return Ok(());
    }
    let store = &run.config.store;
    Err(owner_fault(owner, found, store, place.target, group))
}

/// What is wrong with a group that belongs to somebody else than the owner of the job.
pub(super) fn owner_fault(
    owner: &AuthId,
    found: &AuthId,
    store: &DatastoreName,
    namespace: &Namespace,
    group: &BackupGroup,
) -> SyncError {
    let ns = super::namespaces::named(namespace);
    SyncError::Broken(format!(
        "owner check failed ({owner} != {found}): in the {ns} of datastore '{store}' the group {group} belongs to '{found}', \
         and this sync may only write to groups of '{owner}'; sync into a namespace of its own (--ns), \
         or give the group to '{owner}' (change-owner)"
    ))
}

/// What the target has of a group.
async fn look(
    run: &Run,
    place: &Place<'_>,
    group: &BackupGroup,
    listed: &[Listed],
) -> Result<(Present, GroupChunks)> {
    let (ns, own) = (place.target.clone(), group.clone());
    let times: HashSet<BackupTime> = listed.iter().map(|item| item.snapshot.time).collect();
    let resync = run.config.resync_corrupt;
    let (records, store_name) = (run.records.clone(), run.config.store.clone());
    let source = format!("{}/{}", run.source_name, place.source);
    let compares = run.compared.is_some();
    run.target
        .work(move |store| {
            let record = Record::open(&records, &store_name, &ns, &own, &source);
            let record = record.map_err(|source| DatastoreError::Io {
                attempt: "read what is left to sync in",
                path: records,
                source,
            })?;
            let last = store.last_finished(&ns, &own)?;
            let manifest = match &last {
                Some(last) if compares => manifest(store, &ns, last),
                _ => None,
            };
            let mut corrupt = HashSet::new();
            for time in store.snapshot_times(&ns, &own)? {
                if !resync || !times.contains(&time) {
                    continue;
                }
                let is_corrupt = match store.load_manifest(&ns, &own.snapshot(time)) {
                    Ok((manifest, _)) => {
                        let verify = manifest.verify_state();
                        verify.is_some_and(|verify| verify.state == VerifyResult::Failed)
                    }
                    // One that was never finished is simply incomplete.
                    Err(DatastoreError::NoSuchFile { .. } | DatastoreError::NoSuchSnapshot(_)) => {
                        false
                    }
                    Err(_) => true,
                };
                if is_corrupt {
                    corrupt.insert(time);
                }
            }
            let present = Present {
                last: last.as_ref().map(|last| last.time),
                corrupt,
                retry: record.retry.clone(),
                manifest,
            };
            Ok((present, GroupChunks::new(last, record)))
        })
        .await
}

/// Of the manifest of a snapshot here as it is stored; `None`: it cannot be read.
fn manifest(store: &Datastore, ns: &Namespace, snapshot: &Snapshot) -> Option<Digest> {
    let name = ArchiveName::MANIFEST.parse().ok()?;
    let file = store.open_file(ns, snapshot, &name).ok()?;
    let mut raw = Vec::new();
    file.take(MAX_BLOB_SIZE as u64).read_to_end(&mut raw).ok()?;
    Some(Digest::of(&raw))
}

/// Counts what is missing of a group that could not be pulled at all.
async fn note_untouched(run: &Run, place: &Place<'_>, group: &BackupGroup, listed: &[Listed]) {
    let (ns, own, owner) = (place.target.clone(), group.clone(), run.owner.clone());
    let last = run.target.work(move |store| match store.owner(&ns, &own) {
        Ok(found) if found == owner => store.last_finished(&ns, &own),
        // What is here comes from elsewhere.
        _ => Ok(None),
    });
    let last = last.await.ok().flatten().map(|last| last.time);
    let missing = run.rules.admitted(listed);
    run.report
        .missing(missing.filter(|time| Some(*time) > last));
}
