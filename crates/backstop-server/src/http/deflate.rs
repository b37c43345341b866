//! `Accept-Encoding: deflate`: response bodies as a zlib stream. No other encoding is offered, as in a stock server.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame};
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::Body;

/// Largest piece of input that is compressed in one go, so that a large reply does not hold up its thread.
const STEP: usize = 64 * 1024;

/// Whether the client asked for `deflate`.
pub fn accepted(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| {
            token
                .split(';')
                .next()
                .is_some_and(|name| name.trim() == "deflate")
        })
}

/// Compresses the body of a response; one that has none, or is encoded already, stays as it is.
pub fn compress(response: Response<Body>) -> Response<Body> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        || response.headers().contains_key(CONTENT_ENCODING)
        || response.body().is_end_stream()
    {
        return response;
    }
    let (mut head, body) = response.into_parts();
    head.headers
        .insert(CONTENT_ENCODING, HeaderValue::from_static("deflate"));
    head.headers.remove(CONTENT_LENGTH);
    let encoder = Some(ZlibEncoder::new(Vec::new(), Compression::fast()));
    Response::from_parts(
        head,
        Deflated {
            inner: body,
            pending: Bytes::new(),
            encoder,
        }
        .boxed_unsync(),
    )
}

struct Deflated {
    inner: Body,
    pending: Bytes,
    encoder: Option<ZlibEncoder<Vec<u8>>>,
}

impl hyper::body::Body for Deflated {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        loop {
            let Some(encoder) = this.encoder.as_mut() else {
                return Poll::Ready(None);
            };
            if this.pending.has_remaining() {
                let step = this.pending.split_to(this.pending.len().min(STEP));
                if let Err(err) = encoder.write_all(&step) {
                    return Poll::Ready(Some(Err(err)));
                }
                if !encoder.get_ref().is_empty() {
                    let out = std::mem::take(encoder.get_mut());
                    return Poll::Ready(Some(Ok(Frame::data(out.into()))));
                }
                continue;
            }
            match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(err))) => return Poll::Ready(Some(Err(err))),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        this.pending = data;
                    }
                }
                Poll::Ready(None) => {
                    let Some(encoder) = this.encoder.take() else {
                        return Poll::Ready(None);
                    };
                    return Poll::Ready(Some(
                        encoder.finish().map(|rest| Frame::data(rest.into())),
                    ));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::http::body;
    use std::io::Read;

    #[tokio::test]
    async fn what_is_compressed_can_be_read_again() {
        let text: Vec<u8> = (0..500_000u32)
            .flat_map(|n| n.to_string().into_bytes())
            .collect();
        let response = compress(Response::new(body::full(text.clone())));
        assert_eq!(response.headers()[CONTENT_ENCODING], "deflate");
        let packed = response.into_body().collect().await.unwrap().to_bytes();
        let mut unpacked = Vec::new();
        flate2::read::ZlibDecoder::new(&packed[..])
            .read_to_end(&mut unpacked)
            .unwrap();
        assert!(unpacked == text);
    }

    #[test]
    fn only_the_token_deflate_counts() {
        for (value, wanted) in [
            ("deflate", true),
            ("gzip, deflate;q=0.5", true),
            ("gzip", false),
            ("xdeflate", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(accepted(&headers), wanted, "{value}");
        }
    }
}
