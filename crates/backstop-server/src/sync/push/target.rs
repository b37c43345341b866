//! The datastore of another server that is pushed to. What it answers is not trusted.

use std::collections::HashMap;

use backstop_client::api::DatastoreApi;
use backstop_client::writer::{BackupSession, SessionTarget};
use backstop_client::{ClientError, HttpClient};
use backstop_types::record::{DeleteStats, NamespaceItem, SyncJobConfig};
use backstop_types::{
    ArchiveName, AuthId, BackupGroup, BackupId, BackupTime, BackupType, DatastoreName, Namespace,
    Snapshot,
};
use serde::Deserialize;
use serde_json::Value;

use crate::config::remote::RemoteAccount;
use crate::http::error::chain;
use crate::sync::error::{Result, SyncError};
use crate::sync::source_remote::{log_in, parse};

/// The oldest server that knows namespaces.
const OLDEST: (u64, u64, u64) = (2, 2, 0);
/// The first one that tells what a removal removed.
const COUNTS_REMOVALS: (u64, u64, u64) = (3, 2, 11);

/// The other datastore.
pub(in crate::sync) struct PushTarget {
    client: HttpClient,
    api: DatastoreApi,
    datastore: DatastoreName,
    remote: String,
    user: AuthId,
    counts_removals: bool,
}

/// A group at the target.
#[derive(Debug, Clone)]
pub(in crate::sync) struct GroupThere {
    /// Whether it belongs to the account of the remote.
    pub is_own: bool,
    /// Time of its newest snapshot, if the target says, and that is finished.
    pub last: Option<BackupTime>,
}

/// A snapshot at the target, finished or not.
#[derive(Debug, Clone)]
pub(in crate::sync) struct SnapshotThere {
    pub time: BackupTime,
    pub is_finished: bool,
    pub is_protected: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct GroupEntry {
    backup_type: BackupType,
    backup_id: BackupId,
    last_backup: Option<i64>,
    owner: Option<AuthId>,
    /// Those of the snapshot that `last_backup` tells of.
    #[serde(default)]
    files: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SnapshotEntry {
    backup_time: BackupTime,
    #[serde(default)]
    protected: bool,
    /// Only finished snapshots have one.
    size: Option<u64>,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    release: String,
}

impl Version {
    fn numbers(&self) -> Option<(u64, u64, u64)> {
        let (major, minor) = self.version.split_once('.')?;
        let release = match self.release.as_str() {
            "" => 0,
            release => release.parse().ok()?,
        };
        Some((major.parse().ok()?, minor.parse().ok()?, release))
    }
}

/// What the target refuses, or that it cannot be reached, ends more than one snapshot.
pub(in crate::sync) fn refused(error: &ClientError) -> SyncError {
    SyncError::Broken(chain(error))
}

fn failed(attempt: impl std::fmt::Display) -> impl FnOnce(ClientError) -> SyncError {
    move |error| SyncError::Broken(format!("{attempt} failed - {}", chain(&error)))
}

impl PushTarget {
    /// Logs in, and looks whether the server is new enough.
    pub async fn connect(account: &RemoteAccount, config: &SyncJobConfig) -> Result<Self> {
        let client = log_in(account, config).await?;
        let answer = client.version().await;
        let version: Version = parse(answer.map_err(failed("asking the remote for its version"))?)?;
        let numbers = version.numbers().ok_or_else(|| {
            SyncError::Broken(format!(
                "the remote has version '{}', release '{}', which are no numbers",
                version.version, version.release
            ))
        })?;
        if numbers < OLDEST {
            return Err(SyncError::Broken(
                "Unsupported remote api version, minimum v2.2 required".to_owned(),
            ));
        }
        let datastore = config.remote_store.clone();
        Ok(Self {
            api: DatastoreApi::new(client.clone(), datastore.as_str()),
            client,
            datastore,
            remote: account.name.clone(),
            user: account.auth_id.clone(),
            counts_removals: numbers >= COUNTS_REMOVALS,
        })
    }

    /// Who new groups belong to.
    pub fn user(&self) -> &AuthId {
        &self.user
    }

    /// Whether it tells what a removal removed.
    pub fn counts_removals(&self) -> bool {
        self.counts_removals
    }

    /// The path of access rules here that a namespace there has.
    pub fn acl_path(&self, namespace: &Namespace) -> String {
        let (remote, datastore) = (&self.remote, &self.datastore);
        match namespace.is_root() {
            true => format!("/remote/{remote}/{datastore}"),
            false => format!("/remote/{remote}/{datastore}/{namespace}"),
        }
    }

    /// All namespaces that the account sees.
    pub async fn namespaces(&self) -> Result<Vec<Namespace>> {
        let answer = self.api.namespaces(&Namespace::root(), None).await;
        let mut answer = answer.map_err(failed("asking the remote for its namespaces"))?;
        let items: Vec<NamespaceItem> = parse(answer["data"].take())?;
        Ok(items.into_iter().map(|item| item.ns).collect())
    }

    pub async fn make_namespace(&self, parent: &Namespace, name: &str) -> Result<()> {
        let made = self.api.create_namespace(parent, name).await;
        made.map_err(failed(format_args!(
            "making the namespace '{name}' in '{parent}' at the remote"
        )))?;
        Ok(())
    }

    /// The groups of a namespace that the account sees.
    pub async fn groups(&self, namespace: &Namespace) -> Result<HashMap<BackupGroup, GroupThere>> {
        let answer = self.api.groups(namespace).await;
        let items: Vec<GroupEntry> =
            parse(answer.map_err(failed("asking the remote for groups"))?)?;
        let group = |item: GroupEntry| {
            // A snapshot that is being written, or never was finished, may show as the last one.
            let is_finished = item.files.iter().any(|file| file == ArchiveName::MANIFEST);
            let last = item.last_backup.filter(|last| *last > 0 && is_finished);
            let there = GroupThere {
                is_own: item.owner.as_ref() == Some(&self.user),
                last: last.and_then(|last| BackupTime::new(last).ok()),
            };
            (BackupGroup::new(item.backup_type, item.backup_id), there)
        };
        Ok(items.into_iter().map(group).collect())
    }

    /// The snapshots of a group, oldest first.
    pub async fn snapshots(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
    ) -> Result<Vec<SnapshotThere>> {
        let answer = self.api.snapshots(namespace, Some(group)).await;
        let answer = answer.map_err(failed("asking the remote for snapshots"))?;
        let items: Vec<SnapshotEntry> = parse(answer)?;
        let mut list: Vec<SnapshotThere> = items
            .into_iter()
            .map(|item| SnapshotThere {
                time: item.backup_time,
                is_finished: item.size.is_some(),
                is_protected: item.protected,
            })
            .collect();
        list.sort_by_key(|item| item.time);
        Ok(list)
    }

    /// Begins to write a snapshot. It is gone again unless it is finished.
    ///
    /// # Errors
    /// As the client says them.
    pub async fn begin(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
    ) -> std::result::Result<BackupSession, ClientError> {
        let target = SessionTarget {
            datastore: self.datastore.to_string(),
            namespace: namespace.clone(),
            snapshot: snapshot.clone(),
            no_cache: false,
            benchmark: false,
        };
        BackupSession::start(&self.client, &target).await
    }

    pub async fn remove_snapshot(&self, namespace: &Namespace, snapshot: &Snapshot) -> Result<()> {
        let removed = self.api.forget_snapshot(namespace, snapshot).await;
        removed.map_err(|error| refused(&error))?;
        Ok(())
    }

    /// Removes a group but for its protected snapshots.
    pub async fn remove_group(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
    ) -> Result<DeleteStats> {
        let tolerant = self.counts_removals.then_some(false);
        let removed = self.api.forget_group(namespace, group, tolerant).await;
        let answer = removed.map_err(|error| refused(&error))?;
        match self.counts_removals {
            true => parse(answer),
            false => Ok(DeleteStats::default()),
        }
    }

    /// Removes a namespace that has no groups.
    pub async fn remove_empty_namespace(&self, namespace: &Namespace) -> Result<Value> {
        let removed = self.api.delete_namespace(namespace, Some(false)).await;
        removed.map_err(|error| refused(&error))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let numbers = |version: &str, release: &str| {
            let (version, release) = (version.to_owned(), release.to_owned());
            Version { version, release }.numbers()
        };
        assert_eq!(numbers("4.2", "3"), Some((4, 2, 3)));
        assert!(numbers("3.2", "11") >= Some(COUNTS_REMOVALS));
        assert!(numbers("3.2", "4") < Some(COUNTS_REMOVALS));
        assert!(numbers("2.1", "99") < Some(OLDEST));
        assert_eq!(numbers("4.2", ""), Some((4, 2, 0)));
        assert_eq!((numbers("4", "1"), numbers("4.2", "beta")), (None, None));
    }
}
