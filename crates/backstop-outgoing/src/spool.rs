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
mod inventory;
mod limits;
mod outcome;
mod passage;

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
