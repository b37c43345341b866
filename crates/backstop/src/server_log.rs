//! The server's log: one line for each event, in the form that is asked for, without floods.
//!
//! Lines carry the request (`request{id=…}`) or the task (`task{upid=…}`) that they belong to. Secrets never come here: what is logged
//! are names, addresses and reasons.

mod faults;
mod floods;
mod json;
mod level;

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use anyhow::Context as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt};

use floods::Floods;

/// The forms, as they are asked for.
pub const FORMATS: &[&str] = &["text", "json", "journald"];
/// Where systemd says that standard error ends in its journal: `DEVICE:INODE`.
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Lines for people, on standard error.
    Text,
    /// One JSON object a line, on standard error.
    Json,
    /// Fields in systemd's journal.
    Journald,
}

impl Format {
    /// The form of this name; without one the journal's where standard error ends in it, and text elsewhere.
    pub fn of(name: Option<&str>) -> Self {
        match name {
            Some("json") => Self::Json,
            Some("journald") => Self::Journald,
            Some(_) => Self::Text,
            None if ends_in_journal() => Self::Journald,
            None => Self::Text,
        }
    }
}

/// The running log. Dropping it tells what it has kept back.
#[derive(Debug)]
pub struct ServerLog {
    floods: Arc<Floods>,
}

impl ServerLog {
    /// Tells from now on, each minute, what it has kept back. Starts a thread.
    ///
    /// # Errors
    /// When the system refuses that.
    pub fn tell_of_floods(&self) -> io::Result<()> {
        floods::watch(&self.floods)
    }
}

impl Drop for ServerLog {
    fn drop(&mut self) {
        self.floods.tell();
    }
}

/// Starts the log of this process, without a thread; from now on panics are lines of it, too. `level` is a filter such as `info`
/// or `warn,backstop_server::sync=debug`; one that is not understood is said.
///
/// # Errors
/// When the journal is asked for and cannot be reached.
pub fn start(format: Format, level: &str) -> anyhow::Result<ServerLog> {
    let floods = Arc::new(Floods::default());
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match format {
        // A closed standard error must not end the server.
        Format::Text => fmt::layer()
            .with_ansi(io::stderr().is_terminal())
            .with_writer(io::stderr)
            .log_internal_errors(false)
            .boxed(),
        Format::Json => fmt::layer()
            .json()
            .event_format(json::Lines)
            .with_writer(io::stderr)
            .log_internal_errors(false)
            .boxed(),
        Format::Journald => tracing_journald::layer()
            .context(
                "unable to log to systemd's journal; --log-format text logs to standard error",
            )?
            .with_syslog_identifier("backstop".to_owned())
            .boxed(),
    };
    let (filter, problem) = level::filter(level);
    // Another log may have been started in this process; that one stays.
    let _ = tracing_subscriber::registry()
        .with(layer)
        .with(filter)
        .with(floods::Layer::new(Arc::clone(&floods)))
        .try_init();
    faults::log();
    if let Some(problem) = problem {
        tracing::warn!("{problem}");
    }
    Ok(ServerLog { floods })
}

fn ends_in_journal() -> bool {
    let Ok(stream) = std::env::var(JOURNAL_STREAM) else {
        return false;
    };
    let Ok(stat) = rustix::fs::fstat(io::stderr().as_fd()) else {
        return false;
    };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}
