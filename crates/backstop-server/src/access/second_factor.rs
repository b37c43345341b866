//! Whether a user has second factors (`tfa.json`).

use backstop_types::UserId;
use serde_json::Value;

use crate::config::{ConfigError, ConfigStore, JsonFile};

/// Second factors of a user, as far as lists and logins ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SecondFactors {
    /// Whether a login asks for one.
    pub(super) required: bool,
    /// Whether one-time passwords are locked.
    pub(super) totp_locked: bool,
    /// Until when all are locked, seconds since the epoch.
    pub(super) locked_until: Option<i64>,
}

/// The second factors of a user.
///
/// # Errors
/// When the file cannot be read; then no login may go on without them.
pub(super) fn of_user(config: &ConfigStore, user: &UserId) -> Result<SecondFactors, ConfigError> {
    let tfa = config.json(JsonFile::Tfa)?;
    let Some(entry) = tfa.get("users").and_then(|users| users.get(user.as_str())) else {
        return Ok(SecondFactors::default());
    };
    let is_enabled = |factor: &Value| factor.pointer("/info/enable") != Some(&Value::Bool(false));
    let listed = ["totp", "u2f", "webauthn", "yubico"].iter().any(|kind| {
        entry
            .get(kind)
            .and_then(Value::as_array)
            .is_some_and(|all| all.iter().any(is_enabled))
    });
    let recovery = entry
        .pointer("/recovery/entries")
        .and_then(Value::as_array)
        .is_some_and(|codes| codes.iter().any(|code| !code.is_null()));
    Ok(SecondFactors {
        required: listed || recovery,
        totp_locked: entry.get("totp-locked") == Some(&Value::Bool(true)),
        locked_until: entry.get("tfa-locked-until").and_then(Value::as_i64),
    })
}

/// Removes the second factors of a user.
pub(super) fn remove(config: &ConfigStore, user: &UserId) -> Result<(), ConfigError> {
    let tfa = config.json(JsonFile::Tfa)?;
    if tfa
        .get("users")
        .and_then(|users| users.get(user.as_str()))
        .is_none()
    {
        return Ok(());
    }
    config.edit_json(JsonFile::Tfa, |tfa| {
        if let Some(users) = tfa.get_mut("users").and_then(Value::as_object_mut) {
            users.remove(user.as_str());
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn factors_are_found_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let config = ConfigStore::new(dir.path());
        let user: UserId = "a@pbs".parse().unwrap();
        let required = || of_user(&config, &user).unwrap().required;
        assert!(!required());
        for (text, expected) in [
            (
                r#"{"users":{"b@pbs":{"totp":[{"info":{"id":"x"},"entry":"y"}]}}}"#,
                false,
            ),
            (
                r#"{"users":{"a@pbs":{"totp":[],"u2f":[],"webauthn":[],"yubico":[]}}}"#,
                false,
            ),
            (
                r#"{"users":{"a@pbs":{"totp":[{"info":{"id":"x","enable":false},"entry":"y"}]}}}"#,
                false,
            ),
            (
                r#"{"users":{"a@pbs":{"totp":[{"info":{"id":"x"},"entry":"y"}]}}}"#,
                true,
            ),
            (
                r#"{"users":{"a@pbs":{"recovery":{"secret":"s","entries":[null,null],"created":1}}}}"#,
                false,
            ),
            (
                r#"{"users":{"a@pbs":{"recovery":{"secret":"s","entries":[null,"x"],"created":1}}}}"#,
                true,
            ),
        ] {
            std::fs::write(dir.path().join("tfa.json"), text).unwrap();
            assert_eq!(required(), expected, "{text}");
        }
        remove(&config, &user).unwrap();
        assert!(!required());
        std::fs::write(dir.path().join("tfa.json"), "broken").unwrap();
        assert!(of_user(&config, &user).is_err());
    }
}
