//! The audit log of what commands change. The one place that every command goes through when it has ended, so that none can
//! forget to tell.

use std::sync::LazyLock;

use backstop_server::audit_log::{self, ChangingCommand};
use backstop_server::config::Changes;
use serde_json::{Value, json};

use crate::command::Arguments;
use crate::{installation, output};

static CHANGES: LazyLock<Changes> = LazyLock::new(Changes::default);

/// Where this process notes which files it has changed.
pub fn changes() -> Changes {
    CHANGES.clone()
}

/// Writes down a command that has changed something by itself. What a command asks of the server is noted there.
pub fn note(name: &str, arguments: &Arguments, succeeded: bool) {
    let files = changes().take();
    if files.is_empty() {
        return;
    }
    let parameters = arguments.all_given().map(|(name, values)| {
        let value = match values.as_slice() {
            [one] => json!(one),
            _ => Value::from(values),
        };
        (name, value)
    });
    let command = ChangingCommand {
        name,
        parameters: parameters.collect(),
        succeeded,
        files: &files,
    };
    if let Err(error) = audit_log::note_command(&installation::roots(), command) {
        output::err(&format!(
            "Warning: this change is not in the audit log ({}): {error}\n",
            installation::roots()
                .api_logs()
                .join(audit_log::FILE)
                .display()
        ));
    }
}
