//! Realms: what the login dialogue lists, and their sections in `domains.cfg`.
//! Format: `docs/formats/configuration.md`.
//!
//! `pam` and `pbs` are there without a section, too: releases before 4.0 cannot read one, so that none is written before
//! somebody changes something about them.

mod draft;
#[cfg(test)]
mod tests;

use backstop_types::config_schema::access::{
    AD_REALM, BUILT_IN_DELETABLE, BUILT_IN_SETTINGS, DIRECTORY_DELETABLE, LDAP_REALM,
    OPENID_DELETABLE, OPENID_REALM,
};
use backstop_types::record::DomainItem;
use backstop_types::schema::Properties;
use backstop_types::section_config::SectionConfig;
use backstop_types::{Realm, UserId};
use serde_json::{Map, Value};

use super::directory::DirectoryKind;
use super::revocation;
use crate::config::jobs::state_error;
use crate::config::{ConfigError, ConfigStore, EditError, JsonFile, Loaded, SectionFile};
use crate::jobs::{JobId, JobKind, JobStates};

pub use draft::Draft;

/// The realms that every server has, with the comments that lists show.
const BUILT_IN: [(&str, &str); 2] = [
    ("pam", "Linux PAM standard authentication"),
    ("pbs", "Proxmox Backup authentication server"),
];

/// A kind of realm in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct RealmKind {
    /// The type of its sections.
    pub section: &'static str,
    /// What can be set.
    pub properties: &'static Properties,
    /// What an update may unset.
    pub deletable: &'static [&'static str],
    /// What is set once and for all.
    pub fixed: &'static [&'static str],
}

/// Realms of LDAP servers.
pub static LDAP: RealmKind = RealmKind {
    section: "ldap",
    properties: &LDAP_REALM,
    deletable: DIRECTORY_DELETABLE,
    fixed: &[],
};

/// Realms of Active Directories.
pub static AD: RealmKind = RealmKind {
    section: "ad",
    properties: &AD_REALM,
    deletable: DIRECTORY_DELETABLE,
    fixed: &[],
};

/// Realms of OpenID providers.
pub static OPENID: RealmKind = RealmKind {
    section: "openid",
    properties: &OPENID_REALM,
    deletable: OPENID_DELETABLE,
    fixed: &["username-claim"],
};

/// The realm `pam`.
pub static PAM: RealmKind = RealmKind {
    section: "pam",
    properties: &BUILT_IN_SETTINGS,
    deletable: BUILT_IN_DELETABLE,
    fixed: &[],
};

/// The realm `pbs`.
pub static PBS: RealmKind = RealmKind {
    section: "pbs",
    properties: &BUILT_IN_SETTINGS,
    deletable: BUILT_IN_DELETABLE,
    fixed: &[],
};

impl RealmKind {
    /// Whether it is a directory.
    #[must_use]
    pub fn directory(&self) -> Option<DirectoryKind> {
        DirectoryKind::of_section(self.section)
    }

    /// The realms of this kind as the API shows them, with the digest of the file.
    ///
    /// # Errors
    /// When the configuration cannot be read.
    pub fn list(
        &self,
        config: &ConfigStore,
    ) -> Result<Loaded<Vec<Map<String, Value>>>, ConfigError> {
        let domains = config.sections(SectionFile::Domains)?;
        let ids = domains.data.of_type(self.section).map(|(id, _)| id);
        Ok(Loaded {
            data: ids.filter_map(|id| domains.data.to_api(id)).collect(),
            digest: domains.digest,
        })
    }

    /// One realm as the API shows it, with the digest of the file.
    ///
    /// # Errors
    /// When there is none of this kind, or the configuration cannot be read.
    pub fn get(
        &self,
        config: &ConfigStore,
        realm: &str,
    ) -> Result<Loaded<Map<String, Value>>, EditError> {
        let domains = config.sections(SectionFile::Domains)?;
        let mut data = self.properties_of(&domains.data, realm)?;
        data.insert("realm".to_owned(), Value::String(realm.to_owned()));
        Ok(Loaded {
            data,
            digest: domains.digest,
        })
    }

    fn properties_of(
        &self,
        domains: &SectionConfig,
        realm: &str,
    ) -> Result<Map<String, Value>, EditError> {
        if let Some(section) = domains.get_typed(self.section, realm) {
            return Ok(section.properties.clone());
        }
        match BUILT_IN
            .iter()
            .find(|(id, _)| *id == realm && *id == self.section)
        {
            Some((id, comment)) if domains.get(realm).is_none() => {
                Ok(built_in(id, comment, !has_default(domains)))
            }
            _ => Err(EditError::Conflict(format!(
                "no such {} '{realm}'",
                self.section
            ))),
        }
    }

    /// Removes a realm with its password and what is known of its last sync, and ends the sessions of its users. The users
    /// themselves stay, and cannot log in any more.
    ///
    /// # Errors
    /// When there is none of this kind, `digest` is not the file's, or files cannot be written.
    pub fn remove(
        &self,
        config: &ConfigStore,
        states: &JobStates,
        realm: &str,
        digest: Option<&str>,
    ) -> Result<(), EditError> {
        config.edit_sections(SectionFile::Domains, digest, |domains| {
            if domains.get_typed(self.section, realm).is_none() || !domains.remove(realm) {
                return Err(EditError::NotFound(format!(
                    "realm '{realm}' does not exist."
                )));
            }
            Ok(())
        })?;
        let users = config.sections(SectionFile::User)?;
        let ids = users.data.of_type("user").map(|(id, _)| id);
        let own: Vec<UserId> = ids
            .filter_map(|id| id.parse().ok())
            .filter(|user: &UserId| user.realm() == realm)
            .collect();
        revocation::revoke_all(config, &own, jiff::Timestamp::now().as_second())?;
        if self.directory().is_none() {
            return Ok(());
        }
        states
            .remove(&JobId::new(JobKind::RealmSync, realm))
            .map_err(state_error)?;
        let _lock = config.lock(SectionFile::Domains)?;
        let domains = config.sections(SectionFile::Domains)?;
        if domains.data.get(realm).is_none()
            && config.json(JsonFile::LdapPasswords)?.contains_key(realm)
        {
            config.edit_json(JsonFile::LdapPasswords, |passwords| {
                passwords.remove(realm);
            })?;
        }
        Ok(())
    }
}

/// What stock servers write for a realm that every server has.
fn built_in(id: &str, comment: &str, is_default: bool) -> Map<String, Value> {
    let mut properties = Map::new();
    properties.insert("type".to_owned(), id.into());
    properties.insert("comment".to_owned(), comment.into());
    if id == "pam" && is_default {
        properties.insert("default".to_owned(), true.into());
    }
    properties
}

fn has_default(domains: &SectionConfig) -> bool {
    let is_default = |value: &Value| value.as_bool() == Some(true);
    domains
        .iter()
        .any(|(_, section)| section.properties.get("default").is_some_and(is_default))
}

/// All realms. `pam` and `pbs` are there without an entry, too; `pam` is proposed when no other
/// realm is.
///
/// # Errors
/// When the configuration cannot be read.
pub fn list(config: &ConfigStore) -> Result<Vec<DomainItem>, ConfigError> {
    let domains = config.sections(SectionFile::Domains)?;
    let mut items = Vec::new();
    for (id, comment) in BUILT_IN {
        if domains.data.get(id).is_none() {
            items.extend(item(id, id, None, Some(comment)));
        }
    }
    for (id, section) in domains.data.iter() {
        let default = section.properties.get("default").and_then(Value::as_bool);
        let comment = section.properties.get("comment").and_then(Value::as_str);
        items.extend(item(id, section.ty, default, comment));
    }
    if !items.iter().any(|item| item.default == Some(true))
        && let Some(pam) = items.iter_mut().find(|item| item.realm.as_str() == "pam")
    {
        pam.default = Some(true);
    }
    Ok(items)
}

fn item(id: &str, kind: &str, default: Option<bool>, comment: Option<&str>) -> Option<DomainItem> {
    Some(DomainItem {
        realm: id.parse::<Realm>().ok()?,
        kind: kind.to_string(),
        default,
        comment: comment.map(str::to_string),
    })
}
