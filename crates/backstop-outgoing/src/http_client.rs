//! One HTTP/1.1 request at a time to somebody else's server. Redirects are not followed, and neither time nor size of an answer is
//! unbounded.
//!
//! Errors name the server and never the rest of a URL: paths and queries of push receivers and web hooks are secrets.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::dial::connect_tcp;
use crate::proxy::{ProxyAddress, ProxyAddressError};
use crate::tls::{self, Trust, without_brackets};

/// How long a proxy may take before the server is asked without it.
const PROXY_LIMIT: Duration = Duration::from_secs(4);

/// Why a request had no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The URL cannot be used.
    #[error("the URL cannot be used - {0}")]
    Url(&'static str),
    /// No connection could be made.
    #[error("unable to connect to {server} - {reason}")]
    Connect {
        /// Scheme, host and port.
        server: String,
        /// What went wrong.
        reason: String,
    },
    /// The server is not trusted, or does not speak TLS.
    #[error("no trusted TLS connection to {server} - {reason}")]
    Tls {
        /// Scheme, host and port.
        server: String,
        /// What went wrong.
        reason: String,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("no answer from {server} - {reason}")]
    Exchange {
        /// Scheme, host and port.
        server: String,
        /// What went wrong.
        reason: String,
    },
    /// The time is over.
    #[error("no answer from {server} within {limit:?}")]
    Timeout {
        /// Scheme, host and port.
        server: String,
        /// The limit of the whole request.
        limit: Duration,
    },
    /// The answer is larger than allowed.
    #[error("the answer of {server} is larger than {limit} bytes")]
    TooLarge {
        /// Scheme, host and port.
        server: String,
        /// Most bytes.
        limit: usize,
    },
    /// Nothing can be sent from here.
    #[error("unable to prepare a request - {0}")]
    Local(String),
}

/// How requests reach a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Route {
    /// Straight on.
    #[default]
    Direct,
    /// Through a proxy, and in no other way: what `ALL_PROXY` asks for.
    Proxy(ProxyAddress),
    /// Through the proxy of this host's settings; where that cannot reach the server, which may be one in its own network,
    /// straight on, as stock servers do.
    ProxyFirst(ProxyAddress),
}

impl Route {
    /// The route that the environment of the process asks for, or else `configured`, the proxy of the host's settings.
    ///
    /// # Errors
    /// When the proxy in the environment makes no sense.
    pub fn of_host(configured: Option<ProxyAddress>) -> Result<Self, ProxyAddressError> {
        let of_process = ["all_proxy", "ALL_PROXY"]
            .iter()
            .filter_map(|name| std::env::var(name).ok())
            .find(|value| !value.is_empty());
        match of_process {
            Some(proxy) => proxy.parse().map(Self::Proxy),
            None => Ok(configured.map_or(Self::Direct, Self::ProxyFirst)),
        }
    }

    /// A connection to a server, and nothing sent on it.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, String> {
        let through = async |proxy: &ProxyAddress| {
            let server = format!("{host}:{port}");
            proxy.connect(&server).await.map_err(|err| err.to_string())
        };
        match self {
            Self::Direct => connect_tcp(without_brackets(host), port).await,
            Self::Proxy(proxy) => through(proxy).await,
            Self::ProxyFirst(proxy) => {
                let stream = timeout(PROXY_LIMIT, through(proxy)).await;
                match stream.unwrap_or_else(|_| Err(format!("the proxy {proxy} does not answer"))) {
                    Ok(stream) => Ok(stream),
                    Err(reason) => {
                        tracing::debug!("{reason}; connecting to {host} directly");
                        connect_tcp(without_brackets(host), port)
                            .await
                            .map_err(|direct| format!("{reason}; directly: {direct}"))
                    }
                }
            }
        }
    }
}

/// What happens to an answer that is larger than [`HttpClient::max_answer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// The request fails.
    Refuse,
    /// The rest is not read: for answers whose status is what matters.
    Cut,
}

/// Makes requests.
#[derive(Debug, Clone)]
pub struct HttpClient {
    /// How servers are reached.
    pub route: Route,
    /// Limit of one whole request: look-up of the name, connection, answer.
    pub timeout: Duration,
    /// Whether certificates are verified. Switching that off gives every secret of a request to whoever answers.
    pub verify: bool,
    /// A PEM file whose certificates are trusted beside the system's authorities (a directory: in their place).
    pub authorities: Option<PathBuf>,
    /// The name that the certificate has to be valid for, in place of the host in the URL: for servers that are addressed by IP.
    pub server_name: Option<String>,
    /// Most bytes of an answer.
    pub max_answer: usize,
    /// What becomes of larger ones.
    pub excess: Excess,
}

impl Default for HttpClient {
    /// Direct, verified by the system's authorities, 10 seconds, 64 KiB of which the rest is not read.
    fn default() -> Self {
        Self {
            route: Route::Direct,
            timeout: Duration::from_secs(10),
            verify: true,
            authorities: None,
            server_name: None,
            max_answer: 64 << 10,
            excess: Excess::Cut,
        }
    }
}

/// A URL, taken apart.
struct Target {
    is_tls: bool,
    host: String,
    port: u16,
    /// Without credentials.
    authority: String,
    credentials: Option<String>,
}

impl Target {
    fn of(uri: &Uri) -> Result<Self, RequestError> {
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => {
                return Err(RequestError::Url(
                    "it begins neither with http:// nor with https://",
                ));
            }
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let (credentials, authority) = match authority.rsplit_once('@') {
            Some((credentials, authority)) => (Some(credentials), authority),
            None => (None, authority),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or(RequestError::Url("it names no host"))?;
        Ok(Self {
            is_tls,
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            authority: authority.to_owned(),
            credentials: credentials
                .map(|text| percent_decode_str(text).decode_utf8_lossy().into_owned()),
        })
    }

    fn shown(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }
}

impl HttpClient {
    /// Sends a request whose URI is a whole URL, and waits for the answer, whatever its status is. Must not be called on a
    /// thread of an async runtime; there is [`Self::send`] for those.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn send_blocking(
        &self,
        request: Request<Vec<u8>>,
    ) -> Result<Response<Vec<u8>>, RequestError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|err| RequestError::Local(err.to_string()))?;
        let answer = runtime.block_on(self.send(request));
        // A name server that does not answer must not hold up the caller any longer.
        runtime.shutdown_background();
        answer
    }

    /// As [`Self::send_blocking`], for async callers.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, RequestError> {
        let target = Target::of(request.uri())?;
        let answer = timeout(self.timeout, self.exchange(&target, request)).await;
        answer.unwrap_or_else(|_| {
            Err(RequestError::Timeout {
                server: target.shown(),
                limit: self.timeout,
            })
        })
    }

    async fn exchange(
        &self,
        target: &Target,
        request: Request<Vec<u8>>,
    ) -> Result<Response<Vec<u8>>, RequestError> {
        let stream = self.route.connect(&target.host, target.port).await;
        let stream = stream.map_err(|reason| RequestError::Connect {
            server: target.shown(),
            reason,
        })?;
        if !target.is_tls {
            return self.exchange_on(stream, target, request).await;
        }
        let failed = |reason: String| RequestError::Tls {
            server: target.shown(),
            reason,
        };
        let expected = self.server_name.as_deref().unwrap_or(&target.host);
        let name = ServerName::try_from(without_brackets(expected).to_owned())
            .map_err(|_| failed(format!("{expected:?} is no name of a server")))?;
        let (expected, verify, path) = (expected.to_owned(), self.verify, self.authorities.clone());
        // Reads certificates.
        let config = tokio::task::spawn_blocking(move || {
            let trust = match &path {
                _ if !verify => Trust::Anybody,
                Some(path) => Trust::Path(path),
                None => Trust::System,
            };
            tls::client_config(&expected, trust)
        });
        let config = config.await.map_err(|err| failed(err.to_string()))?;
        let config = config.map_err(|err| failed(err.to_string()))?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await;
        let stream = stream.map_err(|err| failed(chain(&err)))?;
        self.exchange_on(stream, target, request).await
    }

    async fn exchange_on<S>(
        &self,
        stream: S,
        target: &Target,
        request: Request<Vec<u8>>,
    ) -> Result<Response<Vec<u8>>, RequestError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let failed = |reason: String| RequestError::Exchange {
            server: target.shown(),
            reason,
        };
        let request = prepared(target, request)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|err| failed(chain(&err)))?;
        let driver = tokio::spawn(connection);
        let answer = async {
            let answer = sender.send_request(request).await;
            let (head, body) = answer.map_err(|err| failed(chain(&err)))?.into_parts();
            let body = self.body(target, body).await?;
            Ok(Response::from_parts(head, body))
        };
        let answer = answer.await;
        driver.abort();
        answer
    }

    async fn body(&self, target: &Target, mut body: Incoming) -> Result<Vec<u8>, RequestError> {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|err| RequestError::Exchange {
                server: target.shown(),
                reason: chain(&err),
            })?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            let left = self.max_answer - bytes.len();
            if data.len() > left {
                if self.excess == Excess::Refuse {
                    return Err(RequestError::TooLarge {
                        server: target.shown(),
                        limit: self.max_answer,
                    });
                }
                bytes.extend_from_slice(data.get(..left).unwrap_or_default());
                break;
            }
            bytes.extend_from_slice(data);
        }
        Ok(bytes)
    }
}

/// The request as it goes over the line: a path instead of a whole URL, and the headers that every request has.
fn prepared(
    target: &Target,
    request: Request<Vec<u8>>,
) -> Result<Request<Full<Bytes>>, RequestError> {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri = path
        .parse()
        .map_err(|_| RequestError::Url("its path is malformed"))?;
    let host = HeaderValue::from_str(&target.authority)
        .map_err(|_| RequestError::Url("its host is malformed"))?;
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = head.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = head.headers;
    let headers = request.headers_mut();
    if let (Some(credentials), false) = (&target.credentials, headers.contains_key(AUTHORIZATION)) {
        let value = format!("Basic {}", STANDARD.encode(credentials));
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| RequestError::Url("its credentials are malformed"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    if !headers.contains_key(HOST) {
        headers.insert(HOST, host);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if !headers.contains_key(USER_AGENT) {
        headers.insert(USER_AGENT, HeaderValue::from_static("backstop"));
    }
    Ok(request)
}

/// The text of an error and of its causes, joined by `: `; a cause that the text already ends with is not repeated.
pub fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        let more = err.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = err.source();
    }
    text
}
