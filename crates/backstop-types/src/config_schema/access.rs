//! `user.cfg` and `domains.cfg`.

use super::value::{COMMENT, EXPIRE, LINE, PORT, SERVER, SHORT_LINE, TOKEN_NAME};
use crate::schema::{Format, Properties, Property, Schema};

/// Section `user`.
pub static USER: Properties = Properties::new(&[
    Property::optional("comment", &COMMENT),
    Property::optional("enable", &Schema::Boolean),
    Property::optional("expire", &EXPIRE),
    Property::optional("firstname", &SHORT_LINE),
    Property::optional("lastname", &SHORT_LINE),
    Property::optional("email", &SHORT_LINE),
]);

/// Section `token`.
pub static TOKEN: Properties = Properties::new(&[
    Property::optional("comment", &COMMENT),
    Property::optional("enable", &Schema::Boolean),
    Property::optional("expire", &EXPIRE),
]);

static BUILT_IN_TYPE: Schema = Schema::words(&["pam", "pbs"]);

/// Sections `pam` and `pbs`.
pub static BUILT_IN_REALM: Properties = Properties::new(&[
    Property::required("type", &BUILT_IN_TYPE),
    Property::optional("comment", &COMMENT),
    Property::optional("default", &Schema::Boolean),
]);

static CLAIM: Schema = Schema::text(1, 64, Format::Pattern(crate::name::is_safe_id));

/// Section `openid`.
pub static OPENID_REALM: Properties = Properties::new(&[
    Property::required("issuer-url", &LINE),
    Property::required("client-id", &LINE),
    Property::optional("client-key", &LINE),
    Property::optional("scopes", &LINE),
    Property::optional("acr-values", &LINE),
    Property::optional("audiences", &LINE),
    Property::optional("prompt", &LINE),
    Property::optional("comment", &COMMENT),
    Property::optional("default", &Schema::Boolean),
    Property::optional("autocreate", &Schema::Boolean),
    Property::optional("username-claim", &CLAIM),
]);

static MODE: Schema = Schema::words(&["ldap", "ldap+starttls", "ldaps"]);

static SYNC_DEFAULTS: Schema =
    Schema::text(0, usize::MAX, Format::PropertyString(&SYNC_DEFAULTS_PARTS));
static SYNC_DEFAULTS_PARTS: Properties = Properties::new(&[
    Property::optional("remove-vanished", &LINE),
    Property::optional("enable-new", &Schema::Boolean),
]);
static SYNC_ATTRIBUTES: Schema =
    Schema::text(0, usize::MAX, Format::PropertyString(&SYNC_ATTRIBUTE_PARTS));
static SYNC_ATTRIBUTE_PARTS: Properties = Properties::new(&[
    Property::optional("email", &LINE),
    Property::optional("firstname", &LINE),
    Property::optional("lastname", &LINE),
]);

macro_rules! directory_realm {
    ($base_dn:ident $(, $extra:expr)?) => {
        Properties::new(&[
            Property::required("server1", &SERVER),
            Property::optional("server2", &SERVER),
            Property::optional("port", &PORT),
            Property::$base_dn("base-dn", &LINE),
            $($extra,)?
            Property::optional("comment", &COMMENT),
            Property::optional("default", &Schema::Boolean),
            Property::optional("mode", &MODE),
            Property::optional("verify", &Schema::Boolean),
            Property::optional("capath", &LINE),
            Property::optional("bind-dn", &LINE),
            Property::optional("filter", &LINE),
            Property::optional("sync-defaults-options", &SYNC_DEFAULTS),
            Property::optional("sync-attributes", &SYNC_ATTRIBUTES),
            Property::optional("user-classes", &LINE),
        ])
    };
}

/// Section `ldap`.
pub static LDAP_REALM: Properties =
    directory_realm!(required, Property::required("user-attr", &TOKEN_NAME));

/// Section `ad`.
pub static AD_REALM: Properties = directory_realm!(optional);
