//! A Backstop server as a process of its own, and the tools that talk to it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// How long a server may take until it listens. Generous: a loaded machine is slow, not broken.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A running server. Dropping it kills the process.
pub struct Server {
    binary: PathBuf,
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// Fingerprint of its certificate.
    pub fingerprint: String,
    /// Password of `admin@pbs`.
    pub password: String,
    /// Its root directory, as given with `--root`.
    pub root: PathBuf,
    home: TempDir,
}

impl Server {
    /// Starts `binary server --root root` on a free loopback port and waits until it listens.
    ///
    /// # Errors
    ///
    /// When the server does not start; the error holds what it said.
    pub fn start(binary: &Path, root: &Path) -> Result<Self> {
        Self::start_with(binary, root, &[])
    }

    /// As [`Server::start`], with further arguments.
    ///
    /// # Errors
    ///
    /// When the server does not start; the error holds what it said.
    pub fn start_with(binary: &Path, root: &Path, arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(binary)
            .args(["server", "--listen", "127.0.0.1:0", "--root"])
            .arg(root)
            .args(arguments)
            .env_remove("BACKSTOP_ROOT")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
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
                    let address = line.split("https://").nth(1).and_then(|rest| {
                        rest.split(|c: char| c == '/' || c.is_whitespace())
                            .next()
                            .and_then(|text| text.parse().ok())
                    });
                    heard.push(line);
                    if let Some(address) = address {
                        break address;
                    }
                }
                Err(_) => {
                    let status = child.try_wait();
                    let _ = child.kill();
                    bail!(
                        "the server did not come up ({status:?}); it said:\n{}",
                        heard.join("\n")
                    );
                }
            }
        };
        // keep reading, so that the server never blocks on a full pipe
        std::thread::spawn(move || while said.recv().is_ok() {});

        let password_file = root.join("etc/proxmox-backup/initial-password");
        let password = std::fs::read_to_string(&password_file)
            .unwrap_or_default()
            .trim_end()
            .to_string();
        let home = tempfile::tempdir()?;
        let mut server = Self {
            binary: binary.into(),
            child,
            address,
            fingerprint: String::new(),
            password,
            root: root.into(),
            home,
        };
        let info = server.run("manager", &["cert", "info"])?;
        let text = String::from_utf8_lossy(&info.stdout);
        server.fingerprint = text
            .lines()
            .find_map(|line| line.strip_prefix("Fingerprint (sha256): "))
            .with_context(|| {
                format!(
                    "no fingerprint in {text:?} {:?}",
                    String::from_utf8_lossy(&info.stderr)
                )
            })?
            .to_string();
        Ok(server)
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the server at once, as a power cut would (SIGKILL).
    ///
    /// # Errors
    ///
    /// When the process cannot be ended.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
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
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the server ended with {status}");
        }
        Ok(())
    }

    /// `user@pbs@host:port:datastore` for `admin@pbs`.
    #[must_use]
    pub fn repository(&self, datastore: &str) -> String {
        format!("admin@pbs@{}:{datastore}", self.address)
    }

    /// Sets what a client (ours or stock) needs to reach `datastore` on this server as `admin@pbs`, and
    /// keeps it away from the user's own files.
    pub fn environment(&self, command: &mut Command, datastore: &str) {
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PBS_")
                || name.as_encoded_bytes().starts_with(b"PROXMOX_OUTPUT")
            {
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
            .stdin(Stdio::null());
    }

    /// `backstop <tool> …` prepared to talk to this server; the datastore is `store1`.
    #[must_use]
    pub fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg(tool);
        self.environment(&mut command, "store1");
        command
    }

    /// Runs `backstop <tool> arguments…` and returns what it said.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn run<S: AsRef<OsStr>>(&self, tool: &str, arguments: &[S]) -> Result<Output> {
        self.command(tool)
            .args(arguments)
            .output()
            .context("starting the tool")
    }

    /// As [`Server::run`], and anything but success is an error that holds what the tool said.
    ///
    /// # Errors
    ///
    /// When the tool fails.
    pub fn ok<S: AsRef<OsStr>>(&self, tool: &str, arguments: &[S]) -> Result<String> {
        succeeded(&self.run(tool, arguments)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
