//! Token secrets that were checked a short while ago, so that the costly password hash is not
//! computed for every request. Holds keyed hashes, never secrets.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use backstop_types::AuthId;
use parking_lot::Mutex;

use crate::config::Stamp;

/// How long a check is trusted.
const LIFETIME: Duration = Duration::from_secs(60);

struct Entry {
    tag: hmac::Tag,
    /// The file that the secret was checked against.
    stamp: Option<Stamp>,
    checked: Instant,
}

/// The cache. It holds one entry per token at most, and only for tokens that exist.
pub(super) struct TokenCache {
    key: hmac::Key,
    entries: Mutex<HashMap<AuthId, Entry>>,
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenCache(…)")
    }
}

impl TokenCache {
    /// An empty cache with a key of its own; `None` when the system gives no random numbers.
    pub(super) fn new() -> Option<Self> {
        let mut key = zeroize::Zeroizing::new([0u8; 32]);
        aws_lc_rs::rand::fill(key.as_mut()).ok()?;
        Some(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()),
            entries: Mutex::new(HashMap::new()),
        })
    }

    /// Whether this secret was checked at most a minute ago against the file that is there now.
    pub(super) fn contains(&self, token: &AuthId, secret: &str, stamp: Option<Stamp>) -> bool {
        self.contains_at(token, secret, stamp, Instant::now())
    }

    fn contains_at(
        &self,
        token: &AuthId,
        secret: &str,
        stamp: Option<Stamp>,
        now: Instant,
    ) -> bool {
        let entries = self.entries.lock();
        entries.get(token).is_some_and(|entry| {
            entry.stamp == stamp
                && now.saturating_duration_since(entry.checked) < LIFETIME
                && hmac::verify(&self.key, secret.as_bytes(), entry.tag.as_ref()).is_ok()
        })
    }

    /// Remembers a secret that was checked against the file with this stamp.
    pub(super) fn insert(&self, token: &AuthId, secret: &str, stamp: Option<Stamp>) {
        let tag = hmac::sign(&self.key, secret.as_bytes());
        let entry = Entry {
            tag,
            stamp,
            checked: Instant::now(),
        };
        self.entries.lock().insert(token.clone(), entry);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn only_the_same_secret_of_the_same_file_within_a_minute_is_known() {
        let cache = TokenCache::new().unwrap();
        let token: AuthId = "a@pbs!t".parse().unwrap();
        let other: AuthId = "a@pbs!u".parse().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = crate::config::ConfigStore::new(dir.path());
        let absent = None;
        std::fs::write(dir.path().join("token.shadow"), "{}").unwrap();
        let stamp = config
            .json_stamp(crate::config::JsonFile::TokenShadow)
            .unwrap();
        cache.insert(&token, "secret", stamp);
        assert!(cache.contains(&token, "secret", stamp));
        assert!(!cache.contains(&token, "secres", stamp));
        assert!(!cache.contains(&other, "secret", stamp));
        assert!(!cache.contains(&token, "secret", absent));
        assert!(!cache.contains_at(&token, "secret", stamp, Instant::now() + LIFETIME));
        assert!(!format!("{cache:?}").contains("secret"));
    }
}
