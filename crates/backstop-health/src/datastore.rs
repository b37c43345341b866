//! Datastores: away, closed, filling, damaged, full of garbage.

use crate::backup::bytes;
use crate::facts::{DatastoreFacts, GroupFacts, Reachable};
use crate::forecast;
use crate::number::{float, float_u};
use crate::{Code, Finding, Moment, Scope, State, span_text};

const DAY: i64 = 86_400;
/// Shares in use, in percent.
const FULL_WARNING: f64 = 90.0;
const FULL_CRITICAL: f64 = 97.0;
/// What is full within these times by its trend is a warning, and critical; in seconds.
const SOON: i64 = 30 * DAY;
const VERY_SOON: i64 = 5 * DAY;
/// A trend needs to be seen for so long, in seconds, and does not count below this share.
const TREND: i64 = 3 * DAY;
const TREND_FROM: f64 = 50.0;
/// Without a schedule, garbage is to be collected within this time, in seconds.
const GC_OVERDUE: i64 = 30 * DAY;

pub fn judge(
    datastore: &DatastoreFacts,
    groups: &[&GroupFacts],
    moment: &Moment,
    findings: &mut Vec<Finding>,
) {
    let object = format!("datastore/{}", datastore.name);
    let scope = Scope::datastore(&datastore.name);
    let ok = |code, evidence: String| Finding::ok(code, &object, &scope, evidence);
    let available = ok(
        Code::DatastoreUnavailable,
        "its file system answers".to_owned(),
    );
    let open = ok(
        Code::DatastoreMaintenance,
        "no maintenance mode closes it".to_owned(),
    );
    let mount = "see whether its file system is mounted and its disks or its server answer";
    match &datastore.reachable {
        Reachable::Yes => findings.extend([available, open]),
        Reachable::No(reason) => {
            let bad = ok(Code::DatastoreUnavailable, reason.clone());
            findings.extend([bad.bad(State::Critical, None, mount), open]);
            return;
        }
        Reachable::Silent(seconds) => {
            let text = format!("no answer for {}", span_text(*seconds));
            let since = moment.now.saturating_sub(*seconds);
            let bad = ok(Code::DatastoreUnavailable, text);
            findings.extend([bad.bad(State::Critical, Some(since), mount), open]);
            return;
        }
        Reachable::Maintenance(mode) => {
            let bad = ok(Code::DatastoreMaintenance, mode.clone());
            let remedy = format!(
                "when the maintenance is done: proxmox-backup-manager datastore update {} --delete maintenance-mode",
                datastore.name
            );
            let away = "it is closed by a maintenance mode".to_owned();
            findings.push(ok(Code::DatastoreUnavailable, away));
            findings.push(bad.bad(State::Warning, None, remedy));
        }
    }
    if let Some(space) = datastore.space {
        findings.push(filling(datastore, space, ok, moment));
    }
    if datastore.looked {
        findings.push(corrupt(datastore, groups, ok));
        findings.push(garbage(datastore, ok, moment));
    }
}

fn filling(
    datastore: &DatastoreFacts,
    (total, available): (u64, u64),
    ok: impl Fn(Code, String) -> Finding,
    moment: &Moment,
) -> Finding {
    let code = Code::DatastoreFilling;
    if total == 0 {
        return ok(code, "its size is not known".to_owned());
    }
    let used = total.saturating_sub(available);
    let percent = float_u(used) / float_u(total) * 100.0;
    let mut text = format!(
        "{percent:.1} % of {} are in use",
        bytes(i64::try_from(total).unwrap_or(i64::MAX))
    );
    let mut state = match percent {
        share if share >= FULL_CRITICAL => State::Critical,
        share if share >= FULL_WARNING => State::Warning,
        _ => State::Ok,
    };
    if let Some(full) = trend(datastore, moment) {
        text.push_str(&format!(
            "; full {} if it goes on like this",
            moment.ago(full)
        ));
        let left = full.saturating_sub(moment.now);
        if percent >= TREND_FROM && left <= VERY_SOON {
            state = State::Critical;
        } else if percent >= TREND_FROM && left <= SOON {
            state = state.max(State::Warning);
        }
    }
    let finding = ok(code, text);
    let finding = match state {
        State::Ok => finding,
        state => finding.bad(
            state,
            None,
            "prune what is not needed and collect garbage, or give it more space",
        ),
    };
    finding.measured(percent, "%", FULL_WARNING, FULL_CRITICAL)
}

/// When it is full by its trend, which lies in the future; `None`: that cannot be told, or never. A line through all that is
/// remembered does not follow a surge, which is looked at by itself.
fn trend(datastore: &DatastoreFacts, moment: &Moment) -> Option<i64> {
    let points = &datastore.history;
    let (first, last) = (points.first()?, points.last()?);
    let long = (last.0.saturating_sub(first.0) >= TREND).then(|| forecast::full_at(points));
    let surge = forecast::surge_full_at(points);
    let ahead = [long.flatten(), surge].into_iter().flatten();
    ahead.filter(|full| *full > moment.now).min()
}

fn corrupt(
    datastore: &DatastoreFacts,
    groups: &[&GroupFacts],
    ok: impl Fn(Code, String) -> Finding,
) -> Finding {
    let code = Code::DatastoreCorrupt;
    // What verification has found since corrupt chunks were counted; that is told of the groups, and not here once more.
    let is_news = |group: &&&GroupFacts| match datastore.collected {
        Some((end, _)) => group.verified.is_some_and(|verified| verified > end),
        None => true,
    };
    let damaged = groups.iter().filter(is_news);
    let damaged: usize = damaged.map(|group| group.damaged.len()).sum();
    let count = datastore.collected.map_or(0, |(_, corrupt)| corrupt);
    let mut text = match datastore.collected {
        Some((_, 0)) => "the last garbage collection saw no corrupt chunk".to_owned(),
        Some((_, count)) => {
            let noun = if count == 1 { "chunk" } else { "chunks" };
            format!("the last garbage collection saw {count} corrupt {noun}")
        }
        None => "corrupt chunks were never counted, as garbage was never collected".to_owned(),
    };
    if damaged > 0 {
        let backups = if damaged == 1 { "backup" } else { "backups" };
        text.push_str(&format!(
            "; verification has found damage in {damaged} {backups} since ({})",
            Code::BackupVerifyFailed
        ));
    }
    let finding = match count {
        0 => ok(code, text),
        _ => ok(code, text).bad(
            State::Critical,
            None,
            "verify the datastore to see which backups are damaged; check its disks; then back up anew or sync with \
             'resync-corrupt'",
        ),
    };
    finding.measured(float_u(count), "", None, 0.0)
}

fn garbage(
    datastore: &DatastoreFacts,
    ok: impl Fn(Code, String) -> Finding,
    moment: &Moment,
) -> Finding {
    let code = Code::GcOverdue;
    let last = datastore.collected.map(|(end, _)| end);
    let text = match last {
        Some(end) => format!("garbage was collected {}", moment.ago(end)),
        None => "garbage was never collected".to_owned(),
    };
    // With a schedule, its job is late.
    // What was synced to here may be older than the datastore.
    let begun = datastore.oldest.max(datastore.first_seen);
    let Some(reference) = last.or(begun).filter(|_| !datastore.collects) else {
        return ok(code, text);
    };
    let age = moment.age(reference);
    let finding = match age > GC_OVERDUE {
        false => ok(code, text),
        true => ok(code, format!("{text}, and no schedule is set")).bad(
            State::Warning,
            Some(reference.saturating_add(GC_OVERDUE)),
            format!(
                "proxmox-backup-manager datastore update {} --gc-schedule daily",
                datastore.name
            ),
        ),
    };
    finding.measured(float(age), "s", float(GC_OVERDUE), None)
}
