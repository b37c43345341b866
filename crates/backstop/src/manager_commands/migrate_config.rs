//! `migrate-config …`: brings settings of old versions to where this one looks for them.

use std::process::ExitCode;

use backstop_server::config::migration;

use super::{configuration, job_states};
use crate::command::{Arguments, Command, Group};
use crate::output;

/// The commands below `migrate-config`.
pub fn commands() -> Group {
    Group::new()
        .command(
            "update-to-prune-jobs-config",
            Command::new(
                "Make prune jobs of the prune settings that old versions kept with a datastore.",
                prune_jobs,
            ),
        )
        .command(
            "default-notification-mode",
            Command::new(
                "Write the notification mode of versions before 4.0 to datastores that name none.",
                notification_mode,
            ),
        )
}

fn prune_jobs(_: &Arguments) -> anyhow::Result<ExitCode> {
    let migrated = migration::prune_settings(&configuration(), &job_states())?;
    for done in migrated {
        output::err(&format!("datastore '{}': {}\n", done.store, done.outcome));
    }
    Ok(ExitCode::SUCCESS)
}

fn notification_mode(_: &Arguments) -> anyhow::Result<ExitCode> {
    for store in migration::notification_mode(&configuration())? {
        output::err(&format!(
            "datastore '{store}': set notification-mode to legacy-sendmail\n"
        ));
    }
    Ok(ExitCode::SUCCESS)
}
