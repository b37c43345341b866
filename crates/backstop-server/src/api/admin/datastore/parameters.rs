//! Parameters that the calls on a datastore's content share, and how they become types.

use std::str::FromStr;

use backstop_types::config_schema::value;
use backstop_types::schema::{ANY_TEXT, Format, Property, Schema};
use backstop_types::{
    ArchiveName, AuthId, BackupGroup, BackupId, BackupTime, BackupType, DatastoreName, NameError,
    Namespace, Snapshot, is_safe_id,
};

use crate::http::ApiError;
use crate::router::Params;
use crate::router::schema::BOOLEAN;

static COMPONENT: Schema = Schema::text(1, 32, Format::Pattern(is_safe_id));
static ARCHIVE: Schema = Schema::text(0, usize::MAX, Format::Verify(parses_as::<ArchiveName>));

/// Name of the datastore, from the path.
pub const STORE: Property = Property::required("store", &value::CONFIG_ID);
/// Filter by datastore.
pub const STORE_FILTER: Property = Property::optional("store", &value::CONFIG_ID);
/// Namespace; empty or absent for the root.
pub const NS: Property = Property::optional("ns", &value::NAMESPACE);
/// Namespace that has to be named.
pub const NS_NEEDED: Property = Property::required("ns", &value::NAMESPACE);
/// Namespace to move to; empty or absent for the root.
pub const TARGET_NS: Property = Property::optional("target-ns", &value::NAMESPACE);
/// Namespace to move to, which has to be named.
pub const TARGET_NS_NEEDED: Property = Property::required("target-ns", &value::NAMESPACE);
/// Whether a group of the same name gets the snapshots.
pub const MERGE_GROUP: Property = Property::optional("merge-group", &BOOLEAN);
/// Whether groups of the same name get the snapshots.
pub const MERGE_GROUPS: Property = Property::optional("merge-groups", &BOOLEAN);
/// Whether namespaces that became empty are removed.
pub const DELETE_SOURCE: Property = Property::optional("delete-source", &BOOLEAN);
/// Parent of a namespace, or where a listing starts.
pub const PARENT: Property = Property::optional("parent", &value::NAMESPACE);
/// Levels of namespaces below the start.
pub const MAX_DEPTH: Property = Property::optional("max-depth", &value::MAX_DEPTH);
/// New component of a namespace.
pub const NAME: Property = Property::required("name", &COMPONENT);
/// Group: type. Which types there are is checked later, with a text of its own.
pub const TYPE: Property = Property::required("backup-type", &ANY_TEXT);
/// Group: id.
pub const GROUP_ID: Property = Property::required("backup-id", &value::BACKUP_ID);
/// Snapshot: time.
pub const SNAPSHOT_TIME: Property = Property::required("backup-time", &value::BACKUP_TIME);
/// Filter by type.
pub const SOME_TYPE: Property = Property::optional("backup-type", &ANY_TEXT);
/// Filter by id.
pub const SOME_ID: Property = Property::optional("backup-id", &value::BACKUP_ID);
/// Filter by time.
pub const SOME_TIME: Property = Property::optional("backup-time", &value::BACKUP_TIME);
/// File of a snapshot.
pub const FILE_NAME: Property = Property::required("file-name", &value::ARCHIVE_NAME);
/// Archive of a snapshot.
pub const ARCHIVE_NAME: Property = Property::optional("archive-name", &ARCHIVE);
/// Path inside a snapshot's archives, base64.
pub const FILE_PATH: Property = Property::required("filepath", &ANY_TEXT);
/// Notes.
pub const NOTES: Property = Property::required("notes", &ANY_TEXT);
/// Protection.
pub const PROTECTED: Property = Property::required("protected", &BOOLEAN);
/// Owner to be.
pub const NEW_OWNER: Property = Property::required("new-owner", &value::AUTH_ID);
/// Whether left-over protected snapshots are an error.
pub const ERROR_ON_PROTECTED: Property = Property::optional("error-on-protected", &BOOLEAN);
/// Whether groups inside are deleted too.
pub const DELETE_GROUPS: Property = Property::optional("delete-groups", &BOOLEAN);
/// Whether to show only what would happen.
pub const DRY_RUN: Property = Property::optional("dry-run", &BOOLEAN);
/// Whether to say why each snapshot would be kept or removed.
pub const REASONS: Property = Property::optional("reasons", &BOOLEAN);
/// Whether to answer with a task.
pub const USE_TASK: Property = Property::optional("use-task", &BOOLEAN);
/// Whether to count and to add the garbage collection's result.
pub const VERBOSE: Property = Property::optional("verbose", &BOOLEAN);
/// Whether to send a directory as tar.
pub const TAR: Property = Property::optional("tar", &BOOLEAN);
/// Whether recently verified snapshots are skipped.
pub const IGNORE_VERIFIED: Property = Property::optional("ignore-verified", &BOOLEAN);
/// Days after which a verification is too old.
pub const OUTDATED_AFTER: Property = Property::optional("outdated-after", &value::COUNT);
/// Threads that read chunks.
pub const READ_THREADS: Property = Property::optional("read-threads", &value::THREADS);
/// Threads that check chunks.
pub const VERIFY_THREADS: Property = Property::optional("verify-threads", &value::THREADS);

/// Names of the retention options, in the order in which they apply.
pub const KEEP_NAMES: [&str; 6] = [
    "keep-last",
    "keep-hourly",
    "keep-daily",
    "keep-weekly",
    "keep-monthly",
    "keep-yearly",
];

macro_rules! keep {
    ($($constant:ident $name:literal;)*) => { $(
        #[doc = concat!("Retention: `", $name, "`.")]
        pub const $constant: Property = Property::optional($name, &value::KEEP);
    )* };
}

keep! {
    KEEP_LAST "keep-last";
    KEEP_HOURLY "keep-hourly";
    KEEP_DAILY "keep-daily";
    KEEP_WEEKLY "keep-weekly";
    KEEP_MONTHLY "keep-monthly";
    KEEP_YEARLY "keep-yearly";
}

fn parses_as<T: FromStr<Err = NameError>>(text: &str) -> Result<(), String> {
    text.parse::<T>().map(drop).map_err(|err| err.reason)
}

/// The datastore.
pub fn store(params: &Params) -> Result<DatastoreName, ApiError> {
    params.required("store")
}

/// The namespace, the root one if none was given.
pub fn namespace(params: &Params) -> Result<Namespace, ApiError> {
    Ok(params.parse("ns")?.unwrap_or_else(Namespace::root))
}

/// The group.
pub fn group(params: &Params) -> Result<BackupGroup, ApiError> {
    let ty = backup_type(params.required_text("backup-type")?)?;
    Ok(BackupGroup::new(ty, params.required("backup-id")?))
}

/// The snapshot.
pub fn snapshot(params: &Params) -> Result<Snapshot, ApiError> {
    let time = params.integer("backup-time").ok_or_else(|| {
        ApiError::parameter(
            "backup-time",
            "parameter is missing and it is not optional.",
        )
    })?;
    let time =
        BackupTime::new(time).map_err(|err| ApiError::parameter("backup-time", err.reason))?;
    Ok(group(params)?.snapshot(time))
}

/// The type to filter by.
pub fn some_type(params: &Params) -> Result<Option<BackupType>, ApiError> {
    params.text("backup-type").map(backup_type).transpose()
}

/// The id to filter by.
pub fn some_id(params: &Params) -> Result<Option<BackupId>, ApiError> {
    params.parse("backup-id")
}

/// The file of a snapshot; its extension must be known.
pub fn file_name(params: &Params) -> Result<ArchiveName, ApiError> {
    params
        .required_text("file-name")?
        .parse()
        .map_err(ApiError::from)
}

/// The owner to be.
pub fn new_owner(params: &Params) -> Result<AuthId, ApiError> {
    params.required("new-owner")
}

/// The depth limit of a listing.
pub fn max_depth(params: &Params) -> Option<usize> {
    params
        .integer("max-depth")
        .and_then(|depth| usize::try_from(depth).ok())
}

fn backup_type(text: &str) -> Result<BackupType, ApiError> {
    text.parse().map_err(|_| {
        ApiError::bad_request(format!(
            "unknown variant `{text}`, expected one of `vm`, `ct`, `host`"
        ))
    })
}
