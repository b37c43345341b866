//! Targets and matchers of notifications: `notifications.cfg`, and `notifications-priv.cfg` with their secrets, which only the server's
//! account may read.
//!
//! What both mean is known to `backstop_notify`; this reads and writes them together. Nothing here is sent.

use backstop_notify::Settings;
use backstop_notify::settings::Change;
use backstop_types::config_schema::notification;
use backstop_types::config_schema::value::LINE;
use backstop_types::schema::{Properties, Property};
use serde_json::{Map, Value};

use super::{ConfigError, ConfigStore, EditError, Loaded, SectionFile};

/// What is configured, with the digest of the public file. Blocking.
///
/// # Errors
/// When a file cannot be read or understood.
pub fn settings(store: &ConfigStore) -> Result<Loaded<Settings>, ConfigError> {
    let public = store.sections(SectionFile::Notifications)?;
    let private = store.sections(SectionFile::NotificationsPrivate)?;
    Ok(Loaded {
        data: Settings {
            public: public.data.clone(),
            private: private.data.clone(),
        },
        digest: public.digest,
    })
}

/// What is configured, without anything that is secret: for those who may not read that file.
///
/// # Errors
/// When the public file cannot be read or understood.
pub fn matchers(store: &ConfigStore) -> Result<Settings, ConfigError> {
    let public = store.sections(SectionFile::Notifications)?;
    Ok(Settings {
        public: public.data.clone(),
        ..Settings::default()
    })
}

fn edit(
    store: &ConfigStore,
    digest: Option<&str>,
    change: impl FnOnce(&mut Settings) -> Result<(), backstop_notify::SettingsError>,
) -> Result<(), EditError> {
    store.edit_sections(SectionFile::Notifications, digest, |public| {
        store.edit_sections(SectionFile::NotificationsPrivate, None, |private| {
            let mut settings = Settings {
                public: public.clone(),
                private: private.clone(),
            };
            change(&mut settings)?;
            // The secret is on the disk before the target that needs it.
            *public = settings.public;
            *private = settings.private;
            Ok(())
        })
    })
}

/// Adds a target or matcher. Blocking.
///
/// # Errors
/// When the name is taken, the settings make no sense, or files cannot be written.
pub fn create(
    store: &ConfigStore,
    (ty, name): (&str, &str),
    properties: &Map<String, Value>,
) -> Result<(), EditError> {
    edit(store, None, |settings| {
        settings.create(ty, name, properties)
    })
}

/// Changes a target or matcher. Blocking.
///
/// # Errors
/// When there is none, `digest` is not the file's, the settings make no sense then, or files cannot be written.
pub fn update(
    store: &ConfigStore,
    (ty, name): (&str, &str),
    change: Change<'_>,
    digest: Option<&str>,
) -> Result<(), EditError> {
    edit(store, digest, |settings| settings.update(ty, name, change))
}

/// Removes a target or matcher; what is built in has its default settings then. Blocking.
///
/// # Errors
/// When there is none, a matcher names it, or files cannot be written.
pub fn remove(store: &ConfigStore, (ty, name): (&str, &str)) -> Result<(), EditError> {
    edit(store, None, |settings| settings.remove(ty, name))
}

/// A kind of entry: what can be set of it, and what an update may unset.
#[derive(Debug, Clone, Copy)]
pub struct EntryKind {
    /// The type of its sections.
    pub section: &'static str,
    properties: &'static Properties,
    /// What is only in the private file.
    secret: Option<Property>,
    /// What an update may unset.
    pub deletable: &'static [&'static str],
}

/// Mail by the program `sendmail`.
pub static SENDMAIL: EntryKind = EntryKind {
    section: "sendmail",
    properties: &notification::SENDMAIL,
    secret: None,
    deletable: &[
        "author",
        "comment",
        "disable",
        "from-address",
        "mailto",
        "mailto-user",
    ],
};

/// Mail by a server.
pub static SMTP: EntryKind = EntryKind {
    section: "smtp",
    properties: &notification::SMTP,
    secret: Some(Property::optional("password", &LINE)),
    deletable: &[
        "author",
        "comment",
        "disable",
        "mailto",
        "mailto-user",
        "password",
        "port",
        "username",
    ],
};

/// A Gotify server.
pub static GOTIFY: EntryKind = EntryKind {
    section: "gotify",
    properties: &notification::GOTIFY,
    secret: Some(Property::required("token", &LINE)),
    deletable: &["comment", "disable"],
};

/// Any HTTP server.
pub static WEBHOOK: EntryKind = EntryKind {
    section: "webhook",
    properties: &notification::WEBHOOK,
    // its secrets are among its properties
    secret: None,
    deletable: &["comment", "disable", "header", "body", "secret"],
};

/// Who is told of what.
pub static MATCHER: EntryKind = EntryKind {
    section: backstop_notify::settings::MATCHER,
    properties: &notification::MATCHER,
    secret: None,
    deletable: &[
        "match-severity",
        "match-field",
        "match-calendar",
        "target",
        "mode",
        "invert-match",
        "comment",
        "disable",
    ],
};

impl EntryKind {
    /// All that can be set, the name left out; in the order in which stock servers miss them.
    #[must_use]
    pub fn fields(&self) -> Vec<Property> {
        let fields = self.properties.list.iter().copied();
        // of old versions, and of no effect
        let mut fields: Vec<Property> = fields.filter(|field| field.name != "filter").collect();
        fields.sort_by_key(|field| field.name);
        fields.splice(0..0, self.secret);
        fields
    }
}
