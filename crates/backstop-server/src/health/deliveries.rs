//! What goes out: facts of messages that wait or were given up, and telling people of what has changed.

use std::collections::{BTreeMap, HashSet};

use backstop_health::facts::{DeliveryFacts, Facts};
use backstop_health::{Change, Code, Held, Message, Reason, State, messages};
use backstop_notify::Severity;
use backstop_notify::repeats::SUBJECTS;
use backstop_outgoing::Undelivered;
use backstop_outgoing::spool::Dropped;

use crate::http::error::chain;
use crate::notifications::events;
use crate::server::Server;

/// Why what was accepted waits.
const UNSORTED: &str = "they were accepted, and were not given to all targets yet";
/// For how long it is told that messages were given up, in seconds.
const TOLD: i64 = 86_400;

/// Adds what waits for targets of notifications, and for monitors that take heartbeats. Returns what is not known. Blocks for small
/// files.
pub(super) fn gather(server: &Server, now: i64, facts: &mut Facts) -> Vec<Held> {
    let (notifier, heartbeats) = (server.notifier(), server.heartbeats());
    let notifications = notifier
        .undelivered()
        .and_then(|waiting| {
            let dispatch = notifier.dispatch();
            Ok((waiting, dispatch.dropped()?, dispatch.unsorted()?))
        })
        .map_err(|err| chain(&err));
    let pushes = heartbeats
        .undelivered()
        .and_then(|waiting| Ok((waiting, heartbeats.dropped()?, (0, None))))
        .map_err(|err| chain(&err));
    let mut held = Vec::new();
    for (heartbeat, spool, prefix, found) in [
        (false, "notifications", "target/", notifications),
        (true, "heartbeats", "monitor/", pushes),
    ] {
        match found {
            Ok((waiting, dropped, unsorted)) => {
                let ways = of_spool(heartbeat, spool, waiting, &dropped, now);
                facts.deliveries.extend(ways);
                if let (Some(way), (1.., since)) = (facts.deliveries.last_mut(), unsorted) {
                    way.waiting = unsorted.0;
                    way.since = way.since.or(since);
                    way.error = way.error.take().or_else(|| Some(UNSORTED.to_owned()));
                }
            }
            Err(reason) => held.push(Held {
                prefix: prefix.to_owned(),
                reason,
            }),
        }
    }
    held
}

/// Tells people of changes. Blocks for small files.
pub(super) fn tell(server: &Server, now: i64, changes: &[Change]) {
    let mut told_runs = server.health().told_runs.lock();
    let (mut to_all, mut to_told) = (Vec::new(), Vec::new());
    for change in changes.iter().filter(|change| !is_silence(change)) {
        match whom(change, &mut told_runs) {
            Whom::Everybody => to_all.push(change.clone()),
            Whom::WhoeverWasTold => to_told.push(change.clone()),
            Whom::Nobody => {}
        }
    }
    drop(told_runs);
    for (changes, to) in [(to_all, None), (to_told, Some(String::new()))] {
        for message in messages(&changes) {
            send(server, now, &message, to.clone());
        }
    }
}

/// That nobody can be told of errors can be told to nobody, and neither can its end.
fn is_silence(change: &Change) -> bool {
    change.code == Code::NotificationNobody && !change.object.starts_with("target/")
}

fn send(server: &Server, now: i64, message: &Message, to: Option<String>) {
    let severity = match message.state {
        State::Critical => Severity::Error,
        State::Warning | State::Unknown => Severity::Warning,
        State::Ok => Severity::Info,
    };
    let notifier = server.notifier();
    let mut event = events::health(
        notifier.host(),
        now,
        (kind(message.code), message.code.as_str(), &message.object),
        severity,
        (&message.title, &message.text),
    );
    if !message.objects.is_empty() {
        event.show(SUBJECTS, message.objects.clone().into());
    }
    event.to = to;
    notifier.notify(&event);
}

/// Who hears of a change.
#[derive(Debug, PartialEq, Eq)]
enum Whom {
    Everybody,
    WhoeverWasTold,
    Nobody,
}

/// The failure of a job is told by a notification of its run, and so is the success after it, unless that happened in a window or while
/// somebody knew of it: what is left of that is told here.
fn whom(change: &Change, told_runs: &mut HashSet<String>) -> Whom {
    if change.code != Code::JobFailed {
        return Whom::Everybody;
    }
    match (change.to.is_bad(), change.reason) {
        (true, Reason::Changed) if told_runs.contains(&change.object) => Whom::Nobody,
        (true, _) => Whom::Everybody,
        (false, _) => {
            told_runs.remove(&change.object);
            Whom::WhoeverWasTold
        }
    }
}

/// The type of the event that tells of it.
const fn kind(code: Code) -> &'static str {
    match code {
        Code::CertificateExpiring | Code::CertificateChanged => "certificate",
        _ => "health",
    }
}

/// The ways out of a spool that messages wait for, that refuse some, or of which some were given up in the last day; and, under `spool`,
/// the spool itself, which can be read.
pub(super) fn of_spool(
    heartbeat: bool,
    spool: &str,
    waiting: Vec<Undelivered>,
    dropped: &Dropped,
    now: i64,
) -> Vec<DeliveryFacts> {
    let mut lanes: BTreeMap<String, DeliveryFacts> = BTreeMap::new();
    let of = |lane: &str| DeliveryFacts {
        heartbeat,
        target: lane.to_owned(),
        ..DeliveryFacts::default()
    };
    for message in waiting {
        let name = message.lane.clone();
        let lane = lanes.entry(name).or_insert_with_key(|name| of(name));
        let count = match message.refused {
            true => &mut lane.refused,
            false => &mut lane.waiting,
        };
        *count = count.saturating_add(1);
        let since = message.first_failure.unwrap_or(message.queued);
        lane.since = Some(lane.since.map_or(since, |known| known.min(since)));
        lane.error = message.last_error.or(lane.error.take());
    }
    for (name, dropped) in &dropped.lanes {
        let lost = dropped.since(now.saturating_sub(TOLD));
        if lost > 0 {
            let lane = lanes
                .entry(name.clone())
                .or_insert_with_key(|name| of(name));
            lane.lost = lost;
            lane.since = lane.since.or(Some(dropped.last));
            lane.error = lane.error.take().or_else(|| Some(dropped.reason.clone()));
        }
    }
    let mut facts: Vec<_> = lanes.into_values().collect();
    facts.push(of(spool));
    facts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use backstop_health::Scope;

    use super::*;

    fn message(lane: &str, queued: i64, failed: Option<i64>, error: Option<&str>) -> Undelivered {
        Undelivered {
            id: format!("{lane}-{queued}"),
            lane: lane.to_owned(),
            queued,
            attempts: 1,
            first_failure: failed,
            next_try: queued,
            last_error: error.map(str::to_owned),
            refused: false,
        }
    }

    #[test]
    fn the_failure_of_a_job_is_told_by_its_run_or_else_here() {
        let change = |to: State, reason| Change {
            at: 1,
            code: Code::JobFailed,
            object: "job/sync/a".to_owned(),
            scope: Scope::default(),
            from: State::Ok,
            to,
            reason,
            since: 1,
            evidence: String::new(),
            remedy: None,
            loud: true,
        };
        let told = || HashSet::from(["job/sync/a".to_owned()]);
        for (to, reason, told, wanted) in [
            (State::Critical, Reason::Changed, told(), Whom::Nobody),
            (
                State::Critical,
                Reason::Changed,
                HashSet::new(),
                Whom::Everybody,
            ),
            (
                State::Critical,
                Reason::OutlastedWindow,
                told(),
                Whom::Everybody,
            ),
            (
                State::Warning,
                Reason::AcknowledgementEnded,
                told(),
                Whom::Everybody,
            ),
            (State::Ok, Reason::Changed, told(), Whom::WhoeverWasTold),
        ] {
            let mut left = told;
            assert_eq!(
                whom(&change(to, reason), &mut left),
                wanted,
                "{to} {reason:?}"
            );
            assert!(to.is_bad() || left.is_empty());
        }
        let other = Change {
            code: Code::BackupVerifyFailed,
            ..change(State::Critical, Reason::Changed)
        };
        assert_eq!(whom(&other, &mut told()), Whom::Everybody);
    }

    #[test]
    fn messages_are_counted_by_way_and_losses_are_told_for_a_day() {
        let waiting = vec![
            message("mail", 100, Some(150), Some("refused")),
            message("mail", 120, None, None),
            message("kuma", 200, None, None),
        ];
        let mut refused = message("mail", 90, Some(130), Some("400"));
        refused.refused = true;
        let dropped = r#"{"count":9,"last":1000,"reason":"too old","lanes":{
            "kuma":{"last":1000,"reason":"too old","hours":{"0":2}},
            "gone":{"last":900,"reason":"full","hours":{"0":1}}}}"#;
        let dropped: Dropped = serde_json::from_str(dropped).unwrap();
        let waiting = [waiting, vec![refused]].concat();
        let facts = of_spool(true, "heartbeats", waiting, &dropped, TOLD);
        let short = |facts: &DeliveryFacts| {
            let counts = (facts.waiting, facts.refused, facts.lost);
            (facts.target.clone(), counts, facts.since)
        };
        let all: Vec<_> = facts.iter().map(short).collect();
        assert_eq!(
            all,
            [
                ("gone".to_owned(), (0, 0, 1), Some(900)),
                ("kuma".to_owned(), (1, 0, 2), Some(200)),
                ("mail".to_owned(), (2, 1, 0), Some(120)),
                ("heartbeats".to_owned(), (0, 0, 0), None),
            ]
        );
        let later = of_spool(true, "heartbeats", Vec::new(), &dropped, TOLD + 3600);
        assert_eq!((later.len(), later[0].lost), (1, 0));
    }
}
