//! Delivering: what is due, and one lane after the other.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::entry::Entry;
use super::limits::seconds;
use super::outcome::{Delivery, Look, Pass};
use super::{Found, Spool, SpoolError};

impl Spool {
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
            let Entry { head, item } = match self.read(&id) {
                Found::Entry(entry) => entry,
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
                self.drop_entry(&id, &head.lane, &reason, now)?;
                self.lose(head.lane, item);
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

    /// Delivers what is due in a lane, in order; the first failure ends it, but for what the receiver has refused several times: that is
    /// set aside. `clock` tells the time.
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
            let Found::Entry(entry) = self.read(&id) else {
                continue;
            };
            if entry.head.lane != lane {
                continue;
            }
            if !entry.head.is_due(clock(), self.limits.longest_wait) {
                pass.next = Some(entry.head.next_try);
                return Ok(pass);
            }
            let Ok(content) = serde_json::from_value::<T>(entry.item.clone()) else {
                let reason = "it holds something else than expected";
                pass.set_aside.push(self.set_aside(&id, reason)?);
                continue;
            };
            let (reason, wait, is_refused) = match deliver(&content) {
                Delivery::Delivered => {
                    self.locked(|| self.folder.remove(&id))?;
                    pass.delivered += 1;
                    continue;
                }
                Delivery::Withdrawn => {
                    self.locked(|| self.folder.remove(&id))?;
                    self.lose(entry.head.lane, entry.item);
                    continue;
                }
                Delivery::Hopeless(reason) => {
                    self.drop_entry(&id, lane, &reason, clock())?;
                    self.lose(entry.head.lane, entry.item);
                    pass.dropped.push(reason);
                    continue;
                }
                Delivery::Later => {
                    pass.next = Some(entry.head.next_try);
                    return Ok(pass);
                }
                Delivery::Failed(reason) => (reason, Duration::ZERO, false),
                Delivery::Busy { reason, wait } => (reason, wait, false),
                Delivery::Refused(reason) => (reason, Duration::ZERO, true),
            };
            if self.failed(&id, entry, (&reason, wait, is_refused), clock(), &mut pass)? {
                return Ok(pass);
            }
        }
        self.folder.remove_lock(&lock)?;
        Ok(pass)
    }

    /// Notes a failed attempt; says whether the lane has to wait.
    fn failed(
        &self,
        id: &str,
        mut entry: Entry,
        (reason, wait, is_refused): (&str, Duration, bool),
        now: i64,
        pass: &mut Pass,
    ) -> Result<bool, SpoolError> {
        let head = &mut entry.head;
        head.failed(reason, now, &self.limits, wait);
        head.refusals = head.refusals.saturating_add(u32::from(is_refused));
        let is_over = is_refused && head.refusals >= self.limits.refusals;
        let said = format!("{}: {reason}", head.lane);
        let next = head.next_try;
        let text = entry.to_json()?;
        // One that had to make room meanwhile does not come back.
        let is_there = self.locked(|| match self.folder.exists(id) {
            true => self.folder.write(id, &text).map(|()| true),
            false => Ok(false),
        })?;
        if !is_over {
            pass.failed.push(said);
            pass.next = Some(next);
            return Ok(true);
        }
        if is_there {
            self.refuse(id, &entry.head.lane, now)?;
            self.lose(entry.head.lane, entry.item);
            pass.refused.push(said);
        }
        Ok(false)
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
            all.refused.extend(pass.refused);
            all.dropped.extend(pass.dropped);
            all.set_aside.extend(pass.set_aside);
            all.next = all.next.into_iter().chain(pass.next).min();
            all.is_busy |= pass.is_busy;
        }
        Ok(all)
    }
}

/// The lock of who delivers in a lane. Names too long for a file share theirs with those that begin in the same way.
fn lane_lock(lane: &str) -> String {
    let mut name = ".lane-".to_owned();
    for byte in lane.bytes().take(100) {
        let _ = write!(name, "{byte:02x}");
    }
    name + ".lock"
}
