//! `restore`: brings one archive of a snapshot back.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use backstop_client::restore::{
    self, ExtractOptions, RestoreRequest, RestoreTarget, SnapshotAccess,
};
use backstop_format::crypt::CryptKey;
use backstop_types::{BackupGroup, BackupTime, GroupOrSnapshot, Namespace, Snapshot};
use serde_json::Value;

use super::encryption::Encryption;
use super::parameters::{ARCHIVE, CRYPT_MODE, GROUP_OR_SNAPSHOT, KEY, NAMESPACE, RATE, REPOSITORY};
use super::server::{self, Server};
use crate::activity::TerminalActivity;
use crate::command::{Arguments, Command, Parameter};
use crate::output;

const fn flag(name: &'static str, help: &'static str) -> Parameter {
    Parameter::flag(name, help).default("false")
}

/// `restore`
pub fn command() -> Command {
    Command::new("Restore an archive of a snapshot.", restore)
        .argument(GROUP_OR_SNAPSHOT)
        .argument(ARCHIVE)
        .argument(
            Parameter::path(
                "target",
                "The directory or file to restore to; - for standard output, where archives of directories are not unpacked.",
            ),
        )
        .options(REPOSITORY)
        .option(NAMESPACE)
        .options(KEY)
        .option(CRYPT_MODE)
        .options(RATE)
        .options(&[
            flag("allow-existing-dirs", "Do not fail if directories exist already."),
            flag("overwrite", "Replace existing files, symbolic links and hard links."),
            flag("overwrite-files", "Replace existing files."),
            flag("overwrite-symlinks", "Replace existing symbolic links."),
            flag("overwrite-hardlinks", "Replace existing hard links."),
            flag("ignore-acls", "Do not restore access control lists."),
            flag("ignore-xattrs", "Do not restore extended attributes."),
            flag("ignore-ownership", "Do not restore owners."),
            flag("ignore-permissions", "Do not restore permissions."),
            flag("ignore-extract-device-errors", "Go on if a device node cannot be made."),
            Parameter::text("pattern", "Restore only what matches; not for standard output.")
                .length(2, usize::MAX)
                .checked(|text| match text.ends_with('\\') {
                    true => Err("pattern must not end in a backslash".to_string()),
                    false => Ok(()),
                })
                .repeated(),
            Parameter::path("prelude-target", "A file for the patterns that a split archive was made with."),
        ])
}

fn extract_options(arguments: &Arguments) -> ExtractOptions {
    let overwrite = arguments.flag("overwrite");
    ExtractOptions {
        patterns: arguments.list("pattern").to_vec(),
        allow_existing_dirs: arguments.flag("allow-existing-dirs"),
        overwrite_files: overwrite || arguments.flag("overwrite-files"),
        overwrite_symlinks: overwrite || arguments.flag("overwrite-symlinks"),
        overwrite_hardlinks: overwrite || arguments.flag("overwrite-hardlinks"),
        ignore_acls: arguments.flag("ignore-acls"),
        ignore_xattrs: arguments.flag("ignore-xattrs"),
        ignore_ownership: arguments.flag("ignore-ownership"),
        ignore_permissions: arguments.flag("ignore-permissions"),
        ignore_extract_device_errors: arguments.flag("ignore-extract-device-errors"),
        prelude_target: arguments.path("prelude-target").map(Into::into),
    }
}

fn restore(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let archive = arguments.required("archive-name")?;
    let target = arguments.required_path("target")?;
    let target = match target.to_str() {
        Some("-") if !arguments.list("pattern").is_empty() => {
            bail!("--pattern needs a directory to restore to, not standard output")
        }
        Some("-") => RestoreTarget::Stdout,
        _ => RestoreTarget::Path(target.into()),
    };
    if archive != "index.json" {
        super::parameters::archive_name(archive)?;
    }
    server::block_on(async {
        let (server, access) = open(arguments).await?;
        let request = RestoreRequest {
            access,
            archive: archive.to_string(),
            target,
            extract: extract_options(arguments),
        };
        let activity = Arc::new(TerminalActivity::new());
        let done = restore::run(&server.client, request, activity.clone()).await;
        activity.finish();
        Ok(done?)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Connects, finds the snapshot of the command line and unlocks the key if one is to be used. Says which key it is.
///
/// # Errors
/// If there is no such snapshot, or the key cannot be unlocked.
pub async fn open(arguments: &Arguments) -> anyhow::Result<(Server, SnapshotAccess)> {
    let key = Encryption::choose(arguments)?
        .unlock()?
        .map(|unlocked| unlocked.key);
    if let Some(key) = &key {
        output::err(&format!("Fingerprint: {}\n", key.fingerprint().short_id()));
    }
    open_with(arguments, key).await
}

/// As [`open`], without saying which key it is.
///
/// # Errors
/// As [`open`].
pub async fn open_quietly(arguments: &Arguments) -> anyhow::Result<(Server, SnapshotAccess)> {
    let key = Encryption::choose(arguments)?.unlock_quietly()?;
    open_with(arguments, key.map(|unlocked| unlocked.key)).await
}

async fn open_with(
    arguments: &Arguments,
    key: Option<Arc<CryptKey>>,
) -> anyhow::Result<(Server, SnapshotAccess)> {
    let namespace = server::namespace(arguments)?;
    let text = arguments.required("snapshot")?;
    let wanted: GroupOrSnapshot = text
        .parse()
        .map_err(|_| anyhow::anyhow!("unable to parse backup group or snapshot path '{text}'"))?;
    let server = Server::connect(arguments).await?;
    let snapshot = match wanted {
        GroupOrSnapshot::Snapshot(snapshot) => snapshot,
        GroupOrSnapshot::Group(group) => newest(&server, &namespace, &group).await?,
    };
    let access = SnapshotAccess {
        datastore: server.repository.store().to_string(),
        namespace,
        snapshot,
        key,
    };
    Ok((server, access))
}

/// The newest finished snapshot of a group.
async fn newest(
    server: &Server,
    namespace: &Namespace,
    group: &BackupGroup,
) -> anyhow::Result<Snapshot> {
    let list = server.api.snapshots(namespace, Some(group)).await?;
    let (found, skipped) = newest_finished(&list);
    for epoch in skipped {
        let snapshot = Snapshot::new(group.clone(), BackupTime::new(epoch)?);
        output::err(&format!("skipped not finished snapshot {snapshot}\n"));
    }
    match found {
        Some(epoch) => Ok(Snapshot::new(group.clone(), BackupTime::new(epoch)?)),
        None if list.as_array().is_none_or(Vec::is_empty) => {
            bail!("backup group {group} does not contain any snapshots.")
        }
        None => bail!("backup group {group} does not contain any finished snapshots."),
    }
}

/// The time of the newest snapshot with a manifest, and of the newer ones without.
fn newest_finished(list: &Value) -> (Option<i64>, Vec<i64>) {
    let mut snapshots: Vec<(i64, bool)> = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|item| Some((item.get("backup-time")?.as_i64()?, is_finished(item))))
        .collect();
    snapshots.sort_unstable_by(|a, b| b.cmp(a));
    let skipped = snapshots
        .iter()
        .take_while(|(_, finished)| !finished)
        .map(|(epoch, _)| *epoch);
    let found = snapshots
        .iter()
        .find(|(_, finished)| *finished)
        .map(|(epoch, _)| *epoch);
    (found, skipped.collect())
}

fn is_finished(item: &Value) -> bool {
    item.get("files")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|file| {
            file.get("filename").or(Some(file)).and_then(Value::as_str) == Some("index.json.blob")
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_snapshot_with_a_manifest_is_taken() {
        let item = |time: i64, finished: bool| {
            let files = if finished {
                json!([{"filename": "index.json.blob"}])
            } else {
                json!([])
            };
            json!({"backup-time": time, "files": files})
        };
        let list = json!([item(1, true), item(4, false), item(2, true), item(3, false)]);
        assert_eq!(newest_finished(&list), (Some(2), vec![4, 3]));
        assert_eq!(newest_finished(&json!([item(1, false)])), (None, vec![1]));
        assert_eq!(newest_finished(&json!([])), (None, vec![]));
        assert_eq!(newest_finished(&Value::Null), (None, vec![]));
    }
}
