//! Access rules: listing and changing them.

use backstop_types::acl::check_acl_path;
use backstop_types::record::AclItem;
use backstop_types::{AuthId, Privileges, Role};

use super::control::AccessControl;
use super::user;
use crate::config::{ConfigError, ConfigStore, EditError, SectionFile};

/// A rule to be set or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclChange {
    /// Where it holds.
    pub path: String,
    /// What it grants.
    pub role: Role,
    /// Whom it names.
    pub auth_id: Option<AuthId>,
    /// A group; always refused.
    pub group: Option<String>,
    /// Whether it holds below the path, too.
    pub propagate: bool,
    /// Whether it is removed instead of set.
    pub delete: bool,
}

/// All rules; with `path` only those at and below it, with `exact` only those at it.
///
/// # Errors
/// When the rules cannot be read.
pub fn list(
    config: &ConfigStore,
    path: Option<&str>,
    exact: bool,
) -> Result<Vec<AclItem>, ConfigError> {
    let entries = config.acl()?.data.entries(path, exact);
    Ok(entries.into_iter().map(AclItem::from).collect())
}

/// The rules that `caller` may see: all with the privilege to, otherwise those of its own tokens.
///
/// # Errors
/// When the rules cannot be read.
pub fn list_for(
    access: &AccessControl,
    caller: &AuthId,
    path: Option<&str>,
    exact: bool,
) -> Result<Vec<AclItem>, ConfigError> {
    let mut items = list(access.config(), path, exact)?;
    if access
        .check(caller, "/access/acl", Privileges::SYS_AUDIT, false)
        .is_err()
    {
        items.retain(|item| {
            !caller.is_token()
                && item
                    .ugid
                    .parse::<AuthId>()
                    .is_ok_and(|id| id.is_token() && id.user() == caller.user())
        });
    }
    Ok(items)
}

/// Sets or removes a rule on behalf of `caller`. Without the privilege to, users may do so for
/// their own API tokens.
///
/// # Errors
/// When the caller may not, or as for [`update`].
pub fn update_for(
    access: &AccessControl,
    caller: &AuthId,
    change: &AclChange,
    digest: Option<&str>,
) -> Result<(), EditError> {
    if access
        .check(caller, "/access/acl", Privileges::PERMISSIONS_MODIFY, false)
        .is_err()
    {
        let refused = |text: &str| Err(EditError::Conflict(text.to_string()));
        if change.group.is_some() {
            return refused("Unprivileged users are not allowed to create group ACL item.");
        }
        match &change.auth_id {
            Some(_) if caller.is_token() => {
                return refused("Unprivileged API tokens can't set ACL items.");
            }
            Some(auth_id) if !auth_id.is_token() => {
                return refused("Unprivileged users can only set ACL items for API tokens.");
            }
            Some(auth_id) if auth_id.user() != caller.user() => {
                return refused(
                    "Unprivileged users can only set ACL items for their own API tokens.",
                );
            }
            Some(_) => {}
            None => {
                return refused("Unprivileged user needs to provide auth_id to update ACL item.");
            }
        }
    }
    update(access.config(), change, digest)
}

/// Sets or removes a rule without any check of a caller, for the command line on the server
/// itself.
///
/// # Errors
/// When it names nobody or somebody who is not there, when no rules can be made for its path, or
/// `digest` is not the file's.
pub fn update(
    config: &ConfigStore,
    change: &AclChange,
    digest: Option<&str>,
) -> Result<(), EditError> {
    let conflict = |text: &str| EditError::Conflict(text.to_string());
    if change.group.is_some() {
        return Err(conflict(
            "parameter 'group' - groups are currently not supported.",
        ));
    }
    let auth_id = change
        .auth_id
        .as_ref()
        .ok_or_else(|| conflict("missing 'userid' or 'group' parameter."))?;
    // Held until the rule is written, so that nobody is removed in between: the rule would wait for the next one of that name.
    let _users = config.lock(SectionFile::User)?;
    if !change.delete {
        let users = config.sections(SectionFile::User)?;
        let is_there = if auth_id.is_token() {
            users
                .data
                .get_typed("token", &auth_id.to_string())
                .is_some()
        } else {
            user::exists(&users.data, auth_id.user())
        };
        if !is_there {
            return Err(conflict(if auth_id.is_token() {
                "no such API token."
            } else {
                "no such user."
            }));
        }
        // Rules for paths that are no longer allowed can still be removed.
        check_acl_path(&change.path).map_err(|error| conflict(&error.to_string()))?;
    }
    config.edit_acl(digest, |tree| {
        if change.delete {
            tree.remove(&change.path, auth_id, change.role);
        } else {
            tree.insert(&change.path, auth_id, change.role, change.propagate);
        }
        Ok(())
    })
}
