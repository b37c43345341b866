//! `backstop token …`: API tokens that only add. On the configuration itself, which a running server reads again.

use std::process::ExitCode;

use anyhow::bail;
use backstop_server::access::append_only;
use backstop_types::AuthId;
use backstop_types::config_schema::value;
use serde_json::{Value, json};

use super::configuration;
use crate::command::{Arguments, Command, Group, Parameter};
use crate::output::{self, Column, OUTPUT_FORMAT, Table};

const TOKENS: Table = Table::new(&[Column::text("tokenid").titled("append-only tokens")]);

/// The commands below `token`.
pub fn commands() -> Group {
    Group::new()
        .command(
            "append-only",
            Command::new(
                "Let an API token only read and create snapshots, whatever its access rules say.",
                append,
            )
            .argument(Parameter::of(
                "auth-id",
                "The token, as USER@REALM!NAME.",
                &value::AUTH_ID,
            ))
            .option(
                Parameter::flag("off", "Let it do again what its access rules allow.")
                    .default("false"),
            ),
        )
        .command(
            "list",
            Command::new("List the API tokens that are append-only.", list).option(OUTPUT_FORMAT),
        )
}

fn append(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let token: AuthId = arguments.required("auth-id")?.parse()?;
    if !token.is_token() {
        bail!("'{token}' is a user; only API tokens can be append-only");
    }
    if arguments.flag("off") {
        append_only::unmark(&configuration(), &token)?;
    } else {
        append_only::mark(&configuration(), &token)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let tokens = append_only::list(&configuration())?;
    let rows: Vec<Value> = tokens
        .iter()
        .map(|token| json!({ "tokenid": token }))
        .collect();
    output::print_table(&TOKENS, &Value::Array(rows), arguments)?;
    Ok(ExitCode::SUCCESS)
}
