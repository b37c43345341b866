//! From an event to its targets, over files that survive every end of the process.
//!
//! A notification is first written down as it is ([`Dispatch::accept`]), in the folder and the form of stock servers; then it is given to
//! the lane of each target in a spool ([`Dispatch::sort`]), with what was told before taken into account; and from there it is
//! delivered until it has arrived ([`Dispatch::spool`]). Each step can be repeated after a crash: nothing is lost, and in the worst
//! case something arrives twice. Format: `docs/formats/notifications.md`.
//!
//! The time is an argument. A file that cannot be read never holds up others, and a full disk is no reason for silence: what cannot be
//! kept is delivered at once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use backstop_outgoing::spool::Dropped;
use backstop_outgoing::{Limits, Spool, SpoolError, Undelivered};
use jiff::tz::TimeZone;
use parking_lot::Mutex;

use crate::durable_file;
use crate::matcher::{self, Matcher};
use crate::notification::Notification;
use crate::repeats::Repeats;

/// Largest notification that is read, in bytes.
const MAX_SIZE: u64 = 4 << 20;
/// Most notifications that are kept in memory while the disk refuses them.
const MOST_UNKEPT: usize = 1000;

/// Why notifications cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// A file or folder cannot be used.
    #[error("unable to {action} {path:?} - {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DispatchError {
    let path = path.to_owned();
    move |source| DispatchError::Io {
        action,
        path,
        source,
    }
}

/// What became of what was accepted.
#[derive(Debug, Default)]
pub struct Sorted {
    /// How many notifications were given to how many targets.
    pub queued: usize,
    /// How many targets were spared a repeat.
    pub folded: usize,
    /// What could not be kept, to be sent at once.
    pub unkept: Vec<(String, Notification)>,
    /// What went wrong, for the log.
    pub problems: Vec<String>,
}

/// Accepts, sorts and delivers.
#[derive(Debug)]
pub struct Dispatch {
    incoming: PathBuf,
    state: PathBuf,
    spool: Spool,
    sorting: Mutex<()>,
    unkept: Mutex<Vec<Notification>>,
}

impl Dispatch {
    /// Uses the folder of an installation's variable data, such as `/var/lib/proxmox-backup`.
    ///
    /// # Errors
    /// When folders cannot be made.
    pub fn open(var_lib: &Path) -> Result<Self, DispatchError> {
        let incoming = var_lib.join("notifications");
        let own = var_lib.join("backstop-notifications");
        for folder in [&incoming, &own] {
            durable_file::create_folder(folder).map_err(io("make folder", folder))?;
        }
        Ok(Self {
            spool: Spool::open(&own.join("spool"), Limits::default())?,
            incoming,
            state: own.join("told.json"),
            sorting: Mutex::new(()),
            unkept: Mutex::new(Vec::new()),
        })
    }

    /// Writes a notification down. It is on the disk when this returns, or in memory when the disk refuses.
    ///
    /// # Errors
    /// When it is only in memory.
    pub fn accept(&self, notification: &Notification) -> Result<(), DispatchError> {
        let path = self.incoming.join(format!("{}.json", notification.id));
        let text = serde_json::to_vec(notification).unwrap_or_default();
        durable_file::replace(&path, &text).map_err(|err| {
            let mut unkept = self.unkept.lock();
            if unkept.len() < MOST_UNKEPT {
                unkept.push(notification.clone());
            }
            io("write", &path)(err)
        })
    }

    /// Gives what was accepted to the lanes of its targets.
    ///
    /// # Errors
    /// When the folder cannot be listed; single files are among the problems.
    pub fn sort(
        &self,
        matchers: &[Matcher],
        zone: &TimeZone,
        now: i64,
    ) -> Result<Sorted, DispatchError> {
        let _sorting = self.sorting.lock();
        let mut sorted = Sorted::default();
        let mut found: Vec<(Option<PathBuf>, Notification)> = self
            .read_incoming(&mut sorted)?
            .into_iter()
            .map(|(path, notification)| (Some(path), notification))
            .collect();
        let unkept = std::mem::take(&mut *self.unkept.lock());
        found.extend(unkept.into_iter().map(|notification| (None, notification)));
        if found.is_empty() {
            return Ok(sorted);
        }
        found.sort_by_key(|(_, notification)| notification.time);
        let mut repeats = self.load(&mut sorted);
        for (path, notification) in found {
            if !repeats.is_handled(&notification.id) {
                let targets = match &notification.to {
                    Some(to) if to.is_empty() => BTreeSet::new(),
                    Some(to) => BTreeSet::from([to.clone()]),
                    None => matcher::targets(matchers, &notification, zone),
                };
                self.queue(&mut repeats, &notification, &targets, now, &mut sorted);
                // Kept before the file is removed: it is not planned twice then.
                self.store(&repeats, &mut sorted);
            }
            if let Some(path) = path
                && let Err(err) = durable_file::remove(&path)
            {
                sorted.problems.push(format!(
                    "unable to remove {path:?}, which is done with - {err}"
                ));
            }
        }
        Ok(sorted)
    }

    fn queue(
        &self,
        repeats: &mut Repeats,
        notification: &Notification,
        targets: &BTreeSet<String>,
        now: i64,
        sorted: &mut Sorted,
    ) {
        let plan = repeats.plan(notification, targets);
        sorted.folded += plan.folded.len();
        for (target, telling) in plan.sends {
            match self.spool.add(&target, &telling, now) {
                Ok(_) => sorted.queued += 1,
                Err(err) => {
                    sorted
                        .problems
                        .push(format!("'{target}' is told without being kept - {err}"));
                    sorted.unkept.push((target, telling));
                }
            }
        }
    }

    /// All that was accepted. What cannot be read is set aside, so that it is said once.
    fn read_incoming(
        &self,
        sorted: &mut Sorted,
    ) -> Result<Vec<(PathBuf, Notification)>, DispatchError> {
        let list = std::fs::read_dir(&self.incoming).map_err(io("list", &self.incoming))?;
        let mut found = Vec::new();
        for entry in list {
            let path = entry.map_err(io("list", &self.incoming))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(notification) => found.push((path, notification)),
                Err(reason) => {
                    let aside = path.with_extension("unreadable");
                    let moved = std::fs::rename(&path, &aside);
                    let moved = moved.map_or_else(
                        |err| format!("and cannot be set aside - {err}"),
                        |()| format!("set aside as {aside:?}"),
                    );
                    sorted.problems.push(format!(
                        "the notification {path:?} cannot be read: {reason}; {moved}"
                    ));
                }
            }
        }
        Ok(found)
    }

    fn load(&self, sorted: &mut Sorted) -> Repeats {
        let text = match std::fs::read(&self.state) {
            Ok(text) => text,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Repeats::default(),
            Err(err) => {
                sorted.problems.push(format!(
                    "what was told before is not known: unable to read {:?} - {err}",
                    self.state
                ));
                return Repeats::default();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|err| {
            sorted.problems.push(format!(
                "what was told before is not known: {:?} makes no sense - {err}",
                self.state
            ));
            Repeats::default()
        })
    }

    fn store(&self, repeats: &Repeats, sorted: &mut Sorted) {
        let text = serde_json::to_vec(repeats).unwrap_or_default();
        if let Err(err) = durable_file::replace(&self.state, &text) {
            sorted.problems.push(format!(
                "repeats and recoveries are not known after a restart: unable to write {:?} - {err}",
                self.state
            ));
        }
    }

    /// From where what was sorted is delivered.
    pub const fn spool(&self) -> &Spool {
        &self.spool
    }

    /// What has not arrived, though it was tried, and what waits behind it.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub fn undelivered(&self) -> Result<Vec<Undelivered>, DispatchError> {
        Ok(self.spool.undelivered()?)
    }

    /// What was given up.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub fn dropped(&self) -> Result<Dropped, DispatchError> {
        Ok(self.spool.dropped()?)
    }

    /// Makes everything due at once.
    ///
    /// # Errors
    /// When the spool cannot be written.
    pub fn retry(&self, now: i64) -> Result<(), DispatchError> {
        Ok(self.spool.retry_now(now)?)
    }

    /// A notification in the spool; `None` when it is not there any more.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub fn find(&self, id: &str) -> Result<Option<Notification>, DispatchError> {
        Ok(self.spool.item(id)?)
    }

    /// Gives up a notification in the spool; says whether it was there.
    ///
    /// # Errors
    /// When the spool cannot be written.
    pub fn discard(&self, id: &str) -> Result<bool, DispatchError> {
        Ok(self.spool.discard(id)?)
    }
}

fn read(path: &Path) -> Result<Notification, String> {
    let failed = |err: std::io::Error| err.to_string();
    let size = std::fs::symlink_metadata(path).map_err(failed)?;
    if !size.is_file() || size.len() > MAX_SIZE {
        return Err("it is no file of a notification".to_owned());
    }
    let text = std::fs::read(path).map_err(failed)?;
    serde_json::from_slice(&text).map_err(|err| err.to_string())
}

#[cfg(test)]
mod tests;
