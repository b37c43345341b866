//! What the end-to-end tests and the benchmarks start: servers, clients and trees to back up.
//!
//! Everything runs on loopback, below a temporary directory, and ends with the value that started it.
//! It must never touch `/etc/proxmox-backup`, the user's own configuration, or a process that it did
//! not start itself.

pub mod any_certificate;
pub mod api;
pub mod authenticator;
pub mod authority;
pub mod fault_fs;
pub mod interceptor;
pub mod link;
pub mod master_key;
pub mod openid_provider;
pub mod ping;
pub mod program;
pub mod prometheus;
pub mod push_receiver;
pub mod random;
pub mod scratch;
pub mod server;
pub mod service;
pub mod slapd;
pub mod stock;
pub mod stock_root;
pub mod terminal;
pub mod tree;
pub mod uptime_kuma;
pub mod waiting_backup;
pub mod zabbix;

#[path = "../../crates/backstop/src/server_process.rs"]
mod server_process;

/// Compares a restored tree with its source.
#[path = "../../crates/backstop/src/tree_compare.rs"]
pub mod tree_compare;

/// Whether this process may do what only root may: device nodes, ownership, trusted attributes.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
