//! A real Uptime Kuma (2.x) on loopback, with data of its own, and what a browser does there: it signs up, makes push monitors
//! and looks at their heartbeats.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::service::{LIMIT, Service};

/// The folder of an installed Uptime Kuma.
const FOLDER_VARIABLE: &str = "BACKSTOP_UPTIME_KUMA";
/// What speaks for a browser.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/uptime_kuma/page.mjs");

/// A running Uptime Kuma and a page of it. Dropping it ends both.
pub struct UptimeKuma {
    /// Its address.
    pub url: String,
    page: Child,
    asks: ChildStdin,
    said: Receiver<Value>,
    /// Whether the page was told of a heartbeat since this was set to `false`.
    has_news: bool,
    _service: Service,
    _data: TempDir,
}

/// A push monitor.
#[derive(Debug, Clone)]
pub struct Monitor {
    id: Value,
    token: String,
}

/// One line of a monitor's history.
#[derive(Debug, Clone)]
pub struct Beat {
    /// Whether it is up.
    pub is_up: bool,
    /// Why.
    pub message: String,
    /// How long it took, milliseconds.
    pub ping: Option<f64>,
    /// When, as `YYYY-MM-DD hh:mm:ss.sss` in UTC.
    pub time: String,
}

impl Drop for UptimeKuma {
    fn drop(&mut self) {
        let _ = self.page.kill();
        let _ = self.page.wait();
    }
}

/// Where it is installed, or `None` (and a line that says so) where nobody has said that.
#[must_use]
pub fn installed() -> Option<PathBuf> {
    let folder = std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: no Uptime Kuma ({FOLDER_VARIABLE} is not set)");
    }
    folder
}

impl UptimeKuma {
    /// Starts it, with TLS when there are files with a certificate and its key, and signs up.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(folder: &Path, tls: Option<&(PathBuf, PathBuf)>) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let service = Service::start("Listening on", |port| {
            let mut command = Command::new("node");
            command
                .arg("server/server.js")
                .current_dir(folder)
                .env("NODE_ENV", "production")
                .env("DATA_DIR", format!("{}/", data.path().display()))
                .env("UPTIME_KUMA_DB_TYPE", "sqlite")
                .env("UPTIME_KUMA_HOST", "127.0.0.1")
                .env("UPTIME_KUMA_PORT", port.to_string())
                // Where it shows that it migrates its database, it listens for that page alone.
                .env("UPTIME_KUMA_HIDE_LOG", "info_migration")
                // It would ask its maker for newer versions.
                .env("https_proxy", "http://127.0.0.1:1");
            if let Some((certificate, key)) = tls {
                command
                    .env("UPTIME_KUMA_SSL_CERT", certificate)
                    .env("UPTIME_KUMA_SSL_KEY", key);
            }
            Ok(command)
        })
        .context("Uptime Kuma")?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{}", service.port);
        let mut page = Command::new("node")
            .arg(PAGE)
            .arg(folder)
            .arg(&url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting node")?;
        let asks = page.stdin.take().context("the page has no input")?;
        let output = page.stdout.take().context("the page has no output")?;
        let (sender, said) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            let mut said = lines.map_while(|line| serde_json::from_str(&line).ok());
            said.try_for_each(|line: Value| sender.send(line))
        });
        let mut kuma = Self {
            url,
            page,
            asks,
            said,
            has_news: false,
            _service: service,
            _data: data,
        };
        let (user, password) = ("admin", "Correct-Horse-7");
        kuma.ask(json!(["setup", user, password]))?;
        kuma.ask(json!(["login", {"username": user, "password": password, "token": ""}]))?;
        Ok(kuma)
    }

    /// Emits an event as a page does, and returns the answer.
    fn ask(&mut self, event: Value) -> Result<Value> {
        writeln!(self.asks, "{event}")?;
        loop {
            let said = self.said.recv_timeout(LIMIT)?;
            match said.get("answer") {
                Some(answer) if answer["ok"] == true => return Ok(answer.clone()),
                Some(answer) => bail!("{event}: {answer}"),
                None => self.has_news = true,
            }
        }
    }

    /// Makes a push monitor as its page does, all else as it is proposed there. `interval` is in seconds.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub fn push_monitor(&mut self, name: &str, interval: u64, retries: u64) -> Result<Monitor> {
        let token = format!("{name:0<32}");
        let monitor = json!({
            "type": "push", "name": name, "pushToken": token, "interval": interval, "retryInterval": interval,
            "maxretries": retries, "resendInterval": 0, "upsideDown": false, "notificationIDList": {},
            "accepted_statuscodes": ["200-299"], "conditions": [], "kafkaProducerBrokers": [],
            "kafkaProducerSaslOptions": {"mechanism": "None"}, "rabbitmqNodes": [],
        });
        let made = self.ask(json!(["add", monitor]))?;
        let id = made["monitorID"].clone();
        Ok(Monitor { id, token })
    }

    /// Pauses a monitor, or lets it go on.
    ///
    /// # Errors
    ///
    /// When that is refused.
    pub fn pause(&mut self, monitor: &Monitor, is_paused: bool) -> Result<()> {
        let event = if is_paused {
            "pauseMonitor"
        } else {
            "resumeMonitor"
        };
        self.ask(json!([event, monitor.id])).map(drop)
    }

    /// The URL of a monitor, as its page shows it.
    #[must_use]
    pub fn push_url(&self, monitor: &Monitor) -> String {
        format!(
            "{}/api/push/{}?status=up&msg=OK&ping=",
            self.url, monitor.token
        )
    }

    /// The history of a monitor, oldest first.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn beats(&mut self, monitor: &Monitor) -> Result<Vec<Beat>> {
        let answer = self.ask(json!(["getMonitorBeats", monitor.id, 1]))?;
        let beats = answer["data"].as_array().context("no list of beats")?;
        let beat = |beat: &Value| Beat {
            is_up: beat["status"] == 1,
            message: beat["msg"].as_str().unwrap_or_default().to_owned(),
            ping: beat["ping"].as_f64(),
            time: beat["time"].as_str().unwrap_or_default().to_owned(),
        };
        Ok(beats.iter().map(beat).collect())
    }

    /// Waits until a monitor has so many lines of history.
    ///
    /// # Errors
    ///
    /// When none comes for two minutes.
    pub fn wait_for_beats(&mut self, monitor: &Monitor, count: usize) -> Result<Vec<Beat>> {
        loop {
            self.has_news = false;
            let beats = self.beats(monitor)?;
            if beats.len() >= count {
                return Ok(beats);
            }
            if !self.has_news {
                let said = self.said.recv_timeout(LIMIT);
                said.with_context(|| format!("only {beats:?}"))?;
            }
        }
    }
}
