//! Measures how fast a server answers while something else goes on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use backstop_client::connection::{ClientOptions, HttpClient};
use serde_json::json;

use crate::server::ServerProcess;

/// A logged-in connection that asks for `/ping`.
pub struct Pinger {
    runtime: tokio::runtime::Runtime,
    client: HttpClient,
}

impl Pinger {
    /// Logs in to `server` as `admin@pbs`.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached.
    pub fn connect(server: &ServerProcess) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let host = server.address.ip().to_string();
        let mut options = ClientOptions::new(host, server.address.port(), "admin@pbs".parse()?);
        options.secret = Some(server.password.clone());
        options.fingerprint = Some(server.fingerprint.parse()?);
        let client = runtime
            .block_on(HttpClient::connect(options))
            .context("connecting to the server")?;
        Ok(Self { runtime, client })
    }

    /// The time until `/ping` is answered.
    ///
    /// # Errors
    ///
    /// When it is not answered.
    pub fn ping(&self) -> Result<Duration> {
        let start = Instant::now();
        self.runtime
            .block_on(self.client.get("ping", json!({})))
            .context("asking for /ping")?;
        Ok(start.elapsed())
    }

    /// Gets something as it comes over the wire, with the time until its last byte.
    ///
    /// # Errors
    ///
    /// When it is not answered.
    pub fn fetch(&self, path: &str, params: serde_json::Value) -> Result<(Duration, Vec<u8>)> {
        let start = Instant::now();
        let body = self
            .runtime
            .block_on(self.client.download(path, params))
            .with_context(|| format!("asking for {path}"))?;
        Ok((start.elapsed(), body.to_vec()))
    }

    /// Pings again and again, with a pause of 2 ms, as long as `more` says so. Returns the times, sorted.
    ///
    /// # Errors
    ///
    /// When a ping is not answered.
    pub fn ping_while(&self, mut more: impl FnMut() -> bool) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        while more() {
            times.push(self.ping()?);
            std::thread::sleep(Duration::from_millis(2));
        }
        times.sort();
        Ok(times)
    }
}

/// The time that `percent` of the sorted `times` do not exceed.
#[must_use]
pub fn percentile(times: &[Duration], percent: f64) -> Duration {
    let last = times.len().saturating_sub(1);
    let at = (times.len() as f64 * percent / 100.0) as usize;
    times.get(at.min(last)).copied().unwrap_or_default()
}
