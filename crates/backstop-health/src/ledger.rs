//! The memory of health: since when something is as it is, who knows of it, what was expected, and what has changed.
//!
//! Three rules, which tests check for all sequences: what is bad stays on the list until it has recovered; a maintenance window or
//! an acknowledgement changes who is called, and never what is shown; whoever was told of trouble is told of its end.

mod change;
mod entry;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Acknowledgement, Code, Finding, Moment, Window};

pub use change::{Change, Held, Observation, Reason};
use entry::Entry;

/// Changes that are remembered.
const HISTORY: usize = 1000;

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
    /// Takes in what was found now. Of what one of `held` covers, nothing is known now: it stays as it was.
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
            let reason = held.iter().find(|held| held.covers(&key.1));
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
            count: entry.finding.damage(),
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

    /// Whether trouble with this that comes now, or goes on, calls for nobody: it is acknowledged, or expected in a maintenance window.
    pub fn is_quiet(&self, code: Code, object: &str, windows: &[Window], moment: &Moment) -> bool {
        let entry = self.entries.get(&(code, object.to_owned()));
        entry.is_some_and(|entry| entry.is_quiet(windows, moment))
    }

    /// Forgets a check of which nothing is to be said any more: somebody knows of it for good.
    pub fn forget(&mut self, code: Code, object: &str) {
        self.entries.remove(&(code, object.to_owned()));
    }

    /// The last changes, oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Change> {
        self.history.iter()
    }
}
