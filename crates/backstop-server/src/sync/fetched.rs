//! Which chunks this run has fetched, and which an earlier run fetched for a group before it was cut off.
//!
//! A chunk that the target happens to have is no proof that the source has it, too. So chunks count as there only when the
//! group's own last snapshot names them, or when they came from the source: in this run, which is kept in memory, or in an
//! earlier one that did not come to its end, which is kept in a file beside the state of the jobs.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use backstop_datastore::{DigestSet, ownership};
use backstop_format::Digest;
use backstop_types::{BackupGroup, BackupTime, DatastoreName, Namespace};
use parking_lot::Mutex;

/// How many chunks may be worked on without a chance to wait for each other.
const GATES: usize = 4096;
/// Largest record, in bytes: eight million chunks.
const MAX_RECORD: u64 = 256 << 20;

/// The chunks that this run has fetched and stored.
pub(super) struct FetchedChunks {
    done: DigestSet,
    gates: Box<[tokio::sync::Mutex<()>]>,
}

impl FetchedChunks {
    pub fn new() -> Self {
        Self {
            done: DigestSet::new(),
            gates: (0..GATES).map(|_| tokio::sync::Mutex::new(())).collect(),
        }
    }

    pub fn contains(&self, digest: &Digest) -> bool {
        self.done.contains(digest)
    }

    /// Notes a chunk that came from the source and is stored.
    pub fn insert(&self, digest: &Digest) {
        self.done.insert(digest);
    }

    /// Held by whoever fetches the chunk, so that nobody fetches it at the same time.
    pub async fn gate(&self, digest: &Digest) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let [first, second, ..] = digest.0;
        let number = usize::from(u16::from_be_bytes([first, second])) % GATES;
        match self.gates.get(number) {
            Some(gate) => Some(gate.lock().await),
            None => None,
        }
    }
}

/// What is remembered of a group from run to run: chunks that were fetched for snapshots that are not complete, and snapshots
/// that could not be had. Losing it costs traffic, and the second try of these snapshots.
pub(super) struct Record {
    chunks: PathBuf,
    missed: PathBuf,
    /// The file that chunks are noted in, with its length.
    file: Mutex<Option<(File, u64)>>,
    /// What an earlier run has fetched.
    pub earlier: DigestSet,
    /// Snapshots that an earlier run could not get.
    pub retry: BTreeSet<BackupTime>,
}

impl Record {
    /// Reads what is remembered of a group of a datastore. Blocking.
    pub fn open(
        folder: &Path,
        store: &DatastoreName,
        namespace: &Namespace,
        group: &BackupGroup,
        source: &str,
    ) -> io::Result<Self> {
        ownership::create_dir_all(folder, 0o750)?;
        let name = Digest::of(format!("{store}\n{namespace}\n{group}\n{source}").as_bytes());
        let path = |extension: &str| folder.join(format!("{name}.{extension}"));
        let (chunks, missed) = (path("chunks"), path("missed"));
        let earlier = DigestSet::new();
        for digest in read_digests(&chunks)? {
            earlier.insert(&digest);
        }
        let retry = match std::fs::read_to_string(&missed) {
            Ok(text) => text.lines().filter_map(|line| line.parse().ok()).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        Ok(Self {
            chunks,
            missed,
            file: Mutex::new(None),
            earlier,
            retry,
        })
    }

    /// Notes a chunk that came from the source and is stored. Blocking, for a moment.
    pub fn add(&self, digest: &Digest) -> io::Result<()> {
        let mut file = self.file.lock();
        if file.is_none() {
            let mut options = OpenOptions::new();
            options.append(true).create(true).mode(0o640);
            let opened = options.custom_flags(libc::O_NOFOLLOW).open(&self.chunks)?;
            ownership::inherit(&opened, &self.chunks)?;
            // What a crash has cut off does not shift the rest.
            let length = opened.metadata()?.len();
            let whole = length - length % 32;
            opened.set_len(whole)?;
            *file = Some((opened, whole));
        }
        match file.as_mut() {
            Some((file, length)) if *length < MAX_RECORD => {
                *length += 32;
                file.write_all(&digest.0)
            }
            _ => Ok(()),
        }
    }

    /// Ends a run: the chunks are forgotten unless some snapshots are still incomplete. Blocking.
    pub fn close(&self, missed: &BTreeSet<BackupTime>, is_complete: bool) -> io::Result<()> {
        *self.file.lock() = None;
        if is_complete {
            remove(&self.chunks)?;
        }
        if missed.is_empty() {
            return remove(&self.missed);
        }
        let lines: String = missed.iter().map(|time| format!("{time}\n")).collect();
        let temporary = self.missed.with_extension("tmp");
        std::fs::write(&temporary, lines)?;
        ownership::inherit(&File::open(&temporary)?, &temporary)?;
        std::fs::rename(&temporary, &self.missed)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A record that cannot be a good one is as if there were none.
fn read_digests(path: &Path) -> io::Result<Vec<Digest>> {
    let raw = match std::fs::metadata(path) {
        Ok(found) if found.is_file() && found.len() <= MAX_RECORD => std::fs::read(path)?,
        Ok(_) => Vec::new(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let (digests, _) = raw.as_chunks::<32>();
    Ok(digests.iter().map(|digest| Digest(*digest)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn open(folder: &Path, group: &str) -> Record {
        let (store, group) = ("store1".parse().unwrap(), group.parse().unwrap());
        Record::open(folder, &store, &Namespace::root(), &group, "r/s").unwrap()
    }

    #[test]
    fn a_run_that_was_cut_off_is_remembered_and_one_that_ended_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("sync");
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        open(&folder, "vm/1").add(&one).unwrap();
        let again = open(&folder, "vm/1");
        assert!(again.earlier.contains(&one) && !again.earlier.contains(&two));
        assert!(!open(&folder, "vm/2").earlier.contains(&one));
        // Cut off in the middle of a digest.
        let mut raw = std::fs::read(&again.chunks).unwrap();
        raw.extend_from_slice(&[7; 5]);
        std::fs::write(&again.chunks, raw).unwrap();
        again.add(&two).unwrap();
        let again = open(&folder, "vm/1");
        assert!(again.earlier.contains(&one) && again.earlier.contains(&two));
        let missed: BTreeSet<BackupTime> = ["2024-01-01T00:00:00Z".parse().unwrap()].into();
        again.close(&missed, false).unwrap();
        let again = open(&folder, "vm/1");
        assert!(again.earlier.contains(&one));
        assert_eq!(again.retry, missed);
        again.close(&BTreeSet::new(), true).unwrap();
        let again = open(&folder, "vm/1");
        assert!(!again.earlier.contains(&one) && again.retry.is_empty());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }
}
