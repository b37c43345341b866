//! `proxmox-backup-client`: the table of its commands. Each command reads its arguments, asks the
//! client library, and prints; none knows the protocol.

mod backup;
mod backup_spec;
mod benchmark;
mod catalog;
pub mod columns;
pub mod encryption;
mod group;
mod listing;
mod map;
mod mount;
pub mod namespace;
pub mod parameters;
mod prune;
mod restore;
pub mod server;
pub mod session;
mod shell;
mod snapshot;
pub mod task;

use crate::command::{Group, Program};
use crate::key_commands;

pub use prune::KEEP;

/// The program under the name that it was called by.
pub fn program(name: String) -> Program {
    Program {
        name,
        root: Group::new()
            .command("backup", backup::command())
            .command("benchmark", benchmark::command())
            .command("restore", restore::command())
            .command("mount", mount::command())
            .command("map", map::map_command())
            .command("unmap", map::unmap_command())
            .command("list", listing::list_command())
            .command("status", listing::status_command())
            .group("snapshot", snapshot::commands())
            .group("catalog", catalog::commands())
            .group("group", group::commands())
            .group("namespace", namespace::commands())
            .group("task", task::commands())
            .group("key", key_commands::commands())
            .command("prune", prune::prune_command())
            .command("garbage-collect", prune::garbage_collect_command())
            .command("change-owner", group::change_owner_command())
            .command("login", session::login_command())
            .command("logout", session::logout_command())
            .command("version", session::version_command())
            .command("server-identity", session::identity_command()),
        aliases: &[
            (&["files"], &["snapshot", "files"]),
            (&["forget"], &["snapshot", "forget"]),
            (&["upload-log"], &["snapshot", "upload-log"]),
            (&["snapshots"], &["snapshot", "list"]),
        ],
        observer: None,
    }
}

#[cfg(test)]
mod tests;
