//! What is said of one thing that is checked: at a moment ([`Finding`]), and with its past ([`Check`]).

use backstop_types::Namespace;
use serde::{Deserialize, Serialize};

use crate::number::whole;
use crate::{Code, State};

/// What a check is about, as far as it decides who may see it and which settings concern it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// The datastore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
    /// The namespace, unless it is about the whole datastore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// The group, such as `vm/100`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The owner of the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
}

impl Scope {
    /// A whole datastore.
    pub fn datastore(name: &str) -> Self {
        Self {
            datastore: Some(name.to_owned()),
            ..Self::default()
        }
    }

    /// What an object is about, as far as its name tells: the place of a datastore or group.
    pub fn of_object(object: &str) -> Self {
        let mut words = object.split('/');
        match (words.next(), words.next()) {
            (Some("datastore"), Some(store)) => Self::datastore(store),
            (Some("group"), Some(store)) => {
                let rest: Vec<&str> = words.collect();
                let mut namespace = Vec::new();
                let mut rest = rest.as_slice();
                while let ["ns", component, more @ ..] = rest {
                    namespace.push(*component);
                    rest = more;
                }
                Self {
                    namespace: namespace.join("/").parse().ok(),
                    group: Some(rest.join("/")),
                    ..Self::datastore(store)
                }
            }
            _ => Self::default(),
        }
    }

    /// A remote.
    pub fn remote(name: &str) -> Self {
        Self {
            remote: Some(name.to_owned()),
            ..Self::default()
        }
    }
}

/// A number behind a check, with its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// The number.
    pub value: f64,
    /// `s`, `%`, `B` or, for counts, nothing.
    #[serde(default)]
    pub unit: String,
    /// Above (or, for what runs out, below) it is a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<f64>,
    /// Above (or below) it is critical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical: Option<f64>,
}

/// What is said of one thing at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What was checked.
    pub code: Code,
    /// On what, such as `job/sync/offsite`, `group/store1/vm/100`, `datastore/store1`.
    pub object: String,
    /// Where that belongs to.
    #[serde(flatten)]
    pub scope: Scope,
    /// How bad it is.
    pub state: State,
    /// Since when it is so, in seconds since 1970, if the facts tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// What was seen.
    pub evidence: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The number behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measure: Option<Measure>,
}

impl Finding {
    /// All is well with something.
    pub fn ok(code: Code, object: &str, scope: &Scope, evidence: impl Into<String>) -> Self {
        Self {
            code,
            object: object.to_owned(),
            scope: scope.clone(),
            state: State::Ok,
            since: None,
            evidence: evidence.into(),
            remedy: None,
            measure: None,
        }
    }

    /// It is not well.
    #[must_use]
    pub fn bad(mut self, state: State, since: Option<i64>, remedy: impl Into<String>) -> Self {
        self.state = state;
        self.since = since;
        self.remedy = Some(remedy.into());
        self
    }

    /// How much damage it counts: one damage that somebody knows of says nothing of the next. `None`: it counts none.
    pub(crate) fn damage(&self) -> Option<u64> {
        let counts = matches!(self.code, Code::BackupVerifyFailed | Code::DatastoreCorrupt);
        let measure = self.measure.as_ref().filter(|_| counts)?;
        u64::try_from(whole(measure.value)).ok()
    }

    /// The number behind it, with its limits.
    #[must_use]
    pub fn measured(
        mut self,
        value: f64,
        unit: &str,
        warning: impl Into<Option<f64>>,
        critical: impl Into<Option<f64>>,
    ) -> Self {
        let finite = |limit: Option<f64>| limit.filter(|limit| limit.is_finite());
        self.measure = value.is_finite().then(|| Measure {
            value,
            unit: unit.to_owned(),
            warning: finite(warning.into()),
            critical: finite(critical.into()),
        });
        self
    }
}

/// Somebody knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// Who.
    pub by: String,
    /// When, in seconds since 1970.
    pub at: i64,
    /// What they say of it.
    #[serde(default)]
    pub comment: String,
    /// When it is loud again, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// How bad it was then. Whatever is worse is loud again.
    pub state: State,
    /// How much damage was known then, for checks that count it. More is loud again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Acknowledgement {
    /// Whether its time has not come yet.
    pub(crate) fn lasts(&self, now: i64) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// The same while it knows of all damage that there is now; `None` when there is more. What is repaired is not known any more.
    pub(crate) fn still_knows(mut self, damage: Option<u64>) -> Option<Self> {
        match (self.count, damage) {
            (Some(known), Some(damage)) if damage > known => return None,
            (_, damage) => self.count = damage,
        }
        Some(self)
    }
}

/// It came up in a maintenance window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// The window's name.
    pub window: String,
    /// When the window ends, in seconds since 1970.
    pub until: i64,
}

/// It is well again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// How bad it was last.
    pub from: State,
    /// When it recovered, in seconds since 1970.
    pub at: i64,
    /// Since when it was bad, in seconds since 1970.
    pub bad_since: i64,
    /// What was seen then.
    pub evidence: String,
    /// It has not recovered: what it was about is not there any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
}

/// What is said of one thing, with its past.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What was found.
    #[serde(flatten)]
    pub finding: Finding,
    /// Who knows of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Acknowledgement>,
    /// The maintenance window in which it was expected, while that lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expected>,
    /// What it was before, for a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Recovered>,
    /// Why it could not be looked at just now; it is shown as it was last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
}

impl Check {
    /// Whether it calls for somebody: bad, and neither acknowledged nor expected. What could not be looked at and was well before
    /// does not call for anybody by itself; what keeps it from being looked at does.
    pub fn is_loud(&self) -> bool {
        let was_well = self.held.is_some() && self.finding.state == State::Unknown;
        self.finding.state.is_bad()
            && self.acknowledged.is_none()
            && self.expected.is_none()
            && !was_well
    }
}
