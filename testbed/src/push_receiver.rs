//! A receiver of pushes and web hooks on loopback: it answers as a test says, with or without TLS, and remembers what came.
//!
//! [`Watch`] follows the documented rules of a push monitor of Uptime Kuma: what it was told last counts, until nothing was told for
//! longer than its interval. Its clock is the test's.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// How long a test waits for a request before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// One request.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its method.
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// Headers, with names in small letters.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Received {
    /// The path.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A parameter of the query, decoded.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(key, _)| *key == name)?;
        Some(decoded(value))
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        let hex = more.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = more.get(2..).unwrap_or_default();
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

type Answering = dyn Fn(&Received) -> (u16, String) + Send + Sync;

struct State {
    received: Mutex<Vec<Received>>,
    changed: Condvar,
    answering: Mutex<Arc<Answering>>,
    is_over: AtomicBool,
}

impl State {
    fn received(&self) -> MutexGuard<'_, Vec<Received>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running receiver. Dropping it ends it.
pub struct PushReceiver {
    /// Where it listens.
    pub address: SocketAddr,
    is_tls: bool,
    state: Arc<State>,
}

impl PushReceiver {
    /// Starts a receiver without TLS.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(
        answer: impl Fn(&Received) -> (u16, String) + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::with(None, "127.0.0.1:0", answer)
    }

    /// Starts a receiver that takes requests and answers none of them before what is returned with it is dropped; then it takes all.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start_hanging() -> Result<(Self, Hold)> {
        let (sender, receiver) = mpsc::channel();
        let receiver = Mutex::new(receiver);
        let start = Self::start(move |_| {
            let held = receiver.lock().unwrap_or_else(PoisonError::into_inner);
            // Nothing is ever sent: this ends when nobody can any more.
            let _ = held.recv();
            (200, r#"{"ok":true}"#.to_owned())
        });
        Ok((start?, Hold { _sender: sender }))
    }

    /// Starts a receiver with TLS, with a certificate and its key from PEM files.
    ///
    /// # Errors
    /// When it cannot listen, or the files cannot be used.
    pub fn start_tls(
        certificate: &Path,
        key: &Path,
        answer: impl Fn(&Received) -> (u16, String) + Send + Sync + 'static,
    ) -> Result<Self> {
        let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(key)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Self::with(Some(Arc::new(config)), "127.0.0.1:0", answer)
    }

    fn with(
        tls: Option<Arc<ServerConfig>>,
        address: &str,
        answer: impl Fn(&Received) -> (u16, String) + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(address).context("listening")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            received: Mutex::default(),
            changed: Condvar::new(),
            answering: Mutex::new(Arc::new(answer)),
            is_over: AtomicBool::new(false),
        });
        let receiver = Self {
            address,
            is_tls: tls.is_some(),
            state: Arc::clone(&state),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if state.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), state, tls) = (stream, Arc::clone(&state), tls.clone()) else {
                    continue;
                };
                // What a peer breaks off is its own affair.
                std::thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(PATIENCE));
                    let _ = match tls {
                        None => serve(stream, &state),
                        Some(config) => ServerConnection::new(config)
                            .map_err(anyhow::Error::from)
                            .and_then(|tls| serve(StreamOwned::new(tls, stream), &state)),
                    };
                });
            }
        });
        Ok(receiver)
    }

    /// The URL of a path, by the IP address.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    /// Everything that came so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.state.received().clone()
    }

    /// Waits until so many requests have come.
    ///
    /// # Panics
    /// When they do not come within a minute.
    #[must_use]
    pub fn wait_for(&self, count: usize) -> Vec<Received> {
        let waited =
            self.state
                .changed
                .wait_timeout_while(self.state.received(), PATIENCE, |received| {
                    received.len() < count
                });
        let (received, _) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(
            received.len() >= count,
            "{} requests came where {count} were expected",
            received.len()
        );
        received.clone()
    }

    /// Answers differently from now on.
    pub fn answer_with(&self, answer: impl Fn(&Received) -> (u16, String) + Send + Sync + 'static) {
        let mut answering = self.state.answering.lock();
        let answering = match &mut answering {
            Ok(answering) => answering,
            Err(poisoned) => poisoned.get_mut(),
        };
        **answering = Arc::new(answer);
    }
}

/// Keeps a receiver from answering until it is dropped.
pub struct Hold {
    _sender: mpsc::Sender<()>,
}

impl Drop for PushReceiver {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: impl Read + Write, state: &State) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, target) = (
        words.next().context("method")?,
        words.next().context("target")?,
    );
    let mut received = Received {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: BTreeMap::new(),
        body: Vec::new(),
    };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
        received.headers.insert(name, value);
    }
    let length = received.headers.get("content-length");
    let length = length.map_or(Ok(0), |length| length.parse())?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    received.body = body;
    let answering = match state.answering.lock() {
        Ok(answering) => Arc::clone(&answering),
        Err(poisoned) => Arc::clone(&poisoned.into_inner()),
    };
    let (status, text) = answering(&received);
    // First of all, so that whoever has the answer finds it.
    state.received().push(received);
    state.changed.notify_all();
    let stream = stream.get_mut();
    let head = format!(
        "HTTP/1.1 {status} Answer\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.flush()?;
    Ok(())
}

/// A push monitor.
#[derive(Debug)]
pub struct Watch {
    token: String,
    interval: i64,
    now: Mutex<i64>,
    told: Mutex<Option<(i64, String, String)>>,
}

impl Watch {
    /// A monitor that wants to be told something at least once in `interval` seconds.
    #[must_use]
    pub fn new(token: &str, interval: i64, now: i64) -> Arc<Self> {
        Arc::new(Self {
            token: token.to_owned(),
            interval,
            now: Mutex::new(now),
            told: Mutex::new(None),
        })
    }

    /// Sets its clock.
    pub fn set_clock(&self, now: i64) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn now(&self) -> i64 {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a push.
    #[must_use]
    pub fn take(&self, push: &Received) -> (u16, String) {
        if push.path() != format!("/api/push/{}", self.token) {
            let text = r#"{"ok":false,"msg":"Monitor not found or not active."}"#;
            return (500, text.to_owned());
        }
        let ping = push.parameter("ping").unwrap_or_default();
        let is_good = ping.parse::<u64>().is_ok_and(|ping| ping <= 86_400_000);
        if !ping.is_empty() && !is_good {
            return (400, r#"{"ok":false,"msg":"Invalid ping value"}"#.to_owned());
        }
        let status = push.parameter("status").unwrap_or_else(|| "up".to_owned());
        let message = push.parameter("msg").unwrap_or_else(|| "OK".to_owned());
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((self.now(), status, message));
        (200, r#"{"ok":true}"#.to_owned())
    }

    /// When it was told something for the last time.
    #[must_use]
    pub fn last_told(&self) -> Option<i64> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.as_ref().map(|(time, ..)| *time)
    }

    /// What it shows: whether all is well, and why.
    #[must_use]
    pub fn state(&self) -> (bool, String) {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match told.as_ref() {
            Some((time, status, message)) if self.now() - time <= self.interval => {
                (status == "up", message.clone())
            }
            _ => (false, "No heartbeat in the time window".to_owned()),
        }
    }
}
