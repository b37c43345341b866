//! Credentials that are refused.

/// Why credentials are refused. The reason is for the log only: the client is told no more
/// than that it was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    /// Whom the credentials name, as far as that can be told.
    pub user: Option<String>,
    /// What is wrong with them.
    pub reason: String,
    /// Whether they were looked at and found wrong, as opposed to not looked at at all.
    pub(super) is_checked: bool,
}

impl Refused {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self {
            user: None,
            reason: reason.into(),
            is_checked: true,
        }
    }

    pub(super) fn of(user: impl ToString, reason: impl Into<String>) -> Self {
        Self {
            user: Some(user.to_string()),
            reason: reason.into(),
            is_checked: true,
        }
    }

    /// Credentials that could not be looked at: too much to do, or whoever knows the password does not answer. That is no
    /// failed attempt of the user.
    pub(super) fn unchecked(user: impl ToString, reason: impl Into<String>) -> Self {
        Self {
            is_checked: false,
            ..Self::of(user, reason)
        }
    }
}

impl From<crate::config::ConfigError> for Refused {
    fn from(error: crate::config::ConfigError) -> Self {
        Self {
            is_checked: false,
            ..Self::new(error.to_string())
        }
    }
}

/// The failure of an attempt to prove something.
pub(super) trait Failure: From<Refused> {
    /// Whether what was sent was wrong.
    fn is_wrong(&self) -> bool;
}

impl Failure for Refused {
    fn is_wrong(&self) -> bool {
        self.is_checked
    }
}

impl Failure for crate::config::EditError {
    fn is_wrong(&self) -> bool {
        matches!(self, Self::Unauthorized(_))
    }
}

impl From<Refused> for crate::config::EditError {
    fn from(refused: Refused) -> Self {
        Self::Unauthorized(refused.reason)
    }
}
