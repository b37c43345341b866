//! Which heartbeats there are: `backstop-heartbeats.json`, see `docs/heartbeats.md`.

use std::collections::BTreeMap;

use backstop_heartbeat::{Binding, Job, Monitor, Monitors};
use serde_json::{Map, Value, json};

use crate::config::{ConfigError, ConfigStore, EditError, JsonFile, SectionFile};

/// Properties that cannot be taken away.
const NEEDED: [&str; 2] = ["url", "receiver"];

/// All monitors. One that makes no sense is logged and left out, so that it costs the others nothing.
///
/// # Errors
/// When the file cannot be read.
pub fn monitors(config: &ConfigStore) -> Result<Monitors, ConfigError> {
    let (monitors, broken) = read(config)?;
    for (name, reason) in broken {
        tracing::error!(%name, reason, "this heartbeat makes no sense and tells nobody anything");
    }
    Ok(monitors)
}

/// All monitors, and why others make no sense, by name and without their URLs.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn read(
    config: &ConfigStore,
) -> Result<(Monitors, BTreeMap<String, String>), ConfigError> {
    let (mut monitors, mut broken) = (Monitors::new(), BTreeMap::new());
    for (name, value) in config.json(JsonFile::Heartbeats)? {
        match parse(value) {
            Ok(monitor) => {
                monitors.insert(name, monitor);
            }
            Err(reason) => {
                broken.insert(name, reason);
            }
        }
    }
    Ok((monitors, broken))
}

/// Which monitors make no sense, and why, without their URLs; `None`: none, or the file cannot be read.
pub(crate) fn broken(config: &ConfigStore) -> Option<String> {
    let all = config.json(JsonFile::Heartbeats).ok()?;
    let wrong = all.into_iter().filter_map(|(name, value)| {
        let reason = parse(value).err()?;
        Some(format!("heartbeat '{name}' makes no sense: {reason}"))
    });
    let wrong: Vec<String> = wrong.collect();
    (!wrong.is_empty()).then(|| wrong.join("; "))
}

/// One monitor.
///
/// # Errors
/// When there is none of this name, or the file cannot be read.
pub fn get(config: &ConfigStore, name: &str) -> Result<Monitor, EditError> {
    let found = config.json(JsonFile::Heartbeats)?.remove(name);
    let found = found.ok_or_else(|| unknown(name))?;
    parse(found).map_err(EditError::Conflict)
}

/// What may be shown of a monitor: everything but its URL, of which only the server is.
pub fn shown(name: &str, monitor: &Monitor) -> Map<String, Value> {
    let mut view = match json!(monitor) {
        Value::Object(view) => view,
        _ => Map::new(),
    };
    view.remove("url");
    view.insert("name".to_owned(), json!(name));
    view.insert("server".to_owned(), json!(monitor.server()));
    let watches = monitor.binding().map(|binding| binding.to_string());
    let watches = watches.unwrap_or_else(|err| err.to_string());
    view.insert("watches".to_owned(), json!(watches));
    view
}

/// Adds a monitor with these properties.
///
/// # Errors
/// When there is one of this name, or a property makes no sense.
pub fn create(
    config: &ConfigStore,
    name: &str,
    properties: Map<String, Value>,
) -> Result<(), EditError> {
    let monitor = checked(&properties)?;
    exists(config, &monitor)?;
    config.edit_json(JsonFile::Heartbeats, |all| {
        if all.contains_key(name) {
            return Err(EditError::Conflict(format!(
                "heartbeat '{name}' already exists."
            )));
        }
        all.insert(name.to_owned(), Value::Object(properties));
        Ok(())
    })?
}

/// Sets these properties, and takes away those in `delete`.
///
/// # Errors
/// When there is no such monitor, or what comes out makes no sense.
pub fn update(
    config: &ConfigStore,
    name: &str,
    properties: Map<String, Value>,
    delete: &[String],
) -> Result<(), EditError> {
    if let Some(needed) = delete.iter().find(|name| NEEDED.contains(&name.as_str())) {
        return Err(EditError::Conflict(format!("{needed} cannot be deleted")));
    }
    // One whose job is gone may still be changed otherwise.
    if properties.contains_key("job") || properties.contains_key("store") {
        let mut next = match config.json(JsonFile::Heartbeats)?.remove(name) {
            Some(Value::Object(current)) => current,
            _ => return Err(unknown(name)),
        };
        next.retain(|property, _| !delete.contains(property));
        next.extend(properties.clone());
        exists(config, &checked(&next)?)?;
    }
    config.edit_json(JsonFile::Heartbeats, |all| {
        let Some(Value::Object(current)) = all.get(name) else {
            return Err(unknown(name));
        };
        let mut next = current.clone();
        next.retain(|property, _| !delete.contains(property));
        next.extend(properties);
        checked(&next)?;
        all.insert(name.to_owned(), Value::Object(next));
        Ok(())
    })?
}

/// Removes a monitor.
///
/// # Errors
/// When there is none of this name.
pub fn remove(config: &ConfigStore, name: &str) -> Result<(), EditError> {
    let removed = config.edit_json(JsonFile::Heartbeats, |all| all.remove(name))?;
    removed.map(|_| ()).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> EditError {
    EditError::NotFound(format!("no such heartbeat '{name}'"))
}

fn checked(properties: &Map<String, Value>) -> Result<Monitor, EditError> {
    let monitor = parse(Value::Object(properties.clone())).map_err(EditError::Conflict)?;
    monitor
        .check()
        .map_err(|err| EditError::Conflict(err.to_string()))?;
    Ok(monitor)
}

/// Refuses to watch what there is not: it would never be told of anything. Groups and namespaces may come with the first backup.
fn exists(config: &ConfigStore, monitor: &Monitor) -> Result<(), EditError> {
    let binding = monitor.binding();
    let binding = binding.map_err(|err| EditError::Conflict(err.to_string()))?;
    let (file, id, what) = match &binding {
        Binding::Server => return Ok(()),
        Binding::Job(job) => (file_of(job), job.id(), format!("job '{job}'")),
        Binding::Namespace(place) | Binding::Group(place, _) => {
            let store = place.store.as_str();
            (
                SectionFile::Datastore,
                store,
                format!("datastore '{store}'"),
            )
        }
    };
    match config.sections(file)?.data.get(id) {
        Some(_) => Ok(()),
        None => Err(EditError::Conflict(format!(
            "there is no {what} that a heartbeat could watch; create it first"
        ))),
    }
}

/// Where jobs of its kind are configured.
fn file_of(job: &Job) -> SectionFile {
    match job.kind() {
        "gc" => SectionFile::Datastore,
        "prune" => SectionFile::Prune,
        "verify" => SectionFile::Verification,
        "sync" => SectionFile::Sync,
        _ => SectionFile::Domains,
    }
}

/// The reason names no value: one of them is a secret.
fn parse(value: Value) -> Result<Monitor, String> {
    serde_json::from_value(value).map_err(|err| match err.classify() {
        serde_json::error::Category::Data => {
            "a property is missing or of the wrong kind".to_owned()
        }
        _ => "it is no object".to_owned(),
    })
}
