//! The audit log: who logged in or tried to, and who changed or started what, from where. One JSON object a line.
//!
//! Never holds a secret: of what a request or a command is given, only the names of parameters are told, and the values of those
//! few that say what is changed. Described in `docs/security.md`.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;

use backstop_datastore::ownership;

use backstop_client::connection::pins::PinChange;
use hyper::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::Roots;
use crate::http::access_log::LineLog;
use crate::router::Params;
use crate::service_account;

/// The file, beside the other logs of the API.
pub const FILE: &str = "audit.log";
/// Longest text that is told of one value, in characters.
const MAX_TEXT: usize = 256;
/// Parameters whose values are told: they name things and permissions. All others can hold secrets, or belong to one.
const TOLD: [&str; 27] = [
    "auth-id",
    "backup-id",
    "backup-time",
    "backup-type",
    "cmd",
    "delete",
    "enable",
    "expire",
    "group",
    "id",
    "name",
    "new-owner",
    "node",
    "ns",
    "path",
    "propagate",
    "protected",
    "realm",
    "regenerate",
    "remote",
    "role",
    "store",
    "target-ns",
    "token-name",
    "type",
    "upid",
    "userid",
];

/// The log. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AuditLog(LineLog);

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    event: &'a str,
    user: &'a str,
    from: String,
    #[serde(flatten)]
    what: What<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum What<'a> {
    Login {
        outcome: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
    },
    Request {
        method: &'a str,
        path: &'a str,
        status: u16,
        #[serde(flatten)]
        parameters: Told,
    },
    Command {
        uid: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        login: Option<String>,
        command: &'a str,
        outcome: &'a str,
        files: &'a [String],
        #[serde(flatten)]
        parameters: Told,
    },
    UserCreated {},
    Pin {
        remote: &'a str,
        server: &'a str,
        proof: &'a str,
        former: String,
        fingerprint: String,
        subject: &'a str,
        issuer: &'a str,
    },
}

/// Where commands and the server itself are: on this host.
const LOCAL: &str = "local";

/// A command line that has changed files of the configuration.
#[derive(Debug)]
pub struct ChangingCommand<'a> {
    /// The program and the words that name the command: `proxmox-backup-manager user create`.
    pub name: &'a str,
    /// The parameters by name. Of most of them only the name is told.
    pub parameters: Vec<(&'a str, Value)>,
    /// Whether it did all that it was asked for.
    pub succeeded: bool,
    /// The files.
    pub files: &'a [String],
}

/// Notes a command of this process in the audit log of an installation, also while its server runs. Blocking.
///
/// # Errors
/// When the line cannot be written.
pub fn note_command(roots: &Roots, command: ChangingCommand<'_>) -> io::Result<()> {
    let uid = rustix::process::getuid().as_raw();
    let user = system_user(uid);
    let mut parameters = Told::default();
    for (name, value) in &command.parameters {
        parameters.add(name, value);
    }
    let what = What::Command {
        uid,
        login: session_user().filter(|login| *login != user),
        command: command.name,
        outcome: if command.succeeded { "done" } else { "failed" },
        files: command.files,
        parameters,
    };
    let mut line = line("command", &user, LOCAL.to_owned(), what)?;
    line.push('\n');
    let folder = roots.api_logs();
    ownership::create_dir_all(&folder, 0o755)?;
    let path = folder.join(FILE);
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)?;
    ownership::inherit(&file, &path)?;
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

/// A user of this system, as it is called in the realm `pam`.
fn system_user(uid: u32) -> String {
    service_account::name_of(uid).map_or_else(|| format!("uid {uid}"), |name| format!("{name}@pam"))
}

/// Who logged in to the system before this process became another user, where the kernel keeps that.
fn session_user() -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/loginuid").ok()?;
    let uid = text.trim().parse().ok().filter(|uid| *uid != u32::MAX)?;
    Some(system_user(uid))
}

fn line(event: &str, user: &str, from: String, what: What<'_>) -> serde_json::Result<String> {
    let user: String = user.chars().take(MAX_TEXT).collect();
    serde_json::to_string(&Line {
        time: Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
            .to_string(),
        event,
        user: &user,
        from,
        what,
    })
}

/// What is told of a request's parameters.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Told {
    /// Names and values of those that say what is changed.
    #[serde(skip_serializing_if = "Map::is_empty")]
    parameters: Map<String, Value>,
    /// The names of all others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<String>,
}

impl Told {
    /// What may be told of these parameters.
    pub(crate) fn of(params: &Params) -> Self {
        let mut told = Self::default();
        for (name, value) in params.iter() {
            told.add(name, value);
        }
        told
    }

    fn add(&mut self, name: &str, value: &Value) {
        match short(value).filter(|_| TOLD.contains(&name)) {
            Some(value) => {
                self.parameters.insert(name.to_owned(), value);
            }
            None => self.others.push(name.to_owned()),
        }
    }
}

/// A value that fits into a line; none of an object.
fn short(value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => Some(Value::String(text.chars().take(MAX_TEXT).collect())),
        Value::Array(values) => values
            .iter()
            .take(32)
            .map(short)
            .collect::<Option<_>>()
            .map(Value::Array),
        Value::Object(_) => None,
        other => Some(other.clone()),
    }
}

impl AuditLog {
    pub(crate) fn new(log: LineLog) -> Self {
        Self(log)
    }

    /// Notes a log-in or a request's credentials that were refused: `reason` tells why.
    pub(crate) fn login(&self, peer: SocketAddr, user: &str, reason: Option<&str>) {
        let outcome = if reason.is_none() {
            "accepted"
        } else {
            "refused"
        };
        self.write("login", user, peer, What::Login { outcome, reason });
    }

    /// Notes a request that changes or starts something, and what came of it. `path` is the one below `/api2/FORMAT`.
    pub(crate) fn request(
        &self,
        peer: SocketAddr,
        user: &str,
        (method, path): (&str, &str),
        parameters: Told,
        status: StatusCode,
    ) {
        let what = What::Request {
            method,
            path,
            status: status.as_u16(),
            parameters,
        };
        self.write("request", user, peer, what);
    }

    /// Notes that the pinned certificate of a remote has changed, and by what that was proven.
    pub(crate) fn pin(&self, remote: &str, change: &PinChange) {
        let what = What::Pin {
            remote,
            server: &change.server,
            proof: change.proof.word(),
            former: change.from.to_string(),
            fingerprint: change.to.fingerprint.to_string(),
            subject: &change.to.subject,
            issuer: &change.to.issuer,
        };
        self.write_from("pin", "-", LOCAL.to_owned(), what);
    }

    /// Notes that the server has made a user: one that a provider vouches for, who comes from `peer`, or the first
    /// administrator of all.
    pub(crate) fn user_created(&self, peer: Option<SocketAddr>, user: &str) {
        let from = peer.map_or_else(|| LOCAL.to_owned(), shown);
        self.write_from("user-created", user, from, What::UserCreated {});
    }

    fn write(&self, event: &str, user: &str, peer: SocketAddr, what: What<'_>) {
        self.write_from(event, user, shown(peer), what);
    }

    fn write_from(&self, event: &str, user: &str, from: String, what: What<'_>) {
        match line(event, user, from, what) {
            Ok(line) => self.0.write(line),
            Err(err) => tracing::error!(%err, "unable to write a line of the audit log"),
        }
    }

    /// Waits until everything noted before is in the file. Blocking.
    pub(crate) fn flush(&self) {
        self.0.flush();
    }
}

fn shown(peer: SocketAddr) -> String {
    SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string()
}
