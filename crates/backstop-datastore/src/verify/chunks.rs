//! Reading and checking many chunks at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use backstop_format::Digest;
use backstop_format::blob::{DataBlob, ExpectedChunk};
use backstop_types::ChunkOrder;

use super::VerifyRun;
use crate::datastore::Datastore;
use crate::error::{DatastoreError, Result};
use crate::parallel;
use crate::progress::Progress;
use crate::task_log::TaskLog;

/// Chunks of which pairs are made.
const GROUP: usize = 8;
/// Chunks whose inode numbers one thread asks for in one go.
const PIECE: usize = 256;

/// Checks the chunks that this task has not checked yet. Returns the number of errors, which includes chunks that were found
/// bad before.
pub(super) fn verify(
    datastore: &Datastore,
    mut chunks: Vec<(Digest, u64)>,
    encrypted: bool,
    run: &VerifyRun,
    log: &dyn TaskLog,
) -> Result<u64> {
    let start = Instant::now();
    run.retain_unknown(&mut chunks, encrypted);
    if datastore.tuning().chunk_order == ChunkOrder::Inode {
        chunks = in_inode_order(datastore, &chunks)?;
    }
    let checker = Checker {
        datastore,
        encrypted,
        run,
        log,
        read: AtomicU64::new(0),
        decoded: AtomicU64::new(0),
        errors: AtomicU64::new(0),
    };
    // Each thread reads and checks; the gates say how many do which at the same time.
    let threads = run.readers + run.checkers;
    let groups = chunks.len().div_ceil(GROUP);
    let progress = Progress::new("chunks of this archive", chunks.len() as u64);
    let done = AtomicU64::new(0);
    parallel::each(threads, groups, Buffers::default, |buffers, number| {
        // Two chunks of like length are hashed in little more time than one.
        let mut group: Vec<_> = chunks.iter().skip(number * GROUP).take(GROUP).collect();
        group.sort_unstable_by_key(|(_, size)| *size);
        progress.tell(done.load(Ordering::Relaxed), log);
        for pair in group.chunks(2) {
            if log.is_aborted() {
                return Err(DatastoreError::Aborted);
            }
            match pair {
                [first, second] => checker.check_two([first, second], buffers),
                [(digest, size), ..] => checker.check_one(digest, *size, buffers),
                [] => {}
            }
        }
        done.fetch_add(group.len() as u64, Ordering::Relaxed);
        Ok(())
    })?;
    if log.is_aborted() {
        return Err(DatastoreError::Aborted);
    }
    let mebibytes = |bytes: &AtomicU64| bytes.load(Ordering::Relaxed) as f64 / f64::from(1 << 20);
    let (read, decoded) = (mebibytes(&checker.read), mebibytes(&checker.decoded));
    let seconds = start.elapsed().as_secs_f64();
    let errors = checker.errors.load(Ordering::Relaxed);
    log.info(&format!(
        "  verified {read:.2}/{decoded:.2} MiB in {seconds:.2} seconds, speed {:.2}/{:.2} MiB/s ({errors} errors)",
        read / seconds,
        decoded / seconds
    ));
    Ok(errors)
}

/// The chunks in the order of their places on the disk, as far as inode numbers tell; missing ones last.
fn in_inode_order(datastore: &Datastore, chunks: &[(Digest, u64)]) -> Result<Vec<(Digest, u64)>> {
    let pieces = chunks.len().div_ceil(PIECE);
    let parts = parallel::each(
        parallel::disk_threads(),
        pieces,
        Vec::new,
        |found, number| {
            for chunk in chunks.iter().skip(number * PIECE).take(PIECE) {
                let inode = datastore.chunks().inode(&chunk.0).unwrap_or(u64::MAX);
                found.push((inode, *chunk));
            }
            Ok(())
        },
    )?;
    let mut all = parts.concat();
    all.sort_unstable_by_key(|(inode, (digest, _))| (*inode, *digest));
    Ok(all.into_iter().map(|(_, chunk)| chunk).collect())
}

struct Checker<'a> {
    datastore: &'a Datastore,
    encrypted: bool,
    run: &'a VerifyRun,
    log: &'a dyn TaskLog,
    /// Bytes read from disk, and what they hold.
    read: AtomicU64,
    decoded: AtomicU64,
    errors: AtomicU64,
}

/// Why a chunk was not found to be good.
enum Fault {
    /// Its bytes are wrong.
    Corrupt(DatastoreError),
    /// It is missing, or could not be read, or is good but does not belong here.
    Other(DatastoreError),
    /// It is encrypted though its index says it is not, or the reverse.
    WrongMode(&'static str),
}

/// Memory for two chunks as they are stored, used again by each thread.
type Buffers = [Vec<u8>; 2];

impl Checker<'_> {
    fn check_two(&self, pair: [&(Digest, u64); 2], buffers: &mut Buffers) {
        let [first, second] = buffers;
        // Pairs are for what is to be expected; everything else is looked at alone.
        let opened = match (
            self.open_plain(pair[0], first),
            self.open_plain(pair[1], second),
        ) {
            (Some(first), Some(second)) => Some([first, second]),
            (one, two) => {
                for (blob, buffer) in [(one, first), (two, second)] {
                    if let Some(blob) = blob {
                        *buffer = blob.into_raw();
                    }
                }
                None
            }
        };
        let Some(blobs) = opened else {
            for (digest, size) in pair {
                self.check_one(digest, *size, buffers);
            }
            return;
        };
        let good = self.run.checking.pass(|[first, second]| {
            let expected = pair.map(|(digest, size)| ExpectedChunk {
                digest: *digest,
                size: *size,
            });
            DataBlob::open_two_chunks(
                [&blobs[0], &blobs[1]],
                None,
                [&expected[0], &expected[1]],
                [first, second],
            )
            .map(|outcome| outcome.is_ok())
        });
        for ((digest, size), (blob, good)) in pair.into_iter().zip(blobs.iter().zip(good)) {
            if good {
                self.count(blob.raw().len(), *size);
                self.run.add_good(digest, *size, self.encrypted);
            }
        }
        *buffers = blobs.map(DataBlob::into_raw);
        for ((digest, size), good) in pair.into_iter().zip(good) {
            if !good {
                self.check_one(digest, *size, buffers);
            }
        }
    }

    /// An unencrypted chunk with the right CRC; `None` for all others, and those that are known to be bad.
    fn open_plain(&self, (digest, _): &(Digest, u64), buffer: &mut Vec<u8>) -> Option<DataBlob> {
        if self.encrypted || self.run.is_bad(digest) {
            return None;
        }
        let raw = self.read(digest, buffer).ok()?;
        let blob = DataBlob::load(raw).ok()?;
        (!blob.is_encrypted()).then_some(blob)
    }

    fn read(&self, digest: &Digest, buffer: &mut Vec<u8>) -> Result<Vec<u8>> {
        let raw = std::mem::take(buffer);
        let chunks = self.datastore.chunks();
        self.run
            .reading
            .pass(|()| chunks.read_once(digest, raw, &self.run.read))
    }

    fn count(&self, read: usize, decoded: u64) {
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        self.decoded.fetch_add(decoded, Ordering::Relaxed);
    }

    fn check_one(&self, digest: &Digest, size: u64, buffers: &mut Buffers) {
        if self.run.is_bad(digest) {
            self.errors.fetch_add(1, Ordering::Relaxed);
            self.log
                .warn(&format!("chunk {digest} was marked as corrupt"));
            return;
        }
        let [buffer, _] = buffers;
        // A second look: what was wrong may have been the way from the disk, or a replacement in between.
        let outcome = match self.check(digest, size, buffer) {
            Err(Fault::Corrupt(_)) => {
                // From the disk, not from memory.
                self.run.read.clear();
                self.check(digest, size, buffer)
            }
            outcome => outcome,
        };
        match outcome {
            Ok(()) => self.run.add_good(digest, size, self.encrypted),
            Err(fault) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                self.report(digest, fault);
            }
        }
    }

    fn check(
        &self,
        digest: &Digest,
        size: u64,
        buffer: &mut Vec<u8>,
    ) -> std::result::Result<(), Fault> {
        let raw = self.read(digest, buffer).map_err(|error| match error {
            DatastoreError::Invalid { .. } => Fault::Corrupt(error),
            error => Fault::Other(error),
        })?;
        self.count(raw.len(), size);
        self.run.checking.pass(|[scratch, _]| {
            let damaged = |source| {
                Fault::Corrupt(DatastoreError::Damaged {
                    path: self.datastore.chunks().chunk_path(digest),
                    source,
                })
            };
            let blob = DataBlob::load(raw).map_err(damaged)?;
            let expected = ExpectedChunk {
                digest: *digest,
                size,
            };
            let outcome = match (self.encrypted, blob.is_encrypted()) {
                (true, true) => Ok(()),
                (false, false) => blob
                    .open_chunk(None, &expected, scratch)
                    .map(drop)
                    .map_err(damaged),
                (true, false) => Err(Fault::WrongMode(
                    "chunk CryptMode None does not match index CryptMode Encrypt",
                )),
                (false, true) => Err(Fault::WrongMode(
                    "chunk CryptMode Encrypt does not match index CryptMode None",
                )),
            };
            *buffer = blob.into_raw();
            outcome
        })
    }

    fn report(&self, digest: &Digest, fault: Fault) {
        match fault {
            Fault::WrongMode(text) => self.log.warn(&format!("{text}: {digest}")),
            Fault::Other(error) => {
                if error.is_not_found() {
                    self.run.add_bad(digest);
                }
                self.log.warn(&format!(
                    "can't verify chunk, load failed - store '{}', unable to load chunk '{digest}' - {error}",
                    self.datastore.name()
                ));
            }
            Fault::Corrupt(error) => {
                self.run.add_bad(digest);
                self.log.warn(&format!(
                    "store '{}', chunk '{digest}' is corrupt - {error}",
                    self.datastore.name()
                ));
                match self.datastore.chunks().mark_corrupt(digest) {
                    Ok(Some(path)) => self.log.warn(&format!("corrupt chunk renamed to {path:?}")),
                    Ok(None) => {}
                    Err(error) => self
                        .log
                        .warn(&format!("unable to set aside corrupt chunk - {error}")),
                }
            }
        }
    }
}
