//! A realm as it is to become: checked against the file, tried out, and only then stored.
//!
//! Trying it out asks a server and takes its time, so that no lock is held meanwhile: what was read must still be there
//! when the draft is stored.

use std::fmt;

use backstop_types::section_config::SectionConfig;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{BUILT_IN, RealmKind};
use crate::access::directory::{self, DirectoryError, DirectorySettings, UserSearch};
use crate::config::{ConfigStore, EditError, JsonFile, SectionFile};

/// A realm that is not stored yet. `Debug` hides what is secret.
pub struct Draft {
    kind: &'static RealmKind,
    realm: String,
    properties: Map<String, Value>,
    password: Password,
    /// The digest of the file that the draft was made from.
    digest: String,
    /// How to try it out, for a directory.
    directory: Option<DirectorySettings>,
}

/// What becomes of the password to bind with.
enum Password {
    Keep,
    Remove,
    Set(Zeroizing<String>),
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("kind", &self.kind.section)
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

impl Draft {
    /// A new realm. The parameters have passed their schemas already; `password` among them is the one to bind with.
    ///
    /// # Errors
    /// When there is such a realm, or the settings contradict each other.
    pub fn new(
        config: &ConfigStore,
        kind: &'static RealmKind,
        realm: &str,
        parameters: Map<String, Value>,
    ) -> Result<Self, EditError> {
        let domains = config.sections(SectionFile::Domains)?;
        if domains.data.get(realm).is_some() || BUILT_IN.iter().any(|(id, _)| *id == realm) {
            return Err(EditError::parameter(
                "realm",
                format!("realm '{realm}' already exists."),
            ));
        }
        let digest = domains.digest.to_string();
        let (properties, password) = split(Map::new(), parameters);
        let password = password.map_or(Password::Remove, Password::Set);
        Self::check(config, kind, realm, (properties, password), digest)
    }

    /// A changed realm: first loses what `delete` names, then gets `parameters`.
    ///
    /// # Errors
    /// When there is no such realm, `digest` is not the file's, or the settings contradict each other.
    pub fn changed(
        config: &ConfigStore,
        kind: &'static RealmKind,
        realm: &str,
        (mut parameters, delete): (Map<String, Value>, &[String]),
        digest: Option<&str>,
    ) -> Result<Self, EditError> {
        let domains = config.sections(SectionFile::Domains)?;
        domains.check_digest(digest)?;
        let mut properties = kind.properties_of(&domains.data, realm)?;
        let deleted = delete
            .iter()
            .filter(|key| kind.deletable.contains(&key.as_str()));
        let mut removes_password = false;
        for key in deleted {
            properties.remove(key);
            removes_password |= key == "password";
        }
        parameters.retain(|key, _| !kind.fixed.contains(&key.as_str()));
        let (properties, password) = split(properties, parameters);
        let password = match password {
            Some(password) => Password::Set(password),
            None if removes_password => Password::Remove,
            None => Password::Keep,
        };
        let digest = domains.digest.to_string();
        Self::check(config, kind, realm, (properties, password), digest)
    }

    fn check(
        config: &ConfigStore,
        kind: &'static RealmKind,
        realm: &str,
        (properties, password): (Map<String, Value>, Password),
        digest: String,
    ) -> Result<Self, EditError> {
        let directory = match kind.directory() {
            Some(directory) => {
                UserSearch::new(directory, &properties).map_err(refused)?;
                let bind_with = match &password {
                    Password::Set(password) => Some(password.clone()),
                    Password::Remove => None,
                    Password::Keep => directory::stored_password(config, realm).map_err(refused)?,
                };
                Some(DirectorySettings::new(directory, &properties, bind_with))
            }
            None => None,
        };
        Ok(Self {
            kind,
            realm: realm.to_owned(),
            properties,
            password,
            digest,
            directory,
        })
    }

    /// Asks the servers of a directory whether they can be used like this; an Active Directory also for its base. Other
    /// realms have nobody to ask.
    ///
    /// # Errors
    /// What does not work.
    pub async fn try_out(&mut self) -> Result<(), EditError> {
        let Some(settings) = &mut self.directory else {
            return Ok(());
        };
        if settings.lacks_base() {
            let base = directory::default_base(settings).await.map_err(refused)?;
            self.properties
                .insert("base-dn".to_owned(), Value::String(base.clone()));
            settings.set_base(base);
        }
        directory::test(settings).await.map_err(refused)
    }

    /// The same, for threads that may block.
    ///
    /// # Errors
    /// What does not work.
    pub fn try_out_blocking(&mut self) -> Result<(), EditError> {
        let mut result = Ok(());
        directory::wait(async {
            result = self.try_out().await;
            Ok(())
        })
        .map_err(refused)?;
        result
    }

    /// Writes it. When it is to be proposed to users, no other realm is any more.
    ///
    /// # Errors
    /// When the file has changed since the draft was made, or cannot be written.
    pub fn store(self, config: &ConfigStore) -> Result<(), EditError> {
        config.edit_sections(SectionFile::Domains, Some(&self.digest), |domains| {
            if self.kind.directory().is_some() {
                store_password(config, &self.realm, self.password)?;
            }
            if self.properties.get("default").and_then(Value::as_bool) == Some(true) {
                clear_default(domains);
            }
            domains
                .set(self.kind.section, &self.realm, self.properties)
                .map_err(EditError::Conflict)
        })
    }
}

/// Puts parameters into properties; `password` goes its own way.
fn split(
    mut properties: Map<String, Value>,
    parameters: Map<String, Value>,
) -> (Map<String, Value>, Option<Zeroizing<String>>) {
    let mut password = None;
    for (key, value) in parameters {
        match (key.as_str(), value) {
            ("password", Value::String(text)) => password = Some(Zeroizing::new(text)),
            ("comment", Value::String(text)) if text.trim().is_empty() => {
                properties.remove(&key);
            }
            ("comment", Value::String(text)) => {
                properties.insert(key, Value::String(text.trim().to_owned()));
            }
            ("default", Value::Bool(false)) => {
                properties.remove(&key);
            }
            (_, value) => {
                properties.insert(key, value);
            }
        }
    }
    (properties, password)
}

fn clear_default(domains: &mut SectionConfig) {
    let ids: Vec<String> = domains.iter().map(|(id, _)| id.to_owned()).collect();
    for id in ids {
        if let Some(section) = domains.get_mut(&id) {
            section.properties.remove("default");
        }
    }
}

/// Under the lock of `domains.cfg`.
fn store_password(config: &ConfigStore, realm: &str, password: Password) -> Result<(), EditError> {
    match password {
        Password::Keep => {}
        Password::Remove => {
            if config.json(JsonFile::LdapPasswords)?.contains_key(realm) {
                config.edit_json(JsonFile::LdapPasswords, |passwords| {
                    passwords.remove(realm);
                })?;
            }
        }
        Password::Set(password) => config.edit_json(JsonFile::LdapPasswords, |passwords| {
            passwords.insert(realm.to_owned(), Value::String(password.to_string()));
        })?,
    }
    Ok(())
}

fn refused(err: DirectoryError) -> EditError {
    EditError::Conflict(crate::http::error::chain(&err))
}
