//! `prune` and `garbage-collect`: what is kept, and giving back the space of what is not.

use std::process::ExitCode;

use backstop_types::{BackupGroup, Namespace};
use serde_json::{Map, Value, json};

use super::columns;
use super::parameters::{GROUP, MAX_DEPTH, NAMESPACE, REPOSITORY};
use super::server::{self, Server};
use crate::command::{Arguments, Command, Parameter};
use crate::output::{self, Column, OUTPUT_FORMAT, Table};

/// What happens to each snapshot.
pub const DECISIONS: Table = Table::new(&[
    Column::text("backup-id")
        .titled("snapshot")
        .rendered(columns::snapshot),
    Column::number("backup-time")
        .titled("date")
        .rendered(columns::local_time),
    Column::number("keep").titled("action").rendered(action),
])
.sorted(&["backup-type", "backup-id", "backup-time"]);

/// The same with the reasons.
pub const REASONED: Table = Table::new(&[
    Column::text("backup-id")
        .titled("snapshot")
        .rendered(columns::snapshot),
    Column::number("backup-time")
        .titled("date")
        .rendered(columns::local_time),
    Column::number("keep").titled("action").rendered(action),
    Column::text("reason"),
])
.sorted(&["backup-type", "backup-id", "backup-time"]);

fn action(keep: &Value, _: &Value) -> anyhow::Result<String> {
    Ok(if keep.as_bool().unwrap_or(true) {
        "keep"
    } else {
        "remove"
    }
    .to_string())
}

const fn keep(name: &'static str, help: &'static str) -> Parameter {
    Parameter::integer(name, help, Some(1), None)
}

/// How many snapshots are kept per period.
pub const KEEP: &[Parameter] = &[
    keep("keep-last", "How many of the newest snapshots to keep."),
    keep(
        "keep-hourly",
        "For how many hours to keep one snapshot each.",
    ),
    keep("keep-daily", "For how many days to keep one snapshot each."),
    keep(
        "keep-weekly",
        "For how many weeks to keep one snapshot each.",
    ),
    keep(
        "keep-monthly",
        "For how many months to keep one snapshot each.",
    ),
    keep(
        "keep-yearly",
        "For how many years to keep one snapshot each.",
    ),
];

/// `prune`
pub fn prune_command() -> Command {
    Command::new(
        "Remove the snapshots of a group that the rules do not keep.",
        prune,
    )
    .argument(GROUP)
    .options(REPOSITORY)
    .option(NAMESPACE)
    .option(MAX_DEPTH)
    .option(Parameter::flag(
        "dry-run",
        "Only show what would be removed.",
    ))
    .option(Parameter::flag(
        "reasons",
        "With --dry-run, also show why; needs a Backstop server.",
    ))
    .option(Parameter::flag("quiet", "Only show what is removed."))
    .options(KEEP)
    .option(OUTPUT_FORMAT)
}

fn prune(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let group: BackupGroup = arguments.required("group")?.parse()?;
    // The namespace of the environment is not consulted: what is pruned stands on the command line.
    let namespace: Namespace = arguments.given("ns").unwrap_or_default().parse()?;
    let mut options = Map::new();
    for parameter in KEEP.iter().map(|p| p.name).chain(["max-depth"]) {
        if let Some(number) = arguments.integer(parameter) {
            options.insert(parameter.to_string(), json!(number));
        }
    }
    let reasons = arguments.flag("reasons");
    if reasons && !arguments.flag("dry-run") {
        anyhow::bail!("--reasons shows what would be done and why, so it needs --dry-run");
    }
    if arguments.flag("dry-run") {
        options.insert("dry-run".to_string(), json!(true));
    }
    if reasons {
        options.insert("reasons".to_string(), json!(true));
    }
    let mut decisions = server::block_on(async {
        let server = Server::connect(arguments).await?;
        Ok(server
            .api
            .prune(&namespace, &group, Value::Object(options))
            .await?)
    })?;
    if arguments.flag("quiet")
        && let Some(items) = decisions.as_array_mut()
    {
        items.retain(|item| item.get("keep").and_then(Value::as_bool) != Some(true));
    }
    let table = if reasons { &REASONED } else { &DECISIONS };
    output::print_table(table, &decisions, arguments)?;
    Ok(ExitCode::SUCCESS)
}

/// `garbage-collect`
pub fn garbage_collect_command() -> Command {
    Command::new(
        "Remove the data that no snapshot refers to any more.",
        garbage_collect,
    )
    .options(REPOSITORY)
    .option(OUTPUT_FORMAT)
}

fn garbage_collect(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    server::block_on(async {
        let server = Server::connect(arguments).await?;
        let upid = server.api.start_garbage_collection().await?;
        server.follow(&upid, arguments).await
    })?;
    Ok(ExitCode::SUCCESS)
}
