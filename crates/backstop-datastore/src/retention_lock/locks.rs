//! The locks of a datastore as numbers: what holds at which moment, and which changes are allowed. No files, no clock: the
//! present is given.
//!
//! Whatever makes a lock tighter happens at once. Whatever loosens it is a request, which takes effect only after the grace
//! window that was chosen when the lock was set, and can be withdrawn until then.

use std::collections::BTreeMap;

use backstop_types::Namespace;
use serde::{Deserialize, Serialize};

use super::refusal::RetentionLockRefusal as Refusal;

/// Longest time that a snapshot can be locked for, in days.
pub const MAX_DAYS: u32 = 3650;
/// The grace window unless another one is chosen, in hours.
pub const DEFAULT_GRACE_HOURS: u32 = 24;
/// Longest grace window, in hours.
pub const MAX_GRACE_HOURS: u32 = 720;

const DAY: i64 = 86_400;
const HOUR: i64 = 3600;
/// Changes that are remembered.
const HISTORY: usize = 200;
/// The form of the file that this program writes and understands.
const VERSION: u32 = 1;

/// A lock on a namespace and everything below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Lock {
    /// For how many days a snapshot cannot be removed.
    pub days: u32,
    /// How long a request to shorten the lock has no effect, in hours.
    pub grace_hours: u32,
    /// When it was set or lengthened last, in seconds since 1970.
    pub set_at: i64,
    /// By whom.
    pub set_by: String,
    /// The request to shorten it, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
}

/// A request to shorten or remove a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Request {
    /// The days that are wished for; 0 removes the lock.
    pub days: u32,
    /// When it was made, in seconds since 1970.
    pub made_at: i64,
    /// By whom.
    pub made_by: String,
    /// From when on it holds, in seconds since 1970.
    pub effective_at: i64,
}

impl Lock {
    /// The days that hold at `now`.
    pub fn days_at(&self, now: i64) -> u32 {
        match &self.request {
            Some(request) if request.effective_at <= now => self.days.min(request.days),
            _ => self.days,
        }
    }

    /// The days that are left when what is requested takes effect.
    fn days_to_come(&self) -> u32 {
        let request = self.request.as_ref();
        request.map_or(self.days, |request| self.days.min(request.days))
    }
}

/// A request to believe a clock that was set forward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ClockRequest {
    /// How far ahead the clock was, in seconds.
    pub ahead: i64,
    /// When it was made, in seconds since 1970 of the time that is trusted.
    pub made_at: i64,
    /// By whom.
    pub made_by: String,
    /// From when on it holds, in the same time.
    pub effective_at: i64,
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Change {
    /// When, in seconds since 1970.
    pub at: i64,
    /// By whom.
    pub by: String,
    /// In which namespace.
    pub ns: Namespace,
    /// What.
    pub what: String,
}

/// The lock that decides in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Governing {
    /// Where it is set: the namespace or one that contains it.
    pub namespace: Namespace,
    /// Its days.
    pub days: u32,
}

impl Governing {
    /// Until when something is locked that the lock counts from `start` on.
    pub fn until(&self, start: i64) -> i64 {
        start.saturating_add(i64::from(self.days) * DAY)
    }
}

/// From when on a lock counts the age of a snapshot: from the later of its backup time and the time at which it was written
/// here, because a client can claim any backup time. One that still lies in the future is a mistake and does not count.
pub fn counts_from(backup_time: i64, written: i64, now: i64) -> i64 {
    if backup_time > now {
        written
    } else {
        written.max(backup_time)
    }
}

/// All locks of a datastore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Locks {
    version: u32,
    /// The latest moment that is known to have come, in seconds since 1970.
    pub seen: i64,
    /// A clock that is to be believed, if there is such a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_request: Option<ClockRequest>,
    /// By namespace.
    #[serde(default)]
    pub locks: BTreeMap<Namespace, Lock>,
    /// The last changes, oldest first.
    #[serde(default)]
    pub history: Vec<Change>,
}

impl Locks {
    /// No lock, first looked at now.
    pub fn none(now: i64) -> Self {
        Locks {
            version: VERSION,
            seen: now,
            clock_request: None,
            locks: BTreeMap::new(),
            history: Vec::new(),
        }
    }

    /// Whether this is a form that is understood.
    pub fn is_known_version(&self) -> bool {
        self.version == VERSION
    }

    /// The strictest lock on a namespace or on one that contains it; `None` when there is none.
    pub fn governing(&self, namespace: &Namespace, now: i64) -> Option<Governing> {
        self.strictest(namespace, |lock| lock.days_at(now))
    }

    /// The same when all requests have taken effect: what can be relied on from now on.
    pub fn governing_to_come(&self, namespace: &Namespace) -> Option<Governing> {
        self.strictest(namespace, Lock::days_to_come)
    }

    fn strictest(&self, namespace: &Namespace, days: impl Fn(&Lock) -> u32) -> Option<Governing> {
        let mut strictest: Option<Governing> = None;
        let mut next = Some(namespace.clone());
        while let Some(namespace) = next {
            next = namespace.parent();
            let days = self.locks.get(&namespace).map_or(0, &days);
            if days > strictest.as_ref().map_or(0, |found| found.days) {
                strictest = Some(Governing { namespace, days });
            }
        }
        strictest
    }

    /// Makes what has taken effect by `now` the state.
    pub fn settle(&mut self, now: i64) {
        let mut changes = Vec::new();
        self.locks.retain(|ns, lock| {
            let Some(request) = lock.request.take_if(|request| request.effective_at <= now) else {
                return true;
            };
            let what = match request.days {
                0 => "removed as requested".to_owned(),
                days => format!("shortened from {} to {days} days as requested", lock.days),
            };
            lock.days = lock.days.min(request.days);
            changes.push((request.effective_at, request.made_by, ns.clone(), what));
            lock.days > 0
        });
        for (at, by, ns, what) in changes {
            self.note(at, &by, &ns, what);
        }
    }

    /// Sets a lock, or makes it or its grace window longer. A request to shorten it is withdrawn by this.
    ///
    /// # Errors
    /// It would loosen what holds, or lies outside the bounds.
    pub fn set(
        &mut self,
        namespace: &Namespace,
        days: u32,
        grace_hours: Option<u32>,
        by: &str,
        now: i64,
    ) -> Result<(), Refusal> {
        self.settle(now);
        check_bounds("days", days, MAX_DAYS)?;
        let old = self.locks.get(namespace);
        let kept = old.map_or(DEFAULT_GRACE_HOURS, |lock| lock.grace_hours);
        let grace_hours = grace_hours.unwrap_or(kept);
        check_bounds("grace-hours", grace_hours, MAX_GRACE_HOURS)?;
        if let Some(old) = old {
            if days < old.days {
                return Err(Refusal::Shorter {
                    namespace: namespace.clone(),
                    days,
                    current: old.days,
                });
            }
            if grace_hours < old.grace_hours {
                return Err(Refusal::ShorterGrace {
                    namespace: namespace.clone(),
                    hours: grace_hours,
                    current: old.grace_hours,
                });
            }
        }
        let withdrawn = old.is_some_and(|lock| lock.request.is_some());
        let lock = Lock {
            days,
            grace_hours,
            set_at: now,
            set_by: by.to_owned(),
            request: None,
        };
        self.locks.insert(namespace.clone(), lock);
        let mut what = format!("set to {days} days with a grace window of {grace_hours} hours");
        if withdrawn {
            what.push_str(", which withdraws the request to shorten it");
        }
        self.note(now, by, namespace, what);
        Ok(())
    }

    /// Asks for a lock to be shortened to `days`, or removed with 0. Returns when that takes effect.
    ///
    /// # Errors
    /// There is no lock, or it would not be shorter.
    pub fn request(
        &mut self,
        namespace: &Namespace,
        days: u32,
        by: &str,
        now: i64,
    ) -> Result<i64, Refusal> {
        self.settle(now);
        let lock = self.lock_mut(namespace)?;
        if days >= lock.days {
            return Err(Refusal::NotShorter {
                namespace: namespace.clone(),
                days,
                current: lock.days,
            });
        }
        let effective_at = now.saturating_add(i64::from(lock.grace_hours) * HOUR);
        lock.request = Some(Request {
            days,
            made_at: now,
            made_by: by.to_owned(),
            effective_at,
        });
        let what = match days {
            0 => "removal requested".to_owned(),
            days => format!("shortening to {days} days requested"),
        };
        self.note(now, by, namespace, what);
        Ok(effective_at)
    }

    /// Withdraws a request to shorten a lock.
    ///
    /// # Errors
    /// There is none.
    pub fn cancel(&mut self, namespace: &Namespace, by: &str, now: i64) -> Result<(), Refusal> {
        self.settle(now);
        if self.lock_mut(namespace)?.request.take().is_none() {
            return Err(Refusal::NoRequest(namespace.clone()));
        }
        self.note(now, by, namespace, "request withdrawn".to_owned());
        Ok(())
    }

    /// Asks for a clock to be believed that is `ahead` seconds ahead of the time that is trusted. Returns when that takes
    /// effect: after the longest grace window of all locks.
    ///
    /// # Errors
    /// The clock is not ahead.
    pub fn request_clock(&mut self, ahead: i64, by: &str, now: i64) -> Result<i64, Refusal> {
        self.settle(now);
        if ahead <= 0 {
            return Err(Refusal::ClockTrusted);
        }
        let hours = self.locks.values().map(|lock| lock.grace_hours).max();
        let effective_at = now.saturating_add(i64::from(hours.unwrap_or(0)) * HOUR);
        self.clock_request = Some(ClockRequest {
            ahead,
            made_at: now,
            made_by: by.to_owned(),
            effective_at,
        });
        let what = format!("confirmation requested of a clock that is {ahead} seconds ahead");
        self.note(now, by, &Namespace::root(), what);
        Ok(effective_at)
    }

    /// Withdraws the request to believe the clock.
    ///
    /// # Errors
    /// There is none.
    pub fn cancel_clock(&mut self, by: &str, now: i64) -> Result<(), Refusal> {
        self.settle(now);
        if self.clock_request.take().is_none() {
            return Err(Refusal::NoClockRequest);
        }
        let what = "confirmation of the clock withdrawn".to_owned();
        self.note(now, by, &Namespace::root(), what);
        Ok(())
    }

    fn lock_mut(&mut self, namespace: &Namespace) -> Result<&mut Lock, Refusal> {
        self.locks
            .get_mut(namespace)
            .ok_or_else(|| Refusal::NoLock(namespace.clone()))
    }

    /// Remembers a change.
    pub(super) fn note(&mut self, at: i64, by: &str, ns: &Namespace, what: String) {
        let surplus = (self.history.len() + 1).saturating_sub(HISTORY);
        self.history.drain(..surplus);
        self.history.push(Change {
            at,
            by: by.to_owned(),
            ns: ns.clone(),
            what,
        });
    }
}

fn check_bounds(what: &'static str, value: u32, max: u32) -> Result<(), Refusal> {
    if (1..=max).contains(&value) {
        Ok(())
    } else {
        Err(Refusal::OutOfBounds { what, value, max })
    }
}

#[cfg(test)]
#[path = "locks_tests.rs"]
mod tests;
