//! How long somebody stays logged in at most without proving again who it is, however often the ticket is renewed.
//!
//! A setting of our own, in a file that a stock server does not read: it would refuse an unknown key in `node.cfg`.

use backstop_types::UserId;
use serde_json::Value;

use super::refusal::Refused;
use super::revocation;
use crate::config::{ConfigError, ConfigStore, EditError, JsonFile};

/// Days that a session lasts where nothing else is set.
pub const DEFAULT_DAYS: u32 = 30;
/// Most days that can be set.
pub const MAX_DAYS: u32 = 3650;
const KEY: &str = "max-days";
const DAY: i64 = 86400;

/// Days that a session lasts; 0 stands for no limit. While the setting cannot be read the usual limit holds.
#[must_use]
pub fn days(config: &ConfigStore) -> u32 {
    let read = || match config.json_stamp(JsonFile::Sessions)? {
        None => Ok(None),
        Some(_) => config.json(JsonFile::Sessions).map(Some),
    };
    let settings = read().unwrap_or_else(|err: ConfigError| {
        tracing::error!(%err, "sessions last {DEFAULT_DAYS} days at most");
        None
    });
    let days = settings.and_then(|settings| settings.get(KEY).and_then(Value::as_u64));
    days.and_then(|days| u32::try_from(days).ok())
        .unwrap_or(DEFAULT_DAYS)
}

/// Sets the limit; 0 removes it.
///
/// # Errors
/// When it is too large, or cannot be written.
pub fn set(config: &ConfigStore, days: u32) -> Result<(), EditError> {
    if days > MAX_DAYS {
        return Err(EditError::parameter(
            KEY,
            format!("value must have a maximum value of {MAX_DAYS}"),
        ));
    }
    config.edit_json(JsonFile::Sessions, |settings| {
        settings.insert(KEY.to_owned(), days.into());
    })?;
    Ok(())
}

/// Ends all sessions of a user: whoever has a ticket has to log in again.
///
/// # Errors
/// When that cannot be written down.
pub fn end(config: &ConfigStore, user: &UserId) -> Result<(), EditError> {
    Ok(revocation::revoke(
        config,
        user,
        jiff::Timestamp::now().as_second(),
    )?)
}

/// Refuses a session that began at `login` when it has lasted too long at `now` (seconds since the epoch).
pub(super) fn check(
    config: &ConfigStore,
    user: &UserId,
    login: i64,
    now: i64,
) -> Result<(), Refused> {
    // Nothing that young is limited: the usual case, without a look at files.
    if now.saturating_sub(login) < DAY {
        return Ok(());
    }
    let days = days(config);
    if days == 0 || now.saturating_sub(login) <= i64::from(days) * DAY {
        return Ok(());
    }
    Err(Refused::of(
        user,
        format!("invalid ticket - the login was more than {days} days ago, log in again"),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_session_ends_after_the_days_that_are_set_and_never_without_any() {
        let dir = tempfile::tempdir().unwrap();
        let config = ConfigStore::new(dir.path());
        let user: UserId = "a@pbs".parse().unwrap();
        let lasts = |days: i64| check(&config, &user, 1000, 1000 + days * DAY + 1).is_ok();
        assert!(lasts(29) && !lasts(30));
        set(&config, 1).unwrap();
        assert!(lasts(0) && !lasts(1));
        set(&config, 0).unwrap();
        assert!(lasts(3000));
        assert!(set(&config, MAX_DAYS + 1).is_err());
        std::fs::write(dir.path().join("backstop-sessions.json"), "{").unwrap();
        assert!(lasts(29) && !lasts(30));
    }
}
