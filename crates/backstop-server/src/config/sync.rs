//! The rules of sync jobs that concern several of their properties.

use backstop_types::{ByteSize, Namespace};
use serde_json::{Map, Value};

use super::{ConfigStore, EditError, SectionFile};
use crate::sync::check_max_depth;

fn text<'a>(properties: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    properties.get(key).and_then(Value::as_str)
}

fn is_set(properties: &Map<String, Value>, key: &str) -> bool {
    properties.get(key).and_then(Value::as_bool) == Some(true)
}

/// Whether a job with these properties pushes.
pub fn is_push(properties: &Map<String, Value>) -> bool {
    text(properties, "sync-direction") == Some("push")
}

fn conflict<T>(reason: impl Into<String>) -> Result<T, EditError> {
    Err(EditError::Conflict(reason.into()))
}

/// Checks a sync job that is added or changed, and keeps keys that are no longer used for pushing, as what was pushed with
/// them may have to be read.
///
/// # Errors
/// The properties contradict each other, or a key is not known.
pub fn adapt(
    store: &ConfigStore,
    before: Option<&Map<String, Value>>,
    after: &mut Map<String, Value>,
) -> Result<(), EditError> {
    const KEY: &str = "active-encryption-key";
    spell_sizes(after);
    let is_push = is_push(after);
    if !after.contains_key("remote") {
        if is_push {
            return conflict("permission check failed");
        }
        if text(after, "store") == text(after, "remote-store") {
            return conflict("source and target datastore can't be the same");
        }
    }
    let becomes_push =
        before.is_none_or(|before| before.get("resync-corrupt") != after.get("resync-corrupt"));
    if is_push && becomes_push && is_set(after, "resync-corrupt") {
        return conflict("push jobs do not support resync-corrupt option");
    }
    if !is_push && after.contains_key(KEY) {
        let was_push = before.is_some_and(|before| before.contains_key(KEY));
        return conflict(match was_push {
            true => {
                "cannot switch to pull direction while 'active-encryption-key' is set; remove it in the same change"
            }
            false => "'active-encryption-key' only applies to push sync jobs",
        });
    }
    let mounts = ["run-on-mount", "unmount-on-done"];
    let changes_mount = before.is_none_or(|before| {
        mounts
            .iter()
            .any(|key| is_set(after, key) && !is_set(before, key))
    });
    if changes_mount && is_set(after, "unmount-on-done") && !is_set(after, "run-on-mount") {
        return conflict("'unmount-on-done' can only be set when 'run-on-mount' is enabled");
    }
    check_depths(after)?;
    rotate_key(before, after);
    check_keys(store, before, after)
}

/// Writes sizes as stock servers do: `10 MiB`, whatever blanks were given.
fn spell_sizes(job: &mut Map<String, Value>) {
    for key in ["rate-in", "burst-in", "rate-out", "burst-out"] {
        let size = text(job, key).and_then(|size| size.parse::<ByteSize>().ok());
        if let Some(size) = size {
            job.insert(key.to_owned(), Value::from(size.to_string()));
        }
    }
}

fn check_depths(after: &Map<String, Value>) -> Result<(), EditError> {
    let depth = after.get("max-depth").and_then(Value::as_u64);
    let Some(depth) = depth.and_then(|depth| usize::try_from(depth).ok()) else {
        return Ok(());
    };
    for key in ["ns", "remote-ns"] {
        let anchor: Namespace = text(after, key)
            .unwrap_or_default()
            .parse()
            .map_err(|err: backstop_types::NameError| EditError::parameter(key, err.reason))?;
        check_max_depth(&anchor, depth).map_err(EditError::Conflict)?;
    }
    Ok(())
}

/// A key that is replaced or removed is still associated with the job.
fn rotate_key(before: Option<&Map<String, Value>>, after: &mut Map<String, Value>) {
    const KEY: &str = "active-encryption-key";
    let old = before.and_then(|before| text(before, KEY));
    let Some(old) = old.filter(|old| text(after, KEY) != Some(old)) else {
        return;
    };
    let kept = after
        .entry("associated-key")
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(keys) = kept
        && !keys.iter().any(|key| key.as_str() == Some(old))
    {
        keys.push(Value::from(old));
    }
}

/// Keys that are newly named must be there.
fn check_keys(
    store: &ConfigStore,
    before: Option<&Map<String, Value>>,
    after: &Map<String, Value>,
) -> Result<(), EditError> {
    let known = keys(after);
    let named_before = before.map(keys).unwrap_or_default();
    let mut new = known.iter().filter(|key| !named_before.contains(key));
    let Some(first) = new.next() else {
        return Ok(());
    };
    let configured = store.sections(SectionFile::EncryptionKeys)?;
    let is_missing = |key: &&String| configured.data.get(key).is_none();
    match [first].into_iter().chain(new).find(is_missing) {
        Some(key) => conflict(format!("no such key or cannot access key '{key}'")),
        None => Ok(()),
    }
}

/// The keys that a job names.
pub fn keys(properties: &Map<String, Value>) -> Vec<String> {
    let active = text(properties, "active-encryption-key");
    let kept = properties.get("associated-key").and_then(Value::as_array);
    let kept = kept.into_iter().flatten().filter_map(Value::as_str);
    active.into_iter().chain(kept).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::*;

    fn adapted(before: Option<Value>, after: Value) -> Result<Value, String> {
        let dir = tempfile::tempdir().unwrap();
        let keys = "sync-key: key1\n\tpath /x\n\nsync-key: key2\n\tpath /x\n";
        std::fs::write(dir.path().join("encryption-keys.cfg"), keys).unwrap();
        let store = ConfigStore::new(dir.path());
        let before = before.map(|before| before.as_object().unwrap().clone());
        let mut after = after.as_object().unwrap().clone();
        adapt(&store, before.as_ref(), &mut after).map_err(|err| err.to_string())?;
        Ok(Value::Object(after))
    }

    fn push(more: Value) -> Value {
        let mut job = json!({
            "store": "store1", "remote": "rem1", "remote-store": "store1", "sync-direction": "push"
        });
        let own = job.as_object_mut().unwrap();
        own.extend(more.as_object().unwrap().clone());
        job
    }

    #[test]
    fn properties_that_contradict_each_other_are_refused_in_stock_words() {
        let local = json!({"store": "store1", "remote-store": "store1"});
        for (job, error) in [
            (local, "source and target datastore can't be the same"),
            (
                push(json!({"resync-corrupt": true})),
                "push jobs do not support resync-corrupt option",
            ),
            (
                push(json!({"sync-direction": "pull", "active-encryption-key": "key1"})),
                "'active-encryption-key' only applies to push sync jobs",
            ),
            (
                push(json!({"active-encryption-key": "nope"})),
                "no such key or cannot access key 'nope'",
            ),
            (
                push(json!({"unmount-on-done": true})),
                "'unmount-on-done' can only be set when 'run-on-mount' is enabled",
            ),
            (
                push(json!({"remote-ns": "a/b", "max-depth": 6})),
                "namespace 'a/b's depth and recursion depth exceed limit: 2 + 6 > 7",
            ),
        ] {
            assert_eq!(adapted(None, job).unwrap_err(), error);
        }
    }

    #[test]
    fn a_key_that_is_replaced_or_removed_stays_with_the_job() {
        let before = push(json!({"active-encryption-key": "key1"}));
        let after = push(json!({"active-encryption-key": "key2"}));
        let after = adapted(Some(before), after).unwrap();
        assert_eq!(after["associated-key"], json!(["key1"]));
        let removed = push(json!({"associated-key": ["key1"]}));
        let removed = adapted(Some(after), removed).unwrap();
        assert_eq!(removed["associated-key"], json!(["key1", "key2"]));
        assert!(removed.get("active-encryption-key").is_none());
    }

    #[test]
    fn other_changes_leave_an_old_contradiction_alone() {
        let before = json!({
            "store": "store1", "remote": "rem1", "remote-store": "store1", "unmount-on-done": true, "resync-corrupt": true
        });
        let mut after = before.clone();
        after["sync-direction"] = json!("push");
        assert!(adapted(Some(before), after).is_ok());
    }
}
