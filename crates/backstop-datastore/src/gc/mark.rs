//! The first phase: which chunks do indexes name?

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use backstop_format::Digest;
use backstop_format::index::ChunkIndex;
use backstop_types::{ArchiveKind, BackupGroup, BackupTime, Namespace};

use crate::datastore::Datastore;
use crate::error::{DatastoreError, Result};
use crate::move_journal;
use crate::snapshot::{digests, parse_index, read_bounded};
use crate::task_log::TaskLog;

/// How often a group is read again because its snapshots change, before its lock is tried.
const PATIENT_ATTEMPTS: usize = 10;
/// How often it is read again before a lock that is held by others stops the run.
const ATTEMPTS: usize = 100;
/// Largest index file, in bytes.
const MAX_INDEX_SIZE: u64 = 40 * (64 << 20) + 4096;

/// What the indexes name.
#[derive(Default)]
pub(super) struct Marked {
    pub(super) digests: HashSet<Digest>,
    pub(super) index_file_count: u64,
    pub(super) index_data_bytes: u64,
    /// References to chunks that were marked already.
    pub(super) repeated: u64,
}

pub(super) fn mark(datastore: &Datastore, log: &dyn TaskLog) -> Result<Marked> {
    let mut expected = BTreeSet::new();
    walk(datastore.path(), true, &mut expected)?;
    let mut marker = Marker {
        datastore,
        log,
        marked: Marked::default(),
        done: HashSet::new(),
        total: expected.len(),
        percent: 0,
    };
    for namespace in datastore.namespaces(&Namespace::root(), None)? {
        for group in datastore.groups(&namespace)? {
            marker.mark_group(&namespace, &group)?;
        }
    }
    let mut strange = 0;
    for path in expected {
        if !marker.done.contains(&path) && marker.mark_index(&path)? {
            log.warn(&format!(
                "Marked chunks for unexpected index file at {path:?}"
            ));
            strange += 1;
        }
    }
    if strange > 0 {
        log.warn(&format!(
            "Found {strange} index files outside of expected directory scheme"
        ));
    }
    for path in move_journal::drain(datastore)? {
        marker.mark_index(&path)?;
    }
    Ok(marker.marked)
}

struct Marker<'a> {
    datastore: &'a Datastore,
    log: &'a dyn TaskLog,
    marked: Marked,
    /// Indexes that were read.
    done: HashSet<PathBuf>,
    total: usize,
    percent: usize,
}

impl Marker<'_> {
    /// Reads all indexes of a group, until a listing shows nothing that was not read, and nothing vanished before it was.
    fn mark_group(&mut self, namespace: &Namespace, group: &BackupGroup) -> Result<()> {
        for attempt in 1.. {
            // Whoever holds the lock meanwhile is about to finish or to remove something: look again.
            let lock = match attempt {
                ..PATIENT_ATTEMPTS => None,
                PATIENT_ATTEMPTS..ATTEMPTS => self.datastore.lock_group(namespace, group).ok(),
                _ => Some(self.datastore.lock_group(namespace, group)?),
            };
            if self.is_group_stable(namespace, group)? || lock.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Reads what a listing shows, and tells whether the listing afterwards shows no snapshot that was not there before.
    fn is_group_stable(&mut self, namespace: &Namespace, group: &BackupGroup) -> Result<bool> {
        let before = self.datastore.snapshot_times(namespace, group)?;
        let mut complete = true;
        for time in &before {
            complete &= self.mark_snapshot(namespace, group, *time)?;
        }
        let known: HashSet<BackupTime> = before.into_iter().collect();
        let after = self.datastore.snapshot_times(namespace, group)?;
        Ok(complete && after.iter().all(|time| known.contains(time)))
    }

    /// `false`: a file vanished before it was read.
    fn mark_snapshot(
        &mut self,
        namespace: &Namespace,
        group: &BackupGroup,
        time: BackupTime,
    ) -> Result<bool> {
        let snapshot = group.snapshot(time);
        let files = match self.datastore.snapshot_info(namespace, &snapshot) {
            Err(DatastoreError::NoSuchSnapshot(_)) => return Ok(false),
            info => info?.files,
        };
        let dir = self.datastore.snapshot_path(namespace, &snapshot);
        let mut complete = true;
        for file in files {
            let path = dir.join(file);
            if index_kind(&path).is_some() && !self.done.contains(&path) {
                complete &= self.mark_index(&path)?;
            }
        }
        Ok(complete)
    }

    /// `false`: the file vanished.
    fn mark_index(&mut self, path: &Path) -> Result<bool> {
        if self.log.is_aborted() {
            return Err(DatastoreError::Aborted);
        }
        let Some(kind) = index_kind(path) else {
            return Ok(true);
        };
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.map_err(DatastoreError::io("open index", path))?,
        };
        let index = parse_index(path, &read_bounded(file, path, MAX_INDEX_SIZE)?, kind)?;
        for digest in digests(&index) {
            if !self.marked.digests.insert(digest) {
                self.marked.repeated += 1;
            } else if !self.datastore.chunks().touch(&digest)? {
                self.datastore.chunks().touch_bad(&digest)?;
                self.log.warn(&format!(
                    "warning: unable to access non-existent chunk {digest}, required by {path:?}"
                ));
            }
        }
        self.marked.index_file_count += 1;
        self.marked.index_data_bytes = self.marked.index_data_bytes.saturating_add(index.size());
        self.done.insert(path.to_owned());
        self.report_progress();
        Ok(true)
    }

    fn report_progress(&mut self) {
        let done = self.done.len();
        let percent = (done * 100).checked_div(self.total).unwrap_or(100).min(100);
        if percent > self.percent {
            self.percent = percent;
            self.log.info(&format!(
                "marked {percent}% ({done} of {} index files)",
                self.total
            ));
        }
    }
}

fn index_kind(path: &Path) -> Option<ArchiveKind> {
    match path.extension()?.to_str()? {
        "fidx" => Some(ArchiveKind::Fixed),
        "didx" => Some(ArchiveKind::Dynamic),
        _ => None,
    }
}

/// All index files below a directory, whoever put them there. Hidden entries and links are left out.
fn walk(dir: &Path, is_root: bool, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    let listing = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_root => return Ok(()),
        other => other.map_err(DatastoreError::io("list", dir))?,
    };
    for entry in listing {
        let entry = entry.map_err(DatastoreError::io("list", dir))?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let kind = match entry.file_type() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(DatastoreError::io("look at", entry.path()))?,
        };
        let path = entry.path();
        if kind.is_file() && index_kind(&path).is_some() {
            found.insert(path);
        } else if kind.is_dir() {
            match walk(&path, false, found) {
                Err(DatastoreError::Io { source, .. })
                    if is_root
                        && name == "lost+found"
                        && source.kind() == io::ErrorKind::PermissionDenied => {}
                other => other?,
            }
        }
    }
    Ok(())
}
