//! The first administrator of a new server.

use std::fmt;

use backstop_types::{Role, UserId};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::password;
use crate::config::{ConfigError, ConfigStore, EditError, FileClass, SectionFile};

/// The file that holds the first administrator's password until somebody removes it.
pub const INITIAL_PASSWORD_FILE: &str = "initial-password";
/// Letters and digits that are not mistaken for each other.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789-";
/// 20 characters of 5 bits each.
const LENGTH: usize = 20;

/// The administrator that was made. Its `Debug` form hides the password.
pub struct Administrator {
    /// Who it is.
    pub user: UserId,
    /// Its password, to be told once.
    pub password: Zeroizing<String>,
    /// Where the password was written.
    pub password_file: std::path::PathBuf,
}

impl fmt::Debug for Administrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Administrator")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Makes the user `admin@pbs` with all privileges and a random password, when no user is
/// configured at all; otherwise changes nothing.
///
/// # Errors
/// When the configuration cannot be read or written.
pub fn create_administrator(config: &ConfigStore) -> Result<Option<Administrator>, EditError> {
    let user: UserId = match "admin@pbs".parse() {
        Ok(user) => user,
        Err(_) => return Ok(None),
    };
    let password = random_password().ok_or_else(|| {
        EditError::Conflict(
            "unable to make a password - the system gives no random numbers".to_string(),
        )
    })?;
    let made = config.edit_sections(SectionFile::User, None, |users| {
        if users.of_type("user").next().is_some() {
            return Ok(false);
        }
        // Whatever fails below leaves the server without users, so that the next start does it
        // again.
        password::store(config, &user, &password)?;
        config.write_key(
            INITIAL_PASSWORD_FILE,
            &format!("{}\n", *password),
            FileClass::Secret,
        )?;
        config.edit_acl(None, |tree| {
            tree.insert("/", &user.clone().into(), Role::Admin, true);
            Ok::<_, ConfigError>(())
        })?;
        let comment = json!({"comment": "Administrator, made on the first start"});
        let section: Map<String, Value> = comment.as_object().cloned().unwrap_or_default();
        users
            .set("user", user.as_str(), section)
            .map_err(EditError::Conflict)?;
        Ok::<_, EditError>(true)
    })?;
    let password_file = config.path(INITIAL_PASSWORD_FILE);
    Ok(made.then_some(Administrator {
        user,
        password,
        password_file,
    }))
}

fn random_password() -> Option<Zeroizing<String>> {
    let mut random = Zeroizing::new([0u8; LENGTH]);
    aws_lc_rs::rand::fill(random.as_mut()).ok()?;
    let text = random
        .iter()
        .filter_map(|byte| ALPHABET.get(usize::from(byte & 31)))
        .map(|byte| char::from(*byte))
        .collect();
    Some(Zeroizing::new(text))
}
