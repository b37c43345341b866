//! Second factors in lists, and what adding one answers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::UserId;
use crate::second_factor::FactorKind;

/// A second factor without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactorItem {
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: FactorKind,
    /// Its id; `recovery` for recovery codes.
    pub id: String,
    /// What the user calls it; absent when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// When it was made, seconds since the epoch.
    pub created: i64,
    /// Whether it can be used; absent for yes.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub enable: bool,
}

const fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_yes(value: &bool) -> bool {
    *value
}

/// The second factors of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct UserFactorsItem {
    /// Whose.
    pub userid: UserId,
    /// Which.
    pub entries: Vec<FactorItem>,
    /// Whether one-time passwords are locked; absent for no.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub totp_locked: bool,
    /// Until when all are locked, seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tfa_locked_until: Option<i64>,
}

/// Answer to adding a second factor. Holds secrets: its `Debug` form hides them.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AddedFactor {
    /// The id of the new factor; null when a challenge has to be answered first.
    pub id: Option<String>,
    /// What a security key has to answer, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
    /// Recovery codes, told this once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recovery: Vec<String>,
}

impl fmt::Debug for AddedFactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddedFactor")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
