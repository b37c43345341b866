//! `backstop-health.json`: how often backups are expected, and maintenance windows. Format: `docs/formats/health.md`.

use backstop_health::{Settings, SettingsError};
use serde_json::{Map, Value};

use crate::config::{ConfigError, ConfigStore, EditError, JsonFile};

fn parse(map: Map<String, Value>) -> Result<Settings, ConfigError> {
    serde_json::from_value(Value::Object(map))
        .map_err(|err| ConfigError::Invalid(format!("backstop-health.json makes no sense - {err}")))
}

/// What it says; nothing if there is none.
///
/// # Errors
/// It cannot be read, or makes no sense.
pub(crate) fn load(config: &ConfigStore) -> Result<Settings, ConfigError> {
    parse(config.json(JsonFile::Health)?)
}

/// Changes it.
///
/// # Errors
/// `change` refuses, or the file cannot be read or written.
pub(crate) fn edit(
    config: &ConfigStore,
    change: impl FnOnce(&mut Settings) -> Result<(), SettingsError>,
) -> Result<(), EditError> {
    let edited = config.edit_json(JsonFile::Health, |map| {
        let mut settings = parse(map.clone())?;
        change(&mut settings).map_err(|err| EditError::Conflict(err.to_string()))?;
        if let Ok(Value::Object(changed)) = serde_json::to_value(&settings) {
            *map = changed;
        }
        Ok(())
    });
    edited?
}
