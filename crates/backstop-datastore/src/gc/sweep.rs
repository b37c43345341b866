//! The second phase: which chunk files are neither marked nor young?

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use backstop_format::Digest;
use backstop_types::record::GcStatus;
use parking_lot::Mutex;

use super::Cutoff;
use crate::chunk_store::PREFIXES;
use crate::datastore::Datastore;
use crate::dir_listing;
use crate::error::{DatastoreError, Result};
use crate::task_log::TaskLog;

/// Directories are read by so many threads: enough to keep a disk busy, few enough to leave it to backups.
const THREADS: usize = 4;

/// Removes garbage and counts everything into `status`.
pub(super) fn sweep(
    datastore: &Datastore,
    marked: &HashSet<Digest>,
    cutoff: Cutoff,
    status: &mut GcStatus,
    log: &dyn TaskLog,
) -> Result<()> {
    let sweeper = Sweeper {
        datastore,
        marked,
        cutoff,
        log,
        next: AtomicU32::new(0),
        stop: AtomicBool::new(false),
        chunks: AtomicU64::new(0),
        percent: Mutex::new(0),
    };
    let outcomes: Vec<Result<GcStatus>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| sweeper.run()))
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect()
    });
    if outcomes.len() < THREADS {
        return Err(DatastoreError::Aborted);
    }
    for outcome in outcomes {
        add(status, &outcome?);
    }
    Ok(())
}

struct Sweeper<'a> {
    datastore: &'a Datastore,
    marked: &'a HashSet<Digest>,
    cutoff: Cutoff,
    log: &'a dyn TaskLog,
    /// The next directory that nobody has taken.
    next: AtomicU32,
    stop: AtomicBool,
    chunks: AtomicU64,
    percent: Mutex<u32>,
}

/// A file in a chunk directory.
enum Name {
    Chunk(Digest),
    Bad(Digest),
    /// What a crash has left of a write.
    Temporary(Digest),
}

impl Name {
    fn parse(name: &str) -> Option<Self> {
        let (digest, rest) = name.split_at_checked(64)?;
        // Chunk files are named in lower case.
        if digest.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        let digest = digest.parse().ok()?;
        match rest.as_bytes() {
            [] => Some(Name::Chunk(digest)),
            [b'.', b'0'..=b'9', b'.', b'b', b'a', b'd'] => Some(Name::Bad(digest)),
            _ if rest.starts_with(".tmp_") && rest.len() == 11 => Some(Name::Temporary(digest)),
            _ => None,
        }
    }

    fn digest(&self) -> &Digest {
        match self {
            Name::Chunk(digest) | Name::Bad(digest) | Name::Temporary(digest) => digest,
        }
    }
}

impl Sweeper<'_> {
    fn run(&self) -> Result<GcStatus> {
        let mut status = GcStatus::default();
        loop {
            let prefix = self.next.fetch_add(1, Ordering::Relaxed);
            if prefix >= PREFIXES || self.stop.load(Ordering::Relaxed) {
                return Ok(status);
            }
            let outcome = if self.log.is_aborted() {
                Err(DatastoreError::Aborted)
            } else {
                self.sweep_dir(&self.datastore.chunks().prefix_dir(prefix), &mut status)
            };
            if outcome.is_err() {
                self.stop.store(true, Ordering::Relaxed);
            }
            outcome?;
            self.report_progress(prefix);
        }
    }

    fn sweep_dir(&self, dir: &Path, status: &mut GcStatus) -> Result<()> {
        let mut names = Vec::new();
        dir_listing::entries(dir, |entry| {
            if let Some(text) = entry.file_name().to_str()
                && let Some(name) = Name::parse(text)
                && entry.file_type()?.is_file()
            {
                names.push((name, entry.path()));
            }
            Ok(())
        })?;
        for (name, path) in names {
            self.chunks.fetch_add(1, Ordering::Relaxed);
            self.sweep_file(&name, &path, status)?;
        }
        Ok(())
    }

    fn sweep_file(&self, name: &Name, path: &Path, status: &mut GcStatus) -> Result<()> {
        // From the look at the times to the removal nobody may touch the chunk.
        let _guard = self.datastore.chunks().lock(name.digest());
        let metadata = match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(DatastoreError::io("look at chunk", path))?,
        };
        let size = metadata.len();
        // A file is as young as its last use or its last write: restored copies of a datastore can have old access times.
        let used = metadata.atime().max(metadata.mtime());
        let remove = used < self.cutoff.min_atime;
        let pending = used < self.cutoff.oldest_writer;
        match name {
            Name::Chunk(digest) if self.marked.contains(digest) => {
                status.disk_chunks += 1;
                status.disk_bytes += size;
            }
            Name::Chunk(_) if remove => {
                remove_file(path)?;
                status.removed_chunks += 1;
                status.removed_bytes += size;
            }
            Name::Chunk(_) if pending => {
                status.pending_chunks += 1;
                status.pending_bytes += size;
            }
            Name::Chunk(_) => {
                status.disk_chunks += 1;
                status.disk_bytes += size;
            }
            Name::Bad(_) if remove => {
                remove_file(path)?;
                status.removed_bad += 1;
                status.removed_bytes += size;
            }
            Name::Bad(_) if pending => {
                status.still_bad += 1;
                status.pending_bytes += size;
            }
            Name::Bad(_) => status.disk_bytes += size,
            Name::Temporary(_) if remove => remove_file(path)?,
            Name::Temporary(_) => {}
        }
        Ok(())
    }

    fn report_progress(&self, prefix: u32) {
        let percent = (prefix + 1) * 100 / PREFIXES;
        let mut reported = self.percent.lock();
        if percent > *reported && percent < 100 {
            *reported = percent;
            let chunks = self.chunks.load(Ordering::Relaxed);
            self.log
                .info(&format!("processed {percent}% ({chunks} chunks)"));
        }
    }
}

fn remove_file(path: &Path) -> Result<()> {
    std::fs::remove_file(path).map_err(DatastoreError::io("remove unused chunk", path))
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
