//! The audit log: who logged in or tried to, and who changed or started what, from where. One JSON object a line.
//!
//! Never holds a secret: of what a request sends, only the names of parameters are told, and the values of those few that say
//! what is changed. Described in `docs/security.md`.

use std::net::SocketAddr;

use hyper::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::http::access_log::LineLog;
use crate::router::Params;

/// The file, beside the other logs of the API.
pub(crate) const FILE: &str = "audit.log";
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
            match short(value).filter(|_| TOLD.contains(&name)) {
                Some(value) => {
                    told.parameters.insert(name.to_owned(), value);
                }
                None => told.others.push(name.to_owned()),
            }
        }
        told
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

    fn write(&self, event: &str, user: &str, peer: SocketAddr, what: What<'_>) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let user: String = user.chars().take(MAX_TEXT).collect();
        let line = Line {
            time: Timestamp::now()
                .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
                .to_string(),
            event,
            user: &user,
            from: peer.to_string(),
            what,
        };
        match serde_json::to_string(&line) {
            Ok(line) => self.0.write(line),
            Err(err) => tracing::error!(%err, "unable to write a line of the audit log"),
        }
    }

    /// Waits until everything noted before is in the file. Blocking.
    pub(crate) fn flush(&self) {
        self.0.flush();
    }
}
