//! Facts of datastores and of the groups in them.
//!
//! Each datastore is listed on its own threads, and only one listing of it runs at a time: one that hangs, or takes long, holds up
//! neither the others nor the next gathering, which takes what is known from before, with its age.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstop_datastore::{Datastore, DatastoreError, SnapshotInfo};
use backstop_format::manifest::Manifest;
use backstop_health::facts::{
    DatastoreFacts, Facts, GroupFacts, ListingFacts, Reachable, SnapshotFacts,
};
use backstop_health::{Held, Learnt};
use backstop_types::record::{DatastoreConfig, VerifyState};
use backstop_types::{
    ArchiveName, BackupGroup, BackupTime, DatastoreName, Namespace, Operation, Upid,
};
use jiff::Timestamp;
use parking_lot::{Condvar, Mutex};
use serde::Deserialize;
use serde_json::Value;

use crate::api::admin::datastore::snapshot_summary;
use crate::datastores;
use crate::http::error::chain;
use crate::server::Server;

/// How long a gathering waits for all listings together.
const PATIENCE: Duration = Duration::from_secs(8);
/// Unasked, a datastore is listed for at most one part in this of the time: where looking at it costs, it is looked at more rarely.
const SHARE: u32 = 20;
/// But not more rarely than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(900);
/// The pause after the first listing: that one reads from the disk what later ones remember.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// The newest snapshots of a group that are looked at for times and sizes.
const NEWEST: usize = 24;

/// The listings by datastore.
pub(super) type Listings = Mutex<HashMap<DatastoreName, Arc<Listing>>>;

/// What was listed of a datastore.
#[derive(Debug, Clone, Default)]
struct Listed {
    /// When it began, in seconds since 1970.
    at: i64,
    groups: Vec<GroupFacts>,
    /// When garbage was collected last, and the corrupt chunks that were seen.
    collected: Option<(i64, u64)>,
    /// How far the clock is ahead of what its retention locks believe, in seconds; `None`: it has none.
    ahead: Option<i64>,
}

#[derive(Debug, Default)]
struct State {
    /// Since when one runs.
    running: Option<Running>,
    /// When the last one ended, and how long to wait before the next.
    ended: Option<(Instant, Duration)>,
    /// What the last one has found, or why it failed.
    last: Option<Arc<Result<Listed, String>>>,
}

/// A listing that is under way.
#[derive(Debug, Clone, Copy)]
struct Running {
    begin: Instant,
    /// The same in seconds since 1970.
    since: i64,
    /// Whether a gathering has waited for it already.
    was_awaited: bool,
}

/// The listing of one datastore.
#[derive(Debug, Default)]
pub(super) struct Listing {
    state: Mutex<State>,
    done: Condvar,
}

/// Adds the datastores with their groups; `is_asked` says whether somebody waits for news. Returns what could not be looked at.
pub(super) fn gather(
    server: &Arc<Server>,
    (now, is_asked): (i64, bool),
    learnt: &mut Learnt,
    facts: &mut Facts,
) -> Vec<Held> {
    // What cannot be read is among the configuration files.
    let Ok(configs) = server.datastores().configs() else {
        return Vec::new();
    };
    facts.knows_datastores = true;
    server
        .health()
        .listings
        .lock()
        .retain(|name, _| configs.iter().any(|config| config.name == *name));
    let deadline = Instant::now() + PATIENCE;
    let started: Vec<_> = configs
        .iter()
        .map(|config| (config, begin(server, config, is_asked)))
        .collect();
    let mut held = Vec::new();
    for (config, listing) in started {
        let (datastore, listed) = one(server, (now, is_asked), config, listing, deadline);
        let first_seen = learnt.first_seen(config.name.as_str(), now);
        let (mut datastore, name) = (datastore, config.name.to_string());
        datastore.first_seen = Some(first_seen);
        datastore.looked = listed.is_ok();
        match listed {
            Ok(listed) => {
                datastore.oldest = listed.groups.iter().filter_map(|group| group.oldest).min();
                datastore.collected = listed.collected;
                facts
                    .clock
                    .ahead
                    .extend(listed.ahead.map(|ahead| (name.clone(), ahead)));
                facts.groups.extend(listed.groups.iter().cloned());
                facts.listed.insert(name);
            }
            Err(reason) => {
                for prefix in [format!("group/{name}/"), format!("datastore/{name}")] {
                    let reason = reason.clone();
                    held.push(Held { prefix, reason });
                }
                // Who owns what there is not known either.
                let writers = facts
                    .targets
                    .iter()
                    .filter(|target| target.datastore == name);
                held.extend(writers.map(|target| Held {
                    prefix: format!("job/sync/{}", target.job),
                    reason: reason.clone(),
                }));
            }
        }
        facts.datastores.push(datastore);
    }
    held
}

/// Starts to list a datastore, unless that is under way or the datastore is closed. The reason is told if it is.
fn begin(
    server: &Arc<Server>,
    config: &DatastoreConfig,
    is_asked: bool,
) -> Result<Arc<Listing>, Reachable> {
    if let Err(err) = datastores::check(config, Operation::Read) {
        return Err(Reachable::Maintenance(chain(&err)));
    }
    let registry = server.datastores();
    let place = registry
        .place(config)
        .map_err(|err| Reachable::No(chain(&err)))?;
    let listing = Arc::clone(
        server
            .health()
            .listings
            .lock()
            .entry(config.name.clone())
            .or_default(),
    );
    if place.check().is_err() {
        return Ok(listing);
    }
    {
        let mut state = listing.state.lock();
        let is_soon = |(end, pause): (Instant, Duration)| end.elapsed() < pause;
        if state.running.is_some() || (!is_asked && state.ended.is_some_and(is_soon)) {
            drop(state);
            return Ok(listing);
        }
        state.running = Some(Running {
            begin: Instant::now(),
            since: Timestamp::now().as_second(),
            was_awaited: false,
        });
    }
    let (own, registry, name) = (Arc::clone(&listing), registry.clone(), config.name.clone());
    server.runtimes().data.spawn(async move {
        let work = move || {
            let datastore = registry
                .lookup(&name, Operation::Lookup)
                .map_err(|err| chain(&err))?;
            list(&datastore).map_err(|err| chain(&err))
        };
        let found = match place.call(work).await {
            Ok(found) => found,
            Err(err) => Err(err.to_string()),
        };
        let mut state = own.state.lock();
        let took = state.running.take().map(|running| running.begin.elapsed());
        let pause = match state.ended {
            None => FIRST_PAUSE,
            Some(_) => took
                .unwrap_or_default()
                .saturating_mul(SHARE)
                .min(LONGEST_PAUSE),
        };
        state.ended = Some((Instant::now(), pause));
        state.last = Some(Arc::new(found));
        own.done.notify_all();
    });
    Ok(listing)
}

/// What is known of a datastore; waits for its listing until `deadline`.
fn one(
    server: &Server,
    (now, is_asked): (i64, bool),
    config: &DatastoreConfig,
    listing: Result<Arc<Listing>, Reachable>,
    deadline: Instant,
) -> (DatastoreFacts, Result<Listed, String>) {
    let name = config.name.as_str();
    let mut datastore = DatastoreFacts {
        name: name.to_owned(),
        collects: config.gc_schedule.is_some(),
        ..DatastoreFacts::default()
    };
    let listing = match listing {
        Ok(listing) => listing,
        Err(reachable) => {
            let reason = match &reachable {
                Reachable::Maintenance(reason) | Reachable::No(reason) => reason.clone(),
                _ => String::new(),
            };
            datastore.reachable = reachable;
            return (datastore, Err(reason));
        }
    };
    // What only forbids to write says so, too.
    if let Err(err) = datastores::check(config, Operation::Write) {
        datastore.reachable = Reachable::Maintenance(chain(&err));
    }
    let unavailable = || server.datastores().place(config).ok()?.check().err();
    let found = {
        let mut state = listing.state.lock();
        // One that takes long holds up one gathering, and those that somebody waits for.
        let waits = |state: &State| {
            let running = state.running.as_ref();
            running.is_some_and(|running| is_asked || !running.was_awaited)
        };
        while waits(&state) && unavailable().is_none() {
            let tick = deadline.min(Instant::now() + Duration::from_millis(250));
            listing.done.wait_until(&mut state, tick);
            if Instant::now() >= deadline {
                break;
            }
        }
        if let Some(running) = &mut state.running {
            running.was_awaited = true;
        }
        let running = state.running.map(|running| running.since);
        (state.last.clone(), running)
    };
    if let Some(err) = unavailable() {
        datastore.reachable = Reachable::No(err.reason.to_string());
        return (datastore, Err(err.reason.to_string()));
    }
    fill_space(server, now, &mut datastore);
    match found {
        (Some(last), running) => match &*last {
            Ok(listed) => {
                datastore.listing = Some(ListingFacts {
                    at: Some(listed.at),
                    groups: u64::try_from(listed.groups.len()).unwrap_or(u64::MAX),
                    running,
                });
                (datastore, Ok(listed.clone()))
            }
            Err(_) if running.is_some() => (datastore, Err(IN_PROGRESS.to_owned())),
            Err(reason) => {
                datastore.reachable = Reachable::No(reason.clone());
                (datastore, Err(reason.clone()))
            }
        },
        (None, running) => {
            datastore.listing = Some(ListingFacts {
                running,
                ..ListingFacts::default()
            });
            (datastore, Err(IN_PROGRESS.to_owned()))
        }
    }
}

const IN_PROGRESS: &str = "its groups are still being listed";

/// What was measured of its file system; nothing here touches it.
fn fill_space(server: &Server, now: i64, datastore: &mut DatastoreFacts) {
    if let Some(newest) = server.metrics().newest() {
        let own = newest.datastores.iter();
        let own = own.filter(|(name, _)| name.as_str() == datastore.name);
        let readings: Vec<_> = own.flat_map(|(_, readings)| readings).collect();
        let value = |metric: &str| {
            let reading = readings.iter().find(|reading| reading.metric == metric)?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the cast saturates"
            )]
            Some(reading.value as u64)
        };
        if let (Some(total), Some(used), Some(available)) = (
            value("disk_total"),
            value("disk_used"),
            value("disk_available"),
        ) {
            // What is kept for root is nobody's.
            let usable = used.saturating_add(available).min(total);
            datastore.space = Some((usable, available));
        }
    }
    if let Some(fullness) = server.rrd().fullness(&datastore.name, now) {
        datastore.history = fullness.points();
    }
}

/// Lists all groups. Blocks for long where nothing is remembered of them.
fn list(datastore: &Datastore) -> Result<Listed, DatastoreError> {
    let mut listed = Listed {
        at: Timestamp::now().as_second(),
        ..Listed::default()
    };
    let status = datastore.gc_status();
    let collection = status.task();
    listed.collected = collection.map(|upid| (upid.starttime, status.still_bad));
    listed.ahead = datastore
        .retention_lock()
        .status()?
        .map(|status| status.time.ahead);
    for namespace in datastore.namespaces(&Namespace::root(), None)? {
        let groups = match datastore.groups(&namespace) {
            Ok(groups) => groups,
            Err(err) if err.is_not_found() => continue,
            Err(err) => return Err(err),
        };
        let summarise = |info: &SnapshotInfo, manifest: Option<(&Manifest, u64)>| {
            snapshot_summary(info, manifest)
        };
        let found = datastore.summaries(&namespace, &groups, &summarise, &|number, items| {
            let group = groups.get(number)?;
            let owner = datastore.owner(&namespace, group);
            let mut facts = facts_of(datastore.name().as_str(), &namespace, group, items);
            match owner {
                Ok(owner) => facts.owner = Some(owner.to_string()),
                // It vanished meanwhile.
                Err(_) if !datastore.group_exists(&namespace, group) => return None,
                Err(err) => facts.ownerless = (facts.snapshots > 0).then(|| chain(&err)),
            }
            // One that was being removed is not there now.
            facts.unreadable.retain(|time| {
                let Ok(time) = BackupTime::new(*time) else {
                    return true;
                };
                let snapshot = group.snapshot(time);
                datastore.load_manifest(&namespace, &snapshot).is_err()
                    && datastore.snapshot_exists(&namespace, &snapshot)
            });
            Some(facts)
        })?;
        listed.groups.extend(found.into_iter().flatten());
    }
    Ok(listed)
}

/// What counts of a snapshot's summary.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    backup_time: i64,
    /// `None`: it is not finished, or its manifest cannot be read.
    size: Option<u64>,
    /// A record that makes no sense is as good as none, and hides nothing else.
    verification: Option<Value>,
}

#[derive(Deserialize)]
struct Verification {
    upid: Upid,
    state: VerifyState,
}

fn facts_of(
    datastore: &str,
    namespace: &Namespace,
    group: &BackupGroup,
    items: &mut dyn Iterator<Item = &str>,
) -> GroupFacts {
    let mut facts = GroupFacts {
        datastore: datastore.to_owned(),
        namespace: namespace.clone(),
        group: group.to_string(),
        ..GroupFacts::default()
    };
    for item in items {
        facts.snapshots = facts.snapshots.saturating_add(1);
        let Ok(summary) = serde_json::from_str::<Summary>(item) else {
            continue;
        };
        let time = summary.backup_time;
        if summary.size.is_none() {
            // One that is finished has a manifest.
            if item.contains(ArchiveName::MANIFEST) {
                facts.unreadable.push(time);
            }
            continue;
        }
        if facts.newest.len() < NEWEST {
            let size = summary.size;
            facts.newest.push(SnapshotFacts { time, size });
        }
        facts.oldest = Some(time);
        let verification = summary.verification;
        if let Some(verification) =
            verification.and_then(|record| serde_json::from_value::<Verification>(record).ok())
        {
            facts.verified = facts.verified.max(Some(verification.upid.starttime));
            if verification.state == VerifyState::Failed {
                facts.damaged.push(time);
            }
        }
    }
    facts
}
