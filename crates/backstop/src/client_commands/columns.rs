//! How the members of the server's records are shown in tables.

use anyhow::Context as _;
use backstop_types::{BackupGroup, BackupTime, Snapshot};
use serde_json::Value;

use crate::output::{size, time};

/// The group that a record names.
pub fn group_of(row: &Value) -> anyhow::Result<BackupGroup> {
    let member = |name: &str| {
        row.get(name)
            .and_then(Value::as_str)
            .with_context(|| format!("record has no {name}"))
    };
    Ok(BackupGroup::new(
        member("backup-type")?.parse()?,
        member("backup-id")?.parse()?,
    ))
}

/// The snapshot of the record's group at the time in its member `name`.
pub fn snapshot_at(row: &Value, name: &str) -> anyhow::Result<Snapshot> {
    let epoch = row
        .get(name)
        .and_then(Value::as_i64)
        .with_context(|| format!("record has no {name}"))?;
    Ok(Snapshot::new(group_of(row)?, BackupTime::new(epoch)?))
}

/// `type/id`.
pub fn group(_: &Value, row: &Value) -> anyhow::Result<String> {
    Ok(group_of(row)?.to_string())
}

/// `type/id/time` of the newest snapshot.
pub fn last_snapshot(_: &Value, row: &Value) -> anyhow::Result<String> {
    Ok(snapshot_at(row, "last-backup")?.to_string())
}

/// `type/id/time`.
pub fn snapshot(_: &Value, row: &Value) -> anyhow::Result<String> {
    Ok(snapshot_at(row, "backup-time")?.to_string())
}

/// The names of the files without their last suffix, sorted, in one line.
pub fn files(value: &Value, _: &Value) -> anyhow::Result<String> {
    let mut names: Vec<&str> = value
        .as_array()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .filter_map(|file| file.as_str().or_else(|| file.get("filename")?.as_str()))
        .map(without_suffix)
        .collect();
    names.sort_unstable();
    Ok(names.join(" "))
}

/// The name of a stored file as users write it.
pub fn without_suffix(name: &str) -> &str {
    [".didx", ".fidx", ".blob"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name)
}

/// A size in binary units; nothing if it is not known.
pub fn human_size(value: &Value, _: &Value) -> anyhow::Result<String> {
    Ok(value.as_u64().map(size::whole_bytes).unwrap_or_default())
}

/// Local time; nothing if there is none.
pub fn local_time(value: &Value, _: &Value) -> anyhow::Result<String> {
    Ok(value.as_i64().map(time::local).unwrap_or_default())
}
