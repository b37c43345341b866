//! Accepting connections: TCP, TLS, HTTP/1.1.
//!
//! Nothing that a client does, and no error of a single connection, ends the loop. A client that is too slow with its
//! handshake or its request is cut off; a panic ends the connection that it happened on.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderValue, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::http::body::{self, Body};
use crate::http::connection::Socket;
use crate::tls::CertificateStore;

/// First byte and TLS handshake have to be complete after this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A request's head has to arrive within this time; also how long an idle connection stays open.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
const KEEPALIVE: Duration = Duration::from_secs(120);
/// How long sent data may stay unacknowledged before the connection counts as dead.
const UNACKNOWLEDGED: Duration = Duration::from_secs(180);
/// Handshakes under way at the same time; further connections wait in the kernel's queue.
const HANDSHAKES: usize = 1024;
/// Connections open at the same time; a connection beyond this number is closed at once.
const CONNECTIONS: usize = 8192;
/// First byte of every TLS connection.
const TLS_HANDSHAKE_RECORD: u8 = 0x16;

/// Answers one request. It must not fail; errors are answers as well.
pub type Service = Arc<
    dyn Fn(Request<Incoming>, SocketAddr) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>>
        + Send
        + Sync,
>;

/// Opens a listening socket. `[::]` listens for IPv4, too.
///
/// # Errors
/// When the address cannot be used; the error names it.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let open = || {
        let socket = RawSocket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        Ok(socket.into())
    };
    open().map_err(|err: io::Error| {
        io::Error::new(err.kind(), format!("unable to listen on {address} - {err}"))
    })
}

/// Everything that a connection needs.
#[derive(Clone)]
pub struct Listener {
    certificates: Arc<CertificateStore>,
    service: Service,
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    shutdown: watch::Receiver<bool>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

impl Listener {
    /// A listener that answers with `service` until `shutdown` becomes true.
    pub fn new(
        certificates: Arc<CertificateStore>,
        service: Service,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        Self {
            certificates,
            service,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            shutdown,
        }
    }

    /// Waits until no connection is open. Sessions that took their connection over do not count.
    pub async fn closed(&self) {
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        // Nobody closes the semaphore, so this ends only when all permits are back.
        let _ = self.connections.acquire_many(all).await;
    }

    /// Accepts connections until the shutdown; has to run on the control runtime.
    ///
    /// # Errors
    /// Only when the socket cannot be registered with the runtime at the beginning.
    pub async fn serve(self, socket: std::net::TcpListener) -> io::Result<()> {
        let listener = TcpListener::from_std(socket)?;
        let mut shutdown = self.shutdown.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = shutdown.wait_for(|stop| *stop) => return Ok(()),
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(err) => {
                    tracing::warn!(%err, "unable to accept a connection");
                    // Out of descriptors, most likely: give the connections that are open time to end.
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(open) = Arc::clone(&self.connections).try_acquire_owned() else {
                tracing::warn!(%peer, limit = CONNECTIONS, "too many open connections, closing a new one");
                continue;
            };
            let Ok(handshake) = Arc::clone(&self.handshakes).acquire_owned().await else {
                return Ok(());
            };
            let this = self.clone();
            tokio::spawn(async move {
                if let Err(err) = this.connection(stream, peer, handshake).await {
                    tracing::debug!(%peer, %err, "connection ended");
                }
                drop(open);
            });
        }
    }

    async fn connection(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        handshake: tokio::sync::OwnedSemaphorePermit,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        set_options(&stream)?;
        let mut first = [0];
        let count = timeout(HANDSHAKE_TIMEOUT, stream.peek(&mut first)).await??;
        if count == 0 {
            return Ok(());
        }
        if first != [TLS_HANDSHAKE_RECORD] {
            let redirect = service_fn(|request: Request<Incoming>| async move {
                Ok::<_, std::convert::Infallible>(redirect_to_tls(&request))
            });
            let serve = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HANDSHAKE_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), redirect);
            timeout(HEAD_TIMEOUT, serve).await??;
            return Ok(());
        }
        let acceptor = TlsAcceptor::from(self.certificates.current().server_config());
        let tls = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(Socket::new(stream))).await??;
        drop(handshake);
        self.http(tls, peer).await
    }

    async fn http<S>(
        self,
        tls: S,
        peer: SocketAddr,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = self.service;
        let answer = service_fn(move |request| {
            let response = service(request, peer);
            async move { Ok::<_, std::convert::Infallible>(response.await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(256 * 1024)
            .serve_connection(TokioIo::new(tls), answer)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let mut shutdown = self.shutdown;
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            _ = shutdown.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
        }
        Ok(connection.await?)
    }
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

/// The answer to plain HTTP on the TLS port.
fn redirect_to_tls<B>(request: &Request<B>) -> Response<Body> {
    let mut response = Response::new(body::empty());
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .filter(|host| !host.is_empty());
    let location = host.and_then(|host| HeaderValue::from_str(&format!("https://{host}")).ok());
    let Some(location) = location else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    *response.status_mut() = match *request.method() {
        Method::GET | Method::HEAD => StatusCode::MOVED_PERMANENTLY,
        _ => StatusCode::PERMANENT_REDIRECT,
    };
    response.headers_mut().insert(LOCATION, location);
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn request(method: Method, host: Option<&str>) -> Request<()> {
        let mut request = Request::builder().method(method).uri("/api2/json/ping");
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn plain_http_is_sent_to_tls() {
        let response = redirect_to_tls(&request(Method::GET, Some("localhost:8007")));
        assert_eq!(response.status(), 301);
        assert_eq!(response.headers()[LOCATION], "https://localhost:8007");
        assert_eq!(
            redirect_to_tls(&request(Method::POST, Some("x"))).status(),
            308
        );
        assert_eq!(redirect_to_tls(&request(Method::GET, None)).status(), 400);
    }
}
