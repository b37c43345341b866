//! What the operator has said: how often backups are expected, and when trouble is.

use std::fmt;
use std::str::FromStr;

use backstop_types::Namespace;
use serde::{Deserialize, Serialize};

use crate::{Scope, Window, parse_span, span_text};

/// All of it: the content of `backstop-health.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How often backups are expected.
    #[serde(default)]
    pub expectations: Vec<Expectation>,
    /// Maintenance windows.
    #[serde(default)]
    pub windows: Vec<Window>,
}

/// Why a setting is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError(pub String);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingsError {}

/// A datastore, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The datastore.
    pub datastore: String,
    /// A namespace with those below it; `None`: the whole datastore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// One group of that namespace (the root namespace unless one is named), such as `vm/100`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

impl Place {
    /// Whether something belongs to it. What concerns a whole datastore does not belong to a part of it.
    pub fn contains(&self, scope: &Scope) -> bool {
        if scope.datastore.as_deref() != Some(self.datastore.as_str()) {
            return false;
        }
        if let Some(group) = &self.group {
            let namespace = scope.namespace.clone().unwrap_or_else(Namespace::root);
            return scope.group.as_ref() == Some(group) && namespace == self.of_group();
        }
        match (&self.namespace, &scope.namespace) {
            (None, _) => true,
            (Some(wanted), Some(namespace)) => wanted.contains(namespace),
            (Some(_), None) => false,
        }
    }

    /// The namespace of its group.
    pub fn of_group(&self) -> Namespace {
        self.namespace.clone().unwrap_or_else(Namespace::root)
    }

    /// The narrower of two places that contain the same group has the larger rank.
    fn rank(&self) -> (bool, usize) {
        let depth = self.namespace.as_ref().map_or(0, |ns| 1 + ns.depth());
        (self.group.is_some(), depth)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.datastore)?;
        if let Some(namespace) = self.namespace.as_ref().filter(|ns| !ns.is_root()) {
            write!(f, ", namespace {namespace}")?;
        }
        match &self.group {
            Some(group) => write!(f, ", {group}"),
            None => Ok(()),
        }
    }
}

/// How often backups come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Every {
    /// At least once in this many seconds.
    Seconds(i64),
    /// None is expected: the group is finished.
    Never,
}

impl Every {
    /// An age above this is a warning, and above the second one critical; in seconds.
    pub fn limits(self) -> Option<(i64, i64)> {
        match self {
            Self::Never => None,
            // A backup does not end to the second at the same time each day.
            Self::Seconds(every) => Some((
                every.saturating_add(every / 10),
                every.saturating_add(every / 2),
            )),
        }
    }
}

impl FromStr for Every {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "never" => Ok(Self::Never),
            text => parse_span(text).map(Self::Seconds),
        }
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(seconds) => f.write_str(&span_text(*seconds)),
            Self::Never => f.write_str("never"),
        }
    }
}

impl Serialize for Every {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // In seconds, so that nothing is lost.
            Self::Seconds(seconds) => serializer.serialize_str(&format!("{seconds}s")),
            Self::Never => serializer.serialize_str("never"),
        }
    }
}

impl<'de> Deserialize<'de> for Every {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How often backups of a place are expected: of each group there, and of at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Expectation {
    /// Of what.
    #[serde(flatten)]
    pub place: Place,
    /// How often.
    pub every: Every,
    /// Who said so.
    pub made_by: String,
    /// When, in seconds since 1970.
    pub made_at: i64,
}

impl Settings {
    /// The expectation for a group: the narrowest one.
    pub fn expectation(&self, scope: &Scope) -> Option<&Expectation> {
        let concern = self.expectations.iter();
        let concern = concern.filter(|expectation| expectation.place.contains(scope));
        concern.max_by_key(|expectation| expectation.place.rank())
    }

    /// Adds an expectation, or replaces that of the same place.
    ///
    /// # Errors
    /// There are too many.
    pub fn expect(&mut self, expectation: Expectation) -> Result<(), SettingsError> {
        let count = self.expectations.len();
        let same = |known: &Expectation| known.place == expectation.place;
        match self.expectations.iter().position(same) {
            Some(at) => drop(self.expectations.remove(at)),
            None if count >= MAX_SETTINGS => {
                return Err(SettingsError(format!(
                    "there are {MAX_SETTINGS} expectations already; name a namespace or a datastore instead of its groups"
                )));
            }
            None => {}
        }
        self.expectations.push(expectation);
        self.expectations.sort_by(|a, b| a.place.cmp(&b.place));
        Ok(())
    }

    /// Removes the expectation of a place.
    ///
    /// # Errors
    /// There is none.
    pub fn forget(&mut self, place: &Place) -> Result<(), SettingsError> {
        let before = self.expectations.len();
        self.expectations.retain(|known| known.place != *place);
        match self.expectations.len() == before {
            true => Err(SettingsError(format!("nothing is expected of {place}"))),
            false => Ok(()),
        }
    }

    /// Adds a maintenance window.
    ///
    /// # Errors
    /// There is one of this name, there are too many, or it makes no sense.
    pub fn add_window(&mut self, window: Window) -> Result<(), SettingsError> {
        window.check()?;
        if self.windows.iter().any(|known| known.id == window.id) {
            return Err(SettingsError(format!(
                "there is a maintenance window '{}' already",
                window.id
            )));
        }
        if self.windows.len() >= MAX_SETTINGS {
            return Err(SettingsError(format!(
                "there are {MAX_SETTINGS} maintenance windows already"
            )));
        }
        self.windows.push(window);
        Ok(())
    }

    /// Removes a maintenance window.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn remove_window(&mut self, id: &str) -> Result<(), SettingsError> {
        let before = self.windows.len();
        self.windows.retain(|known| known.id != id);
        match self.windows.len() == before {
            true => Err(SettingsError(format!("no such maintenance window '{id}'"))),
            false => Ok(()),
        }
    }
}

/// Most expectations, and most windows.
const MAX_SETTINGS: usize = 10_000;
