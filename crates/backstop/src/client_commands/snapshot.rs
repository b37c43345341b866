//! `snapshot …`: single snapshots, their files, notes and protection.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use backstop_format::blob::DataBlob;
use backstop_types::{BackupGroup, Namespace, Snapshot};
use serde_json::json;

use super::columns;
use super::encryption::Encryption;
use super::parameters::{CRYPT_MODE, GROUP, KEY, NAMESPACE, REPOSITORY, SNAPSHOT};
use super::server::{self, Server};
use crate::command::{Arguments, Command, Group, Parameter};
use crate::output::{self, Column, Format, OUTPUT_FORMAT, Table};

/// Largest log that is uploaded, in bytes: the limit of a blob.
const LOG_LIMIT: u64 = 128 << 20;

/// The snapshots of a group or a namespace.
pub const SNAPSHOTS: Table = Table::new(&[
    Column::text("backup-id")
        .titled("snapshot")
        .rendered(columns::snapshot),
    Column::number("size").rendered(columns::human_size),
    Column::text("files").rendered(columns::files),
])
.sorted(&["backup-type", "backup-id", "backup-time"]);

/// The files of one snapshot.
pub const FILES: Table = Table::new(&[
    Column::text("filename"),
    Column::text("crypt-mode"),
    Column::number("size"),
]);

/// The commands below `snapshot`.
pub fn commands() -> Group {
    Group::new()
        .command("list", list_command())
        .command("files", files_command())
        .command("forget", forget_command())
        .command("upload-log", upload_log_command())
        .group(
            "notes",
            Group::new()
                .command(
                    "show",
                    on_snapshot("Show the notes of a snapshot.", notes_show).option(OUTPUT_FORMAT),
                )
                .command(
                    "update",
                    on_snapshot("Replace the notes of a snapshot.", notes_update)
                        .argument(Parameter::text("notes", "The notes; empty to remove them.")),
                ),
        )
        .group(
            "protected",
            Group::new()
                .command(
                    "show",
                    on_snapshot("Show whether a snapshot is protected.", protected_show)
                        .option(OUTPUT_FORMAT),
                )
                .command(
                    "update",
                    on_snapshot(
                        "Protect a snapshot from removal, or end that.",
                        protected_update,
                    )
                    .argument(Parameter::flag(
                        "protected",
                        "Whether it is to be protected.",
                    )),
                ),
        )
}

fn on_snapshot(help: &'static str, action: crate::command::Action) -> Command {
    Command::new(help, action)
        .argument(SNAPSHOT)
        .options(REPOSITORY)
        .option(NAMESPACE)
}

fn list_command() -> Command {
    Command::new("List the snapshots, of one group or of all.", list)
        .optional_argument(GROUP)
        .options(REPOSITORY)
        .option(NAMESPACE)
        .option(OUTPUT_FORMAT)
}

fn files_command() -> Command {
    on_snapshot("List the files of a snapshot.", files).option(OUTPUT_FORMAT)
}

fn forget_command() -> Command {
    on_snapshot("Remove a snapshot.", forget)
}

fn upload_log_command() -> Command {
    Command::new("Add a log file to a snapshot.", upload_log)
        .argument(SNAPSHOT)
        .argument(Parameter::path("logfile", "The log file."))
        .options(REPOSITORY)
        .option(NAMESPACE)
        .options(KEY)
        .option(CRYPT_MODE)
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let namespace = server::namespace(arguments)?;
    let group: Option<BackupGroup> = arguments.text("group").map(str::parse).transpose()?;
    let snapshots = server::block_on(async {
        let server = Server::connect(arguments).await?;
        Ok(server.api.snapshots(&namespace, group.as_ref()).await?)
    })?;
    output::print_table(&SNAPSHOTS, &snapshots, arguments)?;
    Ok(ExitCode::SUCCESS)
}

/// The snapshot on the command line.
///
/// # Errors
/// If it is not of the form `type/id/time`.
pub fn snapshot_argument(arguments: &Arguments) -> anyhow::Result<Snapshot> {
    let text = arguments.required("snapshot")?;
    text.parse()
        .map_err(|_| anyhow::anyhow!("unable to parse backup snapshot path '{text}'"))
}

/// The namespace and the snapshot on the command line.
fn target(arguments: &Arguments) -> anyhow::Result<(Namespace, Snapshot)> {
    Ok((server::namespace(arguments)?, snapshot_argument(arguments)?))
}

fn files(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (namespace, snapshot) = target(arguments)?;
    let files = server::block_on(async {
        let server = Server::connect(arguments).await?;
        Ok(server.api.files(&namespace, &snapshot).await?)
    })?;
    output::print_table(&FILES, &files, arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn forget(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (namespace, snapshot) = target(arguments)?;
    server::block_on(async {
        let server = Server::connect(arguments).await?;
        Ok(server.api.forget_snapshot(&namespace, &snapshot).await?)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn upload_log(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (namespace, snapshot) = target(arguments)?;
    let path = arguments.required_path("logfile")?;
    let file = std::fs::File::open(path).with_context(|| format!("unable to open {path:?}"))?;
    let mut content = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, LOG_LIMIT + 1), &mut content)
        .with_context(|| format!("unable to read {path:?}"))?;
    if content.len() as u64 > LOG_LIMIT {
        bail!("log file {path:?} is larger than 128 MiB");
    }
    let key = Encryption::choose(arguments)?.unlock_for_encryption()?;
    let blob = DataBlob::encode(&content, key.as_deref(), true)?;
    let answer = server::block_on(async {
        let server = Server::connect(arguments).await?;
        Ok(server
            .api
            .upload_log(&namespace, &snapshot, blob.into_raw().into())
            .await?)
    })?;
    output::print_result(&answer);
    Ok(ExitCode::SUCCESS)
}

fn notes_show(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (namespace, snapshot) = target(arguments)?;
    let notes = server::block_on(async {
        let server = Server::connect(arguments).await?;
        Ok(server.api.notes(&namespace, &snapshot).await?)
    })?;
    match Format::of(arguments)?.json(&json!({ "notes": notes })) {
        Some(text) => output::out(&text),
        None => output::out(&format!("{}\n", notes.as_str().unwrap_or_default())),
    }
    Ok(ExitCode::SUCCESS)
}

fn notes_update(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (namespace, snapshot) = target(arguments)?;
    let notes = arguments.required("notes")?;
    server::block_on(async {
        let server = Server::connect(arguments).await?;
        Ok(server.api.set_notes(&namespace, &snapshot, notes).await?)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn protected_show(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (namespace, snapshot) = target(arguments)?;
    let protected = server::block_on(async {
        let server = Server::connect(arguments).await?;
        Ok(server.api.protected(&namespace, &snapshot).await?)
    })?;
    match Format::of(arguments)?.json(&json!({ "protected": protected })) {
        Some(text) => output::out(&text),
        None => output::out(&format!("{}\n", protected.as_bool().unwrap_or_default())),
    }
    Ok(ExitCode::SUCCESS)
}

fn protected_update(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (namespace, snapshot) = target(arguments)?;
    let protected = arguments.flag("protected");
    server::block_on(async {
        let server = Server::connect(arguments).await?;
        Ok(server
            .api
            .set_protected(&namespace, &snapshot, protected)
            .await?)
    })?;
    Ok(ExitCode::SUCCESS)
}
