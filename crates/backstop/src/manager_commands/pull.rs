//! `pull …`: pulling once, without a job. Always through the server.

use std::process::ExitCode;

use backstop_types::config_schema::job::SYNC;
use backstop_types::config_schema::value;
use serde_json::Value;

use super::local_server::LocalServer;
use super::settings;
use super::sync_job::SETTINGS;
use crate::command::{Arguments, Command, Parameter};
use crate::output::OUTPUT_FORMAT;

/// Settings of jobs that a single pull has not, or has as its arguments.
const LEFT_OUT: &[&str] = &["remote", "remote-store", "owner"];

/// The command `pull`.
pub fn command() -> Command {
    let name = |name, help| Parameter::of(name, help, &value::CONFIG_ID);
    let more = [
        ("ns", "The namespace to pull into; without it, the root."),
        (
            "max-depth",
            "How many levels of namespaces below it; without it, all.",
        ),
    ];
    let helps = SETTINGS.iter().filter(|(name, _)| !LEFT_OUT.contains(name));
    let helps: Vec<_> = helps.copied().chain(more).collect();
    Command::new(
        "Pull snapshots from another server into a datastore of this one.",
        pull,
    )
    .argument(name("remote", "The other server."))
    .argument(name("remote-store", "The datastore there."))
    .argument(name("store", "The datastore here."))
    .options(&settings::options(&SYNC, &helps))
    .option(OUTPUT_FORMAT)
}

fn pull(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let parameters = settings::given(arguments, &SYNC)?;
    LocalServer::needed()?.run_task(arguments, |client| async move {
        Ok(client.post("pull", Value::Object(parameters)).await?)
    })
}
