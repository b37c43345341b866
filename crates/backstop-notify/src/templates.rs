//! From a notification to the words that are sent: subject, text and, where a template for it exists, HTML.
//!
//! Templates are Handlebars, named as on stock servers: `NAME-subject.txt.hbs`, `NAME-body.txt.hbs`, `NAME-body.html.hbs`. Files in
//! the folder of overrides go before the texts that are built in. A template that is broken or missing never keeps a notification from
//! being sent: the next best text is taken.

mod built_in;
mod helpers;

use std::path::{Path, PathBuf};

use handlebars::{Handlebars, no_escape};
use serde_json::Value;

use crate::notification::{Content, Notification};
use crate::repeats::{MORE_REASONS, RECOVERED, REPEATED, SINCE};
use built_in::BUILT_IN;
use helpers::Form;

/// Largest template that is read, in bytes.
const MAX_TEMPLATE: u64 = 1 << 20;

/// What templates are told of work that ended with warnings: how many. The subject says so, too.
pub const WARNINGS: &str = "warnings";

/// A notification in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// One line.
    pub subject: String,
    /// Plain text.
    pub text: String,
    /// A page in HTML; the plain text in a frame when there is no template for one.
    pub html: String,
}

/// Where templates come from.
#[derive(Debug, Clone, Default)]
pub struct Templates {
    overrides: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Subject,
    Text,
    Html,
}

impl Part {
    fn file_name(self, template: &str) -> String {
        match self {
            Self::Subject => format!("{template}-subject.txt.hbs"),
            Self::Text => format!("{template}-body.txt.hbs"),
            Self::Html => format!("{template}-body.html.hbs"),
        }
    }

    fn form(self) -> Form {
        match self {
            Self::Html => Form::Html,
            Self::Subject | Self::Text => Form::Text,
        }
    }
}

impl Templates {
    /// The texts that are built in, and before them those in this folder, which need not exist.
    #[must_use]
    pub fn with_overrides(folder: impl Into<PathBuf>) -> Self {
        Self {
            overrides: Some(folder.into()),
        }
    }

    /// A notification in words. Says there, too, how often it repeats, and that it ends an earlier failure.
    #[must_use]
    pub fn render(&self, notification: &Notification) -> Rendered {
        let mut rendered = match &notification.content {
            Content::Template {
                template_name,
                data,
            } => self.render_template(template_name, data),
            Content::ForwardedMail { title, body, .. } => Rendered {
                subject: one_line(title),
                text: body.clone(),
                html: framed(body),
            },
        };
        let warnings = notification.data().and_then(|data| data.get(WARNINGS));
        if let Some(count) = warnings.and_then(Value::as_u64).filter(|count| *count > 0) {
            let s = if count == 1 { "" } else { "s" };
            rendered.subject = format!("{} with {count} warning{s}", rendered.subject);
        }
        if notification
            .data()
            .is_some_and(|data| data.get(MORE_REASONS).is_some())
        {
            rendered.subject = format!("{}, and for more reasons than are told", rendered.subject);
        }
        if notification.field(RECOVERED).is_some() {
            rendered.subject = format!("Recovered: {}", rendered.subject);
        }
        if let Some(count) = notification.field(REPEATED) {
            let since = notification.data().and_then(|data| data.get(SINCE));
            let since = since.and_then(Value::as_i64).map(helpers::timestamp);
            let since = since.map_or_else(String::new, |since| format!(" since {since}"));
            rendered.subject = format!("{} ({count} times{since})", rendered.subject);
        }
        rendered
    }

    fn render_template(&self, template: &str, data: &Value) -> Rendered {
        let subject = self.part(Part::Subject, template, data);
        let text = self
            .part(Part::Text, template, data)
            .unwrap_or_else(|| raw(data));
        let html = self.part(Part::Html, template, data);
        Rendered {
            subject: subject.map_or_else(
                || format!("Notification '{}'", one_line(template)),
                |s| one_line(&s),
            ),
            html: html.unwrap_or_else(|| framed(&text)),
            text,
        }
    }

    /// The best text there is for a part; `None` without any.
    fn part(&self, part: Part, template: &str, data: &Value) -> Option<String> {
        let name = part.file_name(template);
        let own = self
            .overrides
            .as_deref()
            .and_then(|folder| read(folder, &name));
        if let Some(source) = own {
            match render(&source, part.form(), data) {
                Ok(text) => return Some(text),
                Err(reason) => {
                    tracing::error!(
                        "the template {name} in the folder of overrides is not used: {reason}"
                    );
                }
            }
        }
        let (_, subject, text) = BUILT_IN.iter().find(|(known, _, _)| *known == template)?;
        let source = match part {
            Part::Subject => subject,
            Part::Text => text,
            Part::Html => return None,
        };
        match render(source, part.form(), data) {
            Ok(text) => Some(text),
            Err(reason) => {
                tracing::error!(
                    "the template {name} cannot be used with what it is given: {reason}"
                );
                None
            }
        }
    }
}

/// A file in the folder of overrides. A name that is no plain file name has none.
fn read(folder: &Path, name: &str) -> Option<String> {
    if name.contains('/') || name.starts_with('.') {
        return None;
    }
    let path = folder.join(name);
    let size = std::fs::metadata(&path).ok()?.len();
    let text = match size <= MAX_TEMPLATE {
        true => std::fs::read_to_string(&path),
        false => Err(std::io::ErrorKind::FileTooLarge.into()),
    };
    text.inspect_err(|err| tracing::error!("unable to read the template {path:?} - {err}"))
        .ok()
}

fn render(source: &str, form: Form, data: &Value) -> Result<String, String> {
    let mut handlebars = Handlebars::new();
    handlebars.set_recursive_lookup(false);
    if form == Form::Text {
        handlebars.register_escape_fn(no_escape);
    }
    helpers::register(&mut handlebars, form);
    handlebars
        .render_template(source, data)
        .map_err(|err| err.to_string())
}

fn one_line(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    text.trim().to_owned()
}

fn framed(text: &str) -> String {
    let text = handlebars::html_escape(text);
    format!("<html><body><pre>{text}</pre></body></html>")
}

/// What a template would have been given, for one that there is none for.
fn raw(data: &Value) -> String {
    serde_json::to_string_pretty(data).unwrap_or_default()
}

#[cfg(test)]
mod tests;
