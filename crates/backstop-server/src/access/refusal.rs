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
}

impl Refused {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self {
            user: None,
            reason: reason.into(),
        }
    }

    pub(super) fn of(user: impl ToString, reason: impl Into<String>) -> Self {
        Self {
            user: Some(user.to_string()),
            reason: reason.into(),
        }
    }
}

impl From<crate::config::ConfigError> for Refused {
    fn from(error: crate::config::ConfigError) -> Self {
        Self::new(error.to_string())
    }
}
