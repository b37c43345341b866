//! `namespace …`: the tree of namespaces in a datastore. Through the server if one runs; else on the datastore itself.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use backstop_client::api::DatastoreApi;
use backstop_server::api::admin::datastore::namespaces;
use backstop_server::datastores::{DatastoreHandle, DatastoreRegistry};
use backstop_types::config_schema::value;
use backstop_types::{Namespace, Operation};
use serde_json::{Value, json};

use super::configuration;
use super::local_server::LocalServer;
use crate::client_commands::namespace::lines;
use crate::client_commands::parameters::{MAX_DEPTH, NAMESPACE};
use crate::command::{Arguments, Command, Group, Parameter};
use crate::installation;
use crate::output::{self, Format, OUTPUT_FORMAT};

const STORE: Parameter = Parameter::of("store", "The name of the datastore.", &value::CONFIG_ID);

/// The commands below `namespace`.
pub fn commands() -> Group {
    Group::new()
        .command(
            "list",
            Command::new("List the namespaces of a datastore.", list)
                .argument(STORE)
                .optional_argument(NAMESPACE)
                .option(MAX_DEPTH)
                .option(OUTPUT_FORMAT),
        )
        .command(
            "create",
            Command::new("Create a namespace; its parent must exist.", create)
                .argument(STORE)
                .argument(NAMESPACE),
        )
        .command(
            "delete",
            Command::new("Remove a namespace and those below it.", delete)
                .argument(STORE)
                .argument(NAMESPACE)
                .option(
                    Parameter::flag(
                        "delete-groups",
                        "Whether to remove the backup groups in it too.",
                    )
                    .default("false"),
                ),
        )
}

/// The datastore, opened by this process.
fn open(arguments: &Arguments, operation: Operation) -> anyhow::Result<DatastoreHandle> {
    let registry = DatastoreRegistry::new(Arc::new(configuration()), &installation::roots());
    Ok(registry.lookup(&arguments.required("store")?.parse()?, operation)?)
}

fn namespace(arguments: &Arguments) -> anyhow::Result<Namespace> {
    let text = arguments.text("ns").unwrap_or_default();
    text.parse()
        .with_context(|| format!("unable to parse namespace '{text}'"))
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let parent = namespace(arguments)?;
    let depth = arguments.integer("max-depth");
    let answer = match LocalServer::find()? {
        Some(server) => {
            let store = arguments.required("store")?;
            let depth = depth.and_then(|depth| u64::try_from(depth).ok());
            server.ask(|client| async move {
                Ok(DatastoreApi::new(client, store)
                    .namespaces(&parent, depth)
                    .await?)
            })?
        }
        None => {
            let depth = depth.and_then(|depth| usize::try_from(depth).ok());
            let found = open(arguments, Operation::Read)?.namespaces(&parent, depth)?;
            let items: Vec<Value> = found
                .iter()
                .map(|found| json!({"ns": found.as_str()}))
                .collect();
            json!({ "data": items })
        }
    };
    let list = answer.get("data").unwrap_or(&Value::Null);
    match Format::of(arguments)?.json(list) {
        Some(text) => output::out(&text),
        None => output::out(&lines(&answer)),
    }
    Ok(ExitCode::SUCCESS)
}

fn create(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let namespace = namespace(arguments)?;
    let (Some(parent), Some(name)) = (namespace.parent(), namespace.last()) else {
        bail!("root namespace is always present");
    };
    match LocalServer::find()? {
        Some(server) => {
            let store = arguments.required("store")?;
            server.ask(|client| async move {
                Ok(DatastoreApi::new(client, store)
                    .create_namespace(&parent, name)
                    .await?)
            })?;
        }
        None => {
            let datastore = open(arguments, Operation::Write)?;
            namespaces::create_in(&datastore, &parent, name).map_err(anyhow::Error::msg)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn delete(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let namespace = namespace(arguments)?;
    if namespace.is_root() {
        bail!("root namespace cannot be deleted");
    }
    let with_groups = arguments.flag("delete-groups");
    match LocalServer::find()? {
        Some(server) => {
            let store = arguments.required("store")?;
            server.ask(|client| async move {
                Ok(DatastoreApi::new(client, store)
                    .delete_namespace(&namespace, Some(with_groups))
                    .await?)
            })?;
        }
        None => {
            let datastore = open(arguments, Operation::Write)?;
            namespaces::remove_from(&datastore, &namespace, with_groups, true)
                .map_err(anyhow::Error::msg)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
