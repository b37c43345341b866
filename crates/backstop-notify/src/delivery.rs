//! Sending a notification to a target, once. Blocking.
//!
//! What comes back says whether it arrived; no error holds a secret. An HTTP server that does not answer with 2xx has not got it.

mod gotify;
mod mail;
mod sendmail;
mod smtp;
mod webhook;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use backstop_outgoing::{HttpClient, Route};

use crate::notification::Notification;
use crate::target::{Target, TargetKind};
use crate::templates::Templates;

/// How long one attempt may take.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// What targets need to know of the host.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Name of the host, without domain.
    pub node: String,
    /// Name of the host with its domain.
    pub fqdn: String,
    /// Sender of mail that names none.
    pub mail_from: Option<String>,
    /// How HTTP servers are reached.
    pub route: Route,
    /// Mail addresses of users.
    pub mail_of: BTreeMap<String, String>,
    /// The program that sends mail.
    pub sendmail: PathBuf,
    /// The texts.
    pub templates: Templates,
}

/// Why a notification did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is nobody to send it to: mail for users of whom no address is known.
    #[error("nobody has an address: {0}")]
    Nobody(String),
    /// It failed, and may not fail later.
    #[error("{0}")]
    Failed(String),
}

impl Target {
    /// Sends a notification, whether the target is disabled or not.
    ///
    /// # Errors
    /// When it did not arrive.
    pub fn send(
        &self,
        notification: &Notification,
        surroundings: &Surroundings,
    ) -> Result<(), SendError> {
        match &self.kind {
            TargetKind::Sendmail(mail) => sendmail::send(mail, notification, surroundings),
            TargetKind::Smtp(mail, server) => smtp::send(mail, server, notification, surroundings),
            TargetKind::Gotify(server) => gotify::send(server, notification, surroundings),
            TargetKind::Webhook(hook) => webhook::send(hook, notification, surroundings),
        }
    }
}

fn http_client(surroundings: &Surroundings) -> HttpClient {
    HttpClient {
        route: surroundings.route.clone(),
        timeout: TIMEOUT,
        ..HttpClient::default()
    }
}

/// Replaces secrets in a text, the longest first, so that no part of one stays.
fn masked<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    let mut secrets: Vec<&str> = secrets
        .into_iter()
        .filter(|secret| !secret.is_empty())
        .collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let mut text = text.to_owned();
    for secret in secrets {
        text = text.replace(secret, "***");
        let encoded = webhook::url_encoded(secret);
        text = text.replace(&encoded, "***");
    }
    text
}

#[cfg(test)]
mod tests;
