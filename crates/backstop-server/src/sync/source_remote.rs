//! Another server as a source. What it answers is not trusted.

use std::sync::Arc;

use backstop_client::api::DatastoreApi;
use backstop_client::connection::rate::SharedLimit;
use backstop_client::reader::{ReaderSession, SnapshotAccess};
use backstop_client::{ClientError, HttpClient, RateLimit};
use backstop_format::{CryptMode, Digest};
use backstop_types::record::{FileItem, NamespaceItem, SyncJobConfig};
use backstop_types::{
    ArchiveName, BackupGroup, BackupId, BackupTime, BackupType, Namespace, Snapshot,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{Result, SyncError};
use super::source::{Listed, ListedGroup, MAX_FILE};
use crate::config::remote::RemoteAccount;
use crate::http::error::chain;

/// Another server.
pub(super) struct RemoteSource {
    client: HttpClient,
    api: DatastoreApi,
    datastore: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct GroupEntry {
    backup_type: BackupType,
    backup_id: BackupId,
    backup_count: Option<u64>,
}

#[derive(Deserialize)]
struct Verification {
    state: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SnapshotEntry {
    backup_type: BackupType,
    backup_id: BackupId,
    backup_time: BackupTime,
    #[serde(default)]
    files: Vec<FileItem>,
    /// Only finished snapshots have one.
    size: Option<u64>,
    verification: Option<Verification>,
    comment: Option<String>,
    fingerprint: Option<String>,
}

impl SnapshotEntry {
    /// Of all that tells of a change: the files with their sizes, that of the manifest among them, and the notes.
    fn mark(&self) -> Option<Digest> {
        let mut files: Vec<&FileItem> = self.files.iter().collect();
        files.sort_by(|a, b| a.filename.cmp(&b.filename));
        let manifest = files
            .iter()
            .find(|file| file.filename == ArchiveName::MANIFEST);
        // Without its size a change of the manifest would not show.
        manifest?.size?;
        let text =
            serde_json::to_vec(&(files, self.size, &self.comment, &self.fingerprint)).ok()?;
        Some(Digest::of(&text))
    }

    fn listed(self) -> Listed {
        Listed {
            is_finished: self.size.is_some(),
            is_encrypted: are_encrypted(&self.files),
            mark: self.mark(),
            is_verified: self.verification.is_some_and(|found| found.state == "ok"),
            snapshot: BackupGroup::new(self.backup_type, self.backup_id).snapshot(self.backup_time),
        }
    }
}

impl RemoteSource {
    /// Logs in.
    pub async fn connect(account: &RemoteAccount, config: &SyncJobConfig) -> Result<Self> {
        let client = log_in(account, config).await?;
        let datastore = config.remote_store.to_string();
        Ok(Self {
            api: DatastoreApi::new(client.clone(), &datastore),
            client,
            datastore,
        })
    }

    pub async fn namespaces(
        &self,
        anchor: &Namespace,
        max_depth: Option<usize>,
    ) -> Result<Option<Vec<Namespace>>> {
        let depth = max_depth.and_then(|depth| u64::try_from(depth).ok());
        let mut envelope = match self.api.namespaces(anchor, depth).await {
            // The call is not known, which is not the same as a namespace that is not there.
            Err(ClientError::Status {
                status: 404,
                message,
                ..
            }) if !message.contains("namespace '") => return Ok(None),
            other => other?,
        };
        let items: Vec<NamespaceItem> = parse(envelope["data"].take())?;
        let below = items.into_iter().map(|item| item.ns);
        Ok(Some(below.filter(|ns| anchor.contains(ns)).collect()))
    }

    pub async fn groups(&self, namespace: &Namespace) -> Result<Vec<ListedGroup>> {
        let items: Vec<GroupEntry> = parse(self.api.groups(namespace).await?)?;
        let groups = items.into_iter();
        Ok(groups
            .map(|item| ListedGroup {
                group: BackupGroup::new(item.backup_type, item.backup_id),
                snapshots: item.backup_count,
            })
            .collect())
    }

    pub async fn snapshots(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
    ) -> Result<Vec<Listed>> {
        let items: Vec<SnapshotEntry> = self.api.snapshots_as(namespace, Some(group)).await?;
        let listed = items.into_iter().map(SnapshotEntry::listed);
        Ok(listed
            .filter(|listed| listed.snapshot.group == *group)
            .collect())
    }

    /// The snapshots of all groups of a namespace.
    pub async fn all_snapshots(&self, namespace: &Namespace) -> Result<Vec<Listed>> {
        let items: Vec<SnapshotEntry> = self.api.snapshots_as(namespace, None).await?;
        Ok(items.into_iter().map(SnapshotEntry::listed).collect())
    }

    pub async fn open(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
    ) -> Result<Arc<ReaderSession>> {
        let access = SnapshotAccess {
            datastore: self.datastore.clone(),
            namespace: namespace.clone(),
            snapshot: snapshot.clone(),
            key: None,
        };
        Ok(ReaderSession::open(&self.client, &access, 1).await?)
    }
}

/// Logs in to another server. All connections share the limits of the job.
pub(super) async fn log_in(account: &RemoteAccount, config: &SyncJobConfig) -> Result<HttpClient> {
    let limit = |rate: &Option<String>, burst: &Option<String>| RateLimit {
        rate: SyncJobConfig::bytes(rate.as_ref()),
        burst: SyncJobConfig::bytes(burst.as_ref()),
    };
    let mut options = account.client_options();
    options.shared_limit = Some(SharedLimit::new(
        limit(&config.rate_in, &config.burst_in),
        limit(&config.rate_out, &config.burst_out),
    ));
    HttpClient::connect(options).await.map_err(|error| {
        // The end of a task is one line.
        let reason = chain(&error);
        let reason: Vec<&str> = reason.lines().map(str::trim).collect();
        SyncError::Broken(format!(
            "remote connection to '{}' failed - {}",
            account.host,
            reason.join(" ")
        ))
    })
}

/// A file as the other server stores it; `None`: it has none of that name.
pub(super) async fn stored_file(
    session: &ReaderSession,
    name: &ArchiveName,
) -> Result<Option<Vec<u8>>> {
    match session.stored_file(name.as_str(), MAX_FILE).await {
        Err(ClientError::Status { status: 404, .. }) => Ok(None),
        other => Ok(Some(other?)),
    }
}

/// Whether all files are encrypted; the manifest is signed then, and the client's log does not count.
fn are_encrypted(files: &[FileItem]) -> bool {
    !files.is_empty()
        && files.iter().all(|file| match file.filename.as_str() {
            ArchiveName::MANIFEST => file.crypt_mode == Some(CryptMode::SignOnly),
            ArchiveName::CLIENT_LOG => true,
            _ => file.crypt_mode == Some(CryptMode::Encrypt),
        })
}

pub(super) fn parse<T: DeserializeOwned>(answer: Value) -> Result<T> {
    serde_json::from_value(answer).map_err(|error| {
        SyncError::Content(format!(
            "the answer of the other server makes no sense - {error}"
        ))
    })
}
