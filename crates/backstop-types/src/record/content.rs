//! Snapshots, groups, files and namespaces.

use backstop_format::{CryptMode, Fingerprint};
use serde::{Deserialize, Serialize};

use crate::{AuthId, BackupGroup, BackupId, BackupTime, BackupType, Namespace, Snapshot, Upid};

/// A file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileItem {
    /// Its stored name.
    pub filename: String,
    /// How it is protected; absent for files that the manifest does not name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crypt_mode: Option<CryptMode>,
    /// Its size in bytes; absent for files that the manifest does not name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// Outcome of the last verification of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyState {
    /// Everything was readable and intact.
    Ok,
    /// Something was missing or damaged.
    Failed,
}

/// The last verification of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotVerification {
    /// The task that did it.
    pub upid: Upid,
    /// Its outcome.
    pub state: VerifyState,
}

/// A snapshot in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SnapshotItem {
    /// What was backed up.
    pub backup_type: BackupType,
    /// Which one.
    pub backup_id: BackupId,
    /// When.
    pub backup_time: BackupTime,
    /// First line of the notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Its last verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<SnapshotVerification>,
    /// Fingerprint of the encryption key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// Its files.
    pub files: Vec<FileItem>,
    /// Sum of the file sizes in bytes; absent while the backup is unfinished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Who owns its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<AuthId>,
    /// Whether it must not be removed.
    #[serde(default)]
    pub protected: bool,
}

impl SnapshotItem {
    /// The snapshot's name.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(
            BackupGroup::new(self.backup_type, self.backup_id.clone()),
            self.backup_time,
        )
    }
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GroupItem {
    /// What was backed up.
    pub backup_type: BackupType,
    /// Which one.
    pub backup_id: BackupId,
    /// Time of the newest snapshot in seconds since the epoch; 0 without any.
    pub last_backup: i64,
    /// Number of snapshots.
    pub backup_count: u64,
    /// Names of the files of the newest snapshot.
    pub files: Vec<String>,
    /// Who owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<AuthId>,
    /// Its notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl GroupItem {
    /// The group's name.
    #[must_use]
    pub fn group(&self) -> BackupGroup {
        BackupGroup::new(self.backup_type, self.backup_id.clone())
    }
}

/// A namespace in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceItem {
    /// Its name; empty for the root.
    pub ns: Namespace,
    /// Its comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// What pruning did or would do with a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PruneItem {
    /// What was backed up.
    pub backup_type: BackupType,
    /// Which one.
    pub backup_id: BackupId,
    /// When.
    pub backup_time: BackupTime,
    /// Whether it is kept.
    pub keep: bool,
    /// Whether it is kept because it is protected.
    #[serde(default)]
    pub protected: bool,
    /// Its namespace; absent for the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns: Option<Namespace>,
    /// Why; only if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What deleting a group or namespace did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeleteStats {
    /// Groups that are gone.
    pub removed_groups: u64,
    /// Snapshots that stay because they are protected.
    pub protected_snapshots: u64,
    /// Snapshots that are gone.
    pub removed_snapshots: u64,
}

/// An entry of a file listing inside a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogItem {
    /// The whole path in base64.
    pub filepath: String,
    /// The last component as text.
    pub text: String,
    /// One letter: `d f l h b c p s`, `v` for an archive.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it has no entries below it.
    pub leaf: bool,
    /// Size of a file in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Time of last change, seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime: Option<i64>,
}
