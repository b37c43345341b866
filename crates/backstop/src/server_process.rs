//! A Backstop server as a process of its own, and the tools that talk to it.
//!
//! The demo and the end-to-end tests use it: they show and check the program as its users meet it,
//! through its command lines. It must never touch the user's own configuration: the tools that it
//! starts get a home directory of their own.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// How long a server may take until it listens. Generous: a loaded machine is slow, not broken.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A running server. Dropping it kills the process.
pub struct ServerProcess {
    /// The executable that runs as server and as every tool.
    pub binary: PathBuf,
    /// The process.
    pub child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// SHA-256 fingerprint of its certificate, in colon form.
    pub fingerprint: String,
    /// Password of `admin@pbs`.
    pub password: String,
    /// Its root directory, as given with `--root`.
    pub root: PathBuf,
    /// What it said on standard output and standard error.
    pub log: Arc<ServerLog>,
    /// Home directory of the tools.
    home: TempDir,
}

/// What a server said, line by line.
#[derive(Default)]
pub struct ServerLog {
    /// The lines so far.
    pub lines: Mutex<Vec<String>>,
    /// Told of each further line.
    pub more: Condvar,
}

impl ServerProcess {
    /// Starts `binary server --root root --listen listen` and waits until it listens. Port 0 is a free port.
    ///
    /// # Errors
    ///
    /// When the server does not start; the error holds what it said.
    pub fn start(binary: &Path, root: &Path, listen: SocketAddr) -> Result<Self> {
        let mut child = Command::new(binary)
            .args(["server", "--listen", &listen.to_string(), "--root"])
            .arg(root)
            .env_remove("BACKSTOP_ROOT")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C on the terminal is for the caller, who then ends the server in order
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let (lines, said) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            forward(stdout, lines.clone());
        }
        if let Some(stderr) = child.stderr.take() {
            forward(stderr, lines);
        }
        let mut heard = Vec::new();
        let address = loop {
            match said.recv_timeout(START_LIMIT) {
                Ok(line) => {
                    let address = address_in(&line);
                    heard.push(line);
                    if let Some(address) = address {
                        break address;
                    }
                }
                Err(_) => {
                    let _ = child.kill();
                    let status = child.wait();
                    bail!(
                        "the server did not come up ({status:?}); it said:\n{}",
                        heard.join("\n")
                    );
                }
            }
        };
        let log = Arc::new(ServerLog::default());
        let kept = Arc::clone(&log);
        // keep reading, so that the server never blocks on a full pipe
        std::thread::spawn(move || {
            for line in heard.into_iter().chain(said) {
                kept.lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
                kept.more.notify_all();
            }
        });

        let password_file = root.join("etc/proxmox-backup/initial-password");
        let password = std::fs::read_to_string(password_file)
            .unwrap_or_default()
            .trim_end()
            .to_string();
        let mut server = Self {
            binary: binary.into(),
            child,
            address,
            fingerprint: String::new(),
            password,
            root: root.into(),
            log,
            home: private_directory("backstop-home-")
                .context("creating a home directory for the tools")?,
        };
        let info = server.ok("manager", &["cert", "info"])?;
        server.fingerprint = info
            .lines()
            .find_map(|line| line.strip_prefix("Fingerprint (sha256): "))
            .with_context(|| format!("no fingerprint in {info:?}"))?
            .to_string();
        Ok(server)
    }

    /// Asks the server to end (SIGTERM) and waits for it.
    ///
    /// # Errors
    ///
    /// When it cannot be signalled or ends with an error.
    pub fn stop(&mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .context("no pid")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .context("ending the server")?;
        let status = self.child.wait()?;
        if !status.success() {
            let lines = self
                .log
                .lines
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            bail!(
                "the server ended with {status}; it said:\n{}",
                lines.join("\n")
            );
        }
        Ok(())
    }

    /// `user@pbs@host:port:datastore` for `admin@pbs`.
    #[must_use]
    pub fn repository(&self, datastore: &str) -> String {
        format!("admin@pbs@{}:{datastore}", self.address)
    }

    /// Sets what a client needs to reach `datastore` on this server as `admin@pbs`, and keeps it away
    /// from the user's own files.
    pub fn environment(&self, command: &mut Command, datastore: &str) {
        for (name, _) in std::env::vars_os() {
            let name_bytes = name.as_encoded_bytes();
            if name_bytes.starts_with(b"PBS_") || name_bytes.starts_with(b"PROXMOX_OUTPUT") {
                command.env_remove(name);
            }
        }
        command
            .env("PBS_REPOSITORY", self.repository(datastore))
            .env("PBS_PASSWORD", &self.password)
            .env("PBS_FINGERPRINT", &self.fingerprint)
            .env("BACKSTOP_ROOT", &self.root)
            .env("HOME", self.home.path())
            .env("XDG_CONFIG_HOME", self.home.path().join("config"))
            .env("XDG_CACHE_HOME", self.home.path().join("cache"))
            .env("XDG_RUNTIME_DIR", self.home.path())
            .env("LANG", "C.UTF-8")
            .env_remove("LC_ALL")
            .env_remove("ALL_PROXY")
            .stdin(Stdio::null());
    }

    /// `backstop <tool> …`, prepared to talk to `datastore` on this server.
    #[must_use]
    pub fn command(&self, tool: &str, datastore: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg(tool);
        self.environment(&mut command, datastore);
        command
    }

    /// Runs `backstop <tool> arguments…` for the datastore `store1` and returns its standard output.
    ///
    /// # Errors
    ///
    /// When the tool fails; the error holds what it said.
    pub fn ok<S: AsRef<OsStr>>(&self, tool: &str, arguments: &[S]) -> Result<String> {
        let output = self
            .command(tool, "store1")
            .args(arguments)
            .output()
            .context("starting the tool")?;
        succeeded(&output)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A temporary directory that only its owner can look into.
///
/// # Errors
///
/// When it cannot be created.
pub fn private_directory(prefix: &str) -> std::io::Result<TempDir> {
    let mode = std::fs::Permissions::from_mode(0o700);
    tempfile::Builder::new()
        .prefix(prefix)
        .permissions(mode)
        .tempdir()
}

/// What a successful program wrote to standard output.
///
/// # Errors
///
/// When it failed; the error holds both of its outputs.
pub fn succeeded(output: &Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    bail!(
        "{}\nstdout: {stdout}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The address in the line that a server prints when it listens.
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("https://")?;
    rest.split(|c: char| c == '/' || c.is_whitespace())
        .next()?
        .parse()
        .ok()
}

/// Sends each line of `source` on, until it ends.
fn forward(source: impl std::io::Read + Send + 'static, lines: mpsc::Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(source).lines() {
            let Ok(line) = line else { break };
            if lines.send(line).is_err() {
                break;
            }
        }
    });
}
