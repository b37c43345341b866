//! Which heartbeats there are: `backstop-heartbeats.json`, see `docs/heartbeats.md`.

use backstop_heartbeat::{Monitor, Monitors};
use serde_json::{Map, Value, json};

use crate::config::{ConfigError, ConfigStore, EditError, JsonFile};

/// Properties that cannot be taken away.
const NEEDED: [&str; 2] = ["url", "receiver"];

/// All monitors. One that makes no sense is logged and left out, so that it costs the others nothing.
///
/// # Errors
/// When the file cannot be read.
pub fn monitors(config: &ConfigStore) -> Result<Monitors, ConfigError> {
    let mut monitors = Monitors::new();
    for (name, value) in config.json(JsonFile::Heartbeats)? {
        match parse(value) {
            Ok(monitor) => {
                monitors.insert(name, monitor);
            }
            Err(reason) => {
                tracing::error!(%name, reason, "this heartbeat makes no sense and tells nobody anything")
            }
        }
    }
    Ok(monitors)
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
    checked(&properties)?;
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

fn checked(properties: &Map<String, Value>) -> Result<(), EditError> {
    let monitor = parse(Value::Object(properties.clone())).map_err(EditError::Conflict)?;
    monitor
        .check()
        .map_err(|err| EditError::Conflict(err.to_string()))
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
