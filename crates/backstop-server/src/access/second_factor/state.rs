//! Reading and changing what `tfa.json` holds for a user.

use backstop_types::UserId;
use backstop_types::second_factor::UserFactors;
use serde_json::{Map, Value};

use super::failures;
use crate::config::{ConfigError, ConfigStore, EditError, JsonFile};

/// What lists of users show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::access) struct LockState {
    /// Whether one-time passwords are locked.
    pub(in crate::access) totp_locked: bool,
    /// Until when all factors are locked, seconds since the epoch.
    pub(in crate::access) locked_until: Option<i64>,
}

/// Whether the second factors of a user are locked at `now` (seconds since the epoch).
///
/// # Errors
/// When the file cannot be read.
pub(in crate::access) fn of_user(
    config: &ConfigStore,
    user: &UserId,
    now: i64,
) -> Result<LockState, ConfigError> {
    let file = config.json(JsonFile::Tfa)?;
    Ok(
        find(&file, user)?.map_or_else(LockState::default, |factors| LockState {
            totp_locked: factors.totp_locked,
            locked_until: factors.tfa_locked_until.filter(|until| *until > now),
        }),
    )
}

/// Removes the second factors of a user and its failures.
pub(in crate::access) fn remove(config: &ConfigStore, user: &UserId) -> Result<(), ConfigError> {
    if find_raw(&config.json(JsonFile::Tfa)?, user).is_some() {
        config.edit_json(JsonFile::Tfa, |file| {
            if let Some(users) = users_mut(file) {
                users.remove(user.as_str());
            }
        })?;
    }
    failures::remove(config, user)
}

fn find_raw<'a>(file: &'a Map<String, Value>, user: &UserId) -> Option<&'a Value> {
    file.get("users").and_then(|users| users.get(user.as_str()))
}

fn users_mut(file: &mut Map<String, Value>) -> Option<&mut Map<String, Value>> {
    file.entry("users")
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()
}

fn unknown_form(user: &UserId, reason: impl std::fmt::Display) -> ConfigError {
    ConfigError::Invalid(format!(
        "second factors of user '{user}' cannot be used: {reason}; an administrator has to correct the file"
    ))
}

/// The factors of a user; `None` when the file has no entry.
///
/// # Errors
/// When the entry is not of a known form. Then the user must not get in.
pub(super) fn find(
    file: &Map<String, Value>,
    user: &UserId,
) -> Result<Option<UserFactors>, ConfigError> {
    if file.get("users").is_some_and(|users| !users.is_object()) {
        return Err(unknown_form(user, "'users' in tfa.json is not an object"));
    }
    find_raw(file, user)
        .map(UserFactors::from_json)
        .transpose()
        .map_err(|error| unknown_form(user, error))
}

/// Puts the factors of a user into the file; an entry without any factor goes.
pub(super) fn put(
    file: &mut Map<String, Value>,
    user: &UserId,
    factors: &UserFactors,
) -> Result<(), ConfigError> {
    let users = users_mut(file)
        .ok_or_else(|| unknown_form(user, "'users' in tfa.json is not an object"))?;
    if factors.is_empty() {
        users.remove(user.as_str());
    } else {
        let entry = factors
            .to_json()
            .map_err(|error| unknown_form(user, error))?;
        users.insert(user.to_string(), entry);
    }
    Ok(())
}

/// Changes the factors of a user under the lock of the file. What `edit` leaves is on the disk afterwards, unless it fails.
///
/// # Errors
/// When the file cannot be locked, read or written, and what `edit` reports.
pub(super) fn change<T>(
    config: &ConfigStore,
    user: &UserId,
    edit: impl FnOnce(&mut UserFactors) -> Result<T, EditError>,
) -> Result<T, EditError> {
    config.edit_json(JsonFile::Tfa, |file| {
        let mut factors = find(file, user)?.unwrap_or_default();
        let before = factors.clone();
        let result = edit(&mut factors)?;
        if factors != before {
            put(file, user, &factors)?;
        }
        Ok(result)
    })?
}
