//! Arguments and options that several commands of the client share.

use backstop_types::config_schema::value;
use backstop_types::{ArchiveName, Repository};

use crate::command::Parameter;

const CHUNK_SIZES: &[&str] = &["64", "128", "256", "512", "1024", "2048", "4096"];

fn is_repository(text: &str) -> Result<(), String> {
    text.parse::<Repository>()
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// Which server, which datastore, and as whom.
pub const REPOSITORY: &[Parameter] = &[
    Parameter::text(
        "repository",
        "The repository: [[auth-id@]server[:port]:]datastore",
    )
    .length(0, 256)
    .checked(is_repository),
    Parameter::text("server", "Name or address of the backup server."),
    Parameter::integer("port", "Port of the backup server.", Some(1), Some(65535)).default("8007"),
    Parameter::of("datastore", "Name of the datastore.", &value::CONFIG_ID),
    Parameter::of(
        "auth-id",
        "The user or API token to log in as.",
        &value::AUTH_ID,
    ),
];

/// The namespace inside the datastore.
pub const NAMESPACE: Parameter = Parameter::of(
    "ns",
    "The namespace; without it the root.",
    &value::NAMESPACE,
);

/// A mandatory target namespace.
pub const TARGET_NAMESPACE: Parameter = NAMESPACE
    .named("target-ns")
    .explained("The namespace to move to.")
    .required();

/// The encryption key.
pub const KEY: &[Parameter] = &[
    Parameter::path("keyfile", "The file with the encryption key."),
    Parameter::integer(
        "keyfd",
        "An open file descriptor with the encryption key.",
        Some(0),
        None,
    ),
];

/// Whether to encrypt or only to sign.
pub const CRYPT_MODE: Parameter = Parameter::choice(
    "crypt-mode",
    "Whether data is encrypted, only signed, or neither.",
    &["none", "encrypt", "sign-only"],
)
.default("encrypt");

/// Limits to the traffic.
pub const RATE: &[Parameter] = &[
    Parameter::byte_size(
        "rate",
        "Greatest rate in bytes per second, with an optional unit (KB, MiB, ...).",
    ),
    Parameter::byte_size(
        "burst",
        "Bytes that may be sent at once after a pause, with an optional unit (KB, MiB, ...).",
    ),
];

/// A group, `type/id`.
pub const GROUP: Parameter = Parameter::text("group", "A backup group: type/id.");

/// A snapshot, `type/id/time`.
pub const SNAPSHOT: Parameter = Parameter::text("snapshot", "A snapshot: type/id/time.");

/// A snapshot, or a group for its newest snapshot.
pub const GROUP_OR_SNAPSHOT: Parameter = Parameter::text(
    "snapshot",
    "A snapshot: type/id/time, or a group: type/id for its newest snapshot.",
);

/// An archive in a snapshot.
pub const ARCHIVE: Parameter = Parameter::text("archive-name", "The archive, as in root.pxar.");

/// Chunk size of images and average chunk size of archives.
pub const CHUNK_SIZE: Parameter = Parameter::integer(
    "chunk-size",
    "Size of the chunks in KiB, a power of two.",
    Some(64),
    Some(4096),
)
.default("4096")
.proposed(CHUNK_SIZES);

/// How deep to look below a namespace.
pub const MAX_DEPTH: Parameter = Parameter::integer(
    "max-depth",
    "How many levels of namespaces below to include (0 for none).",
    Some(0),
    Some(7),
);

/// The name of an archive as the server stores it.
///
/// # Errors
/// If its kind cannot be told from its name.
pub fn archive_name(text: &str) -> anyhow::Result<ArchiveName> {
    ArchiveName::from_user_name(text).map_err(|error| anyhow::anyhow!("{}", error.reason))
}
