//! What an answer says: whether the server took what it was sent, and what becomes of it otherwise.
//!
//! What is repeated of an answer never holds a secret of the request.

use std::fmt;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{Response, StatusCode, Uri};
use percent_encoding::percent_decode_str;

/// Most characters of an answer that an error repeats.
const EXCERPT: usize = 200;
/// Words of a URL that are shorter than this are not taken for secrets.
const SHORTEST_SECRET: usize = 8;

/// Why a server did not take what it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its status, and the beginning of its text.
    pub reason: String,
    /// Whether it is the content of this request that it will not take, today or tomorrow. Whoever is not let in, or is unknown there,
    /// may be some day: that says nothing of the content.
    pub is_final: bool,
    /// How long it wants to be left alone.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// The statuses by which a server says that the content is wrong.
const FINAL: [StatusCode; 8] = [
    StatusCode::BAD_REQUEST,
    StatusCode::NOT_ACCEPTABLE,
    StatusCode::LENGTH_REQUIRED,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::URI_TOO_LONG,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::UNPROCESSABLE_ENTITY,
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
];

/// Says why an answer is none that accepts what was sent; `None` for 2xx. Long parts of the URL and `secrets` are masked where the
/// server repeats them.
pub fn refusal(answer: &Response<Vec<u8>>, url: &Uri, secrets: &[&str]) -> Option<Refusal> {
    let status = answer.status();
    if status.is_success() {
        return None;
    }
    let text = excerpt(answer.body(), url, secrets);
    let colon = if text.is_empty() { "" } else { ": " };
    let retry_after = answer.headers().get(RETRY_AFTER);
    // The other form, a date, depends on the clocks of both.
    let retry_after = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Some(Refusal {
        reason: format!("the server answered {status}{colon}{text}"),
        is_final: FINAL.contains(&status),
        retry_after: retry_after.map(Duration::from_secs),
    })
}

/// The beginning of what a server answered, in one line. Long parts of the URL and `secrets` are masked.
pub fn excerpt(body: &[u8], url: &Uri, secrets: &[&str]) -> String {
    let mut text = String::from_utf8_lossy(body).into_owned();
    let path = url.path_and_query().map_or("", |path| path.as_str());
    let words = path
        .split(['/', '?', '&', '='])
        .filter(|word| word.len() >= SHORTEST_SECRET);
    let mut words: Vec<&str> = words.chain(secrets.iter().copied()).collect();
    // What contains another goes first.
    words.sort_by_key(|word| std::cmp::Reverse(word.len()));
    for word in words.iter().filter(|word| !word.is_empty()) {
        text = text.replace(word, "***");
        let decoded = percent_decode_str(word).decode_utf8_lossy();
        text = text.replace(&*decoded, "***");
    }
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(EXCERPT)
        .collect();
    text.trim().to_owned()
}
