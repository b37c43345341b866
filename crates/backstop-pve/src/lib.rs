//! What runs on a Proxmox VE node.
//!
//! [`hook`] is called by `vzdump` and tells a push receiver how each backup job ended; it must never be the reason why a backup
//! fails. [`guard`] keeps the hook in the configuration of all backup jobs; it must never change anything else there.

pub mod config;
pub mod guard;
pub mod hook;
mod job_record;
mod vzdump_process;
