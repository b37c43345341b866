//! Passwords: checking and changing them.

use std::net::IpAddr;

use backstop_types::{AuthId, Privileges, UserId};
use serde_json::Value;

use super::authenticator::Authenticator;
use super::control::AccessControl;
use super::password_hash;
use super::refusal::Refused;
use super::revocation;
use super::throttle::Attempt;
use crate::config::{ConfigStore, EditError, JsonFile, SectionFile};
use crate::privileged_helper::{HelperError, set_password_as_root};

/// Checks that a realm exists.
pub(super) fn check_realm(config: &ConfigStore, user: &UserId) -> Result<(), EditError> {
    authenticator(config, user).map(drop)
}

fn unknown_realm(user: &UserId) -> String {
    format!("unknown realm '{}'", user.realm())
}

fn authenticator(config: &ConfigStore, user: &UserId) -> Result<Authenticator, EditError> {
    Authenticator::of(config, user.realm())?.ok_or_else(|| EditError::Conflict(unknown_realm(user)))
}

/// Checks a user's password. `peer` is the address of the client, where one is known. Blocking.
///
/// # Errors
/// When it is another, or the realm's passwords cannot be checked here.
pub(super) fn check(
    access: &AccessControl,
    user: &UserId,
    password: &str,
    peer: Option<IpAddr>,
) -> Result<(), Refused> {
    let authenticator = Authenticator::of(access.config(), user.realm())?
        .ok_or_else(|| Refused::of(user, unknown_realm(user)))?;
    access.limited(Attempt::Password, peer, user.as_str(), || {
        authenticator.check(access, user, password, peer)
    })
}

/// Checks the password of a user of the realm `pbs`. A hash of an older form is replaced by a new one.
pub(super) fn check_hash(
    config: &ConfigStore,
    user: &UserId,
    password: &str,
) -> Result<(), Refused> {
    let shadow = config.json(JsonFile::Shadow)?;
    let hash = shadow.get(user.name()).and_then(Value::as_str);
    let hash = hash.ok_or_else(|| Refused::of(user, "no password set"))?;
    if !password_hash::verify(password, hash) {
        return Err(Refused::of(user, "invalid credentials"));
    }
    if !password_hash::is_current(hash)
        && let Err(error) = store(config, user, password)
    {
        // The login is good all the same.
        tracing::warn!("unable to renew the password hash of user '{user}': {error}");
    }
    Ok(())
}

/// Sets a user's password.
///
/// # Errors
/// When the realm's passwords cannot be set here, or the file cannot be written.
pub(super) fn store(config: &ConfigStore, user: &UserId, password: &str) -> Result<(), EditError> {
    authenticator(config, user)?.store(config, user, password)
}

/// Sets the password of a user of the realm `pbs`.
pub(super) fn store_hash(
    config: &ConfigStore,
    user: &UserId,
    password: &str,
) -> Result<(), EditError> {
    let hash =
        password_hash::hash(password).map_err(|error| EditError::Conflict(error.to_string()))?;
    config.edit_json(JsonFile::Shadow, |shadow| {
        shadow.insert(user.name().to_string(), Value::String(hash));
    })?;
    Ok(())
}

/// Removes a user's password; users of other realms have none here.
pub(super) fn remove(config: &ConfigStore, user: &UserId) -> Result<(), EditError> {
    if user.realm() == "pbs" && config.json(JsonFile::Shadow)?.contains_key(user.name()) {
        config.edit_json(JsonFile::Shadow, |shadow| {
            shadow.remove(user.name()).is_some()
        })?;
    }
    Ok(())
}

/// Lets a caller prove to be itself by the password of its user, which is not asked of `root@pam`.
///
/// # Errors
/// When the password is missing or wrong.
pub fn confirm(
    access: &AccessControl,
    caller: &AuthId,
    confirmation: Option<&str>,
    peer: Option<IpAddr>,
) -> Result<(), EditError> {
    if caller.user().is_root() {
        return Ok(());
    }
    let confirmation =
        confirmation.ok_or_else(|| EditError::Unauthorized("missing password".to_string()))?;
    check(access, caller.user(), confirmation, peer)
        .map_err(|refused| EditError::Unauthorized(refused.reason))
}

/// Changes the password of `user` on behalf of `caller`, who proves to be itself by its own
/// password `confirmation` (not asked of `root@pam`). `peer` is where the call comes from.
///
/// # Errors
/// When the caller is a token, is not confirmed or not allowed to, or the realm's passwords
/// cannot be set here.
pub fn change(
    access: &AccessControl,
    caller: &AuthId,
    user: &UserId,
    password: &str,
    confirmation: Option<&str>,
    peer: Option<IpAddr>,
) -> Result<(), EditError> {
    if caller.is_token() {
        return Err(EditError::Conflict(
            "API tokens cannot access this API endpoint".to_string(),
        ));
    }
    let config = access.config();
    let (by_helper, is_self) = (user.realm() == "pam", caller.user() == user);
    if !(by_helper && is_self) {
        confirm(access, caller, confirmation, peer)?;
    } else if !caller.is_root() && confirmation.is_none() {
        // The helper checks that of a system user who changes its own.
        return Err(EditError::Unauthorized("missing password".to_string()));
    }
    if !is_self && !user.is_root() {
        let users = config.sections(SectionFile::User)?;
        if users.data.get_typed("user", user.as_str()).is_none() {
            return Err(EditError::Unauthorized(format!(
                "user '{user}' does not exists."
            )));
        }
    }
    // System users' passwords are for themselves and the superuser only.
    let may_change_others = user.realm() != "pam"
        && access
            .check(caller, "/", Privileges::PERMISSIONS_MODIFY, false)
            .is_ok();
    if !is_self && !caller.is_root() && !may_change_others {
        return Err(EditError::Conflict(
            "you are not authorized to change the password.".to_string(),
        ));
    }
    if !by_helper {
        store(config, user, password)?;
        return Ok(access.revoke_tickets(user)?);
    }
    let helper = access
        .helper()
        .map_err(|why| EditError::NotImplemented(why.to_string()))?;
    let change = || {
        let caller = caller.user().name();
        helper
            .change_password(user.name(), password, caller, confirmation, peer)
            .map_err(|error| match error {
                HelperError::Refused(text) if confirmation.is_some() => {
                    EditError::Unauthorized(text)
                }
                error => EditError::Conflict(error.to_string()),
            })
    };
    access.limited(Attempt::Password, peer, caller.user().as_str(), change)?;
    Ok(access.revoke_tickets(user)?)
}

/// Sets a password without any check of a caller, for the command line on the server itself.
///
/// # Errors
/// When the user is not there, or the realm's passwords cannot be set here.
pub fn set(config: &ConfigStore, user: &UserId, password: &str) -> Result<(), EditError> {
    let users = config.sections(SectionFile::User)?;
    if users.data.get_typed("user", user.as_str()).is_none() && !user.is_root() {
        return Err(EditError::Conflict(format!(
            "user '{user}' does not exist."
        )));
    }
    // Whoever runs this may do what root may, or is told so by the system.
    if user.realm() == "pam" {
        set_password_as_root(user.name(), password)
            .map_err(|error| EditError::Conflict(error.to_string()))?;
    } else {
        store(config, user, password)?;
    }
    let now = jiff::Timestamp::now().as_second();
    Ok(revocation::revoke(config, user, now)?)
}
