//! `backstop metrics …`: who may scrape `/metrics`. On the configuration itself, which a running server reads again.

use std::process::ExitCode;

use backstop_server::exposition::access::{PATH, loopback, set_loopback};
use serde_json::json;

use super::configuration;
use crate::command::{Arguments, Command, Group, Parameter};
use crate::output::{self, Format, OUTPUT_FORMAT};

const ALLOWED: &[&str] = &["on", "off"];

/// The commands below `metrics`.
pub fn commands() -> Group {
    Group::new()
        .command(
            "show",
            Command::new("Show who may scrape /metrics.", show).option(OUTPUT_FORMAT),
        )
        .command(
            "loopback",
            Command::new(
                "Let programs on this host scrape /metrics without a token, or not. Switch it off where a proxy on this host \
                 passes on connections without saying so.",
                set,
            )
            .argument(Parameter::choice("allowed", "on or off.", ALLOWED)),
        )
}

fn show(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let loopback = loopback(&configuration());
    match Format::of(arguments)?.json(&json!({ "loopback": loopback, "path": PATH })) {
        Some(text) => output::out(&text),
        None => {
            output::out(&format!(
                "Users and tokens with Sys.Audit on {PATH} may scrape /metrics.\n"
            ));
            output::out(if loopback {
                "Programs on this host may without a token.\n"
            } else {
                "Programs on this host need a token, too.\n"
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn set(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    set_loopback(&configuration(), arguments.required("allowed")? == "on")?;
    Ok(ExitCode::SUCCESS)
}
