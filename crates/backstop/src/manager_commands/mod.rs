//! `proxmox-backup-manager`: sets an installation up. It works on the configuration files themselves,
//! under their locks, and asks the running server only for what needs one.

mod acl;
pub mod audit;
mod cert;
pub mod cert_announce;
mod datastore;
mod encryption_key;
mod garbage_collection;
pub mod health;
pub mod heartbeat;
mod jobs;
mod local_server;
pub mod metrics;
mod migrate_config;
mod namespace;
pub mod notification;
mod pull;
mod push;
mod realms;
mod remote;
mod remote_check;
pub mod retention_lock;
mod second_factor;
pub mod sessions;
mod settings;
mod sync_job;
mod task;
pub mod token;
mod user;
mod user_token;
mod verify;

use std::process::ExitCode;

use backstop_server::config::ConfigStore;
use backstop_server::jobs::JobStates;

use crate::command::{Arguments, Command, Group, Parameter, Program};
use crate::installation;
use crate::output::{self, Format, OUTPUT_FORMAT};

/// The configuration of the installation. A new installation gets its directories; if they cannot
/// be made, whoever needs them will say so.
fn configuration() -> ConfigStore {
    let roots = installation::roots();
    if !roots.etc().exists() {
        let _ = backstop_server::service_account::create_installation(&roots);
    }
    ConfigStore::of(&roots).noting(audit::changes())
}

/// The state files of the installation's jobs. If their folder is missing and cannot be made, whoever needs it will say so.
fn job_states() -> JobStates {
    let roots = installation::roots();
    if roots.etc().exists() {
        let _ = backstop_server::service_account::create_job_states(&roots);
    }
    JobStates::new(roots.job_states())
}

/// The program under the name that it was called by.
pub fn program(name: String) -> Program {
    Program {
        name,
        root: Group::new()
            .group("acl", acl::commands())
            .group("ad", realms::ad_commands())
            .group("cert", cert::commands())
            .group("datastore", datastore::commands())
            .group("encryption-key", encryption_key::commands())
            .group("garbage-collection", garbage_collection::commands())
            .group("ldap", realms::ldap_commands())
            .group("migrate-config", migrate_config::commands())
            .group("namespace", namespace::commands())
            .group("notification", notification::commands())
            .group("openid", realms::openid_commands())
            .group("prune-job", jobs::prune_commands())
            .command("pull", pull::command())
            .command("push", push::command())
            .group("remote", remote::commands())
            .group("sync-job", sync_job::commands())
            .group("task", task::commands())
            .group("user", user::commands())
            .command("verify", verify::command())
            .group("verify-job", jobs::verify_commands())
            .command("versions", versions_command()),
        aliases: &[(&["user", "tfa", "remove"], &["user", "tfa", "delete"])],
        observer: Some(audit::note),
    }
}

fn versions_command() -> Command {
    Command::new("Show the version of the server.", versions)
        .option(Parameter::flag("verbose", "Also show what else belongs to it.").default("false"))
        .option(OUTPUT_FORMAT)
}

fn versions(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (level, release) = crate::client_commands::session::LEVEL;
    let version = format!("{level}.{release}");
    let answer = serde_json::json!([{
        "Package": "proxmox-backup-server",
        "Version": version,
        "OldVersion": version,
        "ExtraInfo": format!("running version: {version}"),
        "Arch": std::env::consts::ARCH,
        "Description": "Backstop, which serves the interface of this version",
        "Origin": "Backstop",
        "Priority": "optional",
        "Section": "admin",
        "Title": "Backstop",
    }]);
    match Format::of(arguments)?.json(&answer) {
        Some(text) => output::out(&text),
        None => output::out(&format!(
            "proxmox-backup-server {version} running version: {version}\n"
        )),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
