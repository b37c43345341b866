//! The configuration directory: loading, changing and replacing its files under the same locks,
//! with the same modes and texts as stock servers. Format: `docs/formats/configuration.md`.
//!
//! It never gives a partial result and never loses what it does not understand: a file that
//! cannot be read whole is not written.

mod changes;
pub mod datastore;
pub mod encryption_keys;
mod error;
mod file;
pub mod jobs;
pub mod metric_server;
pub mod migration;
mod node;
pub mod notifications;
pub mod remote;
mod remote_trust;
mod store;
pub mod sync;

pub use changes::Changes;
pub use error::{ConfigError, EditError};
pub(crate) use file::Stamp;
pub use file::{ConfigLock, FileClass};
pub use node::NodeConfig;
pub use remote_trust::RemotePins;
pub use store::{ConfigStore, JsonFile, Loaded, SectionFile};
