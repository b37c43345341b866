//! The datastores of this server: from a configured name to an open [`Datastore`].
//!
//! The configuration is read again when its file has changed and never locked: it is only ever replaced as a whole. So
//! a look-up cannot wait for anybody. A changed path opens the datastore anew, changed tuning reaches the open one, and
//! what is under way keeps what it has.
//!
//! Every look-up for reading or writing is counted until its handle is dropped; that is how maintenance modes can wait
//! for running operations.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use backstop_datastore::{Datastore, DatastoreError};
use backstop_types::record::{ActiveOperations, BackendType, DatastoreConfig};
use backstop_types::{DatastoreName, Operation};
use parking_lot::Mutex;

use crate::config::{self, ConfigError, ConfigStore};

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
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
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
}

impl Active {
    fn counter(&self, operation: Operation) -> Option<&AtomicI64> {
        match operation {
            Operation::Read => Some(&self.read),
            Operation::Write => Some(&self.write),
            Operation::Lookup => None,
        }
    }
}

/// An open datastore, counted as in use until this is dropped.
pub struct DatastoreHandle {
    store: Arc<Datastore>,
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
    /// What is open; kept open while it is configured.
    open: HashMap<(DatastoreName, PathBuf), Arc<Datastore>>,
    /// What was open once. A datastore that is still in use must not be opened a second time: closing one of two
    /// descriptors of its lock file would drop the lock of both.
    known: HashMap<(DatastoreName, PathBuf), Weak<Datastore>>,
    active: HashMap<DatastoreName, Arc<Active>>,
}

/// All datastores of the server. Cheap to clone.
#[derive(Clone)]
pub struct DatastoreRegistry {
    config: Arc<ConfigStore>,
    locks: PathBuf,
    inner: Arc<Mutex<Inner>>,
    /// Held while a datastore is opened, so that it is opened once.
    opening: Arc<Mutex<()>>,
}

impl fmt::Debug for DatastoreRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatastoreRegistry")
            .field("locks", &self.locks)
            .finish_non_exhaustive()
    }
}

impl DatastoreRegistry {
    /// The datastores of this configuration, whose locks lie in the directory `locks`.
    pub fn new(config: Arc<ConfigStore>, locks: PathBuf) -> Self {
        Self {
            config,
            locks,
            inner: Arc::default(),
            opening: Arc::default(),
        }
    }

    /// What is configured, in file order. Blocks for a small file.
    ///
    /// # Errors
    /// The file cannot be read or is malformed.
    pub fn configs(&self) -> Result<Vec<DatastoreConfig>, LookupError> {
        let configs = config::datastore::list(&self.config)?;
        let mut inner = self.inner.lock();
        inner.open.retain(|(name, path), _| {
            configs
                .iter()
                .any(|config| config.name == *name && config.path.as_str() == path.as_os_str())
        });
        inner.known.retain(|_, store| store.strong_count() > 0);
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

    /// An open datastore. Blocks for a small file, the first time also for opening the datastore.
    ///
    /// # Errors
    /// There is no such datastore, a maintenance mode closes it for `operation`, or it cannot be opened.
    pub fn lookup(
        &self,
        name: &DatastoreName,
        operation: Operation,
    ) -> Result<DatastoreHandle, LookupError> {
        let config = self.config(name)?;
        check(&config, operation)?;
        let store = self.open(&config)?;
        let active = Arc::clone(self.inner.lock().active.entry(name.clone()).or_default());
        if let Some(counter) = active.counter(operation) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Ok(DatastoreHandle {
            store,
            config,
            active,
            operation,
        })
    }

    fn open(&self, config: &DatastoreConfig) -> Result<Arc<Datastore>, LookupError> {
        let tuning = config
            .tuning()
            .map_err(|err| unavailable(config, err.to_string()))?;
        let key = (config.name.clone(), PathBuf::from(&config.path));
        let _opening = self.opening.lock();
        let known = {
            let inner = self.inner.lock();
            let open = inner.open.get(&key).cloned();
            open.or_else(|| inner.known.get(&key).and_then(Weak::upgrade))
        };
        let failed = |err| LookupError::Open {
            name: config.name.clone(),
            source: Box::new(err),
        };
        let store = match known {
            Some(store) if store.tuning() == tuning => store,
            Some(store) => {
                store.set_tuning(tuning).map_err(failed)?;
                store
            }
            None => Datastore::open(&config.name, &key.1, &self.locks, tuning).map_err(failed)?,
        };
        let mut inner = self.inner.lock();
        inner.known.insert(key.clone(), Arc::downgrade(&store));
        inner.open.insert(key, Arc::clone(&store));
        Ok(store)
    }

    /// Number of operations under way.
    pub fn active_operations(&self, name: &DatastoreName) -> ActiveOperations {
        let active = self
            .inner
            .lock()
            .active
            .get(name)
            .cloned()
            .unwrap_or_default();
        ActiveOperations {
            read: active.read.load(Ordering::Relaxed),
            write: active.write.load(Ordering::Relaxed),
        }
    }
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
                registry: DatastoreRegistry::new(config, dir.path().join("locks")),
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
