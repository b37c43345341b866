//! What a long operation tells the task that runs it.

/// Receives the lines of a long operation and can stop it. Called from several threads.
pub trait TaskLog: Sync {
    /// A line for the task's log.
    fn info(&self, line: &str);
    /// A line that an operator should see.
    fn warn(&self, line: &str);
    /// Whether the operation should stop; asked often.
    fn is_aborted(&self) -> bool {
        false
    }
}

/// Says nothing and never stops.
pub struct Silent;

impl TaskLog for Silent {
    fn info(&self, _line: &str) {}
    fn warn(&self, _line: &str) {}
}
