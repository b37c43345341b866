//! Why something could not be synced, and what that means for the rest.

use backstop_client::ClientError;
use backstop_datastore::DatastoreError;

use crate::datastores::Interrupted;
use crate::http::error::chain;

/// Why something could not be synced.
#[derive(Debug, thiserror::Error)]
pub(super) enum SyncError {
    /// What the source has is damaged, incomplete or must not be taken; the next snapshot may be fine.
    #[error("{0}")]
    Content(String),
    /// The other server refuses something or cannot be reached.
    #[error("{}", chain(.0))]
    Source(#[from] ClientError),
    /// The target refuses something.
    #[error("{}", chain(.0))]
    Target(#[from] DatastoreError),
    /// Nothing further can be done in this run.
    #[error("{0}")]
    Broken(String),
}

pub(super) type Result<T> = std::result::Result<T, SyncError>;

impl SyncError {
    /// Whether it is about one snapshot alone, so that it is worth to go on with the next one.
    pub fn is_of_one_snapshot(&self) -> bool {
        match self {
            Self::Content(_) => true,
            Self::Source(error) => matches!(error, ClientError::Status { .. }),
            Self::Target(error) => matches!(
                error,
                DatastoreError::ChunkConflict { .. } | DatastoreError::Locked { .. }
            ),
            Self::Broken(_) => false,
        }
    }

    /// An error of a datastore that is read from.
    pub fn of_local_source(error: &DatastoreError) -> Self {
        let text = chain(error);
        match error {
            DatastoreError::NoSuchChunk { .. }
            | DatastoreError::NoSuchFile { .. }
            | DatastoreError::NoSuchSnapshot(_)
            | DatastoreError::Damaged { .. }
            | DatastoreError::Invalid { .. }
            | DatastoreError::Locked { .. } => Self::Content(text),
            _ => Self::Broken(text),
        }
    }
}

impl From<Interrupted> for SyncError {
    fn from(error: Interrupted) -> Self {
        Self::Broken(error.to_string())
    }
}
