//! `prune-job …`, `verify-job …` and `sync-job …`: work on datastores by schedule. Only running a job needs the server.

use std::process::ExitCode;

use backstop_server::config::jobs::{JobFile, PRUNE_JOBS, VERIFY_JOBS, is_disabled};
use backstop_server::jobs::{JobId, JobStatus};
use backstop_types::config_schema::value;
use serde_json::{Map, Value, json};

use super::local_server::LocalServer;
use super::settings::{self, DIGEST};
use super::{configuration, job_states};
use crate::command::{Arguments, Command, Group, Parameter};
use crate::installation;
use crate::output::{self, Column, Format, OUTPUT_FORMAT, Record, Table};

/// All prune jobs.
pub const PRUNE_LIST: Table = Table::new(&[
    Column::text("id"),
    Column::number("disable"),
    Column::text("store"),
    Column::text("ns"),
    Column::text("schedule"),
    Column::number("max-depth"),
    Column::number("keep-last"),
    Column::number("keep-hourly"),
    Column::number("keep-daily"),
    Column::number("keep-weekly"),
    Column::number("keep-monthly"),
    Column::number("keep-yearly"),
])
.sorted(&["id"]);

/// One prune job.
pub const PRUNE_JOB: Record = Record::new(&[
    Column::text("id"),
    Column::text("schedule"),
    Column::text("store"),
    Column::text("comment"),
    Column::number("disable"),
    Column::number("max-depth"),
    Column::text("ns"),
    Column::number("keep-daily"),
    Column::number("keep-hourly"),
    Column::number("keep-last"),
    Column::number("keep-monthly"),
    Column::number("keep-weekly"),
    Column::number("keep-yearly"),
]);

/// All verify jobs.
pub const VERIFY_LIST: Table = Table::new(&[
    Column::text("id"),
    Column::text("store"),
    Column::text("schedule"),
    Column::number("ignore-verified"),
    Column::number("outdated-after"),
    Column::text("comment"),
])
.sorted(&["id"]);

/// One verify job.
pub const VERIFY_JOB: Record = Record::new(&[
    Column::text("id"),
    Column::text("store"),
    Column::text("comment"),
    Column::number("ignore-verified"),
    Column::number("max-depth"),
    Column::text("ns"),
    Column::number("outdated-after"),
    Column::number("read-threads"),
    Column::text("schedule"),
    Column::number("verify-threads"),
]);

const ID: Parameter = Parameter::of("id", "The name of the job.", &value::CONFIG_ID);

/// Settings of all kinds of jobs.
const COMMON: &[(&str, &str)] = &[
    ("store", "The datastore."),
    (
        "schedule",
        "When to run, as a calendar event such as 'mon..fri 02:30'.",
    ),
    ("ns", "The namespace; without it, the root."),
    (
        "max-depth",
        "How many levels of namespaces below it; without it, all.",
    ),
    ("comment", "A comment."),
];

const PRUNE_ONLY: &[(&str, &str)] = &[
    ("disable", "Do not run by the schedule."),
    ("keep-last", "How many of the newest snapshots to keep."),
    (
        "keep-hourly",
        "For how many hours to keep one snapshot each.",
    ),
    ("keep-daily", "For how many days to keep one snapshot each."),
    (
        "keep-weekly",
        "For how many weeks to keep one snapshot each.",
    ),
    (
        "keep-monthly",
        "For how many months to keep one snapshot each.",
    ),
    (
        "keep-yearly",
        "For how many years to keep one snapshot each.",
    ),
];

const VERIFY_ONLY: &[(&str, &str)] = &[
    (
        "ignore-verified",
        "Leave out snapshots that were verified already.",
    ),
    (
        "outdated-after",
        "After how many days to verify a snapshot again.",
    ),
    ("read-threads", "How many threads read."),
    ("verify-threads", "How many threads check."),
];

/// What the commands of one kind of job differ in.
pub(super) trait Kind {
    const FILE: &'static JobFile;
    const LIST: &'static Table;
    const SHOW: &'static Record;
    const RUN: &'static str;
    /// What narrows the list.
    const FILTER: Option<Parameter> = None;
    /// The list as a text once one of the jobs has run, with what is known of its runs.
    const LIST_WITH_RUNS: Option<&'static Table> = None;

    /// For jobs that can tell what they would do.
    const DRY_RUN: Option<Parameter> = None;

    /// Whether a job belongs into the list.
    fn is_listed(_: &Arguments, _: &Map<String, Value>) -> bool {
        true
    }

    /// Says what the user should know of a job that was added or changed.
    fn remark(_: &Map<String, Value>) {}
}

struct Prune;

impl Kind for Prune {
    const FILE: &'static JobFile = &PRUNE_JOBS;
    const LIST: &'static Table = &PRUNE_LIST;
    const SHOW: &'static Record = &PRUNE_JOB;
    const RUN: &'static str = "admin/prune";
}

struct Verify;

impl Kind for Verify {
    const FILE: &'static JobFile = &VERIFY_JOBS;
    const LIST: &'static Table = &VERIFY_LIST;
    const SHOW: &'static Record = &VERIFY_JOB;
    const RUN: &'static str = "admin/verify";
}

/// The commands below `prune-job`.
pub fn prune_commands() -> Group {
    commands::<Prune>(PRUNE_ONLY)
}

/// The commands below `verify-job`.
pub fn verify_commands() -> Group {
    commands::<Verify>(VERIFY_ONLY)
}

/// The commands for jobs of a kind, with the help of the settings that only it has.
pub(super) fn commands<K: Kind>(own: &[(&'static str, &'static str)]) -> Group {
    let helps = [COMMON, own].concat();
    let update = settings::options(K::FILE.properties, &helps);
    let is_needed = |name: &str| {
        let property = K::FILE.properties.get(name);
        property.is_some_and(|property| !property.optional)
    };
    let create = update.iter().map(|option| match option.name {
        name if is_needed(name) => option.required(),
        "ignore-verified" => option.default("true"),
        "read-threads" => option.default("1"),
        "verify-threads" => option.default("4"),
        _ => *option,
    });
    let create: Vec<Parameter> = create.collect();
    let on_job = |help, action| Command::new(help, action).argument(ID);
    Group::new()
        .command(
            "list",
            Command::new("List the jobs.", list::<K>)
                .option(OUTPUT_FORMAT)
                .options(K::FILTER.as_slice()),
        )
        .command(
            "show",
            on_job("Show a job.", show::<K>).option(OUTPUT_FORMAT),
        )
        .command(
            "create",
            on_job("Add a job.", create_job::<K>).options(&create),
        )
        .command(
            "update",
            on_job("Change a job.", update_job::<K>)
                .options(&update)
                .option(
                    Parameter::choice("delete", "A setting to remove.", K::FILE.deletable)
                        .repeated(),
                )
                .option(DIGEST),
        )
        .command(
            "run",
            on_job("Run a job now.", run::<K>)
                .option(OUTPUT_FORMAT)
                .options(K::DRY_RUN.as_slice()),
        )
        .command(
            "remove",
            on_job("Remove a job.", remove::<K>).option(DIGEST),
        )
}

fn list<K: Kind>(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let loaded = configuration().sections(K::FILE.file)?;
    let listed = loaded.data.iter();
    let listed = listed.filter(|(_, section)| K::is_listed(arguments, &section.properties));
    let jobs = listed.filter_map(|(id, _)| loaded.data.to_api(id));
    let jobs: Vec<Map<String, Value>> = jobs.collect();
    // What programs read has the form that they know.
    if Format::of(arguments)? == Format::Text
        && let Some(table) = K::LIST_WITH_RUNS
    {
        let with_runs = jobs.iter().map(with_runs::<K>);
        let with_runs = with_runs.collect::<anyhow::Result<Vec<_>>>()?;
        if with_runs.iter().any(|job| job.contains_key("failures")) {
            let rows = with_runs.into_iter().map(Value::Object);
            output::print_table(table, &rows.collect(), arguments)?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    let rows = jobs.into_iter().map(Value::Object);
    output::print_table(K::LIST, &rows.collect(), arguments)?;
    Ok(ExitCode::SUCCESS)
}

/// A job with what is known of its runs, in members beside each other.
pub(super) fn with_runs<K: Kind>(job: &Map<String, Value>) -> anyhow::Result<Map<String, Value>> {
    let text = |key: &str| job.get(key).and_then(Value::as_str);
    let id = JobId::new(K::FILE.kind, text("id").unwrap_or_default());
    let schedule = text("schedule").filter(|_| !is_disabled(job));
    let tasks = installation::roots().task_logs();
    let status = JobStatus::by_files(&job_states(), &tasks, &id, schedule)?;
    let mut job = job.clone();
    if let Value::Object(mut runs) = serde_json::to_value(status)? {
        if let Some(Value::Object(history)) = runs.remove("backstop") {
            job.extend(history);
        }
        job.extend(runs);
    }
    Ok(job)
}

fn show<K: Kind>(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let id = arguments.required("id")?;
    let mut job = K::FILE.get(&configuration(), id)?;
    job.insert("id".to_owned(), Value::String(id.to_owned()));
    output::print_record(K::SHOW, &Value::Object(job), arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn create_job<K: Kind>(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let properties = settings::given(arguments, K::FILE.properties)?;
    let id = arguments.required("id")?;
    K::FILE.create(&configuration(), &job_states(), id, properties)?;
    K::remark(&K::FILE.get(&configuration(), id)?);
    Ok(ExitCode::SUCCESS)
}

fn update_job<K: Kind>(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let change = (
        settings::given(arguments, K::FILE.properties)?,
        arguments.list("delete"),
    );
    let id = arguments.required("id")?;
    let digest = arguments.text("digest");
    K::FILE.update(&configuration(), &job_states(), id, change, digest, |_| {
        Ok(())
    })?;
    K::remark(&K::FILE.get(&configuration(), id)?);
    Ok(ExitCode::SUCCESS)
}

fn remove<K: Kind>(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let id = arguments.required("id")?;
    K::FILE.remove(
        &configuration(),
        &job_states(),
        id,
        arguments.text("digest"),
    )?;
    Ok(ExitCode::SUCCESS)
}

fn run<K: Kind>(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let path = format!("{}/{}/run", K::RUN, arguments.required("id")?);
    let parameters = match K::DRY_RUN.is_some() && arguments.flag("dry-run") {
        true => json!({"dry-run": true}),
        false => Value::Null,
    };
    LocalServer::needed()?.run_task(arguments, |client| async move {
        Ok(client.post(&path, parameters).await?)
    })
}
