//! The datastore that is written to, reached through its own threads.

use std::sync::Arc;

use backstop_datastore::{Datastore, DatastoreError, SnapshotImport};
use backstop_types::{Namespace, Snapshot};
use parking_lot::Mutex;

use super::error::Result;
use crate::datastores::DatastoreHandle;

/// The datastore that is written to. Cheap to clone.
#[derive(Clone)]
pub(super) struct Target(Arc<DatastoreHandle>);

type StoreResult<T> = std::result::Result<T, DatastoreError>;

impl Target {
    pub fn new(handle: DatastoreHandle) -> Self {
        Self(Arc::new(handle))
    }

    /// Does something with it on a thread of its own.
    pub async fn work<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Datastore>) -> StoreResult<T> + Send + 'static,
    {
        let handle = Arc::clone(&self.0);
        let done = self.0.place().work(move || work(&handle)).await?;
        Ok(done?)
    }

    /// As [`work`](Self::work), for checking and storing a chunk.
    pub async fn store_chunk<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Datastore>) -> StoreResult<T> + Send + 'static,
    {
        let handle = Arc::clone(&self.0);
        let done = self.0.place().store_chunk(move || work(&handle)).await?;
        Ok(done?)
    }

    /// Begins to take a snapshot over.
    pub async fn import(&self, namespace: &Namespace, snapshot: &Snapshot) -> Result<Import> {
        let (namespace, snapshot) = (namespace.clone(), snapshot.clone());
        let import = self
            .work(move |store| store.import_snapshot(&namespace, &snapshot))
            .await?;
        Ok(Import {
            target: self.clone(),
            import: Some(Arc::new(Mutex::new(import))),
        })
    }
}

/// A snapshot that is being taken over. What is incomplete when this is dropped is removed by a thread of the datastore.
pub(super) struct Import {
    target: Target,
    import: Option<Arc<Mutex<SnapshotImport>>>,
}

impl Import {
    /// Does something with it.
    pub async fn work<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut SnapshotImport) -> StoreResult<T> + Send + 'static,
    {
        let import = self.import.clone();
        let done = self.target.work(move |_| match &import {
            Some(import) => work(&mut import.lock()).map(Some),
            None => Ok(None),
        });
        done.await?
            .ok_or_else(|| super::error::SyncError::Broken("the snapshot is closed".to_owned()))
    }

    /// Ends it, and waits until what is incomplete is removed.
    pub async fn close(mut self) {
        if let Some(import) = self.import.take() {
            let place = Arc::clone(self.target.0.place());
            // Only a server that ends does not tidy; the next sync or the clean-up at the start does it then.
            let _ = place.tidy(move || drop(import)).await;
        }
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        let Some(import) = self.import.take() else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let place = Arc::clone(self.target.0.place());
            runtime.spawn(async move { place.tidy(move || drop(import)).await });
        }
    }
}
