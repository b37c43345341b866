//! Ready-made webhooks for services that many use: the request that each expects, so that nobody has to find it out again.
//!
//! A recipe makes the settings of an ordinary webhook target, which can be changed afterwards as any other. What is secret about a
//! service becomes a secret of the target.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::named_value::NamedValue;

/// What a recipe has to be told.
#[derive(Debug, Clone, Copy)]
pub struct Ingredient {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// What it is unless somebody says otherwise; empty: it can be left out. `None`: it is needed.
    pub default: Option<&'static str>,
    /// Whether it is a secret.
    pub is_secret: bool,
}

/// A ready-made webhook.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// What it has to be told.
    pub ingredients: &'static [Ingredient],
    url: &'static str,
    /// Name, value and, when it depends on one, the ingredient without which it is left out.
    headers: &'static [(&'static str, &'static str, Option<&'static str>)],
    body: &'static str,
}

const JSON: (&str, &str, Option<&str>) = ("Content-Type", "application/json", None);

const fn needed(name: &'static str, help: &'static str) -> Ingredient {
    Ingredient {
        name,
        help,
        default: None,
        is_secret: false,
    }
}

const fn with_default(name: &'static str, help: &'static str, default: &'static str) -> Ingredient {
    Ingredient {
        default: Some(default),
        ..needed(name, help)
    }
}

const fn secret(name: &'static str, help: &'static str) -> Ingredient {
    Ingredient {
        is_secret: true,
        ..needed(name, help)
    }
}

/// All recipes, by name.
pub const RECIPES: &[Recipe] = &[
    Recipe {
        name: "alertmanager",
        about: "Prometheus Alertmanager: a failure fires an alert, its recovery resolves it.",
        ingredients: &[
            needed(
                "url",
                "Address of the Alertmanager, such as http://alerts.example.com:9093.",
            ),
            Ingredient {
                default: Some(""),
                ..secret("token", "Bearer token, if it asks for one.")
            },
        ],
        url: "%{url}/api/v2/alerts",
        headers: &[
            JSON,
            ("Authorization", "Bearer {{ secrets.token }}", Some("token")),
        ],
        body: include_str!("recipe/alertmanager.json.hbs"),
    },
    Recipe {
        name: "keep",
        about: "Keep: a failure fires an alert, its recovery resolves it.",
        ingredients: &[
            with_default("url", "Address of Keep's API.", "https://api.keephq.dev"),
            secret("api-key", "API key of a webhook."),
        ],
        url: "%{url}/alerts/event",
        headers: &[JSON, ("X-API-KEY", "{{ secrets.api-key }}", None)],
        body: include_str!("recipe/keep.json.hbs"),
    },
    Recipe {
        name: "ntfy",
        about: "ntfy.sh, or an ntfy server of your own: failures come with a high priority.",
        ingredients: &[
            with_default("url", "Address of the server.", "https://ntfy.sh"),
            needed(
                "topic",
                "The topic to publish to; whoever knows it can read along.",
            ),
            Ingredient {
                default: Some(""),
                ..secret("token", "Access token, if the topic needs one.")
            },
        ],
        url: "%{url}/",
        headers: &[
            JSON,
            ("Authorization", "Bearer {{ secrets.token }}", Some("token")),
        ],
        body: include_str!("recipe/ntfy.json.hbs"),
    },
    Recipe {
        name: "slack",
        about: "A Slack channel, by an incoming webhook. Mattermost and Rocket.Chat take the same.",
        ingredients: &[secret("url", "The URL of the incoming webhook.")],
        url: "{{ secrets.url }}",
        headers: &[JSON],
        body: include_str!("recipe/slack.json.hbs"),
    },
    Recipe {
        name: "teams",
        about: "A channel of Microsoft Teams, by a workflow that posts what a webhook gets.",
        ingredients: &[secret("url", "The URL of the workflow.")],
        url: "{{ secrets.url }}",
        headers: &[JSON],
        body: include_str!("recipe/teams.json.hbs"),
    },
    Recipe {
        name: "telegram",
        about: "A Telegram chat, by a bot.",
        ingredients: &[
            secret("token", "The token of the bot."),
            needed("chat-id", "The chat: a number, or @NAME of a channel."),
            with_default(
                "url",
                "Address of the interface for bots.",
                "https://api.telegram.org",
            ),
        ],
        url: "%{url}/bot{{ secrets.token }}/sendMessage",
        headers: &[JSON],
        body: include_str!("recipe/telegram.json.hbs"),
    },
];

/// The recipe of this name.
///
/// # Errors
/// When there is none; names those that there are.
pub fn find(name: &str) -> Result<&'static Recipe, String> {
    RECIPES
        .iter()
        .find(|recipe| recipe.name == name)
        .ok_or_else(|| {
            let names: Vec<&str> = RECIPES.iter().map(|recipe| recipe.name).collect();
            format!(
                "there is no recipe '{name}'; there are: {}",
                names.join(", ")
            )
        })
}

impl Recipe {
    /// The settings of a webhook target, from what the recipe has to be told.
    ///
    /// # Errors
    /// When something is missing, unknown or makes no sense. No secret is repeated.
    pub fn settings(&self, given: &BTreeMap<String, String>) -> Result<Map<String, Value>, String> {
        let known = |name: &str| self.ingredients.iter().any(|known| known.name == name);
        if let Some(unknown) = given.keys().find(|name| !known(name)) {
            return Err(format!("the recipe '{}' takes no '{unknown}'", self.name));
        }
        let mut values = BTreeMap::new();
        for ingredient in self.ingredients {
            let name = ingredient.name;
            let value = given.get(name).map(|value| value.trim());
            let value = value
                .filter(|value| !value.is_empty())
                .or(ingredient.default);
            let value = value.ok_or_else(|| {
                format!(
                    "the recipe '{}' needs '{name}': {}",
                    self.name, ingredient.help
                )
            })?;
            if value.chars().any(char::is_control) {
                return Err(format!("'{name}' is to be one line of text"));
            }
            if !ingredient.is_secret && value.contains("{{") {
                return Err(format!("'{name}' must not be a template"));
            }
            if name == "url" && !(value.starts_with("https://") || value.starts_with("http://")) {
                return Err("'url' is to begin with https:// or http://".to_owned());
            }
            values.insert(name, value.to_owned());
        }
        let has = |name: &str| values.get(name).is_some_and(|value| !value.is_empty());
        let fill = |template: &str, in_json: bool| {
            let mut text = template.to_owned();
            for ingredient in self.ingredients.iter().filter(|known| !known.is_secret) {
                let value = values.get(ingredient.name).map_or("", String::as_str);
                let value = match in_json {
                    true => {
                        let quoted = Value::from(value).to_string();
                        quoted
                            .get(1..quoted.len() - 1)
                            .unwrap_or_default()
                            .to_owned()
                    }
                    false => value.trim_end_matches('/').to_owned(),
                };
                text = text.replace(&format!("%{{{}}}", ingredient.name), &value);
            }
            text
        };
        let headers = self.headers.iter();
        let headers = headers
            .filter(|(_, _, condition)| condition.is_none_or(has))
            .map(|(name, value, _)| Value::from(NamedValue::new(name, value).to_text()));
        let secrets = self
            .ingredients
            .iter()
            .filter(|known| known.is_secret && has(known.name));
        let secrets = secrets.map(|known| {
            let value = values.get(known.name).map_or("", String::as_str);
            Value::from(NamedValue::new(known.name, value).to_text())
        });
        let mut settings = Map::new();
        let mut set = |name: &str, value: Value| settings.insert(name.to_owned(), value);
        set("method", "post".into());
        set("url", fill(self.url, false).into());
        set("header", headers.collect());
        set("body", STANDARD.encode(fill(self.body, true)).into());
        set("secret", secrets.collect());
        Ok(settings)
    }

    /// The request as it is configured, to be read: URL, headers and body, with the names of secrets in the place of secrets.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("POST {}\n", self.url);
        for (name, value, _) in self.headers {
            text.push_str(&format!("{name}: {value}\n"));
        }
        format!("{text}\n{}", self.body)
    }
}
