//! Users: listing, adding, changing, removing.

use backstop_types::record::{TokenItem, UserItem};
use backstop_types::section_config::SectionConfig;
use backstop_types::{AuthId, Privileges, UserId};
use serde_json::{Map, Value};

use super::control::AccessControl;
use super::{password, revocation, second_factor, token};
use crate::config::{ConfigError, ConfigStore, EditError, SectionFile};

/// Section type of users.
const TYPE: &str = "user";
/// What an update may unset.
pub const DELETABLE: &[&str] = &["comment", "firstname", "lastname", "email"];

/// All users, `root@pam` included; with `tokens` also their API tokens.
///
/// # Errors
/// When the configuration cannot be read.
pub fn list(config: &ConfigStore, tokens: bool) -> Result<Vec<UserItem>, ConfigError> {
    let users = config.sections(SectionFile::User)?;
    let mut items = Vec::new();
    if users
        .data
        .get_typed(TYPE, UserId::root().as_str())
        .is_none()
    {
        items.push(root());
    }
    for (id, section) in users.data.of_type(TYPE) {
        items.push(to_item(id, &section.properties)?);
    }
    let now = jiff::Timestamp::now().as_second();
    for item in &mut items {
        if tokens {
            item.tokens = token::items_of(&users.data, &item.userid)?;
        }
        let factors = second_factor::of_user(config, &item.userid, now)?;
        item.totp_locked = factors.totp_locked;
        item.tfa_locked_until = factors.locked_until;
    }
    Ok(items)
}

/// The users that `caller` may see: all with the privilege to, otherwise its own.
///
/// # Errors
/// When the configuration cannot be read.
pub fn list_for(
    access: &AccessControl,
    caller: &AuthId,
    tokens: bool,
) -> Result<Vec<UserItem>, ConfigError> {
    let mut items = list(access.config(), tokens)?;
    if access
        .check(caller, "/access/users", Privileges::SYS_AUDIT, false)
        .is_err()
    {
        items.retain(|item| item.userid == *caller.user());
    }
    Ok(items)
}

/// One user.
///
/// # Errors
/// When it is not there, or the configuration cannot be read.
pub fn get(config: &ConfigStore, user: &UserId) -> Result<UserItem, EditError> {
    let users = config.sections(SectionFile::User)?;
    match users.data.get_typed(TYPE, user.as_str()) {
        Some(section) => Ok(to_item(user.as_str(), &section.properties)?),
        None if user.is_root() => Ok(root()),
        None => Err(EditError::Conflict(format!("no such user '{user}'"))),
    }
}

/// The superuser, when the file has no entry for it.
fn root() -> UserItem {
    UserItem {
        userid: UserId::root(),
        comment: Some("Superuser".to_string()),
        enable: None,
        expire: None,
        firstname: None,
        lastname: None,
        email: None,
        tokens: Vec::<TokenItem>::new(),
        totp_locked: false,
        tfa_locked_until: None,
    }
}

fn to_item(id: &str, properties: &Map<String, Value>) -> Result<UserItem, ConfigError> {
    let mut map = properties.clone();
    map.insert("userid".to_string(), Value::String(id.to_string()));
    serde_json::from_value(Value::Object(map))
        .map_err(|error| ConfigError::Invalid(error.to_string()))
}

/// Whether a user is in the file, or is the superuser.
pub(super) fn exists(users: &SectionConfig, user: &UserId) -> bool {
    user.is_root() || users.get_typed(TYPE, user.as_str()).is_some()
}

/// Adds a user. The parameters (`comment`, `enable`, `expire`, `firstname`, `lastname`, `email`)
/// have passed their schemas already.
///
/// # Errors
/// When it exists already, its realm does not, or the password cannot be set there.
pub fn create(
    config: &ConfigStore,
    user: &UserId,
    mut parameters: Map<String, Value>,
    password: Option<&str>,
) -> Result<(), EditError> {
    normalise(&mut parameters);
    parameters.retain(|_, value| !value.is_null());
    config.edit_sections(SectionFile::User, None, |users| {
        if exists(users, user) {
            return Err(EditError::Conflict(format!(
                "user '{user}' already exists."
            )));
        }
        password::check_realm(config, user)?;
        // The password first: a failure must not leave a user without the wanted password.
        // Without one, whatever is left of an earlier user of this name must not let anybody in, or lock out.
        second_factor::remove(config, user)?;
        match password {
            Some(password) => password::store(config, user, password)?,
            None => password::remove(config, user)?,
        }
        users
            .set(TYPE, user.as_str(), parameters)
            .map_err(EditError::Conflict)
    })
}

/// Changes a user: first unsets what `delete` names, then sets `parameters`.
///
/// # Errors
/// When it is not there, or `digest` is not the file's.
pub fn update(
    config: &ConfigStore,
    user: &UserId,
    mut parameters: Map<String, Value>,
    delete: &[String],
    digest: Option<&str>,
) -> Result<(), EditError> {
    normalise(&mut parameters);
    let now = jiff::Timestamp::now().as_second();
    let was_out = config.edit_sections(SectionFile::User, digest, |users| {
        let mut section = match users.get_typed(TYPE, user.as_str()) {
            Some(section) => section.properties.clone(),
            None if user.is_root() => Map::from_iter([(
                "comment".to_string(),
                Value::String("Superuser".to_string()),
            )]),
            None => return Err(EditError::Conflict(format!("no such user '{user}'"))),
        };
        for key in delete
            .iter()
            .filter(|key| DELETABLE.contains(&key.as_str()))
        {
            section.remove(key.as_str());
        }
        let was_out = !may_log_in(&section, now);
        apply(&mut section, parameters);
        let is_out = !may_log_in(&section, now);
        users
            .set(TYPE, user.as_str(), section)
            .map_err(EditError::Conflict)?;
        Ok(was_out || is_out)
    })?;
    // Whoever is let in again logs in again: tickets from before prove nothing any more. Afterwards, so that none is issued in
    // between.
    if was_out {
        revocation::revoke(config, user, now)?;
    }
    Ok(())
}

/// Changes a user on behalf of `caller`: [`update`], except that users who may not change others cannot change either whether and
/// until when they may log in. (A stock server lets them put off the end of their own account.)
///
/// # Errors
/// When the caller may not, or as for [`update`].
pub fn update_for(
    access: &AccessControl,
    caller: &AuthId,
    user: &UserId,
    parameters: Map<String, Value>,
    delete: &[String],
    digest: Option<&str>,
) -> Result<(), EditError> {
    let privileges = Privileges::PERMISSIONS_MODIFY;
    if let Err(denied) = access.check(caller, "/access/users", privileges, false) {
        let now = get(access.config(), user)?;
        let wants = |key: &str| parameters.get(key);
        let enable = wants("enable").and_then(Value::as_bool);
        let expire = wants("expire").and_then(Value::as_i64);
        // Forms send all of their fields back, changed or not.
        if enable.is_some_and(|enable| enable != now.enable.unwrap_or(true))
            || expire.is_some_and(|expire| expire != now.expire.unwrap_or(0))
        {
            return Err(EditError::Forbidden(denied.to_string()));
        }
    }
    update(access.config(), user, parameters, delete, digest)
}

/// Whether a user or token with these properties is enabled and has not expired at `now` (seconds since the epoch).
pub(super) fn may_log_in(properties: &Map<String, Value>, now: i64) -> bool {
    let enabled = properties.get("enable") != Some(&Value::Bool(false));
    let expire = properties.get("expire").and_then(Value::as_i64);
    let expire = expire.unwrap_or(0);
    enabled && (expire == 0 || expire > now)
}

/// Brings values into the form in which they are stored; null stands for "remove".
pub(super) fn normalise(parameters: &mut Map<String, Value>) {
    for (key, value) in parameters.iter_mut() {
        let is_default = match (key.as_str(), &*value) {
            ("enable", Value::Bool(enable)) => *enable,
            ("expire", Value::Number(expire)) => expire.as_i64() == Some(0),
            (_, Value::String(text)) => text.trim().is_empty(),
            _ => false,
        };
        if is_default {
            *value = Value::Null;
        } else if let Value::String(text) = value {
            *text = text.trim().to_string();
        }
    }
}

/// Sets values in a section; null removes.
pub(super) fn apply(section: &mut Map<String, Value>, parameters: Map<String, Value>) {
    for (key, value) in parameters {
        if value.is_null() {
            section.remove(&key);
        } else {
            section.insert(key, value);
        }
    }
}

/// Removes a user with its password, second factors and API tokens, and the access rules of its
/// tokens. Access rules of the user itself are removed, too, so that a later user of the same
/// name does not inherit them.
///
/// What it may do and what it logs in with go first, the user itself last: whatever happens in between, a user without rights
/// is left, which can be removed again, and never rights that wait for the next user of that name.
///
/// # Errors
/// When it is not there, or `digest` is not the file's.
pub fn delete(config: &ConfigStore, user: &UserId, digest: Option<&str>) -> Result<(), EditError> {
    config.edit_sections(SectionFile::User, digest, |users| {
        if users.get_typed(TYPE, user.as_str()).is_none() {
            return Err(EditError::Conflict(format!(
                "user '{user}' does not exist."
            )));
        }
        let tokens = token::items_of(users, user)?;
        let tokens: Vec<AuthId> = tokens.into_iter().map(|token| token.tokenid).collect();
        config.edit_acl(None, |tree| {
            tree.remove_auth_id(&user.clone().into());
            tokens.iter().for_each(|token| tree.remove_auth_id(token));
            Ok::<_, ConfigError>(())
        })?;
        token::remove_secrets(config, &tokens)?;
        password::remove(config, user)?;
        second_factor::remove(config, user)?;
        // A later user of the same name must not be who this one was.
        revocation::revoke(config, user, jiff::Timestamp::now().as_second())?;
        for token in &tokens {
            users.remove(&token.to_string());
        }
        users.remove(user.as_str());
        Ok(())
    })
}
