//! A program of others that listens on loopback: started on a free port, ready when it says so, ended with its value.

use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long an answer, or something that is waited for, may take. Generous: a loaded machine is slow, not broken.
pub const LIMIT: Duration = Duration::from_secs(120);
/// How often another port is tried.
const ATTEMPTS: usize = 8;
/// Between two questions, so that asking does not keep the machine from what is asked for.
const PAUSE: Duration = Duration::from_millis(50);
/// How many of the last lines that it said are told when it does not start.
const TOLD: usize = 20;

/// A running program. Dropping it ends the process.
pub struct Service {
    process: Child,
    end: Signal,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.process), self.end);
        let _ = self.process.wait();
    }
}

impl Service {
    /// Starts what `command` makes for a port that is free, and waits for a line that holds `ready`. A program that ends before
    /// is started anew for another port, as somebody else may have taken the first.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(ready: &str, command: impl Fn(u16) -> Result<Command>) -> Result<Self> {
        let mut said = Vec::new();
        for _ in 0..ATTEMPTS {
            let port = free_port()?;
            let mut command = command(port)?;
            let (log, writer) = std::io::pipe()?;
            let process = command
                .stdin(Stdio::null())
                .stdout(writer.try_clone()?)
                .stderr(writer)
                .spawn()
                .with_context(|| format!("starting {command:?}"))?;
            // With it, this process's end of the pipe is gone: the log ends with the program.
            drop(command);
            let service = Self {
                process,
                end: Signal::KILL,
                port,
            };
            let mut log = BufReader::new(log);
            said.clear();
            for line in log.by_ref().lines() {
                let line = line?;
                if line.contains(ready) {
                    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
                    return Ok(service);
                }
                said.push(line);
            }
        }
        let first = said.len().saturating_sub(TOLD);
        bail!("it does not start: {}", said.split_off(first).join("\n"))
    }

    /// The same, ended by this signal instead of at once: one that has processes or memory to clear away.
    #[must_use]
    pub fn ended_by(mut self, signal: Signal) -> Self {
        self.end = signal;
        self
    }

    /// Its address by HTTP.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it answers to a `GET` by HTTP: JSON.
    ///
    /// # Errors
    ///
    /// When it does not answer, or with something else.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.ask(&format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"))
    }

    /// What it answers to JSON that is posted to it: JSON.
    ///
    /// # Errors
    ///
    /// When it does not answer, or with something else.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let body = body.to_string();
        self.ask(&format!(
            "POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    fn ask(&self, request: &str) -> Result<Value> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        serde_json::from_str(body).with_context(|| format!("no JSON: {body}"))
    }

    /// Asks until the answer fits, and returns what `fits` makes of it.
    ///
    /// # Errors
    ///
    /// When none fits within two minutes, with the last one.
    pub fn wait_for<T>(&self, path: &str, fits: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let begin = Instant::now();
        loop {
            let answer = self.get(path)?;
            if let Some(result) = fits(&answer) {
                return Ok(result);
            }
            if begin.elapsed() > LIMIT {
                bail!("{path} still answers {answer}");
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// A port of loopback that nobody listens at, below those that the system gives away (Zabbix takes no other).
fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let random = RandomState::new().hash_one(());
        let port = 16384 + u16::try_from(random % 16384)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free")
}

/// A value in a query, each byte of it encoded.
#[must_use]
pub fn encoded(value: &str) -> String {
    value.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
