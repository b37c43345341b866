//! Servers for tests: what [`ServerProcess`] offers, and ways to break it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Output;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use crate::server_process::{ServerProcess, succeeded};

/// How long something may take until it is logged. Generous, as machines can be slow.
const LOG_LIMIT: Duration = Duration::from_secs(120);

impl ServerProcess {
    /// Starts a server on a free loopback port, with an empty datastore `store1` below `root`.
    ///
    /// # Errors
    ///
    /// When the server does not start or the datastore cannot be created.
    pub fn with_datastore(binary: &Path, root: &Path) -> Result<Self> {
        let server = Self::start(binary, root, ([127, 0, 0, 1], 0).into())?;
        let path = root.join("datastore/store1");
        server.ok(
            "manager",
            &[
                OsStr::new("datastore"),
                "create".as_ref(),
                "store1".as_ref(),
                path.as_ref(),
            ],
        )?;
        Ok(server)
    }

    /// Makes a sync job of `store1` that fails: nothing listens at its remote. It is not due in this century.
    ///
    /// # Errors
    ///
    /// When the manager refuses.
    pub fn create_failing_sync(&self, id: &str) -> Result<()> {
        let fingerprint = ["00"; 32].join(":");
        let remote = [
            "remote",
            "create",
            "dead",
            "--host",
            "127.0.0.1",
            "--port",
            "1",
        ];
        let account = [
            "--auth-id",
            "a@pbs",
            "--password",
            "secret",
            "--fingerprint",
            &fingerprint,
        ];
        self.ok("manager", &[&remote[..], &account[..]].concat())?;
        let job = [
            "sync-job",
            "create",
            id,
            "--store",
            "store1",
            "--schedule",
            "2199-1-1",
        ];
        let source = ["--remote", "dead", "--remote-store", "gone"];
        self.ok("manager", &[&job[..], &source[..]].concat())?;
        Ok(())
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

    /// Waits until at least `count` lines of the server's log contain all of `words`; says how many there are then.
    ///
    /// # Errors
    ///
    /// When they have not come within two minutes.
    pub fn wait_for_log(&self, words: &[&str], count: usize) -> Result<usize> {
        let found = |lines: &Vec<String>| {
            let fits = |line: &&String| words.iter().all(|word| line.contains(word));
            lines.iter().filter(fits).count()
        };
        let lines = self
            .log
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (lines, waited) = self
            .log
            .more
            .wait_timeout_while(lines, LOG_LIMIT, |lines| found(lines) < count)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            bail!(
                "no line with {words:?}; the server said:\n{}",
                lines.join("\n")
            );
        }
        Ok(found(&lines))
    }

    /// Runs `backstop <tool> arguments…` for the datastore `store1`, whatever comes of it.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn run<S: AsRef<OsStr>>(&self, tool: &str, arguments: &[S]) -> Result<Output> {
        self.command(tool, "store1")
            .args(arguments)
            .output()
            .context("starting the tool")
    }
}
