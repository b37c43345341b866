//! The configuration of notifications: targets and matchers, with those that are there without being written down.
//!
//! Works on sections that somebody else reads and writes (`notifications.cfg` and, for secrets, `notifications-priv.cfg`), and never
//! shows a secret. Format: `docs/formats/configuration.md`. The texts of errors are those of stock servers.

use backstop_types::config_schema::{NOTIFICATIONS, NOTIFICATIONS_PRIVATE};
use backstop_types::section_config::SectionConfig;
use serde_json::{Map, Value, json};

use crate::matcher::Matcher;
use crate::named_value::NamedValue;
use crate::target::Target;

/// The types of targets, in the order of lists.
pub const TARGET_TYPES: [&str; 4] = ["gotify", "sendmail", "smtp", "webhook"];
/// The type of matchers.
pub const MATCHER: &str = "matcher";
/// The target that is always there.
pub const BUILT_IN_TARGET: &str = "mail-to-root";
/// The matcher that is always there.
pub const BUILT_IN_MATCHER: &str = "default-matcher";

/// Why something is not changed or shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The change makes no sense.
    #[error("{0}")]
    Refused(String),
}

/// Both files. What is built in is only in them when somebody has changed it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `notifications.cfg`
    pub public: SectionConfig,
    /// `notifications-priv.cfg`
    pub private: SectionConfig,
}

/// A change: first removes what `delete` names, then sets `properties`.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// What to set; it has passed the schemas already.
    pub properties: &'a Map<String, Value>,
    /// What to remove.
    pub delete: &'a [String],
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            public: SectionConfig::empty(NOTIFICATIONS),
            private: SectionConfig::empty(NOTIFICATIONS_PRIVATE),
        }
    }
}

/// What is there without being written down.
fn built_in(ty: &str, name: &str) -> Option<Map<String, Value>> {
    let properties = match (ty, name) {
        ("sendmail", BUILT_IN_TARGET) => json!({
            "comment": "Send mails to root@pam's email address",
            "mailto-user": ["root@pam"],
        }),
        (MATCHER, BUILT_IN_MATCHER) => json!({
            "comment": "Route everything but successful prune job notifications to mail-to-root",
            "invert-match": true,
            "match-field": ["exact:type=prune"],
            "match-severity": ["info"],
            "mode": "all",
            "target": [BUILT_IN_TARGET],
        }),
        _ => return None,
    };
    properties.as_object().cloned()
}

fn built_in_name(ty: &str) -> Option<&'static str> {
    match ty {
        "sendmail" => Some(BUILT_IN_TARGET),
        MATCHER => Some(BUILT_IN_MATCHER),
        _ => None,
    }
}

fn refused(text: impl Into<String>) -> SettingsError {
    SettingsError::Refused(text.into())
}

fn texts<'a>(properties: &'a Map<String, Value>, key: &str) -> impl Iterator<Item = &'a str> {
    let values = properties.get(key).and_then(Value::as_array);
    values.into_iter().flatten().filter_map(Value::as_str)
}

fn word(ty: &str) -> &'static str {
    match ty {
        MATCHER => "matcher",
        _ => "endpoint",
    }
}

impl Settings {
    fn properties(&self, ty: &str, name: &str) -> Option<Map<String, Value>> {
        match self.public.get(name) {
            Some(section) => (section.ty == ty).then(|| section.properties.clone()),
            None => built_in(ty, name),
        }
    }

    fn names(&self, ty: &str) -> Vec<String> {
        let written = self.public.of_type(ty).map(|(name, _)| name.to_owned());
        let missing = built_in_name(ty).filter(|name| self.public.get(name).is_none());
        written.chain(missing.map(str::to_owned)).collect()
    }

    /// The type of a target; `None` when there is none of this name.
    #[must_use]
    pub fn target_type(&self, name: &str) -> Option<&'static str> {
        TARGET_TYPES
            .into_iter()
            .find(|ty| self.properties(ty, name).is_some())
    }

    /// One entry as the API shows it.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, ty: &str, name: &str) -> Result<Map<String, Value>, SettingsError> {
        let properties = self.properties(ty, name).ok_or_else(|| missing(ty, name))?;
        let mut shown = properties.clone();
        shown.remove("filter");
        shown.insert("name".to_owned(), name.into());
        let origin = match built_in(ty, name) {
            None => "user-created",
            Some(default) if default == properties => "builtin",
            Some(_) => "modified-builtin",
        };
        shown.insert("origin".to_owned(), origin.into());
        if ty == "webhook" {
            let secrets = self
                .secrets(name)
                .map(|secret| Value::from(secret.without_value()));
            let secrets: Vec<Value> = secrets.collect();
            match secrets.is_empty() {
                true => shown.remove("secret"),
                false => shown.insert("secret".to_owned(), secrets.into()),
            };
        }
        Ok(shown)
    }

    fn secrets(&self, name: &str) -> impl Iterator<Item = NamedValue> {
        let section = self.private.get_typed("webhook", name);
        let secrets = section.into_iter().flat_map(|section| {
            let secrets = texts(&section.properties, "secret");
            // one that makes no sense is said where it is used
            secrets.filter_map(|text| NamedValue::parse(text).ok())
        });
        Vec::from_iter(secrets).into_iter()
    }

    /// All entries of a type as the API shows them: in file order, what is built in last.
    #[must_use]
    pub fn list(&self, ty: &str) -> Vec<Map<String, Value>> {
        let names = self.names(ty);
        names
            .iter()
            .filter_map(|name| self.get(ty, name).ok())
            .collect()
    }

    /// All targets as the API shows them.
    #[must_use]
    pub fn targets(&self) -> Vec<Map<String, Value>> {
        let mut targets = Vec::new();
        for ty in TARGET_TYPES {
            for mut target in self.list(ty) {
                target.retain(|key, _| {
                    matches!(key.as_str(), "name" | "origin" | "comment" | "disable")
                });
                target.insert("type".to_owned(), ty.into());
                targets.push(target);
            }
        }
        targets
    }

    /// A target with its secrets, to send to.
    ///
    /// # Errors
    /// When there is none, or its settings make no sense.
    pub fn target(&self, name: &str) -> Result<Target, SettingsError> {
        let ty = self
            .target_type(name)
            .ok_or_else(|| SettingsError::NotFound(format!("endpoint '{name}' does not exist")))?;
        let properties = self.properties(ty, name).unwrap_or_default();
        let private = self.private.get_typed(ty, name);
        let private = private.map(|section| section.properties.clone());
        Target::of(ty, name, &properties, &private.unwrap_or_default())
            .map_err(|reason| refused(format!("target '{name}': {reason}")))
    }

    /// The matchers. One whose directives make no sense is left out and named in the second list: it must not keep the others from
    /// being asked.
    #[must_use]
    pub fn matchers(&self) -> (Vec<Matcher>, Vec<String>) {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for name in self.names(MATCHER) {
            let properties = self.properties(MATCHER, &name).unwrap_or_default();
            match Matcher::of(&name, &properties) {
                Ok(matcher) => good.push(matcher),
                Err(reason) => bad.push(format!("matcher '{name}': {reason}")),
            }
        }
        (good, bad)
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// When the name is taken or the settings make no sense.
    pub fn create(
        &mut self,
        ty: &str,
        name: &str,
        properties: &Map<String, Value>,
    ) -> Result<(), SettingsError> {
        let is_taken =
            self.public.get(name).is_some() || [BUILT_IN_TARGET, BUILT_IN_MATCHER].contains(&name);
        if is_taken {
            return Err(refused(format!(
                "Cannot create '{name}', an entity with the same name already exists"
            )));
        }
        // A secret that is left of another of this name is not its.
        self.private.remove(name);
        let change = Change {
            properties,
            delete: &[],
        };
        self.store(ty, name, Map::new(), change)
    }

    /// Changes an entry.
    ///
    /// # Errors
    /// When there is none, or its settings make no sense then.
    pub fn update(&mut self, ty: &str, name: &str, change: Change) -> Result<(), SettingsError> {
        let mut properties = self.properties(ty, name).ok_or_else(|| missing(ty, name))?;
        for key in change.delete {
            properties.remove(key);
        }
        self.store(ty, name, properties, change)
    }

    fn store(
        &mut self,
        ty: &str,
        name: &str,
        mut properties: Map<String, Value>,
        change: Change,
    ) -> Result<(), SettingsError> {
        self.store_secrets(ty, name, change)?;
        for (key, value) in change.properties {
            let is_secret = matches!(
                (ty, key.as_str()),
                ("smtp", "password") | ("gotify", "token") | ("webhook", "secret")
            );
            let is_empty = match (key.as_str(), value) {
                ("comment", Value::String(text)) => text.trim().is_empty(),
                (_, Value::Array(values)) => values.is_empty(),
                (_, value) => value.is_null(),
            };
            match (is_secret, is_empty) {
                (true, _) => {}
                (false, true) => {
                    properties.remove(key);
                }
                (false, false) => {
                    properties.insert(key.clone(), value.clone());
                }
            }
        }
        self.check(ty, name, &properties)?;
        self.public.set(ty, name, properties).map_err(refused)
    }

    fn store_secrets(&mut self, ty: &str, name: &str, change: Change) -> Result<(), SettingsError> {
        let key = match ty {
            "smtp" => "password",
            "gotify" => "token",
            "webhook" => "secret",
            _ => return Ok(()),
        };
        let is_deleted = change.delete.iter().any(|deleted| deleted == key);
        let stored = self.private.get_typed(ty, name).is_some();
        let value = match change.properties.get(key) {
            Some(Value::Array(given)) => {
                let given = given.iter().filter_map(Value::as_str);
                Some(self.named_secrets(name, given)?)
            }
            Some(value) => Some(value.clone()),
            None if is_deleted || !stored => None,
            None => return Ok(()),
        };
        let mut private = Map::new();
        if let Some(value) = value {
            private.insert(key.to_owned(), value);
        }
        self.private.set(ty, name, private).map_err(refused)
    }

    /// The secrets of a webhook: those that are given without a value stay what they are.
    fn named_secrets<'a>(
        &self,
        name: &str,
        given: impl Iterator<Item = &'a str>,
    ) -> Result<Value, SettingsError> {
        let mut secrets: Vec<NamedValue> = Vec::new();
        for text in given {
            let mut secret = NamedValue::parse(text).map_err(refused)?;
            if secret.value.is_none() {
                let mut known = self.secrets(name);
                secret = known
                    .find(|known| known.name == secret.name)
                    .ok_or_else(|| refused(format!("secret '{}' not known", secret.name)))?;
            }
            if secret.decoded().is_err() {
                return Err(refused(format!(
                    "secret '{}' does not have valid base64 encoded data",
                    secret.name
                )));
            }
            if secrets.iter().any(|other| other.name == secret.name) {
                return Err(refused(format!(
                    "secret '{}' defined multiple times",
                    secret.name
                )));
            }
            secrets.push(secret);
        }
        Ok(secrets
            .iter()
            .map(|secret| Value::from(secret.to_text()))
            .collect())
    }

    fn check(
        &self,
        ty: &str,
        name: &str,
        properties: &Map<String, Value>,
    ) -> Result<(), SettingsError> {
        let is_empty = |key: &str| texts(properties, key).next().is_none();
        match ty {
            "sendmail" | "smtp" if is_empty("mailto") && is_empty("mailto-user") => {
                return Err(refused(
                    "must at least provide one recipient, either in mailto or in mailto-user",
                ));
            }
            "webhook" => {
                for text in texts(properties, "header") {
                    let header = NamedValue::parse(text).map_err(refused)?;
                    if header.value.is_none() {
                        let name = header.name;
                        return Err(refused(format!("header '{name}' has empty value")));
                    }
                    if header.decoded().is_err() {
                        let name = header.name;
                        return Err(refused(format!(
                            "header '{name}' does not have valid base64 encoded data"
                        )));
                    }
                }
            }
            MATCHER => {
                Matcher::of(name, properties).map_err(refused)?;
                let unknown = texts(properties, "target").find(|t| self.target_type(t).is_none());
                if let Some(target) = unknown {
                    return Err(SettingsError::NotFound(format!(
                        "endpoint '{target}' does not exist"
                    )));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Removes an entry; one that is built in has its default settings again then.
    ///
    /// # Errors
    /// When there is none, or a matcher names it.
    pub fn remove(&mut self, ty: &str, name: &str) -> Result<(), SettingsError> {
        if self.properties(ty, name).is_none() {
            return Err(missing(ty, name));
        }
        if ty != MATCHER && built_in(ty, name).is_none() {
            let matchers = self.list(MATCHER).into_iter();
            let users = matchers
                .filter(|matcher| texts(matcher, "target").any(|target| target == name))
                .filter_map(|matcher| matcher.get("name")?.as_str().map(str::to_owned));
            let users: Vec<String> = users.collect();
            if !users.is_empty() {
                return Err(refused(format!(
                    "cannot delete '{name}', referenced by: {}",
                    users.join(", ")
                )));
            }
        }
        self.public.remove(name);
        if self.private.get_typed(ty, name).is_some() {
            self.private.remove(name);
        }
        Ok(())
    }
}

fn missing(ty: &str, name: &str) -> SettingsError {
    SettingsError::NotFound(format!("{} '{name}' not found", word(ty)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn update(
        settings: &mut Settings,
        (ty, name): (&str, &str),
        set: Value,
        delete: &[&str],
    ) -> Result<(), String> {
        let delete: Vec<String> = delete.iter().map(|key| (*key).to_owned()).collect();
        let change = Change {
            properties: &map(set),
            delete: &delete,
        };
        settings
            .update(ty, name, change)
            .map_err(|err| err.to_string())
    }

    fn with_hook() -> Settings {
        let mut settings = Settings::default();
        let hook = map(
            json!({ "method": "post", "url": "http://x/", "secret": ["name=a,value=aHVzaA==", "name=b,value=Yg=="] }),
        );
        settings.create("webhook", "hook", &hook).unwrap();
        settings
    }

    #[test]
    fn what_is_built_in_is_there_until_it_is_changed_and_again_when_it_is_removed() {
        let mut settings = Settings::default();
        let origin = |settings: &Settings| settings.targets()[0]["origin"].clone();
        assert_eq!(origin(&settings), "builtin");
        assert!(settings.public.is_empty());
        let target = ("sendmail", BUILT_IN_TARGET);
        update(&mut settings, target, json!({ "comment": "x" }), &[]).unwrap();
        assert_eq!(origin(&settings), "modified-builtin");
        settings.remove("sendmail", BUILT_IN_TARGET).unwrap();
        assert_eq!(origin(&settings), "builtin");
        assert_eq!(settings.matchers().0[0].targets, [BUILT_IN_TARGET]);
    }

    #[test]
    fn a_secret_stays_unless_it_is_replaced_and_is_never_shown() {
        let mut settings = with_hook();
        let hook = ("webhook", "hook");
        let shown = settings.get("webhook", "hook").unwrap();
        assert_eq!(shown["secret"], json!(["name=a", "name=b"]));
        update(&mut settings, hook, json!({ "comment": "c" }), &[]).unwrap();
        update(&mut settings, hook, json!({ "secret": ["name=a"] }), &[]).unwrap();
        let section = settings.private.get("hook").unwrap();
        assert_eq!(
            section.properties["secret"],
            json!(["name=a,value=aHVzaA=="])
        );
        for (secret, wanted) in [
            (json!(["name=c"]), "secret 'c' not known"),
            (
                json!(["name=a", "name=a"]),
                "secret 'a' defined multiple times",
            ),
            (
                json!(["name=a,value=%"]),
                "secret 'a' does not have valid base64 encoded data",
            ),
        ] {
            let error = update(&mut settings, hook, json!({ "secret": secret }), &[]);
            assert_eq!(error.unwrap_err(), wanted);
        }
        update(&mut settings, hook, json!({}), &["secret"]).unwrap();
        assert!(
            !settings
                .get("webhook", "hook")
                .unwrap()
                .contains_key("secret")
        );
        let text = settings.public.to_text("notifications.cfg").unwrap();
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn a_target_that_a_matcher_names_stays() {
        let mut settings = with_hook();
        let matcher = map(json!({ "target": ["hook"] }));
        settings.create(MATCHER, "match", &matcher).unwrap();
        let error = settings.remove("webhook", "hook").unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot delete 'hook', referenced by: match"
        );
        settings.remove(MATCHER, "match").unwrap();
        settings.remove("webhook", "hook").unwrap();
        assert!(settings.private.is_empty());
    }

    #[test]
    fn names_recipients_and_targets_are_checked() {
        let mut settings = with_hook();
        for (ty, name, properties, wanted) in [
            (
                "gotify",
                "hook",
                json!({}),
                "Cannot create 'hook', an entity with the same name already exists",
            ),
            (
                MATCHER,
                BUILT_IN_TARGET,
                json!({}),
                "Cannot create 'mail-to-root', an entity with the same name already exists",
            ),
            (
                "sendmail",
                "m",
                json!({}),
                "must at least provide one recipient, either in mailto or in mailto-user",
            ),
            (
                MATCHER,
                "m",
                json!({ "target": ["nope"] }),
                "endpoint 'nope' does not exist",
            ),
        ] {
            let error = settings.create(ty, name, &map(properties)).unwrap_err();
            assert_eq!(error.to_string(), wanted);
        }
        assert_eq!(
            settings.get("smtp", "hook").unwrap_err().to_string(),
            "endpoint 'hook' not found"
        );
    }

    #[test]
    fn one_broken_matcher_does_not_silence_the_others() {
        let text = "matcher: bad\n\tmatch-severity bogus\n\ttarget mail-to-root\n";
        let settings = Settings {
            public: SectionConfig::parse(NOTIFICATIONS, "notifications.cfg", text).unwrap(),
            ..Settings::default()
        };
        let (good, bad) = settings.matchers();
        assert_eq!(good.len(), 1);
        assert_eq!(bad, ["matcher 'bad': invalid severity bogus"]);
    }
}
