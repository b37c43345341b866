//! What is in a spool, and what people do with it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::de::DeserializeOwned;

use super::entry::Entry;
use super::{DROPPED, Dropped, Found, Lost, Spool, SpoolError, Undelivered};

/// An item that was not tried after so many seconds has not arrived in time: whoever should deliver it hangs.
const OVERDUE: i64 = 60;

impl Spool {
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
}
