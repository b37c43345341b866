//! `list` and `status`: what a datastore holds, and how full it is.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::Value;

use super::columns;
use super::parameters::{NAMESPACE, REPOSITORY};
use super::server::{self, Server};
use crate::command::{Arguments, Command};
use crate::output::{self, Column, OUTPUT_FORMAT, Record, Table};

/// The groups of a namespace.
pub const GROUPS: Table = Table::new(&[
    Column::text("backup-id")
        .titled("group")
        .rendered(columns::group),
    Column::text("last-backup")
        .titled("last snapshot")
        .rendered(columns::last_snapshot),
    Column::number("backup-count"),
    Column::text("files").rendered(columns::files),
])
.sorted(&["backup-type", "backup-id"]);

/// The space of a datastore.
pub const STATUS: Record = Record::new(&[
    Column::number("total").rendered(with_share),
    Column::number("used").rendered(with_share),
    Column::number("avail").rendered(with_share),
])
.without_header();

/// `list`
pub fn list_command() -> Command {
    Command::new("List the backup groups.", list)
        .options(REPOSITORY)
        .option(NAMESPACE)
        .option(OUTPUT_FORMAT)
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let groups = server::block_on(async {
        let namespace = server::namespace(arguments)?;
        Ok(Server::connect(arguments)
            .await?
            .api
            .groups(&namespace)
            .await?)
    })?;
    output::print_table(&GROUPS, &groups, arguments)?;
    Ok(ExitCode::SUCCESS)
}

/// `status`
pub fn status_command() -> Command {
    Command::new("Show how full the datastore is.", status)
        .options(REPOSITORY)
        .option(OUTPUT_FORMAT)
}

fn status(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let status =
        server::block_on(async { Ok(Server::connect(arguments).await?.api.status().await?) })?;
    if output::Format::of(arguments)? == output::Format::Text
        && status.get("total").and_then(Value::as_u64).unwrap_or(0) == 0
    {
        anyhow::bail!("the server reports a total size of 0 bytes, so there are no shares to show");
    }
    output::print_record(&STATUS, &status, arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn with_share(value: &Value, record: &Value) -> anyhow::Result<String> {
    let total = record
        .get("total")
        .and_then(Value::as_u64)
        .filter(|total| *total > 0)
        .context("total is 0")?;
    let bytes = value.as_u64().context("is no number")?;
    let rounded = (u128::from(bytes) * 100 + u128::from(total) / 2) / u128::from(total);
    Ok(format!("{bytes} {:>8}", format!("({rounded} %)")))
}
