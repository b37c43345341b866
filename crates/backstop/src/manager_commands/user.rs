//! `user …`: users and what they may do. Their API tokens are in `user_token`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use backstop_server::access::{password, user};
use backstop_server::config::SectionFile;
use backstop_types::config_schema::access::USER;
use backstop_types::config_schema::value;
use backstop_types::{AuthId, UserId};
use serde_json::{Map, Value};

use super::configuration;
use super::settings::{self, DIGEST};
use super::user_token;
use crate::command::{Arguments, Command, Group, Parameter};
use crate::output::{self, Column, Format, OUTPUT_FORMAT, Table, time};

/// Users.
pub const USERS: Table = Table::new(&[
    Column::text("userid"),
    Column::number("enable").rendered(enabled),
    Column::number("expire").rendered(expiry),
    Column::text("firstname"),
    Column::text("lastname"),
    Column::text("email"),
    Column::text("comment"),
]);

pub(super) fn enabled(value: &Value, _: &Value) -> anyhow::Result<String> {
    Ok(if value.as_bool().unwrap_or(true) {
        "1"
    } else {
        "0"
    }
    .to_string())
}

pub(super) fn expiry(value: &Value, _: &Value) -> anyhow::Result<String> {
    Ok(match value.as_i64() {
        None | Some(0) => "never".to_string(),
        Some(epoch) => time::local(epoch),
    })
}

pub(super) const USER_ID: Parameter =
    Parameter::of("userid", "The user: name@realm.", &value::USER_ID);
const PASSWORD: Parameter = Parameter::of(
    "password",
    "The password; it can be seen in the list of processes while the command runs.",
    &value::NEW_PASSWORD,
);

pub(super) fn settings_options() -> Vec<Parameter> {
    let mut options = settings::options(
        &USER,
        &[
            ("comment", "A comment."),
            ("enable", "Whether the user may log in."),
            (
                "expire",
                "When the account ends, in seconds since 1970; 0 for never.",
            ),
            ("firstname", "The first name."),
            ("lastname", "The last name."),
            ("email", "The mail address."),
        ],
    );
    for option in &mut options {
        match option.name {
            "enable" => option.default = Some("true"),
            "expire" => option.default = Some("0"),
            _ => {}
        }
    }
    options
}

/// The commands below `user`.
pub fn commands() -> Group {
    let on_user = |help, action| Command::new(help, action).argument(USER_ID);
    Group::new()
        .command(
            "list",
            Command::new("List the users.", list).option(OUTPUT_FORMAT),
        )
        .command(
            "create",
            on_user("Add a user.", create)
                .options(&settings_options())
                .option(PASSWORD),
        )
        .command(
            "update",
            on_user("Change a user.", update)
                .options(&settings_options())
                .option(PASSWORD)
                .option(
                    Parameter::choice(
                        "delete",
                        "A setting to remove.",
                        &["comment", "firstname", "lastname", "email"],
                    )
                    .repeated(),
                )
                .option(DIGEST),
        )
        .command(
            "remove",
            on_user("Remove a user with its tokens and rights.", remove).option(DIGEST),
        )
        .group("tfa", super::second_factor::commands())
        .command("list-tokens", user_token::list_command())
        .command("generate-token", user_token::generate_command())
        .command("delete-token", user_token::delete_command())
        .group("token", user_token::commands())
        .command(
            "permissions",
            Command::new("Show what a user or an API token may do.", permissions)
                .argument(Parameter::of(
                    "auth-id",
                    "The user or API token.",
                    &value::AUTH_ID,
                ))
                .option(Parameter::of(
                    "path",
                    "Only at this path.",
                    &value::ACL_PATH,
                ))
                .option(OUTPUT_FORMAT),
        )
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let loaded = configuration().sections(SectionFile::User)?;
    let users: Vec<Value> = loaded
        .data
        .of_type("user")
        .filter_map(|(id, _)| loaded.data.to_api(id).map(Value::Object))
        .collect();
    output::print_table(&USERS, &Value::Array(users), arguments)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn user_id(arguments: &Arguments) -> anyhow::Result<UserId> {
    Ok(arguments.required("userid")?.parse()?)
}

fn create(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let parameters = settings::given(arguments, &USER)?;
    user::create(
        &configuration(),
        &user_id(arguments)?,
        parameters,
        arguments.text("password"),
    )?;
    Ok(ExitCode::SUCCESS)
}

fn update(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let store = configuration();
    let user = user_id(arguments)?;
    let parameters = settings::given(arguments, &USER)?;
    user::update(
        &store,
        &user,
        parameters,
        arguments.list("delete"),
        arguments.text("digest"),
    )?;
    if let Some(new) = arguments.text("password") {
        password::set(&store, &user, new)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn remove(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    user::delete(
        &configuration(),
        &user_id(arguments)?,
        arguments.text("digest"),
    )?;
    Ok(ExitCode::SUCCESS)
}

fn permissions(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let auth_id: AuthId = arguments.required("auth-id")?.parse()?;
    let loaded = configuration().acl()?;
    let paths = match arguments.text("path") {
        Some(path) => vec![path.to_string()],
        None => loaded.data.paths(),
    };
    let mut answer: BTreeMap<String, BTreeMap<&str, bool>> = BTreeMap::new();
    for path in paths {
        let held = loaded.data.permissions(&auth_id, &path);
        let privileges: BTreeMap<&str, bool> = backstop_types::Privileges::NAMES
            .iter()
            .filter(|(privilege, _)| held.privileges.contains(*privilege))
            .map(|(privilege, name)| (*name, held.propagated.contains(*privilege)))
            .collect();
        if !privileges.is_empty() || arguments.text("path").is_some() {
            answer.insert(path, privileges);
        }
    }
    let answer = serde_json::to_value(answer)?;
    match Format::of(arguments)?.json(&answer) {
        Some(text) => output::out(&text),
        None => output::out(&permission_lines(&answer)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The privileges at each path.
pub fn permission_lines(answer: &Value) -> String {
    let mut text = String::from("Privileges with (*) have the propagate flag set\n\n");
    for (path, privileges) in answer.as_object().into_iter().flatten() {
        let _ = writeln!(text, "Path: {path}");
        let privileges: &Map<String, Value> = match privileges.as_object() {
            Some(privileges) if !privileges.is_empty() => privileges,
            _ => {
                text.push_str("- NoAccess\n");
                continue;
            }
        };
        for (name, propagated) in privileges {
            let mark = if propagated.as_bool() == Some(true) {
                " (*)"
            } else {
                ""
            };
            let _ = writeln!(text, "- {name}{mark}");
        }
    }
    text
}
