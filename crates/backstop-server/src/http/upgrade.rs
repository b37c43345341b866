//! Turning an HTTP/1.1 connection into a backup or reader session.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio_rustls::server::TlsStream;

use super::body;
use super::connection::Socket;
use super::error::ApiError;
use super::reply::Reply;

/// A request to upgrade the connection, as a handler gets it.
#[derive(Debug)]
pub struct Upgrade {
    version: Version,
    protocol: Option<HeaderValue>,
    on_upgrade: OnUpgrade,
    data: Handle,
}

impl Upgrade {
    pub(crate) fn new(
        version: Version,
        headers: &HeaderMap,
        on_upgrade: OnUpgrade,
        data: Handle,
    ) -> Self {
        Self {
            version,
            protocol: headers.get(UPGRADE).cloned(),
            on_upgrade,
            data,
        }
    }

    /// Checks that the client asks for this protocol.
    ///
    /// # Errors
    /// 400 with the text of a stock server.
    pub fn check_protocol(&self, protocol: &'static str) -> Result<(), ApiError> {
        let wanted = self
            .protocol
            .as_ref()
            .ok_or_else(|| ApiError::bad_request("missing Upgrade header"))?;
        if wanted != protocol {
            return Err(ApiError::bad_request("invalid protocol name"));
        }
        if self.version > Version::HTTP_11 {
            return Err(ApiError::bad_request(format!(
                "unexpected http version '{:?}' (expected version < 2)",
                self.version
            )));
        }
        Ok(())
    }

    /// Answers 101 and, once the client has it, runs `session` with the bare connection on the data runtime.
    /// `session` gets an error instead when the client went away before.
    pub fn accept<F, Fut>(self, protocol: &'static str, session: F) -> Reply
    where
        F: FnOnce(io::Result<UpgradedConnection>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let on_upgrade = self.on_upgrade;
        self.data.spawn(async move {
            session(UpgradedConnection::after(on_upgrade).await).await;
        });
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        response
            .headers_mut()
            .insert(UPGRADE, HeaderValue::from_static(protocol));
        Reply::Raw(response)
    }
}

/// The bytes of a connection after its upgrade.
pub struct UpgradedConnection {
    /// What the HTTP layer had read already.
    early: Bytes,
    stream: Box<TlsStream<Socket>>,
}

impl UpgradedConnection {
    async fn after(on_upgrade: OnUpgrade) -> io::Result<Self> {
        let upgraded = on_upgrade.await.map_err(io::Error::other)?;
        let parts = upgraded
            .downcast::<TokioIo<TlsStream<Socket>>>()
            .map_err(|_| {
                io::Error::other("the connection is not one of this server's TLS connections")
            })?;
        let mut stream = Box::new(parts.io.into_inner());
        stream.get_mut().0.move_to_current_runtime()?;
        Ok(Self {
            early: parts.read_buf,
            stream,
        })
    }
}

impl AsyncRead for UpgradedConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.has_remaining() {
            let count = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early.split_to(count));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut *self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for UpgradedConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(cx)
    }
}
