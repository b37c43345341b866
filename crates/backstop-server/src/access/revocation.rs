//! Tickets that are refused although they are signed and young: those from before a change of their user's password, and of
//! users that were disabled or removed meanwhile, or whose realm was.
//!
//! Tickets carry no state, so what is kept is a time for each user, in a file of our own that a stock server does not read.
//! Entries that no ticket can be older than are dropped.

use backstop_types::UserId;
use serde_json::{Map, Value};

use super::ticket::LOGIN_AGE;
use crate::config::{ConfigError, ConfigStore, JsonFile};

/// How far ahead of the clock tickets may be refused, in seconds. Less than tickets may be ahead of it.
const FAR: i64 = 240;

/// Refuses all tickets of `user` that were issued up to now (seconds since the epoch).
///
/// # Errors
/// When the file cannot be written.
pub(super) fn revoke(config: &ConfigStore, user: &UserId, now: i64) -> Result<(), ConfigError> {
    revoke_all(config, std::slice::from_ref(user), now)
}

/// The same for several users.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn revoke_all(
    config: &ConfigStore,
    users: &[UserId],
    now: i64,
) -> Result<(), ConfigError> {
    if users.is_empty() {
        return Ok(());
    }
    config.edit_json(JsonFile::Revocations, |times| {
        let is_needed = |time: i64| now - time <= LOGIN_AGE.end() - LOGIN_AGE.start();
        times.retain(|_, time| time.as_i64().is_some_and(is_needed));
        for user in users {
            let before = times.get(user.as_str()).and_then(Value::as_i64);
            // What was revoked in this second already has tickets of the next one after it, which are refused, too. That must not
            // go so far that the next ticket is one of a future that is not believed.
            let until = match before {
                Some(before) if before >= now && before < now + FAR => before + 1,
                Some(before) => before.max(now),
                None => now,
            };
            times.insert(user.to_string(), Value::from(until));
        }
    })
}

/// The time up to which tickets of `user` are refused, in what the file holds.
pub(super) fn revoked_until(times: &Map<String, Value>, user: &UserId) -> Option<i64> {
    times.get(user.as_str()).and_then(Value::as_i64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn several_times_in_one_second_each_refuse_what_was_issued_in_between_but_not_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let config = ConfigStore::new(dir.path());
        let user: UserId = "a@pbs".parse().unwrap();
        let until = || revoked_until(&config.json(JsonFile::Revocations).unwrap(), &user).unwrap();
        for expected in 1000..1010 {
            revoke(&config, &user, 1000).unwrap();
            // A ticket is issued right after that.
            assert_eq!(until(), expected);
        }
        for _ in 0..FAR {
            revoke(&config, &user, 1000).unwrap();
        }
        assert_eq!(until(), 1000 + FAR);
        assert!(FAR < -LOGIN_AGE.start());
    }

    #[test]
    fn times_are_kept_as_long_as_a_ticket_can_be_older() {
        let dir = tempfile::tempdir().unwrap();
        let config = ConfigStore::new(dir.path());
        let (first, second): (UserId, UserId) =
            ("a@pbs".parse().unwrap(), "b@pam".parse().unwrap());
        let until = |user| revoked_until(&config.json(JsonFile::Revocations).unwrap(), user);
        assert_eq!(until(&first), None);
        revoke(&config, &first, 1000).unwrap();
        revoke(&config, &second, 8500).unwrap();
        assert_eq!((until(&first), until(&second)), (Some(1000), Some(8500)));
        revoke(&config, &second, 8501).unwrap();
        assert_eq!((until(&first), until(&second)), (None, Some(8501)));
    }
}
