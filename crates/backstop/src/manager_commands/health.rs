//! `backstop health …`: what is wrong, what to do, and who knows of it. Always through the server, whose list it shows.
//!
//! The exit code says how bad it is, as monitoring systems read it of plugins: 0 well, 1 warning, 2 critical, 3 not known.

mod report;

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use backstop_health::plugin::{exit_code, render};
use backstop_health::{Check, Overall, State, parse_span};
use backstop_types::config_schema::value;
use serde_json::{Map, Value, json};

use super::local_server::LocalServer;
use crate::command::{Arguments, Command, Group, Parameter};
use crate::moment;
use crate::output::{self, Column, Format, OUTPUT_FORMAT, Table};

const STORE: Parameter = Parameter::of("store", "The datastore.", &value::CONFIG_ID);
const NS: Parameter = Parameter::of(
    "ns",
    "The namespace, with those below it.",
    &value::NAMESPACE,
);
const GROUP: Parameter = Parameter::text("group", "One group, such as vm/100.");
const CODE: Parameter =
    Parameter::text("code", "What is checked, such as job-failed.").length(1, 64);
const OBJECT: Parameter =
    Parameter::text("object", "On what, such as job/sync/offsite.").length(1, 1024);
const COMMENT: Parameter = Parameter::text("comment", "What is to be known of it.");

const EXPECTATIONS: Table = Table::new(&[
    Column::text("datastore"),
    Column::text("namespace").optional(),
    Column::text("group").optional(),
    Column::text("every").rendered(|every, _| Ok(every_text(every))),
    Column::text("made-by").titled("set by"),
    Column::text("made-at")
        .titled("since")
        .rendered(|at, _| Ok(time(at))),
]);

const WINDOWS: Table = Table::new(&[
    Column::text("id"),
    Column::text("schedule").optional(),
    Column::text("start")
        .optional()
        .rendered(|at, _| Ok(time(at))),
    Column::text("duration").rendered(|span, _| Ok(span_text(span))),
    Column::text("place")
        .titled("for")
        .rendered(|_, window| Ok(window_scope(window))),
    Column::text("active-until")
        .titled("under way until")
        .optional()
        .rendered(|at, _| Ok(time(at))),
    Column::text("comment").optional(),
    Column::text("made-by").titled("made by"),
]);

/// The commands below `health`.
pub fn commands() -> Group {
    Group::new()
        .command(
            "show",
            Command::new("Show what is wrong, since when, and what to do.", show)
                .option(
                    Parameter::flag("all", "Show also what is well.").default("false"),
                )
                .option(Parameter::text("datastore", "Only what concerns this datastore."))
                .option(CODE.repeated().explained("Only this check, such as job-failed."))
                .option(OBJECT.explained("Only this object, such as job/sync/offsite."))
                .option(
                    Parameter::flag(
                        "plugin",
                        "Print what monitoring systems read of plugins: a line with performance data, then one line for each check.",
                    )
                    .default("false"),
                )
                .option(
                    Parameter::flag("refresh", "Look anew instead of showing what was seen in the last minute.")
                        .default("false"),
                )
                .option(OUTPUT_FORMAT),
        )
        .otherwise("show")
        .command(
            "history",
            Command::new("Show what has changed, oldest first.", history).option(OUTPUT_FORMAT),
        )
        .command(
            "acknowledge",
            Command::new(
                "Note that somebody knows of something: it calls for nobody until it recovers or gets worse.",
                acknowledge,
            )
            .argument(CODE)
            .argument(OBJECT)
            .option(COMMENT)
            .option(Parameter::text(
                "until",
                "When it calls for somebody again: a time span such as 8h, a date such as 2026-12-01, or a point in time.",
            )),
        )
        .command(
            "unacknowledge",
            Command::new("Take an acknowledgement back.", unacknowledge)
                .argument(CODE)
                .argument(OBJECT),
        )
        .group("expect", expect_commands())
        .group("window", window_commands())
}

fn expect_commands() -> Group {
    Group::new()
        .command(
            "set",
            Command::new(
                "Say how often each group of a datastore, or of a part of it, is to be backed up.",
                expect_set,
            )
            .argument(STORE)
            .argument(Parameter::text(
                "every",
                "The longest time between backups, such as 24h or 7d; never for what is finished.",
            ))
            .option(NS)
            .option(GROUP),
        )
        .command(
            "list",
            Command::new("Show what is expected.", expect_list).option(OUTPUT_FORMAT),
        )
        .command(
            "remove",
            Command::new("Go by the cadence of each group again.", expect_remove)
                .argument(STORE)
                .option(NS)
                .option(GROUP),
        )
}

fn window_commands() -> Group {
    Group::new()
        .command(
            "add",
            Command::new(
                "Add a maintenance window: what comes up in it calls for nobody before it ends.",
                window_add,
            )
            .argument(Parameter::text("id", "Its name.").length(2, 32))
            .argument(Parameter::text("duration", "How long it is, such as 2h.").length(1, 64))
            .option(Parameter::of(
                "schedule",
                "When it begins, again and again; without it, it comes once.",
                &value::CALENDAR_EVENT,
            ))
            .option(Parameter::text(
                "start",
                "When it begins if it comes once (now, unless said otherwise), or before when it does not come.",
            ))
            .option(Parameter::text("datastore", "Only for what concerns this datastore."))
            .option(NS)
            .option(GROUP)
            .option(CODE.repeated().explained("Only for this check, such as job-failed."))
            .option(OBJECT.explained("Only for this object, such as job/sync/offsite."))
            .option(COMMENT),
        )
        .command(
            "list",
            Command::new("Show the maintenance windows.", window_list).option(OUTPUT_FORMAT),
        )
        .command(
            "remove",
            Command::new("Remove a maintenance window.", window_remove)
                .argument(Parameter::text("id", "Its name.").length(2, 32)),
        )
}

fn time(at: &Value) -> String {
    at.as_i64().map(output::time::plain).unwrap_or_default()
}

fn span_text(seconds: &Value) -> String {
    let seconds = seconds.as_i64().unwrap_or_default();
    backstop_health::span_text(seconds)
}

fn every_text(every: &Value) -> String {
    let every = every.as_str().unwrap_or_default();
    match every.parse::<backstop_health::Every>() {
        Ok(every) => every.to_string(),
        Err(_) => every.to_owned(),
    }
}

fn window_scope(window: &Value) -> String {
    let mut parts = Vec::new();
    let place = window.get("place").and_then(Value::as_object);
    let text = |key: &str| {
        place
            .and_then(|place| place.get(key))
            .and_then(Value::as_str)
    };
    for key in ["datastore", "namespace", "group"] {
        parts.extend(text(key).map(str::to_owned));
    }
    let codes = window.get("codes").and_then(Value::as_array);
    let codes = codes.into_iter().flatten().filter_map(Value::as_str);
    parts.extend(codes.map(str::to_owned));
    let object = window.get("object").and_then(Value::as_str);
    parts.extend(object.map(str::to_owned));
    match parts.is_empty() {
        true => "everything".to_owned(),
        false => parts.join(" "),
    }
}

/// The parameters that were given, under the names that the server has for them.
fn given(arguments: &Arguments, names: &[(&str, &str)]) -> Value {
    let mut parameters = Map::new();
    for (option, name) in names {
        let values = arguments.list(option);
        match values {
            [] => {}
            _ if *name == "code" => drop(parameters.insert((*name).to_owned(), json!(values))),
            [first, ..] => drop(parameters.insert((*name).to_owned(), json!(first))),
        }
    }
    Value::Object(parameters)
}

fn get(path: &'static str, parameters: Value) -> anyhow::Result<Value> {
    LocalServer::needed()?.ask(|client| async move { Ok(client.get(path, parameters).await?) })
}

fn post(path: &'static str, parameters: Value) -> anyhow::Result<ExitCode> {
    LocalServer::needed()?.ask(|client| async move { Ok(client.post(path, parameters).await?) })?;
    Ok(ExitCode::SUCCESS)
}

fn delete(path: String, parameters: Value) -> anyhow::Result<ExitCode> {
    LocalServer::needed()?
        .ask(|client| async move { Ok(client.delete(&path, parameters).await?) })?;
    Ok(ExitCode::SUCCESS)
}

/// The configuration files that cannot be read, as far as this process may read them: a server that cannot read its users tells nobody
/// anything.
fn unreadable_files() -> String {
    let files = super::configuration().check().into_iter();
    let wrong = files.filter_map(|(_, read)| Some(format!("; {}", read.err()?)));
    wrong.collect()
}

fn show(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut parameters = given(
        arguments,
        &[
            ("datastore", "store"),
            ("code", "code"),
            ("object", "object"),
        ],
    );
    if arguments.flag("refresh") {
        parameters["refresh"] = json!(true);
    }
    let plugin = arguments.flag("plugin");
    let answer = match get("backstop/health", parameters) {
        Ok(answer) => answer,
        // A plugin says so in its own form: who reads it knows no other.
        Err(error) if plugin => {
            let text = format!("{error:#}{}", unreadable_files()).replace(['|', '\n'], " ");
            output::out(&format!("BACKSTOP UNKNOWN - {text}\n"));
            return Ok(ExitCode::from(exit_code(State::Unknown)));
        }
        Err(error) => return Err(error),
    };
    let checks: Vec<Check> = serde_json::from_value(answer["checks"].clone())
        .context("the server's answer makes no sense")?;
    let age = answer["age"].as_i64().unwrap_or_default();
    let overall: Overall =
        serde_json::from_value(answer.clone()).context("the server's answer makes no sense")?;
    match Format::of(arguments)?.json(&answer) {
        _ if plugin => output::out(&render(&checks, &overall)),
        Some(text) => output::out(&text),
        None => {
            let all = arguments.flag("all");
            output::out(&report::text(&checks, &overall, age, all));
        }
    }
    Ok(ExitCode::from(exit_code(overall.state)))
}

fn history(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let answer = get("backstop/health/history", Value::Null)?;
    match Format::of(arguments)?.json(&answer) {
        Some(text) => output::out(&text),
        None => output::out(&report::history(&answer)),
    }
    Ok(ExitCode::SUCCESS)
}

/// A point in time, or the end of a time span that begins now.
fn until(text: &str) -> anyhow::Result<i64> {
    match parse_span(text) {
        Ok(span) => Ok(output::time::now().saturating_add(span)),
        Err(_) => moment::parse_local(text),
    }
}

fn acknowledge(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let names = [("object", "object"), ("comment", "comment")];
    let mut parameters = given(arguments, &names);
    parameters["code"] = json!(arguments.required("code")?);
    if let Some(text) = arguments.text("until") {
        parameters["until"] = json!(until(text)?);
    }
    post("backstop/health/acknowledge", parameters)
}

fn unacknowledge(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let parameters = json!({
        "code": arguments.required("code")?,
        "object": arguments.required("object")?,
    });
    delete("backstop/health/acknowledge".to_owned(), parameters)
}

const PLACE: [(&str, &str); 3] = [("store", "store"), ("ns", "ns"), ("group", "group")];

fn expect_set(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut parameters = given(arguments, &PLACE);
    parameters["every"] = json!(arguments.required("every")?);
    post("backstop/health/expectations", parameters)
}

fn expect_list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let answer = get("backstop/health/expectations", Value::Null)?;
    output::print_table(&EXPECTATIONS, &answer, arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn expect_remove(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let parameters = given(arguments, &PLACE);
    delete("backstop/health/expectations".to_owned(), parameters)
}

fn window_add(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut parameters = given(
        arguments,
        &[
            ("id", "id"),
            ("duration", "duration"),
            ("schedule", "schedule"),
            ("datastore", "store"),
            ("ns", "ns"),
            ("group", "group"),
            ("code", "code"),
            ("object", "object"),
            ("comment", "comment"),
        ],
    );
    if let Some(text) = arguments.text("start") {
        parameters["start"] = json!(moment::parse_local(text)?);
    }
    post("backstop/health/windows", parameters)
}

fn window_list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let answer = get("backstop/health/windows", Value::Null)?;
    output::print_table(&WINDOWS, &answer, arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn window_remove(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let id = arguments.required("id")?;
    if id.contains('/') {
        bail!("'{id}' is no name of a maintenance window");
    }
    delete(format!("backstop/health/windows/{id}"), Value::Null)
}
