//! `verify …`: checking the snapshots of a datastore now. Always through the server.

use std::process::ExitCode;

use backstop_types::config_schema::value;
use serde_json::Map;

use super::local_server::LocalServer;
use crate::command::{Arguments, Command, Parameter};
use crate::output::OUTPUT_FORMAT;

/// The command `verify`.
pub fn command() -> Command {
    let threads = |name, help| Parameter::integer(name, help, Some(1), Some(32));
    Command::new("Verify all snapshots of a datastore.", verify)
        .argument(Parameter::of(
            "store",
            "The name of the datastore.",
            &value::CONFIG_ID,
        ))
        .option(
            Parameter::flag(
                "ignore-verified",
                "Skip snapshots that were verified already and are not outdated.",
            )
            .default("true"),
        )
        .option(Parameter::integer(
            "outdated-after",
            "Days after which a verification is outdated.",
            Some(0),
            None,
        ))
        .option(threads("read-threads", "Threads that read chunks."))
        .option(threads("verify-threads", "Threads that check chunks."))
        .option(OUTPUT_FORMAT)
}

fn verify(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let path = format!("admin/datastore/{}/verify", arguments.required("store")?);
    let mut parameters = Map::new();
    if let Some(ignore) = arguments.given_flag("ignore-verified") {
        parameters.insert("ignore-verified".to_owned(), ignore.into());
    }
    for name in ["outdated-after", "read-threads", "verify-threads"] {
        if let Some(number) = arguments.integer(name) {
            parameters.insert(name.to_owned(), number.into());
        }
    }
    LocalServer::needed()?.run_task(arguments, |client| async move {
        Ok(client.post(&path, parameters.into()).await?)
    })
}
