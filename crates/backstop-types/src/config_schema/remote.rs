//! `remote.cfg`, `traffic-control.cfg`, `s3.cfg` and `encryption-keys.cfg`.

use super::value::{
    AUTH_ID, BYTE_SIZE, CIDR, COMMENT, COUNT, FINGERPRINT, LINE, LINES, PORT, SERVER, USER_IDS,
};
use crate::schema::{Format, Properties, Property, Schema};

static STORED_PASSWORD: Schema = Schema::text(
    1,
    2048,
    Format::Pattern(|text| !text.contains(char::is_control)),
);

/// Section `remote`. The password is kept in base64.
pub static REMOTE: Properties = Properties::new(&[
    Property::required("host", &SERVER),
    Property::optional("port", &PORT),
    Property::required("auth-id", &AUTH_ID),
    Property::required("password", &STORED_PASSWORD),
    Property::optional("fingerprint", &FINGERPRINT),
    Property::optional("use-node-proxy", &Schema::Boolean),
    Property::optional("comment", &COMMENT),
]);

/// What an update of a remote may unset.
pub static REMOTE_DELETABLE: &[&str] = &[
    "comment",
    "fingerprint",
    "port",
    "use-node-proxy",
    "tls-server-name",
];

/// A setting of remotes that stock servers do not know; it is not in their file.
pub const TLS_SERVER_NAME: Property = Property::optional("tls-server-name", &SERVER);

static NETWORKS: Schema = Schema::array(&CIDR);

/// Section `rule`.
pub static TRAFFIC_RULE: Properties = Properties::new(&[
    Property::required("network", &NETWORKS),
    Property::optional("rate-in", &BYTE_SIZE),
    Property::optional("burst-in", &BYTE_SIZE),
    Property::optional("rate-out", &BYTE_SIZE),
    Property::optional("burst-out", &BYTE_SIZE),
    Property::optional("timeframe", &LINES),
    Property::optional("users", &USER_IDS),
    Property::optional("comment", &COMMENT),
]);

static QUIRK: Schema = Schema::words(&[
    "skip-if-none-match-header",
    "delete-objects-via-delete-object",
]);
static QUIRKS: Schema = Schema::array(&QUIRK);
static REGION: Schema = Schema::text(
    0,
    32,
    Format::Pattern(|text| {
        text.len() >= 2
            && text
                .bytes()
                .all(|b| matches!(b, b'_' | b'-' | b'a'..=b'z' | b'0'..=b'9'))
            && !text.starts_with('-')
    }),
);

/// Section `s3-endpoint`.
pub static S3_ENDPOINT: Properties = Properties::new(&[
    Property::required("endpoint", &LINE),
    Property::optional("port", &PORT),
    Property::optional("region", &REGION),
    Property::optional("fingerprint", &FINGERPRINT),
    Property::required("access-key", &LINE),
    Property::required("secret-key", &LINE),
    Property::optional("path-style", &Schema::Boolean),
    Property::optional("put-rate-limit", &COUNT),
    Property::optional("provider-quirks", &QUIRKS),
    Property::optional("rate-in", &BYTE_SIZE),
    Property::optional("burst-in", &BYTE_SIZE),
    Property::optional("rate-out", &BYTE_SIZE),
    Property::optional("burst-out", &BYTE_SIZE),
]);

/// Section `sync-key`.
pub static SYNC_KEY: Properties = Properties::new(&[
    Property::optional("path", &LINE),
    Property::optional("kdf", &LINE),
    Property::optional("created", &COUNT),
    Property::optional("modified", &COUNT),
    Property::optional("fingerprint", &FINGERPRINT),
    Property::optional("hint", &LINE),
    Property::optional("archived-at", &COUNT),
]);
