//! Datastores for tests: empty ones, and copies of those that stock servers wrote.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstop_format::blob::DataBlob;
use backstop_format::index::DynamicIndexBuilder;
use backstop_format::manifest::{FileEntry, Manifest};
use backstop_format::{CryptMode, Digest};
use backstop_types::{AuthId, Namespace, Snapshot, SyncLevel, Tuning};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use crate::datastore::Datastore;
use crate::task_log::TaskLog;

pub(crate) struct TestStore {
    pub(crate) dir: TestDir,
    pub(crate) store: Arc<Datastore>,
}

/// The directory of a datastore and its locks.
pub(crate) struct TestDir {
    path: PathBuf,
    /// Removed with this, unless it is somebody else's.
    #[expect(dead_code, reason = "held for its end")]
    own: Option<tempfile::TempDir>,
}

impl TestDir {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// A directory in memory where there is such a file system: removing 65 536 directories takes a busy disk minutes.
pub(crate) fn scratch_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// No waiting for the disk of the machine that runs the tests.
pub(crate) fn tuning() -> Tuning {
    Tuning {
        gc_atime_safety_check: false,
        sync_level: SyncLevel::None,
        ..Tuning::default()
    }
}

impl TestStore {
    /// An empty datastore whose chunk directories appear when they are needed.
    pub(crate) fn empty() -> Self {
        let dir = scratch_dir();
        std::fs::create_dir_all(dir.path().join("store/.chunks")).unwrap();
        Self::open(dir)
    }

    /// A copy of the datastore that a stock server of this release wrote.
    pub(crate) fn stock(release: &str) -> Self {
        let dir = scratch_dir();
        let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures"));
        copy(
            &source.join(release).join("datastore/store1"),
            &dir.path().join("store"),
        );
        Self::open(dir)
    }

    fn open(dir: tempfile::TempDir) -> Self {
        Self::open_in(TestDir {
            path: dir.path().to_owned(),
            own: Some(dir),
        })
    }

    /// The datastore in the directory of an earlier one.
    pub(crate) fn reopen(dir: &Path) -> Self {
        Self::open_in(TestDir {
            path: dir.to_owned(),
            own: None,
        })
    }

    fn open_in(dir: TestDir) -> Self {
        let name = "store1".parse().unwrap();
        let store = Datastore::open(
            &name,
            &dir.path().join("store"),
            &dir.path().join("locks"),
            tuning(),
        )
        .unwrap();
        TestStore { dir, store }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn insert(&self, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        self.store
            .chunks()
            .insert(&digest, &DataBlob::encode(content, None, true).unwrap())
            .unwrap();
        digest
    }

    /// A finished snapshot with one archive of these contents.
    pub(crate) fn backup(&self, snapshot: &str, contents: &[&[u8]]) -> Snapshot {
        self.backup_in(&Namespace::root(), snapshot, contents)
    }

    pub(crate) fn backup_in(
        &self,
        namespace: &Namespace,
        snapshot: &str,
        contents: &[&[u8]],
    ) -> Snapshot {
        let snapshot: Snapshot = snapshot.parse().unwrap();
        let (_, _group) = self
            .store
            .create_group_locked(namespace, &snapshot.group, &AuthId::root())
            .unwrap();
        let writer = self.store.create_snapshot(namespace, &snapshot).unwrap();
        let mut index = DynamicIndexBuilder::new();
        for content in contents {
            index
                .append(content.len() as u64, &self.insert(content))
                .unwrap();
        }
        let (raw, csum, size) = index.finish().unwrap();
        writer
            .store_index(&"root.pxar.didx".parse().unwrap(), &raw)
            .unwrap();
        writer.finish(&manifest(&snapshot, csum, size)).unwrap();
        snapshot
    }

    pub(crate) fn has(&self, content: &[u8]) -> bool {
        self.store.chunks().contains(&Digest::of(content)).unwrap()
    }
}

pub(crate) fn manifest(snapshot: &Snapshot, csum: Digest, size: u64) -> Manifest {
    let mut manifest = Manifest::new(
        snapshot.group.ty.as_str(),
        snapshot.group.id.as_str(),
        snapshot.time.epoch(),
    );
    let filename = "root.pxar.didx".to_owned();
    manifest
        .add_file(FileEntry {
            filename,
            crypt_mode: CryptMode::None,
            size,
            csum,
        })
        .unwrap();
    manifest
}

/// Makes a file look unused since long ago.
pub(crate) fn age(path: &Path) {
    set_times(path, 1_000_000_000);
}

pub(crate) fn set_times(path: &Path, seconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
}

/// Makes all chunk files look unused since long ago.
pub(crate) fn age_all_chunks(store: &Path) {
    for dir in std::fs::read_dir(store.join(".chunks")).unwrap() {
        for file in std::fs::read_dir(dir.unwrap().path()).unwrap() {
            age(&file.unwrap().path());
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Keeps the lines of a task.
#[derive(Default)]
pub(crate) struct Lines {
    pub(crate) info: Mutex<Vec<String>>,
    pub(crate) warnings: Mutex<Vec<String>>,
    /// Stop after so many lines.
    pub(crate) stop_after: Option<usize>,
}

impl TaskLog for Lines {
    fn info(&self, line: &str) {
        self.info.lock().push(line.to_owned());
    }
    fn warn(&self, line: &str) {
        self.warnings.lock().push(line.to_owned());
    }
    fn is_aborted(&self) -> bool {
        self.stop_after
            .is_some_and(|limit| self.info.lock().len() >= limit)
    }
}
