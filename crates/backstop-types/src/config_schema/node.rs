//! `node.cfg`, which is not a section file but lines of `key: value`.

use super::value::COUNT;
use crate::schema::{ANY_TEXT, Format, Properties, Property, Schema};

static ACME: Schema = Schema::text(0, usize::MAX, Format::PropertyString(&ACME_PARTS));
static ACME_PARTS: Properties =
    Properties::new(&[Property::required("account", &ANY_TEXT)]).with_default_key("account");
static ACME_DOMAIN: Schema =
    Schema::text(0, usize::MAX, Format::PropertyString(&ACME_DOMAIN_PARTS));
static ACME_DOMAIN_PARTS: Properties = Properties::new(&[
    Property::required("domain", &ANY_TEXT),
    Property::optional("alias", &ANY_TEXT),
    Property::optional("plugin", &ANY_TEXT),
])
.with_default_key("domain");
static PROXY: Schema = Schema::text(1, 128, Format::Any);
static MAIL: Schema = Schema::text(2, 64, Format::Any);
static CIPHERS: Schema = Schema::pattern(|text| {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"_:, +!-@=.".contains(&b))
});
static LANGUAGE: Schema = Schema::words(&[
    "ar", "ca", "da", "de", "en", "es", "eu", "fa", "fr", "gl", "he", "hu", "it", "ja", "ka", "kr",
    "nb", "nl", "nn", "pl", "pt_BR", "ru", "sl", "sv", "tr", "ukr", "zh_CN", "zh_TW",
]);
static CONSENT: Schema = Schema::text(0, 65_536, Format::Any);
static LOCATION: Schema = Schema::text(0, usize::MAX, Format::PropertyString(&LOCATION_PARTS));
static LOCATION_NAME: Schema = Schema::text(0, 128, Format::Any);
static LATITUDE: Schema = Schema::Number {
    min: -90.0,
    max: 90.0,
};
static LONGITUDE: Schema = Schema::Number {
    min: -180.0,
    max: 180.0,
};
static LOCATION_PARTS: Properties = Properties::new(&[
    Property::optional("name", &LOCATION_NAME),
    Property::optional("latitude", &LATITUDE),
    Property::optional("longitude", &LONGITUDE),
]);

/// The keys of the file.
pub static NODE: Properties = Properties::new(&[
    Property::optional("acme", &ACME),
    Property::optional("acmedomain0", &ACME_DOMAIN),
    Property::optional("acmedomain1", &ACME_DOMAIN),
    Property::optional("acmedomain2", &ACME_DOMAIN),
    Property::optional("acmedomain3", &ACME_DOMAIN),
    Property::optional("acmedomain4", &ACME_DOMAIN),
    Property::optional("http-proxy", &PROXY),
    Property::optional("email-from", &MAIL),
    Property::optional("ciphers-tls-1.3", &CIPHERS),
    Property::optional("ciphers-tls-1.2", &CIPHERS),
    Property::optional("default-lang", &LANGUAGE),
    Property::optional("description", &ANY_TEXT),
    Property::optional("task-log-max-days", &COUNT),
    Property::optional("consent-text", &CONSENT),
    Property::optional("location", &LOCATION),
]);
