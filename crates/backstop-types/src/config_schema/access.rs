//! `user.cfg` and `domains.cfg`.

use super::value::{COMMENT, EXPIRE, LINE, PORT, SERVER, SHORT_LINE};
use crate::name::is_safe_id;
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

/// The sections `pam` and `pbs`: what may be set, and unset.
pub static BUILT_IN_SETTINGS: Properties = Properties::new(&[
    Property::optional("comment", &COMMENT),
    Property::optional("default", &Schema::Boolean),
]);
/// What an update of `pam` or `pbs` may unset.
pub static BUILT_IN_DELETABLE: &[&str] = &["comment", "default"];

static CLAIM: Schema = Schema::text(1, 64, Format::Pattern(is_safe_id));
static SAFE_WORD: Schema = Schema::pattern(is_safe_id);
static SCOPES: Schema = Schema::text(0, usize::MAX, Format::List(&SAFE_WORD));
static AUDIENCE: Schema = Schema::text(0, 256, Format::Any);
static AUDIENCES: Schema = Schema::text(0, usize::MAX, Format::List(&AUDIENCE));
static ISSUER: Schema = Schema::text(1, usize::MAX, Format::VerifyNew(check_issuer));

fn check_issuer(url: &str) -> Result<(), String> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    match rest {
        Some(rest)
            if !rest.is_empty()
                && !rest.starts_with('/')
                && !url.contains(|c: char| {
                    c.is_whitespace() || c.is_control() || "?#".contains(c)
                }) =>
        {
            Ok(())
        }
        _ => Err("expected an http or https URL without query".to_string()),
    }
}

/// Section `openid`.
pub static OPENID_REALM: Properties = Properties::new(&[
    Property::required("issuer-url", &ISSUER),
    Property::required("client-id", &LINE),
    Property::optional("client-key", &LINE),
    Property::optional("scopes", &SCOPES),
    Property::optional("acr-values", &LINE),
    Property::optional("audiences", &AUDIENCES),
    Property::optional("prompt", &SAFE_WORD),
    Property::optional("comment", &COMMENT),
    Property::optional("default", &Schema::Boolean),
    Property::optional("autocreate", &Schema::Boolean),
    Property::optional("username-claim", &CLAIM),
]);
/// What an update of an `openid` realm may unset.
pub static OPENID_DELETABLE: &[&str] = &[
    "client-key",
    "comment",
    "default",
    "autocreate",
    "scopes",
    "prompt",
    "acr-values",
    "audiences",
];

static MODE: Schema = Schema::words(&["ldap", "ldap+starttls", "ldaps"]);
static DIRECTORY_SERVER: Schema = Schema::text(1, usize::MAX, Format::VerifyNew(check_server));
static ATTRIBUTE: Schema = Schema::text(1, usize::MAX, Format::VerifyNew(check_attribute));

fn check_server(name: &str) -> Result<(), String> {
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    SERVER
        .parse_text(bare)
        .map(drop)
        .map_err(|_| "expected a host name or an IP address, without port".to_string())
}

/// An attribute description: a name or an object identifier, with options.
fn check_attribute(name: &str) -> Result<(), String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b';' | b'_');
    match name.bytes().next() {
        Some(first) if first.is_ascii_alphanumeric() && name.bytes().all(fits) => Ok(()),
        _ => Err("not the name of an LDAP attribute".to_string()),
    }
}

static VANISHED_WORD: Schema = Schema::words(&["acl", "entry", "properties"]);
/// What a sync removes when it is gone from the directory: words divided by `;`.
pub static REMOVE_VANISHED: Schema = Schema::text(1, usize::MAX, Format::List(&VANISHED_WORD));
static SYNC_DEFAULTS: Schema =
    Schema::text(0, usize::MAX, Format::PropertyString(&SYNC_DEFAULTS_PARTS));
/// The parts of `sync-defaults-options`.
pub static SYNC_DEFAULTS_PARTS: Properties = Properties::new(&[
    Property::optional("remove-vanished", &REMOVE_VANISHED),
    Property::optional("enable-new", &Schema::Boolean),
]);
static SYNC_ATTRIBUTES: Schema = Schema::text(0, usize::MAX, Format::VerifyNew(check_attributes));
/// The parts of `sync-attributes`.
pub static SYNC_ATTRIBUTE_PARTS: Properties = Properties::new(&[
    Property::optional("email", &LINE),
    Property::optional("firstname", &LINE),
    Property::optional("lastname", &LINE),
]);
static USER_CLASSES: Schema = Schema::text(1, usize::MAX, Format::VerifyNew(check_classes));

fn check_attributes(text: &str) -> Result<(), String> {
    let parts = SYNC_ATTRIBUTE_PARTS.parse_property_string(text)?;
    let mut names = parts.values().filter_map(serde_json::Value::as_str);
    names.try_for_each(check_attribute)
}

fn check_classes(text: &str) -> Result<(), String> {
    let mut names = crate::property_string::split_list(text).peekable();
    if names.peek().is_none() {
        return Err("expected the names of object classes, divided by commas".to_string());
    }
    names.try_for_each(check_attribute)
}

macro_rules! directory_realm {
    ($base_dn:ident $(, $extra:expr)?) => {
        Properties::new(&[
            Property::required("server1", &DIRECTORY_SERVER),
            Property::optional("server2", &DIRECTORY_SERVER),
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
            Property::optional("user-classes", &USER_CLASSES),
        ])
    };
}

/// Section `ldap`.
pub static LDAP_REALM: Properties =
    directory_realm!(required, Property::required("user-attr", &ATTRIBUTE));

/// Section `ad`.
pub static AD_REALM: Properties = directory_realm!(optional);

/// What an update of an `ldap` or `ad` realm may unset; `password` is the one to bind with.
pub static DIRECTORY_DELETABLE: &[&str] = &[
    "server2",
    "port",
    "comment",
    "default",
    "verify",
    "mode",
    "capath",
    "bind-dn",
    "password",
    "filter",
    "sync-defaults-options",
    "sync-attributes",
    "user-classes",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn realm_settings_accept_and_refuse_what_they_should() {
        for (schema, good, bad) in [
            (&ISSUER, "https://id.example.com/realms/x", "id.example.com"),
            (&ISSUER, "http://127.0.0.1:1", "https://id.example.com/?x"),
            (&SCOPES, "email profile", "email /"),
            (
                &DIRECTORY_SERVER,
                "ldap.example.com",
                "ldap.example.com:389",
            ),
            (&DIRECTORY_SERVER, "[::1]", "ldap://x"),
            (&ATTRIBUTE, "cn;lang-de", "a)(b"),
            (&REMOVE_VANISHED, "acl;entry;properties", "acl;all"),
            (
                &SYNC_DEFAULTS,
                "remove-vanished=acl;entry,enable-new=false",
                "remove-vanished=x",
            ),
            (&SYNC_ATTRIBUTES, "email=mail,lastname=sn", "mail"),
            (&USER_CLASSES, "person,user", "person,(x"),
        ] {
            assert!(schema.parse_text(good).is_ok(), "{good:?}");
            assert!(schema.parse_text(bad).is_err(), "{bad:?}");
        }
    }
}
