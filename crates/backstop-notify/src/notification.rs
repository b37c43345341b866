//! One notification: what happened, how bad it is, and what its text is made from.
//!
//! On disk it has the form of stock servers, so that what one program leaves behind the other sends.
//! Format: `docs/formats/notifications.md`. Nothing here decides who is told.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// All is well.
    Info,
    /// Worth knowing.
    Notice,
    /// Somebody has to look at it some time.
    Warning,
    /// Something failed.
    Error,
    /// Nobody knows, as for mail of other programs.
    Unknown,
}

impl Severity {
    /// All of them, from the least.
    pub const ALL: [Self; 5] = [
        Self::Info,
        Self::Notice,
        Self::Warning,
        Self::Error,
        Self::Unknown,
    ];

    /// Its name in configurations.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it tells of something that is not as it should be.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Warning | Self::Error)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Severity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|severity| severity.as_str() == text)
            .ok_or_else(|| format!("invalid severity {text}"))
    }
}

/// What the text is made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// A template with what goes into it.
    #[serde(rename_all = "kebab-case")]
    Template {
        /// Name of the template.
        template_name: String,
        /// A JSON object of what the template may show.
        data: Value,
    },
    /// A mail of another program.
    #[serde(rename_all = "kebab-case")]
    ForwardedMail {
        /// The mail as it came.
        raw: Vec<u8>,
        /// Its subject.
        title: String,
        /// Its text.
        body: String,
        /// As whom it was given to `sendmail`.
        #[serde(default)]
        uid: Option<u32>,
    },
}

/// A notification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Notification {
    /// Tells it from all others.
    pub id: Uuid,
    /// When it happened, in seconds since the epoch.
    pub time: i64,
    /// How bad it is.
    pub severity: Severity,
    /// What matchers look at, such as `type` and `datastore`.
    pub fields: BTreeMap<String, String>,
    /// What its text is made from.
    pub content: Content,
    /// The only target; empty: nobody but those whom it ends a failure for; `None` when matchers choose.
    pub to: Option<String>,
}

impl Notification {
    /// A new one of a moment.
    #[must_use]
    pub fn new(
        time: i64,
        severity: Severity,
        template: &str,
        data: Value,
        fields: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Self {
        let fields = fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        Self {
            id: Uuid::new_v4(),
            time,
            severity,
            fields: fields.collect(),
            content: Content::Template {
                template_name: template.to_owned(),
                data,
            },
            to: None,
        }
    }

    /// The value of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// Whether only a matcher that asks for its type gets it: what happens many times a day, and what stock servers do not tell of.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.template() == "backup-ok"
    }

    /// The name of its template, or `system-mail`.
    #[must_use]
    pub fn template(&self) -> &str {
        match &self.content {
            Content::Template { template_name, .. } => template_name,
            Content::ForwardedMail { .. } => "system-mail",
        }
    }

    /// What its template may show.
    #[must_use]
    pub fn data(&self) -> Option<&Value> {
        match &self.content {
            Content::Template { data, .. } => Some(data),
            Content::ForwardedMail { .. } => None,
        }
    }

    /// Adds something that its template may show.
    pub fn show(&mut self, name: &str, value: Value) {
        if let Content::Template {
            data: Value::Object(data),
            ..
        } = &mut self.content
        {
            data.insert(name.to_owned(), value);
        }
    }
}

/// The form on disk.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    content: Content,
    metadata: Metadata,
    id: Uuid,
    /// Stock servers do not know it, and let their matchers choose.
    #[serde(
        default,
        rename = "backstop-to",
        skip_serializing_if = "Option::is_none"
    )]
    to: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Metadata {
    severity: Severity,
    timestamp: i64,
    #[serde(default)]
    additional_fields: BTreeMap<String, String>,
}

impl From<Stored> for Notification {
    fn from(stored: Stored) -> Self {
        Self {
            id: stored.id,
            time: stored.metadata.timestamp,
            severity: stored.metadata.severity,
            fields: stored.metadata.additional_fields,
            content: stored.content,
            to: stored.to,
        }
    }
}

impl From<Notification> for Stored {
    fn from(notification: Notification) -> Self {
        Self {
            content: notification.content,
            metadata: Metadata {
                severity: notification.severity,
                timestamp: notification.time,
                additional_fields: notification.fields,
            },
            id: notification.id,
            to: notification.to,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Made up after the form that stock servers write.
    const STOCK: &str = r#"{"content":{"template":{"template-name":"gc-err","data":{"datastore":"store1","error":"no","hostname":"vm","fqdn":"vm.example.com","base-url":"https://vm.example.com:8007"}}},"metadata":{"severity":"error","timestamp":1700000000,"additional-fields":{"type":"gc","datastore":"store1","hostname":"vm"}},"id":"2f8a9a1e-7d3e-4b36-a6a3-0a8a4c1cbb6f"}"#;

    #[test]
    fn what_a_stock_server_left_behind_is_read_and_written_alike() {
        let notification: Notification = serde_json::from_str(STOCK).unwrap();
        assert_eq!(notification.template(), "gc-err");
        assert_eq!(notification.field("datastore"), Some("store1"));
        let written = serde_json::to_value(&notification).unwrap();
        assert_eq!(written, serde_json::from_str::<Value>(STOCK).unwrap());
    }

    #[test]
    fn a_forwarded_mail_is_read() {
        let text = r#"{"content":{"forwarded-mail":{"raw":[83],"title":"t","body":"b","uid":null}},"metadata":{"severity":"unknown","timestamp":1,"additional-fields":{}},"id":"2f8a9a1e-7d3e-4b36-a6a3-0a8a4c1cbb6f"}"#;
        let notification: Notification = serde_json::from_str(text).unwrap();
        assert_eq!(notification.template(), "system-mail");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(name in "[a-z-]{1,20}", value in "\\PC{0,30}", time in any::<i64>()) {
            let fields = [("type", value.clone())];
            let notification = Notification::new(time, Severity::Warning, &name, json!({ "a": value }), fields);
            let text = serde_json::to_string(&notification).unwrap();
            prop_assert_eq!(serde_json::from_str::<Notification>(&text).unwrap(), notification);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = serde_json::from_str::<Notification>(&text);
        }
    }
}
