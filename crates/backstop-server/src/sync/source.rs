//! Where snapshots come from: one place to ask, whether that is another server or another datastore here.

use std::collections::HashMap;
use std::sync::Arc;

use backstop_client::reader::ReaderSession;
use backstop_format::Digest;
use backstop_types::{ArchiveName, BackupGroup, Namespace, Snapshot};

use super::error::Result;
use super::source_local::{LocalSnapshot, LocalSource};
use super::source_remote::{RemoteSource, stored_file};

/// Largest file of a snapshot that is read, in bytes: the index of 32 TiB in chunks of 1 MiB.
pub(super) const MAX_FILE: usize = 1 << 30;

/// A snapshot as the source lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// Which one.
    pub snapshot: Snapshot,
    /// Whether its backup has ended.
    pub is_finished: bool,
    /// Whether the source found it intact.
    pub is_verified: bool,
    /// Whether all its files are encrypted.
    pub is_encrypted: bool,
    /// Of all that the list shows of its content; `None`: the list says too little.
    pub mark: Option<Digest>,
}

/// A group as the source lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedGroup {
    pub group: BackupGroup,
    /// How many snapshots it has, if the source tells.
    pub snapshots: Option<u64>,
}

/// The snapshots of each group, oldest first.
pub(super) type Lists = HashMap<BackupGroup, Vec<Listed>>;

/// Where snapshots come from.
pub(super) enum Source {
    Remote(RemoteSource),
    Local(LocalSource),
}

impl Source {
    /// The namespaces from `anchor` down to `max_depth` levels below; `None`: the source knows no namespaces.
    pub async fn namespaces(
        &self,
        anchor: &Namespace,
        max_depth: Option<usize>,
    ) -> Result<Option<Vec<Namespace>>> {
        match self {
            Self::Remote(source) => source.namespaces(anchor, max_depth).await,
            Self::Local(source) => source.namespaces(anchor, max_depth).await.map(Some),
        }
    }

    /// The groups of a namespace that can be read.
    pub async fn groups(&self, namespace: &Namespace) -> Result<Vec<ListedGroup>> {
        match self {
            Self::Remote(source) => source.groups(namespace).await,
            Self::Local(source) => source.groups(namespace).await,
        }
    }

    /// The snapshots of all groups of a namespace in one list, where that is better than a list for each group.
    pub async fn lists(&self, namespace: &Namespace) -> Result<Lists> {
        let mut lists = Lists::new();
        if let Self::Remote(source) = self {
            for listed in source.all_snapshots(namespace).await? {
                let group = listed.snapshot.group.clone();
                lists.entry(group).or_default().push(listed);
            }
        }
        lists.values_mut().for_each(sort);
        Ok(lists)
    }

    /// Whether the source is another server.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Remote(_))
    }

    /// The snapshots of a group, oldest first.
    pub async fn snapshots(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
    ) -> Result<Vec<Listed>> {
        let mut list = match self {
            Self::Remote(source) => source.snapshots(namespace, group).await?,
            Self::Local(source) => source.snapshots(namespace, group).await?,
        };
        sort(&mut list);
        Ok(list)
    }

    /// Opens a snapshot, which the source keeps until this is dropped. `None`: it is no longer there.
    pub async fn open(
        &self,
        namespace: &Namespace,
        snapshot: &Snapshot,
    ) -> Result<Option<OpenSnapshot>> {
        let opened = match self {
            Self::Remote(source) => source
                .open(namespace, snapshot)
                .await
                .map(OpenSnapshot::Remote),
            Self::Local(source) => source
                .open(namespace, snapshot)
                .await
                .map(OpenSnapshot::Local),
        };
        match opened {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if error.is_of_one_snapshot() => {
                let left = self.snapshots(namespace, &snapshot.group).await?;
                match left.iter().any(|listed| listed.snapshot == *snapshot) {
                    true => Err(error),
                    false => Ok(None),
                }
            }
            Err(error) => Err(error),
        }
    }
}

fn sort(list: &mut Vec<Listed>) {
    list.sort_by_key(|listed| listed.snapshot.time);
    list.dedup_by_key(|listed| listed.snapshot.time);
}

/// A snapshot at the source.
pub(super) enum OpenSnapshot {
    Remote(Arc<ReaderSession>),
    Local(LocalSnapshot),
}

impl OpenSnapshot {
    /// A file as it is stored, unchecked; `None`: it is not there.
    pub async fn file(&self, name: &ArchiveName) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Remote(session) => stored_file(session, name).await,
            Self::Local(snapshot) => snapshot.file(name).await,
        }
    }

    /// A chunk as it is stored, unchecked; `expected` is a guess of its length, and from another server it has at most `limit`
    /// bytes. An index that was read before names it.
    pub async fn chunk(&self, digest: &Digest, expected: usize, limit: usize) -> Result<Vec<u8>> {
        match self {
            Self::Remote(session) => Ok(session.stored_chunk(digest, expected, limit).await?),
            Self::Local(snapshot) => snapshot.chunk(digest).await,
        }
    }
}
