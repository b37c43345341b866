//! Notices in bounded time that a session's peer or network is gone.
//!
//! A stream is alive while bytes arrive, or while more bytes leave than our own keep-alive pings make up.
//! A slow but moving transfer is never taken for a dead one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// How long a session may be without any sign of life, and how often that is looked at and a ping is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StallLimit {
    pub limit: Duration,
    pub interval: Duration,
}

impl Default for StallLimit {
    fn default() -> Self {
        Self {
            limit: Duration::from_secs(120),
            interval: Duration::from_secs(15),
        }
    }
}

/// Writes below this many bytes per look count as our own pings, not as progress.
const PING_NOISE: u64 = 4096;

/// Bytes that went through a stream so far.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    read: AtomicU64,
    written: AtomicU64,
}

/// A stream that counts its traffic.
pub(crate) struct Counted<S> {
    inner: S,
    traffic: Arc<Traffic>,
}

impl<S> Counted<S> {
    pub fn new(inner: S) -> (Self, Arc<Traffic>) {
        let traffic = Arc::new(Traffic::default());
        let counted = Self {
            inner,
            traffic: Arc::clone(&traffic),
        };
        (counted, traffic)
    }
}

/// Compares traffic between looks and decides when a stream is dead.
#[derive(Debug)]
pub(crate) struct Watchdog {
    traffic: Arc<Traffic>,
    read: u64,
    written: u64,
    alive: Instant,
}

impl Watchdog {
    pub fn new(traffic: Arc<Traffic>, now: Instant) -> Self {
        Self {
            traffic,
            read: 0,
            written: 0,
            alive: now,
        }
    }

    /// Looks at the traffic since the last look; returns how long the stream has been without life.
    pub fn look(&mut self, now: Instant) -> Duration {
        let read = self.traffic.read.load(Ordering::Relaxed);
        let written = self.traffic.written.load(Ordering::Relaxed);
        if read != self.read || written.saturating_sub(self.written) >= PING_NOISE {
            self.alive = now;
        }
        (self.read, self.written) = (read, written);
        now.saturating_duration_since(self.alive)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        let count = buf.filled().len().saturating_sub(before);
        this.traffic.read.fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.inner).poll_write(cx, buf))?;
        this.traffic
            .written
            .fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, bufs))?;
        this.traffic
            .written
            .fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(count))
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
    use super::*;

    const PING_INTERVAL: Duration = Duration::from_secs(15);

    fn watchdog() -> (Watchdog, Arc<Traffic>, Instant) {
        let traffic = Arc::new(Traffic::default());
        let start = Instant::now();
        (Watchdog::new(Arc::clone(&traffic), start), traffic, start)
    }

    #[tokio::test]
    async fn our_own_pings_do_not_keep_a_dead_connection_alive() {
        let (mut watchdog, traffic, start) = watchdog();
        for tick in 1..=9u32 {
            traffic.written.fetch_add(60, Ordering::Relaxed);
            let idle = watchdog.look(start + PING_INTERVAL * tick);
            assert_eq!(idle, PING_INTERVAL * tick);
        }
    }

    #[tokio::test]
    async fn a_slow_upload_and_any_answer_count_as_life() {
        let (mut watchdog, traffic, start) = watchdog();
        traffic.written.fetch_add(8192, Ordering::Relaxed);
        assert_eq!(watchdog.look(start + PING_INTERVAL), Duration::ZERO);
        assert_eq!(watchdog.look(start + PING_INTERVAL * 2), PING_INTERVAL);
        traffic.read.fetch_add(1, Ordering::Relaxed);
        assert_eq!(watchdog.look(start + PING_INTERVAL * 3), Duration::ZERO);
    }
}
