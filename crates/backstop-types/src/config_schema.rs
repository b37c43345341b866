//! What each section of each configuration file may hold, at the level of release 4.2. The same
//! schemas check the parameters of the REST calls that edit these files.
//! Format: `docs/formats/configuration.md`.

pub mod access;
pub mod datastore;
pub mod job;
pub mod node;
pub mod notification;
pub mod remote;
pub mod value;

use crate::schema::{Properties, Schema};
use crate::section_config::SectionType;

const fn section(
    name: &'static str,
    id_property: &'static str,
    id: &'static Schema,
    properties: &'static Properties,
) -> SectionType {
    SectionType {
        name,
        id,
        id_property,
        properties,
    }
}

/// `user.cfg`
pub static USER: &[SectionType] = &[
    section("user", "userid", &value::USER_ID, &access::USER),
    section("token", "tokenid", &value::AUTH_ID, &access::TOKEN),
];

/// `domains.cfg`
pub static DOMAINS: &[SectionType] = &[
    section("pam", "realm", &value::REALM, &access::BUILT_IN_REALM),
    section("pbs", "realm", &value::REALM, &access::BUILT_IN_REALM),
    section("openid", "realm", &value::REALM, &access::OPENID_REALM),
    section("ldap", "realm", &value::REALM, &access::LDAP_REALM),
    section("ad", "realm", &value::REALM, &access::AD_REALM),
];

/// `datastore.cfg`
pub static DATASTORE: &[SectionType] = &[section(
    "datastore",
    "name",
    &value::CONFIG_ID,
    &datastore::DATASTORE,
)];

/// `remote.cfg`
pub static REMOTE: &[SectionType] = &[section(
    "remote",
    "name",
    &value::CONFIG_ID,
    &remote::REMOTE,
)];

/// `sync.cfg`
pub static SYNC: &[SectionType] = &[section("sync", "id", &value::CONFIG_ID, &job::SYNC)];

/// `prune.cfg`
pub static PRUNE: &[SectionType] = &[section("prune", "id", &value::CONFIG_ID, &job::PRUNE)];

/// `verification.cfg`
pub static VERIFICATION: &[SectionType] = &[section(
    "verification",
    "id",
    &value::CONFIG_ID,
    &job::VERIFICATION,
)];

/// `traffic-control.cfg`
pub static TRAFFIC_CONTROL: &[SectionType] = &[section(
    "rule",
    "name",
    &value::CONFIG_ID,
    &remote::TRAFFIC_RULE,
)];

/// `s3.cfg`
pub static S3: &[SectionType] = &[section(
    "s3-endpoint",
    "id",
    &value::CONFIG_ID,
    &remote::S3_ENDPOINT,
)];

/// `encryption-keys.cfg`
pub static ENCRYPTION_KEYS: &[SectionType] = &[section(
    "sync-key",
    "id",
    &value::CONFIG_ID,
    &remote::SYNC_KEY,
)];

/// `metricserver.cfg`
pub static METRIC_SERVER: &[SectionType] = &[
    section(
        "influxdb-udp",
        "name",
        &value::CONFIG_ID,
        &notification::INFLUXDB_UDP,
    ),
    section(
        "influxdb-http",
        "name",
        &value::CONFIG_ID,
        &notification::INFLUXDB_HTTP,
    ),
];

/// `notifications.cfg`
pub static NOTIFICATIONS: &[SectionType] = &[
    section(
        "sendmail",
        "name",
        &value::ENTITY_ID,
        &notification::SENDMAIL,
    ),
    section("smtp", "name", &value::ENTITY_ID, &notification::SMTP),
    section("gotify", "name", &value::ENTITY_ID, &notification::GOTIFY),
    section("webhook", "name", &value::ENTITY_ID, &notification::WEBHOOK),
    section("matcher", "name", &value::ENTITY_ID, &notification::MATCHER),
];

/// `notifications-priv.cfg`
pub static NOTIFICATIONS_PRIVATE: &[SectionType] = &[
    section(
        "smtp",
        "name",
        &value::ENTITY_ID,
        &notification::SMTP_PRIVATE,
    ),
    section(
        "gotify",
        "name",
        &value::ENTITY_ID,
        &notification::GOTIFY_PRIVATE,
    ),
    section(
        "webhook",
        "name",
        &value::ENTITY_ID,
        &notification::WEBHOOK_PRIVATE,
    ),
];

/// Every section file with its types.
pub static FILES: &[(&str, &[SectionType])] = &[
    ("user.cfg", USER),
    ("domains.cfg", DOMAINS),
    ("datastore.cfg", DATASTORE),
    ("remote.cfg", REMOTE),
    ("sync.cfg", SYNC),
    ("prune.cfg", PRUNE),
    ("verification.cfg", VERIFICATION),
    ("traffic-control.cfg", TRAFFIC_CONTROL),
    ("s3.cfg", S3),
    ("encryption-keys.cfg", ENCRYPTION_KEYS),
    ("metricserver.cfg", METRIC_SERVER),
    ("notifications.cfg", NOTIFICATIONS),
    ("notifications-priv.cfg", NOTIFICATIONS_PRIVATE),
];
