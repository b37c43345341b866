//! `task …`: what the server does and did. Lists and logs are read from their files if no server runs.

use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use backstop_client::api::TaskApi;
use backstop_server::task::{TaskList, log_path, read_page};
use backstop_types::Upid;
use backstop_types::record::{TaskItem, TaskState};
use serde_json::{Value, json};

use super::local_server::LocalServer;
use crate::client_commands::task::{ALL, LIMIT, UPID};
use crate::command::{Arguments, Command, Group};
use crate::output::{self, Format, OUTPUT_FORMAT, time};
use crate::task_follow::{self, OnInterrupt, TASKS};
use crate::{failed_tasks, installation};

/// Lines read at once from a log.
const PAGE: u64 = 500;
/// Recorded tasks among which failures are looked for.
const RECORDED: usize = 10_000;

/// The commands below `task`.
pub fn commands() -> Group {
    Group::new()
        .command(
            "list",
            Command::new("List running tasks, or all.", list)
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
            .argument(UPID),
        )
        .command(
            "stop",
            Command::new("Ask a task to stop.", stop).argument(UPID),
        )
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let all = arguments.flag("all");
    let limit = arguments.integer("limit").unwrap_or(50);
    // Whoever lists everything sees the failures in the list, and scripts ask for JSON.
    let tells = !all && Format::of(arguments)? == Format::Text;
    let now = time::now();
    let (tasks, failed) = match LocalServer::find()? {
        Some(server) => server.ask(|client| async move {
            let calls = TaskApi::new(client);
            let filter = json!({ "running": !all, "start": 0, "limit": limit });
            let tasks = calls.list(filter).await?;
            let failed = match tells {
                true => calls.list(failed_tasks::filter(now)).await?,
                false => Value::Null,
            };
            Ok((tasks, failed))
        })?,
        // Without a server none runs.
        None => (
            recorded(if all { usize::try_from(limit)? } else { 0 })?,
            recorded(if tells { RECORDED } else { 0 })?,
        ),
    };
    output::print_table(&TASKS, &tasks, arguments)?;
    output::err(&failed_tasks::report(&failed, now, &arguments.program, ""));
    Ok(ExitCode::SUCCESS)
}

/// The newest tasks from the files, at most so many.
fn recorded(limit: usize) -> anyhow::Result<Value> {
    let mut tasks: Vec<TaskItem> = Vec::new();
    let folder = installation::roots().task_logs();
    if limit > 0 && folder.is_dir() {
        TaskList::new(folder).visit(false, &mut |entry| {
            let end = entry.end.as_ref().map(|(time, state)| (*time, state));
            tasks.push(TaskItem::new(entry.upid.clone(), end));
            match tasks.len() < limit {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
    }
    Ok(serde_json::to_value(tasks)?)
}

fn log(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let upid = arguments.required("upid")?;
    match LocalServer::find()? {
        Some(server) => server.ask(|client| async move {
            task_follow::follow(&TaskApi::new(client), upid, OnInterrupt::Detach).await
        })?,
        None => print_recorded(&upid.parse()?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a log from its file; fails if the task failed.
fn print_recorded(upid: &Upid) -> anyhow::Result<()> {
    let path = log_path(&installation::roots().task_logs(), upid);
    let mut printed = 0;
    let mut last = String::new();
    loop {
        let page = read_page(&path, printed, PAGE)
            .with_context(|| format!("there is no log of task {upid}"))?;
        let fresh: Vec<_> = page
            .lines
            .into_iter()
            .filter(|(number, _)| *number > printed)
            .collect();
        if fresh.is_empty() {
            break;
        }
        for (number, line) in fresh {
            printed = number;
            last = task_follow::without_time(&line).to_string();
            output::out(&format!("{last}\n"));
        }
    }
    let state = match last.strip_prefix("TASK ") {
        Some(rest) => TaskState::parse(rest.strip_prefix("ERROR: ").unwrap_or(rest)),
        None => TaskState::Unknown,
    };
    if !state.is_success() {
        bail!("task failed (status {state})");
    }
    Ok(())
}

fn stop(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let upid = arguments.required("upid")?;
    LocalServer::needed()?
        .ask(|client| async move { Ok(TaskApi::new(client).stop(upid).await?) })?;
    Ok(ExitCode::SUCCESS)
}
