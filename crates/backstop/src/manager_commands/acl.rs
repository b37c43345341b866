//! `acl …`: who may do what.

use std::process::ExitCode;

use backstop_server::access::acl::{self, AclChange};
use backstop_types::config_schema::value;
use serde_json::Value;

use super::configuration;
use super::settings::DIGEST;
use crate::command::{Arguments, Command, Group, Parameter};
use crate::output::{self, Column, OUTPUT_FORMAT, Table};

/// Access rules.
pub const RULES: Table = Table::new(&[
    Column::text("ugid").rendered(subject),
    Column::text("path"),
    Column::number("propagate"),
    Column::text("roleid"),
])
.sorted(&["ugid", "path"]);

fn subject(value: &Value, rule: &Value) -> anyhow::Result<String> {
    let name = value.as_str().unwrap_or_default();
    Ok(match rule.get("ugid_type").and_then(Value::as_str) {
        Some("group") => format!("@{name}"),
        _ => name.to_string(),
    })
}

/// The commands below `acl`.
pub fn commands() -> Group {
    Group::new()
        .command(
            "list",
            Command::new("List the access rules.", list).option(OUTPUT_FORMAT),
        )
        .command(
            "update",
            Command::new("Grant a role at a path, or take it away.", update)
                .argument(Parameter::of(
                    "path",
                    "Where the role is to hold, such as /datastore/NAME.",
                    &value::ACL_PATH,
                ))
                .argument(Parameter::of("role", "The role.", &value::ROLE))
                .option(Parameter::of(
                    "auth-id",
                    "The user or API token.",
                    &value::AUTH_ID,
                ))
                .option(Parameter::text("group", "The group of users.").length(3, 64))
                .option(
                    Parameter::flag("propagate", "Whether the role also holds below the path.")
                        .default("true"),
                )
                .option(Parameter::flag("delete", "Take the role away instead."))
                .option(DIGEST),
        )
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let rules = acl::list(&configuration(), None, false)?;
    output::print_table(&RULES, &serde_json::to_value(rules)?, arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn update(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let change = AclChange {
        path: arguments.required("path")?.to_string(),
        role: arguments.required("role")?.parse()?,
        auth_id: arguments.text("auth-id").map(str::parse).transpose()?,
        group: arguments.text("group").map(str::to_string),
        propagate: arguments.flag("propagate"),
        delete: arguments.flag("delete"),
    };
    acl::update(&configuration(), &change, arguments.text("digest"))?;
    Ok(ExitCode::SUCCESS)
}
