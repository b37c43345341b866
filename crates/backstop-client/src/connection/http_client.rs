//! Requests to the REST interface over HTTP/1.1, with login and kept connections.
//!
//! Parameters of GET, PUT and DELETE go into the query string, those of POST into a JSON body.
//! A request that may have reached the server is never sent twice, except a GET.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, RwLock};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::dial::Dialer;
use super::options::ClientOptions;
use crate::error::{ClientError, Result};
use crate::login::{self, Credentials};

/// Limit for one request and its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a server may take to tell which certificate comes next.
const CERTIFICATE_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest answer of the REST interface that is read.
const MAX_ANSWER: usize = 256 << 20;

/// Idle connections that are kept.
const MAX_IDLE: usize = 4;

const PRODUCT: HeaderValue = HeaderValue::from_static("proxmox-backup-client/1.0");

/// What is escaped in cookies and token secrets.
const CREDENTIAL_SET: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'`')
    .add(b'?')
    .add(b'{')
    .add(b'}');

const QUERY_SET: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Escapes a text for use as one component of a request path, e.g. a UPID.
pub fn encode_path_component(text: &str) -> String {
    utf8_percent_encode(text, QUERY_SET).to_string()
}

/// A logged-in client of one server. Clones share connections and ticket.
#[derive(Clone)]
pub struct HttpClient {
    shared: Arc<Shared>,
}

struct Shared {
    dialer: Dialer,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    credentials: RwLock<Option<Credentials>>,
    renewal: Mutex<Option<tokio::task::AbortHandle>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(renewal) = self.renewal.get_mut() {
            renewal.abort();
        }
    }
}

/// A complete answer.
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl HttpClient {
    /// Connects and logs in; tickets are renewed in the background as long as the client lives.
    ///
    /// # Errors
    /// Network, trust and login failures.
    pub async fn connect(options: ClientOptions) -> Result<Self> {
        let client = Self::without_login(options);
        let (credentials, renewable) = login::log_in(&client).await?;
        *client.shared.credentials.write() = Some(credentials);
        if renewable {
            let task = tokio::spawn(login::keep_renewing(Arc::downgrade(&client.shared).into()));
            *client.shared.renewal.lock() = Some(task.abort_handle());
        } else {
            // A ticket proves itself at login; a token has to be tried, so that a wrong one is told here.
            client.warm_up().await?;
        }
        client.learn_of_certificates().await;
        Ok(client)
    }

    /// Asks a pinned server which certificate comes next. Servers that do not know the call are as good as those that say nothing.
    async fn learn_of_certificates(&self) {
        if self.options().pins.is_none() || self.options().fingerprint.is_none() {
            return;
        }
        let answer = tokio::time::timeout(
            CERTIFICATE_TIMEOUT,
            self.get("backstop/certificate", Value::Null),
        )
        .await;
        match answer {
            Ok(Ok(answer)) => match serde_json::from_value(answer) {
                Ok(status) => self.shared.dialer.tell(status).await,
                Err(error) => tracing::debug!("the status of the server's certificate: {error}"),
            },
            Ok(Err(error)) => {
                tracing::debug!("the server says nothing of its certificate: {error}")
            }
            Err(_) => tracing::debug!("the server says nothing of its certificate in time"),
        }
    }

    /// A client that sends no credentials; connects at the first request.
    pub(crate) fn without_login(options: ClientOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                dialer: Dialer::new(options),
                idle: Mutex::new(Vec::new()),
                credentials: RwLock::new(None),
                renewal: Mutex::new(None),
            }),
        }
    }

    /// Opens a connection, so that network and trust problems show before anything else is done.
    async fn warm_up(&self) -> Result<()> {
        let sender = self.open().await?;
        self.keep(sender);
        Ok(())
    }

    /// The options that this client was made with.
    pub fn options(&self) -> &ClientOptions {
        self.shared.dialer.options()
    }

    /// Opens a connection of its own, for a protocol upgrade.
    pub(crate) fn dialer(&self) -> &Dialer {
        &self.shared.dialer
    }

    pub(crate) fn credentials(&self) -> Option<Credentials> {
        self.shared.credentials.read().clone()
    }

    pub(crate) fn set_credentials(&self, credentials: Credentials) {
        *self.shared.credentials.write() = Some(credentials);
    }

    /// GET; `path` is relative to `/api2/json/`. Returns the answer's `data`.
    ///
    /// # Errors
    /// Network failures, and [`ClientError::Status`] with the server's text.
    pub async fn get(&self, path: &str, params: Value) -> Result<Value> {
        self.request(Method::GET, path, params).await.map(data)
    }

    /// GET of what is too long to hold it as JSON values first.
    ///
    /// # Errors
    /// As [`Self::get`]; the answer's `data` is not a `T`.
    pub async fn get_as<T: DeserializeOwned>(&self, path: &str, params: Value) -> Result<T> {
        #[derive(serde::Deserialize)]
        struct Envelope<T> {
            data: T,
        }
        let body = self.download(path, params).await?;
        let envelope: Envelope<T> =
            serde_json::from_slice(&body).map_err(|error| ClientError::Protocol {
                request: format!("GET {path}"),
                reason: error.to_string(),
            })?;
        Ok(envelope.data)
    }

    /// PUT; see [`Self::get`].
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn put(&self, path: &str, params: Value) -> Result<Value> {
        self.request(Method::PUT, path, params).await.map(data)
    }

    /// POST with a JSON body; see [`Self::get`].
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post(&self, path: &str, params: Value) -> Result<Value> {
        self.request(Method::POST, path, params).await.map(data)
    }

    /// DELETE; see [`Self::get`].
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn delete(&self, path: &str, params: Value) -> Result<Value> {
        self.request(Method::DELETE, path, params).await.map(data)
    }

    /// Any request; returns the whole envelope (`data` and attributes such as `digest`, `total`).
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn request(&self, method: Method, path: &str, params: Value) -> Result<Value> {
        let (query, body, content_type) = if method == Method::POST {
            let body = match params {
                Value::Null => "{}".to_owned(),
                params => params.to_string(),
            };
            (String::new(), body.into(), "application/json")
        } else {
            (
                to_query(&params),
                Bytes::new(),
                "application/x-www-form-urlencoded",
            )
        };
        self.json(method, path, &query, body, content_type).await
    }

    /// POST of a raw body, e.g. a backup log; parameters go into the query. Returns the whole envelope.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn upload(&self, path: &str, params: Value, body: Bytes) -> Result<Value> {
        let query = to_query(&params);
        self.json(Method::POST, path, &query, body, "application/octet-stream")
            .await
    }

    /// GET of a raw file, e.g. a blob of a snapshot.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn download(&self, path: &str, params: Value) -> Result<Bytes> {
        let answer = self
            .send(
                Method::GET,
                path,
                &to_query(&params),
                Bytes::new(),
                "application/x-www-form-urlencoded",
            )
            .await?;
        Ok(answer.body)
    }

    async fn json(
        &self,
        method: Method,
        path: &str,
        query: &str,
        body: Bytes,
        content_type: &'static str,
    ) -> Result<Value> {
        let request = format!("{method} {path}");
        let answer = self.send(method, path, query, body, content_type).await?;
        if answer.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer.body).map_err(|error| ClientError::Protocol {
            request,
            reason: format!("not JSON: {error}"),
        })
    }

    /// Sends a request with credentials; an error status becomes an error.
    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &str,
        body: Bytes,
        content_type: &'static str,
    ) -> Result<Answer> {
        let answer = self
            .exchange(method.clone(), path, query, body, content_type)
            .await?;
        check_status(&method, path, answer)
    }

    /// Sends a request with the credentials at hand and reads the answer, whatever its status.
    pub(crate) async fn exchange(
        &self,
        method: Method,
        path: &str,
        query: &str,
        body: Bytes,
        content_type: &'static str,
    ) -> Result<Answer> {
        loop {
            // Outside of the time limit: connecting has its own, and may have to ask the user.
            let (sender, reused) = match self.take_idle() {
                Some(sender) => (sender, true),
                None => (self.open().await?, false),
            };
            let mut request = self
                .head(&method, path, query)?
                .body(Full::new(body.clone()))
                .map_err(|error| request_failed(&method, path, error.to_string()))?;
            request
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            let work = self.send_over(sender, request, &method, path, reused);
            match tokio::time::timeout(REQUEST_TIMEOUT, work).await {
                Ok(Ok(Some(answer))) => return Ok(answer),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    return Err(ClientError::Timeout {
                        method: method.to_string(),
                        path: path.to_owned(),
                        server: self.options().server(),
                        seconds: REQUEST_TIMEOUT.as_secs(),
                    });
                }
            }
        }
    }

    /// Sends a request over one connection. `None`: the server had closed the kept connection, and the request was not sent
    /// or is harmless to repeat.
    async fn send_over(
        &self,
        mut sender: SendRequest<Full<Bytes>>,
        request: Request<Full<Bytes>>,
        method: &Method,
        path: &str,
        reused: bool,
    ) -> Result<Option<Answer>> {
        let answer = match sender.send_request(request).await {
            Ok(answer) => answer,
            Err(error)
                if reused
                    && (error.is_canceled() || error.is_closed() || *method == Method::GET) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(request_failed(method, path, describe(&error))),
        };
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| request_failed(method, path, format!("reading the answer: {error}")))?
            .to_bytes();
        self.keep(sender);
        Ok(Some(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }))
    }

    /// Method, address and credentials of a request.
    pub(crate) fn head(
        &self,
        method: &Method,
        path: &str,
        query: &str,
    ) -> Result<http::request::Builder> {
        let mut uri = format!("/api2/json/{path}");
        if !query.is_empty() {
            uri.push('?');
            uri.push_str(query);
        }
        let mut builder = Request::builder()
            .method(method.clone())
            .uri(uri)
            .header(HOST, self.options().server())
            .header(USER_AGENT, PRODUCT);
        match &*self.shared.credentials.read() {
            Some(Credentials::Token { id, secret }) => {
                let value = format!(
                    "PBSAPIToken {id}:{}",
                    utf8_percent_encode(secret, CREDENTIAL_SET)
                );
                builder = builder.header(AUTHORIZATION, sensitive(&value)?);
            }
            Some(Credentials::Ticket(ticket)) => {
                let cookie = format!(
                    "{}={}",
                    ticket.cookie_name,
                    utf8_percent_encode(&ticket.ticket, CREDENTIAL_SET)
                );
                builder = builder
                    .header(COOKIE, sensitive(&cookie)?)
                    .header("CSRFPreventionToken", sensitive(&ticket.token)?);
            }
            None => {}
        }
        Ok(builder)
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.shared.idle.lock();
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.shared.idle.lock();
        if !sender.is_closed() && idle.len() < MAX_IDLE {
            idle.push(sender);
        }
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>> {
        let stream = self.shared.dialer.dial().await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| ClientError::ConnectionLost {
                    server: self.options().server(),
                    reason: describe(&error),
                })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("connection ended: {}", describe(&error));
            }
        });
        sender
            .ready()
            .await
            .map_err(|error| ClientError::ConnectionLost {
                server: self.options().server(),
                reason: describe(&error),
            })?;
        Ok(sender)
    }
}

/// A client that does not keep itself alive, for the background renewal.
pub(crate) struct WeakClient(std::sync::Weak<Shared>);

impl From<std::sync::Weak<Shared>> for WeakClient {
    fn from(shared: std::sync::Weak<Shared>) -> Self {
        Self(shared)
    }
}

impl WeakClient {
    pub fn upgrade(&self) -> Option<HttpClient> {
        self.0.upgrade().map(|shared| HttpClient { shared })
    }
}

fn request_failed(method: &Method, path: &str, reason: String) -> ClientError {
    ClientError::Request {
        method: method.to_string(),
        path: path.to_owned(),
        reason,
    }
}

fn sensitive(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        ClientError::Invalid("the credentials contain unusable characters".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Turns an error status into an error with the server's text.
pub(crate) fn check_status(method: &Method, path: &str, answer: Answer) -> Result<Answer> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    Err(ClientError::Status {
        method: method.to_string(),
        path: path.to_owned(),
        status: answer.status.as_u16(),
        message: String::from_utf8_lossy(&answer.body).trim().to_owned(),
    })
}

/// The whole chain of an HTTP library error: the outermost text alone says little.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// The `data` member of an answer; null when absent.
pub(crate) fn data(envelope: Value) -> Value {
    match envelope {
        Value::Object(mut members) => members.remove("data").unwrap_or(Value::Null),
        _ => Value::Null,
    }
}

/// A JSON object as query string. Null members are left out, arrays repeat their key.
pub(crate) fn to_query(params: &Value) -> String {
    fn push(query: &mut String, key: &str, value: &Value) {
        let text = match value {
            Value::Null => return,
            Value::Array(items) => {
                for item in items {
                    push(query, key, item);
                }
                return;
            }
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if !query.is_empty() {
            query.push('&');
        }
        query.extend(utf8_percent_encode(key, QUERY_SET));
        query.push('=');
        query.extend(utf8_percent_encode(&text, QUERY_SET));
    }
    let mut query = String::new();
    if let Value::Object(members) = params {
        for (key, value) in members {
            push(&mut query, key, value);
        }
    }
    query
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_become_a_query_the_server_reads_back() {
        let query = to_query(&json!({
            "ns": "a/b", "flag": true, "n": 5, "none": null, "list": ["x y", "z&"], "u": "ä+%"
        }));
        let mut parts: Vec<&str> = query.split('&').collect();
        parts.sort_unstable();
        assert_eq!(
            parts,
            [
                "flag=true",
                "list=x%20y",
                "list=z%26",
                "n=5",
                "ns=a%2Fb",
                "u=%C3%A4%2B%25"
            ]
        );
        assert_eq!(to_query(&Value::Null), "");
    }

    #[test]
    fn a_upid_becomes_one_path_component() {
        assert_eq!(
            encode_path_component("UPID:h:a/b@c!d:"),
            "UPID%3Ah%3Aa%2Fb%40c%21d%3A"
        );
    }

    #[test]
    fn a_missing_data_member_counts_as_null() {
        assert_eq!(data(json!({"data": 1, "total": 2})), json!(1));
        assert_eq!(data(json!({"total": 2})), Value::Null);
        assert_eq!(data(Value::Null), Value::Null);
    }
}
