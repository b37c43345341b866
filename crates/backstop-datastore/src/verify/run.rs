//! What one task that verifies many snapshots shares between them.

use std::collections::HashSet;

use backstop_format::Digest;
use parking_lot::Mutex;

use super::threads::{self, Gate};
use crate::datastore::Datastore;
use crate::digest_set::DigestHash;
use crate::page_cache::ReadFiles;

/// Chunks that are remembered: of stores with more (some 16 TiB of data) a run may read some chunks again. It takes at most
/// about 350 MiB.
const REMEMBERED: usize = 1 << 22;

/// Numbers of threads that a caller asks for; what is unset follows the datastore's settings, then the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyThreads {
    /// Threads that read, 1 to 32.
    pub read: Option<usize>,
    /// Threads that check, 1 to 32.
    pub verify: Option<usize>,
}

/// A run of a task over any number of snapshots: each chunk is read once, whatever number of indexes name it.
pub struct VerifyRun {
    pub(super) readers: usize,
    pub(super) checkers: usize,
    pub(super) reading: Gate<()>,
    /// With memory for what two chunks hold.
    pub(super) checking: Gate<[Vec<u8>; 2]>,
    /// Chunks with the length that they are good for, or [`ENCRYPTED`].
    good: Mutex<HashSet<(Digest, u32), DigestHash>>,
    bad: Mutex<HashSet<Digest, DigestHash>>,
    pub(super) read: ReadFiles,
}

/// Stands for the length of an encrypted chunk, which is not known without the key. No chunk is so long.
const ENCRYPTED: u32 = u32::MAX;

impl Datastore {
    /// Begins a run.
    pub fn start_verification(&self, threads: VerifyThreads) -> VerifyRun {
        let tuning = self.tuning();
        let readers = threads
            .read
            .or(tuning.verification_readers)
            .unwrap_or_else(|| threads::default_readers(self.path()))
            .clamp(1, threads::MAX);
        let checkers = threads
            .verify
            .or(tuning.verification_workers)
            .unwrap_or_else(threads::default_checkers)
            .clamp(1, threads::MAX);
        VerifyRun {
            readers,
            checkers,
            reading: Gate::new(readers),
            checking: Gate::new(checkers),
            good: Mutex::default(),
            bad: Mutex::default(),
            read: ReadFiles::default(),
        }
    }
}

impl VerifyRun {
    /// Number of threads that read.
    pub fn readers(&self) -> usize {
        self.readers
    }

    /// Number of threads that check.
    pub fn checkers(&self) -> usize {
        self.checkers
    }

    fn key(digest: &Digest, size: u64, encrypted: bool) -> (Digest, u32) {
        let length = if encrypted {
            ENCRYPTED
        } else {
            u32::try_from(size).unwrap_or(ENCRYPTED - 1)
        };
        (*digest, length)
    }

    /// Leaves those chunks that are not yet known to be good.
    pub(super) fn retain_unknown(&self, chunks: &mut Vec<(Digest, u64)>, encrypted: bool) {
        let good = self.good.lock();
        chunks.retain(|(digest, size)| !good.contains(&Self::key(digest, *size, encrypted)));
    }

    pub(super) fn add_good(&self, digest: &Digest, size: u64, encrypted: bool) {
        let mut good = self.good.lock();
        if good.len() < REMEMBERED {
            good.insert(Self::key(digest, size, encrypted));
        }
    }

    pub(super) fn is_bad(&self, digest: &Digest) -> bool {
        self.bad.lock().contains(digest)
    }

    pub(super) fn add_bad(&self, digest: &Digest) {
        let mut bad = self.bad.lock();
        if bad.len() < REMEMBERED {
            bad.insert(*digest);
        }
    }
}
