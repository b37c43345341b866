//! `user tfa …`: the second factors of users. None of these commands shows a secret.

use std::process::ExitCode;

use backstop_server::access::second_factor;
use backstop_types::UserId;
use backstop_types::config_schema::value;
use backstop_types::schema::ANY_TEXT;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::configuration;
use crate::command::{Arguments, Command, Group, Parameter};
use crate::output::{self, Column, OUTPUT_FORMAT, Table, time};

/// Second factors.
pub const FACTORS: Table = Table::new(&[
    Column::text("id"),
    Column::text("type"),
    Column::text("description"),
    Column::text("created").rendered(created),
]);

fn created(value: &Value, _: &Value) -> anyhow::Result<String> {
    Ok(value.as_i64().map(time::local).unwrap_or_default())
}

const USER_ID: Parameter = Parameter::of("userid", "The user: name@realm.", &value::USER_ID);
const ID: Parameter = Parameter::of(
    "id",
    "The second factor; 'recovery' for the recovery codes.",
    &ANY_TEXT,
);
const PASSWORD: Parameter = Parameter::of(
    "password",
    "Accepted for compatibility; root needs none.",
    &value::PASSWORD,
);

/// The commands below `user tfa`.
pub fn commands() -> Group {
    let on_user = |help, action| Command::new(help, action).argument(USER_ID);
    Group::new()
        .command(
            "list",
            on_user("List the second factors of a user.", list).option(OUTPUT_FORMAT),
        )
        .command(
            "delete",
            on_user("Remove a second factor.", delete)
                .argument(ID)
                .option(PASSWORD),
        )
        .command(
            "unlock",
            on_user(
                "Unlock the second factors of a user after too many failures.",
                unlock,
            ),
        )
}

fn user_id(arguments: &Arguments) -> anyhow::Result<UserId> {
    Ok(arguments.required("userid")?.parse()?)
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let factors = second_factor::list_user(&configuration(), &user_id(arguments)?)?;
    output::print_table(&FACTORS, &serde_json::to_value(factors)?, arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn delete(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let id = arguments.required("id")?;
    second_factor::delete(&configuration(), &user_id(arguments)?, id)?;
    Ok(ExitCode::SUCCESS)
}

fn unlock(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let now = Timestamp::now().as_second();
    let was_locked = second_factor::unlock(&configuration(), &user_id(arguments)?, now)?;
    output::print_result(&json!(was_locked));
    Ok(ExitCode::SUCCESS)
}
