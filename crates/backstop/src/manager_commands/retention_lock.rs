//! `backstop retention-lock …`: for how long nobody can remove snapshots. Through the server if one runs; else on the datastore
//! itself.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use backstop_datastore::{DatastoreError, MAX_DAYS, MAX_GRACE_HOURS, RetentionLock, moment};
use backstop_server::api::backstop::retention_lock::describe;
use backstop_server::datastores::{DatastoreHandle, DatastoreRegistry};
use backstop_types::config_schema::value;
use backstop_types::{Namespace, Operation};
use serde_json::{Map, Value, json};

use super::configuration;
use super::local_server::LocalServer;
use crate::command::{Arguments, Command, Group, Parameter};
use crate::installation;
use crate::output::{self, Column, Format, OUTPUT_FORMAT, Style, Table};

/// Who changes a datastore without a server: whoever may write to it.
const OFFLINE: &str = "root@pam";

const STORE: Parameter = Parameter::of("store", "The name of the datastore.", &value::CONFIG_ID);
const NS: Parameter = Parameter::of(
    "ns",
    "The namespace, with those below it, instead of the whole datastore.",
    &value::NAMESPACE,
);

const LOCKS: Table = Table::new(&[
    Column::text("ns")
        .titled("namespace")
        .rendered(|ns, _| Ok(place_name(ns.as_str().unwrap_or_default()))),
    Column::number("days"),
    Column::number("grace-hours").titled("grace (hours)"),
    Column::text("set-by").titled("set by"),
    Column::text("set-at")
        .titled("since")
        .rendered(|at, _| Ok(time(at))),
]);

/// The commands below `retention-lock`.
pub fn commands() -> Group {
    let days = |help| Parameter::integer("days", help, Some(1), Some(i64::from(MAX_DAYS)));
    Group::new()
        .command(
            "show",
            Command::new("Show the locks of a datastore or namespace, and what is requested.", show)
                .argument(STORE)
                .option(NS)
                .option(OUTPUT_FORMAT),
        )
        .command(
            "set",
            Command::new(
                "Set a lock, or lengthen it: what is younger cannot be removed, by nobody.",
                set,
            )
            .argument(STORE)
            .option(NS)
            .option(days("For how many days snapshots are locked.").required())
            .option(Parameter::integer(
                "grace-hours",
                "How long a request to shorten the lock has no effect (24 unless said otherwise).",
                Some(1),
                Some(i64::from(MAX_GRACE_HOURS)),
            ))
            .option(OUTPUT_FORMAT),
        )
        .command(
            "shorten",
            Command::new(
                "Request a shorter lock, which takes effect after the grace window.",
                shorten,
            )
            .argument(STORE)
            .option(NS)
            .option(days("For how many days snapshots are locked then.").required())
            .option(OUTPUT_FORMAT),
        )
        .command(
            "request-removal",
            Command::new(
                "Request the removal of a lock, which takes effect after the grace window.",
                request_removal,
            )
            .argument(STORE)
            .option(NS)
            .option(OUTPUT_FORMAT),
        )
        .command(
            "cancel",
            Command::new("Withdraw a request to shorten or remove a lock.", cancel)
                .argument(STORE)
                .option(NS)
                .option(
                    Parameter::flag("clock", "Withdraw the request to confirm the clock instead.")
                        .default("false"),
                ),
        )
        .command(
            "confirm-clock",
            Command::new(
                "Request that the clock be believed again after it has jumped, which takes effect after the grace window.",
                confirm_clock,
            )
            .argument(STORE)
            .option(OUTPUT_FORMAT),
        )
}

fn place_name(ns: &str) -> String {
    if ns.is_empty() {
        "(all)".to_owned()
    } else {
        ns.to_owned()
    }
}

fn time(at: &Value) -> String {
    at.as_i64().map(moment).unwrap_or_default()
}

fn namespace(arguments: &Arguments) -> anyhow::Result<Namespace> {
    Ok(arguments.text("ns").unwrap_or_default().parse()?)
}

/// The datastore, opened by this process.
fn open(arguments: &Arguments, operation: Operation) -> anyhow::Result<DatastoreHandle> {
    let registry = DatastoreRegistry::new(Arc::new(configuration()), &installation::roots());
    Ok(registry.lookup(&arguments.required("store")?.parse()?, operation)?)
}

fn path(arguments: &Arguments, below: &str) -> anyhow::Result<String> {
    let store = arguments.required("store")?;
    Ok(format!("backstop/datastore/{store}/retention-lock{below}"))
}

fn show(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let ns = namespace(arguments)?;
    let status = match LocalServer::find()? {
        Some(server) => {
            let path = path(arguments, "")?;
            server.ask(|client| async move { Ok(client.get(&path, json!({ "ns": ns })).await?) })?
        }
        None => {
            let datastore = open(arguments, Operation::Read)?;
            describe(&datastore, &ns)?
        }
    };
    match Format::of(arguments)?.json(&status) {
        Some(text) => output::out(&text),
        None => output::out(&report(&status)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The locks as a table, then what needs attention.
fn report(status: &Value) -> String {
    let locks = status["locks"].as_array().map_or(&[][..], Vec::as_slice);
    if locks.is_empty() {
        return "No retention lock is set.\n".to_owned();
    }
    let mut text = LOCKS.render(locks, &Style::detect());
    for lock in locks {
        let Some(request) = lock.get("request") else {
            continue;
        };
        let what = match request["days"].as_u64() {
            Some(0) | None => "be removed".to_owned(),
            Some(days) => format!("be shortened to {days} days"),
        };
        let _ = writeln!(
            text,
            "REQUEST: the lock of {} is to {what} on {}, as {} asked on {}; withdraw it with 'backstop retention-lock cancel'",
            place_name(lock["ns"].as_str().unwrap_or_default()),
            time(&request["effective-at"]),
            request["made-by"].as_str().unwrap_or_default(),
            time(&request["made-at"]),
        );
    }
    if let Some(ahead) = status["clock-ahead"].as_i64() {
        let _ = writeln!(
            text,
            "CLOCK: the clock of the system is {ahead} seconds ahead of the time that has passed, so that locks go by {}; if \
             it is right, confirm it with 'backstop retention-lock confirm-clock'",
            time(&status["now"]),
        );
    }
    if let Some(request) = status.get("clock-request") {
        let _ = writeln!(
            text,
            "REQUEST: the clock is to be believed from {} on, as {} asked; withdraw it with 'backstop retention-lock cancel \
             --clock true'",
            time(&request["effective-at"]),
            request["made-by"].as_str().unwrap_or_default(),
        );
    }
    text
}

/// A change, as the server makes it and as it is made without one.
struct Change<'a> {
    method: &'a str,
    below: &'a str,
    parameters: Value,
}

impl Change<'_> {
    fn make<T>(
        self,
        arguments: &Arguments,
        offline: impl FnOnce(RetentionLock, &Namespace) -> Result<T, DatastoreError>,
        answer: impl FnOnce(T) -> Value,
    ) -> anyhow::Result<Value> {
        let ns = namespace(arguments)?;
        let Some(server) = LocalServer::find()? else {
            let datastore = open(arguments, Operation::Write)?;
            let done = offline(datastore.retention_lock(), &ns)?;
            // It lies with the datastore, not with the configuration.
            super::audit::changes().note(backstop_datastore::RETENTION_LOCK_FILE);
            return Ok(answer(done));
        };
        let path = path(arguments, self.below)?;
        let mut parameters: Map<String, Value> =
            self.parameters.as_object().cloned().unwrap_or_default();
        if !ns.is_root() {
            parameters.insert("ns".to_owned(), json!(ns));
        }
        let (method, parameters) = (self.method.to_owned(), Value::Object(parameters));
        server.ask(|client| async move {
            Ok(match method.as_str() {
                "put" => client.put(&path, parameters).await?,
                "delete" => client.delete(&path, parameters).await?,
                _ => client.post(&path, parameters).await?,
            })
        })
    }
}

fn number(arguments: &Arguments, name: &str) -> anyhow::Result<Option<u32>> {
    Ok(arguments.integer(name).map(u32::try_from).transpose()?)
}

fn set(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let days = number(arguments, "days")?.unwrap_or_default();
    let grace = number(arguments, "grace-hours")?;
    let mut parameters = json!({ "days": days });
    if let Some(grace) = grace {
        parameters["grace-hours"] = json!(grace);
    }
    let change = Change {
        method: "put",
        below: "",
        parameters,
    };
    change.make(
        arguments,
        |lock, ns| lock.set(ns, days, grace, OFFLINE),
        |()| Value::Null,
    )?;
    show(arguments)
}

/// Says when a request takes effect.
fn requested(arguments: &Arguments, answer: &Value) -> anyhow::Result<ExitCode> {
    match Format::of(arguments)?.json(answer) {
        Some(text) => output::out(&text),
        None => output::out(&format!(
            "Requested. It takes effect on {} and can be withdrawn until then.\n",
            time(&answer["effective-at"])
        )),
    }
    Ok(ExitCode::SUCCESS)
}

fn effective(at: i64) -> Value {
    json!({ "effective-at": at, "effective": moment(at) })
}

fn shorten(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let days = number(arguments, "days")?.unwrap_or_default();
    let change = Change {
        method: "post",
        below: "/shorten",
        parameters: json!({ "days": days }),
    };
    let answer = change.make(
        arguments,
        |lock, ns| lock.request(ns, days, OFFLINE),
        effective,
    )?;
    requested(arguments, &answer)
}

fn request_removal(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let change = Change {
        method: "delete",
        below: "",
        parameters: Value::Null,
    };
    let answer = change.make(
        arguments,
        |lock, ns| lock.request(ns, 0, OFFLINE),
        effective,
    )?;
    requested(arguments, &answer)
}

fn cancel(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let clock = arguments.flag("clock");
    let change = Change {
        method: "post",
        below: "/cancel",
        parameters: json!({ "clock": clock }),
    };
    change.make(
        arguments,
        |lock, ns| match clock {
            true => lock.cancel_clock(OFFLINE),
            false => lock.cancel(ns, OFFLINE),
        },
        |()| Value::Null,
    )?;
    output::out("Withdrawn.\n");
    Ok(ExitCode::SUCCESS)
}

fn confirm_clock(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let change = Change {
        method: "post",
        below: "/confirm-clock",
        parameters: Value::Null,
    };
    let answer = change.make(arguments, |lock, _| lock.confirm_clock(OFFLINE), effective)?;
    requested(arguments, &answer)
}
