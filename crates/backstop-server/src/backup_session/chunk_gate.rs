//! The checks of received chunks, and the gate in front of them: as many chunks of all sessions at once as keep processors
//! busy, in the order in which they arrived, so that no session can starve the others. How many are stored at once is a
//! matter of each datastore, so that none waits for another's disks.
//!
//! Checking decodes and hashes, on the blocking pool. Where several chunks wait, two are checked at a time, which halves the
//! cost of hashing (see [`PairQueue`]). Nothing passes unchecked but what is encrypted and cannot be looked into.

use std::sync::Arc;

use backstop_format::FormatError;
use backstop_format::blob::{DataBlob, ExpectedChunk, MAX_CHUNK_SIZE};
use backstop_format::digest::PairQueue;
use tokio::sync::oneshot;

use super::error::SessionError;
use super::upload::ChunkAnnouncement;
use crate::datastores::{Interrupted, Place};

/// The gate; clones share it.
#[derive(Clone, Debug)]
pub struct ChunkGate {
    checks: Arc<Checks>,
}

#[derive(Debug)]
struct Checks {
    waiting: PairQueue<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    blob: DataBlob,
    announced: ChunkAnnouncement,
    done: oneshot::Sender<Result<DataBlob, SessionError>>,
}

impl ChunkGate {
    /// A gate for checks on `cores` processors.
    pub fn new(cores: usize) -> Self {
        Self {
            checks: Arc::new(Checks {
                waiting: PairQueue::new(cores.max(1)),
            }),
        }
    }

    /// Checks a received chunk and gives it a CRC of our own. A plain chunk must decode to what was announced; an encrypted
    /// one cannot be looked into.
    ///
    /// # Errors
    /// What was received is not the chunk that was announced.
    pub async fn check(
        &self,
        raw: Vec<u8>,
        announced: ChunkAnnouncement,
    ) -> Result<DataBlob, SessionError> {
        let blob = DataBlob::parse(raw)?;
        let (done, checked) = oneshot::channel();
        let waiting = Waiting {
            blob,
            announced,
            done,
        };
        if self.checks.waiting.push(u64::from(announced.size), waiting) {
            let checks = Arc::clone(&self.checks);
            tokio::task::spawn_blocking(move || checks.work());
        }
        checked.await.map_err(|_| stopped())?
    }

    /// Runs `work`, which stores a chunk, on a thread of the datastore when its turn has come. Work that has begun runs to
    /// its end even if the caller goes away, so it must own what it needs.
    ///
    /// # Errors
    /// Those of `work`; the datastore was given up.
    pub async fn store<T, F>(&self, place: &Arc<Place>, work: F) -> Result<T, SessionError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, SessionError> + Send + 'static,
    {
        place.store_chunk(work).await.map_err(interrupted)?
    }
}

/// The error of a call whose work was given up.
pub fn interrupted(reason: Interrupted) -> SessionError {
    SessionError::Datastore(reason.to_string())
}

fn stopped() -> SessionError {
    SessionError::Datastore("the server is shutting down".to_owned())
}

impl Checks {
    /// Checks what waits.
    fn work(&self) {
        // The buffers go when there is nothing left to check.
        let mut scratch = [Vec::new(), Vec::new()];
        self.waiting.work(|first, second| match second {
            None => check_one(first, &mut scratch[0]),
            Some(second) => {
                let plain = |waiting: &Waiting| !waiting.blob.is_encrypted();
                if plain(&first) && plain(&second) {
                    check_two(first, second, &mut scratch);
                } else {
                    check_one(first, &mut scratch[0]);
                    check_one(second, &mut scratch[1]);
                }
            }
        });
    }
}

fn check_one(waiting: Waiting, scratch: &mut Vec<u8>) {
    let outcome = if waiting.blob.is_encrypted() {
        Ok(())
    } else {
        let expected = expected(&waiting.announced);
        waiting.blob.open_chunk(None, &expected, scratch).map(drop)
    };
    deliver(waiting, outcome);
}

fn check_two(first: Waiting, second: Waiting, scratch: &mut [Vec<u8>; 2]) {
    let [one, two] = scratch;
    let expected = [&first, &second].map(|waiting| expected(&waiting.announced));
    let [outcome_one, outcome_two] = DataBlob::open_two_chunks(
        [&first.blob, &second.blob],
        None,
        [&expected[0], &expected[1]],
        [one, two],
    )
    .map(|opened| opened.map(drop));
    deliver(first, outcome_one);
    deliver(second, outcome_two);
}

fn expected(announced: &ChunkAnnouncement) -> ExpectedChunk {
    ExpectedChunk {
        digest: announced.digest,
        size: u64::from(announced.size).min(MAX_CHUNK_SIZE as u64),
    }
}

fn deliver(waiting: Waiting, outcome: Result<(), FormatError>) {
    let mut blob = waiting.blob;
    let result = match outcome {
        Ok(()) => {
            blob.refresh_crc();
            Ok(blob)
        }
        Err(FormatError::WrongLength {
            expected, found, ..
        }) => Err(SessionError::ChunkLength {
            announced: expected,
            found,
        }),
        Err(FormatError::WrongDigest { .. }) => Err(SessionError::ChunkDigest),
        Err(other) => Err(SessionError::Format(other)),
    };
    // The client may have gone away.
    let _ = waiting.done.send(result);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use backstop_format::Digest;
    use backstop_format::crypt::CryptKey;

    fn announce(plain: &[u8], blob: &DataBlob) -> ChunkAnnouncement {
        ChunkAnnouncement {
            digest: Digest::of(plain),
            size: u32::try_from(plain.len()).unwrap(),
            encoded_size: blob.raw().len(),
        }
    }

    /// The outcome for a chunk that is checked alone; paired with itself it must have the same.
    fn check_chunk(raw: Vec<u8>, announced: &ChunkAnnouncement) -> Result<DataBlob, SessionError> {
        let blob = DataBlob::parse(raw)?;
        let waiting = || {
            let (done, checked) = oneshot::channel();
            let waiting = Waiting {
                blob: blob.clone(),
                announced: *announced,
                done,
            };
            (waiting, checked)
        };
        let mut scratch = Default::default();
        let (alone, mut outcome) = waiting();
        check_one(alone, &mut scratch);
        let outcome = outcome.try_recv().unwrap();
        if !blob.is_encrypted() {
            let ((one, mut first), (two, mut second)) = (waiting(), waiting());
            check_two(one, two, &mut Default::default());
            for paired in [first.try_recv().unwrap(), second.try_recv().unwrap()] {
                let text = |result: &Result<DataBlob, SessionError>| match result {
                    Ok(blob) => format!("{:?}", blob.raw()),
                    Err(err) => err.to_string(),
                };
                assert_eq!(text(&paired), text(&outcome));
            }
        }
        outcome
    }

    #[test]
    fn the_server_computes_its_own_crc() {
        let blob = DataBlob::encode(b"hello", None, false).unwrap();
        let mut raw = blob.raw().to_vec();
        raw[8..12].fill(0);
        let stored = check_chunk(raw, &announce(b"hello", &blob)).unwrap();
        assert_eq!(stored.raw(), blob.raw());
    }

    #[test]
    fn a_plain_chunk_that_is_not_what_its_digest_names_is_refused() {
        for compress in [false, true] {
            let plain = vec![b'a'; 5000];
            let blob = DataBlob::encode(&plain, None, compress).unwrap();
            let announced = announce(&plain, &blob);
            let other = ChunkAnnouncement {
                digest: Digest([1; 32]),
                ..announced
            };
            let err = check_chunk(blob.raw().to_vec(), &other).unwrap_err();
            assert_eq!(err.to_string(), "detected chunk with wrong digest.");
            let longer = ChunkAnnouncement {
                size: 5001,
                ..announced
            };
            let err = check_chunk(blob.raw().to_vec(), &longer).unwrap_err();
            assert_eq!(
                err.to_string(),
                "detected chunk with wrong length (5001 != 5000)"
            );
        }
    }

    #[test]
    fn no_flipped_bit_of_a_plain_chunk_gets_through() {
        let plain: Vec<u8> = (0..200u8).collect();
        for compress in [false, true] {
            let blob = DataBlob::encode(&plain, None, compress).unwrap();
            let announced = announce(&plain, &blob);
            for position in (0..8).chain(12..blob.raw().len()) {
                for bit in 0..8 {
                    let mut raw = blob.raw().to_vec();
                    raw[position] ^= 1 << bit;
                    // a zstd frame has redundant bits: what is stored must decode to what was announced
                    if let Ok(stored) = check_chunk(raw, &announced) {
                        assert_eq!(stored.decode(None, 1000).unwrap(), plain);
                    }
                }
            }
        }
    }

    #[test]
    fn an_encrypted_chunk_passes_with_a_new_crc() {
        let blob = DataBlob::encode(b"hello", Some(&CryptKey::new([7; 32])), false).unwrap();
        let mut raw = blob.raw().to_vec();
        raw[8..12].fill(0);
        let announced = ChunkAnnouncement {
            digest: Digest([9; 32]),
            size: 5,
            encoded_size: raw.len(),
        };
        check_chunk(raw, &announced).unwrap().verify_crc().unwrap();
    }

    #[test]
    fn what_is_no_blob_is_no_chunk() {
        let announced = ChunkAnnouncement {
            digest: Digest([9; 32]),
            size: 5,
            encoded_size: 20,
        };
        for raw in [vec![0; 20], vec![], vec![0x42; 11]] {
            assert!(check_chunk(raw, &announced).is_err());
        }
    }

    #[tokio::test]
    async fn each_of_many_chunks_at_once_gets_its_own_verdict() {
        let gate = ChunkGate::new(2);
        let checks = (0..40u8).map(|number| {
            let plain = vec![number; 1000 + usize::from(number)];
            let blob = DataBlob::encode(&plain, None, true).unwrap();
            let mut announced = announce(&plain, &blob);
            let good = number % 3 != 0;
            if !good {
                announced.digest = Digest([number; 32]);
            }
            let gate = gate.clone();
            tokio::spawn(async move {
                let verdict = gate.check(blob.into_raw(), announced).await;
                assert_eq!(verdict.is_ok(), good, "{number}");
                if let Ok(blob) = verdict {
                    assert_eq!(blob.decode(None, 10_000).unwrap(), plain);
                }
            })
        });
        for check in checks.collect::<Vec<_>>() {
            check.await.unwrap();
        }
        // nothing is left behind, so that the next chunk starts a thread again
        while !gate.checks.waiting.is_idle() {
            tokio::task::yield_now().await;
        }
    }
}
