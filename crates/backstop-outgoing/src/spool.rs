//! What is to be delivered, kept on disk until it has arrived.
//!
//! A spool is a folder with one file for each item (mode 0600, `NUMBER-RANDOM.json`; see `docs/formats/spool.md`). Items belong to
//! lanes, one for each receiver: a lane is delivered in order, by one process and thread at a time, and one that is stuck holds up no
//! other. [`Courier`](crate::Courier) delivers from it. A file that cannot be read is set aside and said, and holds up nothing; neither
//! does an item that its receiver refuses. What has to be dropped, because there is too much of it or because it is too old, is
//! counted and said. The time is an argument everywhere, in Unix seconds.
//!
//! Whatever is put into items lies in clear text on the disk: secrets stay where they are configured.

mod dropped;
mod entry;
mod folder;
mod limits;
mod outcome;
mod passage;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use dropped::{Dropped, DroppedOfLane};
pub use limits::Limits;
pub use outcome::{Delivery, Look, Lost, Pass, Undelivered};

use entry::{Entry, Head};
use folder::Folder;

use crate::courier::Bell;

/// Who adds, changes or removes files holds this lock, for a moment.
const ENTRY_LOCK: &str = ".entries.lock";
/// What was dropped so far.
const DROPPED: &str = ".dropped";
/// Most files that are kept set aside; the oldest go first.
const MOST_SET_ASIDE: usize = 100;
/// Most items of a lane that are kept though its receiver refuses them; the oldest are dropped.
const MOST_REFUSED: usize = 100;
/// Most items that are remembered as lost until somebody asks.
const MOST_LOST: usize = 1000;
/// An item that was not tried after so many seconds has not arrived in time: whoever should deliver it hangs.
const OVERDUE: i64 = 60;

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

/// A spool.
#[derive(Debug)]
pub struct Spool {
    folder: Folder,
    limits: Limits,
    entries: Mutex<()>,
    lost: Mutex<Vec<Lost>>,
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
            lost: Mutex::default(),
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
        let item = serde_json::to_value(item)?;
        let added = self.locked(|| self.put(lane, item, now));
        self.bell.ring();
        added
    }

    /// As [`Self::add`], in the place of those items of the lane of which `is_replaced` says so, by their content and when they were added.
    /// `absorb` takes over what the new one has to know of each.
    ///
    /// # Errors
    /// When files cannot be read or written.
    pub fn add_in_place_of<T: Serialize + DeserializeOwned>(
        &self,
        lane: &str,
        mut item: T,
        now: i64,
        is_replaced: impl Fn(&T, i64) -> bool,
        mut absorb: impl FnMut(&mut T, &T),
    ) -> Result<String, SpoolError> {
        let added = self.locked(|| {
            let mut replaced = Vec::new();
            for id in self.folder.names()? {
                let Found::Entry(Entry { head, item: older }) = self.read(&id) else {
                    continue;
                };
                if head.lane != lane {
                    continue;
                }
                if let Ok(older) = serde_json::from_value::<T>(older)
                    && is_replaced(&older, head.queued)
                {
                    absorb(&mut item, &older);
                    replaced.push(id);
                }
            }
            let added = self.put(lane, serde_json::to_value(&item)?, now)?;
            for id in replaced {
                self.folder.remove(&id)?;
            }
            Ok(added)
        });
        self.bell.ring();
        added
    }

    fn put(&self, lane: &str, item: Value, now: i64) -> Result<String, SpoolError> {
        let present = self.folder.names()?;
        // Most spools are far from full: the files are looked into only when this one may be.
        if present.len() >= self.limits.items.max(1) {
            self.make_room(lane, &present, now)?;
        }
        let id = folder::next_id(present.last().map(String::as_str));
        let head = Head::new(lane, now);
        self.folder.write(&id, &Entry { head, item }.to_json()?)?;
        Ok(id)
    }

    fn make_room(&self, lane: &str, present: &[String], now: i64) -> Result<(), SpoolError> {
        let own = present.iter().filter_map(|id| match self.read(id) {
            Found::Entry(entry) if entry.head.lane == lane => Some((id, entry.item)),
            _ => None,
        });
        let own: Vec<_> = own.collect();
        let surplus = (own.len() + 1).saturating_sub(self.limits.items.max(1));
        for (id, item) in own.into_iter().take(surplus) {
            self.folder.remove(id)?;
            let reason = format!(
                "more than {} wait for {lane}; the oldest makes room",
                self.limits.items
            );
            self.count_dropped(id, lane, &reason, now)?;
            self.lose(lane.to_owned(), item);
        }
        Ok(())
    }

    /// Wakes the [`Courier`](crate::Courier) that delivers from here, if there is one.
    pub fn wake(&self) {
        self.bell.ring();
    }

    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// What has failed at least once, what waits behind it, what nobody has tried in time, and what its receiver refuses. The oldest
    /// first. Unreadable files are not among it.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn undelivered(&self, now: i64) -> Result<Vec<Undelivered>, SpoolError> {
        let mut stuck = BTreeSet::new();
        let mut found = Vec::new();
        for id in self.folder.names()? {
            let Found::Entry(Entry { head, .. }) = self.read(&id) else {
                continue;
            };
            if head.attempts > 0 || now.saturating_sub(head.queued) > OVERDUE {
                stuck.insert(head.lane.clone());
            }
            if stuck.contains(&head.lane) {
                found.push(head.undelivered(id, false));
            }
        }
        for id in self.folder.refused()? {
            if let Some(Entry { head, .. }) = self.read_refused(&id)? {
                found.push(head.undelivered(id, true));
            }
        }
        found.sort_by(|one, other| one.id.cmp(&other.id));
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

    /// What this process removed since it was asked last, and what it set aside as refused: none of that has arrived.
    pub fn take_lost(&self) -> Vec<Lost> {
        std::mem::take(&mut *self.lost.lock())
    }

    /// Makes everything due at once, say because a receiver was corrected; also what was refused.
    ///
    /// # Errors
    /// When files cannot be read or written.
    pub fn retry_now(&self, now: i64) -> Result<(), SpoolError> {
        let made = self.locked(|| {
            for id in self.folder.names()? {
                let Found::Entry(mut entry) = self.read(&id) else {
                    continue;
                };
                if entry.head.next_try > now {
                    entry.head.next_try = now;
                    self.folder.write(&id, &entry.to_json()?)?;
                }
            }
            for id in self.folder.refused()? {
                let Some(mut entry) = self.read_refused(&id)? else {
                    continue;
                };
                (entry.head.next_try, entry.head.refusals) = (now, 0);
                // It was in time when it was set aside.
                entry.head.queued = entry.head.queued.max(now.saturating_sub(OVERDUE));
                self.folder.write(&id, &entry.to_json()?)?;
                self.folder.remove_refused(&id)?;
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
        let entry = match self.folder.read(id)? {
            Some(text) => Entry::parse(&text).ok(),
            None => self.read_refused(id)?,
        };
        Ok(entry.and_then(|entry| serde_json::from_value(entry.item).ok()))
    }

    /// Removes an item that somebody gives up; says whether it was there.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub fn discard(&self, id: &str) -> Result<bool, SpoolError> {
        self.locked(|| {
            if self.folder.refused()?.iter().any(|name| name == id) {
                self.folder.remove_refused(id)?;
                return Ok(true);
            }
            if !self.folder.names()?.iter().any(|name| name == id) {
                return Ok(false);
            }
            if let Found::Entry(Entry { head, item }) = self.read(id) {
                self.lose(head.lane, item);
            }
            self.folder.remove(id)?;
            Ok(true)
        })
    }

    /// Removes what is for lanes of which `is_kept` says that nobody is there any more; returns how much that was. Nothing is lost by it.
    ///
    /// # Errors
    /// When files cannot be read or removed.
    pub fn retain_lanes(&self, is_kept: impl Fn(&str) -> bool) -> Result<usize, SpoolError> {
        self.locked(|| {
            let mut removed = 0;
            for id in self.folder.names()? {
                if let Found::Entry(entry) = self.read(&id)
                    && !is_kept(&entry.head.lane)
                {
                    self.folder.remove(&id)?;
                    removed += 1;
                }
            }
            for id in self.folder.refused()? {
                if let Some(entry) = self.read_refused(&id)?
                    && !is_kept(&entry.head.lane)
                {
                    self.folder.remove_refused(&id)?;
                    removed += 1;
                }
            }
            let mut dropped = self.dropped()?;
            let lanes = dropped.lanes.len();
            dropped.lanes.retain(|lane, _| is_kept(lane));
            if dropped.lanes.len() < lanes {
                self.store_dropped(&dropped)?;
            }
            Ok(removed)
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

    /// `None` also for a file that makes no sense.
    fn read_refused(&self, id: &str) -> Result<Option<Entry>, SpoolError> {
        let text = self.folder.read_refused(id)?;
        Ok(text.and_then(|text| Entry::parse(&text).ok()))
    }

    /// Sets an item aside that is not to be tried again. Of a lane with many the oldest are dropped.
    fn refuse(&self, id: &str, lane: &str, now: i64) -> Result<(), SpoolError> {
        tracing::error!("{lane} refuses {id}, which is not tried again unless somebody says so");
        self.locked(|| {
            self.folder.refuse(id)?;
            let mut own = Vec::new();
            for id in self.folder.refused()? {
                if self
                    .read_refused(&id)?
                    .is_some_and(|entry| entry.head.lane == lane)
                {
                    own.push(id);
                }
            }
            for id in own.iter().take(own.len().saturating_sub(MOST_REFUSED)) {
                self.folder.remove_refused(id)?;
                let reason =
                    format!("{lane} refuses more than {MOST_REFUSED}; the oldest makes room");
                self.count_dropped(id, lane, &reason, now)?;
            }
            Ok(())
        })
    }

    fn set_aside(&self, id: &str, reason: &str) -> Result<PathBuf, SpoolError> {
        let path = self.locked(|| self.folder.set_aside(id, MOST_SET_ASIDE))?;
        tracing::error!("set {path:?} aside, which cannot be delivered: {reason}");
        Ok(path)
    }

    fn lose(&self, lane: String, item: Value) {
        let mut lost = self.lost.lock();
        if lost.len() < MOST_LOST {
            lost.push(Lost { lane, item });
        }
    }

    fn drop_entry(&self, id: &str, lane: &str, reason: &str, now: i64) -> Result<(), SpoolError> {
        self.locked(|| {
            self.folder.remove(id)?;
            self.count_dropped(id, lane, reason, now)
        })
    }

    fn count_dropped(
        &self,
        id: &str,
        lane: &str,
        reason: &str,
        now: i64,
    ) -> Result<(), SpoolError> {
        tracing::error!("dropped {id} of {:?}: {reason}", self.folder.path());
        let mut dropped = self.dropped()?;
        dropped.count(lane, reason, now);
        self.store_dropped(&dropped)
    }

    fn store_dropped(&self, dropped: &Dropped) -> Result<(), SpoolError> {
        self.folder
            .write_file(DROPPED, &serde_json::to_vec(dropped)?)
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
