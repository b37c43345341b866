//! `sync.cfg`, `prune.cfg` and `verification.cfg`.

use super::value::{
    AUTH_ID, BYTE_SIZE, CALENDAR_EVENT, COMMENT, CONFIG_ID, CONFIG_IDS, COUNT, GROUP_FILTERS, KEEP,
    MAX_DEPTH, NAMESPACE, THREADS,
};
use crate::schema::{Properties, Property, Schema};

static DIRECTION: Schema = Schema::words(&["pull", "push"]);

/// Section `sync`.
pub static SYNC: Properties = Properties::new(&[
    Property::required("store", &CONFIG_ID),
    Property::optional("ns", &NAMESPACE),
    Property::optional("remote", &CONFIG_ID),
    Property::required("remote-store", &CONFIG_ID),
    Property::optional("remote-ns", &NAMESPACE),
    Property::optional("owner", &AUTH_ID),
    Property::optional("remove-vanished", &Schema::Boolean),
    Property::optional("max-depth", &MAX_DEPTH),
    Property::optional("comment", &COMMENT),
    Property::optional("schedule", &CALENDAR_EVENT),
    Property::optional("group-filter", &GROUP_FILTERS),
    Property::optional("rate-in", &BYTE_SIZE),
    Property::optional("burst-in", &BYTE_SIZE),
    Property::optional("rate-out", &BYTE_SIZE),
    Property::optional("burst-out", &BYTE_SIZE),
    Property::optional("transfer-last", &KEEP),
    Property::optional("resync-corrupt", &Schema::Boolean),
    Property::optional("sync-direction", &DIRECTION),
    Property::optional("encrypted-only", &Schema::Boolean),
    Property::optional("verified-only", &Schema::Boolean),
    Property::optional("run-on-mount", &Schema::Boolean),
    Property::optional("unmount-on-done", &Schema::Boolean),
    Property::optional("worker-threads", &THREADS),
    Property::optional("active-encryption-key", &CONFIG_ID),
    Property::optional("associated-key", &CONFIG_IDS),
]);

/// Section `prune`.
pub static PRUNE: Properties = Properties::new(&[
    Property::required("store", &CONFIG_ID),
    Property::required("schedule", &CALENDAR_EVENT),
    Property::optional("disable", &Schema::Boolean),
    Property::optional("comment", &COMMENT),
    Property::optional("ns", &NAMESPACE),
    Property::optional("max-depth", &MAX_DEPTH),
    Property::optional("keep-last", &KEEP),
    Property::optional("keep-hourly", &KEEP),
    Property::optional("keep-daily", &KEEP),
    Property::optional("keep-weekly", &KEEP),
    Property::optional("keep-monthly", &KEEP),
    Property::optional("keep-yearly", &KEEP),
]);

/// Section `verification`.
pub static VERIFICATION: Properties = Properties::new(&[
    Property::required("store", &CONFIG_ID),
    Property::optional("ignore-verified", &Schema::Boolean),
    Property::optional("outdated-after", &COUNT),
    Property::optional("comment", &COMMENT),
    Property::optional("schedule", &CALENDAR_EVENT),
    Property::optional("ns", &NAMESPACE),
    Property::optional("max-depth", &MAX_DEPTH),
    Property::optional("read-threads", &THREADS),
    Property::optional("verify-threads", &THREADS),
]);

/// What an update of a prune job may unset.
pub static PRUNE_DELETABLE: &[&str] = &[
    "comment",
    "disable",
    "ns",
    "max-depth",
    "keep-last",
    "keep-hourly",
    "keep-daily",
    "keep-weekly",
    "keep-monthly",
    "keep-yearly",
];

/// What an update of a verify job may unset.
pub static VERIFICATION_DELETABLE: &[&str] = &[
    "ignore-verified",
    "comment",
    "schedule",
    "outdated-after",
    "ns",
    "max-depth",
    "read-threads",
    "verify-threads",
];

/// What an update of a sync job may unset.
pub static SYNC_DELETABLE: &[&str] = &[
    "remote",
    "owner",
    "comment",
    "schedule",
    "remove-vanished",
    "group-filter",
    "rate-in",
    "burst-in",
    "rate-out",
    "burst-out",
    "ns",
    "remote-ns",
    "max-depth",
    "transfer-last",
    "encrypted-only",
    "verified-only",
    "run-on-mount",
    "unmount-on-done",
    "sync-direction",
    "worker-threads",
    "active-encryption-key",
    "associated-key",
];
