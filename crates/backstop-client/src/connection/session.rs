//! An upgraded HTTP/2 session: requests, uploads and downloads over one connection.
//!
//! A lost or stalled connection fails every request with the first cause. Nothing is retried here.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::http_client::{Answer, HttpClient, check_status, data, describe, to_query};
use super::liveness::{Counted, StallLimit, Traffic, Watchdog};
use super::rate::RateLimited;
use crate::error::{ClientError, Result};

/// Flow-control window of one stream: more than the largest chunk.
const STREAM_WINDOW: u32 = 32 << 20;

/// Flow-control window of the connection; bounds what the server may send unread.
const CONNECTION_WINDOW: u32 = 64 << 20;

/// Largest frame accepted from the server.
const MAX_FRAME: u32 = 1 << 20;

/// Bodies are handed to the connection in pieces of this size, so that a ping never waits for a whole chunk.
const SEND_PIECE: usize = 256 << 10;

/// Largest JSON answer or error text.
const MAX_REPLY: usize = 4 << 20;

/// A session on a server. Clones use the same connection; it closes when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Session {
    send: SendRequest<Bytes>,
    lost: Arc<OnceLock<String>>,
    server: Arc<str>,
}

impl Session {
    /// Upgrades a new connection to `protocol` and starts HTTP/2 on it.
    pub async fn open(
        client: &HttpClient,
        path: &str,
        params: &Value,
        protocol: &'static str,
    ) -> Result<Self> {
        let options = client.options();
        let server = options.server();
        let lost = |error: &(dyn std::error::Error + 'static)| ClientError::ConnectionLost {
            server: server.clone(),
            reason: describe(error),
        };
        let tls = client.dialer().dial().await?;
        let limited = match &options.shared_limit {
            Some(limit) => RateLimited::shared(tls, limit),
            None => RateLimited::new(tls, options.rate_limit),
        };
        let (counted, traffic) = Counted::new(limited);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(counted))
            .await
            .map_err(|error| lost(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!("upgrade connection ended: {}", describe(&error));
            }
        });
        let request = client
            .head(&Method::GET, path, &to_query(params))?
            .header(UPGRADE, protocol)
            .header(CONNECTION, "upgrade")
            .body(Empty::<Bytes>::new())
            .map_err(|error| lost(&error))?;
        let exchange = async {
            let answer = sender
                .send_request(request)
                .await
                .map_err(|error| lost(&error))?;
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                return hyper::upgrade::on(answer)
                    .await
                    .map_err(|error| lost(&error));
            }
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, MAX_REPLY)
                .collect()
                .await
                .map(http_body_util::Collected::to_bytes)
                .unwrap_or_default();
            check_status(
                &Method::GET,
                path,
                Answer {
                    status: parts.status,
                    headers: parts.headers,
                    body,
                },
            )?;
            Err(ClientError::Protocol {
                request: format!("GET {path}"),
                reason: "the server did not switch to the session protocol".to_owned(),
            })
        };
        let stall = StallLimit::default();
        let upgraded = tokio::time::timeout(stall.limit, exchange)
            .await
            .map_err(|_| ClientError::Timeout {
                method: "GET".to_owned(),
                path: path.to_owned(),
                server: server.clone(),
                seconds: stall.limit.as_secs(),
            })??;
        Self::start(TokioIo::new(upgraded), traffic, &server, stall).await
    }

    /// Starts HTTP/2 on a stream and drives it in the background.
    async fn start<S>(
        stream: S,
        traffic: Arc<Traffic>,
        server: &str,
        stall: StallLimit,
    ) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .enable_push(false)
            .handshake::<S, Bytes>(stream)
            .await
            .map_err(|error| ClientError::ConnectionLost {
                server: server.to_owned(),
                reason: describe(&error),
            })?;
        let lost = Arc::new(OnceLock::new());
        tokio::spawn(drive(connection, traffic, Arc::clone(&lost), stall));
        Ok(Self {
            send,
            lost,
            server: server.into(),
        })
    }

    /// A request without body, or with a JSON body; returns `data`.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        query: &Value,
        json: Option<&Value>,
    ) -> Result<Value> {
        let (content_type, body) = match json {
            Some(json) => ("application/json", Bytes::from(json.to_string())),
            None => ("application/x-www-form-urlencoded", Bytes::new()),
        };
        self.exchange(method, path, query, content_type, body).await
    }

    /// POST of a raw body; returns `data`.
    pub async fn upload(&self, path: &str, query: &Value, body: Bytes) -> Result<Value> {
        self.exchange(Method::POST, path, query, "application/octet-stream", body)
            .await
    }

    /// GET of a raw body of at most `limit` bytes, into `buffer`, whose content is lost.
    pub async fn download(
        &self,
        path: &str,
        query: &Value,
        buffer: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<u8>> {
        let (status, body) = self
            .send(
                &Method::GET,
                path,
                query,
                "application/x-www-form-urlencoded",
                Bytes::new(),
            )
            .await?;
        if !status.is_success() {
            return Err(self.refusal(&Method::GET, path, status, body).await);
        }
        self.read(&Method::GET, path, body, buffer, limit).await
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        query: &Value,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Value> {
        let (status, stream) = self.send(&method, path, query, content_type, body).await?;
        if !status.is_success() {
            return Err(self.refusal(&method, path, status, stream).await);
        }
        let text = self
            .read(&method, path, stream, Vec::with_capacity(256), MAX_REPLY)
            .await?;
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&text)
            .map(data)
            .map_err(|error| ClientError::Protocol {
                request: format!("{method} {path}"),
                reason: format!("not JSON: {error}"),
            })
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        query: &Value,
        content_type: &'static str,
        mut body: Bytes,
    ) -> Result<(StatusCode, RecvStream)> {
        let failed = |error: h2::Error| self.failure(method, path, &error);
        let query = to_query(query);
        let separator = if query.is_empty() { "" } else { "?" };
        let request = Request::builder()
            .method(method.clone())
            .uri(format!("https://{}/{path}{separator}{query}", self.server))
            .header(CONTENT_TYPE, content_type)
            .body(())
            .map_err(|error| ClientError::Request {
                method: method.to_string(),
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
        let mut send = self.send.clone().ready().await.map_err(failed)?;
        let (answer, mut stream) = send
            .send_request(request, body.is_empty())
            .map_err(failed)?;
        while !body.is_empty() {
            let piece = body.split_to(body.len().min(SEND_PIECE));
            // An early refusal of the server closes our side; its answer tells why.
            if stream.send_data(piece, body.is_empty()).is_err() {
                break;
            }
        }
        let answer = answer.await.map_err(failed)?;
        Ok((answer.status(), answer.into_body()))
    }

    async fn read(
        &self,
        method: &Method,
        path: &str,
        mut body: RecvStream,
        mut content: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<u8>> {
        content.clear();
        while let Some(piece) = body.data().await {
            let piece = piece.map_err(|error| self.failure(method, path, &error))?;
            if piece.len() > limit.saturating_sub(content.len()) {
                return Err(ClientError::Protocol {
                    request: format!("{method} {path}"),
                    reason: format!("it is longer than {limit} bytes"),
                });
            }
            content.extend_from_slice(&piece);
            body.flow_control()
                .release_capacity(piece.len())
                .map_err(|error| self.failure(method, path, &error))?;
        }
        Ok(content)
    }

    async fn refusal(
        &self,
        method: &Method,
        path: &str,
        status: StatusCode,
        body: RecvStream,
    ) -> ClientError {
        let text = self
            .read(method, path, body, Vec::new(), MAX_REPLY)
            .await
            .unwrap_or_default();
        ClientError::Status {
            method: method.to_string(),
            path: path.to_owned(),
            status: status.as_u16(),
            message: String::from_utf8_lossy(&text).trim().to_owned(),
        }
    }

    /// The first cause of a broken connection says more than what a single stream saw of it.
    fn failure(&self, method: &Method, path: &str, error: &h2::Error) -> ClientError {
        if let Some(reason) = self.lost.get() {
            return ClientError::ConnectionLost {
                server: self.server.to_string(),
                reason: reason.clone(),
            };
        }
        if error.is_io() || error.is_go_away() {
            return ClientError::ConnectionLost {
                server: self.server.to_string(),
                reason: describe(error),
            };
        }
        ClientError::Request {
            method: method.to_string(),
            path: path.to_owned(),
            reason: describe(error),
        }
    }
}

/// Drives a connection until it ends or is found dead.
async fn drive<S>(
    mut connection: h2::client::Connection<S, Bytes>,
    traffic: Arc<Traffic>,
    lost: Arc<OnceLock<String>>,
    stall: StallLimit,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut pings = connection.ping_pong();
    let mut ping_sent = false;
    let mut watchdog = Watchdog::new(traffic, Instant::now());
    let mut looks = tokio::time::interval(stall.interval);
    let reason = loop {
        tokio::select! {
            result = &mut connection => break match result {
                Ok(()) => "closed by the server".to_owned(),
                Err(error) => describe(&error),
            },
            _ = looks.tick() => {
                if watchdog.look(Instant::now()) >= stall.limit {
                    break format!(
                        "no data has moved for {} seconds, the network or the server is stalled",
                        stall.limit.as_secs()
                    );
                }
                if let Some(pings) = &mut pings && !ping_sent {
                    ping_sent = pings.send_ping(h2::Ping::opaque()).is_ok();
                }
            }
            pong = next_pong(&mut pings), if ping_sent => {
                ping_sent = false;
                if pong.is_err() {
                    pings = None;
                }
            }
        }
    };
    tracing::debug!("session connection ended: {reason}");
    // Set before the connection is dropped, so that every waiting request reports this reason.
    let _ = lost.set(reason);
}

async fn next_pong(pings: &mut Option<h2::PingPong>) -> std::result::Result<(), h2::Error> {
    match pings {
        Some(pings) => std::future::poll_fn(|cx| pings.poll_pong(cx))
            .await
            .map(drop),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::time::Duration;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    const SHORT: StallLimit = StallLimit {
        limit: Duration::from_millis(200),
        interval: Duration::from_millis(20),
    };

    async fn session(stream: tokio::io::DuplexStream) -> Session {
        let (counted, traffic) = Counted::new(stream);
        Session::start(counted, traffic, "peer:8007", SHORT)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_silent_peer_ends_the_session_with_an_error_that_says_so() {
        // Takes everything and answers nothing, as a network does that has gone.
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let sink = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await
        });
        let session = session(near).await;
        let error = session
            .call(Method::POST, "finish", &Value::Null, None)
            .await
            .unwrap_err();
        assert!(
            matches!(error, ClientError::ConnectionLost { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("stalled"), "{error}");
        sink.await.unwrap().unwrap();
        // Whoever comes later hears the same.
        let later = session
            .call(Method::GET, "previous", &Value::Null, None)
            .await;
        assert!(later.unwrap_err().to_string().contains("stalled"));
    }

    #[tokio::test]
    async fn a_peer_that_answers_pings_may_take_its_time() {
        let (near, far) = tokio::io::duplex(1 << 20);
        let server = tokio::spawn(async move {
            let mut connection = h2::server::handshake(far).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            let answer = async {
                tokio::time::sleep(SHORT.limit * 3).await;
                let head = http::Response::new(());
                let mut body = respond.send_response(head, false).unwrap();
                body.send_data(Bytes::from_static(b"{\"data\":7}"), true)
                    .unwrap();
            };
            tokio::join!(answer, async {
                while connection.accept().await.is_some() {}
            });
        });
        let session = session(near).await;
        let answer = session
            .call(Method::POST, "finish", &Value::Null, None)
            .await;
        assert_eq!(answer.unwrap(), 7);
        drop(session);
        server.await.unwrap();
    }
}
