//! `notifications.cfg`, `notifications-priv.cfg` and `metricserver.cfg`.

use super::value::{COMMENT, COUNT, LINE, LINES, PORT, USER_IDS};
use crate::schema::{Format, Properties, Property, Schema};

/// Section `sendmail`.
pub static SENDMAIL: Properties = Properties::new(&[
    Property::optional("mailto", &LINES),
    Property::optional("mailto-user", &USER_IDS),
    Property::optional("from-address", &LINE),
    Property::optional("author", &LINE),
    Property::optional("filter", &LINE),
    Property::optional("comment", &COMMENT),
    Property::optional("disable", &Schema::Boolean),
]);

static SMTP_MODE: Schema = Schema::words(&["insecure", "starttls", "tls"]);

/// Section `smtp`.
pub static SMTP: Properties = Properties::new(&[
    Property::required("server", &LINE),
    Property::optional("port", &PORT),
    Property::optional("mode", &SMTP_MODE),
    Property::optional("username", &LINE),
    Property::optional("mailto", &LINES),
    Property::optional("mailto-user", &USER_IDS),
    Property::required("from-address", &LINE),
    Property::optional("author", &LINE),
    Property::optional("comment", &COMMENT),
    Property::optional("disable", &Schema::Boolean),
]);

/// Section `gotify`.
pub static GOTIFY: Properties = Properties::new(&[
    Property::required("server", &LINE),
    Property::optional("filter", &LINE),
    Property::optional("comment", &COMMENT),
    Property::optional("disable", &Schema::Boolean),
]);

static METHOD: Schema = Schema::words(&["post", "put", "get"]);

/// Section `webhook`.
pub static WEBHOOK: Properties = Properties::new(&[
    Property::required("method", &METHOD),
    Property::required("url", &LINE),
    Property::optional("header", &LINES),
    Property::optional("body", &LINE),
    Property::optional("secret", &LINES),
    Property::optional("comment", &COMMENT),
    Property::optional("disable", &Schema::Boolean),
]);

static MATCH_MODE: Schema = Schema::words(&["all", "any"]);

/// Section `matcher`.
pub static MATCHER: Properties = Properties::new(&[
    Property::optional("match-field", &LINES),
    Property::optional("match-severity", &LINES),
    Property::optional("match-calendar", &LINES),
    Property::optional("mode", &MATCH_MODE),
    Property::optional("invert-match", &Schema::Boolean),
    Property::optional("target", &LINES),
    Property::optional("comment", &COMMENT),
    Property::optional("disable", &Schema::Boolean),
]);

/// Private section `smtp`.
pub static SMTP_PRIVATE: Properties = Properties::new(&[Property::optional("password", &LINE)]);

/// Private section `gotify`.
pub static GOTIFY_PRIVATE: Properties = Properties::new(&[Property::required("token", &LINE)]);

/// Private section `webhook`.
pub static WEBHOOK_PRIVATE: Properties = Properties::new(&[Property::optional("secret", &LINES)]);

static NAME_32: Schema = Schema::text(1, 32, Format::Any);

/// Section `influxdb-udp`.
pub static INFLUXDB_UDP: Properties = Properties::new(&[
    Property::required("host", &LINE),
    Property::optional("enable", &Schema::Boolean),
    Property::optional("mtu", &PORT),
    Property::optional("comment", &COMMENT),
]);

/// Section `influxdb-http`.
pub static INFLUXDB_HTTP: Properties = Properties::new(&[
    Property::required("url", &LINE),
    Property::optional("enable", &Schema::Boolean),
    Property::optional("token", &LINE),
    Property::optional("bucket", &NAME_32),
    Property::optional("organization", &NAME_32),
    Property::optional("max-body-size", &COUNT),
    Property::optional("verify-tls", &Schema::Boolean),
    Property::optional("comment", &COMMENT),
]);
