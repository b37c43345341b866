//! Traffic limit: a token bucket in each direction around a byte stream.
//!
//! Never drops or reorders data; it only delays.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::options::RateLimit;

/// A bucket that fills with `rate` bytes per second up to `burst`. It may be overdrawn; the debt is waited for.
#[derive(Debug, Clone)]
pub(crate) struct TokenBucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    filled: Instant,
}

impl TokenBucket {
    /// `None` if the limit is absent or zero.
    pub fn new(limit: RateLimit, now: Instant) -> Option<Self> {
        let rate = limit.rate.filter(|rate| *rate > 0)?;
        let burst = limit.burst.filter(|burst| *burst > 0).unwrap_or(rate);
        Some(Self {
            rate: rate as f64,
            burst: burst as f64,
            tokens: burst as f64,
            filled: now,
        })
    }

    /// Takes tokens for bytes that were moved.
    pub fn take(&mut self, bytes: usize, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens = (self.tokens + elapsed * self.rate).min(self.burst) - bytes as f64;
    }

    /// When the next byte may be moved, if not now.
    pub fn blocked_until(&self, now: Instant) -> Option<Instant> {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        let debt = -(self.tokens + elapsed * self.rate);
        (debt > 0.0).then(|| now + Duration::from_secs_f64((debt / self.rate).min(3600.0)))
    }
}

/// A bucket that several streams take from.
type SharedBucket = Arc<Mutex<TokenBucket>>;

/// Limits for several connections together, each direction on its own. The buckets start empty.
#[derive(Debug, Clone)]
pub struct SharedLimit {
    receive: Option<SharedBucket>,
    send: Option<SharedBucket>,
}

impl SharedLimit {
    /// Limits of what is received and of what is sent.
    pub fn new(receive: RateLimit, send: RateLimit) -> Self {
        let bucket = |limit| {
            let mut bucket = TokenBucket::new(limit, Instant::now())?;
            bucket.tokens = 0.0;
            Some(Arc::new(Mutex::new(bucket)))
        };
        Self {
            receive: bucket(receive),
            send: bucket(send),
        }
    }
}

/// One direction of a limited stream.
struct Direction {
    bucket: Option<SharedBucket>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Direction {
    fn new(limit: RateLimit) -> Self {
        let bucket = TokenBucket::new(limit, Instant::now());
        Self::of(bucket.map(|bucket| Arc::new(Mutex::new(bucket))))
    }

    fn of(bucket: Option<SharedBucket>) -> Self {
        Self {
            bucket,
            sleep: None,
        }
    }

    fn poll_allowed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(bucket) = &self.bucket else {
            return Poll::Ready(());
        };
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            let until = bucket.lock().blocked_until(Instant::now());
            match until {
                Some(until) => self.sleep = Some(Box::pin(tokio::time::sleep_until(until))),
                None => return Poll::Ready(()),
            }
        }
    }

    fn moved(&mut self, bytes: usize) {
        if let Some(bucket) = &self.bucket {
            bucket.lock().take(bytes, Instant::now());
        }
    }

    /// How much to offer at once, so that a burst does not overdraw the bucket for long.
    fn portion(&self, wanted: usize) -> usize {
        match &self.bucket {
            Some(bucket) => wanted.min((bucket.lock().burst as usize).clamp(1024, 65536)),
            None => wanted,
        }
    }
}

/// A stream whose traffic is limited in each direction.
pub(crate) struct RateLimited<S> {
    inner: S,
    reading: Direction,
    writing: Direction,
}

impl<S> RateLimited<S> {
    pub fn new(inner: S, limit: RateLimit) -> Self {
        Self {
            inner,
            reading: Direction::new(limit),
            writing: Direction::new(limit),
        }
    }

    /// Limited together with all other streams that share the limit.
    pub fn shared(inner: S, limit: &SharedLimit) -> Self {
        Self {
            inner,
            reading: Direction::of(limit.receive.clone()),
            writing: Direction::of(limit.send.clone()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RateLimited<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.reading.poll_allowed(cx));
        if this.reading.bucket.is_none() {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        let portion = this.reading.portion(buf.remaining());
        let mut limited = ReadBuf::new(buf.initialize_unfilled_to(portion));
        ready!(Pin::new(&mut this.inner).poll_read(cx, &mut limited))?;
        let count = limited.filled().len();
        buf.advance(count);
        this.reading.moved(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RateLimited<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.writing.poll_allowed(cx));
        let portion = this.writing.portion(buf.len());
        let buf = buf.get(..portion).unwrap_or(buf);
        let count = ready!(Pin::new(&mut this.inner).poll_write(cx, buf))?;
        this.writing.moved(count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.writing.bucket.is_some() {
            let first = bufs.iter().find(|buf| !buf.is_empty());
            return self.poll_write(cx, first.map_or(&[][..], |buf| buf));
        }
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn no_rate_means_no_bucket() {
        assert!(TokenBucket::new(RateLimit::default(), Instant::now()).is_none());
        let zero = RateLimit {
            rate: Some(0),
            burst: Some(5),
        };
        assert!(TokenBucket::new(zero, Instant::now()).is_none());
    }

    /// How long a bucket lets a transfer take that is done in pieces, each as soon as it is allowed.
    fn transfer(limit: RateLimit, total: usize, piece: usize) -> Duration {
        let start = Instant::now();
        let mut now = start;
        let mut bucket = TokenBucket::new(limit, now).unwrap();
        for _ in 0..total / piece {
            if let Some(until) = bucket.blocked_until(now) {
                now = until;
            }
            bucket.take(piece, now);
        }
        now.saturating_duration_since(start)
    }

    #[test]
    fn a_transfer_takes_its_size_less_the_burst_divided_by_the_rate() {
        for (burst, expected) in [(None, 9.0), (Some(500_000), 5.0), (Some(1), 10.0)] {
            let limit = RateLimit {
                rate: Some(100_000),
                burst,
            };
            let took = transfer(limit, 1_000_000, 1000).as_secs_f64();
            assert!(
                (expected - 0.1..expected + 0.1).contains(&took),
                "{burst:?}: {took}"
            );
        }
    }

    #[test]
    fn an_idle_time_saves_up_no_more_than_the_burst() {
        let start = Instant::now();
        let limit = RateLimit {
            rate: Some(1000),
            burst: Some(2000),
        };
        let mut bucket = TokenBucket::new(limit, start).unwrap();
        let later = start + Duration::from_secs(3600);
        bucket.take(2000, later);
        assert!(bucket.blocked_until(later).is_none());
        bucket.take(1000, later);
        assert_eq!(
            bucket.blocked_until(later),
            Some(later + Duration::from_secs(1))
        );
    }

    #[tokio::test]
    async fn data_passes_a_limited_stream_unchanged_in_both_directions() {
        let limit = RateLimit {
            rate: Some(1 << 40),
            burst: Some(3000),
        };
        let (left, right) = tokio::io::duplex(4096);
        let (mut left, mut right) = (
            RateLimited::new(left, limit),
            RateLimited::new(right, limit),
        );
        let data: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            right.read_to_end(&mut all).await.unwrap();
            all
        });
        left.write_all(&data).await.unwrap();
        drop(left);
        assert_eq!(reader.await.unwrap(), data);
    }
}
