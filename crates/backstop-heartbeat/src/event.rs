//! What happened: a run began or ended.

use std::fmt;

use backstop_types::{BackupGroup, DatastoreName, Namespace};
use serde::{Deserialize, Serialize};

use crate::binding::Job;
use crate::receiver::{Push, Signal};
use crate::run_id::RunId;

/// Longest message of a push, in characters. Receivers cut what is longer, at places of their own.
pub(crate) const LONGEST_MESSAGE: usize = 200;

/// Where something happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The datastore.
    pub store: DatastoreName,
    /// The namespace in it.
    pub ns: Namespace,
}

/// What ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A job, and where it works, if that is one place.
    Job(Job, Option<Place>),
    /// A backup of a group.
    Backup(Place, #[serde(with = "group_as_text")] BackupGroup),
}

mod group_as_text {
    use backstop_types::BackupGroup;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(group: &BackupGroup, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(group)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BackupGroup, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(job, _) => write!(f, "{job}"),
            Self::Backup(place, group) if place.ns.is_root() => {
                write!(f, "backup {}:{group}", place.store)
            }
            Self::Backup(place, group) => {
                write!(f, "backup {}:{}/{group}", place.store, place.ns)
            }
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It has only begun.
    Started,
    /// All went well.
    Ok,
    /// It did its work, with this many warnings.
    Warnings(u64),
    /// It failed, was aborted or was lost with its server.
    Failed(String),
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What ran.
    pub source: Source,
    /// How it ended.
    pub outcome: Outcome,
    /// When it began, in Unix seconds.
    pub started: i64,
    /// How long it took, in milliseconds.
    pub duration: u64,
    /// Its id.
    pub run: RunId,
}

impl Event {
    /// What a receiver is told of it.
    pub fn push(&self) -> Push {
        let (signal, text) = match &self.outcome {
            Outcome::Started => (Signal::Start, "started".to_owned()),
            Outcome::Ok => (Signal::Up, "OK".to_owned()),
            Outcome::Warnings(1) => (Signal::Up, "OK, 1 warning".to_owned()),
            Outcome::Warnings(count) => (Signal::Up, format!("OK, {count} warnings")),
            Outcome::Failed(reason) => (Signal::Down, reason.clone()),
        };
        Push {
            signal,
            message: message(&format!("{}: {text}", self.source)),
            duration: (signal != Signal::Start).then_some(self.duration),
            run: Some(self.run.clone()),
        }
    }
}

/// A message as receivers take it: one line of bounded length.
fn message(text: &str) -> String {
    one_line(text, LONGEST_MESSAGE)
}

/// A text as one line of at most so many characters, and a sign where it was longer.
pub(crate) fn one_line(text: &str, longest: usize) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut line = line.trim().to_owned();
    if let Some((cut, _)) = line.char_indices().nth(longest) {
        line.truncate(cut);
        line.push('…');
    }
    line
}
