//! API tokens: listing, making, changing, removing.

use backstop_types::record::{NewToken, RegeneratedToken, TokenItem, UserTokenItem};
use backstop_types::section_config::SectionConfig;
use backstop_types::{AuthId, TokenName, UserId};
use serde_json::{Map, Value};

use super::{append_only, password_hash, user};
use crate::config::{ConfigError, ConfigStore, EditError, JsonFile, SectionFile};

/// Section type of tokens.
const TYPE: &str = "token";
/// What an update may unset.
pub const DELETABLE: &[&str] = &["comment"];

/// The tokens of a user in file order.
pub(super) fn items_of(
    users: &SectionConfig,
    user: &UserId,
) -> Result<Vec<TokenItem>, ConfigError> {
    let mut items = Vec::new();
    for (id, section) in users.of_type(TYPE) {
        let Ok(auth_id) = id.parse::<AuthId>() else {
            continue;
        };
        if auth_id.user() == user && auth_id.is_token() {
            items.push(to_item(&auth_id, &section.properties)?);
        }
    }
    Ok(items)
}

fn to_item(token: &AuthId, properties: &Map<String, Value>) -> Result<TokenItem, ConfigError> {
    let mut map = properties.clone();
    map.insert("tokenid".to_string(), Value::String(token.to_string()));
    serde_json::from_value(Value::Object(map))
        .map_err(|error| ConfigError::Invalid(error.to_string()))
}

/// The tokens of a user with their names.
///
/// # Errors
/// When the configuration cannot be read.
pub fn list(config: &ConfigStore, user: &UserId) -> Result<Vec<UserTokenItem>, ConfigError> {
    let users = config.sections(SectionFile::User)?;
    let items = items_of(&users.data, user)?;
    Ok(items
        .into_iter()
        .filter_map(|token| {
            let token_name = token.tokenid.token_name()?.clone();
            Some(UserTokenItem { token_name, token })
        })
        .collect())
}

/// One token.
///
/// # Errors
/// When it is not there, or the configuration cannot be read.
pub fn get(config: &ConfigStore, user: &UserId, name: &TokenName) -> Result<TokenItem, EditError> {
    let token = token_id(user, name)?;
    let users = config.sections(SectionFile::User)?;
    match users.data.get_typed(TYPE, &token.to_string()) {
        Some(section) => Ok(to_item(&token, &section.properties)?),
        None => Err(EditError::Conflict(format!("no such token '{token}'"))),
    }
}

fn token_id(user: &UserId, name: &TokenName) -> Result<AuthId, EditError> {
    user.token(name)
        .map_err(|error| EditError::parameter("token-name", error.reason))
}

fn set_secret(config: &ConfigStore, token: &AuthId) -> Result<String, EditError> {
    let secret = uuid::Uuid::new_v4().to_string();
    let hash =
        password_hash::hash(&secret).map_err(|error| EditError::Conflict(error.to_string()))?;
    config.edit_json(JsonFile::TokenShadow, |shadow| {
        shadow.insert(token.to_string(), Value::String(hash));
    })?;
    Ok(secret)
}

/// Removes the secrets of tokens.
pub(super) fn remove_secrets(config: &ConfigStore, tokens: &[AuthId]) -> Result<(), ConfigError> {
    if tokens.is_empty() {
        return Ok(());
    }
    config.edit_json(JsonFile::TokenShadow, |shadow| {
        for token in tokens {
            shadow.remove(&token.to_string());
        }
    })
}

/// Makes a token. The parameters (`comment`, `enable`, `expire`) have passed their schemas
/// already. The secret in the reply is told this once.
///
/// # Errors
/// When the user is not there or the token is, or `digest` is not the file's.
pub fn generate(
    config: &ConfigStore,
    user: &UserId,
    name: &TokenName,
    mut parameters: Map<String, Value>,
    digest: Option<&str>,
) -> Result<NewToken, EditError> {
    let token = token_id(user, name)?;
    user::normalise(&mut parameters);
    parameters.retain(|_, value| !value.is_null());
    config.edit_sections(SectionFile::User, digest, |users| {
        if !user::exists(users, user) {
            return Err(EditError::Conflict(format!("no such user '{user}'")));
        }
        if users.get(&token.to_string()).is_some() {
            return Err(EditError::Conflict(format!(
                "token '{name}' for user '{user}' already exists."
            )));
        }
        users
            .set(TYPE, &token.to_string(), parameters)
            .map_err(EditError::Conflict)?;
        // one of that name may have been removed by another program
        append_only::unmark(config, &token)?;
        let value = set_secret(config, &token)?;
        Ok(NewToken {
            tokenid: token.clone(),
            value,
        })
    })
}

/// Changes a token: first unsets what `delete` names, then sets `parameters`. With `regenerate`
/// the token gets a new secret, which the reply tells this once.
///
/// # Errors
/// When the token is not there, or `digest` is not the file's.
pub fn update(
    config: &ConfigStore,
    user: &UserId,
    name: &TokenName,
    mut parameters: Map<String, Value>,
    delete: &[String],
    regenerate: bool,
    digest: Option<&str>,
) -> Result<Option<RegeneratedToken>, EditError> {
    let token = token_id(user, name)?;
    user::normalise(&mut parameters);
    config.edit_sections(SectionFile::User, digest, |users| {
        let mut section = users
            .get_typed(TYPE, &token.to_string())
            .ok_or_else(|| EditError::Conflict(format!("no such token '{token}'")))?
            .properties
            .clone();
        for key in delete
            .iter()
            .filter(|key| DELETABLE.contains(&key.as_str()))
        {
            section.remove(key.as_str());
        }
        user::apply(&mut section, parameters);
        users
            .set(TYPE, &token.to_string(), section)
            .map_err(EditError::Conflict)?;
        if regenerate {
            let secret = set_secret(config, &token)?;
            return Ok(Some(RegeneratedToken { secret }));
        }
        Ok(None)
    })
}

/// Removes a token with its secret and access rules.
///
/// # Errors
/// When it is not there, or `digest` is not the file's.
pub fn delete(
    config: &ConfigStore,
    user: &UserId,
    name: &TokenName,
    digest: Option<&str>,
) -> Result<(), EditError> {
    let token = token_id(user, name)?;
    // The token itself goes last: what an interruption leaves can be removed again.
    config.edit_sections(SectionFile::User, digest, |users| {
        let id = token.to_string();
        if users.get_typed(TYPE, &id).is_none() {
            return Err(EditError::Conflict(format!(
                "token '{name}' of user '{user}' does not exist."
            )));
        }
        config.edit_acl(None, |tree| {
            tree.remove_auth_id(&token);
            Ok::<_, ConfigError>(())
        })?;
        remove_secrets(config, std::slice::from_ref(&token))?;
        users.remove(&id);
        Ok(())
    })
}
