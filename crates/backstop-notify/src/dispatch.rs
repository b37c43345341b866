//! From an event to its targets, over files that survive every end of the process.
//!
//! A notification is first written down as it is ([`Dispatch::accept`]), in the folder and the form of stock servers; then it is given to
//! the lane of each target in a spool ([`Dispatch::sort`]), with what was told before taken into account; and from there it is
//! delivered until it has arrived ([`Dispatch::spool`]). Each step can be repeated after a crash: nothing is lost, and in the worst
//! case something arrives twice. Format: `docs/formats/notifications.md`.
//!
//! The time is an argument. A file that cannot be read never holds up others, and a full disk is no reason for silence: what cannot be
//! kept is delivered at once, and forgotten only when it has arrived or could be kept.

mod unfinished;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use backstop_outgoing::spool::Dropped;
use backstop_outgoing::{Limits, Spool, SpoolError, Undelivered, durable_file};
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use uuid::Uuid;

use unfinished::Unfinished;

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

/// One that was accepted.
struct Incoming {
    path: Option<PathBuf>,
    modified: SystemTime,
    notification: Notification,
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

    /// Gives what was accepted to the lanes of its targets. What cannot be given to all of them is remembered, and its file stays.
    ///
    /// # Errors
    /// When the folder cannot be listed; single files are among the problems.
    pub fn sort(
        &self,
        matchers: &[Matcher],
        zone: &TimeZone,
        now: i64,
    ) -> Result<Sorted, DispatchError> {
        let mut sorting = self.sorting.lock();
        let mut sorted = Sorted::default();
        let mut found = self.read_incoming(&sorting.unfinished, &mut sorted)?;
        let unkept = std::mem::take(&mut *self.unkept.lock());
        found.extend(unkept.into_iter().map(|notification| Incoming {
            path: None,
            modified: SystemTime::now(),
            notification,
        }));
        if found.is_empty() && sorting.unfinished.is_empty() {
            return Ok(sorted);
        }
        // Stable: what is in memory keeps its order.
        found.sort_by_key(|incoming| (incoming.notification.time, incoming.modified));
        let mut repeats = match sorting.ahead.take() {
            Some(repeats) => repeats,
            None => self.load(&mut sorted.problems),
        };
        self.finish(&mut sorting.unfinished, now, &mut sorted);
        let mut is_changed = false;
        for Incoming {
            path, notification, ..
        } in found
        {
            if !repeats.is_handled(&notification.id) {
                let targets = match &notification.to {
                    Some(to) if to.is_empty() => BTreeSet::new(),
                    Some(to) => BTreeSet::from([to.clone()]),
                    None => matcher::targets(matchers, &notification, zone),
                };
                let plan = repeats.plan(&notification, &targets);
                is_changed = true;
                sorted.folded += plan.folded.len();
                let left = Unfinished::of(path.clone(), plan.sends);
                if self.go_on(
                    left,
                    &notification.id,
                    now,
                    &mut sorting.unfinished,
                    &mut sorted,
                ) {
                    continue;
                }
                // Kept before the file is removed: it is not planned twice then.
                if sorting.unfinished.is_empty() {
                    self.store(&repeats, &mut sorted.problems);
                    is_changed = false;
                }
            }
            remove(path.as_deref(), &mut sorted.problems);
        }
        // What is remembered says that all were told. As long as some were not, it stays in memory, and their files on the disk: after a
        // crash they are planned anew.
        if !sorting.unfinished.is_empty() {
            sorting.ahead = Some(repeats);
        } else if is_changed || sorted.queued > 0 {
            self.store(&repeats, &mut sorted.problems);
        }
        Ok(sorted)
    }

    /// Gives a notification to the lanes that it was not given to before; says whether some of it is left.
    fn go_on(
        &self,
        mut left: Unfinished,
        id: &Uuid,
        now: i64,
        unfinished: &mut BTreeMap<Uuid, Unfinished>,
        sorted: &mut Sorted,
    ) -> bool {
        left.sends.retain_mut(
            |send| match self.spool.add(&send.target, &send.telling, now) {
                Ok(_) => {
                    sorted.queued += 1;
                    false
                }
                Err(err) => {
                    if send.is_due(now) {
                        let target = &send.target;
                        sorted
                            .problems
                            .push(format!("'{target}' is told without being kept - {err}"));
                        sorted.unkept.push((target.clone(), send.telling.clone()));
                    }
                    true
                }
            },
        );
        if left.sends.is_empty() {
            return false;
        }
        let in_memory = unfinished.values().filter(|left| left.path.is_none());
        if left.path.is_none() && in_memory.count() >= MOST_UNKEPT {
            sorted.problems.push(format!(
                "a notification is lost: {MOST_UNKEPT} are in memory, as the disk refuses them"
            ));
            return true;
        }
        unfinished.insert(*id, left);
        true
    }

    fn finish(&self, unfinished: &mut BTreeMap<Uuid, Unfinished>, now: i64, sorted: &mut Sorted) {
        for (id, left) in std::mem::take(unfinished) {
            let path = left.path.clone();
            if !self.go_on(left, &id, now, unfinished, sorted) {
                remove(path.as_deref(), &mut sorted.problems);
            }
        }
    }

    /// All that was accepted and not begun with. What cannot be read is set aside, so that it is said once.
    fn read_incoming(
        &self,
        unfinished: &BTreeMap<Uuid, Unfinished>,
        sorted: &mut Sorted,
    ) -> Result<Vec<Incoming>, DispatchError> {
        let list = std::fs::read_dir(&self.incoming).map_err(io("list", &self.incoming))?;
        let mut found = Vec::new();
        for entry in list {
            let path = entry.map_err(io("list", &self.incoming))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(incoming) if unfinished.contains_key(&incoming.notification.id) => {}
                Ok(incoming) => found.push(incoming),
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

    /// Notes that a target took a notification, also one that could not be kept. Returns what went wrong, for the log.
    pub fn arrived(&self, target: &str, notification: &Notification) -> Vec<String> {
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
            let change = |repeats: &mut Repeats| repeats.arrived(target, notification);
            self.change(&mut sorting, change, &mut problems);
        }
        problems
    }

    /// Notes that a notification will not arrive at a target. Returns what went wrong, for the log.
    pub fn lost(&self, target: &str, notification: &Notification) -> Vec<String> {
        let mut problems = Vec::new();
        if notification.severity.is_failure() {
            let change = |repeats: &mut Repeats| repeats.lost(target, notification);
            self.change(&mut self.sorting.lock(), change, &mut problems);
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

fn read(path: &Path) -> Result<Incoming, String> {
    let failed = |err: std::io::Error| err.to_string();
    let found = std::fs::symlink_metadata(path).map_err(failed)?;
    if !found.is_file() || found.len() > MAX_SIZE {
        return Err("it is no file of a notification".to_owned());
    }
    let text = std::fs::read(path).map_err(failed)?;
    Ok(Incoming {
        path: Some(path.to_owned()),
        modified: found.modified().map_err(failed)?,
        notification: serde_json::from_slice(&text).map_err(|err| err.to_string())?,
    })
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
