//! What a monitor watches.

use std::fmt;
use std::str::FromStr;

use backstop_types::{BackupGroup, DatastoreName, Namespace};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::event::{Place, Source};

/// Why a binding makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// A job is named in an unknown way.
    #[error(
        "'{0}' names no job; expected gc:DATASTORE, prune:ID, verify:ID, sync:ID or realm-sync:REALM"
    )]
    Job(String),
    /// Two things at once.
    #[error("a heartbeat watches either a job, or backups in a datastore, not both")]
    Both,
    /// A place without its datastore.
    #[error("a namespace or group needs the datastore that it is in (store)")]
    NoStore,
}

/// The kinds of jobs, as monitors name them, and the types of their tasks.
const KINDS: [(&str, &str); 5] = [
    ("gc", "garbage_collection"),
    ("prune", "prunejob"),
    ("verify", "verificationjob"),
    ("sync", "syncjob"),
    ("realm-sync", "realm-sync"),
];

/// A job, shown, read and stored as `KIND:ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    kind: &'static str,
    id: String,
}

impl Job {
    /// The job with tasks of this type; `None` for a type that is no job's.
    pub fn of_worker_type(worker_type: &str, id: &str) -> Option<Self> {
        let (kind, _) = KINDS.iter().find(|(_, worker)| *worker == worker_type)?;
        Some(Self {
            kind,
            id: id.to_owned(),
        })
    }
}

impl Job {
    /// Its kind, as monitors name it: `gc`, `prune`, `verify`, `sync` or `realm-sync`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Its id; of a garbage collection the datastore, of the sync of a realm the realm.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Serialize for Job {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Job {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl FromStr for Job {
    type Err = BindingError;

    fn from_str(text: &str) -> Result<Self, BindingError> {
        let unknown = || BindingError::Job(text.escape_debug().to_string());
        let (kind, id) = text.split_once(':').ok_or_else(unknown)?;
        let (kind, _) = KINDS
            .iter()
            .find(|(name, _)| *name == kind)
            .ok_or_else(unknown)?;
        let is_id = !id.is_empty()
            && id.len() <= 64
            && id
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if !is_id {
            return Err(unknown());
        }
        Ok(Self {
            kind,
            id: id.to_owned(),
        })
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.id)
    }
}

/// What a monitor watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// Everything that runs on this server.
    Server,
    /// One job.
    Job(Job),
    /// The backups in a namespace and those below it, and the jobs that work in one of them.
    Namespace(Place),
    /// The backups of one group.
    Group(Place, BackupGroup),
}

impl Binding {
    /// Puts together what was given.
    ///
    /// # Errors
    /// When that contradicts itself.
    pub fn of(
        job: Option<Job>,
        store: Option<DatastoreName>,
        ns: Option<Namespace>,
        group: Option<BackupGroup>,
    ) -> Result<Self, BindingError> {
        let is_place = store.is_some() || ns.is_some() || group.is_some();
        match (job, store) {
            (Some(_), _) if is_place => Err(BindingError::Both),
            (Some(job), _) => Ok(Self::Job(job)),
            (None, None) if is_place => Err(BindingError::NoStore),
            (None, None) => Ok(Self::Server),
            (None, Some(store)) => {
                let place = Place {
                    store,
                    ns: ns.unwrap_or_else(Namespace::root),
                };
                Ok(match group {
                    Some(group) => Self::Group(place, group),
                    None => Self::Namespace(place),
                })
            }
        }
    }

    /// Whether what happened there is watched.
    pub fn covers(&self, source: &Source) -> bool {
        match (self, source) {
            (Self::Server, _) => true,
            (Self::Job(job), Source::Job(other, _)) => job == other,
            (Self::Group(place, group), Source::Backup(at, of)) => place == at && group == of,
            (Self::Namespace(place), Source::Backup(at, _) | Source::Job(_, Some(at))) => {
                place.store == at.store && place.ns.contains(&at.ns)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |f: &mut fmt::Formatter<'_>, place: &Place| match place.ns.is_root() {
            true => write!(f, "{}", place.store),
            false => write!(f, "{}:{}", place.store, place.ns),
        };
        match self {
            Self::Server => f.write_str("everything"),
            Self::Job(job) => write!(f, "{job}"),
            Self::Namespace(at) => place(f, at),
            Self::Group(at, group) => {
                place(f, at)?;
                write!(f, " {group}")
            }
        }
    }
}
