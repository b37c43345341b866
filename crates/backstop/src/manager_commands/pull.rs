//! `pull …`: pulling once, without a job. Always through the server.

use std::process::ExitCode;

use backstop_types::config_schema::job::SYNC;
use backstop_types::config_schema::value;
use serde_json::Value;

use super::local_server::LocalServer;
use super::settings;
use super::sync_job::{DRY_RUN, SETTINGS};
use crate::command::{Arguments, Command, Parameter};
use crate::output::OUTPUT_FORMAT;

/// Settings of jobs that a single pull has not, or has as its arguments.
const LEFT_OUT: &[&str] = &["remote", "remote-store", "owner"];

const KEYS: Parameter = Parameter::of(
    "decryption-keys",
    "A key that decrypts what is pulled.",
    &value::CONFIG_ID,
)
.repeated();

/// The other server.
pub const REMOTE: Parameter = Parameter::of("remote", "The other server.", &value::CONFIG_ID);
/// The datastore of the other server.
pub const REMOTE_STORE: Parameter =
    Parameter::of("remote-store", "The datastore there.", &value::CONFIG_ID);
/// The datastore of this server.
pub const STORE: Parameter = Parameter::of("store", "The datastore here.", &value::CONFIG_ID);

/// The options of a single sync.
pub fn options(left_out: &[&str], ns: &'static str) -> Vec<Parameter> {
    let more = [
        ("ns", ns),
        (
            "max-depth",
            "How many levels of namespaces below it; without it, all.",
        ),
    ];
    let helps = SETTINGS.iter();
    let helps = helps.filter(|(name, _)| !LEFT_OUT.contains(name) && !left_out.contains(name));
    let helps: Vec<_> = helps.copied().chain(more).collect();
    settings::options(&SYNC, &helps)
}

/// The command `pull`.
pub fn command() -> Command {
    Command::new(
        "Pull snapshots from another server into a datastore of this one.",
        pull,
    )
    .argument(REMOTE)
    .argument(REMOTE_STORE)
    .argument(STORE)
    .options(&options(
        &[],
        "The namespace to pull into; without it, the root.",
    ))
    .option(KEYS)
    .option(DRY_RUN)
    .option(OUTPUT_FORMAT)
}

fn pull(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut parameters = settings::given(arguments, &SYNC)?;
    let keys = arguments.list("decryption-keys");
    if !keys.is_empty() {
        parameters.insert("decryption-keys".to_owned(), keys.into());
    }
    if arguments.flag("dry-run") {
        parameters.insert("dry-run".to_owned(), Value::Bool(true));
    }
    LocalServer::needed()?.run_task(arguments, |client| async move {
        Ok(client.post("pull", Value::Object(parameters)).await?)
    })
}
