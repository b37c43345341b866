//! `datastore.cfg`.

use super::value::{BYTE_SIZE, CALENDAR_EVENT, COMMENT, COUNT, KEEP, THREADS, USER_ID};
use crate::schema::{Format, Properties, Property, Schema};

static PATH: Schema = Schema::text(
    1,
    4096,
    Format::Pattern(|path| !path.contains(char::is_control)),
);
static NOTIFY: Schema = Schema::text(0, usize::MAX, Format::PropertyString(&NOTIFY_KINDS));
static NOTIFY_WHEN: Schema = Schema::words(&["never", "always", "error"]);
/// The parts of `notify`.
pub static NOTIFY_KINDS: Properties = Properties::new(&[
    Property::optional("gc", &NOTIFY_WHEN),
    Property::optional("verify", &NOTIFY_WHEN),
    Property::optional("sync", &NOTIFY_WHEN),
    Property::optional("prune", &NOTIFY_WHEN),
]);
static NOTIFICATION_MODE: Schema = Schema::words(&["legacy-sendmail", "notification-system"]);
static TUNING: Schema = Schema::text(0, usize::MAX, Format::PropertyString(&TUNING_PARTS));
static MAINTENANCE: Schema =
    Schema::text(0, usize::MAX, Format::PropertyString(&MAINTENANCE_PARTS));
static MAINTENANCE_TYPE: Schema =
    Schema::words(&["read-only", "offline", "delete", "unmount", "s3-refresh"]);
static MAINTENANCE_MESSAGE: Schema = Schema::text(
    0,
    64,
    Format::Pattern(|text| !text.contains(char::is_control)),
);
static MAINTENANCE_PARTS: Properties = Properties::new(&[
    Property::required("type", &MAINTENANCE_TYPE),
    Property::optional("message", &MAINTENANCE_MESSAGE),
])
.with_default_key("type");
static UUID: Schema = Schema::pattern(|text| {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'))
        && text.split('-').all(|group| !group.is_empty())
});
static BACKEND: Schema = Schema::text(0, usize::MAX, Format::Verify(check_backend));
static BACKEND_PARTS: Properties = Properties::new(&[
    Property::optional("type", &crate::schema::ANY_TEXT),
    Property::optional("client", &super::value::CONFIG_ID),
    Property::optional("bucket", &BUCKET),
    Property::optional("max-cache-size", &BYTE_SIZE),
])
.with_default_key("type");
static BUCKET: Schema = Schema::text(3, 63, Format::Pattern(is_bucket));
static THRESHOLDS: Schema = Schema::text(0, usize::MAX, Format::PropertyString(&THRESHOLD_PARTS));
static THRESHOLD_PARTS: Properties = Properties::new(&[
    Property::optional("s3-get", &COUNT),
    Property::optional("s3-put", &COUNT),
    Property::optional("s3-post", &COUNT),
    Property::optional("s3-head", &COUNT),
    Property::optional("s3-delete", &COUNT),
    Property::optional("s3-upload", &BYTE_SIZE),
    Property::optional("s3-download", &BYTE_SIZE),
]);
static ATIME_CUTOFF: Schema = Schema::integer(1, 2880);
static CACHE_CAPACITY: Schema = Schema::integer(0, 8_388_608);
static CHUNK_ORDER: Schema = Schema::words(&["none", "inode"]);
static SYNC_LEVEL: Schema = Schema::words(&["none", "file", "filesystem"]);

/// The parts of `tuning`.
pub static TUNING_PARTS: Properties = Properties::new(&[
    Property::optional("chunk-order", &CHUNK_ORDER),
    Property::optional("sync-level", &SYNC_LEVEL),
    Property::optional("gc-atime-safety-check", &Schema::Boolean),
    Property::optional("gc-atime-cutoff", &ATIME_CUTOFF),
    Property::optional("gc-cache-capacity", &CACHE_CAPACITY),
    Property::optional("default-verification-workers", &THREADS),
    Property::optional("default-verification-readers", &THREADS),
]);

/// Section `datastore`.
pub static DATASTORE: Properties = Properties::new(&[
    Property::required("path", &PATH),
    Property::optional("comment", &COMMENT),
    Property::optional("gc-schedule", &CALENDAR_EVENT),
    Property::optional("gc-on-unmount", &Schema::Boolean),
    Property::optional("prune-schedule", &CALENDAR_EVENT),
    Property::optional("keep-last", &KEEP),
    Property::optional("keep-hourly", &KEEP),
    Property::optional("keep-daily", &KEEP),
    Property::optional("keep-weekly", &KEEP),
    Property::optional("keep-monthly", &KEEP),
    Property::optional("keep-yearly", &KEEP),
    Property::optional("verify-new", &Schema::Boolean),
    Property::optional("notify-user", &USER_ID),
    Property::optional("notify", &NOTIFY),
    Property::optional("notification-mode", &NOTIFICATION_MODE),
    Property::optional("tuning", &TUNING),
    Property::optional("maintenance-mode", &MAINTENANCE),
    Property::optional("backing-device", &UUID),
    Property::optional("backend", &BACKEND),
    Property::optional("notification-thresholds", &THRESHOLDS),
    Property::optional("counter-reset-schedule", &CALENDAR_EVENT),
]);

/// What an update may unset.
pub static DELETABLE: &[&str] = &[
    "comment",
    "gc-schedule",
    "gc-on-unmount",
    "prune-schedule",
    "keep-last",
    "keep-hourly",
    "keep-daily",
    "keep-weekly",
    "keep-monthly",
    "keep-yearly",
    "verify-new",
    "notify-user",
    "notify",
    "notification-mode",
    "tuning",
    "maintenance-mode",
    "notification-thresholds",
    "counter-reset-schedule",
];

fn is_bucket(name: &str) -> bool {
    name.bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !["xn--", "sthree-", "amzn-s3-demo-"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        && !["--ol-s3", ".mrap", "--x-s3"]
            .iter()
            .any(|suffix| name.ends_with(suffix))
}

fn check_backend(text: &str) -> Result<(), String> {
    let values = BACKEND_PARTS.parse_property_string(text)?;
    match values.get("type").and_then(serde_json::Value::as_str) {
        Some("s3") => match ["client", "bucket"]
            .iter()
            .find(|key| !values.contains_key(**key))
        {
            Some(key) => Err(format!(
                "missing option {key}, required for backend type s3"
            )),
            None => Ok(()),
        },
        Some("filesystem") | None => {
            match ["client", "bucket", "max-cache-size"]
                .iter()
                .find(|key| values.contains_key(**key))
            {
                Some(key) => Err(format!(
                    "invalid option {key}, only allowed for backend type s3"
                )),
                None => Ok(()),
            }
        }
        Some(other) => Err(format!(
            "unknown variant `{other}`, expected `filesystem` or `s3`"
        )),
    }
}
