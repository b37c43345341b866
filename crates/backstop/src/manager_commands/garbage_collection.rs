//! `garbage-collection …`: giving back the space of data that no snapshot refers to. Always through the server.

use std::process::ExitCode;

use backstop_types::config_schema::value;
use serde_json::Value;

use super::local_server::LocalServer;
use crate::client_commands::columns;
use crate::command::{Arguments, Command, Group, Parameter};
use crate::output::{self, Column, OUTPUT_FORMAT, Record, Table, size};

const STORE: Parameter = Parameter::of("store", "The name of the datastore.", &value::CONFIG_ID);

/// The last collection of one datastore.
pub const STATUS: Record = Record::new(&[
    Column::text("store"),
    Column::number("disk-bytes"),
    Column::number("disk-chunks"),
    Column::number("index-data-bytes"),
    Column::number("index-file-count"),
    Column::number("pending-bytes"),
    Column::number("pending-chunks"),
    Column::number("removed-bad"),
    Column::number("removed-bytes"),
    Column::number("removed-chunks"),
    Column::number("still-bad"),
    Column::number("duration"),
    Column::number("last-run-endtime"),
    Column::text("last-run-state"),
    Column::number("next-run"),
    Column::text("schedule"),
    Column::text("cache-stats"),
    Column::text("upid"),
]);

/// The last collections of all datastores.
pub const ALL: Table = Table::new(&[
    Column::text("store"),
    Column::text("last-run-endtime").rendered(columns::local_time),
    Column::text("duration").rendered(duration),
    Column::text("removed-bytes").rendered(columns::human_size),
    Column::text("pending-bytes").rendered(columns::human_size),
    Column::text("last-run-state"),
    Column::text("schedule"),
    Column::text("next-run").rendered(columns::local_time),
]);

fn duration(value: &Value, _: &Value) -> anyhow::Result<String> {
    Ok(value.as_f64().map(size::duration).unwrap_or_default())
}

/// The commands below `garbage-collection`.
pub fn commands() -> Group {
    Group::new()
        .command(
            "start",
            Command::new("Collect the garbage of a datastore.", start)
                .argument(STORE)
                .option(OUTPUT_FORMAT),
        )
        .command(
            "status",
            Command::new("Show the last collection of a datastore.", status)
                .argument(STORE)
                .option(OUTPUT_FORMAT),
        )
        .command(
            "list",
            Command::new("Show the last collections of all datastores.", list)
                .option(OUTPUT_FORMAT),
        )
}

fn start(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let path = format!("admin/datastore/{}/gc", arguments.required("store")?);
    LocalServer::needed()?.run_task(arguments, |client| async move {
        Ok(client.post(&path, Value::Null).await?)
    })
}

fn status(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let path = format!("admin/datastore/{}/gc", arguments.required("store")?);
    let status = LocalServer::needed()?
        .ask(|client| async move { Ok(client.get(&path, Value::Null).await?) })?;
    output::print_record(&STATUS, &status, arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let all = LocalServer::needed()?
        .ask(|client| async move { Ok(client.get("admin/gc", Value::Null).await?) })?;
    output::print_table(&ALL, &all, arguments)?;
    Ok(ExitCode::SUCCESS)
}
