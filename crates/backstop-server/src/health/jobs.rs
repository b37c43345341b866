//! Facts of jobs: what is configured, and how they ran.

use backstop_health::Scope;
use backstop_health::facts::{Facts, JobFacts, Outcome, RunFacts, TargetFacts, VerificationFacts};
use backstop_types::record::{SyncDirection, SyncJobConfig, TaskState, VerifyJobConfig};
use backstop_types::section_config::SectionConfig;
use serde_json::{Map, Value};

use crate::config::jobs::is_disabled;
use crate::http::error::chain;
use crate::jobs::{self, JobId, JobKind, JobLook, SOURCES};
use crate::server::Server;

/// The word for a kind of job in the names of objects.
pub(super) const fn word(kind: JobKind) -> &'static str {
    match kind {
        JobKind::GarbageCollection => "gc",
        JobKind::Prune => "prune",
        JobKind::Verify => "verify",
        JobKind::Sync => "sync",
        JobKind::RealmSync => "realm-sync",
    }
}

/// The name of a job among the objects of health.
pub(super) fn object(job: &JobId) -> String {
    format!("job/{}/{}", word(job.kind), job.id)
}

/// Adds the jobs, and what their files say of targets and verification. Returns kinds of jobs whose file cannot be read. Blocks for
/// small files.
pub(super) fn gather(server: &Server, now: i64, facts: &mut Facts) -> Vec<(&'static str, String)> {
    let mut unreadable = Vec::new();
    for (file, kind, key) in SOURCES {
        match server.config().sections(file) {
            Ok(loaded) => of_file(server, now, (kind, key), &loaded.data, facts),
            Err(err) => {
                let reason = format!("{} cannot be read: {}", file.file_name(), chain(&err));
                unreadable.push((word(kind), reason));
            }
        }
    }
    unreadable
}

fn of_file(
    server: &Server,
    now: i64,
    (kind, key): (JobKind, Option<&str>),
    config: &SectionConfig,
    facts: &mut Facts,
) {
    for (id, section) in config.iter() {
        let properties = &section.properties;
        let text = |key: &str| properties.get(key).and_then(Value::as_str);
        let job = JobId::new(kind, id);
        let looked = jobs::look(server, &job, now);
        let schedule = key.and_then(text).map(str::to_owned);
        // A job that is neither scheduled nor was ever asked for is none.
        let is_implied = matches!(kind, JobKind::GarbageCollection | JobKind::RealmSync);
        let never_asked = |look: &JobLook| look.last.is_none() && look.running.is_none();
        if is_implied && schedule.is_none() && looked.as_ref().is_ok_and(never_asked) {
            continue;
        }
        let scope = scope(kind, id, properties);
        let mut job = JobFacts {
            kind: word(kind),
            id: id.to_owned(),
            scope: scope.clone(),
            disabled: is_disabled(properties),
            schedule,
            ..JobFacts::default()
        };
        match looked {
            Ok(look) => fill(&mut job, look),
            Err(err) => job.unreadable = Some(chain(&err)),
        }
        facts.jobs.push(job);
        let section = config.to_api(id).unwrap_or_default();
        match kind {
            JobKind::Verify => facts.verifications.extend(verification(id, section)),
            JobKind::Sync => facts.targets.extend(target(id, scope, section)),
            _ => {}
        }
    }
}

fn scope(kind: JobKind, id: &str, properties: &Map<String, Value>) -> Scope {
    let text = |key: &str| properties.get(key).and_then(Value::as_str);
    match kind {
        JobKind::RealmSync => Scope::default(),
        JobKind::GarbageCollection => Scope::datastore(id),
        _ => Scope {
            datastore: text("store").map(str::to_owned),
            namespace: text("ns").and_then(|ns| ns.parse().ok()),
            remote: text("remote").map(str::to_owned),
            ..Scope::default()
        },
    }
}

fn fill(job: &mut JobFacts, look: JobLook) {
    job.reference = look.reference;
    job.running = look.running;
    if let Some(history) = &look.history {
        job.last_success = history.last_success;
        job.failures = history.failures;
    }
    job.last = look.last.map(|(upid, end, state)| {
        let outcome = match state {
            TaskState::Ok => Outcome::Ok,
            TaskState::Warnings(count) => Outcome::Warnings(count),
            TaskState::Error(reason) => Outcome::Failed(reason),
            // The log of a run before the one that is under way may be gone; what is remembered of it is not.
            TaskState::Unknown if job.running.is_some() && job.failures == 0 => Outcome::Ok,
            TaskState::Unknown => Outcome::Unknown,
        };
        if outcome == Outcome::Ok && look.history.is_none() {
            job.last_success = Some(end);
        }
        RunFacts {
            start: upid.starttime,
            end,
            outcome,
            task: upid.to_string(),
        }
    });
}

fn verification(id: &str, section: Map<String, Value>) -> Option<VerificationFacts> {
    let config = VerifyJobConfig::from_api(section).ok()?;
    // One that is run by hand only promises nothing.
    config.schedule.as_ref()?;
    Some(VerificationFacts {
        job: id.to_owned(),
        datastore: config.store.to_string(),
        namespace: config.ns.unwrap_or_default(),
        depth: config.max_depth,
        again_after: match config.ignore_verified {
            true => config.outdated_after,
            false => Some(config.outdated_after.unwrap_or(30)),
        },
    })
}

fn target(id: &str, scope: Scope, section: Map<String, Value>) -> Option<TargetFacts> {
    let config = SyncJobConfig::from_api(section).ok()?;
    if config.sync_direction == SyncDirection::Push {
        return None;
    }
    let remote = config.remote.as_ref().map_or("-", |remote| remote.as_str());
    Some(TargetFacts {
        job: id.to_owned(),
        scope,
        datastore: config.store.to_string(),
        source: format!("{remote}:{}:{}", config.remote_store, config.remote_ns),
        owner: config.owner().to_string(),
        takes_all: config.group_filter.is_empty(),
        depth: config.max_depth,
        namespace: config.ns,
    })
}
