//! `group …` and `change-owner`: whole backup groups.

use std::process::ExitCode;

use anyhow::Context as _;
use backstop_types::config_schema::value;
use backstop_types::{BackupGroup, Namespace};
use serde_json::Value;

use super::parameters::{GROUP, NAMESPACE, REPOSITORY, TARGET_NAMESPACE};
use super::server::{self, Server};
use crate::command::{Arguments, Command, Group, Parameter};
use crate::output::{self, OUTPUT_FORMAT};
use crate::terminal;

/// The commands below `group`.
pub fn commands() -> Group {
    Group::new()
        .command(
            "forget",
            Command::new(
                "Remove a group with all its snapshots, after asking.",
                forget,
            )
            .argument(GROUP)
            .options(REPOSITORY)
            .option(NAMESPACE),
        )
        .command(
            "move",
            Command::new(
                "Move a group to another namespace of the datastore.",
                move_group,
            )
            .argument(GROUP)
            .options(REPOSITORY)
            .option(NAMESPACE)
            .option(TARGET_NAMESPACE)
            .option(
                Parameter::flag(
                    "merge-group",
                    "Whether to add the snapshots to a group of that name in the target.",
                )
                .default("true"),
            )
            .option(OUTPUT_FORMAT),
        )
}

/// `change-owner`
pub fn change_owner_command() -> Command {
    Command::new("Give a group to another owner.", change_owner)
        .argument(GROUP)
        .argument(Parameter::of(
            "new-owner",
            "The user or API token that is to own it.",
            &value::AUTH_ID,
        ))
        .options(REPOSITORY)
        .option(NAMESPACE)
}

fn group(arguments: &Arguments) -> anyhow::Result<BackupGroup> {
    let text = arguments.required("group")?;
    text.parse()
        .with_context(|| format!("unable to parse backup group '{text}'"))
}

fn forget(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let group = group(arguments)?;
    // The namespace of the environment is not consulted: what is removed stands on the command line.
    let namespace: Namespace = arguments.given("ns").unwrap_or_default().parse()?;
    server::block_on(async {
        let server = Server::connect(arguments).await?;
        let snapshots = server.api.snapshots(&namespace, Some(&group)).await?;
        let count = snapshots.as_array().map_or(0, Vec::len);
        let question = format!("Delete group \"{group}\" with {count} snapshot(s)?");
        if !tokio::task::spawn_blocking(move || terminal::confirm(&question)).await?? {
            output::out("Abort.\n");
            return Ok(());
        }
        server.api.forget_group(&namespace, &group, None).await?;
        output::out("Successfully deleted group!\n");
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn move_group(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let group = group(arguments)?;
    let namespace = server::namespace(arguments)?;
    let target: Namespace = arguments.required("target-ns")?.parse()?;
    server::block_on(async {
        let server = Server::connect(arguments).await?;
        let upid = server
            .api
            .move_group(
                &namespace,
                &group,
                &target,
                arguments.given_flag("merge-group"),
            )
            .await?;
        server.follow(&upid, arguments).await
    })?;
    Ok(ExitCode::SUCCESS)
}

fn change_owner(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let group = group(arguments)?;
    let namespace = server::namespace(arguments)?;
    let owner = arguments.required("new-owner")?;
    server::block_on(async {
        let server = Server::connect(arguments).await?;
        let _: Value = server.api.change_owner(&namespace, &group, owner).await?;
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}
