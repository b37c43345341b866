//! How to reach the directory of a realm, from its section in `domains.cfg`.

use std::fmt;
use std::path::PathBuf;

use backstop_types::section_config::Section;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::DirectoryError;
use crate::config::{ConfigStore, JsonFile, SectionFile};

/// What kind of directory it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryKind {
    /// Any LDAP server.
    Ldap,
    /// Active Directory, which has a fixed attribute for names and says itself where its users are.
    Ad,
}

impl DirectoryKind {
    /// The kind of a section type.
    #[must_use]
    pub fn of_section(ty: &str) -> Option<Self> {
        match ty {
            "ldap" => Some(Self::Ldap),
            "ad" => Some(Self::Ad),
            _ => None,
        }
    }

    /// The section type.
    #[must_use]
    pub const fn section(self) -> &'static str {
        match self {
            Self::Ldap => "ldap",
            Self::Ad => "ad",
        }
    }
}

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Plain,
    StartTls,
    Tls,
}

/// How to reach and search a directory. `Debug` hides the password.
#[derive(Clone)]
pub struct DirectorySettings {
    /// Tried in this order.
    pub(super) servers: Vec<String>,
    pub(super) port: u16,
    pub(super) mode: Mode,
    pub(super) verify: bool,
    pub(super) capath: Option<PathBuf>,
    /// `None`: asked of the server.
    pub(super) base: Option<String>,
    /// The attribute that holds the name of a user.
    pub(super) user_attr: String,
    pub(super) bind_dn: Option<String>,
    pub(super) password: Option<Zeroizing<String>>,
}

impl fmt::Debug for DirectorySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectorySettings")
            .field("servers", &self.servers)
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl DirectorySettings {
    /// The settings in a section of `domains.cfg`, with the password to bind with.
    #[must_use]
    pub fn new(
        kind: DirectoryKind,
        properties: &Map<String, Value>,
        password: Option<Zeroizing<String>>,
    ) -> Self {
        let text = |key: &str| {
            let value = properties.get(key).and_then(Value::as_str);
            value.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let mode = match text("mode").as_deref() {
            Some("ldaps") => Mode::Tls,
            Some("ldap+starttls") => Mode::StartTls,
            _ => Mode::Plain,
        };
        let port = properties.get("port").and_then(Value::as_u64);
        let standard_port = if mode == Mode::Tls { 636 } else { 389 };
        Self {
            servers: [text("server1"), text("server2")]
                .into_iter()
                .flatten()
                .collect(),
            port: port
                .and_then(|port| u16::try_from(port).ok())
                .unwrap_or(standard_port),
            mode,
            verify: properties
                .get("verify")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            capath: text("capath").map(PathBuf::from),
            base: text("base-dn"),
            user_attr: match kind {
                DirectoryKind::Ldap => text("user-attr").unwrap_or_default(),
                DirectoryKind::Ad => "sAMAccountName".to_owned(),
            },
            bind_dn: text("bind-dn"),
            password,
        }
    }

    /// The settings of a section, with the stored password of its realm.
    ///
    /// # Errors
    /// When it is no directory, or the passwords cannot be read.
    pub fn of_section(
        config: &ConfigStore,
        realm: &str,
        section: &Section,
    ) -> Result<Self, DirectoryError> {
        let kind = DirectoryKind::of_section(section.ty)
            .ok_or_else(|| DirectoryError::Settings(format!("realm '{realm}' is no directory")))?;
        let password = stored_password(config, realm)?;
        Ok(Self::new(kind, &section.properties, password))
    }

    /// The settings of a realm.
    ///
    /// # Errors
    /// When there is no such realm, it is no directory, or files cannot be read.
    pub fn of_realm(config: &ConfigStore, realm: &str) -> Result<Self, DirectoryError> {
        let domains = config
            .sections(SectionFile::Domains)
            .map_err(|err| DirectoryError::Settings(err.to_string()))?;
        let section = domains
            .data
            .get(realm)
            .ok_or_else(|| DirectoryError::Settings(format!("unknown realm '{realm}'")))?;
        Self::of_section(config, realm, section)
    }

    /// Whether the base is still to be asked of the server.
    #[must_use]
    pub fn lacks_base(&self) -> bool {
        self.base.is_none()
    }

    /// Sets where searches begin.
    pub fn set_base(&mut self, base: String) {
        self.base = Some(base);
    }
}

/// The stored password to bind with.
///
/// # Errors
/// When the file cannot be read.
pub fn stored_password(
    config: &ConfigStore,
    realm: &str,
) -> Result<Option<Zeroizing<String>>, DirectoryError> {
    let passwords = config
        .json(JsonFile::LdapPasswords)
        .map_err(|err| DirectoryError::Settings(err.to_string()))?;
    let password = passwords.get(realm).and_then(Value::as_str);
    Ok(password.map(|password| Zeroizing::new(password.to_owned())))
}
