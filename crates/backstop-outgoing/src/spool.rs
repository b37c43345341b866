//! What is to be delivered, kept on disk until it has arrived.
//!
//! A spool is a folder with one file for each item (mode 0600, `NUMBER-RANDOM.json`; see `docs/formats/spool.md`). Items belong to
//! lanes, one for each receiver: a lane is delivered in order, by one process and thread at a time, and one that is stuck holds up no
//! other. [`Courier`](crate::Courier) delivers from it. A file that cannot be read
//! is set aside and said, and holds up nothing. What has to be dropped, because there is too much of it or because it is too old, is
//! counted and said. The time is an argument everywhere, in Unix seconds.
//!
//! Whatever is put into items lies in clear text on the disk: secrets stay where they are configured.

mod entry;
mod folder;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use entry::{Entry, Head};
use folder::Folder;

use crate::courier::Bell;

/// Who adds, changes or removes files holds this lock, for a moment.
const ENTRY_LOCK: &str = ".entries.lock";
/// What was dropped so far.
const DROPPED: &str = ".dropped";
/// Most files that are kept set aside; the oldest go first.
const MOST_SET_ASIDE: usize = 100;

/// Why a spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
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
    /// An item cannot be written down.
    #[error("unable to write down what is to be delivered - {0}")]
    Item(#[from] serde_json::Error),
}

impl SpoolError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// How much is kept, for how long, and how often it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most items; a further one displaces the oldest.
    pub items: usize,
    /// After this time an item is dropped.
    pub age: Duration,
    /// How long to wait after the first failure; each further one doubles it.
    pub first_wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
}

impl Default for Limits {
    /// 1000 items for 7 days; tried after 10 seconds, and at least once an hour.
    fn default() -> Self {
        Self {
            items: 1000,
            age: Duration::from_secs(7 * 24 * 3600),
            first_wait: Duration::from_secs(10),
            longest_wait: Duration::from_secs(3600),
        }
    }
}

impl Limits {
    /// How long to wait after this many failures.
    pub fn wait(&self, failures: u32) -> i64 {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1).min(31));
        let wait = self.first_wait.saturating_mul(doubled.unwrap_or(u32::MAX));
        seconds(wait.min(self.longest_wait)).max(1)
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// What became of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// It arrived.
    Delivered,
    /// It did not, and is to be tried again.
    Failed(String),
    /// There is no sense in trying again, or nobody to deliver it to any more: it is removed and counted as dropped.
    Hopeless(String),
    /// It was not tried. Its lane waits for the next pass.
    Later,
    /// Nobody wants it any more: it is removed, and nothing is lost by it.
    Withdrawn,
}

/// What there is to do at some time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Lanes that have something due; those that failed before come last.
    pub lanes: Vec<String>,
    /// When something is due in the other lanes; `None` when they are empty.
    pub next: Option<i64>,
    /// What was dropped, and why.
    pub dropped: Vec<String>,
    /// Files that could not be read, under their new names.
    pub set_aside: Vec<PathBuf>,
}

/// What was done in a lane, or in all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass {
    /// How many items arrived.
    pub delivered: usize,
    /// What failed and stays.
    pub failed: Vec<String>,
    /// What was dropped, and why.
    pub dropped: Vec<String>,
    /// Files that could not be read, under their new names.
    pub set_aside: Vec<PathBuf>,
    /// When the next attempt is due; `None` when nothing is left.
    pub next: Option<i64>,
    /// Somebody else is delivering there just now.
    pub is_busy: bool,
}

/// An item that has not arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Undelivered {
    /// Its file without `.json`.
    pub id: String,
    /// Whom it is for.
    pub lane: String,
    /// When it was added.
    pub queued: i64,
    /// How often it was tried.
    pub attempts: u32,
    /// When it first failed; `None` for one that waits behind another of its lane or was not tried yet.
    pub first_failure: Option<i64>,
    /// When it is tried next.
    pub next_try: i64,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

/// What was dropped so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Dropped {
    /// How many items.
    pub count: u64,
    /// When the last one was.
    pub last: i64,
    /// Why the last one was.
    pub reason: String,
}

/// A spool.
#[derive(Debug)]
pub struct Spool {
    folder: Folder,
    limits: Limits,
    entries: Mutex<()>,
    bell: Arc<Bell>,
}

impl Spool {
    /// Opens the spool in `folder`, which is made (0700) when it is missing. What a crash left half-written is removed.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(folder: &Path, limits: Limits) -> Result<Self, SpoolError> {
        let spool = Self {
            folder: Folder::create(folder)?,
            limits,
            entries: Mutex::new(()),
            bell: Arc::default(),
        };
        spool.locked(|| spool.folder.remove_temporaries())?;
        Ok(spool)
    }

    /// Keeps an item for a lane. It is on the disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add<T: Serialize>(&self, lane: &str, item: &T, now: i64) -> Result<String, SpoolError> {
        let entry = Entry {
            head: Head {
                lane: lane.to_owned(),
                queued: now,
                attempts: 0,
                first_failure: None,
                next_try: now,
                last_error: None,
            },
            item: serde_json::to_value(item)?,
        };
        let added = self.locked(|| {
            let present = self.folder.names()?;
            let surplus = (present.len() + 1).saturating_sub(self.limits.items.max(1));
            for name in present.iter().take(surplus) {
                self.folder.remove(name)?;
                let reason = format!(
                    "the spool is full ({} items); the oldest makes room",
                    self.limits.items
                );
                self.count_dropped(name, &reason, now)?;
            }
            let id = folder::next_id(present.last().map(String::as_str));
            self.folder.write(&id, &entry.to_json()?)?;
            Ok(id)
        });
        self.bell.ring();
        added
    }

    /// Wakes the [`Courier`](crate::Courier) that delivers from here, if there is one.
    pub fn wake(&self) {
        self.bell.ring();
    }

    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// Looks for what is due. Drops what is too old and sets aside what cannot be read, but for lanes of which `is_taken` says that
    /// somebody delivers there.
    ///
    /// # Errors
    /// When files cannot be listed or removed.
    pub fn look(&self, now: i64, is_taken: impl Fn(&str) -> bool) -> Result<Look, SpoolError> {
        let mut look = Look::default();
        let mut failing = Vec::new();
        let mut seen = BTreeSet::new();
        for id in self.folder.names()? {
            let head = match self.read(&id) {
                Found::Entry(entry) => entry.head,
                Found::Nothing => continue,
                Found::Unreadable(reason) => {
                    look.set_aside.push(self.set_aside(&id, &reason)?);
                    continue;
                }
            };
            if is_taken(&head.lane) {
                continue;
            }
            if now.saturating_sub(head.queued) > seconds(self.limits.age) {
                let error = head.last_error.as_deref().unwrap_or("never tried");
                let reason = format!("not delivered to {} in time: {error}", head.lane);
                self.drop_entry(&id, &reason, now)?;
                look.dropped.push(reason);
                continue;
            }
            // The first one of a lane decides for all.
            if !seen.insert(head.lane.clone()) {
                continue;
            }
            if !head.is_due(now, self.limits.longest_wait) {
                let next = look.next.unwrap_or(head.next_try);
                look.next = Some(next.min(head.next_try));
            } else if head.attempts > 0 {
                failing.push(head.lane);
            } else {
                look.lanes.push(head.lane);
            }
        }
        look.lanes.append(&mut failing);
        Ok(look)
    }

    /// Delivers what is due in a lane, in order; the first failure ends it. `clock` tells the time.
    ///
    /// # Errors
    /// When files cannot be listed, written or removed. What `deliver` says is no error.
    pub fn deliver_lane<T: DeserializeOwned>(
        &self,
        lane: &str,
        clock: impl Fn() -> i64,
        mut deliver: impl FnMut(&T) -> Delivery,
    ) -> Result<Pass, SpoolError> {
        let mut pass = Pass::default();
        let lock = lane_lock(lane);
        let Some(_lock) = self.folder.try_lock(&lock)? else {
            pass.is_busy = true;
            return Ok(pass);
        };
        for id in self.folder.names()? {
            // What cannot be read belongs to no lane; a look sets it aside.
            let Found::Entry(Entry { mut head, item }) = self.read(&id) else {
                continue;
            };
            if head.lane != lane {
                continue;
            }
            if !head.is_due(clock(), self.limits.longest_wait) {
                pass.next = Some(head.next_try);
                return Ok(pass);
            }
            let Ok(content) = serde_json::from_value::<T>(item.clone()) else {
                let reason = "it holds something else than expected";
                pass.set_aside.push(self.set_aside(&id, reason)?);
                continue;
            };
            match deliver(&content) {
                Delivery::Delivered => {
                    self.locked(|| self.folder.remove(&id))?;
                    pass.delivered += 1;
                }
                Delivery::Withdrawn => self.locked(|| self.folder.remove(&id))?,
                Delivery::Hopeless(reason) => {
                    self.drop_entry(&id, &reason, clock())?;
                    pass.dropped.push(reason);
                }
                Delivery::Later => {
                    pass.next = Some(head.next_try);
                    return Ok(pass);
                }
                Delivery::Failed(reason) => {
                    pass.failed.push(format!("{lane}: {reason}"));
                    head.failed(reason, clock(), &self.limits);
                    pass.next = Some(head.next_try);
                    let text = Entry { head, item }.to_json()?;
                    // One that had to make room meanwhile does not come back.
                    self.locked(|| match self.folder.exists(&id) {
                        true => self.folder.write(&id, &text),
                        false => Ok(()),
                    })?;
                    return Ok(pass);
                }
            }
        }
        self.folder.remove_lock(&lock)?;
        Ok(pass)
    }

    /// Delivers what is due, one lane after the other.
    ///
    /// # Errors
    /// As of [`Spool::deliver_lane`].
    pub fn deliver<T: DeserializeOwned>(
        &self,
        now: i64,
        mut deliver: impl FnMut(&str, &T) -> Delivery,
    ) -> Result<Pass, SpoolError> {
        let look = self.look(now, |_| false)?;
        let mut all = Pass {
            next: look.next,
            dropped: look.dropped,
            set_aside: look.set_aside,
            ..Pass::default()
        };
        for lane in look.lanes {
            let pass = self.deliver_lane(&lane, || now, |item: &T| deliver(&lane, item))?;
            all.delivered += pass.delivered;
            all.failed.extend(pass.failed);
            all.dropped.extend(pass.dropped);
            all.set_aside.extend(pass.set_aside);
            all.next = all.next.into_iter().chain(pass.next).min();
            all.is_busy |= pass.is_busy;
        }
        Ok(all)
    }

    /// What has failed at least once, and what waits behind it. The oldest first. Unreadable files are not among it.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn undelivered(&self) -> Result<Vec<Undelivered>, SpoolError> {
        let mut stuck = BTreeSet::new();
        let mut found = Vec::new();
        for id in self.folder.names()? {
            let Some(Ok(Entry { head, .. })) = self.folder.read(&id)?.map(|t| Entry::parse(&t))
            else {
                continue;
            };
            if head.attempts > 0 {
                stuck.insert(head.lane.clone());
            }
            if stuck.contains(&head.lane) {
                found.push(Undelivered {
                    id,
                    lane: head.lane,
                    queued: head.queued,
                    attempts: head.attempts,
                    first_failure: head.first_failure,
                    next_try: head.next_try,
                    last_error: head.last_error,
                });
            }
        }
        Ok(found)
    }

    /// How many items are kept.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn len(&self) -> Result<usize, SpoolError> {
        Ok(self.folder.names()?.len())
    }

    /// Whether nothing is kept.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn is_empty(&self) -> Result<bool, SpoolError> {
        Ok(self.len()? == 0)
    }

    /// Files that were set aside because they could not be read.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn files_set_aside(&self) -> Result<Vec<PathBuf>, SpoolError> {
        self.folder.set_aside_files()
    }

    /// What was dropped since the spool exists.
    ///
    /// # Errors
    /// When the count cannot be read.
    pub fn dropped(&self) -> Result<Dropped, SpoolError> {
        let text = self.folder.read_file(DROPPED)?;
        // A count that cannot be read is none.
        Ok(text
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default())
    }

    /// Makes everything due at once, say because a receiver was corrected.
    ///
    /// # Errors
    /// When files cannot be read or written.
    pub fn retry_now(&self, now: i64) -> Result<(), SpoolError> {
        let made = self.locked(|| {
            for id in self.folder.names()? {
                let Some(Ok(mut entry)) = self.folder.read(&id)?.map(|t| Entry::parse(&t)) else {
                    continue;
                };
                if entry.head.next_try > now {
                    entry.head.next_try = now;
                    self.folder.write(&id, &entry.to_json()?)?;
                }
            }
            Ok(())
        });
        self.bell.ring();
        made
    }

    /// An item; `None` when it is not there any more, or is something else.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn item<T: DeserializeOwned>(&self, id: &str) -> Result<Option<T>, SpoolError> {
        let entry = self.folder.read(id)?.map(|text| Entry::parse(&text));
        let Some(Ok(entry)) = entry else {
            return Ok(None);
        };
        Ok(serde_json::from_value(entry.item).ok())
    }

    /// Removes an item that somebody gives up; says whether it was there.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub fn discard(&self, id: &str) -> Result<bool, SpoolError> {
        self.locked(|| {
            let is_there = self.folder.names()?.iter().any(|name| name == id);
            if is_there {
                self.folder.remove(id)?;
            }
            Ok(is_there)
        })
    }

    fn read(&self, id: &str) -> Found {
        match self.folder.read(id) {
            Ok(Some(text)) => match Entry::parse(&text) {
                Ok(entry) => Found::Entry(entry),
                Err(err) => Found::Unreadable(err.to_string()),
            },
            Ok(None) => Found::Nothing,
            Err(err) => Found::Unreadable(err.to_string()),
        }
    }

    fn set_aside(&self, id: &str, reason: &str) -> Result<PathBuf, SpoolError> {
        let path = self.locked(|| self.folder.set_aside(id, MOST_SET_ASIDE))?;
        tracing::error!("set {path:?} aside, which cannot be delivered: {reason}");
        Ok(path)
    }

    fn drop_entry(&self, id: &str, reason: &str, now: i64) -> Result<(), SpoolError> {
        self.locked(|| {
            self.folder.remove(id)?;
            self.count_dropped(id, reason, now)
        })
    }

    fn count_dropped(&self, id: &str, reason: &str, now: i64) -> Result<(), SpoolError> {
        tracing::error!("dropped {id} of {:?}: {reason}", self.folder.path());
        let mut dropped = self.dropped()?;
        dropped.count = dropped.count.saturating_add(1);
        dropped.last = now;
        reason.clone_into(&mut dropped.reason);
        let text = serde_json::to_vec(&dropped)?;
        self.folder.write_file(DROPPED, &text)
    }

    fn locked<T>(&self, work: impl FnOnce() -> Result<T, SpoolError>) -> Result<T, SpoolError> {
        let _entries = self.entries.lock();
        let _lock: File = self
            .folder
            .lock(ENTRY_LOCK, FlockOperation::LockExclusive)?;
        work()
    }
}

/// A file of the spool.
enum Found {
    Entry(Entry),
    Unreadable(String),
    /// It is gone.
    Nothing,
}

/// The lock of who delivers in a lane. Names too long for a file share theirs with those that begin in the same way.
fn lane_lock(lane: &str) -> String {
    let mut name = ".lane-".to_owned();
    for byte in lane.bytes().take(100) {
        let _ = write!(name, "{byte:02x}");
    }
    name + ".lock"
}
