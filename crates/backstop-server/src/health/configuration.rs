//! Facts of configuration files: whether each can be read, whoever needs it when.

use backstop_health::Settings;
use backstop_health::facts::{ConfigurationFacts, Facts};

use super::settings;
use crate::config::{JsonFile, SectionFile};
use crate::heartbeats::broken;
use crate::http::error::chain;
use crate::server::Server;

/// Adds all files, and gives what the operator has said of health: `None` while that cannot be read. Blocks for small files.
pub(super) fn gather(server: &Server, facts: &mut Facts) -> Option<Settings> {
    let config = server.config();
    let settings = settings::load(config);
    for (file, read) in config.check() {
        let error = match read {
            Err(err) => Some(chain(&err)),
            // What is read by parts is wrong in parts.
            Ok(()) if file == JsonFile::Health.file_name() => {
                settings.as_ref().err().map(|err| chain(err))
            }
            Ok(()) if file == JsonFile::Heartbeats.file_name() => broken(config),
            Ok(()) if file == SectionFile::Notifications.file_name() => matchers(server),
            Ok(()) => None,
        };
        let file = file.to_owned();
        facts.configuration.push(ConfigurationFacts { file, error });
    }
    settings.ok()
}

/// Matchers that make no sense, so that they are not asked who is to be told.
fn matchers(server: &Server) -> Option<String> {
    let settings = crate::config::notifications::matchers(server.config()).ok()?;
    let (_, broken) = settings.matchers();
    (!broken.is_empty()).then(|| broken.join("; "))
}
