//! Datastores: their settings, sizes and garbage collection.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{DatastoreName, MaintenanceMode, NameError, Tuning, Upid};

/// Whether the device of a datastore is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountStatus {
    /// A removable device, present.
    Mounted,
    /// A removable device, absent.
    NotMounted,
    /// Not on a removable device.
    #[default]
    NonRemovable,
}

/// What a datastore is stored on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendType {
    /// A directory.
    #[default]
    Filesystem,
    /// Object storage.
    S3,
}

/// A datastore in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DatastoreListItem {
    /// Its name.
    pub store: DatastoreName,
    /// Its comment; null when there is none or the caller must not see it.
    #[serde(default)]
    pub comment: Option<String>,
    /// Whether its device is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_status: Option<MountStatus>,
    /// Its maintenance mode, as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<String>,
    /// What it is stored on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_type: Option<BackendType>,
}

/// Hits and misses of the chunk cache of a garbage collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CacheStats {
    /// Chunks that needed no second touch.
    pub hits: u64,
    /// Chunks that were touched.
    pub misses: u64,
}

/// Result of the last garbage collection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GcStatus {
    /// The task; null when there was none.
    #[serde(default)]
    pub upid: Option<String>,
    /// Number of index files.
    pub index_file_count: u64,
    /// Bytes that all indexes refer to.
    pub index_data_bytes: u64,
    /// Bytes of the chunks in use.
    pub disk_bytes: u64,
    /// Number of chunks in use.
    pub disk_chunks: u64,
    /// Bytes that were freed.
    pub removed_bytes: u64,
    /// Chunks that were removed.
    pub removed_chunks: u64,
    /// Bytes of unused chunks that are still too young.
    pub pending_bytes: u64,
    /// Unused chunks that are still too young.
    pub pending_chunks: u64,
    /// Chunks marked as bad that were removed.
    #[serde(default)]
    pub removed_bad: u64,
    /// Chunks marked as bad that stay.
    #[serde(default)]
    pub still_bad: u64,
    /// Use of the chunk cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_stats: Option<CacheStats>,
}

/// Garbage collection of a datastore as a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GcJobStatus {
    /// The datastore.
    pub store: DatastoreName,
    /// Result of the last run.
    #[serde(flatten)]
    pub status: GcStatus,
    /// When it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Next run, seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run: Option<i64>,
    /// End of the last run, seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_endtime: Option<i64>,
    /// How the last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_state: Option<String>,
    /// How long the last run took, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<i64>,
}

/// Groups and snapshots of one backup type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TypeCount {
    /// Number of groups.
    pub groups: u64,
    /// Number of snapshots.
    pub snapshots: u64,
}

/// Groups and snapshots by type; null where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TypeCounts {
    /// Containers.
    pub ct: Option<TypeCount>,
    /// Hosts.
    pub host: Option<TypeCount>,
    /// Virtual machines.
    pub vm: Option<TypeCount>,
    /// Anything else.
    pub other: Option<TypeCount>,
}

/// Sizes of a datastore in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DatastoreStatus {
    /// Size of the file system.
    pub total: u64,
    /// What is used of it.
    pub used: u64,
    /// What is available.
    pub avail: u64,
    /// Last garbage collection; on request only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gc_status: Option<GcStatus>,
    /// Number of groups and snapshots; on request only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<TypeCounts>,
    /// What it is stored on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_type: Option<BackendType>,
}

/// A datastore with its sizes over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DatastoreUsage {
    /// Its name.
    pub store: DatastoreName,
    /// Size of the file system in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Used bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// Available bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avail: Option<u64>,
    /// Whether its device is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_status: Option<MountStatus>,
    /// Used part of the whole over the last month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<Option<f64>>>,
    /// Time of the first value, seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_start: Option<u64>,
    /// Seconds between values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_delta: Option<u64>,
    /// When it will be full, seconds since the epoch; 0 for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_full_date: Option<i64>,
    /// Why it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Last garbage collection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gc_status: Option<GcStatus>,
    /// What it is stored on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_type: Option<BackendType>,
}

/// Operations under way on a datastore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ActiveOperations {
    /// Reading ones.
    pub read: i64,
    /// Writing ones.
    pub write: i64,
}

/// A datastore's section of `datastore.cfg`, as far as the server itself reads it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DatastoreConfig {
    /// Its name.
    pub name: DatastoreName,
    /// Its directory; relative on a removable device.
    pub path: String,
    /// One line of comment.
    pub comment: Option<String>,
    /// When garbage collection runs.
    pub gc_schedule: Option<String>,
    /// Whether garbage collection runs before the device is unmounted.
    #[serde(default)]
    pub gc_on_unmount: bool,
    /// Whether each backup is verified as soon as it is finished.
    #[serde(default)]
    pub verify_new: bool,
    /// Tuning settings as configured.
    pub tuning: Option<String>,
    /// Maintenance mode as configured.
    pub maintenance_mode: Option<String>,
    /// File-system UUID of the removable device.
    pub backing_device: Option<String>,
    /// Backend as configured.
    pub backend: Option<String>,
    /// Whom to notify.
    pub notify_user: Option<String>,
    /// Of what to notify.
    pub notify: Option<String>,
    /// How to notify.
    pub notification_mode: Option<String>,
}

impl DatastoreConfig {
    /// Reads a section as the API shows it.
    ///
    /// # Errors
    /// When a property has the wrong type; the section's schema excludes that.
    pub fn from_api(section: Map<String, Value>) -> Result<Self, serde_json::Error> {
        serde_json::from_value(Value::Object(section))
    }

    /// The tuning settings.
    ///
    /// # Errors
    /// When they cannot be understood.
    pub fn tuning(&self) -> Result<Tuning, NameError> {
        self.tuning.as_deref().unwrap_or_default().parse()
    }

    /// The maintenance mode, if any.
    ///
    /// # Errors
    /// When it cannot be understood; then the datastore should not be used.
    pub fn maintenance(&self) -> Result<Option<MaintenanceMode>, NameError> {
        self.maintenance_mode.as_deref().map(str::parse).transpose()
    }

    /// What it is stored on.
    #[must_use]
    pub fn backend_type(&self) -> BackendType {
        let pairs = self
            .backend
            .as_deref()
            .and_then(|text| crate::property_string::parse(text, Some("type")).ok())
            .unwrap_or_default();
        match pairs.iter().find(|(key, _)| *key == "type") {
            Some((_, value)) if value == "s3" => BackendType::S3,
            _ => BackendType::Filesystem,
        }
    }
}

impl GcStatus {
    /// The task, when it has a readable identity.
    #[must_use]
    pub fn task(&self) -> Option<Upid> {
        self.upid.as_deref().and_then(|upid| upid.parse().ok())
    }
}
