//! Mail by the program `sendmail` of this host.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::{SendError, Surroundings, TIMEOUT, mail};
use crate::notification::Notification;
use crate::target::Mail;

/// Most characters of what the program says that an error repeats.
const EXCERPT: u64 = 400;

pub(super) fn send(
    mail: &Mail,
    notification: &Notification,
    surroundings: &Surroundings,
) -> Result<(), SendError> {
    let envelope = mail::envelope(mail, surroundings)?;
    let message = mail::message(&envelope, notification, surroundings);
    let failed = |what: &str, err: std::io::Error| {
        let program = &surroundings.sendmail;
        SendError::Failed(format!("unable to {what} {program:?} - {err}"))
    };
    let mut program = Command::new(&surroundings.sendmail)
        .args(["-B", "8BITMIME", "-i", "-f", &envelope.from, "--"])
        .args(&envelope.to)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|err| failed("start", err))?;
    // It may end before it has read everything; its status says more than a broken pipe.
    let input = program.stdin.take();
    let writer = std::thread::spawn(move || match input {
        Some(mut input) => input.write_all(&to_unix_lines(&message)),
        None => Ok(()),
    });
    let complaint = program.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(complaint) = complaint {
            // What cannot be read is no more than a missing explanation.
            let _ = complaint.take(EXCERPT).read_to_string(&mut text);
        }
        text
    });
    let started = Instant::now();
    let status = loop {
        match program.try_wait().map_err(|err| failed("wait for", err))? {
            Some(status) => break status,
            None if started.elapsed() >= TIMEOUT * 3 => {
                // Its end is waited for next, and an error of that is none of the notification.
                let _ = program.kill();
                let _ = program.wait();
                let limit = TIMEOUT * 3;
                return Err(SendError::Failed(format!(
                    "{:?} did not end within {limit:?}",
                    surroundings.sendmail
                )));
            }
            None => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    };
    let written = writer.join();
    let complaint = reader.join().unwrap_or_default();
    if !status.success() {
        let complaint = complaint.trim();
        let colon = if complaint.is_empty() { "" } else { ": " };
        return Err(SendError::Failed(format!(
            "{:?} failed ({status}){colon}{complaint}",
            surroundings.sendmail
        )));
    }
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(err)) => Err(failed("give the mail to", err)),
        Err(_) => Err(SendError::Failed(
            "the mail could not be given to sendmail".to_owned(),
        )),
    }
}

/// Programs of that name take lines as the system writes them.
fn to_unix_lines(message: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(message.len());
    let mut bytes = message.iter().peekable();
    while let Some(byte) = bytes.next() {
        if *byte != b'\r' || bytes.peek() != Some(&&b'\n') {
            lines.push(*byte);
        }
    }
    lines
}
