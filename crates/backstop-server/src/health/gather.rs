//! One gathering: facts, what is made of them, and what has changed.

use std::sync::Arc;
use std::time::Instant;

use backstop_health::facts::{CertificateFacts, ClockFacts, Facts, MemoryFacts, Outcome};
use backstop_health::{Absences, Change, Code, Held, Learnt, Moment, judge, unseen};
use jiff::tz::TimeZone;

use super::clock::Now;
use super::memory::Parts;
use super::{Checked, audience, configuration, datastores, deliveries, jobs, remotes};
use crate::certificate_change;
use crate::server::Server;

/// Gathers and judges; `is_asked` says whether somebody waits for it. Blocks for some seconds at most.
pub(super) fn gather(server: &Arc<Server>, is_asked: bool) {
    let begin = Instant::now();
    let health = server.health();
    let clock = Now::read();
    let now = clock.clock;
    let moment = Moment::new(now, TimeZone::system());
    let mut facts = Facts {
        started: health.started,
        ..Facts::default()
    };
    let settings = configuration::gather(server, &mut facts);
    let mut held = Vec::new();
    for (kind, reason) in jobs::gather(server, now, &mut facts) {
        held.extend(of_kind(kind, &reason));
    }
    // These are changed only by this thread; nobody who acknowledges something waits for a file system.
    let (mut learnt, mut absences, said) = {
        let mut memory = health.memory.lock();
        facts.memory = Some(MemoryFacts {
            aside: memory.aside(),
        });
        let parts = memory.parts();
        let Parts {
            learnt,
            absences,
            settings,
            ..
        } = parts;
        (learnt.clone(), absences.clone(), settings.clone())
    };
    // While the file makes no sense, what it said before holds: a slip of the pen takes back no expectation.
    let settings = settings.or(said);
    let when = (now, is_asked);
    held.extend(datastores::gather(server, when, &mut learnt, &mut facts));
    held.extend(absent(server, now, &mut absences, &learnt, &mut facts));
    certificates(server, &mut facts);
    held.extend(remotes::gather(server, is_asked, &mut facts));
    held.extend(deliveries::gather(server, now, &mut facts));
    facts.audience = audience::gather(server, now);
    if facts.audience.is_none() {
        held.push(Held {
            prefix: "notifications/".to_owned(),
            reason: "a file that says who is to be told cannot be read".to_owned(),
        });
    }
    learn(&mut learnt, &facts, &held, &absences, &moment);

    // Nobody writes down what is being told until it is.
    let writing = health.writing.lock();
    let mut memory = health.memory.lock();
    let Parts {
        ledger,
        learnt: known,
        jumps,
        absences: known_absences,
        settings: known_settings,
    } = memory.parts();
    let has_jumped = jumps.look(clock);
    facts.clock = ClockFacts {
        jumps: jumps.seen().to_vec(),
        ..facts.clock
    };
    let judged = settings.clone().unwrap_or_default();
    let findings = judge(&facts, &judged, &learnt, &moment);
    let mut observation = ledger.observe(findings, &held, &judged.windows, &moment);
    for object in absences.settle(&observation.checks, now) {
        ledger.forget(Code::BackupGone, &object);
    }
    let is_news = has_jumped
        || !observation.changes.is_empty()
        || *known_absences != absences
        || *known_settings != settings;
    *known_absences = absences;
    *known_settings = settings;
    *known = learnt;
    let unseen = unseen(&facts, known, &observation.checks, &moment);
    observation.checks.extend(unseen);
    drop(memory);
    observation.changes.iter().for_each(report);
    // Before it is remembered as told: a crash in between tells twice rather than never.
    deliveries::tell(server, now, &observation.changes);
    drop(writing);
    health.remember(is_news);
    let milliseconds = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    *health.latest.lock() = Arc::new(Checked {
        at: now,
        milliseconds,
        checks: observation.checks,
        groups: facts.groups,
        certificates: facts.certificates,
    });
}

/// What is not known while a file of jobs cannot be read.
fn of_kind(kind: &str, reason: &str) -> Vec<Held> {
    let mut prefixes = vec![format!("job/{kind}/")];
    if kind == "gc" {
        // The datastores themselves.
        prefixes.extend(["datastore/".to_owned(), "group/".to_owned()]);
    }
    let held = prefixes.into_iter().map(|prefix| Held {
        prefix,
        reason: reason.to_owned(),
    });
    held.collect()
}

fn certificates(server: &Server, facts: &mut Facts) {
    let current = server.certificates().current();
    let status = certificate_change::status(server.config(), current.fingerprint());
    let next = status.ok().and_then(|status| status.next);
    facts.certificates.push(CertificateFacts {
        remote: None,
        validity: Some((current.not_before(), current.not_after())),
        fingerprint: Some(current.fingerprint().to_string()),
        untrusted: None,
        next: next.map(|next| next.switch_at),
    });
}

/// Adds what is not there any more. Returns what is not known because of it.
fn absent(
    server: &Server,
    now: i64,
    absences: &mut Absences,
    learnt: &Learnt,
    facts: &mut Facts,
) -> Vec<Held> {
    // Each note was made before what it is of was gone.
    match server.datastores().removals().take() {
        Ok(noted) => absences.note(noted, now),
        Err(err) => {
            tracing::error!(%err, "what was removed on purpose cannot be read, so that nothing is said of what is gone");
            return Vec::new();
        }
    }
    let is_configured = server.datastores().configs().is_ok();
    absences.observe(facts, learnt, is_configured, now);
    let mut held = Vec::new();
    for name in absences.datastores_gone() {
        for prefix in [format!("group/{name}/"), format!("datastore/{name}")] {
            held.push(Held {
                prefix,
                reason: format!("datastore '{name}' is not in the configuration any more"),
            });
        }
    }
    held
}

/// Takes in how long jobs ran and wait, and when groups were backed up.
fn learn(learnt: &mut Learnt, facts: &Facts, held: &[Held], absences: &Absences, moment: &Moment) {
    for job in &facts.jobs {
        learnt.note_lateness(job, facts.started, moment);
        let Some(run) = &job.last else { continue };
        if matches!(run.outcome, Outcome::Ok | Outcome::Warnings(_)) {
            learnt.note_run(&job.object(), run.start, run.end);
        }
    }
    for group in &facts.groups {
        let times: Vec<i64> = group.newest.iter().map(|snapshot| snapshot.time).collect();
        learnt.note_backups(&group.object(), &times, moment.now);
    }
    let jobs = facts.jobs.iter().map(|job| job.object());
    let groups = facts.groups.iter().map(|group| group.object());
    let datastores = facts.datastores.iter();
    let datastores = datastores.map(|datastore| format!("datastore/{}", datastore.name));
    let there: std::collections::HashSet<String> = jobs.chain(groups).chain(datastores).collect();
    let is_held = |object: &str| held.iter().any(|held| held.covers(object));
    learnt.retain(|object| there.contains(object) || is_held(object) || absences.holds(object));
}

/// Writes a change to the server's log.
fn report(change: &Change) {
    let Change {
        code,
        object,
        from,
        to,
        evidence,
        ..
    } = change;
    match to.is_bad() && change.loud {
        true => tracing::warn!(%code, object, %from, %to, "health: {evidence}"),
        false => tracing::info!(%code, object, %from, %to, "health: {evidence}"),
    }
}
