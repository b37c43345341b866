//! Backup groups: stale, shrunk or grown, damaged, not verified for too long; and what is expected and not there at all.

mod missing;
mod size;
mod stale;
mod verification;

use crate::facts::{Facts, GroupFacts};
use crate::number::float;
use crate::{Code, Finding, Learnt, Moment, Scope, Settings};

pub fn judge(
    facts: &Facts,
    settings: &Settings,
    learnt: &Learnt,
    moment: &Moment,
    findings: &mut Vec<Finding>,
) {
    for group in &facts.groups {
        let object = group.object();
        let scope = group.scope();
        let about = About {
            group,
            object: &object,
            scope: &scope,
            moment,
        };
        findings.push(about.stale(settings.expectation(&scope), learnt));
        findings.extend(about.clock());
        findings.push(about.size());
        findings.push(about.damage());
        findings.push(about.verification(&facts.verifications));
    }
    missing::judge(facts, settings, moment, findings);
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
