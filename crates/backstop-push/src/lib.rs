//! Telling a push receiver from a command that runs once: the hook of a Proxmox VE node, the announcement of a certificate.
//!
//! [`settings_file`] reads files that hold secrets, [`receiver`] whom they name, and [`deliver`] tells it within bounded time. Nothing
//! is kept for later: whoever cannot be told within that time is not told.

mod delivery;
pub mod receiver;
pub mod settings_file;

pub use delivery::{deliver, host_name};
