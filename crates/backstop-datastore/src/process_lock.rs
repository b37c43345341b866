//! The lock between processes on one chunk store: the `.lock` file of a datastore.
//!
//! Writers share it; garbage collection takes it exclusively against other processes, while writers of its own process may
//! go on, because it knows when the oldest of them began. The kernel ties such locks to the process, and closing *any*
//! descriptor of the file drops them all. So each file is opened once per process, however often its store is opened, and
//! nothing else may ever open it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::{Condvar, Mutex};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

use crate::clock;
use crate::error::{DatastoreError, Result};

/// Name of the file below the datastore.
pub(crate) const LOCK_FILE: &str = ".lock";

/// Device and inode: the same file by whatever path.
type Identity = (u64, u64);

/// The locks of this process. An entry stays until its file is closed: a file opened while the old descriptor is about to be
/// closed would lose its locks. Held for moments only, never while a file system is asked for something.
static OPENED: Mutex<BTreeMap<Identity, Weak<ProcessLock>>> = Mutex::new(BTreeMap::new());
/// Something was opened or closed.
static CHANGED: Condvar = Condvar::new();

/// The lock of one chunk store in this process.
pub(crate) struct ProcessLock {
    path: PathBuf,
    identity: Identity,
    state: Mutex<State>,
}

struct State {
    /// Present until the lock is dropped.
    file: Option<File>,
    next: u64,
    /// Start times of the writers, in seconds since 1970.
    writers: HashMap<u64, i64>,
    exclusive: bool,
}

/// Held while chunks are written or relied upon. Chunks that are inserted or touched while it is held are not removed, even
/// by a garbage collection that outlives it.
pub struct WriterGuard {
    lock: Arc<ProcessLock>,
    id: u64,
}

/// Held during garbage collection.
pub(crate) struct ExclusiveGuard(Arc<ProcessLock>);

impl ProcessLock {
    /// The lock of the datastore at `base`; the file is created if it is missing.
    ///
    /// A file system that hangs holds up nobody but those who wait for this datastore.
    pub(crate) fn open(base: &Path) -> Result<Arc<Self>> {
        let path = base.join(LOCK_FILE);
        loop {
            match std::fs::metadata(&path) {
                Ok(metadata) => match Claim::on(identity(&metadata)) {
                    Claimed::Open(lock) => return Ok(lock),
                    Claimed::Mine(claim) => {
                        let file = open_file(&path)?;
                        let found = file
                            .metadata()
                            .map_err(DatastoreError::io("look at lock file", &path))?;
                        if identity(&found) == claim.0 {
                            return Ok(claim.fulfil(path, file));
                        }
                        // Replaced just now. It may be open elsewhere, so it must not be closed.
                        std::mem::forget(file);
                    }
                },
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    if let Some((file, identity)) = create_file(&path)? {
                        match Claim::on(identity) {
                            Claimed::Mine(claim) => return Ok(claim.fulfil(path, file)),
                            // Somebody was faster; closing it would drop the locks.
                            Claimed::Open(lock) => {
                                std::mem::forget(file);
                                return Ok(lock);
                            }
                        }
                    }
                }
                Err(error) => return Err(DatastoreError::io("look at lock file", &path)(error)),
            }
        }
    }

    /// Counts as a writer until the guard is dropped.
    pub(crate) fn share(self: &Arc<Self>) -> Result<WriterGuard> {
        let mut state = self.state.lock();
        if state.writers.is_empty() && !state.exclusive {
            self.set(
                &mut state,
                FlockOperation::NonBlockingLockShared,
                "another process collects garbage on this datastore",
            )?;
        }
        let id = state.next;
        state.next += 1;
        state.writers.insert(id, clock::now());
        Ok(WriterGuard {
            lock: Arc::clone(self),
            id,
        })
    }

    /// Keeps all other processes out.
    pub(crate) fn exclude_others(self: &Arc<Self>) -> Result<ExclusiveGuard> {
        let mut state = self.state.lock();
        if state.exclusive {
            return Err(DatastoreError::GarbageCollectionRunning);
        }
        self.set(
            &mut state,
            FlockOperation::NonBlockingLockExclusive,
            "another process writes to this datastore or collects its garbage",
        )?;
        state.exclusive = true;
        Ok(ExclusiveGuard(Arc::clone(self)))
    }

    /// When the oldest writer of this process began, in seconds since 1970.
    pub(crate) fn oldest_writer(&self) -> Option<i64> {
        self.state.lock().writers.values().min().copied()
    }

    /// Makes the writers look older than they are.
    #[cfg(test)]
    pub(crate) fn backdate_writers(&self, seconds: i64) {
        self.state
            .lock()
            .writers
            .values_mut()
            .for_each(|start| *start -= seconds);
    }

    fn set(
        &self,
        state: &mut State,
        operation: FlockOperation,
        reason: &'static str,
    ) -> Result<()> {
        match lock_file(state, operation) {
            // The network file system came back: the descriptor is dead, and so are its locks.
            Err(Errno::STALE) => {
                state.file = Some(open_file(&self.path)?);
                self.set_once(state, operation, reason)
            }
            outcome => self.checked(outcome, reason),
        }
    }

    fn set_once(
        &self,
        state: &State,
        operation: FlockOperation,
        reason: &'static str,
    ) -> Result<()> {
        self.checked(lock_file(state, operation), reason)
    }

    fn checked(&self, outcome: std::result::Result<(), Errno>, reason: &'static str) -> Result<()> {
        match outcome {
            Ok(()) => Ok(()),
            Err(Errno::ACCESS | Errno::AGAIN) => Err(DatastoreError::Locked {
                what: format!("unable to get the process lock {:?}", self.path),
                reason,
            }),
            Err(error) => Err(DatastoreError::sys("lock", &self.path)(error)),
        }
    }

    /// The lock that fits what is still held. Errors leave a stronger lock than needed, which ends with the process.
    fn relax(&self, state: &State) {
        let operation = match (state.exclusive, state.writers.is_empty()) {
            (true, _) => return,
            (false, true) => FlockOperation::NonBlockingUnlock,
            (false, false) => FlockOperation::NonBlockingLockShared,
        };
        if let Err(error) = lock_file(state, operation) {
            tracing::warn!(path = ?self.path, %error, "unable to release the process lock");
        }
    }
}

impl Drop for ProcessLock {
    fn drop(&mut self) {
        // May take its time on a file system that hangs. Meanwhile nobody else opens the file.
        self.state.get_mut().file = None;
        withdraw(&self.identity);
    }
}

/// The right to open the lock file of an identity; nobody else does meanwhile.
struct Claim(Identity);

enum Claimed {
    Open(Arc<ProcessLock>),
    Mine(Claim),
}

impl Claim {
    /// Waits while somebody else opens or closes the file.
    fn on(identity: Identity) -> Claimed {
        let mut opened = OPENED.lock();
        while let Some(entry) = opened.get(&identity) {
            match entry.upgrade() {
                Some(lock) => return Claimed::Open(lock),
                None => CHANGED.wait(&mut opened),
            }
        }
        opened.insert(identity, Weak::new());
        Claimed::Mine(Self(identity))
    }

    fn fulfil(self, path: PathBuf, file: File) -> Arc<ProcessLock> {
        let state = State {
            file: Some(file),
            next: 0,
            writers: HashMap::new(),
            exclusive: false,
        };
        let lock = Arc::new(ProcessLock {
            path,
            identity: self.0,
            state: Mutex::new(state),
        });
        OPENED.lock().insert(self.0, Arc::downgrade(&lock));
        CHANGED.notify_all();
        std::mem::forget(self);
        lock
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        withdraw(&self.0);
    }
}

fn withdraw(identity: &Identity) {
    OPENED.lock().remove(identity);
    CHANGED.notify_all();
}

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// Creates the file; `None`: somebody else just did.
fn create_file(path: &Path) -> Result<Option<(File, Identity)>> {
    let created = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path);
    let file = match created {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(None),
        other => other.map_err(DatastoreError::io("create lock file", path))?,
    };
    crate::ownership::inherit(&file, path).map_err(DatastoreError::io("set the owner of", path))?;
    let metadata = file
        .metadata()
        .map_err(DatastoreError::io("look at lock file", path))?;
    Ok(Some((file, identity(&metadata))))
}

fn open_file(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644);
    match options.open(path) {
        // Reading from a datastore that cannot be written to is possible.
        Err(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem => File::open(path),
        other => other,
    }
    .map_err(DatastoreError::io("open lock file", path))
}

fn lock_file(state: &State, operation: FlockOperation) -> std::result::Result<(), Errno> {
    match &state.file {
        Some(file) => fcntl_lock(file, operation),
        None => Err(Errno::BADF),
    }
}

impl Drop for WriterGuard {
    fn drop(&mut self) {
        let mut state = self.lock.state.lock();
        state.writers.remove(&self.id);
        if state.writers.is_empty() {
            self.lock.relax(&state);
        }
    }
}

impl Drop for ExclusiveGuard {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.exclusive = false;
        self.0.relax(&state);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// Whether another process would get the lock: descriptions of their own conflict with process locks.
    fn is_free_for_others(dir: &Path, exclusive: bool) -> bool {
        let script = format!(
            "import fcntl,sys\nf=open({:?},'r+')\ntry: fcntl.lockf(f, fcntl.{} | fcntl.LOCK_NB)\nexcept OSError: sys.exit(1)",
            dir.join(LOCK_FILE),
            if exclusive { "LOCK_EX" } else { "LOCK_SH" },
        );
        std::process::Command::new("python3")
            .args(["-c", &script])
            .status()
            .unwrap()
            .success()
    }

    #[test]
    fn one_lock_per_store_and_process() {
        let dir = tempfile::tempdir().unwrap();
        let first = ProcessLock::open(dir.path()).unwrap();
        let second =
            ProcessLock::open(&dir.path().join("../").join(dir.path().file_name().unwrap()))
                .unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        let writer = second.share().unwrap();
        drop((first, second));
        assert!(writer.lock.oldest_writer().is_some());
        drop(writer);
        assert!(OPENED.lock().values().all(|entry| entry.strong_count() > 0));
        ProcessLock::open(dir.path()).unwrap();
    }

    #[test]
    fn writers_and_garbage_collection_of_one_process_coexist_and_others_stay_out() {
        let dir = tempfile::tempdir().unwrap();
        let lock = ProcessLock::open(dir.path()).unwrap();
        assert!(is_free_for_others(dir.path(), true));
        let writer = lock.share().unwrap();
        assert!(!is_free_for_others(dir.path(), true));
        assert!(is_free_for_others(dir.path(), false));
        let exclusive = lock.exclude_others().unwrap();
        assert!(matches!(
            lock.exclude_others(),
            Err(DatastoreError::GarbageCollectionRunning)
        ));
        assert!(!is_free_for_others(dir.path(), false));
        let late = lock.share().unwrap();
        drop(writer);
        drop(exclusive);
        assert!(is_free_for_others(dir.path(), false));
        assert!(!is_free_for_others(dir.path(), true));
        drop(late);
        assert!(is_free_for_others(dir.path(), true));
        assert_eq!(lock.oldest_writer(), None);
    }
}
