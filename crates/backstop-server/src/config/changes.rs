//! What a process has changed in the configuration, for whoever has to tell about it.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// The names of files that were replaced through the stores that share this. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Changes(Arc<Mutex<BTreeSet<String>>>);

impl Changes {
    /// Notes that a file is not what it was.
    pub fn note(&self, file: impl Into<String>) {
        self.0.lock().insert(file.into());
    }

    /// The files in alphabetical order; they are forgotten here.
    #[must_use]
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock()).into_iter().collect()
    }
}
