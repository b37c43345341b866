//! Whether the groups of datastores are looked at: what nobody has looked at is not well.

use std::collections::BTreeSet;

use crate::facts::{DatastoreFacts, Facts, ListingFacts};
use crate::number::float;
use crate::{Check, Code, Finding, Learnt, Moment, Scope, State, span_text};

/// A datastore that was not listed for so long since the server started calls for somebody, in seconds.
const FIRST: i64 = 10 * 60;
/// A listing that runs for longer tells nothing any more, in seconds.
const LONG: i64 = 3600;

pub fn judge(
    datastore: &DatastoreFacts,
    started: i64,
    moment: &Moment,
    findings: &mut Vec<Finding>,
) {
    let Some(listing) = &datastore.listing else {
        return;
    };
    let code = Code::DatastoreListing;
    let object = format!("datastore/{}", datastore.name);
    let scope = Scope::datastore(&datastore.name);
    let running = listing.running.map(|since| moment.age(since));
    let Some(at) = listing.at else {
        if let Some(waited) = overdue(listing, started, moment) {
            let text = format!(
                "its groups were not looked at since the server started, for {}",
                span_text(waited)
            );
            findings.push(Finding::ok(code, &object, &scope, text).bad(
                State::Unknown,
                None,
                "see whether its file system is slow; nothing is said of its backups until it is listed",
            ));
        }
        return;
    };
    let age = moment.age(at);
    let groups = listing.groups;
    let noun = if groups == 1 {
        "group was"
    } else {
        "groups were"
    };
    let text = format!("its {groups} {noun} looked at {}", moment.ago(at));
    let finding = match running {
        Some(long) if long > LONG => Finding::ok(
            code,
            &object,
            &scope,
            format!(
                "{text}; the next look at them takes {} already",
                span_text(long)
            ),
        )
        .bad(
            State::Unknown,
            listing.running.map(|since| since.saturating_add(LONG)),
            "see whether its file system hangs; what is shown of its backups is as old as that",
        ),
        _ => Finding::ok(code, &object, &scope, text),
    };
    findings.push(finding.measured(float(age), "s", None, None));
}

/// For how long a datastore that was never listed was waited for, if that is too long.
fn overdue(listing: &ListingFacts, started: i64, moment: &Moment) -> Option<i64> {
    let since = listing
        .running
        .unwrap_or(moment.now)
        .min(moment.now)
        .max(started);
    let waited = moment.age(since);
    (listing.at.is_none() && waited > FIRST).then_some(waited)
}

/// Datastores that are being listed for the first time, and the groups that are known of them from before the start.
pub fn unseen(facts: &Facts, learnt: &Learnt, checks: &[Check], moment: &Moment) -> Vec<Check> {
    let known: BTreeSet<(Code, &str)> = checks
        .iter()
        .map(|check| (check.finding.code, check.finding.object.as_str()))
        .collect();
    let reason = "its groups are being looked at for the first time since the server started";
    let mut unseen = Vec::new();
    let mut add = |code: Code, object: &str| {
        if known.contains(&(code, object)) {
            return;
        }
        let scope = Scope::of_object(object);
        let mut finding = Finding::ok(code, object, &scope, "it was not looked at yet");
        finding.state = State::Unknown;
        finding.since = Some(moment.now.min(facts.started));
        unseen.push(Check {
            finding,
            acknowledged: None,
            expected: None,
            recovered: None,
            held: Some(reason.to_owned()),
        });
    };
    for datastore in &facts.datastores {
        let Some(ListingFacts { at: None, .. }) = &datastore.listing else {
            continue;
        };
        add(
            Code::DatastoreListing,
            &format!("datastore/{}", datastore.name),
        );
        let below = format!("group/{}/", datastore.name);
        for group in learnt.groups().filter(|group| group.starts_with(&below)) {
            add(Code::BackupStale, group);
        }
    }
    unseen
}
