//! A datastore of this server as a source, with the rights of the job's owner.

use std::io::Read as _;
use std::sync::Arc;

use backstop_datastore::{Datastore, DatastoreError, FileLock, LockMode};
use backstop_format::manifest::{Manifest, VerifyResult};
use backstop_format::{CryptMode, Digest};
use backstop_types::{ArchiveName, AuthId, BackupGroup, Namespace, Privileges, Snapshot};

use super::error::{Result, SyncError};
use super::source::{Listed, ListedGroup, MAX_FILE};
use crate::datastores::DatastoreHandle;
use crate::server::Server;

/// A datastore here. Cheap to clone.
#[derive(Clone)]
pub(super) struct LocalSource {
    server: Arc<Server>,
    handle: Arc<DatastoreHandle>,
    owner: AuthId,
}

/// A snapshot in it, which nobody removes until this is dropped.
pub(super) struct LocalSnapshot {
    handle: Arc<DatastoreHandle>,
    namespace: Namespace,
    snapshot: Snapshot,
    _lock: FileLock,
}

async fn ask<T, F>(handle: &Arc<DatastoreHandle>, question: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce(&Datastore) -> std::result::Result<T, DatastoreError> + Send + 'static,
{
    let store = Arc::clone(handle);
    let answer = handle.place().work(move || question(&store)).await?;
    answer.map_err(|error| SyncError::of_local_source(&error))
}

impl LocalSource {
    pub fn new(server: &Arc<Server>, handle: DatastoreHandle, owner: &AuthId) -> Self {
        Self {
            server: Arc::clone(server),
            handle: Arc::new(handle),
            owner: owner.clone(),
        }
    }

    pub async fn namespaces(
        &self,
        anchor: &Namespace,
        max_depth: Option<usize>,
    ) -> Result<Vec<Namespace>> {
        let anchor = anchor.clone();
        ask(&self.handle, move |store| {
            store.namespaces(&anchor, max_depth)
        })
        .await
    }

    /// Does something on a thread of the datastore.
    pub async fn work<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Datastore) -> std::result::Result<T, DatastoreError> + Send + 'static,
    {
        ask(&self.handle, work).await
    }

    /// All groups of a namespace, whoever may read them; none if there is no such namespace.
    pub async fn all_groups(&self, namespace: &Namespace) -> Result<Vec<BackupGroup>> {
        let namespace = namespace.clone();
        ask(&self.handle, move |store| store.groups(&namespace)).await
    }

    pub async fn groups(&self, namespace: &Namespace) -> Result<Vec<ListedGroup>> {
        let path = namespace.acl_path(self.handle.name());
        let granted = self.server.privileges(&self.owner, &path);
        let reads_all = granted.contains(Privileges::DATASTORE_READ);
        let reads_own = granted.contains(Privileges::DATASTORE_BACKUP);
        if !reads_all && !reads_own {
            return Err(SyncError::Content(format!(
                "'{}' has neither Datastore.Read nor Datastore.Backup on {path}",
                self.owner
            )));
        }
        let (namespace, owner) = (namespace.clone(), self.owner.clone());
        ask(&self.handle, move |store| {
            let mut groups = store.groups(&namespace)?;
            if !reads_all {
                groups.retain(|group| {
                    let found = store.owner(&namespace, group);
                    found.is_ok_and(|found| owner.owns(&found))
                });
            }
            let groups = groups.into_iter();
            let listed = groups.map(|group| ListedGroup {
                group,
                snapshots: None,
            });
            Ok(listed.collect())
        })
        .await
    }

    pub async fn snapshots(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
    ) -> Result<Vec<Listed>> {
        let (namespace, group) = (namespace.clone(), group.clone());
        ask(&self.handle, move |store| {
            let infos = store.snapshots(&namespace, &group)?;
            let listed = infos.into_iter().map(|info| {
                let manifest = store.load_manifest(&namespace, &info.snapshot);
                let manifest = manifest.ok().map(|(manifest, _)| manifest);
                Listed {
                    is_finished: info.is_finished(),
                    is_verified: manifest.as_ref().is_some_and(is_verified),
                    is_encrypted: manifest.as_ref().is_some_and(is_encrypted),
                    snapshot: info.snapshot,
                    // A comparison costs no more than this.
                    mark: None,
                }
            });
            Ok(listed.collect())
        })
        .await
    }

    pub async fn open(&self, namespace: &Namespace, snapshot: &Snapshot) -> Result<LocalSnapshot> {
        let (ns, wanted) = (namespace.clone(), snapshot.clone());
        let lock = ask(&self.handle, move |store| {
            store.lock_snapshot(&ns, &wanted, LockMode::Shared)
        });
        Ok(LocalSnapshot {
            _lock: lock.await?,
            handle: Arc::clone(&self.handle),
            namespace: namespace.clone(),
            snapshot: snapshot.clone(),
        })
    }
}

impl LocalSnapshot {
    pub async fn file(&self, name: &ArchiveName) -> Result<Option<Vec<u8>>> {
        let (namespace, snapshot, name) =
            (self.namespace.clone(), self.snapshot.clone(), name.clone());
        ask(&self.handle, move |store| {
            let file = match store.open_file(&namespace, &snapshot, &name) {
                Err(DatastoreError::NoSuchFile { .. }) => return Ok(None),
                other => other?,
            };
            let mut raw = Vec::new();
            let read = file.take(MAX_FILE as u64).read_to_end(&mut raw);
            read.map_err(|source| DatastoreError::Io {
                attempt: "read",
                path: store
                    .snapshot_path(&namespace, &snapshot)
                    .join(name.as_str()),
                source,
            })?;
            Ok(Some(raw))
        })
        .await
    }

    pub async fn chunk(&self, digest: &Digest) -> Result<Vec<u8>> {
        let digest = *digest;
        ask(&self.handle, move |store| store.chunks().read_raw(&digest)).await
    }
}

/// Whether the last verification found a snapshot intact.
pub(super) fn is_verified(manifest: &Manifest) -> bool {
    manifest
        .verify_state()
        .is_some_and(|verify| verify.state == VerifyResult::Ok)
}

/// Whether all files are encrypted and the manifest is signed.
pub(super) fn is_encrypted(manifest: &Manifest) -> bool {
    let mut files = manifest.files.iter();
    manifest.signature.is_some() && files.all(|file| file.crypt_mode == CryptMode::Encrypt)
}
