//! The first administrator of a new server.

use std::fmt;

use backstop_types::section_config::SectionConfig;
use backstop_types::{Role, UserId};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{key, password};
use crate::config::{ConfigError, ConfigStore, EditError, FileClass, SectionFile};

/// The file that holds the first administrator's password until somebody removes it.
pub const INITIAL_PASSWORD_FILE: &str = "initial-password";
/// Letters and digits that are not mistaken for each other, and one sign that no command line takes for an option.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789_";
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

/// Makes the user `admin@pbs` with all privileges and a random password, when no user is configured at all, or on the first start
/// when none of those who are has all privileges. Otherwise changes nothing, and never a user that exists.
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
        let exist = users.of_type("user").next().is_some();
        // The key for tickets is made right after this, once.
        let is_first_start = !config.path(key::PRIVATE_FILE).exists();
        if exist
            && (!is_first_start
                || users.get_typed("user", user.as_str()).is_some()
                || has_administrator(config, users)?)
        {
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

/// Whether a user that is not disabled has all privileges.
fn has_administrator(config: &ConfigStore, users: &SectionConfig) -> Result<bool, ConfigError> {
    let acl = config.acl()?;
    Ok(users.of_type("user").any(|(id, section)| {
        let enabled = section.properties.get("enable").and_then(Value::as_bool);
        let id: Option<UserId> = id.parse().ok();
        enabled != Some(false)
            && id.is_some_and(|id| {
                let granted = acl.data.permissions(&id.into(), "/").privileges;
                granted.contains(Role::Admin.privileges())
            })
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// Whether an administrator is made in an installation with these files.
    fn made(files: &[(&str, &str)]) -> bool {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let config = ConfigStore::new(dir.path());
        let made = create_administrator(&config).unwrap().is_some();
        let users = std::fs::read_to_string(dir.path().join("user.cfg")).unwrap_or_default();
        let listed = files
            .iter()
            .any(|(_, content)| content.contains("user: admin@pbs"));
        assert_eq!(users.contains("user: admin@pbs"), made || listed);
        for (name, content) in files.iter().filter(|(name, _)| *name == "user.cfg") {
            assert!(users.starts_with(content.trim_end()), "{name}: {users}");
        }
        made
    }

    const BOB: (&str, &str) = ("user.cfg", "user: bob@pbs\n\tcomment made before\n");

    #[test]
    fn users_made_before_the_first_start_do_not_keep_the_administrator_away() {
        assert!(made(&[BOB]));
        assert!(made(&[
            BOB,
            ("acl.cfg", "acl:1:/datastore:bob@pbs:Admin\n")
        ]));
        let disabled = ("user.cfg", "user: bob@pbs\n\tenable false\n");
        assert!(made(&[disabled, ("acl.cfg", "acl:1:/:bob@pbs:Admin\n")]));
    }

    #[test]
    fn where_there_is_an_administrator_or_was_a_start_none_is_made() {
        assert!(!made(&[BOB, ("acl.cfg", "acl:1:/:bob@pbs:Admin\n")]));
        assert!(!made(&[BOB, ("authkey.key", "a key\n")]));
        assert!(!made(&[("user.cfg", "user: admin@pbs\n")]));
        assert!(!made(&[("user.cfg", "user: root@pam\n")]));
    }
}
