//! A request whose parts are templates.
//!
//! Templates know what those of stock servers know: `title`, `message`, `severity`, `timestamp`, `fields`, `secrets`, and the helpers
//! `url-encode`, `escape` and `json`; beside that `time`, the moment in RFC 3339, `excerpt`, the beginning of a message that is long,
//! for services that take no long ones, and `slack-escape`, as `escape` for what Slack would take for markup.

use backstop_outgoing::answer::refusal;
use handlebars::{
    Context, Handlebars, Helper, HelperResult, Output, RenderContext, RenderErrorReason, no_escape,
};
use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue, Request, Uri};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Value, json};

use super::{SendError, Surroundings, http_client, masked, refused};
use crate::notification::Notification;
use crate::target::Webhook;

/// What stands for itself in no part of a URL.
const RESERVED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'!')
    .add(b'"')
    .add(b'#')
    .add(b'$')
    .add(b'%')
    .add(b'&')
    .add(b'\'')
    .add(b'(')
    .add(b')')
    .add(b'*')
    .add(b'+')
    .add(b',')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

pub(super) fn url_encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Most characters of an excerpt.
const EXCERPT: usize = 1500;
/// Most bytes of one: ntfy takes 4096.
const EXCERPT_BYTES: usize = 4000;

fn excerpt(message: &str) -> String {
    let message = message.trim_end();
    let mut ends = message.char_indices().enumerate();
    let end = ends.find(|(count, (at, c))| {
        *count == EXCERPT || at.saturating_add(c.len_utf8()) > EXCERPT_BYTES
    });
    match end {
        Some((_, (end, _))) => format!("{} …", message.get(..end).unwrap_or_default()),
        None => message.to_owned(),
    }
}

fn in_json(text: &str) -> String {
    let json = Value::from(text).to_string();
    json.get(1..json.len() - 1).unwrap_or_default().to_owned()
}

/// Text in which Slack sees no markup of its own, such as a call to everybody in a channel.
fn without_markup(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn value<'a>(helper: &'a Helper<'_>, name: &'static str) -> Result<&'a Value, RenderErrorReason> {
    let parameter = helper.param(0);
    parameter
        .map(|parameter| parameter.value())
        .ok_or(RenderErrorReason::ParamNotFoundForIndex(name, 0))
}

/// A value as text: a missing one is empty.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn expander() -> Handlebars<'static> {
    type Function = fn(&Value) -> String;
    let functions: [(&str, Function); 4] = [
        ("url-encode", |value| url_encoded(&text(value))),
        ("json", Value::to_string),
        ("escape", |value| in_json(&text(value))),
        ("slack-escape", |value| {
            in_json(&without_markup(&text(value)))
        }),
    ];
    let mut handlebars = Handlebars::new();
    handlebars.register_escape_fn(no_escape);
    for (name, function) in functions {
        let helper = move |helper: &Helper<'_>,
                           _: &Handlebars<'_>,
                           _: &Context,
                           _: &mut RenderContext<'_, '_>,
                           out: &mut dyn Output|
              -> HelperResult {
            out.write(&function(value(helper, name)?))?;
            Ok(())
        };
        handlebars.register_helper(name, Box::new(helper));
    }
    handlebars
}

/// The request that goes out.
///
/// # Errors
/// When a template is broken, or what it makes cannot be sent. Without secrets.
pub(super) fn request(
    hook: &Webhook,
    notification: &Notification,
    surroundings: &Surroundings,
) -> Result<Request<Vec<u8>>, SendError> {
    let secrets = || hook.secrets.iter().map(|secret| secret.value.as_str());
    let failed = |reason: String| SendError::Refused(masked(&reason, secrets()));
    let rendered = surroundings.templates.render(notification);
    let by_name: serde_json::Map<String, Value> = hook
        .secrets
        .iter()
        .map(|secret| (secret.name.clone(), secret.value.clone().into()))
        .collect();
    let time = Timestamp::from_second(notification.time).unwrap_or(Timestamp::UNIX_EPOCH);
    let data = json!({
        "title": rendered.subject,
        "message": rendered.text,
        "severity": notification.severity.as_str(),
        "timestamp": notification.time,
        "time": time.to_string(),
        "excerpt": excerpt(&rendered.text),
        "fields": notification.fields,
        "secrets": by_name,
    });
    let handlebars = expander();
    let expand = |what: &str, template: &str| {
        let expanded = handlebars.render_template(template, &data);
        expanded.map_err(|err| failed(format!("failed to render webhook {what}: {err}")))
    };
    let url: Uri = expand("url", &hook.url)?
        .trim()
        .parse()
        .map_err(|err| failed(format!("the expanded URL is none - {err}")))?;
    let body = expand("body", &hook.body)?;
    let mut request = Request::new(body.into_bytes());
    *request.uri_mut() = url;
    *request.method_mut() = match hook.method {
        "GET" => http::Method::GET,
        "PUT" => http::Method::PUT,
        _ => http::Method::POST,
    };
    for (name, template) in &hook.headers {
        let value = expand(&format!("header '{name}'"), template)?;
        let broken = |what: &str| failed(format!("header '{name}': its {what} cannot be sent"));
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| broken("name"))?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| broken("value"))?;
        request.headers_mut().append(header, value);
    }
    let length = request.body().len();
    let has_length = request.headers().contains_key(CONTENT_LENGTH);
    if !has_length && (hook.method != "GET" || length > 0) {
        request
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(request)
}

pub(super) fn send(
    hook: &Webhook,
    notification: &Notification,
    surroundings: &Surroundings,
) -> Result<(), SendError> {
    let request = request(hook, notification, surroundings)?;
    let secrets = || hook.secrets.iter().map(|secret| secret.value.as_str());
    let failed = |reason: String| SendError::Failed(masked(&reason, secrets()));
    let url = request.uri().clone();
    let answer = http_client(surroundings)
        .send_blocking(request)
        .map_err(|err| failed(err.to_string()))?;
    match refusal(&answer, &url, &secrets().collect::<Vec<_>>()) {
        None => Ok(()),
        Some(refusal) => Err(refused(&refusal, secrets())),
    }
}
