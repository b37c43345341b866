//! The privileged helper: a small process that stays root when the server gives root up, and does for it the few things that
//! only root can do.
//!
//! It is the same executable, started before the server drops its privileges, with one end of a socket pair as its standard
//! input. It ends when the server does. The server asks with one of these verbs, and with nothing else:
//!
//! | verb | why root | what limits it |
//! |---|---|---|
//! | authenticate | PAM modules read `/etc/shadow` | a process of its own for each, at most 60 seconds, 16 at a time |
//! | change password | PAM writes `/etc/shadow` | only with the password of the caller, who is the user or `root`, or within two hours of a log-in of `root` by password: a server that was taken over could not do more than it can see |
//! | make directory | datastores are made in places of root's | a plain absolute path outside of the operating system's directories; no symbolic link is followed; only what is new, or root's and empty, is given away |
//!
//! Messages are described and checked in [`message`]. What else only root could do is done before the drop, in
//! [`crate::service_account`]: files that a stock server keeps for root are given to the service user, directories are made,
//! ports are opened.

mod conversation;
mod directory;
mod message;
mod pam;
mod process;
mod socket;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use zeroize::Zeroizing;

pub(crate) use directory::hand_over;
pub use directory::make as make_directory;
use message::{Answer, MAX_ANSWER, Request};

/// The word that makes the executable the helper.
const COMMAND: &str = "privileged-helper";
/// The executable that runs now, also after it was replaced by another version on disk.
const PROGRAM: &str = "/proc/self/exe";
/// How long the server waits for an answer: a change of a password takes two conversations.
const ANSWER_LIMIT: Duration = Duration::from_secs(150);

/// Why the helper did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelperError {
    /// It must not be done: wrong password, locked account, a place that is not to be touched.
    #[error("{0}")]
    Refused(String),
    /// It cannot be done.
    #[error("{0}")]
    Failed(String),
}

/// The helper, as the server sees it. All calls block.
pub struct PrivilegedHelper {
    socket: OwnedFd,
}

impl fmt::Debug for PrivilegedHelper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivilegedHelper").finish_non_exhaustive()
    }
}

impl PrivilegedHelper {
    /// Starts the helper, which makes directories for the user `uid` with the group `gid`. The process has to be root, and
    /// its executable has to hand the words of its command line to [`serve`].
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(uid: u32, gid: u32) -> io::Result<(Self, Child)> {
        let (socket, other) = socket::pair()?;
        let child = Command::new(PROGRAM)
            .arg0("backstop")
            .arg(COMMAND)
            .args([uid.to_string(), gid.to_string()])
            .env_clear()
            .current_dir("/")
            // Ctrl-C on the terminal is for the server, which may still be asked to log somebody in.
            .process_group(0)
            .stdin(Stdio::from(other))
            .stdout(Stdio::null())
            .spawn()?;
        Ok((Self { socket }, child))
    }

    /// Checks a system user's password and account. `peer` is told to PAM as the remote host.
    ///
    /// # Errors
    /// When either is not in order, or PAM cannot be asked.
    pub fn authenticate(
        &self,
        user: &str,
        password: &str,
        peer: Option<IpAddr>,
    ) -> Result<(), HelperError> {
        self.ask(&Request::Authenticate {
            user: user.to_owned(),
            password: Zeroizing::new(password.to_owned()),
            peer: peer.map(|ip| ip.to_canonical()),
        })
    }

    /// Sets a system user's password on behalf of `caller` (the user itself or `root`), who proves to be it by its own
    /// password `confirmation`; `root` need not when it has logged in lately.
    ///
    /// # Errors
    /// When the caller is not proven or not allowed to, or PAM refuses the new password.
    pub fn change_password(
        &self,
        user: &str,
        new: &str,
        caller: &str,
        confirmation: Option<&str>,
        peer: Option<IpAddr>,
    ) -> Result<(), HelperError> {
        let secret = |text: &str| Zeroizing::new(text.to_owned());
        self.ask(&Request::ChangePassword {
            user: user.to_owned(),
            new: secret(new),
            caller: caller.to_owned(),
            confirmation: confirmation.map(secret),
            peer: peer.map(|ip| ip.to_canonical()),
        })
    }

    /// Makes the directory of a datastore for the service user, or gives an empty one to it.
    ///
    /// # Errors
    /// When the path is not one where that may be done, or the file system refuses.
    pub fn make_directory(&self, path: &Path) -> Result<(), HelperError> {
        self.ask(&Request::MakeDirectory {
            path: path.to_owned(),
        })
    }

    fn ask(&self, request: &Request) -> Result<(), HelperError> {
        let failed = |text: String| HelperError::Failed(text);
        let bytes = request.encode().map_err(|err| failed(err.to_string()))?;
        let exchange = || -> io::Result<Zeroizing<Vec<u8>>> {
            let (own, other) = socket::pair()?;
            socket::limit_waiting(own.as_fd(), ANSWER_LIMIT)?;
            socket::send(own.as_fd(), &bytes)?;
            socket::send_socket(self.socket.as_fd(), other.as_fd())?;
            drop(other);
            socket::receive(own.as_fd(), MAX_ANSWER)
        };
        let answer = exchange().map_err(|err| {
            failed(format!(
                "the server's privileged helper does not answer - {err}; restart the server as root"
            ))
        })?;
        match Answer::decode(&answer).map_err(|err| failed(err.to_string()))? {
            Answer::Done => Ok(()),
            Answer::Refused(text) => Err(HelperError::Refused(text)),
            Answer::Failed(text) => Err(HelperError::Failed(text)),
        }
    }
}

/// Sets a system user's password from a program that root runs itself, such as the manager on the command line.
///
/// # Errors
/// When PAM refuses the password or cannot be used.
pub fn set_password_as_root(user: &str, new: &str) -> Result<(), HelperError> {
    let request = Request::ChangePassword {
        user: user.to_owned(),
        new: Zeroizing::new(new.to_owned()),
        caller: "root".to_owned(),
        confirmation: None,
        peer: None,
    };
    match conversation::run(Path::new(PROGRAM), &request, conversation::LIMIT) {
        Answer::Done => Ok(()),
        Answer::Refused(text) => Err(HelperError::Refused(text)),
        Answer::Failed(text) => Err(HelperError::Failed(text)),
    }
}

/// Whether these words of a command line are for the helper or one of its processes. If they are, it has run and ended, and
/// this is what came of it.
pub fn serve(words: &[&str]) -> Option<Result<(), String>> {
    match words {
        [COMMAND, rest @ ..] => Some(process::serve(rest)),
        [conversation::COMMAND] => Some(conversation::serve()),
        _ => None,
    }
}

/// Passwords pass through this process: nobody may look into it, and it leaves no image of its memory when it crashes.
fn keep_memory_private() -> Result<(), String> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|err| format!("unable to keep the memory of this process private - {err}"))
}
