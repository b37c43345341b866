//! `backstop notification spool …`: what has not arrived at its target.

use std::process::ExitCode;

use serde_json::{Map, Value};

use crate::command::{Arguments, Command, Group, Parameter};
use crate::manager_commands::local_server::LocalServer;
use crate::output::{self, Column, OUTPUT_FORMAT, Table, time};

const PATH: &str = "backstop/notifications/spool";

const LIST: Table = Table::new(&[
    Column::text("id"),
    Column::text("target"),
    Column::text("template"),
    Column::text("severity"),
    Column::text("time").rendered(moment),
    Column::number("attempts"),
    Column::text("next-try").rendered(next_try),
    Column::text("last-error"),
]);

fn moment(value: &Value, _: &Value) -> anyhow::Result<String> {
    Ok(value.as_i64().map(time::local).unwrap_or_default())
}

/// What a target refuses is not tried again by itself.
fn next_try(value: &Value, row: &Value) -> anyhow::Result<String> {
    match row.get("refused") {
        Some(Value::Bool(true)) => Ok("refused".to_owned()),
        _ => moment(value, row),
    }
}

/// The commands below `spool`.
pub fn commands() -> Group {
    Group::new()
        .command(
            "list",
            Command::new(
                "List the notifications that have not arrived though they were tried, those that wait behind them, and those that are refused.",
                list,
            )
            .option(OUTPUT_FORMAT),
        )
        .command(
            "retry",
            Command::new("Try to deliver them at once, also what was refused.", retry),
        )
        .command(
            "discard",
            Command::new("Give up a notification.", discard)
                .argument(Parameter::text("id", "Its id, as the list shows it.")),
        )
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let list = LocalServer::needed()?
        .ask(|client| async move { Ok(client.get(PATH, Value::Null).await?) })?;
    output::print_table(&LIST, &list, arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn retry(_: &Arguments) -> anyhow::Result<ExitCode> {
    let parameters = Value::Object(Map::new());
    LocalServer::needed()?.ask(|client| async move {
        Ok(client
            .post("backstop/notifications/retry", parameters)
            .await?)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn discard(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let path = format!("{PATH}/{}", arguments.required("id")?);
    LocalServer::needed()?
        .ask(|client| async move { Ok(client.delete(&path, Value::Null).await?) })?;
    Ok(ExitCode::SUCCESS)
}
