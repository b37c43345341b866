//! A datastore: its directory, its settings and the doors to everything in it.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use backstop_types::record::GcStatus;
use backstop_types::{BackupGroup, DatastoreName, Namespace, SyncLevel, Tuning};
use parking_lot::{Mutex, RwLock};

use crate::access_time;
use crate::chunk_store::{CHUNKS, ChunkStore, DIR_MODE, PREFIXES};
use crate::error::{DatastoreError, Result};
use crate::gc_status;
use crate::lock_file::LockFiles;
use crate::process_lock::{LOCK_FILE, ProcessLock, WriterGuard};
use crate::retention_lock::{Clock, LockState, SystemClock};
use crate::summary::Summaries;

const BASE_MODE: u32 = 0o755;

/// How a datastore is created.
#[derive(Clone, Copy, Debug, Default)]
pub struct CreateOptions {
    /// Take over a directory that holds a datastore already.
    pub reuse: bool,
    /// Skip the check that the file system keeps access times.
    pub skip_access_time_check: bool,
}

/// Space of the file system that holds a datastore, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Size of the file system.
    pub total: u64,
    /// What is in use.
    pub used: u64,
    /// What an ordinary user may still fill.
    pub available: u64,
}

/// An opened datastore. Share it between threads; all operations block.
pub struct Datastore {
    name: DatastoreName,
    path: PathBuf,
    pub(crate) locks: LockFiles,
    tuning: RwLock<Tuning>,
    chunks: ChunkStore,
    pub(crate) process_lock: Arc<ProcessLock>,
    /// The result of the last garbage collection.
    pub(crate) gc_status: RwLock<GcStatus>,
    /// Held by the running garbage collection.
    pub(crate) gc_running: Mutex<()>,
    pub(crate) summaries: Summaries,
    pub(crate) lock_state: LockState,
    /// Who is told of groups before they are removed.
    witness: OnceLock<Witness>,
}

/// See [`Datastore::tell_of_removals`].
type Witness = Box<dyn Fn(&Namespace, &BackupGroup) + Send + Sync>;

impl Datastore {
    /// Makes a directory a datastore: an empty one (hidden entries and `lost+found` do not count), or with
    /// [`CreateOptions::reuse`] one that is a datastore already. `progress` gets the percentage done.
    ///
    /// # Errors
    /// [`DatastoreError::NotCreatable`], [`DatastoreError::AccessTimes`], or the disk fails.
    pub fn create(
        path: &Path,
        options: &CreateOptions,
        progress: &mut dyn FnMut(u32),
    ) -> Result<()> {
        let refuse = |reason: String| DatastoreError::NotCreatable {
            path: path.to_owned(),
            reason,
        };
        if !path.is_absolute() {
            return Err(refuse(format!(
                "expected an absolute path, '{}' is not",
                path.display()
            )));
        }
        if path.parent().is_none() {
            return Err(refuse("cannot create datastore in root path".into()));
        }
        if options.reuse {
            check_reusable(path)?;
        } else {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(BASE_MODE)
                .create(path)
                .map_err(DatastoreError::io("create directory", path))?;
            check_empty(path)?;
            ChunkStore::create(path, progress)?;
            // Created through its registry: opening it otherwise could drop the locks of a store that lies here already.
            ProcessLock::open(path)?;
        }
        if !options.skip_access_time_check {
            access_time::check(&ChunkStore::open(path, SyncLevel::None)?)?;
        }
        Ok(())
    }

    /// Opens the datastore at `path`. Lock files lie in `locks_dir`, in a directory with the datastore's name.
    ///
    /// # Errors
    /// [`DatastoreError::NoChunkStore`] when there is none, for instance because its file system is not mounted.
    pub fn open(
        name: &DatastoreName,
        path: &Path,
        locks_dir: &Path,
        tuning: Tuning,
    ) -> Result<Arc<Self>> {
        let clock = Arc::new(SystemClock::begin());
        Self::open_with_clock(name, path, locks_dir, tuning, clock)
    }

    /// As [`open`](Self::open), with the clock that the retention lock goes by.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_clock(
        name: &DatastoreName,
        path: &Path,
        locks_dir: &Path,
        tuning: Tuning,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>> {
        let chunks = ChunkStore::open(path, tuning.sync_level)?;
        let process_lock = ProcessLock::open(path)?;
        Ok(Arc::new(Datastore {
            name: name.clone(),
            path: path.to_owned(),
            locks: LockFiles(locks_dir.join(name.as_str())),
            tuning: RwLock::new(tuning),
            chunks,
            process_lock,
            gc_status: RwLock::new(gc_status::load(path)),
            gc_running: Mutex::new(()),
            summaries: Summaries::default(),
            lock_state: LockState::new(clock),
            witness: OnceLock::new(),
        }))
    }

    /// From now on, `witness` is called for each group that is about to be removed or moved away, before anything of it is gone from
    /// where it was. Only the first one that is given is asked.
    pub fn tell_of_removals(
        &self,
        witness: impl Fn(&Namespace, &BackupGroup) + Send + Sync + 'static,
    ) {
        // It is told already.
        let _ = self.witness.set(Box::new(witness));
    }

    pub(crate) fn announce_removal(&self, namespace: &Namespace, group: &BackupGroup) {
        if let Some(witness) = self.witness.get() {
            witness(namespace, group);
        }
    }

    /// Its name.
    pub fn name(&self) -> &DatastoreName {
        &self.name
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its settings.
    pub fn tuning(&self) -> Tuning {
        self.tuning.read().clone()
    }

    /// Changes its settings. Data that was written under the level "filesystem" is synchronised first when the level changes.
    ///
    /// # Errors
    /// The disk fails; the settings are then unchanged.
    pub fn set_tuning(&self, tuning: Tuning) -> Result<()> {
        let old = self.tuning().sync_level;
        if old == SyncLevel::Filesystem && tuning.sync_level != old {
            self.sync_filesystem()?;
        }
        self.chunks.set_sync_level(tuning.sync_level);
        *self.tuning.write() = tuning;
        Ok(())
    }

    /// Its chunks.
    pub fn chunks(&self) -> &ChunkStore {
        &self.chunks
    }

    /// Fails when the datastore's directory has gone away, for instance because its file system was lost.
    ///
    /// # Errors
    /// [`DatastoreError::NoChunkStore`].
    pub fn check_present(&self) -> Result<()> {
        self.chunks.check_present()
    }

    /// Counts as a writer until the guard is dropped: chunks inserted or touched meanwhile survive garbage collection.
    ///
    /// # Errors
    /// [`DatastoreError::Locked`] when another process collects garbage here.
    pub fn hold_writer(&self) -> Result<WriterGuard> {
        self.process_lock.share()
    }

    /// Closes handles that are kept to be economical with memory, for instance before the file system is unmounted.
    pub fn release_handles(&self) {
        self.chunks.release();
    }

    /// Space of the file system.
    ///
    /// # Errors
    /// The disk fails.
    pub fn usage(&self) -> Result<Usage> {
        let space = rustix::fs::statvfs(&self.path)
            .map_err(DatastoreError::sys("get the space of", &self.path))?;
        let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
        Ok(Usage {
            total: bytes(space.f_blocks),
            used: bytes(space.f_blocks.saturating_sub(space.f_bfree)),
            available: bytes(space.f_bavail),
        })
    }

    /// Brings everything that was written to the file system onto the disk.
    pub(crate) fn sync_filesystem(&self) -> Result<()> {
        let dir =
            std::fs::File::open(&self.path).map_err(DatastoreError::io("open", &self.path))?;
        rustix::fs::syncfs(&dir).map_err(DatastoreError::sys(
            "synchronise the file system of",
            &self.path,
        ))
    }
}

/// Whether nothing is there that a new datastore could damage.
fn check_empty(path: &Path) -> Result<()> {
    let refuse = |reason: &str| DatastoreError::NotCreatable {
        path: path.to_owned(),
        reason: reason.into(),
    };
    if path.join(CHUNKS).symlink_metadata().is_ok() {
        return Err(refuse(
            "a chunk store exists already; reuse the datastore, or choose another directory",
        ));
    }
    for entry in std::fs::read_dir(path).map_err(DatastoreError::io("list", path))? {
        let name = entry.map_err(DatastoreError::io("list", path))?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") && name != "lost+found" {
            return Err(refuse("datastore path not empty"));
        }
    }
    Ok(())
}

/// Whether a datastore is there, with the modes that it must have and all of one owner: this process's user, or whoever
/// owns the directory if this process is root.
fn check_reusable(path: &Path) -> Result<()> {
    let look = |path: &Path| {
        let refuse = |reason: &str| DatastoreError::NotCreatable {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        std::fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => refuse(
                "it does not exist, so there is no datastore to reuse; check the path, or create one without reusing",
            ),
            _ => DatastoreError::io("look at", path)(error),
        })
    };
    let base = look(path)?;
    let user = rustix::process::geteuid().as_raw();
    let owner = if user == 0 { base.uid() } else { user };
    let check = |path: &Path, mode: u32| {
        let refuse = |reason: String| DatastoreError::NotCreatable {
            path: path.to_owned(),
            reason,
        };
        let metadata = look(path)?;
        let found = metadata.permissions().mode() & 0o777;
        if found != mode {
            return Err(refuse(format!(
                "its mode is {found:03o}, expected {mode:03o}; change it with chmod"
            )));
        }
        if (metadata.uid(), metadata.gid()) != (owner, base.gid()) {
            return Err(refuse(format!(
                "it belongs to user {} and group {}, expected {owner} and {}; change it with chown",
                metadata.uid(),
                metadata.gid(),
                base.gid()
            )));
        }
        Ok(())
    };
    check(path, BASE_MODE)?;
    let chunks = path.join(CHUNKS);
    check(&chunks, DIR_MODE)?;
    for prefix in 0..PREFIXES {
        check(&chunks.join(format!("{prefix:04x}")), DIR_MODE)?;
    }
    check(&path.join(LOCK_FILE), 0o644)
}

#[cfg(test)]
mod tests;
