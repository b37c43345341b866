//! Configured jobs, as far as the server itself reads them.

use backstop_calendar::retention::KeepOptions;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{AuthId, ByteSize, ConfigId, DatastoreName, GroupFilter, Namespace};

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

/// Where the data of a sync job goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncDirection {
    /// Here.
    #[default]
    Pull,
    /// To the remote.
    Push,
}

/// A section of `sync.cfg`, or a sync that is asked for once.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SyncJobConfig {
    /// The datastore here.
    pub store: DatastoreName,
    /// The namespace here; unset: the root.
    #[serde(default)]
    pub ns: Namespace,
    /// The other server; unset: this one.
    pub remote: Option<ConfigId>,
    /// The datastore there.
    pub remote_store: DatastoreName,
    /// The namespace there; unset: the root.
    #[serde(default)]
    pub remote_ns: Namespace,
    /// Who owns what is pulled; unset: `root@pam`.
    pub owner: Option<AuthId>,
    /// Whether what is gone at the source is removed at the target.
    #[serde(default)]
    pub remove_vanished: bool,
    /// How many levels of namespaces below the anchor; unset: all.
    pub max_depth: Option<usize>,
    /// Which groups; none: all.
    #[serde(default)]
    pub group_filter: Vec<GroupFilter>,
    /// Limit of what is received, per second.
    pub rate_in: Option<String>,
    /// How much may be received at once.
    pub burst_in: Option<String>,
    /// Limit of what is sent, per second.
    pub rate_out: Option<String>,
    /// How much may be sent at once.
    pub burst_out: Option<String>,
    /// How many of the newest snapshots of each group; unset: all.
    pub transfer_last: Option<usize>,
    /// Whether snapshots whose verification failed here are pulled again.
    #[serde(default)]
    pub resync_corrupt: bool,
    /// Where the data goes.
    #[serde(default)]
    pub sync_direction: SyncDirection,
    /// Only snapshots all of whose files are encrypted.
    #[serde(default)]
    pub encrypted_only: bool,
    /// Only snapshots that the source verified.
    #[serde(default)]
    pub verified_only: bool,
    /// How many groups at the same time; unset: as many as is sensible.
    pub worker_threads: Option<usize>,
    /// The key that encrypts what is pushed.
    #[serde(alias = "encryption-key")]
    pub active_encryption_key: Option<String>,
    /// Keys that decrypt what is pulled.
    #[serde(default, alias = "decryption-keys")]
    pub associated_key: Vec<String>,
    /// Whether it runs when the removable datastore is mounted.
    #[serde(default)]
    pub run_on_mount: bool,
    /// Whether the removable datastore is unmounted then.
    #[serde(default)]
    pub unmount_on_done: bool,
}

impl SyncJobConfig {
    /// Reads a section as the API shows it.
    ///
    /// # Errors
    /// When a property has the wrong type; the section's schema excludes that.
    pub fn from_api(section: Map<String, Value>) -> Result<Self, serde_json::Error> {
        serde_json::from_value(Value::Object(section))
    }

    /// Who owns what is pulled, and whose privileges count.
    #[must_use]
    pub fn owner(&self) -> AuthId {
        self.owner.clone().unwrap_or_else(AuthId::root)
    }

    /// A size with its unit in bytes; the section's schema excludes nonsense.
    #[must_use]
    pub fn bytes(size: Option<&String>) -> Option<u64> {
        let size: ByteSize = size?.parse().ok()?;
        Some(size.bytes())
    }

    /// The id of a task for the job of this id.
    #[must_use]
    pub fn worker_id(&self, id: &str) -> String {
        let remote = self.remote.as_ref().map_or("-", |remote| remote.as_str());
        let (store, ns) = (&self.store, &self.ns);
        format!("{remote}:{}:{store}:{ns}:{id}", self.remote_store)
    }
}

const fn yes() -> bool {
    true
}
