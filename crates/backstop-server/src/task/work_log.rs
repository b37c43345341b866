//! The log of a task, as work on a datastore writes to it.

use backstop_datastore::TaskLog;

use super::TaskContext;

impl TaskLog for TaskContext {
    fn info(&self, line: &str) {
        self.log(line);
    }

    fn warn(&self, line: &str) {
        TaskContext::warn(self, line);
    }

    fn is_aborted(&self) -> bool {
        self.abort_requested()
    }
}
