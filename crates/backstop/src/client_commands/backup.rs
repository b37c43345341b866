//! `backup`: turns the command line into a request and tells when it began and ended.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use backstop_client::backup::{self, BackupRequest, ChangeDetection, CryptConfig, TreeOptions};
use backstop_format::crypt::CryptMode;
use backstop_types::config_schema::value;
use backstop_types::{BackupGroup, BackupId, BackupTime, BackupType, Snapshot};

use super::backup_spec;
use super::encryption::{Encryption, MASTER_KEY};
use super::parameters::{CHUNK_SIZE, CRYPT_MODE, KEY, NAMESPACE, RATE, REPOSITORY};
use super::server::{self, Server};
use crate::activity::TerminalActivity;
use crate::command::{Arguments, Command, Parameter};
use crate::output::{self, time};

/// `backup`
pub fn command() -> Command {
    Command::new("Back up directories, images and files of this machine.", backup)
        .argument(
            Parameter::path(
                "backupspec",
                "What to back up: name.type:path, where type is pxar (a directory), img (a disk image), conf or log (a file).",
            )
            .checked(backup_spec::check)
            .repeated(),
        )
        .options(REPOSITORY)
        .option(NAMESPACE)
        .options(&[
            Parameter::choice("backup-type", "The type of the backup.", &["vm", "ct", "host"]),
            Parameter::of(
                "backup-id",
                "The id of the backup; without it the name of this machine.",
                &value::BACKUP_ID,
            ),
            Parameter::integer("backup-time", "The time of the backup in seconds since 1970.", Some(1), None),
            Parameter::flag("all-file-systems", "Enter other file systems mounted in the directory.").default("false"),
            Parameter::path("include-dev", "Also enter the file system that this path is on.").repeated(),
            Parameter::text("exclude", "A pattern of what to leave out.").repeated(),
            Parameter::flag("skip-lost-and-found", "Leave out lost+found.").default("false"),
            Parameter::flag("skip-e2big-xattr", "Leave out extended attributes that are too big to be read.")
                .default("false"),
            Parameter::integer("entries-max", "Most directory entries held in memory.", Some(1), None)
                .default("1048576"),
            CHUNK_SIZE,
            Parameter::choice(
                "change-detection-mode",
                "How to find what changed since the previous backup.",
                &["legacy", "data", "metadata"],
            )
            .default("legacy"),
            CRYPT_MODE,
            Parameter::flag("dry-run", "Only show what would be uploaded.").default("false"),
            Parameter::flag("no-cache", "Ask the server to bypass its local cache of an object store.")
                .default("false"),
        ])
        .options(KEY)
        .options(MASTER_KEY)
        .options(RATE)
}

/// The name of this machine up to its first dot.
fn node_name() -> anyhow::Result<String> {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    match name.split('.').next() {
        Some(name) if !name.is_empty() => Ok(name.to_string()),
        _ => bail!("this machine has no host name; use --backup-id"),
    }
}

fn snapshot(arguments: &Arguments, node: &str) -> anyhow::Result<Snapshot> {
    let ty: BackupType = arguments.text("backup-type").unwrap_or("host").parse()?;
    let id: BackupId = arguments
        .text("backup-id")
        .unwrap_or(node)
        .parse()
        .with_context(|| format!("'{node}' is no backup id; use --backup-id"))?;
    let epoch = arguments.integer("backup-time").unwrap_or_else(time::now);
    Ok(Snapshot::new(
        BackupGroup::new(ty, id),
        BackupTime::new(epoch)?,
    ))
}

fn chunk_size(arguments: &Arguments) -> anyhow::Result<usize> {
    let kib = arguments.integer("chunk-size").unwrap_or(4096);
    let bytes = usize::try_from(kib)?.saturating_mul(1024);
    if !bytes.is_power_of_two() {
        bail!("Got unsupported chunk size '{bytes}'");
    }
    Ok(bytes)
}

fn tree_options(arguments: &Arguments) -> anyhow::Result<TreeOptions> {
    let include_dev = arguments.paths("include-dev");
    let all_file_systems = arguments.flag("all-file-systems");
    if all_file_systems && !include_dev.is_empty() {
        bail!("--all-file-systems and --include-dev are mutually exclusive");
    }
    for path in include_dev {
        std::fs::metadata(path)
            .with_context(|| format!("unable to access '{}'", path.display()))?;
    }
    Ok(TreeOptions {
        exclude: arguments.list("exclude").to_vec(),
        all_file_systems,
        include_dev: include_dev.iter().map(Into::into).collect(),
        skip_lost_and_found: arguments.flag("skip-lost-and-found"),
        skip_e2big_xattr: arguments.flag("skip-e2big-xattr"),
        entries_max: usize::try_from(arguments.integer("entries-max").unwrap_or(1 << 20))?,
    })
}

fn backup(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let node = node_name()?;
    let namespace = server::namespace(arguments)?;
    let snapshot = snapshot(arguments, &node)?;
    let archives = backup_spec::read(arguments.paths("backupspec"))?;
    let chunk_size = chunk_size(arguments)?;
    let tree = tree_options(arguments)?;
    let encryption = Encryption::choose(arguments)?;
    let repository = server::repository(arguments)?;
    let dry_run = arguments.flag("dry-run");

    server::block_on(async {
        let server = Server::connect(arguments).await?;
        let shown = match namespace.is_root() {
            true => snapshot.to_string(),
            false => format!("[{namespace}]:{snapshot}"),
        };
        output::err(&format!(
            "Starting backup: {shown}\nClient name: {node}\nStarting backup protocol: {}\n",
            time::local(time::now())
        ));
        let request = BackupRequest {
            datastore: repository.store().to_string(),
            namespace: namespace.clone(),
            snapshot: snapshot.clone(),
            archives,
            crypt: crypt(&encryption)?,
            change_detection: match arguments.text("change-detection-mode") {
                Some("data") => ChangeDetection::Data,
                Some("metadata") => ChangeDetection::Metadata,
                _ => ChangeDetection::Legacy,
            },
            chunk_size,
            tree,
            dry_run,
            no_cache: arguments.flag("no-cache"),
            repository: repository.to_string(),
        };
        let activity = Arc::new(TerminalActivity::new());
        let done = backup::run(&server.client, request, activity.clone()).await;
        activity.finish();
        done?;
        Ok(())
    })?;

    if dry_run {
        output::err("dry-run: no upload happened\n");
    } else {
        output::err(&format!(
            "Duration: {:.2}s\nEnd Time: {}\n",
            started.elapsed().as_secs_f64(),
            time::local(time::now())
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Unlocks the key and seals it for the master key.
fn crypt(encryption: &Encryption) -> anyhow::Result<Option<CryptConfig>> {
    if encryption.mode == CryptMode::None {
        return Ok(None);
    }
    let Some(unlocked) = encryption.unlock()? else {
        return Ok(None);
    };
    output::err(&format!(
        "Encryption key fingerprint: {}\n",
        unlocked.key.fingerprint().short_id()
    ));
    let escrow = match encryption.master_pem()? {
        None => None,
        Some(pem) => Some(unlocked.seal_for(&pem)?),
    };
    Ok(Some(CryptConfig {
        mode: encryption.mode,
        key: unlocked.key,
        escrow,
    }))
}
