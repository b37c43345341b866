//! The access log and the authentication log, in the line format of a stock server (fail2ban and others read them).
//!
//! Lines are written by one thread, so that a slow disk never delays an answer. Secrets in a query never reach a line.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use backstop_datastore::ownership;

use hyper::StatusCode;
use jiff::Zoned;

use crate::audit_log::AuditLog;

/// Lines that may wait for the disk; beyond this number they are dropped and counted.
const QUEUE: usize = 8192;

/// Query keys whose values are secrets.
const SECRET_KEYS: [&str; 10] = [
    "password",
    "confirmation-password",
    "tfa-challenge",
    "ticket",
    "vncticket",
    "secret",
    "secret-key",
    "token",
    "key",
    "value",
];

/// A log file that is appended to in the background. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LineLog {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

enum Message {
    Line(String),
    Flush(SyncSender<()>),
}

impl LineLog {
    /// Starts the writer for a file; the file is created with the first line, and again after it was rotated away.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(path: PathBuf) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        thread::Builder::new()
            .name("line-log".into())
            .spawn(move || write_lines(&path, &receiver, &lost))?;
        Ok(Self { sender, dropped })
    }

    /// Hands over one line, without its end. Never blocks.
    pub fn write(&self, line: String) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Line(line)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything handed over before is in the file. Blocking.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.sender.send(Message::Flush(done)).is_ok() {
            // An error means that the writer has ended, so there is nothing left to wait for.
            let _ = wait.recv();
        }
    }
}

fn write_lines(path: &Path, receiver: &Receiver<Message>, dropped: &AtomicU64) {
    while let Ok(first) = receiver.recv() {
        let mut text = String::new();
        let mut flushed = Vec::new();
        let mut take = |message| match message {
            Message::Line(line) => {
                text.push_str(&line);
                text.push('\n');
            }
            Message::Flush(done) => flushed.push(done),
        };
        take(first);
        receiver.try_iter().take(QUEUE).for_each(&mut take);
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(path = %path.display(), lost, "log lines were dropped because the disk was too slow");
        }
        // Opened for each batch, so that a rotated file is let go of.
        let written = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(path)
            .and_then(|mut file| {
                ownership::inherit(&file, path)?;
                file.write_all(text.as_bytes())
            });
        if let Err(err) = written {
            tracing::error!(path = %path.display(), %err, "unable to write log lines");
        }
        for done in flushed {
            // The waiting side may have given up.
            let _ = done.send(());
        }
    }
}

/// What an access log line tells.
#[derive(Debug)]
pub struct Access<'a> {
    /// Address of the client.
    pub peer: IpAddr,
    /// Who was authenticated, if anybody was.
    pub user: Option<String>,
    /// Method as it was sent.
    pub method: &'a str,
    /// Path as it was sent.
    pub path: &'a str,
    /// Query as it was sent; secrets are replaced in the line.
    pub query: Option<&'a str>,
    /// Status of the answer.
    pub status: StatusCode,
    /// Length of the answer's body, 0 if it is not known in advance.
    pub size: u64,
    /// `User-Agent` of the client.
    pub agent: Option<&'a str>,
}

impl Access<'_> {
    /// The log line.
    pub fn line(&self, now: &Zoned) -> String {
        let query = self
            .query
            .map(|query| format!("?{}", without_secrets(query)))
            .unwrap_or_default();
        format!(
            "{} - {} [{}] \"{} {}{}\" {} {} {}",
            self.peer,
            self.user.as_deref().unwrap_or("-"),
            now.strftime("%d/%m/%Y:%H:%M:%S %z"),
            self.method,
            self.path.escape_default(),
            query.escape_default(),
            self.status.as_u16(),
            self.size,
            self.agent.unwrap_or("-").escape_default(),
        )
    }
}

fn without_secrets(query: &str) -> String {
    query
        .split('&')
        .map(|pair| {
            let key = pair.split('=').next().unwrap_or_default();
            let plain = percent_encoding::percent_decode_str(key).decode_utf8_lossy();
            if SECRET_KEYS.contains(&&*plain) {
                format!("{key}=***")
            } else {
                pair.to_owned()
            }
        })
        .collect::<Vec<_>>()
        .join("&")
}

/// The authentication log. What it notes goes to the audit log, too.
#[derive(Debug, Clone)]
pub struct AuthLog(LineLog, AuditLog);

impl AuthLog {
    /// An authentication log on top of a file.
    pub(crate) fn new(log: LineLog, audit: AuditLog) -> Self {
        Self(log, audit)
    }

    /// Notes a successful log-in. (Stock lines do not tell where it came from.)
    pub fn success(&self, peer: SocketAddr, user: &str) {
        self.write(&format!(
            "successful auth for user '{}'",
            user.escape_default()
        ));
        self.1.login(peer, user, None);
    }

    /// Notes a failed attempt. The reason must not hold what was sent as a secret.
    pub fn failure(&self, peer: SocketAddr, user: &str, reason: &str) {
        self.1.login(peer, user, Some(reason));
        let user = user.escape_default();
        self.write(&format!(
            "authentication failure; rhost={peer} user={user} msg={reason}"
        ));
    }

    /// Waits until everything noted before is in the file. Blocking.
    pub fn flush(&self) {
        self.0.flush();
    }

    fn write(&self, text: &str) {
        self.0.write(format!(
            "{}: {text}",
            Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z")
        ));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn access<'a>(path: &'a str, query: Option<&'a str>, agent: Option<&'a str>) -> Access<'a> {
        Access {
            peer: "::ffff:127.0.0.1".parse().unwrap(),
            user: Some("root@pam!api".to_owned()),
            method: "PUT",
            path,
            query,
            status: StatusCode::OK,
            size: 13,
            agent,
        }
    }

    fn time() -> Zoned {
        "2026-11-20T22:37:48+00:00[UTC]".parse().unwrap()
    }

    #[test]
    fn a_line_looks_as_stock_writes_it() {
        let line = access(
            "/api2/json/config/datastore/store1",
            Some("delete=maintenance-mode"),
            None,
        )
        .line(&time());
        assert_eq!(
            line,
            "::ffff:127.0.0.1 - root@pam!api [20/11/2026:22:37:48 +0000] \
             \"PUT /api2/json/config/datastore/store1?delete=maintenance-mode\" 200 13 -"
        );
    }

    #[test]
    fn secrets_in_a_query_do_not_reach_the_log() {
        let query = "userid=a@pbs&password=Very-Secret&confirmation%2Dpassword=Very-Secret2&vncticket=Very-Secret3";
        let line = access("/x", Some(query), None).line(&time());
        assert!(!line.contains("Very-Secret"), "{line}");
        assert!(line.contains("userid=a@pbs"));
    }

    #[test]
    fn nobody_can_forge_a_line() {
        let line = access("/x", None, Some("evil\"\n1.2.3.4 - root@pam")).line(&time());
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn lines_are_in_the_file_after_a_flush_even_when_it_was_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = LineLog::start(path.clone()).unwrap();
        log.write("one".into());
        log.flush();
        std::fs::rename(&path, dir.path().join("access.log.1")).unwrap();
        log.write("two".into());
        log.flush();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
    }
}
