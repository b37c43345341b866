//! `namespace …`: the tree of namespaces in a datastore.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use backstop_types::Namespace;
use serde_json::{Value, json};

use super::parameters::{MAX_DEPTH, NAMESPACE, REPOSITORY, TARGET_NAMESPACE};
use super::server::{self, Server};
use crate::command::{Arguments, Command, Group, Parameter};
use crate::output::{self, Format, OUTPUT_FORMAT};

/// The commands below `namespace`.
pub fn commands() -> Group {
    let on_namespace = |help, action| {
        Command::new(help, action)
            .optional_argument(NAMESPACE)
            .options(REPOSITORY)
    };
    Group::new()
        .command(
            "list",
            on_namespace("List the namespaces below one.", list)
                .option(MAX_DEPTH)
                .option(OUTPUT_FORMAT),
        )
        .command(
            "create",
            on_namespace("Create a namespace; its parent must exist.", create),
        )
        .command(
            "delete",
            on_namespace("Remove a namespace.", delete).option(Parameter::flag(
                "delete-groups",
                "Whether to remove the backup groups in it too.",
            )),
        )
        .command(
            "move",
            on_namespace("Move a namespace with what is in it.", move_namespace)
                .option(TARGET_NAMESPACE)
                .option(MAX_DEPTH)
                .option(
                    Parameter::flag("delete-source", "Whether to remove the emptied namespaces.")
                        .default("true"),
                )
                .option(
                    Parameter::flag(
                        "merge-groups",
                        "Whether to add snapshots to groups of the same name in the target.",
                    )
                    .default("true"),
                )
                .option(OUTPUT_FORMAT),
        )
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let parent = server::namespace(arguments)?;
    let depth = arguments
        .integer("max-depth")
        .and_then(|depth| u64::try_from(depth).ok());
    let answer = server::block_on(async {
        let server = Server::connect(arguments).await?;
        Ok(server.api.namespaces(&parent, depth).await?)
    })?;
    match Format::of(arguments)?.json(&answer) {
        Some(text) => output::out(&text),
        None => output::out(&lines(&answer)),
    }
    Ok(ExitCode::SUCCESS)
}

/// One namespace per line, without the root, with its comment.
pub fn lines(answer: &Value) -> String {
    let mut text = String::new();
    for item in answer
        .get("data")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let name = item.get("ns").and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() {
            continue;
        }
        text.push_str(name);
        if let Some(comment) = item.get("comment").and_then(Value::as_str) {
            let _ = write!(text, " ({comment})");
        }
        text.push('\n');
    }
    text
}

fn create(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let namespace = server::namespace(arguments)?;
    let (Some(parent), Some(name)) = (namespace.parent(), namespace.last()) else {
        bail!("root namespace is always present");
    };
    server::block_on(async {
        let server = Server::connect(arguments).await?;
        Ok(server.api.create_namespace(&parent, name).await?)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn delete(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let namespace = server::namespace(arguments)?;
    if namespace.is_root() {
        bail!("root namespace cannot be deleted");
    }
    server::block_on(async {
        let server = Server::connect(arguments).await?;
        Ok(server
            .api
            .delete_namespace(&namespace, arguments.given_flag("delete-groups"))
            .await?)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn move_namespace(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let namespace = server::namespace(arguments)?;
    if namespace.is_root() {
        bail!("root namespace cannot be moved");
    }
    let target: Namespace = arguments
        .required("target-ns")?
        .parse()
        .context("unable to parse the target namespace")?;
    let options = json!({
        "max-depth": arguments.integer("max-depth"),
        "delete-source": arguments.given_flag("delete-source"),
        "merge-groups": arguments.given_flag("merge-groups"),
    });
    server::block_on(async {
        let server = Server::connect(arguments).await?;
        let upid = server
            .api
            .move_namespace(&namespace, &target, options)
            .await?;
        server.follow(&upid, arguments).await
    })?;
    Ok(ExitCode::SUCCESS)
}
