//! `login`, `logout`, `version` and `server-identity`.

use std::process::ExitCode;

use backstop_client::ticket_cache::TicketCache;
use serde_json::{Value, json};

use super::parameters::REPOSITORY;
use super::server::{self, Server};
use crate::command::{Arguments, Command};
use crate::output::{self, Format, OUTPUT_FORMAT};
use crate::user_files;

/// The level of the interface that this client speaks.
pub const LEVEL: (&str, &str) = ("4.2", "3");

/// `login`
pub fn login_command() -> Command {
    Command::new("Log in and keep the ticket for later commands.", login).options(REPOSITORY)
}

/// `logout`
pub fn logout_command() -> Command {
    Command::new("Forget the kept ticket.", logout).options(REPOSITORY)
}

/// `version`
pub fn version_command() -> Command {
    Command::new(
        "Show the versions of the client and of the server.",
        version,
    )
    .options(REPOSITORY)
    .option(OUTPUT_FORMAT)
}

/// `server-identity`
pub fn identity_command() -> Command {
    Command::new("Show the identity of the server's installation.", identity)
        .options(REPOSITORY)
        .option(OUTPUT_FORMAT)
}

fn login(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    server::block_on(async { Server::connect(arguments).await.map(|_| ()) })?;
    Ok(ExitCode::SUCCESS)
}

fn logout(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let repository = server::repository(arguments)?;
    let removed = match user_files::runtime("tickets").map(TicketCache::new) {
        Some(cache) => cache.remove(repository.host(), &repository.auth_id().to_string())?,
        None => false,
    };
    if !removed {
        output::err(&format!(
            "no ticket of {} for {} was kept\n",
            repository.auth_id(),
            repository.host()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn version(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (version, release) = LEVEL;
    let mut answer = json!({
        "client": { "version": version, "release": release, "repoid": "" }
    });
    if server::repository(arguments).is_ok() {
        let asked = server::block_on(async {
            Ok(Server::connect(arguments).await?.client.version().await?)
        });
        match (asked, answer.as_object_mut()) {
            (Ok(version), Some(members)) => {
                members.insert("server".to_string(), version);
            }
            (Err(error), _) => {
                output::err(&format!("could not connect to server - {error:#}\n"));
            }
            (Ok(_), None) => {}
        }
    }
    match Format::of(arguments)?.json(&answer) {
        Some(text) => output::out(&text),
        None => output::out(&version_lines(&answer)),
    }
    Ok(ExitCode::SUCCESS)
}

/// One line per side.
pub fn version_lines(answer: &Value) -> String {
    ["client", "server"]
        .iter()
        .filter_map(|side| {
            let part = |name: &str| answer.get(side)?.get(name)?.as_str();
            Some(format!(
                "{side} version: {}.{}\n",
                part("version")?,
                part("release")?
            ))
        })
        .collect()
}

fn identity(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let identity =
        server::block_on(async { Ok(Server::connect(arguments).await?.client.identity().await?) })?;
    match Format::of(arguments)?.json(&identity) {
        Some(text) => output::out(&text),
        None => output::out(&format!(
            "pbs-instance-id: {}\n",
            identity
                .get("pbs-instance-id")
                .and_then(Value::as_str)
                .unwrap_or_default()
        )),
    }
    Ok(ExitCode::SUCCESS)
}
