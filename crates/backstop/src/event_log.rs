//! Where warnings and errors go that happen while a command runs on for long: to standard error, or to the system's log
//! when nobody looks at that any more.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use tracing_subscriber::filter::LevelFilter;

/// The socket of the system's log.
const SYSTEM_LOG: &str = "/dev/log";
/// Facility "user", severity "error".
const PRIORITY: u8 = 8 + 3;

/// Sends warnings and errors to standard error from now on.
pub fn to_standard_error() {
    let _ = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::WARN)
        .with_target(false)
        .with_writer(io::stderr)
        // A reader that went away is no reason to fail.
        .log_internal_errors(false)
        .try_init();
}

/// Sends warnings and errors to the system's log from now on, if there is one.
pub fn to_system_log() {
    let Some(log) = SystemLog::open() else {
        return;
    };
    let _ = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::WARN)
        .with_target(false)
        .with_ansi(false)
        .without_time()
        .with_writer(move || log.clone())
        .try_init();
}

/// A writer whose every write is one message.
#[derive(Clone)]
struct SystemLog(Arc<UnixDatagram>);

impl SystemLog {
    fn open() -> Option<Self> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(SYSTEM_LOG).ok()?;
        Some(Self(Arc::new(socket)))
    }
}

impl io::Write for SystemLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let tag = format!(
            "<{PRIORITY}>proxmox-backup-client[{}]: ",
            std::process::id()
        );
        let message = [tag.as_bytes(), line.trim_ascii_end()].concat();
        // A full or dead log is no reason to fail.
        let _ = self.0.send(&message);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
