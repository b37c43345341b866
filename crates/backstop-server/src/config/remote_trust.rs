//! What is known of remotes beside `remote.cfg`, whose sections stock servers refuse when they hold anything unknown:
//! `backstop-remotes.json` (`docs/formats/configuration.md`).
//!
//! What was learned under a pin counts for that pin alone: whoever writes another fingerprint into `remote.cfg`, with whatever
//! program, starts afresh.

use std::sync::Arc;

use backstop_client::connection::pins::{Known, PinChange, PinKeeper};
use backstop_format::Fingerprint;
use backstop_types::AuthId;
use backstop_types::record::{AnnouncedCertificate, CertificateStatus};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ConfigError, ConfigStore, JsonFile, SectionFile};
use crate::audit_log::AuditLog;

/// How many changes of a pin are remembered.
const CHANGES: usize = 16;
/// The setting that is ours.
pub(super) const TLS_SERVER_NAME: &str = "tls-server-name";

/// What is known of one remote.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct RemoteTrust {
    /// The name under which authorities have to vouch for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
    /// What was learned of the server with a pin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pinned: Option<Pinned>,
    /// The token that may announce the certificate of the server, and of this one alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announcer: Option<AuthId>,
    /// When the pin changed, newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    changes: Vec<Change>,
}

/// What the server with this pin has told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Pinned {
    fingerprint: Fingerprint,
    /// The largest number of a link of its chain.
    number: u64,
    /// The certificate that it announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<AnnouncedCertificate>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Change {
    /// In seconds since 1970.
    time: i64,
    from: Fingerprint,
    to: Fingerprint,
    /// `announcement`, `chain` or `operator`.
    proof: String,
}

impl RemoteTrust {
    /// Nothing but the name under which authorities have to vouch for it.
    pub fn named(tls_server_name: Option<String>) -> Self {
        Self {
            tls_server_name,
            ..Self::default()
        }
    }

    fn of(map: &Map<String, Value>, name: &str) -> Self {
        let entry = map.get(name).cloned().unwrap_or_default();
        if entry.is_null() {
            return Self::default();
        }
        serde_json::from_value(entry).unwrap_or_else(|err| {
            tracing::error!(remote = name, %err, "what is known of the remote in backstop-remotes.json makes no sense");
            Self::default()
        })
    }

    fn pinned(&self, pin: &Fingerprint) -> Option<&Pinned> {
        self.pinned
            .as_ref()
            .filter(|pinned| pinned.fingerprint == *pin)
    }

    /// Remembers that the pin has changed, and why: `announcement`, `chain`, or `operator`.
    pub fn note_change(&mut self, from: Fingerprint, to: Fingerprint, proof: &str) {
        self.changes.push(Change {
            time: Timestamp::now().as_second(),
            from,
            to,
            proof: proof.to_owned(),
        });
        let surplus = self.changes.len().saturating_sub(CHANGES);
        self.changes.drain(..surplus);
    }

    /// Adds what is to be shown to a remote with this pin, by the names of the API.
    pub fn show(&self, section: &mut Map<String, Value>) {
        if let Some(name) = &self.tls_server_name {
            section.insert(TLS_SERVER_NAME.to_owned(), name.clone().into());
        }
        if let Some(token) = &self.announcer {
            section.insert("announcer".to_owned(), token.to_string().into());
        }
        let pin = section.get("fingerprint").and_then(Value::as_str);
        let Some(pin) = pin.and_then(|pin| pin.parse::<Fingerprint>().ok()) else {
            return;
        };
        if let Some(next) = self.pinned(&pin).and_then(|pinned| pinned.next.as_ref()) {
            let next_pin = next.fingerprint.to_string();
            section.insert("next-fingerprint".to_owned(), next_pin.into());
            section.insert("next-fingerprint-from".to_owned(), next.switch_at.into());
        }
        if let Some(last) = self.changes.last().filter(|last| last.to == pin) {
            let from = last.from.to_string();
            section.insert("former-fingerprint".to_owned(), from.into());
            section.insert("fingerprint-changed".to_owned(), last.time.into());
            section.insert("fingerprint-proof".to_owned(), last.proof.clone().into());
        }
    }
}

/// What is known of a remote.
///
/// # Errors
/// When it cannot be read.
pub(super) fn get(store: &ConfigStore, name: &str) -> Result<RemoteTrust, ConfigError> {
    Ok(RemoteTrust::of(&store.json(JsonFile::Remotes)?, name))
}

/// What is known of all remotes, for several look-ups.
///
/// # Errors
/// When it cannot be read.
pub(super) fn all(
    store: &ConfigStore,
) -> Result<impl Fn(&str) -> RemoteTrust + use<>, ConfigError> {
    let map = store.json(JsonFile::Remotes)?;
    Ok(move |name: &str| RemoteTrust::of(&map, name))
}

/// Changes what is known of a remote, and forgets what was known of remotes that there are no more: `names` are all.
///
/// # Errors
/// When it cannot be written.
pub(super) fn edit(
    store: &ConfigStore,
    name: &str,
    names: &[String],
    change: impl FnOnce(&mut RemoteTrust),
) -> Result<(), ConfigError> {
    store.edit_json(JsonFile::Remotes, |map| {
        let mut trust = RemoteTrust::of(map, name);
        change(&mut trust);
        map.retain(|known, _| names.contains(known));
        match serde_json::to_value(&trust) {
            Ok(value) if trust != RemoteTrust::default() => map.insert(name.to_owned(), value),
            _ => map.remove(name),
        };
    })
}

/// The keeper of a remote's pin: reads and writes the configuration, and reports each change.
#[derive(Clone)]
pub struct RemotePins {
    store: Arc<ConfigStore>,
    name: String,
    audit: Option<AuditLog>,
    listeners: Vec<Arc<Listener>>,
}

/// Is told of a pin that has changed.
type Listener = dyn Fn(&PinChange) + Send + Sync;

impl RemotePins {
    pub(super) fn new(store: Arc<ConfigStore>, name: &str) -> Self {
        Self {
            store,
            name: name.to_owned(),
            audit: None,
            listeners: Vec::new(),
        }
    }

    /// Also writes changes to the audit log.
    pub(crate) fn audited(&mut self, log: AuditLog) {
        self.audit = Some(log);
    }

    /// Also tells this listener of changes, beside those that are told already.
    pub fn tell(&mut self, listener: impl Fn(&PinChange) + Send + Sync + 'static) {
        self.listeners.push(Arc::new(listener));
    }

    /// Remembers that the server whose pin is `pin` will show the certificate `next`, as its announcer says. Nothing is pinned by
    /// that: the certificate takes the place of the old one when the server shows it and has its key.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn announced(&self, pin: Fingerprint, next: Fingerprint) -> Result<(), ConfigError> {
        let remotes = self.store.sections(SectionFile::Remote)?;
        let names = names(&remotes.data);
        edit(&self.store, &self.name, &names, |trust| {
            let number = trust.pinned(&pin).map_or(0, |pinned| pinned.number);
            trust.pinned = Some(Pinned {
                fingerprint: pin,
                number,
                next: Some(AnnouncedCertificate {
                    fingerprint: next,
                    switch_at: Timestamp::now().as_second(),
                }),
            });
        })
    }

    /// Writes a new pin down, where a stock server sees it, too, unless somebody else has changed it meanwhile.
    fn write(&self, change: &PinChange) -> Result<(), ConfigError> {
        let to = change.to.fingerprint;
        self.store
            .edit_sections(SectionFile::Remote, None, |config| {
                let Some(section) = config.get(&self.name) else {
                    return Ok(());
                };
                let mut properties = section.properties.clone();
                let ty = section.ty;
                let pin = properties.get("fingerprint").and_then(Value::as_str);
                if pin.and_then(|pin| pin.parse().ok()) != Some(change.from) {
                    return Ok(());
                }
                properties.insert("fingerprint".to_owned(), to.to_string().into());
                config
                    .set(ty, &self.name, properties)
                    .map_err(ConfigError::Invalid)?;
                let names = names(config);
                edit(&self.store, &self.name, &names, |trust| {
                    trust.pinned = Some(Pinned {
                        fingerprint: to,
                        number: change.number,
                        next: None,
                    });
                    trust.note_change(change.from, to, change.proof.word());
                })
            })
    }
}

/// The names of all remotes.
pub(super) fn names(config: &backstop_types::section_config::SectionConfig) -> Vec<String> {
    config.iter().map(|(name, _)| name.to_owned()).collect()
}

impl PinKeeper for RemotePins {
    fn known(&self, pin: &Fingerprint) -> Known {
        match get(&self.store, &self.name) {
            Ok(trust) => trust
                .pinned(pin)
                .map_or_else(Known::default, |pinned| Known {
                    announced: pinned.next.as_ref().map(|next| next.fingerprint),
                    number: pinned.number,
                }),
            Err(err) => {
                tracing::error!(remote = self.name, %err, "what is known of the remote cannot be read");
                Known {
                    announced: None,
                    // Without it, nothing that the server shows can be told from what is long gone.
                    number: u64::MAX,
                }
            }
        }
    }

    /// Every change of a pin comes by here: it is written down, reported in the server's log and the audit log, and told to
    /// whoever listens.
    fn changed(&self, change: &PinChange) {
        tracing::warn!(
            remote = self.name,
            from = %change.from,
            to = %change.to.fingerprint,
            proof = change.proof.word(),
            "{change}"
        );
        if let Some(audit) = &self.audit {
            audit.pin(&self.name, change);
        }
        if let Err(err) = self.write(change) {
            tracing::error!(remote = self.name, %err, "the new fingerprint of the remote cannot be written down");
        }
        for listener in &self.listeners {
            listener(change);
        }
    }

    fn told(&self, pin: &Fingerprint, status: &CertificateStatus) {
        let news = Pinned {
            fingerprint: *pin,
            number: status.number,
            next: status.next.clone(),
        };
        let learn = || {
            let known = get(&self.store, &self.name)?;
            let is_news = match known.pinned(pin) {
                Some(pinned) => *pinned != news,
                None => news.number > 0 || news.next.is_some(),
            };
            if !is_news {
                return Ok(());
            }
            let remotes = self.store.sections(SectionFile::Remote)?;
            let names = names(&remotes.data);
            edit(&self.store, &self.name, &names, |trust| {
                let known = trust.pinned(pin).map_or(0, |pinned| pinned.number);
                trust.pinned = Some(Pinned {
                    number: news.number.max(known),
                    ..news
                });
            })
        };
        if let Err(err) = learn() {
            let err: ConfigError = err;
            tracing::error!(remote = self.name, %err, "what the remote announces cannot be written down");
        }
    }
}
