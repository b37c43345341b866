//! A real Prometheus on loopback, with data of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

/// How long it may take until something has been scraped. Generous: a loaded machine is slow, not broken.
const LIMIT: Duration = Duration::from_secs(120);
/// How often another port is tried.
const ATTEMPTS: usize = 8;

/// A running Prometheus. Dropping it ends the process.
pub struct Prometheus {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    /// Starts it with this configuration.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(program: &Path, config: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("prometheus.yml"), config)?;
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
                .local_addr()?
                .port();
            let mut process = Command::new(program)
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("starting {}", program.display()))?;
            let mut log = BufReader::new(process.stderr.take().context("it has no log")?);
            // It says when it listens; when the port was taken meanwhile, it ends.
            let mut ready = false;
            last.clear();
            for line in log.by_ref().lines() {
                let line = line?;
                ready = line.contains("Server is ready to receive web requests");
                last = line;
                if ready {
                    break;
                }
            }
            if ready {
                std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
                return Ok(Self {
                    process,
                    port,
                    _folder: folder,
                });
            }
            process.wait()?;
        }
        bail!("it does not start: {last}")
    }

    /// Asks until a query has a result, and returns that.
    ///
    /// # Errors
    ///
    /// When there is none within two minutes.
    pub fn wait_for(&self, query: &str) -> Result<Vec<Value>> {
        let begin = Instant::now();
        loop {
            let answer = self.query(query)?;
            let result = answer["data"]["result"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            if !result.is_empty() {
                return Ok(result);
            }
            if begin.elapsed() > LIMIT {
                let targets = self.get("/api/v1/targets")?;
                bail!("no result of {query}: {answer}; targets: {targets}");
            }
        }
    }

    fn query(&self, query: &str) -> Result<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.get(&format!("/api/v1/query?query={encoded}"))
    }

    fn get(&self, path: &str) -> Result<Value> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        serde_json::from_str(body).with_context(|| format!("no JSON: {body}"))
    }
}
