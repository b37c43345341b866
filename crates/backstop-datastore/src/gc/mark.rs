//! The first phase: which chunks do indexes name?

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use backstop_format::Digest;
use backstop_format::index::IndexKind;
use backstop_types::{BackupGroup, BackupTime, Namespace};
use parking_lot::Mutex;

use super::index_reader::{IndexReader, Seen, index_kind};
use crate::chunk_store::CHUNKS;
use crate::datastore::Datastore;
use crate::digest_set::{DigestSet, SortedDigests};
use crate::error::{DatastoreError, Result};
use crate::leftovers::is_leftover;
use crate::move_journal;
use crate::parallel;
use crate::progress::Progress;
use crate::task_log::TaskLog;

/// How often a group is read again because its snapshots change, before its lock is tried.
const PATIENT_ATTEMPTS: usize = 10;
/// How often it is read again before a lock that is held by others stops the run.
const ATTEMPTS: usize = 100;

/// What the indexes name.
pub(super) struct Marked {
    pub(super) digests: SortedDigests,
    /// The indexes that were read.
    pub(super) indexes: HashSet<PathBuf>,
    /// What a crash may have left beside them.
    pub(super) leftovers: Vec<PathBuf>,
    pub(super) index_data_bytes: u64,
    /// References to chunks that were marked already.
    pub(super) repeated: u64,
}

/// Reads all indexes. `capacity` digests are remembered to recognise what repeats, which changes nothing but the speed.
pub(super) fn mark(datastore: &Datastore, capacity: usize, log: &dyn TaskLog) -> Result<Marked> {
    let (mut expected, mut leftovers) = (BTreeSet::new(), Vec::new());
    walk(datastore.path(), true, &mut expected, &mut leftovers)?;
    let marker = Marker {
        datastore,
        log,
        digests: DigestSet::new(),
        known: Mutex::default(),
        counts: Mutex::default(),
        total: expected.len(),
        progress: Progress::new("index files", expected.len() as u64),
    };
    let mut groups = Vec::new();
    for namespace in datastore.namespaces(&Namespace::root(), None)? {
        for group in datastore.groups(&namespace)? {
            groups.push((namespace.clone(), group));
        }
    }
    let threads = parallel::disk_threads();
    let reader = || IndexReader::new(capacity / threads);
    parallel::each(threads, groups.len(), reader, |reader, number| {
        reader.forget();
        groups.get(number).map_or(Ok(()), |(namespace, group)| {
            marker.mark_group(reader, namespace, group)
        })
    })?;

    let mut reader = reader();
    let mut strange = 0;
    for path in expected {
        if !marker.is_done(&path) && marker.mark_index(&mut reader, &path)? {
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
        marker.mark_index(&mut reader, &path)?;
    }
    let counts = marker.counts.into_inner();
    Ok(Marked {
        digests: marker.digests.into_sorted(),
        indexes: counts.done,
        leftovers,
        index_data_bytes: counts.index_data_bytes,
        repeated: counts.repeated,
    })
}

struct Marker<'a> {
    datastore: &'a Datastore,
    log: &'a dyn TaskLog,
    digests: DigestSet,
    /// Sizes of the archives whose indexes were read, by what indexes with the same entries have in common.
    known: Mutex<HashMap<(IndexKind, Digest, u64), u64>>,
    counts: Mutex<Counts>,
    total: usize,
    progress: Progress,
}

#[derive(Default)]
struct Counts {
    /// Indexes that were read.
    done: HashSet<PathBuf>,
    index_data_bytes: u64,
    repeated: u64,
    percent: usize,
}

impl Marker<'_> {
    fn is_done(&self, path: &Path) -> bool {
        self.counts.lock().done.contains(path)
    }

    /// Reads all indexes of a group, until a listing shows nothing that was not read, and nothing vanished before it was.
    fn mark_group(
        &self,
        reader: &mut IndexReader,
        namespace: &Namespace,
        group: &BackupGroup,
    ) -> Result<()> {
        for attempt in 1.. {
            // Whoever holds the lock meanwhile is about to finish or to remove something: look again.
            let lock = match attempt {
                ..PATIENT_ATTEMPTS => None,
                PATIENT_ATTEMPTS..ATTEMPTS => self.datastore.lock_group(namespace, group).ok(),
                _ => Some(self.datastore.lock_group(namespace, group)?),
            };
            if self.is_group_stable(reader, namespace, group)? || lock.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Reads what a listing shows, and tells whether the listing afterwards shows no snapshot that was not there before.
    fn is_group_stable(
        &self,
        reader: &mut IndexReader,
        namespace: &Namespace,
        group: &BackupGroup,
    ) -> Result<bool> {
        let before = self.datastore.snapshot_times(namespace, group)?;
        let mut complete = true;
        for time in &before {
            complete &= self.mark_snapshot(reader, namespace, group, *time)?;
        }
        let known: HashSet<BackupTime> = before.into_iter().collect();
        let after = self.datastore.snapshot_times(namespace, group)?;
        Ok(complete && after.iter().all(|time| known.contains(time)))
    }

    /// `false`: a file vanished before it was read.
    fn mark_snapshot(
        &self,
        reader: &mut IndexReader,
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
            if index_kind(&path).is_some() && !self.is_done(&path) {
                complete &= self.mark_index(reader, &path)?;
            }
        }
        Ok(complete)
    }

    /// `false`: the file vanished.
    fn mark_index(&self, reader: &mut IndexReader, path: &Path) -> Result<bool> {
        if self.log.is_aborted() {
            return Err(DatastoreError::Aborted);
        }
        let Some(kind) = index_kind(path) else {
            return Ok(true);
        };
        let mut known_size = None;
        let mut repeated = 0;
        let read = reader.read(
            path,
            kind,
            self.log,
            |identity| {
                known_size = self.known.lock().get(&identity.key).copied();
                known_size.is_some()
            },
            |digest, seen| {
                if seen == Seen::Before || !self.digests.insert(digest) {
                    repeated += 1;
                }
            },
        )?;
        let Some((identity, read_size)) = read else {
            return Ok(false);
        };
        let size = match (read_size, known_size) {
            (Some(size), _) => {
                // Only now all its chunks are marked.
                self.known.lock().insert(identity.key, size);
                size
            }
            (None, known) => {
                repeated = identity.entries;
                known.unwrap_or(0)
            }
        };
        let mut counts = self.counts.lock();
        if counts.done.insert(path.to_owned()) {
            counts.index_data_bytes = counts.index_data_bytes.saturating_add(size);
            counts.repeated += repeated;
            self.report_progress(&mut counts);
        }
        Ok(true)
    }

    fn report_progress(&self, counts: &mut Counts) {
        let done = counts.done.len();
        self.progress.tell(done as u64, self.log);
        let percent = (done * 100).checked_div(self.total).unwrap_or(100).min(100);
        if percent > counts.percent {
            counts.percent = percent;
            self.log.info(&format!(
                "marked {percent}% ({done} of {} index files)",
                self.total
            ));
        }
    }
}

/// All index files below a directory, whoever put them there. Hidden entries and links are left out; another datastore is an
/// error.
fn walk(
    dir: &Path,
    is_root: bool,
    found: &mut BTreeSet<PathBuf>,
    leftovers: &mut Vec<PathBuf>,
) -> Result<()> {
    let listing = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_root => return Ok(()),
        other => other.map_err(DatastoreError::io("list", dir))?,
    };
    for entry in listing {
        let entry = entry.map_err(DatastoreError::io("list", dir))?;
        let name = entry.file_name();
        if name == CHUNKS && !is_root {
            return Err(DatastoreError::Nested {
                path: dir.to_owned(),
            });
        }
        if name.to_str().is_some_and(is_leftover) {
            leftovers.push(entry.path());
            continue;
        }
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
            match walk(&path, false, found, leftovers) {
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
