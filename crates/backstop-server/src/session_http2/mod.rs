//! HTTP/2 on an upgraded connection: the carrier of backup and reader sessions.
//!
//! The client has asked for the upgrade over HTTP/1.1 and speaks HTTP/2 with prior knowledge on the same TLS
//! connection from here on. Each stream is one call and runs as its own future; a handler must never block.
//!
//! # Bounds
//! - A client that sends no preface within [`PREFACE_TIMEOUT`] is dropped.
//! - A peer that went silent gets a ping after [`PING_INTERVAL`] and is dropped [`PING_TIMEOUT`] later, so a dead
//!   client frees its locks within 90 seconds.
//! - At most [`Http2Limits::streams`] calls run at once per session; unread data is bounded by the windows.

pub mod calls;
mod prefaced;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::http::body::Body;
use prefaced::Prefaced;

/// Time that a client has for its HTTP/2 preface after the upgrade.
pub const PREFACE_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection on which nothing arrived for this long is pinged.
pub const PING_INTERVAL: Duration = Duration::from_secs(30);
/// A ping that stays unanswered for this long ends the session.
pub const PING_TIMEOUT: Duration = Duration::from_secs(60);

/// Unread bytes that a client may have under way, per connection and per stream: the bandwidth-delay product of
/// 1 Gbit/s at 250 ms.
const WINDOW: u32 = 32 << 20;
/// Largest frame that we take. Large enough to be cheap, small enough that a ping answer never waits long behind one.
const MAX_FRAME: u32 = 256 << 10;
/// Bytes that wait for the client per stream before the handler's body is polled again.
const SEND_BUFFER: usize = 1 << 20;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What one session may use at once.
#[derive(Clone, Copy, Debug)]
pub struct Http2Limits {
    /// Concurrent calls. Further ones wait at the client.
    pub streams: u32,
}

/// Why the connection of a session ended other than by the client's orderly close.
#[derive(Debug, thiserror::Error)]
pub enum Http2Error {
    /// The client left between the upgrade and the first HTTP/2 byte.
    #[error("connection error: connection closed before reading preface")]
    NoPreface,
    /// The client kept silent after the upgrade.
    #[error("connection error: no HTTP/2 preface within {} seconds", PREFACE_TIMEOUT.as_secs())]
    PrefaceTimeout,
    /// What came is not HTTP/2.
    #[error("connection error: client does not speak HTTP/2 after the upgrade")]
    WrongPreface,
    /// The transport failed.
    #[error("connection error: {0}")]
    Io(#[from] io::Error),
    /// The HTTP/2 layer failed; includes the ping timeout.
    #[error("connection error: {}", crate::http::error::chain(.0))]
    Http(#[from] hyper::Error),
}

impl Http2Error {
    /// Whether the client just left, as some do instead of closing the connection in order.
    pub fn is_gone(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            // the HTTP/2 layer shows the transport's errors in a way of its own
            let http2 = error.downcast_ref::<h2::Error>();
            let io = http2.and_then(h2::Error::get_io);
            if let Some(error) = io.or_else(|| error.downcast_ref()) {
                return matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::UnexpectedEof
                );
            }
            cause = error.source();
        }
        false
    }
}

/// Serves calls until the client closes the connection. Dropping the future breaks the connection off.
pub async fn serve<C, H, Fut>(
    mut connection: C,
    limits: Http2Limits,
    handler: H,
) -> Result<(), Http2Error>
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> Fut + Send + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    read_preface(&mut connection).await?;
    let io = TokioIo::new(Prefaced::new(PREFACE, connection));
    let service = service_fn(move |request| {
        let reply = handler(request);
        async move { Ok::<_, Infallible>(reply.await) }
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_concurrent_streams(limits.streams)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(io, service)
        .await?;
    Ok(())
}

async fn read_preface(connection: &mut (impl AsyncRead + Unpin)) -> Result<(), Http2Error> {
    let mut preface = [0; PREFACE.len()];
    match tokio::time::timeout(PREFACE_TIMEOUT, connection.read_exact(&mut preface)).await {
        Err(_) => Err(Http2Error::PrefaceTimeout),
        Ok(Err(err)) if err.kind() == io::ErrorKind::UnexpectedEof => Err(Http2Error::NoPreface),
        Ok(Err(err)) => Err(err.into()),
        Ok(Ok(_)) if preface == *PREFACE => Ok(()),
        Ok(Ok(_)) => Err(Http2Error::WrongPreface),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;
    use tokio::io::{AsyncWriteExt, ReadBuf};

    fn limits() -> Http2Limits {
        Http2Limits { streams: 4 }
    }

    async fn refuse(_: Request<Incoming>) -> Response<Body> {
        panic!("no call was made")
    }

    #[tokio::test]
    async fn a_client_that_leaves_before_the_preface_is_reported_as_such() {
        let (client, server) = tokio::io::duplex(1024);
        drop(client);
        let err = serve(server, limits(), refuse).await.unwrap_err();
        assert_eq!(
            err.to_string(),
            "connection error: connection closed before reading preface"
        );
    }

    /// A transport whose writes fail as if the other side were gone.
    struct Broken(tokio::io::DuplexStream);

    impl AsyncRead for Broken {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_client_that_is_gone_is_told_from_one_that_breaks_the_rules() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(PREFACE).await.unwrap();
        client
            .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
            .await
            .unwrap();
        let gone = serve(Broken(server), limits(), refuse).await.unwrap_err();
        assert!(gone.is_gone(), "{gone}");

        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(PREFACE).await.unwrap();
        // DATA where SETTINGS have to come
        client
            .write_all(&[0, 0, 0, 0, 0, 0, 0, 0, 1])
            .await
            .unwrap();
        let wrong = serve(server, limits(), refuse).await.unwrap_err();
        assert!(!wrong.is_gone(), "{wrong}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_no_preface_is_dropped() {
        let (_client, server) = tokio::io::duplex(1024);
        let err = serve(server, limits(), refuse).await.unwrap_err();
        assert!(matches!(err, Http2Error::PrefaceTimeout), "{err}");
    }

    #[tokio::test]
    async fn a_client_that_speaks_something_else_is_dropped() {
        let (mut client, server) = tokio::io::duplex(1024);
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        let err = serve(server, limits(), refuse).await.unwrap_err();
        assert!(matches!(err, Http2Error::WrongPreface), "{err}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_stops_answering_is_dropped_within_the_documented_time() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(PREFACE).await.unwrap();
        // an empty SETTINGS frame, and then silence
        client
            .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
            .await
            .unwrap();
        let start = tokio::time::Instant::now();
        let err = serve(server, limits(), refuse).await.unwrap_err();
        assert!(matches!(err, Http2Error::Http(_)), "{err}");
        assert!(start.elapsed() <= PING_INTERVAL + PING_TIMEOUT + Duration::from_secs(1));
        drop(client);
    }
}
