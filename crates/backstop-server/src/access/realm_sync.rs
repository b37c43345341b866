//! Bringing the users of a realm in line with its directory.
//!
//! Nothing is changed before the directory has been read whole, and an empty answer never counts as "all users are gone".

use std::collections::BTreeSet;
use std::sync::Arc;

use backstop_types::config_schema::access::{SYNC_DEFAULTS_PARTS, USER};
use backstop_types::section_config::SectionConfig;
use backstop_types::{AuthId, UserId};
use serde_json::{Map, Value, json};

use super::directory::{self, DirectoryKind, DirectorySettings, DirectoryUser, UserSearch};
use super::{revocation, second_factor, token};
use crate::config::{ConfigError, ConfigStore, EditError, SectionFile};
use crate::task::{TaskContext, TaskFailure};

/// What is removed when the directory does not have it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemoveVanished {
    /// Users that are gone.
    pub entry: bool,
    /// Names and mail addresses that are gone.
    pub properties: bool,
    /// Access rules of users that are gone.
    pub acl: bool,
}

impl RemoveVanished {
    /// Reads words divided by `;`, which have passed their schema already.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let has = |word: &str| {
            text.split(|c: char| matches!(c, ',' | ';') || c.is_whitespace())
                .any(|own| own == word)
        };
        Self {
            entry: has("entry"),
            properties: has("properties"),
            acl: has("acl"),
        }
    }
}

/// How a sync is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncOptions {
    /// What is removed.
    pub remove: RemoveVanished,
    /// Whether new users may log in.
    pub enable_new: bool,
    /// Whether to only say what would be done.
    pub dry_run: bool,
}

impl SyncOptions {
    /// The settings of a realm, unless the caller has others.
    ///
    /// # Errors
    /// When the settings cannot be understood.
    pub fn new(
        realm: &Map<String, Value>,
        remove_vanished: Option<&str>,
        enable_new: Option<bool>,
        dry_run: bool,
    ) -> Result<Self, EditError> {
        let text = realm.get("sync-defaults-options").and_then(Value::as_str);
        let defaults = SYNC_DEFAULTS_PARTS
            .parse_property_string(text.unwrap_or_default())
            .map_err(|reason| EditError::parameter("sync-defaults-options", reason))?;
        let remove = remove_vanished
            .or_else(|| defaults.get("remove-vanished").and_then(Value::as_str))
            .map(RemoveVanished::parse);
        let enable_new = enable_new.or_else(|| defaults.get("enable-new").and_then(Value::as_bool));
        Ok(Self {
            remove: remove.unwrap_or_default(),
            enable_new: enable_new.unwrap_or(true),
            dry_run,
        })
    }
}

/// A realm as it was when its sync was begun.
#[derive(Debug, Clone)]
struct Realm {
    id: String,
    ty: &'static str,
    /// What tells whose directory is read, and how.
    settings: Map<String, Value>,
}

impl Realm {
    fn new(id: &str, ty: &'static str, properties: &Map<String, Value>) -> Self {
        let mut settings = properties.clone();
        settings.retain(|key, _| !["comment", "default"].contains(&key.as_str()));
        let id = id.to_owned();
        Self { id, ty, settings }
    }

    /// Refuses to go on for a realm that was removed or is another one now: its users would be made for nobody, or be those of
    /// somebody else's directory.
    fn check(&self, config: &ConfigStore) -> Result<(), EditError> {
        let domains = config.sections(SectionFile::Domains)?;
        let now = domains.data.get_typed(self.ty, &self.id);
        let now = now.map(|section| Self::new(&self.id, self.ty, &section.properties).settings);
        let what = match now {
            Some(settings) if settings == self.settings => return Ok(()),
            Some(_) => "changed",
            None => "removed",
        };
        Err(EditError::Conflict(format!(
            "the realm '{}' was {what} while its directory was read; no user was changed{}",
            self.id,
            if what == "changed" {
                ", sync it again"
            } else {
                ""
            }
        )))
    }
}

/// A sync that can begin.
#[derive(Debug)]
pub struct RealmSync {
    realm: Realm,
    settings: DirectorySettings,
    search: UserSearch,
    options: SyncOptions,
}

impl RealmSync {
    /// Prepares the sync of a realm.
    ///
    /// # Errors
    /// When there is no such realm, it has no directory, or its settings cannot be used.
    pub fn prepare(
        config: &ConfigStore,
        realm: &str,
        remove_vanished: Option<&str>,
        enable_new: Option<bool>,
        dry_run: bool,
    ) -> Result<Self, EditError> {
        let domains = config.sections(SectionFile::Domains)?;
        let section = domains
            .data
            .get(realm)
            .ok_or_else(|| EditError::Conflict(format!("unable to find realm {realm}")))?;
        let kind = DirectoryKind::of_section(section.ty).ok_or_else(|| {
            EditError::Conflict(format!(
                "cannot sync realm {realm} of type {}: it has no directory",
                section.ty
            ))
        })?;
        let refused = |err: directory::DirectoryError| EditError::Conflict(err.to_string());
        Ok(Self {
            realm: Realm::new(realm, kind.section(), &section.properties),
            settings: DirectorySettings::of_section(config, realm, section).map_err(refused)?,
            search: UserSearch::new(kind, &section.properties).map_err(refused)?,
            options: SyncOptions::new(&section.properties, remove_vanished, enable_new, dry_run)?,
        })
    }

    /// Reads the directory and changes the users: the work of a task.
    ///
    /// # Errors
    /// When the directory cannot be read, nothing at all is in it, or files cannot be written.
    pub async fn run(self, config: Arc<ConfigStore>, task: TaskContext) -> Result<(), TaskFailure> {
        task.log(format!("starting realm sync for {}", self.realm.id));
        if self.options.dry_run {
            task.log("this is a DRY RUN - changes will not be persisted");
        }
        let users = tokio::select! {
            users = directory::users(&self.settings, &self.search) => users?,
            () = task.aborted() => return task.check_abort(),
        };
        task.log(format!("found {} users in the directory", users.len()));
        let (realm, options) = (self.realm, self.options);
        let apply = move || apply(&config, &realm, &users, options, &task);
        tokio::task::spawn_blocking(apply).await?
    }
}

/// Where the progress of a sync is told.
trait Log {
    fn log(&self, text: String);
    fn warn(&self, text: String);
}

impl Log for TaskContext {
    fn log(&self, text: String) {
        Self::log(self, text);
    }

    fn warn(&self, text: String) {
        Self::warn(self, text);
    }
}

/// Changes the users, if the realm is still what it was. Nobody removes or changes it meanwhile.
fn apply(
    config: &ConfigStore,
    realm: &Realm,
    found: &[DirectoryUser],
    options: SyncOptions,
    log: &impl Log,
) -> Result<(), TaskFailure> {
    let change = |users: &mut SectionConfig| {
        realm.check(config)?;
        update(config, &realm.id, found, options, log, users)
    };
    let result = if options.dry_run {
        change(&mut config.sections(SectionFile::User)?.data.clone())
    } else {
        // Always before the lock of the users.
        let _realms = config.lock(SectionFile::Domains)?;
        config.edit_sections(SectionFile::User, None, change)
    };
    let counts = result.map_err(|err| TaskFailure::new(err.to_string()))?;
    log.log(format!(
        "{} created, {} updated, {} removed, {} unchanged",
        counts.created, counts.updated, counts.removed, counts.unchanged
    ));
    Ok(())
}

/// What a sync did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counts {
    created: usize,
    updated: usize,
    removed: usize,
    unchanged: usize,
}

/// Changes the users. What belongs to users that are gone is removed before they are, so that nobody inherits it.
fn update(
    config: &ConfigStore,
    realm: &str,
    found: &[DirectoryUser],
    options: SyncOptions,
    log: &impl Log,
    users: &mut SectionConfig,
) -> Result<Counts, EditError> {
    let own = |users: &SectionConfig| -> Vec<UserId> {
        let ids = users.of_type("user").filter_map(|(id, _)| id.parse().ok());
        ids.filter(|id: &UserId| id.realm() == realm).collect()
    };
    let known = own(users);
    let mut counts = Counts::default();
    let mut present = BTreeSet::new();
    for entry in found {
        let user: UserId = match format!("{}@{realm}", entry.name).parse() {
            Ok(user) => user,
            Err(err) => {
                log.warn(format!(
                    "could not create/update user: '{}' - {err}",
                    entry.dn.escape_debug()
                ));
                continue;
            }
        };
        if !present.insert(user.clone()) {
            log.warn(format!(
                "could not create/update user: '{}' - another entry is user {user} already",
                entry.dn.escape_debug()
            ));
            continue;
        }
        let before = users.get_typed("user", user.as_str());
        let (after, changes) = merged(
            before.map(|section| &section.properties),
            entry,
            &user,
            options,
            log,
        );
        match (before, changes.as_slice()) {
            (None, _) => {
                log.log(format!("creating user {user}"));
                counts.created += 1;
            }
            (Some(_), []) => {
                counts.unchanged += 1;
                continue;
            }
            (Some(_), changes) => {
                log.log(format!("updating user {user}: {}", changes.join(", ")));
                counts.updated += 1;
            }
        }
        users
            .set("user", user.as_str(), after)
            .map_err(EditError::Conflict)?;
    }
    if options.remove.entry && present.is_empty() && !known.is_empty() {
        return Err(EditError::Conflict(format!(
            "the directory has no user at all for this realm, so that all {} users of the realm would be removed; check \
             base-dn, filter and user-classes, or remove the users one by one",
            known.len()
        )));
    }
    if options.remove.entry {
        let gone: Vec<UserId> = known
            .into_iter()
            .filter(|user| !present.contains(user))
            .collect();
        remove(config, &gone, options, log, users)?;
        counts.removed = gone.len();
    }
    Ok(counts)
}

/// A user's properties with those of the directory, and what is new about them.
fn merged(
    before: Option<&Map<String, Value>>,
    entry: &DirectoryUser,
    user: &UserId,
    options: SyncOptions,
    log: &impl Log,
) -> (Map<String, Value>, Vec<String>) {
    let mut after = before.cloned().unwrap_or_default();
    if before.is_none() && !options.enable_new {
        after.insert("enable".to_owned(), json!(false));
    }
    let mut changes = Vec::new();
    for key in ["firstname", "lastname", "email"] {
        let found = entry.properties.iter().find(|(own, _)| *own == key);
        let found = found.map(|(_, value)| value.trim()).and_then(|value| {
            let schema = USER.get(key)?.schema;
            match schema.parse_text(value) {
                Ok(_) => Some(value),
                Err(reason) => {
                    log.warn(format!("{user}: ignoring attribute '{key}': {reason}"));
                    None
                }
            }
        });
        let old = after.get(key).and_then(Value::as_str).map(str::to_owned);
        match (old, found) {
            (Some(old), Some(new)) if old != new => {
                changes.push(format!("{key} '{old}' -> '{new}'"));
                after.insert(key.to_owned(), json!(new));
            }
            (None, Some(new)) => {
                changes.push(format!("{key} '{new}'"));
                after.insert(key.to_owned(), json!(new));
            }
            (Some(old), None) if options.remove.properties => {
                changes.push(format!("{key} '{old}' removed"));
                after.remove(key);
            }
            _ => {}
        }
    }
    (after, changes)
}

fn remove(
    config: &ConfigStore,
    gone: &[UserId],
    options: SyncOptions,
    log: &impl Log,
    users: &mut SectionConfig,
) -> Result<(), EditError> {
    let mut tokens: Vec<AuthId> = Vec::new();
    for user in gone {
        log.log(format!("deleting user {user}"));
        let own = token::items_of(users, user)?;
        tokens.extend(own.into_iter().map(|token| token.tokenid));
        users.remove(user.as_str());
    }
    for token in &tokens {
        users.remove(&token.to_string());
    }
    if options.dry_run || gone.is_empty() {
        return Ok(());
    }
    if options.remove.acl {
        config.edit_acl(None, |tree| {
            for token in &tokens {
                tree.remove_auth_id(token);
            }
            for user in gone {
                tree.remove_auth_id(&user.clone().into());
            }
            Ok::<_, ConfigError>(())
        })?;
    }
    token::remove_secrets(config, &tokens)?;
    for user in gone {
        second_factor::remove(config, user)?;
    }
    // A later user of the same name must not be who this one was.
    revocation::revoke_all(config, gone, jiff::Timestamp::now().as_second())?;
    Ok(())
}

#[cfg(test)]
mod tests;
