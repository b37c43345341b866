//! The memory of health: since when something is as it is, who knows of it, what was expected, and what has changed.
//!
//! Three rules, which tests check for all sequences: what is bad stays on the list until it has recovered; a maintenance window or
//! an acknowledgement changes who is called, and never what is shown; whoever was told of trouble is told of its end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Acknowledgement, Check, Code, Expected, Finding, Moment, Recovered, Scope, State, Window,
};

/// For how long something that has recovered shows that it was bad, in seconds.
const SHOWN: i64 = 86_400;
/// Changes that are remembered.
const HISTORY: usize = 1000;

/// Why a change is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The state has changed.
    Changed,
    /// What it was about is not there any more.
    Gone,
    /// It has lasted beyond its maintenance window.
    OutlastedWindow,
    /// Its acknowledgement has ended, and it has not.
    AcknowledgementEnded,
}

/// Something has changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Change {
    /// When it was seen, in seconds since 1970.
    pub at: i64,
    /// What was checked.
    pub code: Code,
    /// On what.
    pub object: String,
    /// Where that belongs to.
    #[serde(flatten)]
    pub scope: Scope,
    /// How bad it was.
    pub from: State,
    /// How bad it is.
    pub to: State,
    /// Why it is a change.
    pub reason: Reason,
    /// Since when it is bad, or was; in seconds since 1970.
    pub since: i64,
    /// What was seen.
    pub evidence: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Whether somebody is to be told: trouble that is neither expected nor acknowledged, and the end of trouble that somebody was
    /// told of.
    pub loud: bool,
}

/// What could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The begin of the names of objects, such as `group/store1/`.
    pub prefix: String,
    /// Why.
    pub reason: String,
}

/// What [`Ledger::observe`] makes of findings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    /// All checks, in the order of the findings, then what could not be looked at or is gone.
    pub checks: Vec<Check>,
    /// What has changed.
    pub changes: Vec<Change>,
}

/// Why something cannot be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerError {
    /// There is no such check.
    Unknown,
    /// All is well with it.
    Well,
    /// It is not acknowledged.
    NotAcknowledged,
    /// The end lies in the past.
    Past,
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "there is no such check; 'backstop health --all' lists them",
            Self::Well => "all is well with it, so that there is nothing to acknowledge",
            Self::NotAcknowledged => "it is not acknowledged",
            Self::Past => "an acknowledgement cannot end in the past",
        })
    }
}

impl std::error::Error for LedgerError {}

/// What is remembered of a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    /// As it was found last.
    finding: Finding,
    /// Since when it is bad, or well.
    since: i64,
    /// When it was seen to become bad, or worse.
    noticed: i64,
    /// Whether somebody was told of it.
    told: bool,
    /// Whether it was expected when it was looked at last.
    #[serde(default)]
    expected: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acknowledged: Option<Acknowledgement>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recovered: Option<Recovered>,
}

impl Entry {
    fn new(finding: Finding, now: i64) -> Self {
        Self {
            since: now,
            noticed: now,
            told: false,
            expected: false,
            acknowledged: None,
            recovered: None,
            finding: Finding {
                state: State::Ok,
                ..finding
            },
        }
    }

    /// Whether it would be missed after a restart.
    fn is_memorable(&self) -> bool {
        self.finding.state.is_bad() || self.recovered.is_some()
    }

    fn change(&self, from: State, reason: Reason, since: i64, at: i64, loud: bool) -> Change {
        let finding = &self.finding;
        Change {
            at,
            code: finding.code,
            object: finding.object.clone(),
            scope: finding.scope.clone(),
            from,
            to: finding.state,
            reason,
            since,
            evidence: finding.evidence.clone(),
            remedy: finding.remedy.clone(),
            loud,
        }
    }
}

/// What is remembered of all checks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Ledger {
    entries: BTreeMap<(Code, String), Entry>,
    history: VecDeque<Change>,
}

/// How it is written down: what is and was well needs no memory.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Stored {
    #[serde(default)]
    entries: Vec<Entry>,
    #[serde(default)]
    history: VecDeque<Change>,
}

impl From<Stored> for Ledger {
    fn from(stored: Stored) -> Self {
        let entries = stored.entries.into_iter();
        let keyed = entries.map(|entry| {
            let key = (entry.finding.code, entry.finding.object.clone());
            (key, entry)
        });
        Self {
            entries: keyed.collect(),
            history: stored.history,
        }
    }
}

impl From<Ledger> for Stored {
    fn from(ledger: Ledger) -> Self {
        let entries = ledger.entries.into_values();
        Self {
            entries: entries.filter(Entry::is_memorable).collect(),
            history: ledger.history,
        }
    }
}

impl Ledger {
    /// Takes in what was found now. Of what begins like one of `held`, nothing is known now: it stays as it was.
    pub fn observe(
        &mut self,
        findings: Vec<Finding>,
        held: &[Held],
        windows: &[Window],
        moment: &Moment,
    ) -> Observation {
        let mut observation = Observation::default();
        let mut seen = BTreeSet::new();
        for finding in findings {
            let key = (finding.code, finding.object.clone());
            if !seen.insert(key.clone()) {
                continue;
            }
            let entry = self
                .entries
                .entry(key)
                .or_insert_with(|| Entry::new(finding.clone(), moment.now));
            entry.take(finding, windows, moment, &mut observation);
        }
        let missing: Vec<_> = self
            .entries
            .keys()
            .filter(|key| !seen.contains(key))
            .cloned()
            .collect();
        for key in missing {
            let reason = held.iter().find(|held| key.1.starts_with(&held.prefix));
            let reason = reason.map(|held| held.reason.as_str());
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            match reason {
                Some(reason) => entry.hold(reason, windows, moment, &mut observation),
                None if entry.leave(moment, &mut observation) => {}
                None => drop(self.entries.remove(&key)),
            }
        }
        let surplus = |history: &VecDeque<Change>| history.len() > HISTORY;
        for change in &observation.changes {
            self.history.push_back(change.clone());
            while surplus(&self.history) {
                self.history.pop_front();
            }
        }
        observation
    }

    /// Somebody knows of it: it is not loud any more until it recovers, gets worse, or `until` has come.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn acknowledge(
        &mut self,
        code: Code,
        object: &str,
        by: &str,
        comment: &str,
        until: Option<i64>,
        now: i64,
    ) -> Result<(), LedgerError> {
        if until.is_some_and(|until| until <= now) {
            return Err(LedgerError::Past);
        }
        let key = (code, object.to_owned());
        let entry = self.entries.get_mut(&key).ok_or(LedgerError::Unknown)?;
        if !entry.finding.state.is_bad() {
            return Err(LedgerError::Well);
        }
        entry.acknowledged = Some(Acknowledgement {
            by: by.to_owned(),
            at: now,
            comment: comment.to_owned(),
            until,
            state: entry.finding.state,
        });
        Ok(())
    }

    /// Takes an acknowledgement back.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn unacknowledge(&mut self, code: Code, object: &str) -> Result<(), LedgerError> {
        let key = (code, object.to_owned());
        let entry = self.entries.get_mut(&key).ok_or(LedgerError::Unknown)?;
        let taken = entry.acknowledged.take();
        taken.map(|_| ()).ok_or(LedgerError::NotAcknowledged)
    }

    /// The last changes, oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Change> {
        self.history.iter()
    }
}

impl Entry {
    /// Takes in what was found of it.
    fn take(
        &mut self,
        finding: Finding,
        windows: &[Window],
        moment: &Moment,
        observation: &mut Observation,
    ) {
        let now = moment.now;
        let (from, to) = (self.finding.state, finding.state);
        let told_since = finding.since.filter(|since| *since <= now);
        let evidence = std::mem::take(&mut self.finding.evidence);
        self.finding = finding;
        match (from.is_bad(), to.is_bad()) {
            (false, true) => {
                self.since = told_since.unwrap_or(now);
                self.noticed = now;
                self.recovered = None;
            }
            (true, false) => {
                self.recovered = Some(Recovered {
                    from,
                    at: now,
                    bad_since: self.since,
                    evidence,
                });
                self.since = now;
            }
            _ if to > from => self.noticed = now,
            _ => {}
        }
        let bad_since = self
            .recovered
            .as_ref()
            .filter(|recovered| recovered.at == now && !to.is_bad())
            .map_or(self.since, |recovered| recovered.bad_since);
        let (was_acknowledged, was_expected) = (self.acknowledged.is_some(), self.expected);
        let expected = self.settle(windows, moment);
        let is_quiet = self.acknowledged.is_some() || expected.is_some();
        let change = if from != to {
            let loud = match to.is_bad() {
                true => !is_quiet,
                false => self.told,
            };
            Some((Reason::Changed, loud))
        } else if to.is_bad() && !is_quiet && was_acknowledged && !was_expected {
            Some((Reason::AcknowledgementEnded, true))
        } else if to.is_bad() && !is_quiet && was_expected {
            Some((Reason::OutlastedWindow, true))
        } else if to.is_bad() && !is_quiet && !self.told {
            // Its acknowledgement was taken back before anybody was told.
            Some((Reason::AcknowledgementEnded, true))
        } else {
            None
        };
        if let Some((reason, loud)) = change {
            self.told = (self.told || loud) && to.is_bad();
            let change = self.change(from, reason, bad_since, now, loud);
            observation.changes.push(change);
        }
        let check = self.check(expected, None);
        observation.checks.push(check);
    }

    /// Ends what has ended: acknowledgements, and the memory of trouble. Tells in which window it is expected.
    fn settle(&mut self, windows: &[Window], moment: &Moment) -> Option<Expected> {
        let (now, state) = (moment.now, self.finding.state);
        let holds = |made: &Acknowledgement| {
            state.is_bad() && state <= made.state && made.until.is_none_or(|until| now < until)
        };
        self.acknowledged = self.acknowledged.take().filter(holds);
        let is_news =
            |recovered: &Recovered| moment.age(recovered.at) < SHOWN && recovered.at <= now;
        self.recovered = self.recovered.take().filter(is_news);
        let expected = match state.is_bad() {
            true => self.expected_in(windows, moment),
            false => None,
        };
        self.expected = expected.is_some();
        expected
    }

    /// The window in which it came up, if that lasts.
    fn expected_in(&self, windows: &[Window], moment: &Moment) -> Option<Expected> {
        let concern = windows.iter().filter(|window| window.covers(&self.finding));
        let spans = concern.filter_map(|window| {
            let span = window.occurrence(self.noticed, &moment.zone)?;
            (moment.now < span.end && span.start <= moment.now).then(|| Expected {
                window: window.id.clone(),
                until: span.end,
            })
        });
        spans.max_by_key(|expected| expected.until)
    }

    fn check(&self, expected: Option<Expected>, held: Option<&str>) -> Check {
        let mut finding = self.finding.clone();
        finding.since = Some(self.since);
        if held.is_some() && !finding.state.is_bad() {
            finding.state = State::Unknown;
        }
        Check {
            finding,
            acknowledged: self.acknowledged.clone(),
            expected,
            recovered: self.recovered.clone(),
            held: held.map(str::to_owned),
        }
    }

    /// It could not be looked at.
    fn hold(
        &mut self,
        reason: &str,
        windows: &[Window],
        moment: &Moment,
        observation: &mut Observation,
    ) {
        let same = self.finding.clone();
        let mut own = Observation::default();
        self.take(same, windows, moment, &mut own);
        observation.changes.append(&mut own.changes);
        let expected = own.checks.pop().and_then(|check| check.expected);
        observation.checks.push(self.check(expected, Some(reason)));
    }

    /// It is not there any more. Tells whether it is still to be remembered.
    fn leave(&mut self, moment: &Moment, observation: &mut Observation) -> bool {
        if self.finding.state.is_bad() {
            // Ways out are known only while something waits for them.
            let (evidence, reason) = match self.finding.code {
                Code::NotificationUndelivered | Code::HeartbeatUndelivered => {
                    ("nothing waits for it any more", Reason::Changed)
                }
                _ => ("it is not there any more", Reason::Gone),
            };
            let gone = Finding::ok(
                self.finding.code,
                &self.finding.object,
                &self.finding.scope,
                evidence,
            );
            let mut own = Observation::default();
            self.take(gone, &[], moment, &mut own);
            for change in &mut own.changes {
                change.reason = reason;
            }
            observation.changes.append(&mut own.changes);
        } else {
            self.settle(&[], moment);
        }
        if self.recovered.is_none() {
            return false;
        }
        observation.checks.push(self.check(None, None));
        true
    }
}
