//! `task …`: the tasks of the calling user on the repository's datastore.

use std::process::ExitCode;

use serde_json::json;

use super::parameters::REPOSITORY;
use super::server::{self, Server};
use crate::command::{Arguments, Command, Group, Parameter};
use crate::output::{self, OUTPUT_FORMAT};
use crate::task_follow::{self, OnInterrupt};

/// A task's id.
pub const UPID: Parameter = Parameter::text("upid", "The unique id of the task.").length(36, 256);

/// How many tasks to list.
pub const LIMIT: Parameter = Parameter::integer(
    "limit",
    "How many tasks to list at most.",
    Some(1),
    Some(1000),
)
.default("50");

/// Whether finished tasks are listed.
pub const ALL: Parameter = Parameter::flag("all", "Also list tasks that have ended.");

/// The commands below `task`.
pub fn commands() -> Group {
    Group::new()
        .command(
            "list",
            Command::new("List running tasks, or all.", list)
                .options(REPOSITORY)
                .option(LIMIT)
                .option(ALL)
                .option(OUTPUT_FORMAT),
        )
        .command(
            "log",
            Command::new(
                "Show the log of a task, and follow it while the task runs.",
                log,
            )
            .argument(UPID)
            .options(REPOSITORY),
        )
        .command(
            "stop",
            Command::new("Ask a task to stop.", stop)
                .argument(UPID)
                .options(REPOSITORY),
        )
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let tasks = server::block_on(async {
        let server = Server::connect(arguments).await?;
        let filter = json!({
            "running": !arguments.flag("all"),
            "start": 0,
            "limit": arguments.integer("limit"),
            "userfilter": server.repository.auth_id().to_string(),
            "store": server.repository.store().to_string(),
        });
        Ok(server.tasks.list(filter).await?)
    })?;
    output::print_table(&task_follow::TASKS, &tasks, arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn log(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let upid = arguments.required("upid")?;
    server::block_on(async {
        let server = Server::connect(arguments).await?;
        task_follow::follow(&server.tasks, upid, OnInterrupt::Detach).await
    })?;
    Ok(ExitCode::SUCCESS)
}

fn stop(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let upid = arguments.required("upid")?;
    server::block_on(async {
        let server = Server::connect(arguments).await?;
        Ok(server.tasks.stop(upid).await?)
    })?;
    Ok(ExitCode::SUCCESS)
}
