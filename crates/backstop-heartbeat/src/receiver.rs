//! The shapes of pushes: what Uptime Kuma and Healthchecks understand.
//!
//! | | Uptime Kuma | Healthchecks |
//! |---|---|---|
//! | end of a good run | `GET URL?status=up&msg=…&ping=MS` | `POST URL?rid=…`, or `POST URL/0?rid=…` with exit codes |
//! | end of a failed run | `GET URL?status=down&msg=…&ping=MS` | `POST URL/fail?rid=…`, or `POST URL/1?rid=…` |
//! | start of a run | nothing | `POST URL/start?rid=…`, if asked for |
//!
//! The body of a `POST` is the message.

use std::fmt;
use std::str::FromStr;

use http::header::CONTENT_TYPE;
use http::{Method, Request, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::run_id::RunId;

/// What goes into a query as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Parameters that a push sets itself; people copy URLs with them.
const OWN_PARAMETERS: [&str; 4] = ["status", "msg", "ping", "rid"];

/// The longest duration that Uptime Kuma is told, in milliseconds: 24 days. Before 2.1 it has a column of 32 bits for it; later
/// versions refuse a push with more than three years.
const LONGEST_PING: u64 = 2_147_483_647;

/// Why a URL is none of a receiver. Never holds the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the push URL cannot be used - {0}")]
pub struct UrlError(&'static str);

/// Who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Receiver {
    /// A push monitor of Uptime Kuma.
    #[default]
    UptimeKuma,
    /// A check of Healthchecks.
    Healthchecks,
}

impl Receiver {
    /// All of them, by name.
    pub const NAMES: [&str; 2] = ["uptime-kuma", "healthchecks"];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UptimeKuma => "uptime-kuma",
            Self::Healthchecks => "healthchecks",
        }
    }
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Receiver {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        match text {
            "uptime-kuma" => Ok(Self::UptimeKuma),
            "healthchecks" => Ok(Self::Healthchecks),
            _ => Err(UrlError(
                "its receiver is neither uptime-kuma nor healthchecks",
            )),
        }
    }
}

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// A run begins.
    Start,
    /// A run ended well.
    Up,
    /// A run failed.
    Down,
}

/// One push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// What is told.
    pub signal: Signal,
    /// In words, on one line.
    pub message: String,
    /// How long the run took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<u64>,
    /// Which run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

/// Whether a URL can be one of a receiver: `http` or `https`, with a host, and in a form that a request can hold.
///
/// # Errors
/// Why not.
pub fn check_url(url: &str) -> Result<Uri, UrlError> {
    let uri: Uri = url
        .split('#')
        .next()
        .unwrap_or_default()
        .parse()
        .map_err(|_| UrlError("it is no URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(UrlError("it begins neither with http:// nor with https://"));
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(UrlError("it names no host"));
    }
    Ok(uri)
}

/// What may be shown of a URL: scheme, host and port.
pub fn shown_server(url: &str) -> String {
    let Ok(uri) = check_url(url) else {
        return String::new();
    };
    let port = uri.port_u16().map(|port| format!(":{port}"));
    format!(
        "{}://{}{}",
        uri.scheme_str().unwrap_or_default(),
        uri.host().unwrap_or_default(),
        port.unwrap_or_default()
    )
}

impl Push {
    /// The request that tells a receiver at `url`; `None` where that receiver has no such signal.
    ///
    /// # Errors
    /// When the URL cannot be used.
    pub fn request(
        &self,
        receiver: Receiver,
        url: &str,
        with_exit_code: bool,
    ) -> Result<Option<Request<Vec<u8>>>, UrlError> {
        let uri = check_url(url)?;
        let mut query: Vec<String> = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .filter(|pair| {
                let name = pair.split('=').next().unwrap_or_default();
                !OWN_PARAMETERS.contains(&name)
            })
            .map(str::to_owned)
            .collect();
        let mut add = |name: &str, value: &str| {
            query.push(format!("{name}={}", utf8_percent_encode(value, QUERY)));
        };
        let mut path = uri.path().to_owned();
        let (method, body) = match receiver {
            Receiver::UptimeKuma => {
                let status = match self.signal {
                    Signal::Start => return Ok(None),
                    Signal::Up => "up",
                    Signal::Down => "down",
                };
                add("status", status);
                add("msg", &self.message);
                let ping = self
                    .duration
                    .map(|duration| duration.min(LONGEST_PING).to_string());
                add("ping", &ping.unwrap_or_default());
                (Method::GET, Vec::new())
            }
            Receiver::Healthchecks => {
                let below = match (self.signal, with_exit_code) {
                    (Signal::Start, _) => "/start",
                    (Signal::Up, false) => "",
                    (Signal::Up, true) => "/0",
                    (Signal::Down, false) => "/fail",
                    (Signal::Down, true) => "/1",
                };
                path.truncate(path.trim_end_matches('/').len());
                path.push_str(below);
                if let Some(run) = &self.run {
                    add("rid", &run.to_string());
                }
                (Method::POST, self.message.clone().into_bytes())
            }
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let scheme = uri.scheme_str().unwrap_or_default();
        let mut whole = format!("{scheme}://{authority}{path}");
        if !query.is_empty() {
            whole.push('?');
            whole.push_str(&query.join("&"));
        }
        let mut request = Request::builder().method(method).uri(whole);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "text/plain; charset=utf-8");
        }
        request
            .body(body)
            .map(Some)
            .map_err(|_| UrlError("no request can be made of it"))
    }
}
