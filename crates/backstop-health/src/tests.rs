#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Sequences under a simulated clock, from facts to what somebody is told.

mod absences;
mod cadences;
mod gathering;
mod properties;
mod quiet;
mod rules;
mod sequences;

use backstop_types::Namespace;
use jiff::tz::TimeZone;

use crate::facts::*;
use crate::*;

pub const HOUR: i64 = 3600;
pub const DAY: i64 = 24 * HOUR;
/// A Sunday, 2026-11-29 00:00:00 UTC.
pub const START: i64 = 1_795_910_400;

/// A simulated server: facts that a test changes, a clock that it moves, and the real memory.
pub struct World {
    pub now: i64,
    pub facts: Facts,
    pub settings: Settings,
    pub learnt: Learnt,
    pub ledger: Ledger,
    pub held: Vec<Held>,
    pub last: Observation,
}

impl World {
    pub fn new() -> Self {
        Self {
            now: START,
            facts: Facts {
                started: START - 100 * DAY,
                ..Facts::default()
            },
            settings: Settings::default(),
            learnt: Learnt::default(),
            ledger: Ledger::default(),
            held: Vec::new(),
            last: Observation::default(),
        }
    }

    pub fn moment(&self) -> Moment {
        Moment::new(self.now, TimeZone::UTC)
    }

    /// Looks at the facts after some seconds. Tells what is new, as `FROM>TO`, with `!` where somebody is told.
    pub fn look_after(&mut self, seconds: i64) -> Vec<String> {
        self.now += seconds;
        let moment = self.moment();
        for group in &self.facts.groups {
            let times: Vec<i64> = group.newest.iter().map(|snapshot| snapshot.time).collect();
            self.learnt.note_backups(&group.object(), &times, self.now);
        }
        for job in &self.facts.jobs {
            self.learnt.note_lateness(job, self.facts.started, &moment);
        }
        let findings = judge(&self.facts, &self.settings, &self.learnt, &moment);
        let windows = &self.settings.windows;
        // The memory survives a restart at any time.
        let text = serde_json::to_string(&self.ledger).unwrap();
        let mut ledger: Ledger = serde_json::from_str(&text).unwrap();
        let text = serde_json::to_string(&self.learnt).unwrap();
        self.learnt = serde_json::from_str(&text).unwrap();
        let restarted = ledger.observe(findings.clone(), &self.held, windows, &moment);
        self.last = self.ledger.observe(findings, &self.held, windows, &moment);
        assert_eq!(restarted.changes, self.last.changes);
        let told = self.last.changes.iter().map(|change| {
            let loud = if change.loud { "!" } else { "" };
            let why = match change.reason {
                Reason::Changed => "",
                Reason::Gone => " gone",
                Reason::OutlastedWindow => " outlasted",
                Reason::AcknowledgementEnded => " unacknowledged",
            };
            format!("{} {}>{}{why}{loud}", change.code, change.from, change.to)
        });
        told.collect()
    }

    /// Lets the first group be watched for long, so that its cadence counts.
    pub fn watched(&mut self) {
        let object = self.facts.groups[0].object();
        let (first, since) = (START - 60 * DAY, START - 50 * DAY);
        self.learnt.note_backups(&object, &[first], since);
    }

    pub fn check(&self, code: Code) -> &Check {
        let mut found = self
            .last
            .checks
            .iter()
            .filter(|check| check.finding.code == code);
        found
            .next()
            .unwrap_or_else(|| panic!("no {code} in {:#?}", self.last.checks))
    }

    pub fn state(&self, code: Code) -> State {
        self.check(code).finding.state
    }

    pub fn evidence(&self, code: Code) -> &str {
        &self.check(code).finding.evidence
    }

    pub fn job(&mut self) -> &mut JobFacts {
        &mut self.facts.jobs[0]
    }

    /// A run of the first job ends now.
    pub fn ran(&mut self, outcome: Outcome) {
        let now = self.now;
        let job = self.job();
        match outcome {
            Outcome::Ok | Outcome::Warnings(_) => {
                job.last_success = Some(now);
                job.failures = 0;
            }
            _ => job.failures += 1,
        }
        job.reference = now - 60;
        job.running = None;
        job.last = Some(RunFacts {
            start: now - 60,
            end: now,
            outcome,
            task: "UPID:x".to_owned(),
        });
    }

    /// The only window: from now on for some seconds.
    pub fn window(&mut self, seconds: i64) {
        self.settings.windows = vec![Window {
            id: "upgrade".to_owned(),
            schedule: None,
            start: Some(self.now),
            duration: seconds,
            place: None,
            codes: Vec::new(),
            object: None,
            comment: String::new(),
            made_by: "root@pam".to_owned(),
            made_at: self.now,
        }];
    }
}

pub fn failed() -> Outcome {
    Outcome::Failed("connection refused".to_owned())
}

/// A sync job with a schedule.
pub fn sync_job(schedule: &str) -> JobFacts {
    JobFacts {
        kind: "sync",
        id: "offsite".to_owned(),
        scope: Scope::datastore("store1"),
        schedule: Some(schedule.to_owned()),
        reference: START - HOUR,
        ..JobFacts::default()
    }
}

/// A group that was backed up at these ages, each of the size.
pub fn group(ages: &[i64], size: u64) -> GroupFacts {
    let newest = ages.iter().map(|age| SnapshotFacts {
        time: START - age,
        size: Some(size),
    });
    GroupFacts {
        datastore: "store1".to_owned(),
        namespace: Namespace::root(),
        group: "vm/100".to_owned(),
        owner: Some("root@pam".to_owned()),
        oldest: ages.last().map(|age| START - age),
        newest: newest.collect(),
        ..GroupFacts::default()
    }
}

pub fn daily(count: i64) -> Vec<i64> {
    (0..count).map(|day| day * DAY).collect()
}
