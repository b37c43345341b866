//! Metric servers in the configuration, `metricserver.cfg`. A token leaves this module only for requests to its server, and is
//! never part of what is listed.

use backstop_types::config_schema::notification::{INFLUXDB_HTTP, INFLUXDB_UDP};
use backstop_types::schema::Properties;
use serde_json::{Map, Value};

use super::{ConfigError, ConfigStore, EditError, Loaded, SectionFile};
use crate::metrics::MetricServer;

/// A kind of metric server.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// The type of its sections.
    pub section: &'static str,
    /// The properties of its sections.
    pub properties: &'static Properties,
    /// What an update may unset.
    pub deletable: &'static [&'static str],
}

/// InfluxDB by HTTP.
pub const HTTP: Kind = Kind {
    section: "influxdb-http",
    properties: &INFLUXDB_HTTP,
    deletable: &[
        "enable",
        "token",
        "bucket",
        "organization",
        "max-body-size",
        "verify-tls",
        "comment",
    ],
};

/// InfluxDB by UDP.
pub const UDP: Kind = Kind {
    section: "influxdb-udp",
    properties: &INFLUXDB_UDP,
    deletable: &["enable", "mtu", "comment"],
};

/// All servers of a kind without their tokens, in file order, with the digest of the file.
///
/// # Errors
/// When the configuration cannot be read.
pub fn list(
    config: &ConfigStore,
    kind: Kind,
) -> Result<Loaded<Vec<Map<String, Value>>>, ConfigError> {
    let loaded = config.sections(SectionFile::MetricServer)?;
    let names = loaded.data.of_type(kind.section).map(|(name, _)| name);
    Ok(Loaded {
        data: names
            .filter_map(|name| loaded.data.to_api(name).map(without_token))
            .collect(),
        digest: loaded.digest,
    })
}

/// A server of a kind without its token, with the digest of the file.
///
/// # Errors
/// When there is none of this name, or the configuration cannot be read.
pub fn get(
    config: &ConfigStore,
    kind: Kind,
    name: &str,
) -> Result<Loaded<Map<String, Value>>, EditError> {
    let loaded = config.sections(SectionFile::MetricServer)?;
    let found = loaded.data.get_typed(kind.section, name);
    let shown = found.and_then(|_| loaded.data.to_api(name));
    Ok(Loaded {
        data: shown.map(without_token).ok_or_else(|| unknown(name))?,
        digest: loaded.digest,
    })
}

fn without_token(mut section: Map<String, Value>) -> Map<String, Value> {
    section.remove("token");
    section
}

/// All servers that are not switched off, by name.
///
/// # Errors
/// When the configuration cannot be read.
pub(crate) fn enabled(config: &ConfigStore) -> Result<Vec<(String, MetricServer)>, ConfigError> {
    let loaded = config.sections(SectionFile::MetricServer)?;
    let servers = loaded.data.iter().filter_map(|(name, section)| {
        let off = section.properties.get("enable").and_then(Value::as_bool) == Some(false);
        let server = server(section.ty, &section.properties)?;
        (!off).then(|| (name.to_owned(), server))
    });
    Ok(servers.collect())
}

/// The server that a section of this type describes.
pub(crate) fn server(section: &str, properties: &Map<String, Value>) -> Option<MetricServer> {
    let text = |key: &str| {
        properties
            .get(key)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let number = |key: &str| {
        let number = properties.get(key).and_then(Value::as_u64);
        number.and_then(|number| usize::try_from(number).ok())
    };
    if section == UDP.section {
        return Some(MetricServer::Udp {
            host: text("host")?,
            mtu: number("mtu").unwrap_or(1500),
        });
    }
    let verify = properties.get("verify-tls").and_then(Value::as_bool);
    Some(MetricServer::Http {
        url: text("url")?.trim_end_matches('/').to_owned(),
        token: text("token"),
        organization: text("organization").unwrap_or_else(|| "proxmox".to_owned()),
        bucket: text("bucket").unwrap_or_else(|| "proxmox".to_owned()),
        max_body_size: number("max-body-size").unwrap_or(25_000_000),
        verify_tls: verify.unwrap_or(true),
    })
}

/// What is left out because it says nothing.
fn normalise(properties: &mut Map<String, Value>) {
    properties.retain(|key, value| !(key == "enable" && value.as_bool() == Some(true)));
}

/// Tests the connection, unless the server is switched off.
fn test(kind: Kind, properties: &Map<String, Value>) -> Result<(), EditError> {
    let off = properties.get("enable").and_then(Value::as_bool) == Some(false);
    let server = server(kind.section, properties).filter(|_| !off);
    match server.map(|server| server.test()) {
        Some(Err(err)) => Err(EditError::Conflict(format!(
            "unable to reach the metric server - {}; nothing was changed (with enable=0 it is kept untested)",
            crate::http::error::chain(&err)
        ))),
        _ => Ok(()),
    }
}

/// Adds a server, after its connection was tested. Blocking.
///
/// # Errors
/// When there is one of this name, it cannot be reached, or the file cannot be written.
pub fn create(
    config: &ConfigStore,
    kind: Kind,
    name: &str,
    mut properties: Map<String, Value>,
) -> Result<(), EditError> {
    normalise(&mut properties);
    test(kind, &properties)?;
    config.edit_sections(SectionFile::MetricServer, None, |sections| {
        if sections.get(name).is_some() {
            let text = format!("metric server '{name}' already exists.");
            return Err(EditError::parameter("name", text));
        }
        let set = sections.set(kind.section, name, properties);
        set.map_err(EditError::Conflict)
    })
}

/// The properties after a change.
fn changed(
    kind: Kind,
    before: &Map<String, Value>,
    properties: &Map<String, Value>,
    delete: &[String],
) -> Map<String, Value> {
    let mut after = before.clone();
    after.retain(|key, _| !delete.contains(key) || !kind.deletable.contains(&key.as_str()));
    after.extend(properties.clone());
    normalise(&mut after);
    after
}

/// Changes a server, after its connection was tested: first removes what `delete` names, then sets `properties`. Blocking.
///
/// # Errors
/// When there is no such server, it cannot be reached, `digest` is not the file's, or that cannot be written.
pub fn update(
    config: &ConfigStore,
    (kind, name): (Kind, &str),
    (properties, delete): (&Map<String, Value>, &[String]),
    digest: Option<&str>,
) -> Result<(), EditError> {
    let loaded = config.sections(SectionFile::MetricServer)?;
    loaded.check_digest(digest)?;
    let section = loaded.data.get_typed(kind.section, name);
    let before = &section.ok_or_else(|| unknown(name))?.properties;
    test(kind, &changed(kind, before, properties, delete))?;
    config.edit_sections(SectionFile::MetricServer, digest, |sections| {
        let section = sections.get_typed(kind.section, name);
        let before = &section.ok_or_else(|| unknown(name))?.properties;
        let after = changed(kind, before, properties, delete);
        let set = sections.set(kind.section, name, after);
        set.map_err(EditError::Conflict)
    })
}

/// Removes a server.
///
/// # Errors
/// When there is none of this kind and name, `digest` is not the file's, or that cannot be written.
pub fn remove(
    config: &ConfigStore,
    (kind, name): (Kind, &str),
    digest: Option<&str>,
) -> Result<(), EditError> {
    config.edit_sections(SectionFile::MetricServer, digest, |sections| {
        if sections.get_typed(kind.section, name).is_none() {
            return Err(unknown(name));
        }
        sections.remove(name);
        Ok(())
    })
}

/// There is no metric server of this name.
fn unknown(name: &str) -> EditError {
    EditError::NotFound(format!("metric server '{name}' does not exist."))
}
