//! How each kind of realm checks and stores passwords: the one place to which a kind of realm is added.
//!
//! An empty password never gets as far as a realm, and a realm that is not configured lets nobody in.

use std::net::IpAddr;

use backstop_types::UserId;

use super::control::AccessControl;
use super::refusal::Refused;
use super::{directory, password};
use crate::config::{ConfigError, ConfigStore, EditError, SectionFile};
use crate::privileged_helper::HelperError;

/// The kind of a realm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Authenticator {
    /// The users of the system.
    Pam,
    /// Hashes in `shadow.json`.
    Pbs,
    /// A directory server (`ldap` or `ad`).
    Directory,
    /// An OpenID provider, which knows no passwords.
    OpenId,
}

impl Authenticator {
    /// The kind of the realm `realm`; `None` when there is no such realm.
    ///
    /// # Errors
    /// When the configuration cannot be read.
    pub(super) fn of(config: &ConfigStore, realm: &str) -> Result<Option<Self>, ConfigError> {
        Ok(match realm {
            "pam" => Some(Self::Pam),
            "pbs" => Some(Self::Pbs),
            realm => {
                let domains = config.sections(SectionFile::Domains)?;
                domains
                    .data
                    .get(realm)
                    .and_then(|section| match section.ty {
                        "ldap" | "ad" => Some(Self::Directory),
                        "openid" => Some(Self::OpenId),
                        _ => None,
                    })
            }
        })
    }

    /// Checks a password. `peer` is the address of the client, where one is known. Blocking.
    ///
    /// # Errors
    /// When it is not the user's, or cannot be checked.
    pub(super) fn check(
        self,
        access: &AccessControl,
        user: &UserId,
        password: &str,
        peer: Option<IpAddr>,
    ) -> Result<(), Refused> {
        if password.is_empty() {
            return Err(Refused::of(user, "the password is empty"));
        }
        match self {
            Self::Pbs => {
                let _turn = access.hashing_turn(user)?;
                password::check_hash(access.config(), user, password)
            }
            Self::Pam => access
                .helper()
                .map_err(|why| Refused::unchecked(user, why))?
                .authenticate(user.name(), password, peer)
                .map_err(|error| match error {
                    HelperError::Refused(reason) => Refused::of(user, reason),
                    HelperError::Failed(reason) => Refused::unchecked(user, reason),
                }),
            Self::Directory => directory::check(access.config(), user, password),
            Self::OpenId => Err(Refused::of(
                user,
                "users of this realm log in at its OpenID provider, not by password",
            )),
        }
    }

    /// Sets a password.
    ///
    /// # Errors
    /// When passwords of this kind of realm are not set here, or it cannot be written.
    pub(super) fn store(
        self,
        config: &ConfigStore,
        user: &UserId,
        password: &str,
    ) -> Result<(), EditError> {
        match self {
            Self::Pbs => password::store_hash(config, user, password),
            Self::Pam => Err(EditError::NotImplemented(
                "passwords of system users (realm pam) are set by themselves, by root@pam (PUT /access/password), or with passwd(1)".to_string(),
            )),
            Self::Directory => Err(EditError::NotImplemented(
                "storing passwords is not possible for ldap and ad realms; change it in the directory"
                    .to_string(),
            )),
            Self::OpenId => Err(EditError::NotImplemented(
                "storing passwords is not possible for openid realms".to_string(),
            )),
        }
    }
}
