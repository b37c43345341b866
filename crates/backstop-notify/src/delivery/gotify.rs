//! A message on a Gotify server.

use backstop_outgoing::answer::refusal;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::json;

use super::{SendError, Surroundings, http_client, masked, refused};
use crate::notification::{Notification, Severity};
use crate::target::Gotify;

/// As stock servers rate severities: Gotify shows a message from 4 on, and makes a noise from 8 on.
const fn priority(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 1,
        Severity::Notice | Severity::Unknown => 3,
        Severity::Warning => 5,
        Severity::Error => 9,
    }
}

pub(super) fn send(
    server: &Gotify,
    notification: &Notification,
    surroundings: &Surroundings,
) -> Result<(), SendError> {
    let rendered = surroundings.templates.render(notification);
    // A longer fence than any in the text keeps the text from ending it.
    let longest = rendered
        .text
        .split(|c| c != '`')
        .map(str::len)
        .max()
        .unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let body = json!({
        "title": rendered.subject,
        "message": format!("{fence}\n{}\n{fence}", rendered.text.trim_end()),
        "priority": priority(notification.severity),
        "extras": { "client::display": { "contentType": "text/markdown" } },
    });
    let failed = |reason: String| SendError::Failed(masked(&reason, [server.token.as_str()]));
    let url = format!("{}/message", server.server.trim_end_matches('/'));
    let request = Request::post(&url)
        .header(CONTENT_TYPE, "application/json")
        .header(AUTHORIZATION, format!("Bearer {}", server.token))
        .header("X-Gotify-Key", &server.token)
        .body(body.to_string().into_bytes())
        .map_err(|err| {
            failed(format!(
                "the server's URL or the token cannot be used - {err}"
            ))
        })?;
    let uri = request.uri().clone();
    let answer = http_client(surroundings)
        .send_blocking(request)
        .map_err(|err| failed(err.to_string()))?;
    match refusal(&answer, &uri, &[&server.token]) {
        None => Ok(()),
        Some(refusal) => Err(refused(&refusal, [server.token.as_str()])),
    }
}
