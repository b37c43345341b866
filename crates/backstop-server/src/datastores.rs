//! The datastores of this server: from a configured name to an open [`Datastore`].
//!
//! The configuration is read again when its file has changed and never locked: it is only ever replaced as a whole. So
//! a look-up cannot wait for anybody. A changed path opens the datastore anew, changed tuning reaches the open one, and
//! what is under way keeps what it has.
//!
//! Every look-up for reading or writing is counted until its handle is dropped; that is how maintenance modes can wait
//! for running operations.
//!
//! The file system of a datastore can go away, fail or hang. A [`Watcher`] notices that; then look-ups fail at once,
//! and what runs is given up (see [`Place`]). When the file system is back, everything works again.

mod availability;
pub(crate) mod foreign_owner;
mod health;
mod identity;
mod operations;
mod place;
mod removals;
mod watch;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use backstop_datastore::{Datastore, DatastoreError};
use backstop_types::record::{ActiveOperations, BackendType, DatastoreConfig};
use backstop_types::{DatastoreName, Operation};
use parking_lot::Mutex;

use crate::config::{self, ConfigError, ConfigStore};
use crate::roots::Roots;

pub use availability::{Availability, Unavailable};
pub use place::{Interrupted, Place};
pub use removals::Removals;
pub use watch::Watcher;

use operations::OperationsFiles;

/// Why a datastore cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// No such section in the configuration.
    #[error("no such datastore '{name}'")]
    Unknown {
        /// The name that was asked for.
        name: DatastoreName,
    },
    /// A maintenance mode closes it, or its settings cannot be understood.
    #[error("datastore '{name}' is unavailable: {reason}")]
    Unavailable {
        /// Its name.
        name: DatastoreName,
        /// Mode and message, or what is wrong.
        reason: String,
    },
    /// Its file system is gone, failing or hanging.
    #[error(transparent)]
    Absent(#[from] Unavailable),
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system refuses threads.
    #[error("unable to start threads for datastore '{name}' - {source}")]
    Threads {
        /// Its name.
        name: DatastoreName,
        /// Why.
        source: io::Error,
    },
    /// The datastore cannot be opened.
    #[error("unable to open datastore '{name}' - {source}")]
    Open {
        /// Its name.
        name: DatastoreName,
        /// Why.
        source: Box<DatastoreError>,
    },
}

/// Running operations of one datastore.
#[derive(Debug, Default)]
struct Active {
    read: AtomicI64,
    write: AtomicI64,
    /// What other processes were told last.
    told: Mutex<Option<(i64, i64)>>,
}

impl Active {
    fn counter(&self, operation: Operation) -> Option<&AtomicI64> {
        match operation {
            Operation::Read => Some(&self.read),
            Operation::Write => Some(&self.write),
            Operation::Lookup => None,
        }
    }

    fn now(&self) -> (i64, i64) {
        let load = |counter: &AtomicI64| counter.load(Ordering::Relaxed);
        (load(&self.read), load(&self.write))
    }
}

/// An open datastore, counted as in use until this is dropped.
pub struct DatastoreHandle {
    store: Arc<Datastore>,
    place: Arc<Place>,
    config: DatastoreConfig,
    active: Arc<Active>,
    operation: Operation,
}

impl fmt::Debug for DatastoreHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatastoreHandle")
            .field("name", self.store.name())
            .field("operation", &self.operation)
            .finish()
    }
}

impl DatastoreHandle {
    /// Its configuration when it was looked up.
    pub fn config(&self) -> &DatastoreConfig {
        &self.config
    }

    /// Where it is, with the threads that may touch it.
    pub fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// Asks it something short; blocks for five seconds at most. For callers that have no thread of its own to lose.
    ///
    /// # Errors
    /// It is not available, or has not answered in time.
    pub fn ask<T, F>(&self, question: F) -> Result<T, Unavailable>
    where
        T: Send + 'static,
        F: FnOnce(&Datastore) -> T + Send + 'static,
    {
        let store = Arc::clone(&self.store);
        self.place.ask(move || question(&store))
    }
}

impl Deref for DatastoreHandle {
    type Target = Arc<Datastore>;

    fn deref(&self) -> &Self::Target {
        &self.store
    }
}

impl Drop for DatastoreHandle {
    fn drop(&mut self) {
        if let Some(counter) = self.active.counter(self.operation) {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[derive(Default)]
struct Inner {
    /// What is configured, and what was and is still in use.
    places: HashMap<(DatastoreName, PathBuf), Arc<Place>>,
    /// What is configured.
    current: HashMap<DatastoreName, Arc<Place>>,
    active: HashMap<DatastoreName, Arc<Active>>,
}

/// All datastores of the server. Cheap to clone.
#[derive(Clone)]
pub struct DatastoreRegistry {
    config: Arc<ConfigStore>,
    locks: PathBuf,
    operations: OperationsFiles,
    removals: Removals,
    inner: Arc<Mutex<Inner>>,
}

impl fmt::Debug for DatastoreRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatastoreRegistry")
            .field("locks", &self.locks)
            .finish_non_exhaustive()
    }
}

impl DatastoreRegistry {
    /// The datastores of this configuration, whose locks and counts lie below the run directory.
    pub fn new(config: Arc<ConfigStore>, roots: &Roots) -> Self {
        Self {
            config,
            locks: roots.locks(),
            operations: OperationsFiles::below(&roots.run()),
            removals: Removals::of(roots),
            inner: Arc::default(),
        }
    }

    /// What is removed on purpose.
    pub fn removals(&self) -> &Removals {
        &self.removals
    }

    /// What is configured, in file order. Blocks for a small file.
    ///
    /// # Errors
    /// The file cannot be read or is malformed.
    pub fn configs(&self) -> Result<Vec<DatastoreConfig>, LookupError> {
        let configs = config::datastore::list(&self.config)?;
        let mut inner = self.inner.lock();
        let find = |name: &DatastoreName, place: &Place| {
            configs
                .iter()
                .find(|config| config.name == *name && place.path() == directory(config))
        };
        inner
            .current
            .retain(|name, place| find(name, place).is_some());
        inner.places.retain(|(name, _), place| {
            let config = find(name, place);
            let drops_handles = |config: &DatastoreConfig| {
                let mode = config.maintenance().ok().flatten();
                mode.is_some_and(|mode| mode.drops_cached_state())
            };
            if config.is_none_or(drops_handles) {
                place.close();
            }
            config.is_some() || Arc::strong_count(place) > 1 || place.is_in_use()
        });
        drop(inner);
        Ok(configs)
    }

    /// The configuration of one datastore. Blocks for a small file.
    ///
    /// # Errors
    /// Also when there is no such datastore.
    pub fn config(&self, name: &DatastoreName) -> Result<DatastoreConfig, LookupError> {
        let found = self
            .configs()?
            .into_iter()
            .find(|config| config.name == *name);
        found.ok_or_else(|| LookupError::Unknown { name: name.clone() })
    }

    /// The place of a configured datastore.
    ///
    /// # Errors
    /// The system refuses what its threads need.
    pub fn place(&self, config: &DatastoreConfig) -> Result<Arc<Place>, LookupError> {
        let name = &config.name;
        let key = (name.clone(), directory(config));
        let mut inner = self.inner.lock();
        let place = match inner.places.get(&key) {
            Some(place) => Arc::clone(place),
            None => {
                let place = Place::new(name.clone(), key.1.clone()).map_err(|source| {
                    let name = name.clone();
                    LookupError::Threads { name, source }
                })?;
                let place = Arc::new(place);
                inner.places.insert(key, Arc::clone(&place));
                place
            }
        };
        inner.current.insert(name.clone(), Arc::clone(&place));
        Ok(place)
    }

    /// The place of a datastore, if it is configured and known already. Never blocks.
    pub fn known_place(&self, name: &str) -> Option<Arc<Place>> {
        let name: DatastoreName = name.parse().ok()?;
        self.inner.lock().current.get(&name).cloned()
    }

    /// An open datastore. Blocks for a small file, the first time also for opening the datastore, but never for more than
    /// some seconds.
    ///
    /// # Errors
    /// There is no such datastore, a maintenance mode closes it for `operation`, it is not available, or it cannot be
    /// opened.
    pub fn lookup(
        &self,
        name: &DatastoreName,
        operation: Operation,
    ) -> Result<DatastoreHandle, LookupError> {
        let config = self.config(name)?;
        check(&config, operation)?;
        let tuning = config
            .tuning()
            .map_err(|err| unavailable(&config, err.to_string()))?;
        let place = self.place(&config)?;
        let (opening, locks) = (Arc::clone(&place), self.locks.clone());
        let store = place
            .ask(move || opening.open(&locks, tuning))?
            .map_err(|source| LookupError::Open {
                name: name.clone(),
                source: Box::new(source),
            })?;
        let (removals, own) = (self.removals.clone(), name.clone());
        store.tell_of_removals(move |namespace, group| removals.note_group(&own, namespace, group));
        let active = Arc::clone(self.inner.lock().active.entry(name.clone()).or_default());
        if let Some(counter) = active.counter(operation) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Ok(DatastoreHandle {
            store,
            place,
            config,
            active,
            operation,
        })
    }

    /// Number of operations under way, in this and in other processes of this host. Blocks for a small file.
    pub fn active_operations(&self, name: &DatastoreName) -> ActiveOperations {
        let active = self.inner.lock().active.get(name).cloned();
        let (read, write) = active.map_or((0, 0), |active| active.now());
        let others = self.operations.others(name);
        ActiveOperations {
            read: others.read.saturating_add(read),
            write: others.write.saturating_add(write),
        }
    }

    /// Tells other processes what this one does, where that has changed. Blocks for small files.
    pub(crate) fn note_operations(&self) {
        let all: Vec<_> = {
            let inner = self.inner.lock();
            let all = inner.active.iter();
            all.map(|(name, active)| (name.clone(), Arc::clone(active)))
                .collect()
        };
        for (name, active) in all {
            let mut told = active.told.lock();
            let now = active.now();
            // what was never told counts as nothing
            if told.unwrap_or_default() == now {
                continue;
            }
            let (read, write) = now;
            match self
                .operations
                .write(&name, &ActiveOperations { read, write })
            {
                Ok(()) => *told = Some(now),
                // another process is at it; soon again
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                Err(err) => {
                    tracing::warn!(store = %name, %err, "unable to tell other processes of running operations");
                    *told = Some(now);
                }
            }
        }
    }
}

/// The directory of a configured datastore.
fn directory(config: &DatastoreConfig) -> PathBuf {
    PathBuf::from(&config.path)
}

fn unavailable(config: &DatastoreConfig, reason: String) -> LookupError {
    LookupError::Unavailable {
        name: config.name.clone(),
        reason,
    }
}

/// Whether the settings of a datastore allow an operation. Does not look at the datastore itself.
pub(crate) fn check(config: &DatastoreConfig, operation: Operation) -> Result<(), LookupError> {
    // a mode that cannot be understood closes the datastore, never the other way round
    let maintenance = config
        .maintenance()
        .map_err(|err| unavailable(config, err.to_string()))?;
    if let Some(mode) = maintenance {
        mode.check(operation)
            .map_err(|reason| unavailable(config, reason))?;
    }
    if config.backend_type() == BackendType::S3 {
        return Err(unavailable(
            config,
            "object storage is not supported".to_owned(),
        ));
    }
    if config.backing_device.is_some() {
        return Err(unavailable(
            config,
            "removable devices are not supported".to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    struct Setup {
        dir: tempfile::TempDir,
        registry: DatastoreRegistry,
    }

    impl Setup {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let config = Arc::new(ConfigStore::new(dir.path()));
            Self {
                registry: DatastoreRegistry::new(config, &Roots::below(dir.path())),
                dir,
            }
        }

        /// Writes the configuration with a file size of its own, so that no clock decides whether it is noticed.
        fn configure(&self, extra: &str) {
            let path = self.dir.path().join("store");
            let text = format!("datastore: store1\n\tpath {}\n{extra}\n", path.display());
            let etc = self.dir.path();
            std::fs::write(etc.join("new"), text).unwrap();
            std::fs::rename(etc.join("new"), etc.join("datastore.cfg")).unwrap();
        }

        fn refusal(&self, operation: Operation) -> String {
            let name = "store1".parse().unwrap();
            self.registry
                .lookup(&name, operation)
                .unwrap_err()
                .to_string()
        }
    }

    #[test]
    fn a_datastore_that_is_not_configured_does_not_exist() {
        let setup = Setup::new();
        assert_eq!(setup.refusal(Operation::Read), "no such datastore 'store1'");
    }

    #[test]
    fn a_maintenance_mode_is_honoured_as_soon_as_it_is_written() {
        let setup = Setup::new();
        setup.configure("");
        assert!(
            setup
                .refusal(Operation::Write)
                .starts_with("unable to open datastore 'store1'")
        );
        setup.configure("\tmaintenance-mode read-only,message=fixture\n");
        assert_eq!(
            setup.refusal(Operation::Write),
            "datastore 'store1' is unavailable: read-only maintenance mode: fixture"
        );
        setup.configure("\tmaintenance-mode offline\n");
        assert!(
            setup
                .refusal(Operation::Read)
                .contains("offline maintenance mode")
        );
    }

    #[test]
    fn what_this_server_cannot_serve_is_refused_rather_than_misread() {
        let setup = Setup::new();
        setup.configure("\tbackend type=s3,client=a01,bucket=bucket1\n");
        assert!(setup.refusal(Operation::Read).contains("object storage"));
    }
}
