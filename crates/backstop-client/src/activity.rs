//! How the library tells what it does: finished log lines and progress figures.
//!
//! The receiver decides where lines go and how they look; it must not block for long.

/// Receives log lines and progress of an operation. All methods may be called from any thread.
pub trait Activity: Send + Sync {
    /// A line for the user, without line end.
    fn info(&self, line: &str);

    /// Something that did not stop the operation, but that the user should know.
    fn warn(&self, line: &str);

    /// Details for debugging.
    fn debug(&self, line: &str) {
        let _ = line;
    }

    /// How far an archive has come; called at most a few times per second.
    fn progress(&self, progress: &Progress) {
        let _ = progress;
    }
}

/// How far one archive has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Name of the archive as the user knows it.
    pub archive: String,
    /// Bytes of the archive that have been read (backup) or written (restore).
    pub processed: u64,
    /// Size of the archive, if it is known.
    pub total: Option<u64>,
    /// Bytes sent to or received from the server for it.
    pub transferred: u64,
}

/// An [`Activity`] that hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Activity for Silent {
    fn info(&self, _line: &str) {}
    fn warn(&self, _line: &str) {}
}
