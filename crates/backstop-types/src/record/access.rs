//! Users, tokens, rules, roles, realms and logins.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AuthId, Realm, Role, TokenName, UserId};

/// An API token in its user's list entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenItem {
    /// Its id.
    pub tokenid: AuthId,
    /// One line of comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it may be used; absent for yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable: Option<bool>,
    /// When it ends in seconds since the epoch; absent or 0 for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire: Option<i64>,
}

/// An API token in the list of a user's tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct UserTokenItem {
    /// Its name without the user.
    pub token_name: TokenName,
    /// The token.
    #[serde(flatten)]
    pub token: TokenItem,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserItem {
    /// The id.
    pub userid: UserId,
    /// One line of comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the user may log in; absent for yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable: Option<bool>,
    /// When the account ends in seconds since the epoch; absent or 0 for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire: Option<i64>,
    /// First name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firstname: Option<String>,
    /// Last name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lastname: Option<String>,
    /// Mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The user's tokens; on request only, absent when there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<TokenItem>,
    /// Whether one-time passwords are locked after too many failures.
    #[serde(
        default,
        rename = "totp-locked",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub totp_locked: bool,
    /// Until when second factors are locked, seconds since the epoch.
    #[serde(
        default,
        rename = "tfa-locked-until",
        skip_serializing_if = "Option::is_none"
    )]
    pub tfa_locked_until: Option<i64>,
}

/// Whom a rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectKind {
    /// A user or token.
    User,
    /// A group; matches nobody.
    Group,
}

/// An access rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclItem {
    /// Where it holds.
    pub path: String,
    /// Whom it names.
    pub ugid: String,
    /// What `ugid` is.
    pub ugid_type: SubjectKind,
    /// Whether it holds below the path, too.
    pub propagate: bool,
    /// What it grants.
    pub roleid: Role,
}

impl From<crate::acl::AclEntry> for AclItem {
    fn from(entry: crate::acl::AclEntry) -> Self {
        Self {
            path: entry.path,
            ugid: entry.subject,
            ugid_type: if entry.is_group {
                SubjectKind::Group
            } else {
                SubjectKind::User
            },
            propagate: entry.propagate,
            roleid: entry.role,
        }
    }
}

/// A role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoleItem {
    /// Its name.
    pub roleid: Role,
    /// The privileges it grants.
    pub privs: Vec<&'static str>,
    /// What it is for.
    pub comment: &'static str,
}

impl From<Role> for RoleItem {
    fn from(role: Role) -> Self {
        Self {
            roleid: role,
            privs: role.privileges().names(),
            comment: role.comment(),
        }
    }
}

/// A realm in the login dialogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainItem {
    /// Its id.
    pub realm: Realm,
    /// `pam`, `pbs`, `ldap`, `ad` or `openid`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it is proposed; absent for no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<bool>,
    /// One line of comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Answer to a login. Holds secrets: its `Debug` form hides them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketReply {
    /// Who logged in.
    pub username: UserId,
    /// The ticket; absent when it is sent as a cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// The ticket without its signature, when the ticket itself is sent as a cookie.
    #[serde(
        default,
        rename = "ticket-info",
        skip_serializing_if = "Option::is_none"
    )]
    pub ticket_info: Option<String>,
    /// To be sent with every changing request.
    #[serde(
        default,
        rename = "CSRFPreventionToken",
        skip_serializing_if = "Option::is_none"
    )]
    pub csrf_token: Option<String>,
}

impl fmt::Debug for TicketReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketReply")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// A new API token. Holds a secret: its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewToken {
    /// The token's id.
    pub tokenid: AuthId,
    /// Its secret, told this once.
    pub value: String,
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewToken")
            .field("tokenid", &self.tokenid)
            .finish_non_exhaustive()
    }
}

/// The new secret of an existing API token. Its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegeneratedToken {
    /// The secret, told this once.
    pub secret: String,
}

impl fmt::Debug for RegeneratedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegeneratedToken").finish_non_exhaustive()
    }
}
