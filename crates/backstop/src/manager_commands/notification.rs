//! `notification …`: who is told of what. Works on the configuration itself; only the spool needs the server. Never prints a secret.

mod recipe;
mod spool;

use std::process::ExitCode;

use anyhow::bail;
use backstop_notify::settings::Change;
use backstop_server::config::notifications::{
    self as config, EntryKind, GOTIFY, MATCHER, SENDMAIL, SMTP, WEBHOOK,
};
use backstop_server::notifications::{Host, test};
use backstop_types::config_schema::value;
use backstop_types::schema::Properties;
use serde_json::Value;

use super::configuration;
use super::settings::{self, DIGEST};
use crate::command::{Arguments, Command, Group, Parameter};
use crate::installation;
use crate::output::{self, Column, OUTPUT_FORMAT, Record, Table};

const NAME: Parameter = Parameter::of(
    "name",
    "The name of the target or matcher.",
    &value::ENTITY_ID,
);

/// All targets.
pub const TARGETS: Table = Table::new(&[
    Column::number("disable"),
    Column::text("name"),
    Column::text("type"),
    Column::text("origin"),
    Column::text("comment"),
]);
/// All matchers.
pub const MATCHERS: Table = Table::new(&[
    Column::number("disable"),
    Column::text("name"),
    Column::text("origin"),
    Column::text("comment"),
]);
const GOTIFY_LIST: Table = Table::new(&[
    Column::number("disable"),
    Column::text("name"),
    Column::text("server"),
    Column::text("comment"),
]);
const SENDMAIL_LIST: Table = Table::new(&[
    Column::number("disable"),
    Column::text("name"),
    Column::text("mailto"),
    Column::text("mailto-user"),
    Column::text("comment"),
]);
const SMTP_LIST: Table = Table::new(&[
    Column::number("disable"),
    Column::text("name"),
    Column::text("server"),
    Column::text("from-address"),
    Column::text("mailto"),
    Column::text("mailto-user"),
    Column::text("comment"),
]);
const WEBHOOK_LIST: Table = Table::new(&[
    Column::number("disable"),
    Column::text("name"),
    Column::text("method"),
    Column::text("url"),
    Column::text("comment"),
]);

const MATCHER_RECORD: Record = Record::new(&[
    Column::text("name"),
    Column::text("comment"),
    Column::text("disable"),
    Column::text("invert-match"),
    Column::text("match-calendar"),
    Column::text("match-field"),
    Column::text("match-severity"),
    Column::text("mode"),
    Column::text("origin"),
    Column::text("target"),
]);
const GOTIFY_RECORD: Record = Record::new(&[
    Column::text("name"),
    Column::text("server"),
    Column::text("comment"),
    Column::text("disable"),
    Column::text("origin"),
]);
const SENDMAIL_RECORD: Record = Record::new(&[
    Column::text("name"),
    Column::text("author"),
    Column::text("comment"),
    Column::text("disable"),
    Column::text("from-address"),
    Column::text("mailto"),
    Column::text("mailto-user"),
    Column::text("origin"),
]);
const SMTP_RECORD: Record = Record::new(&[
    Column::text("from-address"),
    Column::text("name"),
    Column::text("server"),
    Column::text("author"),
    Column::text("comment"),
    Column::text("disable"),
    Column::text("mailto"),
    Column::text("mailto-user"),
    Column::text("mode"),
    Column::text("origin"),
    Column::text("port"),
    Column::text("username"),
]);
const WEBHOOK_RECORD: Record = Record::new(&[
    Column::text("method"),
    Column::text("name"),
    Column::text("url"),
    Column::text("body"),
    Column::text("comment"),
    Column::text("disable"),
    Column::text("header"),
    Column::text("origin"),
    Column::text("secret"),
]);

const COMMENT: (&str, &str) = ("comment", "A comment.");
const DISABLE: (&str, &str) = ("disable", "Whether nothing is to be sent to it.");
const MAILTO: (&str, &str) = ("mailto", "A mail address to send to; may be repeated.");
const MAILTO_USER: (&str, &str) = (
    "mailto-user",
    "A user to send to, at the address that the user has here; may be repeated.",
);
const AUTHOR: (&str, &str) = ("author", "The name of the sender.");

/// What the commands of one kind of entry differ in.
trait Kind {
    const ENTRY: &'static EntryKind;
    const LIST: &'static Table;
    const SHOW: &'static Record;
    const HELPS: &'static [(&'static str, &'static str)];
}

struct Gotify;

impl Kind for Gotify {
    const ENTRY: &'static EntryKind = &GOTIFY;
    const LIST: &'static Table = &GOTIFY_LIST;
    const SHOW: &'static Record = &GOTIFY_RECORD;
    const HELPS: &'static [(&'static str, &'static str)] = &[
        ("server", "The URL of the Gotify server."),
        (
            "token",
            "The token of an application there; it can be seen in the list of processes while the command runs.",
        ),
        COMMENT,
        DISABLE,
    ];
}

struct Sendmail;

impl Kind for Sendmail {
    const ENTRY: &'static EntryKind = &SENDMAIL;
    const LIST: &'static Table = &SENDMAIL_LIST;
    const SHOW: &'static Record = &SENDMAIL_RECORD;
    const HELPS: &'static [(&'static str, &'static str)] = &[
        MAILTO,
        MAILTO_USER,
        (
            "from-address",
            "The address of the sender; without it, email-from of the host's settings, or root.",
        ),
        AUTHOR,
        COMMENT,
        DISABLE,
    ];
}

struct Smtp;

impl Kind for Smtp {
    const ENTRY: &'static EntryKind = &SMTP;
    const LIST: &'static Table = &SMTP_LIST;
    const SHOW: &'static Record = &SMTP_RECORD;
    const HELPS: &'static [(&'static str, &'static str)] = &[
        ("server", "The mail server: a host name or an address."),
        ("from-address", "The address of the sender."),
        ("port", "The port; without it, 465, 587 or 25, by the mode."),
        (
            "mode",
            "How the connection is protected; tls unless said otherwise.",
        ),
        ("username", "As whom to log in there."),
        (
            "password",
            "The password for that; it can be seen in the list of processes while the command runs.",
        ),
        MAILTO,
        MAILTO_USER,
        AUTHOR,
        COMMENT,
        DISABLE,
    ];
}

struct Webhook;

impl Kind for Webhook {
    const ENTRY: &'static EntryKind = &WEBHOOK;
    const LIST: &'static Table = &WEBHOOK_LIST;
    const SHOW: &'static Record = &WEBHOOK_RECORD;
    const HELPS: &'static [(&'static str, &'static str)] = &[
        ("method", "The method of the request."),
        ("url", "Where to send it: a template."),
        (
            "header",
            "A header, as name=NAME,value=BASE64, where the value is a template; may be repeated.",
        ),
        ("body", "The body: a template in base64."),
        (
            "secret",
            "A secret for the templates, as name=NAME,value=BASE64; may be repeated. In an update, name=NAME keeps one, and those that are not named are removed.",
        ),
        COMMENT,
        DISABLE,
    ];
}

struct Matcher;

impl Kind for Matcher {
    const ENTRY: &'static EntryKind = &MATCHER;
    const LIST: &'static Table = &MATCHERS;
    const SHOW: &'static Record = &MATCHER_RECORD;
    const HELPS: &'static [(&'static str, &'static str)] = &[
        (
            "match-field",
            "A field to look at, as exact:FIELD=VALUE,… or regex:FIELD=EXPRESSION; may be repeated.",
        ),
        (
            "match-severity",
            "Severities to look for, divided by commas: info, notice, warning, error, unknown; may be repeated.",
        ),
        (
            "match-calendar",
            "A part of the day, such as 'mon..fri 8-17'; may be repeated.",
        ),
        (
            "mode",
            "Whether all of these have to match, or one is enough.",
        ),
        ("invert-match", "Whether to turn the result round."),
        ("target", "Whom to tell; may be repeated."),
        COMMENT,
        ("disable", "Whether the matcher is not to be asked."),
    ];
}

/// The commands below `notification`.
pub fn commands() -> Group {
    Group::new()
        .group(
            "endpoint",
            Group::new()
                .group("gotify", entry_commands::<Gotify>())
                .group("sendmail", entry_commands::<Sendmail>())
                .group("smtp", entry_commands::<Smtp>())
                .group("webhook", entry_commands::<Webhook>()),
        )
        .group("matcher", entry_commands::<Matcher>())
        .group(
            "target",
            Group::new()
                .command(
                    "list",
                    Command::new("List the targets of all kinds.", targets).option(OUTPUT_FORMAT),
                )
                .command(
                    "test",
                    Command::new("Send a test notification to a target.", test_target)
                        .argument(NAME),
                ),
        )
}

/// The commands below `backstop notification`, which stock servers do not have.
pub fn own_commands() -> Group {
    Group::new()
        .group("recipe", recipe::commands())
        .group("spool", spool::commands())
}

/// All that can be set. Made once in a process, which runs one command.
fn properties<K: Kind>() -> Properties {
    Properties::new(Vec::leak(K::ENTRY.fields()))
}

fn entry_commands<K: Kind>() -> Group {
    let known = properties::<K>();
    let update = settings::options(&known, K::HELPS);
    let is_needed = |name: &str| known.get(name).is_some_and(|property| !property.optional);
    let create = update.iter().map(|option| match option.name {
        name if is_needed(name) => option.required(),
        _ => *option,
    });
    let create: Vec<Parameter> = create.collect();
    let on_entry = |help, action| Command::new(help, action).argument(NAME);
    Group::new()
        .command(
            "list",
            Command::new("List what there is of this kind.", list::<K>).option(OUTPUT_FORMAT),
        )
        .command(
            "show",
            on_entry("Show one, without secrets.", show::<K>).option(OUTPUT_FORMAT),
        )
        .command(
            "create",
            on_entry("Add one.", create_entry::<K>).options(&create),
        )
        .command(
            "update",
            on_entry("Change one.", update_entry::<K>)
                .options(&update)
                .option(
                    Parameter::choice("delete", "A setting to remove.", K::ENTRY.deletable)
                        .repeated(),
                )
                .option(DIGEST),
        )
        .command(
            "delete",
            on_entry(
                "Remove one; what is built in has its default settings again.",
                delete::<K>,
            ),
        )
}

fn list<K: Kind>(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let settings = config::settings(&configuration())?.data;
    let list = settings.list(K::ENTRY.section).into_iter();
    let list = list.map(Value::Object).collect();
    output::print_table(K::LIST, &Value::Array(list), arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn show<K: Kind>(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let settings = config::settings(&configuration())?.data;
    let entry = settings.get(K::ENTRY.section, arguments.required("name")?)?;
    output::print_record(K::SHOW, &Value::Object(entry), arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn create_entry<K: Kind>(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let given = settings::given(arguments, &properties::<K>())?;
    let name = arguments.required("name")?;
    config::create(&configuration(), (K::ENTRY.section, name), &given)?;
    Ok(ExitCode::SUCCESS)
}

fn update_entry<K: Kind>(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let given = settings::given(arguments, &properties::<K>())?;
    let change = Change {
        properties: &given,
        delete: arguments.list("delete"),
    };
    let entry = (K::ENTRY.section, arguments.required("name")?);
    let digest = arguments.text("digest");
    config::update(&configuration(), entry, change, digest)?;
    Ok(ExitCode::SUCCESS)
}

fn delete<K: Kind>(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let entry = (K::ENTRY.section, arguments.required("name")?);
    config::remove(&configuration(), entry)?;
    Ok(ExitCode::SUCCESS)
}

fn targets(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let settings = config::settings(&configuration())?.data;
    let list = settings.targets().into_iter().map(Value::Object).collect();
    output::print_table(&TARGETS, &Value::Array(list), arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn test_target(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let store = configuration();
    let target = config::settings(&store)?
        .data
        .target(arguments.required("name")?)?;
    let host = Host::of(&backstop_server::server::host_name());
    if let Err(reason) = test(&target, &host, &store, &installation::roots()) {
        bail!("Could not test target: {reason}");
    }
    Ok(ExitCode::SUCCESS)
}
