//! Mail by the program `sendmail` of this host.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process_group};

use super::{SendError, Surroundings, mail};
use crate::notification::Notification;
use crate::target::Mail;

/// Most bytes of what the program says that an error repeats.
const EXCERPT: usize = 400;
/// How often it is looked at.
const PAUSE: Duration = Duration::from_millis(10);

pub(super) fn send(
    mail: &Mail,
    notification: &Notification,
    surroundings: &Surroundings,
) -> Result<(), SendError> {
    let envelope = mail::envelope(mail, surroundings)?;
    let message = to_unix_lines(&mail::message(&envelope, notification, surroundings));
    let name = &surroundings.sendmail;
    let failed = |what: &str, err: std::io::Error| {
        SendError::Failed(format!("unable to {what} {name:?} - {err}"))
    };
    let program = Command::new(name)
        .args(["-B", "8BITMIME", "-i", "-f", &envelope.from, "--"])
        .args(&envelope.to)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // What it starts can be ended with it.
        .process_group(0)
        .spawn()
        .map_err(|err| failed("start", err))?;
    let mut run = Run::of(program).map_err(|err| failed("use the pipes of", err))?;
    let deadline = Instant::now() + surroundings.limit;
    let status = loop {
        match run.go_on(&message).map_err(|err| failed("wait for", err))? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                run.kill();
                let limit = surroundings.limit;
                return Err(SendError::Failed(format!(
                    "{name:?} did not end within {limit:?}"
                )));
            }
            None => std::thread::sleep(PAUSE),
        }
    };
    if !status.success() {
        let complaint = String::from_utf8_lossy(&run.complaint);
        let complaint = complaint.trim();
        let colon = if complaint.is_empty() { "" } else { ": " };
        let reason = format!("{name:?} failed ({status}){colon}{complaint}");
        // EX_DATAERR
        return Err(match status.code() {
            Some(65) => SendError::Refused(reason),
            _ => SendError::Failed(reason),
        });
    }
    match run.broken {
        None => Ok(()),
        Some(err) => Err(failed("give the mail to", err)),
    }
}

/// A program that is being given a mail. Its pipes are never waited for: what it leaves behind may hold them for long.
struct Run {
    program: Child,
    input: Option<ChildStdin>,
    output: Option<ChildStderr>,
    written: usize,
    /// Why not all could be written. It may end before it has read everything; its status says more than that then.
    broken: Option<std::io::Error>,
    complaint: Vec<u8>,
    status: Option<ExitStatus>,
}

impl Run {
    fn of(mut program: Child) -> std::io::Result<Self> {
        let (input, output) = (program.stdin.take(), program.stderr.take());
        let mut run = Self {
            program,
            input,
            output,
            written: 0,
            broken: None,
            complaint: Vec::new(),
            status: None,
        };
        let pipes = run.input.as_ref().map(without_waiting);
        let pipes = pipes
            .into_iter()
            .chain(run.output.as_ref().map(without_waiting));
        let made: std::io::Result<()> = pipes.collect();
        if made.is_err() {
            run.kill();
        }
        made.map(|()| run)
    }

    /// Does what can be done at once. Returns its status when it has ended and has been given everything.
    fn go_on(&mut self, message: &[u8]) -> std::io::Result<Option<ExitStatus>> {
        // Before its pipes, so that all that it said is heard.
        if self.status.is_none() {
            self.status = self.program.try_wait()?;
        }
        while let Some(input) = &mut self.input {
            let rest = message.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                self.input = None;
                break;
            }
            match input.write(rest) {
                Ok(count) => self.written = self.written.saturating_add(count),
                Err(err) if err.kind() == ErrorKind::WouldBlock => break,
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => {
                    self.broken = Some(err);
                    self.input = None;
                }
            }
        }
        self.listen();
        Ok(self.status.filter(|_| self.input.is_none()))
    }

    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(output) = &mut self.output {
            match output.read(&mut buffer) {
                Err(err) if err.kind() == ErrorKind::WouldBlock => break,
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                // What cannot be read is no more than a missing explanation.
                Ok(0) | Err(_) => self.output = None,
                Ok(count) => {
                    let room = EXCERPT.saturating_sub(self.complaint.len());
                    let said = buffer.get(..count.min(room)).unwrap_or_default();
                    self.complaint.extend_from_slice(said);
                }
            }
        }
    }

    /// Ends it, and what it has started. An error of that is none of the notification.
    fn kill(&mut self) {
        let group = i32::try_from(self.program.id())
            .ok()
            .and_then(Pid::from_raw);
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.program.wait();
    }
}

fn without_waiting(pipe: &impl AsFd) -> std::io::Result<()> {
    let flags = fcntl_getfl(pipe)?;
    Ok(fcntl_setfl(pipe, flags | OFlags::NONBLOCK)?)
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
