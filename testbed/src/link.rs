//! A line between two programs: a TCP proxy that adds delay, has a bandwidth, and can be stopped and cut.
//!
//! Every byte arrives, in order, unless the line is cut; then all its connections end at once and no new one comes
//! through until it is mended. A line that is stopped keeps what it carries until it goes on. What is not imitated: lost packets, and the slow start of real TCP connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Bytes that are forwarded at once.
const PIECE: usize = 64 << 10;
/// How far the queue before a narrow line may run ahead of it, as the buffer of a router does.
const QUEUE: Duration = Duration::from_millis(20);
/// Pieces that are on their way on a line without a bandwidth, for each connection and direction.
const PIECES: usize = 1 << 12;

/// How long to wait for a line to stop. Generous: a loaded machine is slow, not broken.
const LIMIT: Duration = Duration::from_secs(120);

/// What a line is like.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinkSpec {
    /// How long a byte and the answer to it take together, beyond what the machine needs. A new connection costs one more.
    pub round_trip: Duration,
    /// Bytes per second in each direction, for all connections together; `None`: no limit.
    pub rate: Option<u64>,
}

/// One direction of the line.
struct Lane {
    spec: LinkSpec,
    /// When the line is free for the next byte.
    free: parking_lot::Mutex<Instant>,
    carried: AtomicU64,
    /// The line is cut when so many bytes have come this way.
    cut_at: AtomicU64,
    /// This direction stops when so many bytes have come this way.
    stop_at: AtomicU64,
    /// Whether it has stopped.
    stopped: watch::Sender<bool>,
}

impl Lane {
    fn new(spec: LinkSpec) -> Self {
        Self {
            spec,
            free: parking_lot::Mutex::new(Instant::now()),
            carried: AtomicU64::new(0),
            cut_at: AtomicU64::new(u64::MAX),
            stop_at: AtomicU64::new(u64::MAX),
            stopped: watch::Sender::new(false),
        }
    }

    /// The count at which `bytes` more will have come.
    fn after(&self, bytes: u64) -> u64 {
        let carried = self.carried.load(Ordering::SeqCst);
        carried.saturating_add(bytes)
    }

    /// When the last of `bytes` that wait now is on the line.
    fn book(&self, bytes: usize) -> Instant {
        let now = Instant::now();
        let Some(rate) = self.spec.rate else {
            return now;
        };
        let time = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let mut free = self.free.lock();
        *free = (*free).max(now) + time;
        *free
    }
}

struct Shared {
    target: parking_lot::Mutex<SocketAddr>,
    up: Lane,
    down: Lane,
    /// Whether the line is whole.
    whole: watch::Sender<bool>,
}

impl Shared {
    fn lanes(&self) -> [&Lane; 2] {
        [&self.up, &self.down]
    }
}

/// A line to one server. Ends when dropped.
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Runtime,
}

impl Link {
    /// A line to `target`, which clients reach at [`address`](Self::address).
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub fn start(target: SocketAddr, spec: LinkSpec) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime
            .block_on(TcpListener::bind(("127.0.0.1", 0)))
            .context("listening for the line")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: parking_lot::Mutex::new(target),
            up: Lane::new(spec),
            down: Lane::new(spec),
            whole: watch::Sender::new(true),
        });
        let own = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A cut line shows as a connection that ends at once.
                if *own.whole.borrow() {
                    tokio::spawn(connect(Arc::clone(&own), client));
                }
            }
        });
        Ok(Self {
            address,
            shared,
            runtime,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads new connections to another server.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock() = target;
    }

    /// Bytes that came from the server so far.
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.shared.down.carried.load(Ordering::SeqCst)
    }

    /// Bytes that went to the server so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.up.carried.load(Ordering::SeqCst)
    }

    /// Cuts the line when so many more bytes have come from the server.
    pub fn cut_after(&self, bytes: u64) {
        let lane = &self.shared.down;
        lane.cut_at.store(lane.after(bytes), Ordering::SeqCst);
    }

    /// Cuts the line when so many more bytes have gone to the server.
    pub fn cut_after_sent(&self, bytes: u64) {
        let lane = &self.shared.up;
        lane.cut_at.store(lane.after(bytes), Ordering::SeqCst);
    }

    /// Whether the line has been cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        !*self.shared.whole.borrow()
    }

    /// Cuts the line now.
    pub fn cut(&self) {
        self.shared.whole.send_replace(false);
    }

    /// Lets new connections through again, and everything on them.
    pub fn mend(&self) {
        for lane in self.shared.lanes() {
            lane.cut_at.store(u64::MAX, Ordering::SeqCst);
        }
        self.shared.whole.send_replace(true);
        self.go_on();
    }

    /// Stops what comes from the server when so many more bytes have come.
    pub fn stop_after(&self, bytes: u64) {
        let lane = &self.shared.down;
        lane.stop_at.store(lane.after(bytes), Ordering::SeqCst);
    }

    /// Stops what goes to the server when so many more bytes have gone.
    pub fn stop_after_sent(&self, bytes: u64) {
        let lane = &self.shared.up;
        lane.stop_at.store(lane.after(bytes), Ordering::SeqCst);
    }

    /// Waits until one direction has stopped.
    ///
    /// # Errors
    ///
    /// When it has not within two minutes.
    pub fn wait_until_stopped(&self) -> Result<()> {
        let [mut up, mut down] = self.shared.lanes().map(|lane| lane.stopped.subscribe());
        self.runtime.block_on(async {
            let stopped = async {
                tokio::select! {
                    stopped = up.wait_for(|stopped| *stopped) => stopped.map(drop),
                    stopped = down.wait_for(|stopped| *stopped) => stopped.map(drop),
                }
            };
            tokio::time::timeout(LIMIT, stopped)
                .await
                .context("the line carries too little to stop")??;
            Ok(())
        })
    }

    /// Ends the stop.
    pub fn go_on(&self) {
        for lane in self.shared.lanes() {
            lane.stop_at.store(u64::MAX, Ordering::SeqCst);
            lane.stopped.send_replace(false);
        }
    }
}

async fn connect(shared: Arc<Shared>, client: TcpStream) {
    let target = *shared.target.lock();
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let mut whole = shared.whole.subscribe();
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // The handshake of a connection takes a round trip before its first byte goes.
    let handshake = shared.up.spec.round_trip;
    let carry = async {
        tokio::join!(
            carry(&shared, &shared.up, handshake, from_client, to_server),
            carry(
                &shared,
                &shared.down,
                Duration::ZERO,
                from_server,
                to_client
            ),
        )
    };
    // Both connections end with their halves when this returns.
    tokio::select! {
        _ = carry => {}
        _ = whole.wait_for(|whole| !whole) => {}
    }
}

/// Carries one direction of a connection to its end.
async fn carry(
    shared: &Shared,
    lane: &Lane,
    first: Duration,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let mut late = first + lane.spec.round_trip / 2;
    let take = async move {
        loop {
            let mut piece = vec![0; PIECE];
            match from.read(&mut piece).await {
                Ok(count) if count > 0 => piece.truncate(count),
                _ => return,
            }
            let departs = lane.book(piece.len());
            let arrives = departs + late;
            if sender.send((arrives, piece)).await.is_err() {
                return;
            }
            late = lane.spec.round_trip / 2;
            if lane.spec.rate.is_some() {
                sleep_until(departs - QUEUE).await;
            }
        }
    };
    let give = async move {
        let mut last = Instant::now();
        while let Some((arrives, piece)) = pieces.recv().await {
            // Never out of order, even though the first piece comes late.
            last = last.max(arrives);
            sleep_until(last).await;
            deliver(shared, lane, &mut to, &piece).await?;
        }
        to.shutdown().await
    };
    let _: ((), io::Result<()>) = tokio::join!(take, give);
}

/// Hands a piece over, unless the line is cut; waits while it is stopped.
async fn deliver(
    shared: &Shared,
    lane: &Lane,
    to: &mut OwnedWriteHalf,
    mut piece: &[u8],
) -> io::Result<()> {
    let mut stopped = lane.stopped.subscribe();
    while !piece.is_empty() {
        // Whoever comes to a line that is stopped waits, too.
        let _ = stopped.wait_for(|stopped| !stopped).await;
        let carried = &lane.carried;
        let room = |limit: &AtomicU64| {
            let room = limit.load(Ordering::SeqCst);
            let room = room.saturating_sub(carried.load(Ordering::SeqCst));
            usize::try_from(room).unwrap_or(usize::MAX)
        };
        let (cut, stop) = (room(&lane.cut_at), room(&lane.stop_at));
        if cut == 0 {
            shared.whole.send_replace(false);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if stop == 0 {
            lane.stopped.send_replace(true);
            continue;
        }
        let (now, later) = piece
            .split_at_checked(cut.min(stop))
            .unwrap_or((piece, &[]));
        carried.fetch_add(now.len() as u64, Ordering::SeqCst);
        to.write_all(now).await?;
        piece = later;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A server that sends back what it gets, on each connection.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut back = stream.try_clone().unwrap();
                    let _ = std::io::copy(&mut stream, &mut back);
                    let _ = back.shutdown(std::net::Shutdown::Write);
                });
            }
        });
        address
    }

    fn round(stream: &mut TcpStream, data: &[u8]) -> std::io::Result<Vec<u8>> {
        stream.write_all(data)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut back = Vec::new();
        stream.read_to_end(&mut back)?;
        Ok(back)
    }

    #[test]
    fn everything_arrives_in_order_and_not_before_its_time() {
        let spec = LinkSpec {
            round_trip: Duration::from_millis(50),
            rate: Some(4 << 20),
        };
        let link = Link::start(echo(), spec).unwrap();
        let data: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
        let start = std::time::Instant::now();
        let mut stream = TcpStream::connect(link.address()).unwrap();
        assert!(round(&mut stream, &data).unwrap() == data);
        // A handshake, a round trip, and a quarter of a second of data.
        let least = Duration::from_millis(50 + 50 + 238);
        assert!(start.elapsed() >= least, "{:?}", start.elapsed());
        assert_eq!(link.carried(), 1_000_000);
    }

    #[test]
    fn a_line_that_is_cut_lets_through_what_it_should_and_then_nothing_until_it_is_mended() {
        let link = Link::start(echo(), LinkSpec::default()).unwrap();
        link.cut_after(100_000);
        let mut stream = TcpStream::connect(link.address()).unwrap();
        let data = vec![7; 300_000];
        let _ = stream.write_all(&data);
        let (mut count, mut buffer) = (0, vec![0; 1 << 16]);
        while let Ok(read) = stream.read(&mut buffer) {
            if read == 0 {
                break;
            }
            count += read;
        }
        // The end of the connection may overtake what it carried.
        assert!(count <= 100_000, "{count}");
        assert!(link.is_cut());
        let mut refused = TcpStream::connect(link.address()).unwrap();
        assert!(!matches!(refused.read(&mut buffer), Ok(read) if read > 0));
        link.mend();
        link.stop_after(3);
        let mut stream = TcpStream::connect(link.address()).unwrap();
        stream.write_all(b"hello").unwrap();
        link.wait_until_stopped().unwrap();
        let mut part = [0; 3];
        stream.read_exact(&mut part).unwrap();
        assert_eq!(&part, b"hel");
        link.go_on();
        assert_eq!(round(&mut stream, b" you").unwrap(), b"lo you");
    }

    #[test]
    fn what_goes_to_the_server_is_counted_stopped_and_cut_by_itself() {
        let link = Link::start(echo(), LinkSpec::default()).unwrap();
        link.stop_after_sent(3);
        let mut stream = TcpStream::connect(link.address()).unwrap();
        stream.write_all(b"hello").unwrap();
        link.wait_until_stopped().unwrap();
        let mut part = [0; 3];
        stream.read_exact(&mut part).unwrap();
        assert_eq!((&part, link.sent()), (b"hel", 3));
        link.go_on();
        assert_eq!(round(&mut stream, b" you").unwrap(), b"lo you");
        link.cut_after_sent(4);
        let mut stream = TcpStream::connect(link.address()).unwrap();
        let _ = stream.write_all(b"hello");
        // The server gets four bytes; how many of them come back before the end is open.
        let mut back = Vec::new();
        let _ = stream.read_to_end(&mut back);
        assert!(b"hell".starts_with(&back), "{back:?}");
        assert!(link.is_cut());
        assert_eq!(link.sent(), 13);
    }
}
