//! The server: listener, REST API, backup and reader sessions, access control, tasks, jobs.
//!
//! [`run`] starts a complete server inside the calling process; the `backstop server` command, the demo and the tests
//! all use it. Rooms follow the URL tree: `api/nodes` serves `/api2/json/nodes`.
//!
//! It never prints to the terminal and never ends the process.

pub mod access;
pub mod api;
mod archive_reader;
pub mod audit_log;
pub mod backup_session;
pub mod certificate_change;
mod complaint;
pub mod config;
mod cut_off;
pub mod datastores;
pub mod exposition;
pub mod health;
pub mod heartbeats;
pub mod http;
pub mod jobs;
pub mod listener;
mod log_rotation;
mod memory;
pub mod metrics;
pub mod notifications;
pub mod privileged_helper;
pub mod reader_session;
mod retention_clock;
pub mod roots;
mod rotated_log;
pub mod router;
pub mod rrd;
pub mod runtime;
pub mod server;
pub mod service_account;
pub mod session_http2;
mod state_file;
mod sync;
pub mod task;
pub mod tls;
mod tls_ciphers;

pub use roots::Roots;
pub use server::{
    DEFAULT_PORT, Inherited, Server, ServerError, ServerHandle, ServerOptions, run, run_inheriting,
};
