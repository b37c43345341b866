//! Tickets kept between runs: JSON `{host: {user: {timestamp, ticket, token}}}`, shared with the stock client.
//!
//! Never keeps a password.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::fingerprint_store::replace_file;

/// How long a cached ticket is used: its lifetime of two hours less a minute of reserve, in seconds.
const USABLE_SECONDS: i64 = 7200 - 60;

/// Largest cache file that is read.
const MAX_CACHE_SIZE: u64 = 4 << 20;

/// A ticket and the token that protects it from cross-site use.
#[derive(Clone, PartialEq, Eq)]
pub struct CachedTicket {
    /// The ticket itself.
    pub ticket: String,
    /// The CSRF prevention token.
    pub token: String,
}

/// The ticket file, usually `$XDG_RUNTIME_DIR/proxmox-backup/tickets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketCache {
    path: PathBuf,
}

impl TicketCache {
    /// A cache at the given path; neither file nor directory needs to exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A ticket that is still usable. A missing or damaged file counts as empty.
    pub fn load(&self, host: &str, user: &str) -> Option<CachedTicket> {
        let cache = self.read();
        let entry = cache.get(host)?.get(user)?;
        if !is_fresh(entry, now()) {
            return None;
        }
        Some(CachedTicket {
            ticket: entry.get("ticket")?.as_str()?.to_owned(),
            token: entry.get("token")?.as_str()?.to_owned(),
        })
    }

    /// Keeps a new ticket and drops expired ones.
    ///
    /// # Errors
    /// Fails if the file cannot be replaced.
    pub fn store(&self, host: &str, user: &str, ticket: &CachedTicket) -> io::Result<()> {
        let now = now();
        let mut cache = self.read();
        drop_expired(&mut cache, now);
        let entry = json!({"timestamp": now, "ticket": ticket.ticket, "token": ticket.token});
        if let Value::Object(users) = cache
            .entry(host.to_owned())
            .or_insert_with(|| Value::Object(Map::new()))
        {
            users.insert(user.to_owned(), entry);
        }
        self.write(&cache)
    }

    /// Forgets the ticket of a user; tells whether there was one.
    ///
    /// # Errors
    /// Fails if the file cannot be replaced.
    pub fn remove(&self, host: &str, user: &str) -> io::Result<bool> {
        let mut cache = self.read();
        let Some(Value::Object(users)) = cache.get_mut(host) else {
            return Ok(false);
        };
        if users.remove(user).is_none() {
            return Ok(false);
        }
        if users.is_empty() {
            cache.remove(host);
        }
        self.write(&cache)?;
        Ok(true)
    }

    fn read(&self) -> Map<String, Value> {
        let too_large = std::fs::metadata(&self.path).is_ok_and(|meta| meta.len() > MAX_CACHE_SIZE);
        if too_large {
            return Map::new();
        }
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let mut cache: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
        cache.retain(|_, users| users.is_object());
        cache
    }

    fn write(&self, cache: &Map<String, Value>) -> io::Result<()> {
        replace_file(&self.path, serde_json::to_string(cache)?.as_bytes(), 0o600)
    }
}

fn is_fresh(entry: &Value, now: i64) -> bool {
    entry
        .get("timestamp")
        .and_then(Value::as_i64)
        .is_some_and(|timestamp| {
            let age = now.saturating_sub(timestamp);
            (0..USABLE_SECONDS).contains(&age)
        })
}

fn drop_expired(cache: &mut Map<String, Value>, now: i64) {
    for users in cache.values_mut() {
        if let Value::Object(users) = users {
            users.retain(|_, entry| is_fresh(entry, now));
        }
    }
    cache.retain(|_, users| users.as_object().is_some_and(|users| !users.is_empty()));
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|elapsed| i64::try_from(elapsed.as_secs()).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn ticket(text: &str) -> CachedTicket {
        CachedTicket {
            ticket: text.to_owned(),
            token: "csrf".to_owned(),
        }
    }

    #[test]
    fn a_stored_ticket_is_found_by_host_and_user_only_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let cache = TicketCache::new(dir.path().join("proxmox-backup/tickets"));
        cache.store("h", "u@pbs", &ticket("t")).unwrap();
        assert!(cache.load("h", "u@pbs") == Some(ticket("t")));
        assert!(cache.load("h", "v@pbs").is_none());
        assert!(cache.load("g", "u@pbs").is_none());
        let mode = std::fs::metadata(cache.path())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(cache.remove("h", "u@pbs").unwrap());
        assert!(!cache.remove("h", "u@pbs").unwrap());
        assert!(cache.load("h", "u@pbs").is_none());
    }

    #[test]
    fn an_expired_or_future_ticket_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tickets");
        for timestamp in [now() - 7141, now() + 3600, 0] {
            let entry =
                json!({"h": {"u@pbs": {"timestamp": timestamp, "ticket": "t", "token": "c"}}});
            std::fs::write(&path, entry.to_string()).unwrap();
            assert!(
                TicketCache::new(&path).load("h", "u@pbs").is_none(),
                "{timestamp}"
            );
        }
    }

    #[test]
    fn a_damaged_cache_counts_as_empty_and_can_be_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tickets");
        std::fs::write(&path, "{\"h\": 3, ").unwrap();
        let cache = TicketCache::new(&path);
        assert!(cache.load("h", "u@pbs").is_none());
        cache.store("h", "u@pbs", &ticket("t")).unwrap();
        assert!(cache.load("h", "u@pbs").is_some());
    }
}
