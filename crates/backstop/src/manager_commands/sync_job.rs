//! `sync-job …`: snapshots that are copied from other servers, or from another datastore here, by schedule.

use std::process::ExitCode;

use backstop_client::api::DatastoreApi;
use backstop_server::config::jobs::{JobFile, SYNC_JOBS};
use backstop_server::config::sync::is_push;
use backstop_types::AuthId;
use backstop_types::record::{GroupItem, NamespaceItem, SyncJobConfig};
use serde_json::{Map, Value};

use super::configuration;
use super::jobs::{self, Kind};
use super::local_server::LocalServer;
use crate::client_commands::columns;
use crate::command::{Arguments, Command, Group, Parameter};
use crate::output::{self, Column, OUTPUT_FORMAT, Record, Table};

/// All sync jobs.
pub const LIST: Table = Table::new(&[
    Column::text("id"),
    Column::text("sync-direction"),
    Column::text("store"),
    Column::text("remote"),
    Column::text("remote-store"),
    Column::text("schedule"),
    Column::text("group-filter").rendered(filters),
    Column::text("rate-in"),
    Column::text("comment"),
])
.sorted(&["id"]);

/// All sync jobs once one of them has run.
pub const LIST_WITH_RUNS: Table = Table::new(&[
    Column::text("id"),
    Column::text("sync-direction"),
    Column::text("store"),
    Column::text("remote"),
    Column::text("remote-store"),
    Column::text("schedule"),
    Column::text("group-filter").rendered(filters),
    Column::text("rate-in"),
    Column::text("comment"),
    Column::text("last-run-state").titled("last run"),
    Column::text("last-success").rendered(columns::local_time),
    Column::number("failures"),
    Column::text("lag").rendered(lag),
    Column::text("next-run").rendered(columns::local_time),
])
.sorted(&["id"]);

/// What is known of the runs of sync jobs.
const STATUS: Table = Table::new(&[
    Column::text("id"),
    Column::text("last-run-endtime")
        .titled("last run")
        .rendered(columns::local_time),
    Column::text("last-run-state").titled("ended with"),
    Column::text("next-run").rendered(columns::local_time),
    Column::text("last-success").rendered(columns::local_time),
    Column::number("failures"),
    Column::number("snapshots").titled("copied"),
    Column::number("bytes").rendered(bytes),
    Column::number("missing"),
    Column::text("lag").rendered(lag),
    Column::text("behind-since").rendered(columns::local_time),
    Column::text("source-seen").rendered(columns::local_time),
])
.sorted(&["id"]);

/// One sync job.
pub const ONE: Record = Record::new(&[
    Column::text("id"),
    Column::text("remote-store"),
    Column::text("store"),
    Column::text("active-encryption-key"),
    Column::text("associated-key"),
    Column::text("comment"),
    Column::number("encrypted-only"),
    Column::text("group-filter"),
    Column::number("max-depth"),
    Column::text("ns"),
    Column::text("owner"),
    Column::text("remote"),
    Column::text("remote-ns"),
    Column::number("remove-vanished"),
    Column::number("resync-corrupt"),
    Column::number("run-on-mount"),
    Column::text("schedule"),
    Column::text("sync-direction"),
    Column::number("transfer-last"),
    Column::number("unmount-on-done"),
    Column::number("verified-only"),
    Column::number("worker-threads"),
    Column::text("burst-in"),
    Column::text("burst-out"),
    Column::text("rate-in"),
    Column::text("rate-out"),
]);

/// Help for the settings of sync jobs.
pub const SETTINGS: &[(&str, &str)] = &[
    (
        "remote",
        "The other server; without it, another datastore of this one.",
    ),
    ("remote-store", "The datastore there."),
    ("remote-ns", "The namespace there; without it, the root."),
    (
        "owner",
        "Who owns what is pulled, and whose privileges count; without it, root@pam.",
    ),
    (
        "remove-vanished",
        "Remove at the target what is gone at the source, but for protected snapshots.",
    ),
    (
        "group-filter",
        "Which groups: [include:|exclude:] and type:vm|ct|host, group:TYPE/ID or regex:RE.",
    ),
    (
        "rate-in",
        "Limit of what is received per second, such as 20MiB.",
    ),
    ("burst-in", "How much may be received at once."),
    ("rate-out", "Limit of what is sent per second."),
    ("burst-out", "How much may be sent at once."),
    (
        "transfer-last",
        "How many of the newest snapshots of each group; without it, all.",
    ),
    (
        "resync-corrupt",
        "Pull snapshots again whose verification failed here.",
    ),
    (
        "encrypted-only",
        "Only snapshots all of whose files are encrypted.",
    ),
    (
        "verified-only",
        "Only snapshots whose verification at the source succeeded.",
    ),
    ("worker-threads", "How many groups at the same time."),
];

/// For commands that can tell what they would do.
pub const DRY_RUN: Parameter = Parameter::flag(
    "dry-run",
    "Only tell what would be copied and removed, and which groups belong to others.",
)
.default("false");

/// Settings that only jobs have.
const JOB_ONLY: &[(&str, &str)] = &[
    ("sync-direction", "Whether to pull or to push."),
    (
        "run-on-mount",
        "Run when the removable datastore is mounted.",
    ),
    (
        "unmount-on-done",
        "Unmount the removable datastore afterwards.",
    ),
    (
        "active-encryption-key",
        "The key that encrypts what is pushed.",
    ),
    ("associated-key", "A key that decrypts what is pulled."),
];

struct Sync;

impl Kind for Sync {
    const FILE: &'static JobFile = &SYNC_JOBS;
    const LIST: &'static Table = &LIST;
    const LIST_WITH_RUNS: Option<&'static Table> = Some(&LIST_WITH_RUNS);
    const SHOW: &'static Record = &ONE;
    const RUN: &'static str = "admin/sync";
    const FILTER: Option<Parameter> = Some(
        Parameter::choice(
            "sync-direction",
            "Which jobs: those that pull, those that push, or all.",
            &["all", "push", "pull"],
        )
        .default("pull"),
    );

    const DRY_RUN: Option<Parameter> = Some(DRY_RUN);

    fn is_listed(arguments: &Arguments, job: &Map<String, Value>) -> bool {
        match arguments.text("sync-direction").unwrap_or("pull") {
            "all" => true,
            "push" => is_push(job),
            _ => !is_push(job),
        }
    }

    fn remark(job: &Map<String, Value>) {
        if is_push(job) {
            return;
        }
        let Ok(config) = SyncJobConfig::from_api(job.clone()) else {
            return;
        };
        // The job is there in any case; what cannot be looked at now is said when it runs.
        let foreign = foreign_groups(&config).unwrap_or_default();
        if foreign.is_empty() {
            return;
        }
        let (owner, store) = (config.owner(), &config.store);
        output::err(&format!(
            "WARNING: the target in datastore '{store}' has groups of other owners, which this job of '{owner}' \
             cannot write to. If the source has groups of these names, choose another namespace (--ns):\n"
        ));
        for (group, owner) in foreign {
            output::err(&format!("  {group} (owner {owner})\n"));
        }
    }
}

/// The commands below `sync-job`.
pub fn commands() -> Group {
    jobs::commands::<Sync>(&[SETTINGS, JOB_ONLY].concat()).command(
        "status",
        Command::new(
            "Show when the jobs ran and run next, what they copied, and how far they are behind.",
            status,
        )
        .option(OUTPUT_FORMAT),
    )
}

fn status(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let loaded = configuration().sections(SYNC_JOBS.file)?;
    let jobs = loaded.data.iter();
    let jobs = jobs.filter_map(|(id, _)| loaded.data.to_api(id));
    let rows = jobs.map(|job| jobs::with_runs::<Sync>(&job).map(Value::Object));
    let rows = rows.collect::<anyhow::Result<Vec<Value>>>()?;
    output::print_table(&STATUS, &Value::Array(rows), arguments)?;
    Ok(ExitCode::SUCCESS)
}

/// The groups in the target of a job that its owner cannot write to, with their owners.
fn foreign_groups(config: &SyncJobConfig) -> anyhow::Result<Vec<(String, AuthId)>> {
    let Some(server) = LocalServer::find()? else {
        return Ok(Vec::new());
    };
    let (store, anchor, depth) = (config.store.clone(), config.ns.clone(), config.max_depth);
    let owner = config.owner();
    server.ask(|client| async move {
        let api = DatastoreApi::new(client, store.as_str());
        let depth = depth.and_then(|depth| u64::try_from(depth).ok());
        let mut envelope = api.namespaces(&anchor, depth).await?;
        let namespaces: Vec<NamespaceItem> = serde_json::from_value(envelope["data"].take())?;
        let mut foreign = Vec::new();
        for item in namespaces {
            let groups: Vec<GroupItem> = serde_json::from_value(api.groups(&item.ns).await?)?;
            for group in groups {
                let name = match item.ns.is_root() {
                    true => format!("{}/{}", group.backup_type, group.backup_id),
                    false => format!("{}: {}/{}", item.ns, group.backup_type, group.backup_id),
                };
                let other = group.owner.filter(|other| *other != owner);
                foreign.extend(other.map(|other| (name, other)));
            }
        }
        Ok(foreign)
    })
}

/// How far a job is behind its source.
fn lag(value: &Value, row: &Value) -> anyhow::Result<String> {
    Ok(match value.as_i64() {
        Some(0) => "none".to_owned(),
        Some(seconds) => output::size::duration(seconds as f64),
        None if row.get("failures").is_some() => "unknown".to_owned(),
        None => String::new(),
    })
}

fn bytes(value: &Value, _: &Value) -> anyhow::Result<String> {
    Ok(value
        .as_u64()
        .map(output::size::whole_bytes)
        .unwrap_or_default())
}

/// Filters in one cell.
fn filters(value: &Value, _: &Value) -> anyhow::Result<String> {
    let filters = value.as_array().into_iter().flatten();
    let filters: Vec<&str> = filters.filter_map(Value::as_str).collect();
    Ok(match filters.is_empty() {
        true => "all".to_owned(),
        false => filters.join(" OR "),
    })
}
