//! InfluxDB's line protocol, and the ways of lines to a server: HTTP (version 2 of its API) and UDP.
//!
//! Measurements, tags and fields are those of a stock server, so that boards and databases go on as they are. Numbers are
//! written without a suffix, as floats: a database refuses a field that changes its type.

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::time::Duration;

use backstop_outgoing::answer::refusal;
use backstop_outgoing::{HttpClient, RequestError};
use hyper::Request;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// Bytes of a datagram that headers take.
const HEADERS: usize = 50;
/// How long an HTTP server may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One line: a measurement with tags and fields.
#[derive(Debug, Clone)]
pub(super) struct Line {
    head: String,
    fields: String,
}

impl Line {
    /// A line of the host `node`.
    pub fn new(measurement: &str, node: &str) -> Self {
        let line = Self {
            head: escaped(measurement, &[',', ' ']),
            fields: String::new(),
        };
        line.tag("object", "host").tag("host", node)
    }

    /// The line with one more tag.
    pub fn tag(mut self, key: &str, value: &str) -> Self {
        let marks = [',', '=', ' '];
        let (key, value) = (escaped(key, &marks), escaped(value, &marks));
        // Writing to a string does not fail.
        let _ = write!(self.head, ",{key}={value}");
        self
    }

    /// The line with one more number; what is no number is left out.
    pub fn number(self, key: &str, value: f64) -> Self {
        if value.is_finite() {
            self.field(key, &value.to_string())
        } else {
            self
        }
    }

    /// The line with one more text.
    pub fn text(self, key: &str, value: &str) -> Self {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        self.field(key, &format!("\"{value}\""))
    }

    fn field(mut self, key: &str, value: &str) -> Self {
        let comma = if self.fields.is_empty() { "" } else { "," };
        let _ = write!(
            self.fields,
            "{comma}{}={value}",
            escaped(key, &[',', '=', ' '])
        );
        self
    }

    /// The line as it is sent, with its end; `time` in seconds since 1970. `None` without a field, which no line may be.
    pub fn finish(&self, time: i64) -> Option<String> {
        let nanoseconds = time.checked_mul(1_000_000_000)?;
        (!self.fields.is_empty()).then(|| format!("{} {} {nanoseconds}\n", self.head, self.fields))
    }
}

/// With a backslash before each of these marks; a line ends nowhere but at its end.
fn escaped(text: &str, marks: &[char]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for mark in text.chars().filter(|mark| *mark != '\n') {
        if marks.contains(&mark) {
            escaped.push('\\');
        }
        escaped.push(mark);
    }
    escaped
}

/// Lines together, as many as fit into `limit` bytes each time; one that is too long goes alone.
pub(super) fn batches(lines: &[String], limit: usize) -> Vec<String> {
    let mut batches: Vec<String> = Vec::new();
    for line in lines {
        match batches.last_mut() {
            Some(last) if last.len() + line.len() <= limit => last.push_str(line),
            _ => batches.push(line.clone()),
        }
    }
    batches
}

/// Why a metric server did not get anything. Never holds the token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    /// No answer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The answer is a refusal.
    #[error("{0}")]
    Refused(String),
    /// The settings make no request.
    #[error("the settings make no request - {0}")]
    Settings(#[from] hyper::http::Error),
    /// The URL is none.
    #[error("'{0}' is no URL")]
    Url(String),
    /// Datagrams cannot be sent.
    #[error("unable to send to {host} - {error}")]
    Udp {
        /// Host and port.
        host: String,
        /// Why.
        error: std::io::Error,
    },
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MetricServer {
    /// Datagrams.
    Udp {
        /// `host:port`.
        host: String,
        /// Largest packet of the network, in bytes.
        mtu: usize,
    },
    /// Requests.
    Http {
        /// Without a slash at its end.
        url: String,
        /// Token of the database.
        token: Option<String>,
        organization: String,
        bucket: String,
        /// Most bytes of a request.
        max_body_size: usize,
        verify_tls: bool,
    },
}

impl MetricServer {
    /// Sends lines. Blocking.
    ///
    /// # Errors
    /// When they did not arrive, as far as that can be known: nobody says so of datagrams.
    pub fn send(&self, lines: &[String]) -> Result<(), ForwardError> {
        match self {
            Self::Udp { host, mtu } => {
                let failed = |error| ForwardError::Udp {
                    host: host.clone(),
                    error,
                };
                let socket = udp(host).map_err(failed)?;
                for batch in batches(lines, mtu.saturating_sub(HEADERS)) {
                    socket.send(batch.as_bytes()).map_err(failed)?;
                }
                Ok(())
            }
            Self::Http {
                organization,
                bucket,
                max_body_size,
                ..
            } => {
                let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
                let path = format!(
                    "/api/v2/write?org={}&bucket={}",
                    encoded(organization),
                    encoded(bucket)
                );
                for batch in batches(lines, *max_body_size) {
                    self.request("POST", &path, batch.into_bytes())?;
                }
                Ok(())
            }
        }
    }

    /// Tests whether the server can be reached. Blocking.
    ///
    /// # Errors
    /// When it cannot.
    pub fn test(&self) -> Result<(), ForwardError> {
        match self {
            Self::Udp { host, .. } => match udp(host) {
                Ok(_) => Ok(()),
                Err(error) => Err(ForwardError::Udp {
                    host: host.clone(),
                    error,
                }),
            },
            Self::Http { .. } => self.request("GET", "/health", Vec::new()),
        }
    }

    fn request(&self, method: &str, path: &str, body: Vec<u8>) -> Result<(), ForwardError> {
        let Self::Http {
            url,
            token,
            verify_tls,
            ..
        } = self
        else {
            return Ok(());
        };
        let uri: hyper::Uri = format!("{url}{path}")
            .parse()
            .map_err(|_| ForwardError::Url(url.clone()))?;
        let mut request = Request::builder()
            .method(method)
            .uri(uri.clone())
            .header(CONTENT_TYPE, "text/plain; charset=utf-8");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Token {token}"));
        }
        let client = HttpClient {
            timeout: TIMEOUT,
            verify: *verify_tls,
            ..HttpClient::default()
        };
        let answer = client.send_blocking(request.body(body)?)?;
        let secrets: Vec<&str> = token.iter().map(String::as_str).collect();
        match refusal(&answer, &uri, &secrets) {
            Some(refusal) => Err(ForwardError::Refused(refusal.reason)),
            None => Ok(()),
        }
    }
}

/// A socket that sends to a host.
fn udp(host: &str) -> std::io::Result<UdpSocket> {
    let mut last = std::io::Error::other("the name has no address");
    for address in std::net::ToSocketAddrs::to_socket_addrs(host)? {
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let connected = UdpSocket::bind(any).and_then(|socket| {
            socket.connect(address)?;
            Ok(socket)
        });
        match connected {
            Ok(socket) => return Ok(socket),
            Err(err) => last = err,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_line_has_the_form_that_the_database_reads() {
        let line = Line::new("blockstat", "pbs 1")
            .tag("datastore", "a,b=c")
            .number("total", 12.0)
            .number("share", 0.25)
            .number("nonsense", f64::NAN)
            .text("device", "e\"th\\0");
        assert_eq!(
            line.finish(1_700_000_000).unwrap(),
            "blockstat,object=host,host=pbs\\ 1,datastore=a\\,b\\=c total=12,share=0.25,device=\"e\\\"th\\\\0\" 1700000000000000000\n"
        );
        assert_eq!(Line::new("empty", "n").finish(1), None);
        assert_eq!(Line::new("m", "n").number("x", 1.0).finish(i64::MAX), None);
        let broken = Line::new("m\n", "n\nm2 x=1")
            .number("x", 1.0)
            .finish(1)
            .unwrap();
        assert_eq!(broken.matches('\n').count(), 1);
    }

    #[test]
    fn lines_are_sent_together_as_far_as_they_fit() {
        let lines: Vec<String> = ["aaaa", "bbbb", "cccccccccccc", "d"]
            .map(str::to_owned)
            .into();
        assert_eq!(batches(&lines, 8), ["aaaabbbb", "cccccccccccc", "d"]);
        assert_eq!(batches(&lines, 0).len(), 4);
        assert!(batches(&[], 8).is_empty());
    }
}
