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

use backstop_outgoing::{HttpClient, Refusal, Route};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::notification::Notification;
use crate::target::{Target, TargetKind};
use crate::templates::Templates;

/// How long a receiver may take for one step of an attempt.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long one attempt may take, whatever the receiver does meanwhile.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Least characters of an encoded secret that are masked.
const SHORTEST_ENCODED: usize = 4;

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
    /// How long one attempt may take; see [`LIMIT`].
    pub limit: Duration,
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
    /// It failed, and the receiver says when to come back.
    #[error("{reason}")]
    Busy {
        /// Why.
        reason: String,
        /// How long it wants to be left alone.
        wait: Duration,
    },
    /// It is this message that is not taken, or that cannot be made; others may be.
    #[error("{0}")]
    Refused(String),
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
        timeout: TIMEOUT.min(surroundings.limit),
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
        for encoded in within_base64(secret.as_bytes()) {
            text = text.replace(&encoded, "***");
        }
    }
    text
}

/// What Base64 makes of a secret within something longer, wherever it begins there. Digits that other bytes have a part in are left
/// out.
fn within_base64(secret: &[u8]) -> impl Iterator<Item = String> + '_ {
    let encoded = (0..3_usize).map(move |before| {
        let bytes = [vec![0; before], secret.to_vec()].concat();
        let text = STANDARD_NO_PAD.encode(&bytes);
        // Six bits a digit.
        let (begin, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
        text.get(begin..end).unwrap_or_default().to_owned()
    });
    encoded.filter(|text| text.len() >= SHORTEST_ENCODED)
}

/// What becomes of a refusal by an HTTP server.
fn refused<'a>(refusal: &Refusal, secrets: impl IntoIterator<Item = &'a str>) -> SendError {
    let reason = masked(&refusal.reason, secrets);
    match refusal.retry_after {
        _ if refusal.is_final => SendError::Refused(reason),
        Some(wait) => SendError::Busy { reason, wait },
        None => SendError::Failed(reason),
    }
}

#[cfg(test)]
mod mail_tests;
#[cfg(test)]
mod tests;
