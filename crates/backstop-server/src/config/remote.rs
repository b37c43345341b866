//! Remotes in the configuration: other servers with the account that is used there.
//!
//! `remote.cfg` keeps the secret in base64. It leaves this module only as [`RemoteAccount`], for a connection, and is never
//! part of what is listed. What stock servers do not know is kept in a file of its own, by `remote_trust`.

use std::sync::Arc;

use backstop_client::ClientOptions;
use backstop_client::connection::proxy::ProxyAddress;
use backstop_format::Fingerprint;
use backstop_types::AuthId;
use backstop_types::config_schema::remote::REMOTE_DELETABLE;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::remote_trust::{self, RemotePins, RemoteTrust, TLS_SERVER_NAME};
use super::{ConfigError, ConfigStore, EditError, SectionFile};

const TYPE: &str = "remote";
/// The port of a remote that names none.
const DEFAULT_PORT: u16 = 8007;

/// How to reach a remote, and as whom.
#[derive(Clone)]
pub struct RemoteAccount {
    /// Its name here.
    pub name: String,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The user or token there.
    pub auth_id: AuthId,
    /// Password of the user or secret of the token.
    pub secret: String,
    /// SHA-256 of the certificate that it has to present, unless an authority vouches for it.
    pub fingerprint: Option<Fingerprint>,
    /// The name under which an authority has to vouch for it, if that is not the host.
    pub tls_server_name: Option<String>,
    /// The HTTP proxy to go through.
    pub proxy: Option<ProxyAddress>,
    /// Keeps the fingerprint when the server changes its certificate.
    pub pins: RemotePins,
}

impl std::fmt::Debug for RemoteAccount {
    /// Leaves out the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteAccount")
            .field("name", &self.name)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("auth_id", &self.auth_id)
            .finish_non_exhaustive()
    }
}

/// A remote's section without its secret, with its name; `None` when there is no such remote.
///
/// # Errors
/// When the configuration cannot be read.
pub fn get(store: &ConfigStore, name: &str) -> Result<Option<Map<String, Value>>, ConfigError> {
    let loaded = store.sections(SectionFile::Remote)?;
    let Some(mut section) = loaded.data.to_api(name).map(without_secret) else {
        return Ok(None);
    };
    remote_trust::get(store, name)?.show(&mut section);
    Ok(Some(section))
}

/// All remotes without their secrets, in file order.
///
/// # Errors
/// When the configuration cannot be read.
pub fn list(store: &ConfigStore) -> Result<Vec<Map<String, Value>>, ConfigError> {
    let loaded = store.sections(SectionFile::Remote)?;
    let known = remote_trust::all(store)?;
    let names = loaded.data.iter().map(|(name, _)| name);
    Ok(names
        .filter_map(|name| {
            let mut section = without_secret(loaded.data.to_api(name)?);
            known(name).show(&mut section);
            Some(section)
        })
        .collect())
}

fn without_secret(mut section: Map<String, Value>) -> Map<String, Value> {
    section.remove("password");
    section
}

/// What is needed to connect to a remote.
///
/// # Errors
/// When there is no such remote, its section makes no sense, or the configuration cannot be read.
pub fn account(store: &Arc<ConfigStore>, name: &str) -> Result<RemoteAccount, EditError> {
    let loaded = store.sections(SectionFile::Remote)?;
    let section = loaded
        .data
        .get_typed(TYPE, name)
        .ok_or_else(|| unknown(name))?;
    let text = |key: &str| section.properties.get(key).and_then(Value::as_str);
    let broken = |key: &str, reason: String| {
        EditError::Conflict(format!(
            "remote '{name}': its {key} makes no sense - {reason}"
        ))
    };
    let secret = STANDARD
        .decode(text("password").unwrap_or_default())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        // what was decoded may be the secret, so that nothing is said of it
        .ok_or_else(|| broken("password", "it is not text in base64".to_owned()))?;
    let auth_id = text("auth-id").unwrap_or_default();
    let auth_id = auth_id
        .parse()
        .map_err(|err: backstop_types::NameError| broken("auth-id", err.to_string()))?;
    let fingerprint = text("fingerprint").map(str::parse::<Fingerprint>);
    let fingerprint = fingerprint
        .transpose()
        .map_err(|err| broken("fingerprint", err.to_string()))?;
    let port = section.properties.get("port").and_then(Value::as_u64);
    let by_proxy = section.properties.get("use-node-proxy");
    let proxy = match by_proxy.and_then(Value::as_bool) {
        Some(true) => node_proxy(store)?,
        _ => None,
    };
    Ok(RemoteAccount {
        name: name.to_owned(),
        host: text("host").unwrap_or_default().to_owned(),
        port: port
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(DEFAULT_PORT),
        auth_id,
        secret,
        fingerprint,
        tls_server_name: remote_trust::get(store, name)?.tls_server_name,
        proxy,
        pins: RemotePins::new(Arc::clone(store), name),
    })
}

/// The HTTP proxy of this host's settings.
///
/// # Errors
/// When they cannot be read, or make no sense.
pub(crate) fn node_proxy(store: &ConfigStore) -> Result<Option<ProxyAddress>, EditError> {
    let node = store.node()?.data;
    let address = node.values.get("http-proxy").and_then(Value::as_str);
    let address = address.map(str::parse::<ProxyAddress>).transpose();
    address.map_err(|err| {
        EditError::Conflict(format!("http-proxy of this host makes no sense - {err}"))
    })
}

impl RemoteAccount {
    /// Options for a connection without anybody to ask.
    pub fn client_options(&self) -> ClientOptions {
        let mut options = ClientOptions::new(self.host.clone(), self.port, self.auth_id.clone());
        options.secret = Some(self.secret.clone());
        options.fingerprint = self.fingerprint;
        options.pins = Some(Arc::new(self.pins.clone()));
        options.server_name = self.tls_server_name.clone();
        options.acceptance = Some(self.acceptance());
        options.proxy = self.proxy.clone();
        options
    }

    /// The command that accepts another certificate of it; only the fingerprint is missing.
    pub fn acceptance(&self) -> String {
        format!(
            "proxmox-backup-manager remote update {} --fingerprint",
            self.name
        )
    }
}

/// The token that may announce the certificate of a remote. Tells nothing of whether there is such a remote.
///
/// # Errors
/// When it cannot be read.
pub fn announcer(store: &ConfigStore, name: &str) -> Result<Option<AuthId>, EditError> {
    Ok(remote_trust::get(store, name)?.announcer)
}

/// Says which token may announce the certificate of a remote; `None` for none.
///
/// # Errors
/// When there is no such remote, `token` is no token, or it cannot be written.
pub fn set_announcer(
    store: &ConfigStore,
    name: &str,
    token: Option<AuthId>,
) -> Result<(), EditError> {
    if let Some(token) = token.as_ref().filter(|token| !token.is_token()) {
        return Err(EditError::Conflict(format!(
            "'{token}' is a user; only an API token can announce certificates"
        )));
    }
    let remotes = store.sections(SectionFile::Remote)?;
    if remotes.data.get_typed(TYPE, name).is_none() {
        return Err(unknown(name));
    }
    let names = remote_trust::names(&remotes.data);
    Ok(remote_trust::edit(store, name, &names, |trust| {
        trust.announcer = token;
    })?)
}

/// Nobody knows a remote of this name.
pub fn unknown(name: &str) -> EditError {
    EditError::Conflict(format!("no such remote '{name}'"))
}

/// Adds a remote. The parameters, with the secret as it is, have passed their schemas already.
///
/// # Errors
/// When the name is taken or the configuration cannot be written.
pub fn create(
    store: &ConfigStore,
    name: &str,
    mut properties: Map<String, Value>,
) -> Result<(), EditError> {
    normalise(&mut properties);
    properties.retain(|_, value| !value.is_null());
    let server_name = properties.remove(TLS_SERVER_NAME);
    store.edit_sections(SectionFile::Remote, None, |config| {
        if config.get(name).is_some() {
            return Err(EditError::parameter(
                "name",
                format!("remote '{name}' already exists."),
            ));
        }
        config
            .set(TYPE, name, properties)
            .map_err(EditError::Conflict)?;
        // Whatever was known of a remote of this name is of another one.
        let trust = RemoteTrust::named(text(server_name));
        let names = remote_trust::names(config);
        Ok(remote_trust::edit(store, name, &names, |known| {
            *known = trust
        })?)
    })
}

fn text(value: Option<Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn pin(properties: &Map<String, Value>) -> Option<Fingerprint> {
    properties.get("fingerprint")?.as_str()?.parse().ok()
}

/// Changes a remote: first removes what `delete` names, then sets `properties`, which have passed their schemas already.
///
/// # Errors
/// When there is no such remote, `digest` is not the file's, or the configuration cannot be written.
pub fn update(
    store: &ConfigStore,
    name: &str,
    (mut properties, delete): (Map<String, Value>, &[String]),
    digest: Option<&str>,
) -> Result<(), EditError> {
    normalise(&mut properties);
    let server_name = text(properties.remove(TLS_SERVER_NAME));
    let forgets_name = delete.iter().any(|key| key == TLS_SERVER_NAME);
    store.edit_sections(SectionFile::Remote, digest, |config| {
        let section = config.get_typed(TYPE, name).ok_or_else(|| unknown(name))?;
        let mut after = section.properties.clone();
        for key in delete
            .iter()
            .filter(|key| REMOTE_DELETABLE.contains(&key.as_str()))
        {
            after.remove(key.as_str());
        }
        for (key, value) in properties {
            match value {
                Value::Null => after.remove(&key),
                value => after.insert(key, value),
            };
        }
        let (before, now) = (pin(&section.properties), pin(&after));
        config.set(TYPE, name, after).map_err(EditError::Conflict)?;
        let change = match (before, now) {
            (Some(before), Some(now)) if before != now => Some((before, now)),
            _ => None,
        };
        if server_name.is_some() || forgets_name || change.is_some() {
            let names = remote_trust::names(config);
            remote_trust::edit(store, name, &names, |trust| {
                if forgets_name {
                    trust.tls_server_name = None;
                }
                trust.tls_server_name = server_name.or(trust.tls_server_name.take());
                if let Some((before, now)) = change {
                    trust.note_change(before, now, "operator");
                }
            })?;
        }
        Ok(())
    })
}

/// Removes a remote that no sync job uses.
///
/// # Errors
/// When a job uses it, there is no such remote, `digest` is not the file's, or the configuration cannot be written.
pub fn remove(store: &ConfigStore, name: &str, digest: Option<&str>) -> Result<(), EditError> {
    store.edit_sections(SectionFile::Remote, digest, |config| {
        if config.get(name).is_none() {
            return Err(EditError::NotFound(format!(
                "remote '{name}' does not exist."
            )));
        }
        // Looked at under the lock of the remotes; a job that is made at the same moment is as if it were made after.
        let jobs = store.sections(SectionFile::Sync)?;
        let text = |properties: &Map<String, Value>, key: &str| {
            properties
                .get(key)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        for (job, section) in jobs.data.iter() {
            if text(&section.properties, "remote").as_deref() == Some(name) {
                let datastore = text(&section.properties, "store").unwrap_or_default();
                return Err(EditError::parameter(
                    "name",
                    format!(
                        "remote '{name}' is used by sync job '{job}' (datastore '{datastore}')"
                    ),
                ));
            }
        }
        config.remove(name);
        let names = remote_trust::names(config);
        Ok(remote_trust::edit(store, name, &names, |_| ())?)
    })
}

/// Brings values into the form in which they are stored; null stands for "remove".
fn normalise(properties: &mut Map<String, Value>) {
    if let Some(Value::String(secret)) = properties.get_mut("password") {
        *secret = STANDARD.encode(secret.as_bytes());
    }
    if let Some(Value::String(comment)) = properties.get("comment") {
        let comment = comment.trim();
        let value = match comment.is_empty() {
            true => Value::Null,
            false => Value::from(comment),
        };
        properties.insert("comment".to_owned(), value);
    }
}
