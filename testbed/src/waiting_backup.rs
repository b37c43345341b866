//! A backup that has begun and waits for data: an image that is a pipe.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Output, Stdio};

use anyhow::{Context, Result};

use crate::server::ServerProcess;

/// A client in the middle of a backup. Dropping it kills the client.
pub struct WaitingBackup {
    client: Option<Child>,
    pipe: Option<File>,
}

impl WaitingBackup {
    /// Begins to back up `host/id` to `store`; the pipe is made at `pipe`, which must not exist. Returns when the client
    /// reads from it, which is before the server knows of the backup.
    ///
    /// # Errors
    ///
    /// When the client cannot be started or the pipe not be made.
    pub fn begin(server: &ServerProcess, store: &str, id: &str, pipe: &Path) -> Result<Self> {
        rustix::fs::mkfifoat(rustix::fs::CWD, pipe, rustix::fs::Mode::RWXU)
            .with_context(|| format!("making the pipe {}", pipe.display()))?;
        let mut command = server.command("client", store);
        let spec = format!("data.img:{}", pipe.display());
        command.args(["backup", &spec, "--backup-id", id]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let client = command.spawn().context("starting the client")?;
        // Waits until the client opens its side.
        let writer = File::options().write(true).open(pipe)?;
        fs::remove_file(pipe)?;
        Ok(Self {
            client: Some(client),
            pipe: Some(writer),
        })
    }

    /// Gives the client something to back up.
    ///
    /// # Errors
    ///
    /// When the client has ended.
    pub fn feed(&mut self, data: &[u8]) -> Result<()> {
        let pipe = self.pipe.as_mut().context("the data has ended")?;
        pipe.write_all(data).context("writing to the client")
    }

    /// Ends the data and waits for the client.
    ///
    /// # Errors
    ///
    /// When the client cannot be waited for.
    pub fn end(mut self) -> Result<Output> {
        drop(self.pipe.take());
        let client = self.client.take().context("the client has ended")?;
        client.wait_with_output().context("waiting for the client")
    }
}

impl Drop for WaitingBackup {
    fn drop(&mut self) {
        if let Some(client) = &mut self.client {
            let _ = client.kill();
            let _ = client.wait();
        }
    }
}
