//! How browsers are to see this server: the part `webauthn` of `tfa.json`.

use backstop_format::Digest;
use backstop_types::second_factor::{Origin, WebauthnConfig};
use serde_json::{Map, Value, json};

use crate::config::{ConfigError, ConfigStore, EditError, JsonFile};

/// Texts of this configuration are no longer than this.
const MAX_NAME: usize = 253;

/// The configuration in a file.
pub(super) fn find(file: &Map<String, Value>) -> Result<Option<WebauthnConfig>, ConfigError> {
    let Some(value) = file.get("webauthn").filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    serde_json::from_value(value.clone())
        .map(Some)
        .map_err(|_| {
            ConfigError::Invalid(
                "the part 'webauthn' of tfa.json is not of the expected form".to_owned(),
            )
        })
}

/// The configuration as it is shown, with its digest: that of its JSON with sorted keys.
///
/// # Errors
/// When the file cannot be read or understood.
pub fn webauthn_config(config: &ConfigStore) -> Result<Option<(Value, Digest)>, ConfigError> {
    Ok(find(&config.json(JsonFile::Tfa)?)?.map(|config| shown(&config)))
}

fn shown(config: &WebauthnConfig) -> (Value, Digest) {
    let mut value = json!({ "rp": config.rp, "id": config.id });
    if let Some(origin) = &config.origin {
        // As stock servers write it: without anything behind the port.
        let origin = origin
            .parse::<Origin>()
            .map_or_else(|_| origin.clone(), |origin| origin.to_string());
        value["origin"] = origin.into();
    }
    if let Some(allow) = config.allow_subdomains {
        value["allow-subdomains"] = allow.into();
    }
    let digest = Digest::of(value.to_string().as_bytes());
    (value, digest)
}

/// What to change; what is `None` stays.
#[derive(Debug, Default)]
pub struct WebauthnChange<'a> {
    /// The name that is shown.
    pub rp: Option<&'a str>,
    /// The address of the web interface.
    pub origin: Option<&'a str>,
    /// The domain that credentials belong to.
    pub id: Option<&'a str>,
    /// Whether hosts below that of the origin are accepted.
    pub allow_subdomains: Option<bool>,
    /// Properties to unset first: `origin`, `allow-subdomains`.
    pub delete: Vec<String>,
    /// The digest of what the caller has seen.
    pub digest: Option<&'a str>,
}

/// Changes the configuration, or makes it.
///
/// # Errors
/// When it changed meanwhile, what is needed is missing, or what comes of it could never work.
pub fn change_webauthn(config: &ConfigStore, change: &WebauthnChange<'_>) -> Result<(), EditError> {
    config.edit_json(JsonFile::Tfa, |file| {
        let mut new = match find(file)? {
            Some(old) => {
                let digest = shown(&old).1.to_string();
                if change.digest.is_some_and(|expected| expected != digest) {
                    return Err(ConfigError::Modified.into());
                }
                old
            }
            None => {
                let needed = |value: Option<&str>, name: &str| {
                    let missing = || EditError::Conflict(format!("missing property: '{name}'"));
                    value.map(str::to_owned).ok_or_else(missing)
                };
                WebauthnConfig {
                    rp: needed(change.rp, "rp")?,
                    id: needed(change.id, "id")?,
                    origin: None,
                    allow_subdomains: None,
                    other: Map::new(),
                }
            }
        };
        for name in &change.delete {
            match name.as_str() {
                "origin" => new.origin = None,
                "allow-subdomains" => new.allow_subdomains = None,
                _ => {}
            }
        }
        if let Some(rp) = change.rp {
            new.rp = rp.to_owned();
        }
        if let Some(id) = change.id {
            if id.is_empty() || id.len() > MAX_NAME || id.contains(['/', ':']) {
                return Err(EditError::parameter(
                    "id",
                    "expected a domain without scheme, port and path",
                ));
            }
            new.id = id.to_owned();
        }
        if let Some(origin) = change.origin {
            let origin: Origin = origin
                .parse()
                .map_err(|error| EditError::parameter("origin", format!("{error}")))?;
            new.origin = Some(origin.to_string());
        }
        if change.allow_subdomains.is_some() {
            new.allow_subdomains = change.allow_subdomains;
        }
        if new.origin.is_some() {
            new.usable_origin()
                .map_err(|error| EditError::Conflict(error.to_string()))?;
        }
        let value =
            serde_json::to_value(&new).map_err(|error| ConfigError::Invalid(error.to_string()))?;
        file.insert("webauthn".to_owned(), value);
        Ok(())
    })?
}
