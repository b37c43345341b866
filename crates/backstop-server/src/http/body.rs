//! Request and response bodies.
//!
//! A request body is only ever read with a stated limit of size and time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::mpsc;

use super::error::ApiError;

/// A response body. An error while it is sent breaks the connection, so that the client sees a truncated reply.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Request bodies must stay below this number of bytes (512 KiB).
pub const MAX_REQUEST_BODY: usize = 512 * 1024;
/// A request body that has not arrived after this time is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// A body without content.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is already in memory.
pub fn full(content: impl Into<Bytes>) -> Body {
    Full::new(content.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body that is already in memory in several parts, which are sent one after the other.
pub fn parts(parts: Vec<Bytes>) -> Body {
    let left = parts.iter().map(|part| part.len() as u64).sum();
    let parts = parts.into_iter();
    PartsBody { parts, left }.boxed_unsync()
}

struct PartsBody {
    parts: std::vec::IntoIter<Bytes>,
    /// Bytes that are still to come; told in advance, so that the client sees when an answer is cut short.
    left: u64,
}

impl hyper::body::Body for PartsBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let next = self.parts.find(|part| !part.is_empty());
        self.left -= next.as_ref().map_or(0, |part| part.len() as u64);
        Poll::Ready(next.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The sending half of a streamed body: bytes, or the error that ends it.
pub type BodySender = mpsc::Sender<io::Result<Bytes>>;

/// A body that is produced while it is sent; at most `depth` pieces wait, then the producer has to.
/// Blocking producers use `blocking_send`. Dropping the sender ends the body.
pub fn streamed(depth: usize) -> (BodySender, Body) {
    let (sender, receiver) = mpsc::channel(depth.max(1));
    (sender, StreamedBody { receiver }.boxed_unsync())
}

struct StreamedBody {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
}

impl hyper::body::Body for StreamedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.receiver
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// Reads a request body that carries parameters.
///
/// # Errors
/// 400 when it is too large, too slow or broken off.
pub async fn read_parameters(body: Incoming) -> Result<Bytes, ApiError> {
    read_limited(body, MAX_REQUEST_BODY - 1, BODY_TIMEOUT).await
}

/// Reads a whole request body of at most `limit` bytes within `timeout`.
///
/// # Errors
/// 400 when it is too large, too slow or broken off.
pub async fn read_limited<B>(
    mut body: B,
    limit: usize,
    timeout: Duration,
) -> Result<Bytes, ApiError>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let read = async {
        let mut content = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|err| {
                ApiError::bad_request(format!("unable to read request body - {err}"))
            })?;
            if let Ok(data) = frame.into_data() {
                if content.len() + data.len() > limit {
                    return Err(ApiError::bad_request("Request body too large"));
                }
                content.extend_from_slice(&data);
            }
        }
        Ok(content.freeze())
    };
    tokio::time::timeout(timeout, read)
        .await
        .unwrap_or_else(|_| {
            Err(ApiError::bad_request(
                "timeout while reading the request body",
            ))
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_too_slow_or_too_large_is_given_up() {
        let limit = Duration::from_secs(60);
        let (sender, body) = streamed(4);
        sender.send(Ok(Bytes::from_static(b"one"))).await.unwrap();
        // The sender is there, but nothing more comes.
        let error = read_limited(body, 100, limit).await.unwrap_err();
        assert_eq!(error.to_string(), "timeout while reading the request body");
        drop(sender);
        let error = read_limited(full("12345"), 4, limit).await.unwrap_err();
        assert_eq!(error.to_string(), "Request body too large");
        assert_eq!(read_limited(full("1234"), 4, limit).await.unwrap(), "1234");
    }
}
