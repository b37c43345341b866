//! `backstop heartbeat …`: who is told of finished runs. Through the server if one runs, so that it tries at once what could not be
//! delivered so far; else on the configuration itself.

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use backstop_heartbeat::{Monitor, Receiver};
use backstop_server::heartbeats;
use backstop_types::config_schema::value;
use serde_json::{Map, Value, json};

use super::configuration;
use super::local_server::LocalServer;
use crate::client_commands::columns;
use crate::command::{Arguments, Command, Group, Parameter};
use crate::output::{self, Column, Format, OUTPUT_FORMAT, Style, Table};

const NAME: Parameter = Parameter::of("name", "The name of the heartbeat.", &value::CONFIG_ID);
const URL: Parameter = Parameter::text(
    "url",
    "The push URL, which is a secret: '-' reads it from the standard input, so that it stands in no list of processes.",
);
const WATCH: [Parameter; 5] = [
    Parameter::choice(
        "receiver",
        "Whose push URL it is (uptime-kuma unless said otherwise).",
        &Receiver::NAMES,
    ),
    Parameter::text(
        "job",
        "Watch this job: gc:DATASTORE, prune:ID, verify:ID, sync:ID or realm-sync:REALM.",
    ),
    Parameter::of(
        "store",
        "Watch the backups in this datastore, and the jobs that work there.",
        &value::CONFIG_ID,
    ),
    Parameter::of(
        "ns",
        "Only in this namespace of it and those below.",
        &value::NAMESPACE,
    ),
    Parameter::text("group", "Only the backups of this group, such as vm/100."),
];
const TRUST: [Parameter; 3] = [
    Parameter::text(
        "tls-server-name",
        "The name that the receiver's certificate has to be valid for, where the URL has its IP address.",
    ),
    Parameter::path(
        "ca-file",
        "Certificates that are trusted beside the system's authorities; a file on the server.",
    ),
    Parameter::flag(
        "verify-tls",
        "Whether the receiver's certificate is verified (yes unless said otherwise).",
    ),
];
const MORE: [Parameter; 5] = [
    Parameter::flag("start", "Tell of the start of runs, too (healthchecks)."),
    Parameter::flag(
        "exit-code",
        "Tell results as exit codes 0 and 1 (healthchecks).",
    ),
    Parameter::flag("warnings-are-down", "Count warnings as a failure."),
    Parameter::flag("disable", "Tell nothing for the time being."),
    Parameter::of("comment", "What it is for.", &value::COMMENT),
];
/// Which of the properties are yes or no.
const FLAGS: [&str; 5] = [
    "verify-tls",
    "start",
    "exit-code",
    "warnings-are-down",
    "disable",
];

const LIST: Table = Table::new(&[
    Column::text("name"),
    Column::text("watches"),
    Column::text("receiver"),
    Column::text("server"),
    Column::number("undelivered"),
    Column::text("first-failure")
        .titled("failing since")
        .rendered(columns::local_time),
    Column::text("last-error").titled("last error"),
    Column::text("comment"),
])
.sorted(&["name"]);

/// The commands below `heartbeat`.
pub fn commands() -> Group {
    let with_settings = |command: Command| command.options(&WATCH).options(&TRUST).options(&MORE);
    Group::new()
        .command(
            "create",
            with_settings(
                Command::new(
                    "Tell a push URL of each finished run: of everything, or of what is named.",
                    create,
                )
                .argument(NAME)
                .option(URL.required()),
            ),
        )
        .command(
            "list",
            Command::new("List all heartbeats, and what has not arrived.", list)
                .option(OUTPUT_FORMAT),
        )
        .command(
            "show",
            Command::new("Show a heartbeat, but for its URL.", show)
                .argument(NAME)
                .option(OUTPUT_FORMAT),
        )
        .command(
            "update",
            with_settings(
                Command::new("Change a heartbeat.", update)
                    .argument(NAME)
                    .option(URL),
            )
            .option(
                Parameter::choice("delete", "Take this setting away.", &Monitor::DELETABLE)
                    .repeated(),
            ),
        )
        .command(
            "remove",
            Command::new("Remove a heartbeat.", remove).argument(NAME),
        )
        .command(
            "test",
            Command::new("Send a push, and say whether the receiver took it.", test)
                .argument(NAME)
                .option(Parameter::choice(
                    "status",
                    "What to tell it.",
                    &["up", "down"],
                )),
        )
}

/// The properties that were given.
fn properties(arguments: &Arguments) -> anyhow::Result<Map<String, Value>> {
    let mut properties = Map::new();
    for parameter in WATCH.iter().chain(&TRUST).chain(&MORE) {
        let name = parameter.name;
        if FLAGS.contains(&name) {
            if let Some(flag) = arguments.given_flag(name) {
                properties.insert(name.to_owned(), json!(flag));
            }
        } else if name == "ca-file" {
            if let Some(path) = arguments.given_path(name) {
                properties.insert(name.to_owned(), json!(std::path::absolute(path)?));
            }
        } else if let Some(text) = arguments.given(name) {
            properties.insert(name.to_owned(), json!(text));
        }
    }
    match arguments.given("url") {
        Some("-") => {
            let mut url = String::new();
            std::io::stdin()
                .take(64 << 10)
                .read_to_string(&mut url)
                .context("unable to read the URL from the standard input")?;
            properties.insert("url".to_owned(), json!(url.trim()));
        }
        Some(url) => {
            properties.insert("url".to_owned(), json!(url));
        }
        None => {}
    }
    Ok(properties)
}

fn path(name: &str) -> String {
    format!("backstop/heartbeats/{name}")
}

fn create(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = arguments.required("name")?;
    let mut properties = properties(arguments)?;
    match LocalServer::find()? {
        Some(server) => {
            properties.insert("name".to_owned(), json!(name));
            server.ask(|client| async move {
                let properties = Value::Object(properties);
                Ok(client.post("backstop/heartbeats", properties).await?)
            })?;
        }
        None => heartbeats::create(&configuration(), name, properties)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn update(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = arguments.required("name")?;
    let mut properties = properties(arguments)?;
    let delete = arguments.list("delete");
    if properties.is_empty() && delete.is_empty() {
        bail!("nothing to change is given");
    }
    match LocalServer::find()? {
        Some(server) => {
            if !delete.is_empty() {
                properties.insert("delete".to_owned(), json!(delete));
            }
            let path = path(name);
            server.ask(|client| async move {
                Ok(client.put(&path, Value::Object(properties)).await?)
            })?;
        }
        None => heartbeats::update(&configuration(), name, properties, delete)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn remove(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = arguments.required("name")?;
    match LocalServer::find()? {
        Some(server) => {
            let path = path(name);
            server.ask(|client| async move { Ok(client.delete(&path, json!({})).await?) })?;
        }
        None => heartbeats::remove(&configuration(), name)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let rows = match LocalServer::find()? {
        Some(server) => server
            .ask(|client| async move { Ok(client.get("backstop/heartbeats", json!({})).await?) })?,
        None => {
            let monitors = heartbeats::monitors(&configuration())?;
            let rows = monitors
                .iter()
                .map(|(name, monitor)| heartbeats::shown(name, monitor));
            json!(rows.collect::<Vec<_>>())
        }
    };
    match Format::of(arguments)?.json(&rows) {
        Some(text) => output::out(&text),
        None => {
            let rows = rows.as_array().map_or(&[][..], Vec::as_slice);
            output::out(&LIST.render(rows, &Style::detect()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = arguments.required("name")?;
    let view = match LocalServer::find()? {
        Some(server) => {
            let path = path(name);
            server.ask(|client| async move { Ok(client.get(&path, json!({})).await?) })?
        }
        None => {
            let monitor = heartbeats::get(&configuration(), name)?;
            Value::Object(heartbeats::shown(name, &monitor))
        }
    };
    match Format::of(arguments)?.json(&view) {
        Some(text) => output::out(&text),
        None => output::out(&described(&view)),
    }
    Ok(ExitCode::SUCCESS)
}

/// One line for each property, then those pushes that have not arrived.
fn described(view: &Value) -> String {
    let mut text = String::new();
    let fields = view.as_object().into_iter().flatten();
    for (name, value) in fields.filter(|(name, _)| *name != "undelivered") {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        text.push_str(&format!("{name}: {value}\n"));
    }
    for push in view["undelivered"].as_array().into_iter().flatten() {
        text.push_str(&format!(
            "not delivered: tried {} times, {}\n",
            push["attempts"],
            push["last-error"]
                .as_str()
                .unwrap_or("waiting behind the one before")
        ));
    }
    text
}

fn test(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = arguments.required("name")?;
    let path = format!("{}/test", path(name));
    let parameters = match arguments.given("status") {
        Some(status) => json!({ "status": status }),
        None => json!({}),
    };
    LocalServer::needed()?
        .ask(|client| async move { Ok(client.post(&path, parameters).await?) })?;
    output::out("The receiver took it.\n");
    Ok(ExitCode::SUCCESS)
}
