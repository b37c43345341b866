//! `backstop sessions …`: how long people stay logged in, and ending that. On the configuration itself, which a running server
//! reads again.

use std::process::ExitCode;

use backstop_server::access::session_limit::{self, MAX_DAYS};
use backstop_server::access::user;
use backstop_types::UserId;
use serde_json::json;

use super::configuration;
use super::user::USER_ID;
use crate::command::{Arguments, Command, Group, Parameter};
use crate::output::{self, Format, OUTPUT_FORMAT};

/// The commands below `sessions`.
pub fn commands() -> Group {
    Group::new()
        .command(
            "show",
            Command::new("Show how long a session lasts at most.", show).option(OUTPUT_FORMAT),
        )
        .command(
            "limit",
            Command::new(
                "Set after how many days everybody has to log in again, however often the ticket is renewed.",
                limit,
            )
            .argument(
                Parameter::integer("days", "The days; 0 for no limit.", Some(0), Some(MAX_DAYS as i64)),
            ),
        )
        .command(
            "end",
            Command::new(
                "Log a user out everywhere. API tokens are no sessions and stay valid.",
                end,
            )
            .argument(USER_ID),
        )
}

fn show(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let days = session_limit::days(&configuration());
    match Format::of(arguments)?.json(&json!({ "max-days": days })) {
        Some(text) => output::out(&text),
        None if days == 0 => output::out("Sessions have no limit.\n"),
        None => output::out(&format!("Sessions end {days} days after the log-in.\n")),
    }
    Ok(ExitCode::SUCCESS)
}

fn limit(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let days = u32::try_from(arguments.integer("days").unwrap_or_default())?;
    session_limit::set(&configuration(), days)?;
    Ok(ExitCode::SUCCESS)
}

fn end(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let store = configuration();
    let user: UserId = arguments.required("userid")?.parse()?;
    user::get(&store, &user)?;
    session_limit::end(&store, &user)?;
    Ok(ExitCode::SUCCESS)
}
