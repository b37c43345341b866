//! A pseudo terminal with a program on it, for what programs do only where somebody looks.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// How long something may take to appear.
const LIMIT: Duration = Duration::from_secs(120);

/// A program on a terminal of its own, which is its controlling terminal, 120 columns wide. Dropping it ends the program.
pub struct Terminal {
    keyboard: File,
    screen: mpsc::Receiver<Vec<u8>>,
    /// Everything that was shown.
    shown: String,
    /// How much of it was expected already.
    read: usize,
    child: Child,
}

impl Terminal {
    /// Starts the program.
    ///
    /// # Errors
    ///
    /// When there are no pseudo terminals, or the program does not start.
    pub fn run(mut command: Command) -> Result<Self> {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .context("opening a pseudo terminal")?;
        grantpt(&controller)?;
        unlockpt(&controller)?;
        let path = std::ffi::OsString::from_vec(ptsname(&controller, Vec::new())?.into_bytes());
        let size = Winsize {
            ws_row: 40,
            ws_col: 120,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&controller, size)?;
        let open = || -> Result<OwnedFd> {
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
            Ok(rustix::fs::open(&path, flags, rustix::fs::Mode::empty())?)
        };
        command
            .env("TERM", "xterm")
            .stdin(open()?)
            .stdout(open()?)
            .stderr(open()?);
        // SAFETY: all three calls are system calls and touch no memory of this process.
        unsafe {
            command.pre_exec(|| {
                // As a terminal starts it, also where the tests run in the background and ignore interrupts.
                libc::signal(libc::SIGINT, libc::SIG_DFL);
                rustix::process::setsid()?;
                Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
            });
        }
        let child = command.spawn().context("starting the program")?;
        // It holds the program's ends of the terminal, whose closing tells that the program is gone.
        drop(command);
        let keyboard = File::from(controller);
        let mut reader = keyboard.try_clone()?;
        let (sender, screen) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = reader.read(&mut buffer) {
                if count == 0 || sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            keyboard,
            screen,
            shown: String::new(),
            read: 0,
            child,
        })
    }

    /// Waits until `text` is shown, after what was expected before.
    ///
    /// # Errors
    ///
    /// When it is not shown within two minutes, or the program ends before.
    pub fn expect(&mut self, text: &str) -> Result<()> {
        let start = Instant::now();
        loop {
            let new = self.shown.get(self.read..).unwrap_or_default();
            if let Some(position) = new.find(text) {
                self.read += position + text.len();
                return Ok(());
            }
            match self
                .screen
                .recv_timeout(LIMIT.saturating_sub(start.elapsed()))
            {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => bail!("no {text:?} ({error}); shown: {:?}", self.shown),
            }
        }
    }

    /// Types.
    ///
    /// # Errors
    ///
    /// When nobody reads it any more.
    pub fn type_in(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes()).context("typing")
    }

    /// Whether the terminal shows what is typed, collects lines, and makes signals of Ctrl-C and its like.
    ///
    /// # Errors
    ///
    /// When it cannot be asked.
    pub fn is_as_usual(&self) -> Result<bool> {
        let usual = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        Ok(tcgetattr(&self.keyboard)?.local_modes.contains(usual))
    }

    /// Waits for the end of the program, and tells everything that was shown.
    ///
    /// # Errors
    ///
    /// When it does not end within two minutes.
    pub fn end(&mut self) -> Result<(ExitStatus, String)> {
        let start = Instant::now();
        loop {
            match self
                .screen
                .recv_timeout(LIMIT.saturating_sub(start.elapsed()))
            {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(error) => bail!("it does not end ({error}); shown: {:?}", self.shown),
            }
        }
        Ok((self.child.wait()?, self.shown.clone()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
