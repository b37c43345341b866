//! Requests to OpenID providers: HTTP/1.1, over TLS unless the realm's URL says otherwise. Redirects are not followed, and
//! neither time nor size of an answer is unbounded.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use backstop_client::connection::proxy::ProxyAddress;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::remote::node_proxy;
use crate::config::{ConfigStore, EditError};
use crate::outgoing_tls::{self, Trust};

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a proxy may take before the provider is asked without it.
const PROXY_LIMIT: Duration = Duration::from_secs(4);
/// Most bytes that are read of an answer.
const MAX_ANSWER: usize = 1 << 20;

/// Why a provider did not answer.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {reason}")]
pub(super) struct RequestError {
    url: String,
    reason: String,
}

/// How requests reach a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// Straight on.
    Direct,
    /// Through a proxy, and in no other way: what `ALL_PROXY` asks for.
    Proxy(ProxyAddress),
    /// Through the proxy of this host's settings; where that cannot reach the provider, which may be one in its own network,
    /// straight on, as stock servers do.
    ProxyFirst(ProxyAddress),
}

impl Route {
    /// The route that the environment and the settings of this host ask for.
    ///
    /// # Errors
    /// When a proxy makes no sense.
    pub(super) fn of_host(config: &ConfigStore) -> Result<Self, EditError> {
        let of_process = ["all_proxy", "ALL_PROXY"]
            .iter()
            .filter_map(|name| std::env::var(name).ok())
            .find(|value| !value.is_empty());
        if let Some(proxy) = of_process {
            let proxy = proxy.parse::<ProxyAddress>();
            return proxy
                .map(Self::Proxy)
                .map_err(|err| EditError::Conflict(err.to_string()));
        }
        Ok(node_proxy(config)?.map_or(Self::Direct, Self::ProxyFirst))
    }

    /// A connection to a provider, and nothing sent on it.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, String> {
        let direct = async || {
            let stream = TcpStream::connect((outgoing_tls::without_brackets(host), port)).await;
            stream.map_err(|err| text(&err))
        };
        let through = async |proxy: &ProxyAddress| {
            let stream = timeout(PROXY_LIMIT, proxy.connect(&format!("{host}:{port}"))).await;
            stream
                .map_err(|_| format!("the proxy {proxy} does not answer"))?
                .map_err(|err| text(&err))
        };
        match self {
            Self::Direct => direct().await,
            Self::Proxy(proxy) => through(proxy).await,
            Self::ProxyFirst(proxy) => match through(proxy).await {
                Ok(stream) => Ok(stream),
                Err(reason) => {
                    tracing::debug!("{reason}; connecting to {host} directly");
                    direct()
                        .await
                        .map_err(|direct| format!("{reason}; directly: {direct}"))
                }
            },
        }
    }
}

/// Makes requests.
#[derive(Debug)]
pub(super) struct HttpClient(pub(super) Route);

impl<'c> AsyncHttpClient<'c> for HttpClient {
    type Error = RequestError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, RequestError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            // Queries can hold secrets.
            let url = request.uri().to_string();
            let url = url.split('?').next().unwrap_or_default().to_owned();
            let answer = timeout(LIMIT, send(&self.0, request)).await;
            let answer =
                answer.unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())));
            answer.map_err(|reason| RequestError { url, reason })
        })
    }
}

fn text(err: &dyn std::error::Error) -> String {
    crate::http::error::chain(err)
}

async fn send(route: &Route, request: HttpRequest) -> Result<HttpResponse, String> {
    let uri = request.uri().clone();
    let is_tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err("neither an http nor an https URL".to_owned()),
    };
    let host = uri.host().ok_or("the URL names no host")?.to_owned();
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let bare = outgoing_tls::without_brackets(&host).to_owned();
    let stream = route.connect(&host, port).await?;
    if !is_tls {
        return exchange(stream, request, &uri).await;
    }
    let name = ServerName::try_from(bare).map_err(|err| text(&err))?;
    // Reads the system's certificate authorities.
    let config =
        tokio::task::spawn_blocking(move || outgoing_tls::client_config(&host, Trust::System))
            .await
            .map_err(|err| text(&err))?
            .map_err(|err| text(&err))?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|err| text(&err))?;
    exchange(stream, request, &uri).await
}

async fn exchange<S>(stream: S, request: HttpRequest, uri: &Uri) -> Result<HttpResponse, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|err| text(&err))?;
    let driver = tokio::spawn(connection);
    let answer = async {
        let (head, body) = request.into_parts();
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = head.method;
        *request.headers_mut() = head.headers;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|_| "not a valid path".to_owned())?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        // Without a name and password in the URL.
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let authority = HeaderValue::from_str(authority).map_err(|err| text(&err))?;
        request.headers_mut().insert(HOST, authority);
        request
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        request
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_static("backstop"));
        let answer = sender.send_request(request).await;
        let (head, body) = answer.map_err(|err| text(&err))?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|err| text(&*err))?.to_bytes();
        Ok(HttpResponse::from_parts(head, body.to_vec()))
    };
    let answer = answer.await;
    driver.abort();
    answer
}
