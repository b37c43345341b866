//! Backup groups: stale, shrunk or grown, damaged, not verified for too long; and what is expected and not there at all.

use std::collections::BTreeMap;

use crate::cadence::{Cadence, ENOUGH};
use crate::facts::{Facts, GroupFacts, VerificationFacts, group_object};
use crate::number::{float, float_u, median};
use crate::{Code, Every, Expectation, Finding, Learnt, Moment, Scope, Settings, State, span_text};

/// A backup that lies further in the future shows that a clock is wrong, in seconds.
const CLOCK_TOLERANCE: i64 = 3600;
/// Earlier backups whose sizes must be known.
const ENOUGH_SIZES: usize = 4;
/// Earlier backups whose sizes count.
const SIZES: usize = 12;
/// Smaller differences are none, in bytes.
const LEAST_DIFFERENCE: i64 = 64 << 20;
/// A backup that is older than this and was never verified is noticed, in seconds. A job has had several turns by then.
const UNVERIFIED: i64 = 37 * 86_400;
/// How much longer than its job says a verification may take to come again, in seconds.
const VERIFY_GRACE: i64 = 7 * 86_400;
const DAY: i64 = 86_400;

pub fn judge(
    facts: &Facts,
    settings: &Settings,
    learnt: &Learnt,
    moment: &Moment,
    findings: &mut Vec<Finding>,
) {
    for group in &facts.groups {
        let object = group.object();
        let scope = Scope {
            datastore: Some(group.datastore.clone()),
            namespace: Some(group.namespace.clone()),
            group: Some(group.group.clone()),
            owner: group.owner.clone(),
            remote: None,
        };
        let about = About {
            group,
            object: &object,
            scope: &scope,
            moment,
        };
        findings.push(about.stale(settings.expectation(&scope), learnt));
        findings.push(about.size());
        findings.push(about.damage());
        findings.push(about.verification(&facts.verifications));
    }
    missing(facts, settings, moment, findings);
}

struct About<'a> {
    group: &'a GroupFacts,
    object: &'a str,
    scope: &'a Scope,
    moment: &'a Moment,
}

impl About<'_> {
    fn ok(&self, code: Code, evidence: impl Into<String>) -> Finding {
        Finding::ok(code, self.object, self.scope, evidence)
    }

    fn stale(&self, expectation: Option<&Expectation>, learnt: &Learnt) -> Finding {
        let code = Code::BackupStale;
        let moment = self.moment;
        let Some(newest) = self.group.newest.first().map(|snapshot| snapshot.time) else {
            let expected = expectation.and_then(|made| Some((made, made.every.limits()?.0)));
            let Some((made, limit)) = expected else {
                return self.ok(code, "it holds no finished backup, and none is expected");
            };
            let due = made.made_at.saturating_add(limit);
            let text = format!(
                "it holds no finished backup; one every {} is expected",
                made.every
            );
            return match moment.now > due {
                true => self
                    .ok(code, text)
                    .bad(State::Critical, Some(due), NO_BACKUP),
                false => self.ok(code, text),
            };
        };
        if newest > moment.now.saturating_add(CLOCK_TOLERANCE) {
            return self
                .ok(code, format!("its newest backup is of {}, which is in the future", moment.text(newest)))
                .bad(
                    State::Warning,
                    None,
                    "set the clock of the host that made it; until then nobody can tell whether it is late",
                );
        }
        let age = moment.age(newest);
        let (limits, why) = match expectation.map(|made| (made, made.every)) {
            Some((_, Every::Never)) => {
                let text = format!(
                    "its newest backup is of {}; no further one is expected",
                    moment.ago(newest)
                );
                return self.ok(code, text);
            }
            Some((made, every)) => (
                every.limits().unwrap_or((i64::MAX, i64::MAX)),
                format!("one every {every} is expected of {}", made.place),
            ),
            None => match Cadence::learn(learnt.backups(self.object)) {
                Ok(cadence) => (
                    (cadence.limit, cadence.worse),
                    format!("one every {} is usual", span_text(cadence.usual)),
                ),
                Err(known) => {
                    let text = format!(
                        "its newest backup is of {}; with {known} of the {ENOUGH} intervals that tell how often it is backed up, nothing \
                         is said of its age",
                        moment.ago(newest)
                    );
                    return self.ok(code, text);
                }
            },
        };
        let (limit, worse) = limits;
        let state = match age {
            old if old > worse => State::Critical,
            old if old > limit => State::Warning,
            _ => State::Ok,
        };
        let finding = self.ok(
            code,
            format!("its newest backup is of {}; {why}", moment.ago(newest)),
        );
        let finding = match state {
            State::Ok => finding,
            state => finding.bad(state, Some(newest.saturating_add(limit)), STALE),
        };
        finding.measured(float(age), "s", float(limit), float(worse))
    }

    fn size(&self) -> Finding {
        let code = Code::BackupSize;
        let mut sizes = self.group.newest.iter().filter_map(|snapshot| {
            let size = snapshot.size?;
            Some((snapshot.time, i64::try_from(size).unwrap_or(i64::MAX)))
        });
        let Some((time, size)) = sizes.next() else {
            return self.ok(code, "the size of no backup is known");
        };
        let mut earlier: Vec<i64> = sizes.map(|(_, size)| size).take(SIZES).collect();
        let known = earlier.len();
        let usual = match median(&mut earlier) {
            Some(usual) if known >= ENOUGH_SIZES => usual,
            _ => {
                let text = format!(
                    "{known} of the {ENOUGH_SIZES} earlier backups are known that tell what is usual"
                );
                return self.ok(code, text);
            }
        };
        // A group whose sizes vary is given more room: eight times the middle deviation.
        let mut deviations: Vec<i64> = earlier
            .iter()
            .map(|size| size.saturating_sub(usual).saturating_abs())
            .collect();
        let room = median(&mut deviations)
            .unwrap_or(0)
            .saturating_mul(8)
            .max(LEAST_DIFFERENCE);
        let (shrunk, grown) = (
            usual.saturating_sub(size) > room,
            size.saturating_sub(usual) > room,
        );
        let state = match () {
            () if shrunk && size < usual / 10 => State::Critical,
            () if shrunk && size < usual / 2 => State::Warning,
            () if grown && size / 3 > usual => State::Warning,
            () => State::Ok,
        };
        let text = format!(
            "the backup of {} has {}; {} is usual",
            self.moment.text(time),
            bytes(size),
            bytes(usual)
        );
        let finding = self.ok(code, text);
        let finding = match state {
            State::Ok => finding,
            state if shrunk => finding.bad(
                state,
                Some(time),
                "see whether something is missing in it, such as a disk or a directory that was not mounted",
            ),
            state => finding.bad(state, Some(time), "see what has grown in it, and whether the datastore has room for more"),
        };
        finding.measured(float(size), "B", None, None)
    }

    fn damage(&self) -> Finding {
        let code = Code::BackupVerifyFailed;
        let damaged = &self.group.damaged;
        let count = damaged.len();
        let finding = match damaged.as_slice() {
            [] => self.ok(code, "verification has found no damage"),
            times => {
                let shown: Vec<String> = times
                    .iter()
                    .take(3)
                    .map(|time| self.moment.text(*time))
                    .collect();
                let more = count.saturating_sub(shown.len());
                let more = match more {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let (noun, verb) = if count == 1 {
                    ("backup", "is")
                } else {
                    ("backups", "are")
                };
                self.ok(code, format!("{count} {noun} {verb} damaged: of {}{more}", shown.join(", "))).bad(
                    State::Critical,
                    None,
                    "back it up anew, which may heal its chunks, or sync them from a good copy with 'resync-corrupt'; then verify \
                     again",
                )
            }
        };
        finding.measured(float_u(count as u64), "", None, 0.0)
    }

    fn verification(&self, jobs: &[VerificationFacts]) -> Finding {
        let code = Code::BackupVerifyOld;
        let Some(oldest) = self.group.oldest else {
            return self.ok(code, "there is nothing to verify");
        };
        let covers = |job: &&VerificationFacts| {
            let below = self
                .group
                .namespace
                .depth()
                .saturating_sub(job.namespace.depth());
            job.datastore == self.group.datastore
                && job.namespace.contains(&self.group.namespace)
                && job.depth.is_none_or(|depth| below <= depth)
        };
        let Some(job) = jobs
            .iter()
            .filter(covers)
            .min_by_key(|job| job.again_after.unwrap_or(i64::MAX))
        else {
            let text = match self.group.verified {
                Some(at) => format!("last verified {}; no job verifies it", self.moment.ago(at)),
                None => "it was never verified; no job verifies it".to_owned(),
            };
            return self.ok(code, text);
        };
        let remedy = || {
            format!(
                "see why verify job '{0}' does not reach it: proxmox-backup-manager verify-job run {0}",
                job.job
            )
        };
        let Some(verified) = self.group.verified else {
            let age = self.moment.age(oldest);
            let finding = self.ok(code, "it was not verified yet");
            return match age > UNVERIFIED {
                true => finding.bad(
                    State::Warning,
                    Some(oldest.saturating_add(UNVERIFIED)),
                    remedy(),
                ),
                false => finding,
            }
            .measured(float(age), "s", float(UNVERIFIED), None);
        };
        // What is verified once and never again is as it should be while nothing new comes.
        let newest = self
            .group
            .newest
            .first()
            .map_or(verified, |snapshot| snapshot.time);
        let limit = match job.again_after {
            Some(days) => days.saturating_mul(DAY).saturating_add(VERIFY_GRACE),
            None if newest <= verified => i64::MAX,
            None => UNVERIFIED,
        };
        let age = self.moment.age(verified);
        let finding = self.ok(code, format!("last verified {}", self.moment.ago(verified)));
        match age > limit {
            true => finding.bad(
                State::Warning,
                Some(verified.saturating_add(limit)),
                remedy(),
            ),
            false => finding,
        }
        .measured(
            float(age),
            "s",
            Some(float(limit)).filter(|_| limit < i64::MAX),
            None,
        )
    }
}

const STALE: &str = "see whether its backup job runs and reaches this server; if its cadence has changed, say so with 'backstop health expect \
                     set', and with '--every never' if it is finished";
const NO_BACKUP: &str = "see whether its backup job runs and reaches this server";

/// Places of which backups are expected, and that hold no group at all.
fn missing(facts: &Facts, settings: &Settings, moment: &Moment, findings: &mut Vec<Finding>) {
    let mut by_datastore: BTreeMap<&str, Vec<&GroupFacts>> = BTreeMap::new();
    for group in &facts.groups {
        by_datastore
            .entry(&group.datastore)
            .or_default()
            .push(group);
    }
    for made in &settings.expectations {
        let place = &made.place;
        let Some((limit, _)) = made.every.limits() else {
            continue;
        };
        let known = by_datastore.get(place.datastore.as_str());
        let is_here = |group: &&GroupFacts| match (&place.group, &place.namespace) {
            (Some(wanted), _) => group.group == *wanted && group.namespace == place.of_group(),
            (None, Some(namespace)) => namespace.contains(&group.namespace),
            (None, None) => true,
        };
        let is_listed = facts.listed.contains(&place.datastore);
        if !is_listed
            || known.is_some_and(|groups| groups.iter().copied().any(|group| is_here(&group)))
        {
            continue;
        }
        let namespace = place.of_group();
        let object = match &place.group {
            Some(group) => group_object(&place.datastore, &namespace, group),
            None => group_object(&place.datastore, &namespace, "*"),
        };
        let scope = Scope {
            datastore: Some(place.datastore.clone()),
            namespace: Some(namespace),
            group: place.group.clone(),
            ..Scope::default()
        };
        let due = made.made_at.saturating_add(limit);
        let text = format!(
            "there is no backup of {place}; one every {} is expected",
            made.every
        );
        let finding = Finding::ok(Code::BackupStale, &object, &scope, text);
        findings.push(match moment.now > due {
            true => finding.bad(State::Critical, Some(due), NO_BACKUP),
            false => finding,
        });
    }
}

/// A size for people.
pub fn bytes(size: i64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = float(size);
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    match unit {
        0 => format!("{size} B"),
        _ => format!("{value:.1} {name}"),
    }
}
