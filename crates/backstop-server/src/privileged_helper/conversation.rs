//! A process for one use of the PAM library: it takes one request from its standard input, a socket, answers, and ends.
//!
//! The helper starts it and kills it when it takes too long. It ends with the helper, too.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use std::os::unix::process::CommandExt as _;

use super::message::{Answer, MAX_ANSWER, MAX_REQUEST, Request};
use super::pam::{self, Task};
use super::socket;

/// The word that makes the executable such a process.
pub(super) const COMMAND: &str = "privileged-conversation";
/// How long modules may take. Some ask servers far away, or wait until somebody confirms on a telephone.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// Runs as the process; returns what came of it, for the exit code.
pub(super) fn serve() -> Result<(), String> {
    let failed = |what: &str, err: &dyn std::fmt::Display| format!("unable to {what} - {err}");
    let kill = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(kill)
        .map_err(|err| failed("end with the helper", &err))?;
    super::keep_memory_private()?;
    let socket = socket::take_standard_input()?;
    let request = socket::receive(socket.as_fd(), MAX_REQUEST)
        .map_err(|err| failed("receive a request", &err))?;
    let answer = match Request::decode(&request) {
        Ok(request) => perform(&request),
        Err(err) => Answer::Failed(err.to_string()),
    };
    drop(request);
    socket::send(socket.as_fd(), &answer.encode()).map_err(|err| failed("answer", &err))
}

fn perform(request: &Request) -> Answer {
    match request {
        Request::Authenticate {
            user,
            password,
            peer,
        } => {
            let rhost = peer.map(|ip| ip.to_string());
            pam::run(&Task::Authenticate, user, password, rhost.as_deref())
        }
        Request::ChangePassword {
            user, new, peer, ..
        } => {
            let rhost = peer.map(|ip| ip.to_string());
            pam::run(&Task::SetPassword, user, new, rhost.as_deref())
        }
        Request::MakeDirectory { .. } => Answer::Failed("not a matter of PAM".to_owned()),
    }
}

/// Has a process of `program` perform a request within `limit`.
pub(super) fn run(program: &Path, request: &Request, limit: Duration) -> Answer {
    let started = socket::pair().and_then(|(own, other)| Ok((start(program, other)?, own)));
    let (mut child, own) = match started {
        Ok(started) => started,
        Err(err) => return Answer::Failed(format!("unable to start a process for PAM - {err}")),
    };
    let answer = converse(own.as_fd(), request, limit);
    // It has answered, or has nothing more to say.
    let _ = child.kill();
    let _ = child.wait();
    answer
}

fn start(program: &Path, socket: OwnedFd) -> std::io::Result<Child> {
    Command::new(program)
        .arg0("backstop")
        .arg(COMMAND)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

fn converse(socket: BorrowedFd<'_>, request: &Request, limit: Duration) -> Answer {
    let bytes = match request.encode() {
        Ok(bytes) => bytes,
        Err(err) => return Answer::Failed(err.to_string()),
    };
    let received = socket::limit_waiting(socket, limit)
        .and_then(|()| socket::send(socket, &bytes))
        .and_then(|()| socket::receive(socket, MAX_ANSWER));
    match received {
        Ok(answer) => match Answer::decode(&answer) {
            Ok(answer) => answer,
            Err(err) => Answer::Failed(err.to_string()),
        },
        Err(err) if socket::is_timeout(&err) => Answer::Failed(format!(
            "PAM did not answer within {} seconds; look at the modules that /etc/pam.d/proxmox-backup-auth names",
            limit.as_secs_f32()
        )),
        Err(err) => Answer::Failed(format!(
            "the process that runs the modules of PAM ended without an answer - {err}"
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use zeroize::Zeroizing;

    fn with_program(script: &str, limit: Duration) -> String {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let request = Request::Authenticate {
            user: "alice".into(),
            password: Zeroizing::new("Very-Secret".into()),
            peer: None,
        };
        match run(&program, &request, limit) {
            Answer::Failed(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn modules_that_hang_or_crash_are_reported() {
        let text = with_program("exec sleep 1000", Duration::from_millis(200));
        assert!(
            text.contains("PAM did not answer within 0.2 seconds"),
            "{text}"
        );
        let text = with_program("exit 1", Duration::from_secs(60));
        assert!(text.contains("ended without an answer"), "{text}");
        let dir = tempfile::tempdir().unwrap();
        let request = Request::MakeDirectory { path: "/x".into() };
        let absent = run(
            &dir.path().join("absent"),
            &request,
            Duration::from_secs(60),
        );
        assert!(matches!(absent, Answer::Failed(text) if text.contains("unable to start")));
    }
}
