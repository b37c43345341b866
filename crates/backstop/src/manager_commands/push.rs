//! `push …`: pushing once, without a job. Always through the server.

use std::process::ExitCode;

use backstop_types::config_schema::job::SYNC;
use backstop_types::config_schema::value;
use serde_json::Value;

use super::local_server::LocalServer;
use super::pull::{REMOTE, REMOTE_STORE, STORE, options};
use super::settings;
use super::sync_job::DRY_RUN;
use crate::command::{Arguments, Command, Parameter};
use crate::output::OUTPUT_FORMAT;

const KEY: Parameter = Parameter::of(
    "encryption-key",
    "The key that encrypts snapshots which are not encrypted.",
    &value::CONFIG_ID,
);

/// The command `push`.
pub fn command() -> Command {
    Command::new(
        "Push snapshots of a datastore of this server to another one.",
        push,
    )
    .argument(STORE)
    .argument(REMOTE)
    .argument(REMOTE_STORE)
    .options(&options(
        &["resync-corrupt"],
        "The namespace to push; without it, the root.",
    ))
    .option(KEY)
    .option(DRY_RUN)
    .option(OUTPUT_FORMAT)
}

fn push(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut parameters = settings::given(arguments, &SYNC)?;
    if let Some(key) = arguments.text("encryption-key") {
        parameters.insert("encryption-key".to_owned(), key.into());
    }
    if arguments.flag("dry-run") {
        parameters.insert("dry-run".to_owned(), Value::Bool(true));
    }
    LocalServer::needed()?.run_task(arguments, |client| async move {
        Ok(client.post("push", Value::Object(parameters)).await?)
    })
}
