//! What can go wrong with configuration files.

use std::io;
use std::path::PathBuf;

use backstop_types::acl::AclParseError;
use backstop_types::schema::ParameterErrors;
use backstop_types::section_config::SectionConfigError;

/// Why a configuration file cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file system refuses.
    #[error("unable to {action} {path:?} - {source}{}", remedy(.source))]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Somebody else holds the lock; trying again can help.
    #[error(
        "Unable to acquire lock {path:?} - another process is changing this configuration, try again"
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The file was changed since the caller read it.
    #[error("detected modified configuration - file changed by other user? Try again.")]
    Modified,
    /// A section file breaks its format.
    #[error(transparent)]
    Sections(#[from] SectionConfigError),
    /// The access rules break their format.
    #[error(transparent)]
    Acl(#[from] AclParseError),
    /// A file of `key: value` lines breaks its format.
    #[error("parsing {path:?} failed: line {line} - {reason}")]
    Lines {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A JSON file breaks its format. The text does not repeat its content, which is secret.
    #[error("unable to parse {path:?} - line {line}, column {column} is not the expected JSON")]
    Json {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Column number, from 1.
        column: usize,
    },
    /// A file is not UTF-8 text.
    #[error("{path:?} is not UTF-8 text")]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A value does not fit its section.
    #[error("{0}")]
    Invalid(String),
}

/// Why a change that somebody asked for is not made. The texts are those of stock servers.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The configuration cannot be read or written.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A parameter does not fit.
    #[error(transparent)]
    Parameters(#[from] ParameterErrors),
    /// The change contradicts what is there.
    #[error("{0}")]
    Conflict(String),
    /// The caller did not prove who it is.
    #[error("{0}")]
    Unauthorized(String),
    /// The caller lacks a privilege.
    #[error("{0}")]
    Forbidden(String),
    /// The thing to change is not there.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be done here.
    #[error("{0}")]
    NotImplemented(String),
}

impl EditError {
    /// The HTTP status under which servers report it.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Config(_) | Self::Parameters(_) | Self::Conflict(_) => 400,
            Self::Unauthorized(_) => 401,
            Self::Forbidden(_) => 403,
            Self::NotFound(_) => 404,
            Self::NotImplemented(_) => 501,
        }
    }

    pub(crate) fn parameter(name: &str, text: impl Into<String>) -> Self {
        Self::Parameters(ParameterErrors::one(name, text))
    }
}

impl From<backstop_types::section_config::SectionConfigError> for EditError {
    fn from(error: backstop_types::section_config::SectionConfigError) -> Self {
        Self::Config(error.into())
    }
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free space on the file system of the configuration"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; the file system is mounted read-only",
        _ => "",
    }
}

impl From<backstop_notify::SettingsError> for EditError {
    fn from(error: backstop_notify::SettingsError) -> Self {
        use backstop_notify::SettingsError;
        match error {
            SettingsError::NotFound(text) => Self::NotFound(text),
            SettingsError::Refused(text) => Self::Conflict(text),
        }
    }
}
