//! Configured jobs, as far as the server itself reads them.

use backstop_calendar::retention::KeepOptions;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{DatastoreName, Namespace};

/// A section of `prune.cfg`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PruneJobConfig {
    /// Its id.
    pub id: String,
    /// The datastore.
    pub store: DatastoreName,
    /// When it runs.
    pub schedule: String,
    /// Whether it does not run by its schedule.
    #[serde(default)]
    pub disable: bool,
    /// The namespace; unset: the root.
    pub ns: Option<Namespace>,
    /// How many levels below it; unset: all.
    pub max_depth: Option<usize>,
    keep_last: Option<u64>,
    keep_hourly: Option<u64>,
    keep_daily: Option<u64>,
    keep_weekly: Option<u64>,
    keep_monthly: Option<u64>,
    keep_yearly: Option<u64>,
}

impl PruneJobConfig {
    /// Reads a section as the API shows it.
    ///
    /// # Errors
    /// When a property has the wrong type; the section's schema excludes that.
    pub fn from_api(section: Map<String, Value>) -> Result<Self, serde_json::Error> {
        serde_json::from_value(Value::Object(section))
    }

    /// What it keeps.
    #[must_use]
    pub fn keep(&self) -> KeepOptions {
        KeepOptions {
            last: self.keep_last,
            hourly: self.keep_hourly,
            daily: self.keep_daily,
            weekly: self.keep_weekly,
            monthly: self.keep_monthly,
            yearly: self.keep_yearly,
        }
    }
}

/// A section of `verification.cfg`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VerifyJobConfig {
    /// Its id.
    pub id: String,
    /// The datastore.
    pub store: DatastoreName,
    /// When it runs; unset: only on demand.
    pub schedule: Option<String>,
    /// Whether snapshots that were verified are left out.
    #[serde(default = "yes")]
    pub ignore_verified: bool,
    /// Whole days after which a verification is outdated; unset: never.
    pub outdated_after: Option<i64>,
    /// The namespace; unset: the root.
    pub ns: Option<Namespace>,
    /// How many levels below it; unset: all.
    pub max_depth: Option<usize>,
    /// Threads that read; unset: as the datastore says.
    pub read_threads: Option<usize>,
    /// Threads that check; unset: as the datastore says.
    pub verify_threads: Option<usize>,
}

impl VerifyJobConfig {
    /// Reads a section as the API shows it.
    ///
    /// # Errors
    /// When a property has the wrong type; the section's schema excludes that.
    pub fn from_api(section: Map<String, Value>) -> Result<Self, serde_json::Error> {
        serde_json::from_value(Value::Object(section))
    }
}

const fn yes() -> bool {
    true
}
