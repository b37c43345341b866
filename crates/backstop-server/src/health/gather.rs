//! One gathering: facts, what is made of them, and what has changed.

use std::sync::Arc;
use std::time::Instant;

use backstop_health::facts::{CertificateFacts, ClockFacts, ConfigurationFacts, Facts, Outcome};
use backstop_health::{Change, Held, Learnt, Moment, Settings, judge};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Checked, datastores, deliveries, jobs, remotes, settings};
use crate::certificate_change;
use crate::http::error::chain;
use crate::server::Server;

/// Gathers and judges; `is_asked` says whether somebody waits for it. Blocks for some seconds at most.
pub(super) fn gather(server: &Arc<Server>, is_asked: bool) {
    let begin = Instant::now();
    let health = server.health();
    let now = Timestamp::now().as_second();
    let moment = Moment::new(now, TimeZone::system());
    let mut facts = Facts {
        started: health.started,
        ..Facts::default()
    };
    let settings = settings(server, &mut facts);
    let mut held = Vec::new();
    for (kind, reason) in jobs::gather(server, now, &mut facts) {
        held.extend(of_kind(kind, &reason));
    }
    // What was learnt is changed only by this thread; nobody who acknowledges something waits for a file system.
    let mut learnt = health.memory.lock().parts().1.clone();
    let when = (now, is_asked);
    held.extend(datastores::gather(server, when, &mut learnt, &mut facts));
    certificates(server, &mut facts);
    held.extend(remotes::gather(server, is_asked, &mut facts));
    held.extend(deliveries::gather(server, now, &mut facts));
    let news = learn(&mut learnt, &facts, &held, now);

    let mut memory = health.memory.lock();
    let (ledger, known, jumps) = memory.parts();
    let has_jumped = jumps.look(now);
    facts.clock = ClockFacts {
        jumps: jumps.seen().to_vec(),
        ..facts.clock
    };
    let findings = judge(&facts, &settings, &learnt, &moment);
    let observation = ledger.observe(findings, &held, &settings.windows, &moment);
    let is_news = news || has_jumped || *known != learnt || !observation.changes.is_empty();
    *known = learnt;
    observation.changes.iter().for_each(report);
    // Before it is remembered as told: a crash in between tells twice rather than never.
    deliveries::tell(server, now, &observation.changes);
    if is_news {
        memory.store();
    }
    drop(memory);
    let milliseconds = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    *health.latest.lock() = Arc::new(Checked {
        at: now,
        milliseconds,
        checks: observation.checks,
        groups: facts.groups,
        certificates: facts.certificates,
    });
}

/// What the operator has said; nothing while the file cannot be read, which is a finding.
fn settings(server: &Server, facts: &mut Facts) -> Settings {
    let (settings, error) = match settings::load(server.config()) {
        Ok(settings) => (settings, None),
        Err(err) => (Settings::default(), Some(chain(&err))),
    };
    facts.configuration.push(ConfigurationFacts {
        file: "backstop-health.json".to_owned(),
        error,
    });
    settings
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

/// Takes in how long jobs ran and when groups were backed up. Tells whether there is news.
fn learn(learnt: &mut Learnt, facts: &Facts, held: &[Held], now: i64) -> bool {
    let mut news = false;
    for job in &facts.jobs {
        let Some(run) = &job.last else { continue };
        if matches!(run.outcome, Outcome::Ok | Outcome::Warnings(_)) {
            news |= learnt.note_run(&job.object(), run.start, run.end);
        }
    }
    for group in &facts.groups {
        let times: Vec<i64> = group.newest.iter().map(|snapshot| snapshot.time).collect();
        news |= learnt.note_backups(&group.object(), &times, now);
    }
    let jobs = facts.jobs.iter().map(|job| job.object());
    let groups = facts.groups.iter().map(|group| group.object());
    let datastores = facts.datastores.iter();
    let datastores = datastores.map(|datastore| format!("datastore/{}", datastore.name));
    let there: std::collections::HashSet<String> = jobs.chain(groups).chain(datastores).collect();
    let is_held = |object: &str| held.iter().any(|held| held.covers(object));
    news | learnt.retain(|object| there.contains(object) || is_held(object))
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
