//! Reading and checking many chunks at once.

use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use backstop_format::Digest;
use backstop_format::blob::DataBlob;
use backstop_types::ChunkOrder;

use super::VerifiedChunks;
use crate::datastore::Datastore;
use crate::error::{DatastoreError, Result};
use crate::task_log::TaskLog;

const MAX_THREADS: usize = 32;

/// Checks the chunks that this task has not checked yet. Returns the number of errors, which includes chunks that were found
/// bad before.
pub(super) fn verify(
    datastore: &Datastore,
    mut chunks: Vec<(Digest, u64)>,
    encrypted: bool,
    known: &VerifiedChunks,
    log: &dyn TaskLog,
) -> Result<u64> {
    let start = Instant::now();
    let tuning = datastore.tuning();
    {
        let good = known.good.lock();
        chunks.retain(|(digest, _)| !good.contains(digest));
    }
    if tuning.chunk_order == ChunkOrder::Inode {
        chunks.sort_by_cached_key(|(digest, _)| {
            std::fs::symlink_metadata(datastore.chunks().chunk_path(digest))
                .map_or(u64::MAX, |metadata| metadata.ino())
        });
    }
    let checker = Checker {
        datastore,
        chunks: &chunks,
        encrypted,
        known,
        log,
        next: AtomicUsize::new(0),
        read: AtomicU64::new(0),
        decoded: AtomicU64::new(0),
        errors: AtomicU64::new(0),
    };
    let threads = tuning
        .verification_workers
        .clamp(1, MAX_THREADS)
        .min(chunks.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| checker.run());
        }
    });
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

struct Checker<'a> {
    datastore: &'a Datastore,
    chunks: &'a [(Digest, u64)],
    encrypted: bool,
    known: &'a VerifiedChunks,
    log: &'a dyn TaskLog,
    /// The next chunk that nobody has taken.
    next: AtomicUsize,
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

impl Checker<'_> {
    fn run(&self) {
        while let Some((digest, size)) = self.chunks.get(self.next.fetch_add(1, Ordering::Relaxed))
        {
            if self.log.is_aborted() {
                return;
            }
            if self.known.bad.lock().contains(digest) {
                self.errors.fetch_add(1, Ordering::Relaxed);
                self.log
                    .warn(&format!("chunk {digest} was marked as corrupt"));
                continue;
            }
            // A second look: what was wrong may have been the way from the disk, or a replacement in between.
            let outcome = match self.check(digest, *size) {
                Err(Fault::Corrupt(_)) => self.check(digest, *size),
                outcome => outcome,
            };
            match outcome {
                Ok(()) => {
                    self.known.good.lock().insert(*digest);
                }
                Err(fault) => {
                    self.errors.fetch_add(1, Ordering::Relaxed);
                    self.report(digest, fault);
                }
            }
        }
    }

    fn check(&self, digest: &Digest, size: u64) -> std::result::Result<(), Fault> {
        let chunks = self.datastore.chunks();
        let blob: DataBlob = chunks.load_once(digest).map_err(|error| match error {
            DatastoreError::Damaged { .. } | DatastoreError::Invalid { .. } => {
                Fault::Corrupt(error)
            }
            error => Fault::Other(error),
        })?;
        self.read
            .fetch_add(blob.raw().len() as u64, Ordering::Relaxed);
        self.decoded.fetch_add(size, Ordering::Relaxed);
        match (self.encrypted, blob.is_encrypted()) {
            (true, true) => Ok(()),
            (false, false) => blob.verify_plain_chunk(digest, size).map_err(|source| {
                Fault::Corrupt(DatastoreError::Damaged {
                    path: chunks.chunk_path(digest),
                    source,
                })
            }),
            (true, false) => Err(Fault::WrongMode(
                "chunk CryptMode None does not match index CryptMode Encrypt",
            )),
            (false, true) => Err(Fault::WrongMode(
                "chunk CryptMode Encrypt does not match index CryptMode None",
            )),
        }
    }

    fn report(&self, digest: &Digest, fault: Fault) {
        match fault {
            Fault::WrongMode(text) => self.log.warn(&format!("{text}: {digest}")),
            Fault::Other(error) => {
                if error.is_not_found() {
                    self.known.bad.lock().insert(*digest);
                }
                self.log.warn(&format!(
                    "can't verify chunk, load failed - store '{}', unable to load chunk '{digest}' - {error}",
                    self.datastore.name()
                ));
            }
            Fault::Corrupt(error) => {
                self.known.bad.lock().insert(*digest);
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
