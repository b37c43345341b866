//! `datastore …`: where backups are kept. Through the server if one runs, so that it knows at once; else by itself.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use backstop_datastore::{CreateOptions, Datastore};
use backstop_server::config::{self, SectionFile};
use backstop_server::datastores::Removals;
use backstop_server::service_account;
use backstop_types::config_schema::datastore::{DATASTORE, DELETABLE};
use backstop_types::config_schema::value;
use backstop_types::{DatastoreName, Tuning};
use serde_json::{Map, Value, json};

use super::local_server::LocalServer;
use super::settings::{self, DIGEST};
use super::{configuration, job_states};
use crate::command::{self, Arguments, Command, Group, Parameter};
use crate::installation;
use crate::output::{self, Column, OUTPUT_FORMAT, Record, Table};

const STORE: Parameter = Parameter::of("store", "The name of the datastore.", &value::CONFIG_ID);

/// Datastores.
pub const DATASTORES: Table = Table::new(&[
    Column::text("name"),
    Column::text("path"),
    Column::text("comment"),
]);

/// The settings of one datastore.
pub const SETTINGS: Record = Record::new(&[
    Column::text("name"),
    Column::text("path"),
    Column::text("backend"),
    Column::text("backing-device"),
    Column::text("comment"),
    Column::text("counter-reset-schedule"),
    Column::text("gc-on-unmount"),
    Column::text("gc-schedule"),
    Column::number("keep-daily"),
    Column::number("keep-hourly"),
    Column::number("keep-last"),
    Column::number("keep-monthly"),
    Column::number("keep-weekly"),
    Column::number("keep-yearly"),
    Column::text("maintenance-mode"),
    Column::text("notification-mode"),
    Column::text("notification-thresholds"),
    Column::text("notify"),
    Column::text("notify-user"),
    Column::text("prune-schedule"),
    Column::text("tuning"),
    Column::number("verify-new"),
]);

const NAME: Parameter = Parameter::of("name", "The name of the datastore.", &value::CONFIG_ID);

/// Settings that can be changed, with their explanations.
const CHANGEABLE: &[(&str, &str)] = &[
    ("comment", "A comment."),
    (
        "counter-reset-schedule",
        "When to reset the counters of requests to object storage.",
    ),
    (
        "gc-on-unmount",
        "Whether to collect garbage before a removable datastore is unmounted.",
    ),
    ("gc-schedule", "When to collect garbage."),
    (
        "maintenance-mode",
        "Allow only some operations: read-only, offline, delete.",
    ),
    ("notification-mode", "How to notify."),
    (
        "notification-thresholds",
        "At how many requests to object storage to notify.",
    ),
    ("notify", "When to notify, for each kind of job."),
    ("notify-user", "Whom to notify."),
    ("tuning", "Details of how data is read and written."),
    ("verify-new", "Whether to verify new backups at once."),
];

/// Settings that stand for a prune job, understood as they were in old versions.
const PRUNE: &[(&str, &str)] = &[
    ("prune-schedule", "When to prune; makes a prune job."),
    (
        "keep-last",
        "How many of the newest snapshots the prune job keeps.",
    ),
    (
        "keep-hourly",
        "For how many hours the prune job keeps one snapshot each.",
    ),
    (
        "keep-daily",
        "For how many days the prune job keeps one snapshot each.",
    ),
    (
        "keep-weekly",
        "For how many weeks the prune job keeps one snapshot each.",
    ),
    (
        "keep-monthly",
        "For how many months the prune job keeps one snapshot each.",
    ),
    (
        "keep-yearly",
        "For how many years the prune job keeps one snapshot each.",
    ),
];

/// The commands below `datastore`.
pub fn commands() -> Group {
    Group::new()
        .command(
            "list",
            Command::new("List the datastores.", list).option(OUTPUT_FORMAT),
        )
        .command(
            "show",
            Command::new("Show the settings of a datastore.", show)
                .argument(NAME)
                .option(OUTPUT_FORMAT),
        )
        .command(
            "create",
            Command::new("Make a datastore.", create)
                .argument(NAME)
                .argument(
                    Parameter::text("path", "The directory of the datastore.")
                        .length(1, 4096)
                        .file(),
                )
                .options(&settings::options(&DATASTORE, CHANGEABLE))
                .options(&settings::options(&DATASTORE, PRUNE))
                .options(&settings::options(
                    &DATASTORE,
                    &[
                        (
                            "backing-device",
                            "The UUID of the file system of a removable datastore.",
                        ),
                        ("backend", "The kind of storage."),
                    ],
                ))
                .option(
                    Parameter::flag(
                        "reuse-datastore",
                        "Take over a directory that holds a datastore already.",
                    )
                    .default("false"),
                )
                .option(
                    Parameter::flag(
                        "overwrite-in-use",
                        "Take over a place on object storage that another server uses.",
                    )
                    .default("false"),
                )
                .option(OUTPUT_FORMAT),
        )
        .command(
            "mount",
            Command::new("Mount a removable datastore.", mount)
                .argument(STORE)
                .option(OUTPUT_FORMAT)
                .option(DIGEST),
        )
        .command(
            "unmount",
            Command::new("Unmount a removable datastore.", unmount)
                .argument(STORE)
                .option(DIGEST),
        )
        .command(
            "uuid-mount",
            Command::new(
                "Mount the removable datastore on a file system, if there is one.",
                uuid_mount,
            )
            .argument(Parameter::text("uuid", "The UUID of the file system."))
            .option(OUTPUT_FORMAT),
        )
        .command(
            "update",
            Command::new("Change the settings of a datastore.", update)
                .argument(NAME)
                .options(&settings::options(&DATASTORE, CHANGEABLE))
                .options(&settings::options(&DATASTORE, PRUNE))
                .option(Parameter::choice("delete", "A setting to remove.", DELETABLE).repeated())
                .option(DIGEST)
                .option(OUTPUT_FORMAT),
        )
        .command(
            "remove",
            Command::new(
                "Forget a datastore; its data stays unless asked otherwise.",
                remove,
            )
            .argument(NAME)
            .option(
                Parameter::flag("keep-job-configs", "Keep its jobs and access rules.")
                    .default("false"),
            )
            .option(
                Parameter::flag("destroy-data", "Also delete every backup in it, for good.")
                    .default("false"),
            )
            .option(DIGEST),
        )
}

fn name(arguments: &Arguments) -> anyhow::Result<DatastoreName> {
    Ok(arguments.required("name")?.parse()?)
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let loaded = configuration().sections(SectionFile::Datastore)?;
    let datastores: Vec<Value> = loaded
        .data
        .iter()
        .filter_map(|(id, _)| loaded.data.to_api(id).map(Value::Object))
        .collect();
    output::print_table(&DATASTORES, &Value::Array(datastores), arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn show(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = name(arguments)?;
    let loaded = configuration().sections(SectionFile::Datastore)?;
    let settings = loaded
        .data
        .to_api(name.as_str())
        .with_context(|| format!("no such datastore '{name}'"))?;
    output::print_record(&SETTINGS, &Value::Object(settings), arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn create(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut parameters = settings::given(arguments, &DATASTORE)?;
    parameters.insert("name".to_string(), json!(arguments.required("name")?));
    let reuse = arguments.flag("reuse-datastore");
    let path =
        std::path::absolute(arguments.required("path")?).context("unable to find the directory")?;
    if !parameters.contains_key("backing-device") {
        parameters.insert("path".to_string(), json!(path.to_string_lossy()));
    }
    if let Some(server) = LocalServer::find()? {
        if reuse {
            parameters.insert("reuse-datastore".to_string(), json!(true));
        }
        return server.run_task(arguments, |client| async move {
            Ok(client
                .post("config/datastore", Value::Object(parameters))
                .await?)
        });
    }
    create_here(parameters, reuse)
}

/// Makes a datastore without a server, with the lines that its task would log.
fn create_here(parameters: Map<String, Value>, reuse: bool) -> anyhow::Result<ExitCode> {
    let store = configuration();
    let new = config::datastore::prepare(&store, parameters)?;
    let path = new
        .section
        .get("path")
        .and_then(Value::as_str)
        .context("the path of the datastore is missing")?
        .to_string();
    let tuning = new.section.get("tuning").and_then(Value::as_str);
    let tuning: Tuning = tuning.unwrap_or_default().parse()?;
    let loaded = store.sections(SectionFile::Datastore)?;
    config::datastore::check_nesting(&loaded.data, &new.section)?;
    let options = CreateOptions {
        reuse,
        skip_access_time_check: !tuning.gc_atime_safety_check,
    };
    let mut progress = |percent: u32| output::out(&format!("Chunkstore create: {percent}%\n"));
    service_account::make_directory(&installation::roots(), Path::new(&path));
    let done = Datastore::create(Path::new(&path), &options, &mut progress)
        .map_err(anyhow::Error::from)
        .and_then(|()| {
            config::datastore::add(&store, &new)?;
            Ok(config::datastore::create_job_states(&job_states(), &new)?)
        });
    Ok(task_end(done))
}

/// Prints how a task of this process ended.
fn task_end(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => {
            output::out("TASK OK\n");
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::out(&format!("TASK ERROR: {error:#}\n"));
            output::err(&format!("Error: {error:#}\n"));
            command::failure()
        }
    }
}

fn mount(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    mount_or_unmount(arguments, "mount")
}

fn unmount(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    mount_or_unmount(arguments, "unmount")
}

fn mount_or_unmount(arguments: &Arguments, what: &str) -> anyhow::Result<ExitCode> {
    let path = format!("admin/datastore/{}/{what}", arguments.required("store")?);
    LocalServer::needed()?.run_task(arguments, |client| async move {
        Ok(client.post(&path, Value::Null).await?)
    })
}

/// Called for every file system that appears, so it is no failure when none or several datastores lie there.
fn uuid_mount(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let uuid = arguments.required("uuid")?;
    let configs = config::datastore::list(&configuration())?;
    let mut here = configs
        .iter()
        .filter(|config| config.backing_device.as_deref() == Some(uuid));
    let (Some(only), None) = (here.next(), here.next()) else {
        return Ok(ExitCode::SUCCESS);
    };
    let path = format!("admin/datastore/{}/mount", only.name);
    LocalServer::needed()?.run_task(arguments, |client| async move {
        Ok(client.post(&path, Value::Null).await?)
    })
}

fn update(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut parameters = settings::given(arguments, &DATASTORE)?;
    parameters.remove("path");
    let delete = arguments.list("delete");
    let digest = arguments.text("digest");
    config::datastore::update(
        &configuration(),
        &job_states(),
        &name(arguments)?,
        (parameters, delete),
        digest,
    )?;
    Ok(ExitCode::SUCCESS)
}

fn remove(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = name(arguments)?;
    let keep_jobs = arguments.flag("keep-job-configs");
    let destroy = arguments.flag("destroy-data");
    let digest = arguments.text("digest");
    let Some(server) = LocalServer::find()? else {
        if destroy {
            anyhow::bail!(
                "--destroy-data needs a running server; start it, or remove the directory by hand afterwards"
            );
        }
        let path = config::datastore::get(&configuration(), &name)?.path;
        let path = Path::new(&path);
        // where no datastore is, its lock is not lost either
        if path.join(".chunks").is_dir() {
            Datastore::check_unlocked(&name, path, &installation::roots().locks())?;
        }
        Removals::of(&installation::roots()).note_datastore(&name);
        config::datastore::remove(&configuration(), &job_states(), &name, keep_jobs, digest)?;
        output::out("TASK OK\n");
        return Ok(ExitCode::SUCCESS);
    };
    let parameters = json!({
        "keep-job-configs": keep_jobs,
        "destroy-data": destroy,
        "digest": digest,
    });
    server.run_task(arguments, |client| async move {
        Ok(client
            .delete(&format!("config/datastore/{name}"), parameters)
            .await?)
    })
}
