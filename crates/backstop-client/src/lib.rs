//! Backup client as a library: connections to a server, backup and reader sessions, the upload pipeline,
//! restore.
//!
//! A library first: it prints nothing, asks nobody, reads no environment. What it needs is in its options; what
//! happens is told through [`activity::Activity`]. A backup is finished only if every stage of every archive
//! succeeded.

pub mod activity;
pub mod api;
pub mod archive;
pub mod backup;
pub mod benchmark;
mod buffers;
pub mod connection;
mod error;
pub mod fingerprint_store;
pub mod login;
pub mod mount;
pub mod reader;
pub mod restore;
mod second_factor;
pub mod ticket_cache;
mod workers;
pub mod writer;

pub use connection::{ClientOptions, HttpClient, RateLimit};
pub use error::{ClientError, Result};
pub use second_factor::SecondFactorRequest;
