//! Sync: snapshots that are copied to a datastore of this server, from another server or another datastore here (pull), or from
//! a datastore of this server to another server (push).
//!
//! What is stored was checked on arrival: chunks by CRC, and by length and SHA-256 when they are not encrypted; files by the
//! manifest that names them. A snapshot appears at the target when it is complete. Snapshots that are there already are never
//! made worse, and groups of other owners are never touched.

mod chunks;
mod compared;
mod decryption;
mod dry_run;
mod error;
mod fetched;
mod group;
mod in_flight;
mod keys;
mod namespaces;
mod place;
mod pull;
mod push;
mod report;
mod run;
mod selection;
mod snapshot;
mod source;
mod source_local;
mod source_remote;
mod target;
mod treatment;
mod vanished;

pub(crate) use namespaces::check_max_depth;
pub use run::Sync;
