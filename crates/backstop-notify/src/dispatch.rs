//! From an event to its targets, over files that survive every end of the process.
//!
//! A notification is first written down as it is ([`Dispatch::accept`]), in the folder and the form of stock servers; then it is given to
//! the lane of each target in a spool ([`Dispatch::sort`]), with what was told before taken into account; and from there it is
//! delivered until it has arrived ([`Dispatch::spool`]). Each step can be repeated after a crash: nothing is lost, and in the worst
//! case something arrives twice. Format: `docs/formats/notifications.md`.
//!
//! The time is an argument. A file that cannot be read never holds up others, and a full disk is no reason for silence: what cannot be
//! kept is delivered at once, and forgotten only when it has arrived or could be kept.

mod sorting;
mod unfinished;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use backstop_outgoing::spool::Dropped;
use backstop_outgoing::{Limits, Spool, SpoolError, Undelivered, durable_file};
use parking_lot::Mutex;
use uuid::Uuid;

pub use sorting::Sorted;
use unfinished::Unfinished;

use crate::notification::Notification;
use crate::repeats::Repeats;

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

/// Accepts, sorts and delivers.
#[derive(Debug)]
pub struct Dispatch {
    incoming: PathBuf,
    state: PathBuf,
    spool: Spool,
    sorting: Mutex<Sorting>,
    unkept: Mutex<Vec<Notification>>,
    /// When something was accepted last.
    last: Mutex<SystemTime>,
}

/// What is known while the spool does not take everything.
#[derive(Debug, Default)]
struct Sorting {
    unfinished: BTreeMap<Uuid, Unfinished>,
    /// What was told, counting what is unfinished; on the disk it is not counted.
    ahead: Option<Repeats>,
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
            sorting: Mutex::default(),
            unkept: Mutex::new(Vec::new()),
            last: Mutex::new(SystemTime::UNIX_EPOCH),
        })
    }

    /// Writes a notification down. It is on the disk when this returns, or in memory when the disk refuses.
    ///
    /// # Errors
    /// When it is only in memory.
    pub fn accept(&self, notification: &Notification) -> Result<(), DispatchError> {
        let path = self.incoming.join(format!("{}.json", notification.id));
        let written = match serde_json::to_vec(notification) {
            Ok(text) => {
                let modified = Some(self.next_moment());
                durable_file::replace(&path, &text, modified).map_err(io("write", &path))
            }
            Err(err) => Err(SpoolError::Item(err).into()),
        };
        written.inspect_err(|_| {
            let mut unkept = self.unkept.lock();
            if unkept.len() < MOST_UNKEPT {
                unkept.push(notification.clone());
            }
        })
    }

    /// A moment later than any before, which keeps the order of what is accepted within a tick of the clock.
    fn next_moment(&self) -> SystemTime {
        let mut last = self.last.lock();
        *last = SystemTime::now().max(*last + Duration::from_nanos(1));
        *last
    }

    /// Notes that a target took a notification, also one that could not be kept. Returns what went wrong, for the log.
    pub fn arrived(&self, target: &str, notification: &Notification) -> Vec<String> {
        self.settle(target, notification, |repeats| {
            repeats.arrived(target, notification)
        })
    }

    /// Notes that a notification will not arrive at a target. Returns what went wrong, for the log.
    pub fn lost(&self, target: &str, notification: &Notification) -> Vec<String> {
        self.settle(target, notification, |repeats| {
            repeats.lost(target, notification)
        })
    }

    /// Forgets a notification that could not be kept for a target, and changes what is remembered of a failure.
    fn settle(
        &self,
        target: &str,
        notification: &Notification,
        change: impl FnOnce(&mut Repeats) -> bool,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        let mut sorting = self.sorting.lock();
        if let Some(left) = sorting.unfinished.get_mut(&notification.id) {
            left.sends.retain(|send| send.target != target);
            if left.sends.is_empty() {
                remove(left.path.as_deref(), &mut problems);
                sorting.unfinished.remove(&notification.id);
            }
        }
        if notification.severity.is_failure() {
            self.change(&mut sorting, change, &mut problems);
        }
        problems
    }

    /// Removes what waits for targets that do not exist any more, and what they were told: one that gets such a name later begins anew.
    ///
    /// # Errors
    /// When the spool cannot be read or written.
    pub fn retain_targets(
        &self,
        exists: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, DispatchError> {
        let mut problems = Vec::new();
        let mut sorting = self.sorting.lock();
        for left in sorting.unfinished.values_mut() {
            left.sends.retain(|send| exists(&send.target));
        }
        self.change(
            &mut sorting,
            |repeats| repeats.retain_targets(&exists),
            &mut problems,
        );
        self.spool.retain_lanes(&exists)?;
        Ok(problems)
    }

    fn change(
        &self,
        sorting: &mut Sorting,
        change: impl FnOnce(&mut Repeats) -> bool,
        problems: &mut Vec<String>,
    ) {
        if let Some(repeats) = &mut sorting.ahead {
            change(repeats);
            return;
        }
        let mut repeats = self.load(problems);
        if change(&mut repeats) {
            self.store(&repeats, problems);
        }
    }

    fn load(&self, problems: &mut Vec<String>) -> Repeats {
        let text = match std::fs::read(&self.state) {
            Ok(text) => text,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Repeats::default(),
            Err(err) => {
                problems.push(format!(
                    "what was told before is not known: unable to read {:?} - {err}",
                    self.state
                ));
                return Repeats::default();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|err| {
            problems.push(format!(
                "what was told before is not known: {:?} makes no sense - {err}",
                self.state
            ));
            Repeats::default()
        })
    }

    fn store(&self, repeats: &Repeats, problems: &mut Vec<String>) {
        let stored = serde_json::to_vec(repeats)
            .map_err(std::io::Error::from)
            .and_then(|text| durable_file::replace(&self.state, &text, None));
        if let Err(err) = stored {
            problems.push(format!(
                "repeats and recoveries are not known after a restart: unable to write {:?} - {err}",
                self.state
            ));
        }
    }

    /// From where what was sorted is delivered.
    pub const fn spool(&self) -> &Spool {
        &self.spool
    }

    /// What has not arrived, though it was tried or should have been, what waits behind it, and what is refused.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub fn undelivered(&self, now: i64) -> Result<Vec<Undelivered>, DispatchError> {
        Ok(self.spool.undelivered(now)?)
    }

    /// What was accepted and is not given to any target yet: how many notifications, and since when the oldest waits. They wait while the
    /// settings cannot be read.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn unsorted(&self) -> Result<(u64, Option<i64>), DispatchError> {
        let list = std::fs::read_dir(&self.incoming).map_err(io("list", &self.incoming))?;
        let (mut count, mut oldest) = (0_u64, None::<i64>);
        for entry in list {
            let entry = entry.map_err(io("list", &self.incoming))?;
            if entry
                .path()
                .extension()
                .is_none_or(|extension| extension != "json")
            {
                continue;
            }
            // One that was sorted meanwhile does not wait.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let since = std::os::unix::fs::MetadataExt::mtime(&metadata);
            count = count.saturating_add(1);
            oldest = Some(oldest.map_or(since, |known| known.min(since)));
        }
        for notification in self.unkept.lock().iter() {
            count = count.saturating_add(1);
            oldest = Some(oldest.map_or(notification.time, |known| known.min(notification.time)));
        }
        Ok((count, oldest))
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

fn remove(path: Option<&Path>, problems: &mut Vec<String>) {
    if let Some(path) = path
        && let Err(err) = durable_file::remove(path)
    {
        problems.push(format!(
            "unable to remove {path:?}, which is done with - {err}"
        ));
    }
}

#[cfg(test)]
mod tests;
