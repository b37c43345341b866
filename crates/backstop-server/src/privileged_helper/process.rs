//! The helper itself: takes requests one after the other, each on a socket of its own that comes with it, and has a thread
//! perform each.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::conversation;
use super::directory;
use super::message::{Answer, MAX_REQUEST, Request};
use super::socket;

/// Requests that are performed at the same time; further ones are refused.
const MAX_RUNNING: usize = 16;
/// How long a request may take to arrive after it was announced, and an answer to be taken.
const MESSAGE_LIMIT: Duration = Duration::from_secs(10);
/// How long root's log-in counts as a proof when root changes others' passwords: the lifetime of a ticket.
const ROOT_LIMIT: Duration = Duration::from_secs(7200);
const ROOT: &str = "root";

/// What the helper knows.
struct Helper {
    /// The executable, for processes that use PAM.
    program: PathBuf,
    /// To whom directories are given.
    owner: (u32, u32),
    /// When root proved its password last.
    root_seen: Mutex<Option<Instant>>,
    running: AtomicUsize,
}

/// Runs as the helper until the server ends. The words are the ids of the service user and its group.
pub(super) fn serve(words: &[&str]) -> Result<(), String> {
    let [uid, gid] = words else {
        return Err("this command is for the server alone".to_owned());
    };
    let id = |text: &str| text.parse().map_err(|_| "not the id of a user".to_owned());
    let owner = (id(uid)?, id(gid)?);
    super::keep_memory_private()?;
    let socket = socket::take_standard_input()?;
    let helper = Arc::new(Helper {
        program: PathBuf::from(super::PROGRAM),
        owner,
        root_seen: Mutex::new(None),
        running: AtomicUsize::new(0),
    });
    loop {
        match socket::receive_socket(socket.as_fd()) {
            Ok(Some(request)) => take(&helper, request),
            Ok(None) => return Ok(()),
            Err(err) => return Err(format!("unable to receive from the server - {err}")),
        }
    }
}

fn take(helper: &Arc<Helper>, socket: OwnedFd) {
    let fail = |socket: &OwnedFd, text: &str| {
        // Whoever asked learns of it when the socket is closed, too.
        let _ = socket::send(socket.as_fd(), &Answer::Failed(text.to_owned()).encode());
    };
    if helper.running.fetch_add(1, Ordering::SeqCst) >= MAX_RUNNING {
        helper.running.fetch_sub(1, Ordering::SeqCst);
        return fail(&socket, "too many log-ins at once, try again later");
    }
    let this = Arc::clone(helper);
    let started = std::thread::Builder::new().spawn(move || {
        answer(&this, &socket);
        this.running.fetch_sub(1, Ordering::SeqCst);
    });
    if started.is_err() {
        // The socket went with the thread that was not started, so the server sees its end.
        helper.running.fetch_sub(1, Ordering::SeqCst);
    }
}

fn answer(helper: &Helper, socket: &OwnedFd) {
    let received = socket::limit_waiting(socket.as_fd(), MESSAGE_LIMIT)
        .and_then(|()| socket::receive(socket.as_fd(), MAX_REQUEST));
    let answer = match received.map(|bytes| Request::decode(&bytes)) {
        Ok(Ok(request)) => helper.perform(request),
        Ok(Err(err)) => Answer::Failed(err.to_string()),
        Err(err) => Answer::Failed(format!("no request came - {err}")),
    };
    // The server may have given up waiting.
    let _ = socket::send(socket.as_fd(), &answer.encode());
}

impl Helper {
    fn perform(&self, request: Request) -> Answer {
        match request {
            Request::Authenticate { ref user, .. } => {
                let is_root = user == ROOT;
                let answer = converse(&self.program, &request);
                if is_root && answer == Answer::Done {
                    *self.root_seen.lock() = Some(Instant::now());
                }
                answer
            }
            Request::ChangePassword {
                ref user,
                ref caller,
                ref confirmation,
                peer,
                ..
            } => {
                if caller != user && caller != ROOT {
                    return Answer::Refused(
                        "a system user's password is changed by itself or by root".to_owned(),
                    );
                }
                let proof = match confirmation {
                    Some(password) => converse(
                        &self.program,
                        &Request::Authenticate {
                            user: caller.clone(),
                            password: password.clone(),
                            peer,
                        },
                    ),
                    None if caller == ROOT && self.root_is_known(Instant::now()) => Answer::Done,
                    None => Answer::Refused(
                        "this needs the caller's own password, or a log-in of root@pam with its password in the last two \
                         hours; log in again"
                            .to_owned(),
                    ),
                };
                match proof {
                    Answer::Done => converse(&self.program, &request),
                    refused => refused,
                }
            }
            Request::MakeDirectory { path } => match self.owner {
                (0, _) => Answer::Refused("the server runs as root".to_owned()),
                (uid, gid) => match directory::make(&path, uid, gid) {
                    Ok(()) => Answer::Done,
                    Err(text) => Answer::Refused(text),
                },
            },
        }
    }

    fn root_is_known(&self, now: Instant) -> bool {
        let seen = *self.root_seen.lock();
        seen.is_some_and(|seen| now.saturating_duration_since(seen) <= ROOT_LIMIT)
    }
}

fn converse(program: &Path, request: &Request) -> Answer {
    conversation::run(program, request, conversation::LIMIT)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use zeroize::Zeroizing;

    fn helper() -> Helper {
        Helper {
            program: PathBuf::from("/nonexistent"),
            owner: (34, 34),
            root_seen: Mutex::new(None),
            running: AtomicUsize::new(0),
        }
    }

    fn change(user: &str, caller: &str, confirmation: Option<&str>) -> Request {
        Request::ChangePassword {
            user: user.into(),
            new: Zeroizing::new("new".into()),
            caller: caller.into(),
            confirmation: confirmation.map(|text| Zeroizing::new(text.into())),
            peer: None,
        }
    }

    #[test]
    fn no_password_is_changed_without_a_proof_even_when_the_server_asks() {
        let helper = helper();
        for request in [
            change("alice", "bob", Some("x")),
            change("root", "alice", Some("x")),
            change("alice", "alice", None),
            change("alice", "root", None),
            change("root", "root", None),
        ] {
            let answer = helper.perform(request.clone());
            assert!(
                matches!(answer, Answer::Refused(_)),
                "{request:?}: {answer:?}"
            );
        }
        // With a proof PAM is tried, which fails here for want of a program.
        let tried = |request| matches!(helper.perform(request), Answer::Failed(text) if text.contains("unable to start"));
        assert!(tried(change("alice", "alice", Some("x"))));
        *helper.root_seen.lock() = Some(Instant::now());
        assert!(tried(change("alice", "root", None)));
        assert!(!tried(change("alice", "alice", None)));
    }

    #[test]
    fn a_log_in_of_root_is_a_proof_for_two_hours() {
        let helper = helper();
        let now = Instant::now();
        assert!(!helper.root_is_known(now));
        *helper.root_seen.lock() = Some(now);
        assert!(helper.root_is_known(now + ROOT_LIMIT));
        assert!(!helper.root_is_known(now + ROOT_LIMIT + Duration::from_secs(1)));
    }

    #[test]
    fn a_server_that_runs_as_root_gets_no_directories_made() {
        let mut helper = helper();
        helper.owner = (0, 0);
        let request = Request::MakeDirectory {
            path: "/srv/x".into(),
        };
        assert!(matches!(helper.perform(request), Answer::Refused(_)));
    }
}
