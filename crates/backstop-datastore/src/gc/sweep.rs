//! The second phase: removing chunk files that are neither marked nor young, renewing the access times of those that are marked.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use backstop_format::Digest;
use backstop_types::record::GcStatus;
use parking_lot::Mutex;
use rustix::fs::FileType;

use super::Cutoff;
use super::chunk_dir::{ChunkDir, Entry, ListingBuffer, Name, Status};
use crate::chunk_store::PREFIXES;
use crate::datastore::Datastore;
use crate::digest_set::SortedDigests;
use crate::error::{DatastoreError, Result};
use crate::parallel;
use crate::progress::Progress;
use crate::task_log::TaskLog;

/// Examples of stray files that are kept for the log.
const EXAMPLES: usize = 3;

/// What a sweep has seen.
#[derive(Default)]
pub(super) struct Swept {
    pub(super) status: GcStatus,
    /// Marked chunks that were not there.
    pub(super) missing: Vec<Digest>,
    /// Files and directories that are no chunks.
    pub(super) stray: Found,
    /// Marked chunks of no bytes: what a crash leaves.
    pub(super) empty: Found,
    buffer: ListingBuffer,
    entries: Vec<Entry>,
    present: Vec<bool>,
}

/// How many, with a few of them.
#[derive(Default)]
pub(super) struct Found {
    pub(super) count: u64,
    pub(super) examples: Vec<PathBuf>,
}

impl Found {
    fn add(&mut self, path: impl FnOnce() -> PathBuf) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(path());
        }
    }

    fn merge(&mut self, other: Found) {
        self.count += other.count;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES);
    }
}

/// Removes garbage and counts everything. With `touch`, the access times of marked chunks are renewed.
pub(super) fn sweep(
    datastore: &Datastore,
    marked: &SortedDigests,
    cutoff: Cutoff,
    touch: bool,
    log: &dyn TaskLog,
) -> Result<Swept> {
    let mut total = Swept::default();
    let dirs = list_dirs(datastore, marked, &mut total)?;
    let sweeper = Sweeper {
        datastore,
        marked,
        cutoff,
        touch,
        log,
        total: dirs.len(),
        done: AtomicUsize::new(0),
        chunks: AtomicU64::new(0),
        percent: Mutex::new(0),
        progress: Progress::new("chunk folders", dirs.len() as u64),
    };
    let parts = parallel::each(
        parallel::disk_threads(),
        dirs.len(),
        Swept::default,
        |swept, number| {
            if log.is_aborted() {
                return Err(DatastoreError::Aborted);
            }
            if let Some(prefix) = dirs.get(number) {
                sweeper.sweep_dir(*prefix, swept)?;
            }
            sweeper.report_progress();
            Ok(())
        },
    )?;
    for part in parts {
        add(&mut total.status, &part.status);
        total.missing.extend(part.missing);
        total.stray.merge(part.stray);
        total.empty.merge(part.empty);
    }
    Ok(total)
}

/// The chunk directories in the order of their places on the disk. The marked chunks of those that do not exist are missing.
fn list_dirs(datastore: &Datastore, marked: &SortedDigests, total: &mut Swept) -> Result<Vec<u16>> {
    datastore.check_present()?;
    let path = datastore.chunks().path();
    let Some(base) = ChunkDir::open(path)? else {
        return Ok(Vec::new());
    };
    let mut dirs: Vec<(u64, u16)> = Vec::with_capacity(PREFIXES as usize);
    let mut strays: Vec<CString> = Vec::new();
    let mut buffer = ListingBuffer::default();
    base.list(&mut buffer, |name, _, inode| {
        match parse_prefix(name.to_bytes()) {
            Some(prefix) => dirs.push((inode, prefix)),
            // The directory may be a file system of its own.
            None if name.to_bytes() == b"lost+found" => {}
            None => strays.push(name.to_owned()),
        }
    })?;
    for stray in strays {
        total
            .stray
            .add(|| path.join(std::ffi::OsStr::from_bytes(stray.to_bytes())));
    }
    let mut exists = vec![false; PREFIXES as usize];
    for (_, prefix) in &dirs {
        if let Some(exists) = exists.get_mut(usize::from(*prefix)) {
            *exists = true;
        }
    }
    for (prefix, _) in (0..=u16::MAX).zip(exists).filter(|(_, exists)| !exists) {
        total.missing.extend(marked.with_prefix(prefix));
    }
    dirs.sort_unstable();
    Ok(dirs.into_iter().map(|(_, prefix)| prefix).collect())
}

fn parse_prefix(name: &[u8]) -> Option<u16> {
    if name.len() != 4
        || name
            .iter()
            .any(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(name).ok()?, 16).ok()
}

struct Sweeper<'a> {
    datastore: &'a Datastore,
    marked: &'a SortedDigests,
    cutoff: Cutoff,
    touch: bool,
    log: &'a dyn TaskLog,
    total: usize,
    done: AtomicUsize,
    chunks: AtomicU64,
    percent: Mutex<usize>,
    progress: Progress,
}

impl Sweeper<'_> {
    fn sweep_dir(&self, prefix: u16, swept: &mut Swept) -> Result<()> {
        let marked = self.marked.with_prefix(prefix);
        let path = self.datastore.chunks().prefix_dir(prefix.into());
        let Some(dir) = ChunkDir::open(&path)? else {
            swept.missing.extend(marked);
            return Ok(());
        };
        let (mut entries, mut present) = (
            std::mem::take(&mut swept.entries),
            std::mem::take(&mut swept.present),
        );
        entries.clear();
        present.clear();
        present.resize(marked.len(), false);
        dir.list(&mut swept.buffer, |name, kind, _| {
            let is_candidate = matches!(kind, FileType::RegularFile | FileType::Unknown);
            let parsed = match Name::parse(name.to_bytes()) {
                // In a directory that is not its own nobody finds a chunk.
                Name::Chunk(digest) if digest.0[..2] != prefix.to_be_bytes() => Name::Stray,
                _ if !is_candidate => Name::Stray,
                parsed => parsed,
            };
            if let Name::Chunk(digest) = parsed
                && let Ok(index) = marked.binary_search(&digest)
                && let Some(present) = present.get_mut(index)
            {
                *present = true;
            }
            entries.push(Entry {
                name: parsed,
                file: name.to_owned(),
            });
        })?;
        for entry in &entries {
            self.chunks.fetch_add(1, Ordering::Relaxed);
            self.sweep_file(&dir, entry, marked, &present, swept)?;
        }
        let missing = marked
            .iter()
            .zip(&present)
            .filter(|(_, present)| !**present);
        swept.missing.extend(missing.map(|(digest, _)| *digest));
        (swept.entries, swept.present) = (entries, present);
        Ok(())
    }

    fn sweep_file(
        &self,
        dir: &ChunkDir,
        entry: &Entry,
        marked: &[Digest],
        present: &[bool],
        swept: &mut Swept,
    ) -> Result<()> {
        let (digest, is_marked) = match entry.name {
            Name::Stray => {
                // Network file systems keep open files under such names for a while.
                if !entry.file.to_bytes().starts_with(b".nfs") {
                    swept.stray.add(|| dir.file_path(&entry.file));
                }
                return Ok(());
            }
            Name::Chunk(digest) => (digest, marked.binary_search(&digest).is_ok()),
            // The corrupt copies of a chunk that indexes name are kept as long as there is no better one.
            Name::Bad(digest) => {
                let index = marked.binary_search(&digest);
                (
                    digest,
                    index.is_ok_and(|index| present.get(index) == Some(&false)),
                )
            }
            Name::Temporary(digest) => (digest, false),
        };
        let Some(mut file) = dir.status(&entry.file)? else {
            return Ok(());
        };
        if !file.is_file {
            swept.stray.add(|| dir.file_path(&entry.file));
            return Ok(());
        }
        let mut removed = false;
        if is_marked {
            if self.touch {
                dir.touch(&entry.file)?;
            }
            if file.size == 0 {
                swept.empty.add(|| dir.file_path(&entry.file));
            }
        } else if self.is_old(&file) {
            // From the second look at the times to the removal nobody may touch the chunk.
            let _guard = self.datastore.chunks().lock(&digest);
            match dir.status(&entry.file)? {
                None => return Ok(()),
                Some(second) if second.is_file && self.is_old(&second) => {
                    dir.remove(&entry.file)?;
                    removed = true;
                }
                Some(second) => file = second,
            }
        }
        let pending = !is_marked && file.used < self.cutoff.oldest_writer;
        count(&mut swept.status, &entry.name, file.size, removed, pending);
        Ok(())
    }

    fn is_old(&self, file: &Status) -> bool {
        file.used < self.cutoff.min_atime
    }

    fn report_progress(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let percent = (done * 100).checked_div(self.total).unwrap_or(100);
        let mut reported = self.percent.lock();
        if percent > *reported && percent < 100 {
            *reported = percent;
            let chunks = self.chunks.load(Ordering::Relaxed);
            self.log
                .info(&format!("processed {percent}% ({chunks} chunks)"));
        }
        self.progress.tell(done as u64, self.log);
    }
}

fn count(status: &mut GcStatus, name: &Name, size: u64, removed: bool, pending: bool) {
    match (name, removed, pending) {
        (Name::Chunk(_), true, _) => {
            status.removed_chunks += 1;
            status.removed_bytes += size;
        }
        (Name::Chunk(_), false, true) => {
            status.pending_chunks += 1;
            status.pending_bytes += size;
        }
        (Name::Chunk(_), false, false) => {
            status.disk_chunks += 1;
            status.disk_bytes += size;
        }
        (Name::Bad(_), true, _) => {
            status.removed_bad += 1;
            status.removed_bytes += size;
        }
        (Name::Bad(_), false, true) => {
            status.still_bad += 1;
            status.pending_bytes += size;
        }
        (Name::Bad(_), false, false) => status.disk_bytes += size,
        (Name::Temporary(_) | Name::Stray, ..) => {}
    }
}

fn add(sum: &mut GcStatus, part: &GcStatus) {
    sum.disk_bytes += part.disk_bytes;
    sum.disk_chunks += part.disk_chunks;
    sum.removed_bytes += part.removed_bytes;
    sum.removed_chunks += part.removed_chunks;
    sum.pending_bytes += part.pending_bytes;
    sum.pending_chunks += part.pending_chunks;
    sum.removed_bad += part.removed_bad;
    sum.still_bad += part.still_bad;
}
