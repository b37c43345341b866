//! What has changed in the list of checks, and what could not be looked at.

use serde::{Deserialize, Serialize};

use crate::{Check, Code, Scope, State};

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
    /// The name of an object, such as `datastore/store1`, with all below it; with a slash at its end, only what is below.
    pub prefix: String,
    /// Why.
    pub reason: String,
}

impl Held {
    /// Whether an object is among it.
    pub fn covers(&self, object: &str) -> bool {
        object.strip_prefix(&self.prefix).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with('/') || self.prefix.ends_with('/')
        })
    }
}

/// What [`Ledger::observe`] makes of findings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    /// All checks, in the order of the findings, then what could not be looked at or is gone.
    pub checks: Vec<Check>,
    /// What has changed.
    pub changes: Vec<Change>,
}
