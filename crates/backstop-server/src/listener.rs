//! Accepting connections: TCP, TLS, HTTP/1.1.
//!
//! Nothing that a client does, and no error of a single connection, ends the loop. A client that is too slow with its
//! handshake or its request is cut off; a panic ends the connection that it happened on. No address can take what is meant for
//! all: its connections and its handshakes under way are counted by themselves.

use std::collections::HashMap;
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
use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::access::throttle::Source;
use crate::http::body::{self, Body};
use crate::http::connection::Socket;
use crate::tls::CertificateStore;

const KEEPALIVE: Duration = Duration::from_secs(120);
/// How long sent data may stay unacknowledged before the connection counts as dead.
const UNACKNOWLEDGED: Duration = Duration::from_secs(180);
/// First byte of every TLS connection.
const TLS_HANDSHAKE_RECORD: u8 = 0x16;
/// Most bytes of a request's head; one that is longer gets 431.
const HEAD_SIZE: usize = 64 * 1024;
/// Most headers of a request.
const HEADERS: usize = 100;

/// What clients may take. Sessions (backups, restores) that took their connection over are not limited by any of it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time until first byte and TLS handshake are complete, and until a turn for it comes.
    pub handshake: Duration,
    /// Time for a request's head to arrive; also how long an idle connection stays open.
    pub head: Duration,
    /// Handshakes under way at the same time.
    pub handshakes: usize,
    /// The same from one address; further ones wait for their turn.
    pub handshakes_of_address: usize,
    /// Connections open at the same time; one beyond this number is closed at once.
    pub connections: usize,
    /// The same from one address.
    pub connections_of_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(60),
            handshakes: 1024,
            handshakes_of_address: 64,
            connections: 8192,
            connections_of_address: 2048,
        }
    }
}

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
    limits: Limits,
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    addresses: Arc<Addresses>,
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
        limits: Limits,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        Self {
            certificates,
            service,
            limits,
            handshakes: Arc::new(Semaphore::new(limits.handshakes)),
            connections: Arc::new(Semaphore::new(limits.connections)),
            addresses: Arc::default(),
            shutdown,
        }
    }

    /// Waits until no connection is open. Sessions that took their connection over do not count.
    pub async fn closed(&self) {
        let all = u32::try_from(self.limits.connections).unwrap_or(u32::MAX);
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
                let limit = self.limits.connections;
                tracing::warn!(%peer, limit, "too many open connections, closing a new one");
                continue;
            };
            let Some(own) = self.addresses.enter(peer, &self.limits) else {
                let limit = self.limits.connections_of_address;
                tracing::warn!(%peer, limit, "too many open connections from this address, closing a new one");
                continue;
            };
            let this = self.clone();
            tokio::spawn(async move {
                if let Err(err) = this.connection(stream, peer, &own).await {
                    tracing::debug!(%peer, %err, "connection ended");
                }
                drop((open, own));
            });
        }
    }

    async fn connection(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        own: &OfAddress,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        set_options(&stream)?;
        // First a turn among those of the same address, so that nobody can take the turns of all others.
        let turns = async {
            let own = own.handshakes.acquire().await?;
            Ok::<_, tokio::sync::AcquireError>((own, self.handshakes.acquire().await?))
        };
        let handshake = timeout(self.limits.handshake, turns).await??;
        let mut first = [0];
        let count = timeout(self.limits.handshake, stream.peek(&mut first)).await??;
        if count == 0 {
            return Ok(());
        }
        if first != [TLS_HANDSHAKE_RECORD] {
            let redirect = service_fn(|request: Request<Incoming>| async move {
                Ok::<_, std::convert::Infallible>(redirect_to_tls(&request))
            });
            let serve = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.limits.handshake)
                .max_buf_size(HEAD_SIZE)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), redirect);
            timeout(self.limits.head, serve).await??;
            return Ok(());
        }
        let acceptor = TlsAcceptor::from(self.certificates.current().server_config());
        let tls = timeout(self.limits.handshake, acceptor.accept(Socket::new(stream))).await??;
        drop(handshake);
        self.clone().http(tls, peer).await
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
            .header_read_timeout(self.limits.head)
            .max_buf_size(HEAD_SIZE)
            .max_headers(HEADERS)
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

/// The addresses that connections are open from.
#[derive(Debug, Default)]
struct Addresses(Mutex<HashMap<Source, Count>>);

#[derive(Debug)]
struct Count {
    open: usize,
    handshakes: Arc<Semaphore>,
}

/// One connection of an address, for as long as it lives.
#[derive(Debug)]
struct OfAddress {
    addresses: Arc<Addresses>,
    source: Source,
    handshakes: Arc<Semaphore>,
}

impl Addresses {
    /// Counts a connection; `None` when there are too many from its address.
    fn enter(self: &Arc<Self>, peer: SocketAddr, limits: &Limits) -> Option<OfAddress> {
        let source = Source::of(peer.ip());
        let mut counts = self.0.lock();
        let count = counts.entry(source).or_insert_with(|| Count {
            open: 0,
            handshakes: Arc::new(Semaphore::new(limits.handshakes_of_address)),
        });
        if count.open >= limits.connections_of_address {
            return None;
        }
        count.open += 1;
        Some(OfAddress {
            addresses: Arc::clone(self),
            source,
            handshakes: Arc::clone(&count.handshakes),
        })
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.lock();
        if let Some(count) = counts.get_mut(&self.source) {
            count.open -= 1;
            if count.open == 0 {
                counts.remove(&self.source);
            }
        }
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

    fn limits() -> Limits {
        Limits {
            handshake: Duration::from_secs(20),
            head: Duration::from_millis(300),
            handshakes: 8,
            handshakes_of_address: 2,
            connections: 64,
            connections_of_address: 3,
        }
    }

    /// A listener with these limits that answers every request with its path.
    async fn listen(limits: Limits) -> (SocketAddr, watch::Sender<bool>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let roots = crate::Roots::below(dir.path());
        roots.create_directories().unwrap();
        let certificates = Arc::new(CertificateStore::open(&roots, "elsa").unwrap());
        let service: Service = Arc::new(|request, _| {
            let answer = Response::new(body::full(request.uri().path().to_owned()));
            Box::pin(async move { answer })
        });
        let stop = watch::Sender::new(false);
        let listener = Listener::new(certificates, service, limits, stop.subscribe());
        let socket = bind(([0, 0, 0, 0], 0).into()).unwrap();
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(listener.serve(socket));
        (([127, 0, 0, 1], port).into(), stop, dir)
    }

    async fn connect(from: [u8; 4], to: SocketAddr) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(to).await.unwrap()
    }

    /// What the server says before it closes the connection.
    async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
        use tokio::io::AsyncReadExt;
        let mut text = Vec::new();
        // A reset is an end, too.
        let _ = stream.read_to_end(&mut text).await;
        String::from_utf8_lossy(&text).into_owned()
    }

    /// A request over TLS; `head` is sent as it is.
    async fn tls(from: [u8; 4], to: SocketAddr, head: &str) -> String {
        use tokio::io::AsyncWriteExt;
        let stream = connect(from, to).await;
        let connector =
            tokio_rustls::TlsConnector::from(testbed::any_certificate::accepted().unwrap());
        let name = "localhost".try_into().unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        // A server that has heard enough answers and closes before all is sent, so this may fail.
        let _ = stream.write_all(head.as_bytes()).await;
        rest(&mut stream).await
    }

    const GET: &str = "GET /x HTTP/1.1\r\nConnection: close\r\n\r\n";

    #[tokio::test(flavor = "multi_thread")]
    async fn handshakes_that_one_address_does_not_finish_hold_up_nobody_else() {
        let (address, _stop, _dir) = listen(limits()).await;
        let mut stalled = Vec::new();
        for _ in 0..3 {
            stalled.push(connect([127, 0, 0, 1], address).await);
        }
        assert!(tls([127, 0, 0, 2], address, GET).await.ends_with("/x"));
        // A fourth connection of the first address is one too many.
        let mut fourth = connect([127, 0, 0, 1], address).await;
        assert_eq!(rest(&mut fourth).await, "");
        drop(stalled);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_head_that_comes_too_slowly_ends_the_connection() {
        let (address, _stop, _dir) = listen(limits()).await;
        let answer = tls([127, 0, 0, 1], address, "GET /x HTTP/1.1\r\nSlow:").await;
        assert!(!answer.contains("200"), "{answer}");
        assert!(tls([127, 0, 0, 1], address, GET).await.ends_with("/x"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_handshake_that_stalls_is_cut_off() {
        let limits = Limits {
            handshake: Duration::from_millis(200),
            ..limits()
        };
        let (address, _stop, _dir) = listen(limits).await;
        for bytes in [&b""[..], &[TLS_HANDSHAKE_RECORD, 3, 1]] {
            use tokio::io::AsyncWriteExt;
            let mut stream = connect([127, 0, 0, 1], address).await;
            stream.write_all(bytes).await.unwrap();
            rest(&mut stream).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_head_that_is_too_large_is_refused() {
        let (address, _stop, _dir) = listen(limits()).await;
        let large = format!(
            "GET /x HTTP/1.1\r\nX: {}\r\n\r\n",
            "x".repeat(2 * HEAD_SIZE)
        );
        let answer = tls([127, 0, 0, 1], address, &large).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
            "{answer}"
        );
        let many: String = (0..HEADERS + 1)
            .map(|number| format!("X-{number}: x\r\n"))
            .collect();
        let answer = tls(
            [127, 0, 0, 1],
            address,
            &format!("GET /x HTTP/1.1\r\n{many}\r\n"),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}
