//! Which chunks a backup session may append to an index: those of the previous snapshot and those uploaded.
//!
//! A chunk counts as usable only after the server has confirmed it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use backstop_format::Digest;
use parking_lot::Mutex;
use tokio::sync::watch;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Somebody is about to upload it.
    Claimed,
    /// The server knows it.
    Confirmed,
}

/// The chunks known in one session.
pub(crate) struct KnownChunks {
    chunks: Mutex<HashMap<Digest, State>>,
    /// Counts confirmations, to wake those who wait for one.
    confirmations: watch::Sender<u64>,
}

impl Default for KnownChunks {
    fn default() -> Self {
        Self {
            chunks: Mutex::default(),
            confirmations: watch::Sender::new(0),
        }
    }
}

impl KnownChunks {
    /// Registers chunks that the server knows from the previous snapshot.
    pub fn register(&self, digests: impl IntoIterator<Item = Digest>) {
        let mut chunks = self.chunks.lock();
        for digest in digests {
            chunks.insert(digest, State::Confirmed);
        }
    }

    /// Whether the caller has to upload this chunk: nobody has, nobody is about to. Ends that state.
    pub fn claim(&self, digest: &Digest) -> bool {
        match self.chunks.lock().entry(*digest) {
            Entry::Vacant(vacant) => {
                vacant.insert(State::Claimed);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// Notes that the server has answered an upload.
    pub fn confirm(&self, digest: &Digest) {
        self.chunks.lock().insert(*digest, State::Confirmed);
        self.confirmations.send_modify(|count| *count += 1);
    }

    /// Whether the chunk may be appended to an index now.
    pub fn is_confirmed(&self, digest: &Digest) -> bool {
        self.chunks.lock().get(digest) == Some(&State::Confirmed)
    }

    /// Changes at every confirmation.
    pub fn confirmations(&self) -> watch::Receiver<u64> {
        self.confirmations.subscribe()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_new_chunk_is_claimed_once_and_usable_only_after_its_confirmation() {
        let known = KnownChunks::default();
        let digest = Digest([1; 32]);
        assert!(known.claim(&digest));
        assert!(!known.claim(&digest));
        assert!(!known.is_confirmed(&digest));
        known.confirm(&digest);
        assert!(known.is_confirmed(&digest));
    }

    #[test]
    fn a_chunk_of_the_previous_snapshot_needs_no_upload() {
        let known = KnownChunks::default();
        let digest = Digest([2; 32]);
        known.register([digest]);
        assert!(!known.claim(&digest));
        assert!(known.is_confirmed(&digest));
    }
}
