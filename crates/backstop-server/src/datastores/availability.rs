//! Whether a datastore's file system answers.

use std::sync::Arc;

use backstop_types::DatastoreName;

/// What is known of a datastore's file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// It answers.
    Available,
    /// It has failed or not answered lately. Nothing new is begun on it; what runs may wait for it.
    Doubtful(Arc<str>),
    /// It has failed or not answered for so long that what runs on it is given up.
    Lost(Arc<str>),
}

impl Availability {
    /// Why nothing new is begun, if that is so.
    pub fn reason(&self) -> Option<&Arc<str>> {
        match self {
            Self::Available => None,
            Self::Doubtful(reason) | Self::Lost(reason) => Some(reason),
        }
    }

    /// Whether what runs is given up.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_))
    }
}

/// The file system of a datastore is gone, failing or hanging. Trying again later can help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("datastore '{name}' is unavailable: {reason}")]
pub struct Unavailable {
    /// Its name.
    pub name: DatastoreName,
    /// What is wrong with its file system.
    pub reason: Arc<str>,
}
