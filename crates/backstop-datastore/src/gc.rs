//! Garbage collection: removes the chunks that no index refers to and no running backup may be using.
//!
//! It marks, in memory, every chunk that an index names; then it walks the chunk directories once and removes what is neither
//! marked nor young, and renews the access times of what is marked, as stock servers expect. It must never remove a chunk
//! that a finished or running backup refers to:
//!
//! * A chunk that an index names is marked, whatever its times say.
//! * A chunk that a backup has stored or found present was touched after that backup began, and nothing touched after the
//!   oldest running backup began is removed. Touch and removal of one chunk exclude each other.
//! * A chunk that a running backup takes over from its previous snapshot is marked through that snapshot, which cannot be
//!   removed meanwhile. When the newest snapshots of a group change while it is read, it is read again.

mod chunk_dir;
mod index_reader;
mod mark;
mod missing;
mod sweep;

use backstop_types::record::{CacheStats, GcStatus};
use backstop_types::{BackupTime, ByteSize};

use crate::access_time;
use crate::clock;
use crate::datastore::Datastore;
use crate::error::{DatastoreError, Result};
use crate::gc_status;
use crate::leftovers;
use crate::task_log::TaskLog;

/// Safety margin before the oldest writer, in seconds.
const WRITER_MARGIN: i64 = 300;

/// Seconds by which the clock of a file server may be behind without a word.
const CLOCK_TOLERANCE: i64 = 60;

/// The times that decide over unmarked chunks, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cutoff {
    /// What was used before may be removed.
    min_atime: i64,
    /// What was used before, but is not removed, waits for a later run.
    oldest_writer: i64,
}

impl Cutoff {
    fn new(start: i64, cutoff_minutes: u32, oldest_writer: Option<i64>) -> Self {
        let oldest_writer = oldest_writer.unwrap_or(start).min(start);
        // The kernel stamps files with a clock that ticks some milliseconds late, which can be in the second before.
        let mut min_atime = start
            .saturating_sub(i64::from(cutoff_minutes) * 60)
            .saturating_sub(1);
        if oldest_writer < min_atime {
            min_atime = oldest_writer.saturating_sub(WRITER_MARGIN);
        }
        Cutoff {
            min_atime,
            oldest_writer,
        }
    }
}

impl Datastore {
    /// The result of the last garbage collection; while one runs, that of the one before.
    pub fn gc_status(&self) -> GcStatus {
        self.gc_status.read().clone()
    }

    /// Whether a garbage collection is running.
    pub fn is_collecting_garbage(&self) -> bool {
        self.gc_running.is_locked()
    }

    /// Collects garbage. `upid` is the task that does it.
    ///
    /// # Errors
    /// One is running already, in this process or another; another process writes here; access times are not kept; an index
    /// cannot be read, so that nothing is known to be garbage; the task was stopped; or the disk fails. Chunks that were removed
    /// until then stay removed, and the status stays that of the run before.
    pub fn collect_garbage(&self, upid: Option<&str>, log: &dyn TaskLog) -> Result<GcStatus> {
        let Some(_running) = self.gc_running.try_lock() else {
            return Err(DatastoreError::GarbageCollectionRunning);
        };
        self.check_present()?;
        let _exclusive = self.process_lock.exclude_others()?;
        let start = clock::now();
        let oldest_writer = self.process_lock.oldest_writer();
        let tuning = self.tuning();

        let mut behind = 0;
        if tuning.gc_atime_safety_check {
            let kept = access_time::check(self.chunks())?;
            if kept.access_times {
                log.info("Access time update check successful, proceeding with GC.");
            } else {
                log.warn(
                    "The file system does not keep access times; modification times are used instead. A Proxmox Backup Server \
                     would refuse to collect garbage here.",
                );
            }
            behind = kept.behind;
        }
        if behind > CLOCK_TOLERANCE {
            log.warn(&format!(
                "The clock of the file system is {behind} seconds behind; unused chunks are kept longer by as much"
            ));
        }
        let cutoff = Cutoff::new(
            start.saturating_sub(behind),
            tuning.gc_atime_cutoff_minutes,
            oldest_writer.map(|oldest| oldest.saturating_sub(behind)),
        );
        log.info(&format!(
            "Using access time cutoff {}, minimum access time is {}",
            span(tuning.gc_atime_cutoff_minutes),
            BackupTime::new(cutoff.min_atime)
                .map_or_else(|_| cutoff.min_atime.to_string(), |time| time.to_string())
        ));

        log.info("Start GC phase1 (mark used chunks)");
        let marked = mark::mark(self, tuning.gc_cache_capacity, log)?;
        log.info("Start GC phase2 (sweep unused chunks)");
        let swept = sweep::sweep(self, &marked.digests, cutoff, true, log)?;
        leftovers::remove_old(&marked.leftovers, cutoff.min_atime, log);
        // Without its chunks nothing could be said of the datastore.
        self.check_present()?;
        let status = GcStatus {
            upid: upid.map(str::to_owned),
            index_file_count: marked.indexes.len() as u64,
            index_data_bytes: marked.index_data_bytes,
            cache_stats: Some(CacheStats {
                hits: marked.repeated,
                misses: marked.digests.len() as u64,
            }),
            ..swept.status
        };
        drop(marked.digests);
        missing::report(self, swept.missing, marked.indexes, log)?;
        warn_of(
            &swept.empty,
            "chunks that backups need are empty files, which a later backup replaces",
            log,
        );
        warn_of(
            &swept.stray,
            "entries of the chunk store are no chunks and were left alone",
            log,
        );
        report(&status, log);
        gc_status::store(&status, self.path())?;
        *self.gc_status.write() = status.clone();
        Ok(status)
    }
}

fn warn_of(found: &sweep::Found, what: &str, log: &dyn TaskLog) {
    if found.count > 0 {
        log.warn(&format!(
            "{} {what}, for example {:?}",
            found.count, found.examples
        ));
    }
}

fn report(status: &GcStatus, log: &dyn TaskLog) {
    let line = |text: String| log.info(&text);
    if let Some(stats) = &status.cache_stats
        && stats.hits + stats.misses > 0
    {
        let ratio = stats.hits as f64 * 100.0 / (stats.hits + stats.misses) as f64;
        line(format!(
            "Chunk cache: hits {}, misses {} (hit ratio {ratio:.2}%)",
            stats.hits, stats.misses
        ));
    }
    line(format!(
        "Removed garbage: {}",
        ByteSize::binary(status.removed_bytes)
    ));
    line(format!("Removed chunks: {}", status.removed_chunks));
    if status.pending_bytes > 0 {
        line(format!(
            "Pending removals: {} (in {} chunks)",
            ByteSize::binary(status.pending_bytes),
            status.pending_chunks
        ));
    }
    if status.removed_bad > 0 {
        line(format!("Removed bad chunks: {}", status.removed_bad));
    }
    if status.still_bad > 0 {
        line(format!("Leftover bad chunks: {}", status.still_bad));
    }
    line(format!(
        "Original data usage: {}",
        ByteSize::binary(status.index_data_bytes)
    ));
    if status.index_data_bytes > 0 {
        let percent = status.disk_bytes as f64 * 100.0 / status.index_data_bytes as f64;
        line(format!(
            "On-Disk usage: {} ({percent:.2}%)",
            ByteSize::binary(status.disk_bytes)
        ));
    }
    line(format!("On-Disk chunks: {}", status.disk_chunks));
    if status.disk_bytes > 0 {
        line(format!(
            "Deduplication factor: {:.2}",
            status.index_data_bytes as f64 / status.disk_bytes as f64
        ));
    }
    if let Some(average) = status.disk_bytes.checked_div(status.disk_chunks) {
        line(format!("Average chunk size: {}", ByteSize::binary(average)));
    }
}

/// Minutes as days, hours and minutes.
fn span(minutes: u32) -> String {
    let parts = [
        (minutes / 1440, "d"),
        (minutes / 60 % 24, "h"),
        (minutes % 60, "m"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    parts.join(" ")
}

#[cfg(test)]
mod kill_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
