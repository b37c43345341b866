//! `task …`: the tasks of the calling user on the repository's datastore.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::parameters::REPOSITORY;
use super::server::{self, Server};
use crate::command::{Arguments, Command, Group, Parameter};
use crate::failed_tasks;
use crate::output::{self, Format, OUTPUT_FORMAT, time};
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
    // Whoever lists everything sees the failures in the list, and scripts ask for JSON.
    let tells = !arguments.flag("all") && Format::of(arguments)? == Format::Text;
    let now = time::now();
    let (tasks, failed) = server::block_on(async {
        let server = Server::connect(arguments).await?;
        let own = |mut filter: Value| {
            filter["userfilter"] = json!(server.repository.auth_id().to_string());
            filter["store"] = json!(server.repository.store().to_string());
            filter
        };
        let filter = own(json!({
            "running": !arguments.flag("all"),
            "start": 0,
            "limit": arguments.integer("limit"),
        }));
        let tasks = server.tasks.list(filter).await?;
        let failed = match tells {
            true => server.tasks.list(own(failed_tasks::filter(now))).await?,
            false => Value::Null,
        };
        Ok((tasks, failed))
    })?;
    output::print_table(&task_follow::TASKS, &tasks, arguments)?;
    let options = match arguments.given("repository") {
        Some(repository) => format!(" --repository '{repository}'"),
        None => String::new(),
    };
    output::err(&failed_tasks::report(
        &failed,
        now,
        &arguments.program,
        &options,
    ));
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
