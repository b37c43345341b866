//! API tokens that only add: they read, and create new snapshots in their groups. Whatever access rules say, they never remove,
//! prune, move or overwrite anything, and change no protection, notes or owner. The rule stands here and nowhere else, in two
//! halves: which privileges such a token can hold at most, and which calls it can make at all.
//!
//! The marks lie in a file of our own, which stock servers ignore: `docs/formats/authentication.md`.

use std::sync::Arc;

use backstop_types::{AuthId, Privileges};
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::AccessControl;
use crate::config::{ConfigError, ConfigStore, EditError, JsonFile, SectionFile, Stamp};
use crate::router::{Endpoint, Handler, Method};

/// All that such a token can hold.
const PRIVILEGES: Privileges = Privileges::SYS_AUDIT
    .union(Privileges::DATASTORE_AUDIT)
    .union(Privileges::DATASTORE_READ)
    .union(Privileges::DATASTORE_BACKUP)
    .union(Privileges::REMOTE_AUDIT)
    .union(Privileges::TAPE_AUDIT);
/// The sessions that such a token can have: one that adds, and one that reads.
const SESSIONS: [&str; 2] = ["/backup", "/reader"];
/// The calls that add something else: the log of a backup, which can be stored once.
const ADDING: [&str; 1] = ["/admin/datastore/{store}/upload-backup-log"];

/// What marked tokens are told.
pub const REFUSAL: &str = "this API token is append-only: it can read and create snapshots, but change and remove nothing";

/// Whether such a token may call an endpoint, if its privileges suffice.
pub fn may_call(endpoint: &Endpoint) -> bool {
    match endpoint.method {
        Method::Get => {
            !matches!(endpoint.handler, Handler::Upgrade(_)) || SESSIONS.contains(&endpoint.path)
        }
        Method::Post => ADDING.contains(&endpoint.path),
        Method::Put | Method::Delete => false,
    }
}

/// The marks as they were read last.
#[derive(Debug, Default)]
pub(super) struct Marks {
    read: Mutex<Option<Read>>,
}

#[derive(Debug)]
struct Read {
    stamp: Option<Stamp>,
    marks: Arc<Map<String, Value>>,
}

impl Marks {
    fn get(&self, config: &ConfigStore) -> Result<Arc<Map<String, Value>>, ConfigError> {
        let stamp = config.json_stamp(JsonFile::AppendOnly)?;
        let mut read = self.read.lock();
        if let Some(known) = read.as_ref().filter(|known| known.stamp == stamp) {
            return Ok(Arc::clone(&known.marks));
        }
        // The stamp is older than what is read next: a change in between is seen next time.
        let marks = Arc::new(config.json(JsonFile::AppendOnly)?);
        *read = Some(Read {
            stamp,
            marks: Arc::clone(&marks),
        });
        Ok(marks)
    }
}

impl AccessControl {
    /// Whether this is a token that only adds. While the marks cannot be read, every token is one.
    pub fn is_append_only(&self, auth_id: &AuthId) -> bool {
        auth_id.is_token()
            && self.marks.get(&self.config).map_or_else(
                |error| {
                    tracing::error!("all API tokens are append-only: {error}");
                    true
                },
                |marks| marks.contains_key(&auth_id.to_string()),
            )
    }

    /// What is left of privileges that access rules grant.
    pub(super) fn most(&self, auth_id: &AuthId) -> Privileges {
        if self.is_append_only(auth_id) {
            PRIVILEGES
        } else {
            Privileges::ALL
        }
    }
}

/// The marked tokens.
///
/// # Errors
/// The file cannot be read.
pub fn list(config: &ConfigStore) -> Result<Vec<String>, ConfigError> {
    let marks = config.json(JsonFile::AppendOnly)?;
    Ok(marks.keys().cloned().collect())
}

/// Marks a token.
///
/// # Errors
/// It does not exist, or the file cannot be written.
pub fn mark(config: &ConfigStore, token: &AuthId) -> Result<(), EditError> {
    let users = config.sections(SectionFile::User)?;
    if users.data.get_typed("token", &token.to_string()).is_none() {
        return Err(EditError::Conflict(format!("no such token '{token}'")));
    }
    Ok(config.edit_json(JsonFile::AppendOnly, |marks| {
        marks.insert(token.to_string(), Value::Bool(true));
    })?)
}

/// Takes the mark off a token, if it has one.
///
/// # Errors
/// The file cannot be read or written.
pub fn unmark(config: &ConfigStore, token: &AuthId) -> Result<(), ConfigError> {
    let key = token.to_string();
    if !config.json(JsonFile::AppendOnly)?.contains_key(&key) {
        return Ok(());
    }
    config.edit_json(JsonFile::AppendOnly, |marks| {
        marks.remove(&key);
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// Each call that such a token may make. An endpoint that is new must be thought about before it is added here.
    #[test]
    fn the_calls_of_an_append_only_token_are_reading_and_these() {
        let mut allowed = Vec::new();
        for endpoint in crate::api::endpoints() {
            let is_upgrade = matches!(endpoint.handler, Handler::Upgrade(_));
            let reads = endpoint.method == Method::Get && !is_upgrade;
            assert!(!reads || may_call(&endpoint), "{}", endpoint.path);
            if may_call(&endpoint) && !reads {
                allowed.push((endpoint.method, endpoint.path));
            }
        }
        allowed.sort();
        assert_eq!(
            allowed,
            [
                (Method::Get, "/backup"),
                (Method::Get, "/reader"),
                (Method::Post, "/admin/datastore/{store}/upload-backup-log"),
            ]
        );
    }

    #[test]
    fn no_privilege_that_changes_anything_but_backups_is_left() {
        for (privilege, name) in Privileges::NAMES {
            let harmless =
                name.ends_with(".Audit") || ["Datastore.Read", "Datastore.Backup"].contains(name);
            assert_eq!(PRIVILEGES.contains(*privilege), harmless, "{name}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_makes_all_tokens_append_only_and_no_user() {
        let dir = tempfile::tempdir().unwrap();
        let access = AccessControl::open(Arc::new(ConfigStore::new(dir.path()))).unwrap();
        let token: AuthId = "a@pbs!b".parse().unwrap();
        assert!(!access.is_append_only(&token));
        std::fs::write(dir.path().join("backstop-append-only.json"), "{").unwrap();
        assert!(access.is_append_only(&token));
        assert!(!access.is_append_only(&"a@pbs".parse().unwrap()));
        std::fs::write(
            dir.path().join("backstop-append-only.json"),
            r#"{"a@pbs!c": true}"#,
        )
        .unwrap();
        assert!(!access.is_append_only(&token));
        assert!(access.is_append_only(&"a@pbs!c".parse().unwrap()));
        unmark(access.config(), &"a@pbs!c".parse().unwrap()).unwrap();
        assert!(!access.is_append_only(&"a@pbs!c".parse().unwrap()));
        assert!(mark(access.config(), &token).is_err(), "it does not exist");
    }
}
