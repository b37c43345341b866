//! The retention lock: what is younger than so many days cannot be removed through Backstop, by nobody.
//!
//! The locks of a datastore lie in a file of their own in the datastore, so that they go where the backups go; see
//! `docs/formats/retention-lock.md`. What would remove a snapshot, or move it out of the reach of its lock, needs a permit
//! (see [`permit`]), which only this module hands out. A file that cannot be understood opens nothing.
//!
//! It must never decide by roles: whoever asks is only noted.

mod locks;
pub(crate) mod permit;
mod refusal;
mod trusted_time;

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backstop_types::{ArchiveName, Namespace, Snapshot};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::atomic_file;
use crate::datastore::Datastore;
use crate::dir_listing;
use crate::error::{DatastoreError, Result};
use crate::lock_file::{FileLock, LockMode};
use crate::snapshot::{has_known_extension, read_bounded};
use trusted_time::Anchor;

pub use locks::{
    Change, ClockRequest, DEFAULT_GRACE_HOURS, Governing, Lock, Locks, MAX_DAYS, MAX_GRACE_HOURS,
    Request,
};
pub use refusal::{Attempt, RetentionLockRefusal, RetentionLocked, moment, place};
pub use trusted_time::{Clock, SystemClock, TrustedTime};

/// Name of the file below the datastore. Stock servers ignore hidden files there.
pub const FILE: &str = ".backstop-retention-lock.json";
/// Name of the lock file, which no group has.
const LOCK_FILE: &str = ".retention-lock.lck";
/// How long a change waits for removals under way, and the reverse.
const WAIT: Duration = Duration::from_secs(10);
/// Largest file that is read, in bytes.
const MAX_SIZE: u64 = 16 << 20;
/// How much newer the time must be before it is remembered, in seconds.
const NOTE_AFTER: i64 = 60;

/// What an open datastore needs for its locks.
pub(crate) struct LockState {
    clock: Arc<dyn Clock>,
    anchor: Mutex<Option<Anchor>>,
    /// Shared by removals, and held alone by changes, within this process; the lock file does the same between processes.
    gate: RwLock<()>,
}

impl LockState {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            anchor: Mutex::default(),
            gate: RwLock::default(),
        }
    }
}

/// While this is held, no lock changes.
struct Hold<'a> {
    _gate: RwLockReadGuard<'a, ()>,
    _file: FileLock,
}

/// The retention lock of a datastore.
#[derive(Clone, Copy)]
pub struct RetentionLock<'a> {
    datastore: &'a Datastore,
}

/// The locks of a datastore with the time that they go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionLockStatus {
    /// The locks, as they are at that time.
    pub locks: Locks,
    /// The time.
    pub time: TrustedTime,
}

impl Datastore {
    /// Whether a lock was ever set in the datastore at `path`; does not open it.
    pub fn has_retention_lock(path: &Path) -> bool {
        // Anything but a clear "no" may be one.
        !matches!(path.join(FILE).symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Its retention lock.
    pub fn retention_lock(&self) -> RetentionLock<'_> {
        RetentionLock { datastore: self }
    }
}

impl<'a> RetentionLock<'a> {
    /// All locks; `None` when none was ever set here.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub fn status(self) -> Result<Option<RetentionLockStatus>> {
        let Some(mut locks) = self.read()? else {
            return Ok(None);
        };
        let time = self.settle(&mut locks);
        Ok(Some(RetentionLockStatus { locks, time }))
    }

    /// Sets a lock on a namespace and all below it, or makes it longer; see [`Locks::set`].
    ///
    /// # Errors
    /// [`RetentionLockRefusal`], the namespace does not exist, or the disk fails.
    pub fn set(
        self,
        namespace: &Namespace,
        days: u32,
        grace_hours: Option<u32>,
        by: &str,
    ) -> Result<()> {
        self.datastore.require_namespace(namespace)?;
        self.change(|locks, time| locks.set(namespace, days, grace_hours, by, time.now))
    }

    /// Asks for a lock to be shortened, or removed with 0 days; see [`Locks::request`].
    ///
    /// # Errors
    /// [`RetentionLockRefusal`], or the disk fails.
    pub fn request(self, namespace: &Namespace, days: u32, by: &str) -> Result<i64> {
        self.change(|locks, time| locks.request(namespace, days, by, time.now))
    }

    /// Withdraws such a request.
    ///
    /// # Errors
    /// [`RetentionLockRefusal`], or the disk fails.
    pub fn cancel(self, namespace: &Namespace, by: &str) -> Result<()> {
        self.change(|locks, time| locks.cancel(namespace, by, time.now))
    }

    /// Asks for the clock to be believed although it has jumped; see [`Locks::request_clock`].
    ///
    /// # Errors
    /// [`RetentionLockRefusal`], or the disk fails.
    pub fn confirm_clock(self, by: &str) -> Result<i64> {
        self.change(|locks, time| locks.request_clock(time.ahead, by, time.now))
    }

    /// Withdraws that.
    ///
    /// # Errors
    /// [`RetentionLockRefusal`], or the disk fails.
    pub fn cancel_clock(self, by: &str) -> Result<()> {
        self.change(|locks, time| locks.cancel_clock(by, time.now))
    }

    /// Remembers that the present has come. To be called every hour or so while the datastore is in use.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn note_time(self) -> Result<()> {
        let Some(before) = self.read()? else {
            return Ok(());
        };
        let mut after = before.clone();
        let time = self.settle(&mut after);
        if after == before && time.seen.saturating_sub(before.seen) < NOTE_AFTER {
            return Ok(());
        }
        self.change(|_, _| Ok(()))
    }

    /// The lock that decides in a namespace; `None` when there is none.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub fn in_namespace(self, namespace: &Namespace) -> Result<Option<NamespaceLock<'a>>> {
        let Some(RetentionLockStatus { locks, time }) = self.status()? else {
            return Ok(None);
        };
        let governing = locks.governing(namespace, time.now);
        Ok(governing.map(|governing| NamespaceLock {
            datastore: self.datastore,
            namespace: namespace.clone(),
            governing,
            time,
        }))
    }

    /// Some locked snapshot of the datastore, if there is one.
    ///
    /// # Errors
    /// The disk fails.
    pub fn any_locked(self) -> Result<Option<RetentionLocked>> {
        if self.status()?.is_none() {
            return Ok(None);
        }
        for namespace in self.datastore.namespaces(&Namespace::root(), None)? {
            if let Some(locked) = self.any_locked_in(&namespace)? {
                return Ok(Some(locked));
            }
        }
        Ok(None)
    }

    /// Some locked snapshot of a namespace, without those below, if there is one.
    pub(crate) fn any_locked_in(self, namespace: &Namespace) -> Result<Option<RetentionLocked>> {
        let Some(lock) = self.in_namespace(namespace)? else {
            return Ok(None);
        };
        for group in self.datastore.groups(namespace)? {
            for time in self.datastore.snapshot_times(namespace, &group)? {
                if let Some(locked) = lock.locked(&group.snapshot(time))? {
                    return Ok(Some(locked));
                }
            }
        }
        Ok(None)
    }

    fn path(self) -> PathBuf {
        self.datastore.path().join(FILE)
    }

    fn read(self) -> Result<Option<Locks>> {
        let path = self.path();
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(DatastoreError::io("open", &path))?,
        };
        let text = read_bounded(file, &path, MAX_SIZE)?;
        let invalid = |reason: String| DatastoreError::Invalid {
            path: path.clone(),
            reason: format!(
                "{reason}; no snapshot of this datastore can be removed until the file is repaired"
            ),
        };
        let locks: Locks =
            serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
        if !locks.is_known_version() {
            return Err(invalid("it was written by a newer version".into()));
        }
        Ok(Some(locks))
    }

    fn write(self, locks: &Locks) -> Result<()> {
        let path = self.path();
        let mut text =
            serde_json::to_vec_pretty(locks).map_err(|error| DatastoreError::Invalid {
                path: path.clone(),
                reason: error.to_string(),
            })?;
        text.push(b'\n');
        atomic_file::replace(&path, &text, true)
    }

    /// Brings what was read to the present.
    fn settle(self, locks: &mut Locks) -> TrustedTime {
        let state = &self.datastore.lock_state;
        let mut anchor = state.anchor.lock();
        let mut time = TrustedTime::tell(&*state.clock, &mut anchor, locks.seen);
        let confirmed = locks
            .clock_request
            .take_if(|request| request.effective_at <= time.now);
        if let Some(request) = confirmed {
            let seen = time.seen.saturating_add(request.ahead.max(0));
            locks.seen = seen.min(state.clock.wall()).max(locks.seen);
            let what = format!("clock confirmed, {} seconds ahead", request.ahead);
            locks.note(
                request.effective_at,
                &request.made_by,
                &Namespace::root(),
                what,
            );
            time = TrustedTime::tell(&*state.clock, &mut anchor, locks.seen);
        }
        locks.settle(time.now);
        time
    }

    fn change<T>(
        self,
        change: impl FnOnce(&mut Locks, TrustedTime) -> std::result::Result<T, RetentionLockRefusal>,
    ) -> Result<T> {
        self.datastore.check_present()?;
        let state = &self.datastore.lock_state;
        let gate = state.gate.try_write_for(WAIT);
        let _gate = gate.ok_or_else(|| busy("unable to change the retention lock"))?;
        let _file = self.take(LockMode::Exclusive)?;
        let (mut locks, time) = match self.read()? {
            Some(mut locks) => {
                let time = self.settle(&mut locks);
                (locks, time)
            }
            None => {
                let time = TrustedTime::first(&*state.clock);
                (Locks::none(time.seen), time)
            }
        };
        let done = change(&mut locks, time)?;
        locks.seen = locks.seen.max(time.seen);
        self.write(&locks)?;
        Ok(done)
    }

    /// Keeps all locks as they are.
    fn hold(self) -> Result<Hold<'a>> {
        let state = &self.datastore.lock_state;
        let gate = state.gate.try_read_for(WAIT);
        Ok(Hold {
            _gate: gate.ok_or_else(|| busy("unable to look at the retention lock"))?,
            _file: self.take(LockMode::Shared)?,
        })
    }

    fn take(self, mode: LockMode) -> Result<FileLock> {
        FileLock::take(
            self.datastore.locks.0.join(LOCK_FILE),
            mode,
            WAIT,
            "unable to acquire lock of the retention lock",
        )
    }
}

fn busy(what: &str) -> DatastoreError {
    DatastoreError::Locked {
        what: what.to_owned(),
        reason: "it is in use by another task",
    }
}

/// The lock that decides in a namespace, at one moment.
pub struct NamespaceLock<'a> {
    datastore: &'a Datastore,
    namespace: Namespace,
    governing: Governing,
    time: TrustedTime,
}

impl NamespaceLock<'_> {
    /// Which one it is.
    pub fn governing(&self) -> &Governing {
        &self.governing
    }

    /// Whether a snapshot is locked, and until when. One whose backup was not finished is not.
    ///
    /// # Errors
    /// The disk fails.
    pub fn locked(&self, snapshot: &Snapshot) -> Result<Option<RetentionLocked>> {
        let Some(start) = self.counts_from(snapshot)? else {
            return Ok(None);
        };
        let until = self.governing.until(start);
        if until <= self.time.now {
            return Ok(None);
        }
        let opened_by_clock = until <= self.time.now.saturating_add(self.time.ahead);
        Ok(Some(RetentionLocked {
            snapshot: snapshot.clone(),
            namespace: self.namespace.clone(),
            until,
            lock: self.governing.namespace.clone(),
            days: self.governing.days,
            attempt: Attempt::Removal,
            clock_ahead: (self.time.ahead > 0 && opened_by_clock).then_some(self.time.ahead),
        }))
    }

    fn counts_from(&self, snapshot: &Snapshot) -> Result<Option<i64>> {
        let written = self.datastore.written(&self.namespace, snapshot)?;
        Ok(
            written
                .map(|written| locks::counts_from(snapshot.time.epoch(), written, self.time.now)),
        )
    }
}

impl Datastore {
    /// When the data of a finished snapshot was written here, in seconds since 1970: the newest of its archives. The manifest
    /// changes later with notes and verifications. `None`: not finished, or not there.
    fn written(&self, namespace: &Namespace, snapshot: &Snapshot) -> Result<Option<i64>> {
        let (mut manifest, mut newest) = (None, None);
        let seconds = |metadata: &Metadata| Some(metadata.mtime());
        dir_listing::entries(&self.snapshot_path(namespace, snapshot), |entry| {
            let name = entry.file_name();
            match name.to_str() {
                Some(ArchiveName::MANIFEST) => manifest = seconds(&entry.metadata()?),
                Some(ArchiveName::CLIENT_LOG) => {}
                Some(name) if has_known_extension(name) => {
                    newest = newest.max(seconds(&entry.metadata()?));
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(manifest.map(|manifest| newest.unwrap_or(manifest)))
    }
}

#[cfg(test)]
mod tests;
