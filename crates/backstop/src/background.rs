//! A command that goes on in the background: its process splits in two, and the first half waits until the second is
//! ready or has failed.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, setsid, waitpid};

use crate::command;

/// Which half this process is.
pub enum Half {
    /// The one that was called; the other is ready, or has said why not. It ends with this status.
    Caller(ExitCode),
    /// The one that goes on.
    Background(Readiness),
}

/// Tells the caller that everything is ready. Dropped before, it tells that nothing will be.
pub struct Readiness(OwnedFd);

/// Splits this process in two. Only to be called while it has no other threads.
///
/// # Errors
/// It cannot be split, or the half in the background was killed before it was ready.
pub fn split() -> anyhow::Result<Half> {
    let (reading, writing) =
        pipe_with(PipeFlags::CLOEXEC).context("unable to go to the background")?;
    // SAFETY: fork is sound in a process of one thread, and commands split before they start any. Both halves go on
    // with memory of their own.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(std::io::Error::last_os_error()).context("unable to go to the background");
    }
    match Pid::from_raw(child) {
        None => {
            drop(reading);
            Ok(Half::Background(Readiness(writing)))
        }
        Some(child) => {
            drop(writing);
            wait_for(child, reading).map(Half::Caller)
        }
    }
}

fn wait_for(child: Pid, reading: OwnedFd) -> anyhow::Result<ExitCode> {
    let mut ready = [0];
    match std::fs::File::from(reading).read_exact(&mut ready) {
        Ok(()) => return Ok(ExitCode::SUCCESS),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
        Err(error) => return Err(error).context("unable to hear from the background"),
    }
    let ended =
        waitpid(Some(child), WaitOptions::empty()).context("unable to hear from the background")?;
    match ended.and_then(|(_, status)| status.terminating_signal()) {
        Some(signal) => bail!("the process in the background was killed by signal {signal}"),
        // It has said itself what went wrong.
        None => Ok(command::failure()),
    }
}

impl Readiness {
    /// Leaves the terminal and the directory of the caller, and lets it end. From here on nobody sees what is printed.
    ///
    /// # Errors
    /// One of the steps fails.
    pub fn ready(self) -> anyhow::Result<()> {
        let nothing = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .context("unable to open /dev/null")?;
        setsid().context("unable to leave the terminal")?;
        std::env::set_current_dir("/").context("unable to leave the current directory")?;
        rustix::stdio::dup2_stdin(&nothing)?;
        rustix::stdio::dup2_stdout(&nothing)?;
        rustix::stdio::dup2_stderr(&nothing)?;
        std::fs::File::from(self.0)
            .write_all(&[1])
            .context("unable to tell that all is ready")
    }
}
