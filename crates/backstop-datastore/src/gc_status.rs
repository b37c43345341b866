//! The result of the last garbage collection, as the file `.gc-status` keeps it.

use std::path::Path;

use backstop_types::record::GcStatus;

use crate::atomic_file;
use crate::error::{DatastoreError, Result};

const FILE: &str = ".gc-status";

/// Reads the file. A missing or unreadable one gives zeros.
pub(crate) fn load(datastore: &Path) -> GcStatus {
    let text = std::fs::read(datastore.join(FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

pub(crate) fn store(status: &GcStatus, datastore: &Path) -> Result<()> {
    let path = datastore.join(FILE);
    let text = serde_json::to_vec(status).map_err(|error| DatastoreError::Invalid {
        path: path.clone(),
        reason: error.to_string(),
    })?;
    atomic_file::replace(&path, &text, false)
}
