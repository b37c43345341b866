//! Which snapshots were found to be the same at source and target, and what the source's list showed of them then.
//!
//! Comparing the newest snapshot of a group costs a session with the source. So a job remembers what the list of the source
//! showed when it compared, and what the manifest here was; while neither has changed, nothing is asked. A change that the
//! list does not show (the text of a note below its first line, if it takes as many bytes as before) is found within
//! [`TRUSTED`], as a comparison counts no longer than that. Losing the file costs these comparisons, nothing else.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use backstop_datastore::ownership;
use backstop_format::Digest;
use backstop_types::{BackupGroup, BackupTime, Namespace};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// How long a comparison counts, in seconds.
const TRUSTED: i64 = 7 * 86_400;
/// Most that is read of a file, in bytes: some hundred thousand groups.
const MAX_SIZE: u64 = 128 << 20;

/// A snapshot that was compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// The namespace of the target.
    ns: String,
    group: String,
    /// Seconds since 1970.
    time: i64,
    /// Of what the source lists of it.
    listed: String,
    /// Of the manifest here.
    manifest: String,
    /// When it was compared, in seconds since 1970.
    when: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    /// From where to where; another one than that of the job now makes the rest void.
    way: String,
    snapshots: Vec<Entry>,
}

/// What a job remembers of its comparisons.
pub(super) struct Compared {
    path: PathBuf,
    way: String,
    earlier: HashMap<(String, String), Entry>,
    now: Mutex<Vec<Entry>>,
}

/// What identifies both sides of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sides {
    /// Of what the source lists of it.
    pub listed: Digest,
    /// Of the manifest here.
    pub manifest: Digest,
}

impl Compared {
    /// Reads what a job that copies on this `way` remembers. Blocking.
    pub fn open(path: PathBuf, way: &str) -> Self {
        let content = match read(&path) {
            Ok(content) => content.filter(|content| content.way == way),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what a sync has compared is not known");
                None
            }
        };
        let entries = content.map(|content| content.snapshots).unwrap_or_default();
        let entries = entries.into_iter();
        Self {
            path,
            way: way.to_owned(),
            earlier: entries
                .map(|entry| ((entry.ns.clone(), entry.group.clone()), entry))
                .collect(),
            now: Mutex::default(),
        }
    }

    /// Whether a snapshot, in this namespace of the target, was compared and is as it was then. Then that is remembered on.
    pub fn is_same(
        &self,
        ns: &Namespace,
        group: &BackupGroup,
        time: BackupTime,
        sides: Sides,
        now: i64,
    ) -> bool {
        let Some(entry) = self.earlier.get(&(ns.to_string(), group.to_string())) else {
            return false;
        };
        let is_same = entry.time == time.epoch()
            && entry.listed == sides.listed.to_string()
            && entry.manifest == sides.manifest.to_string()
            && (entry.when..entry.when.saturating_add(TRUSTED)).contains(&now);
        if is_same {
            self.now.lock().push(entry.clone());
        }
        is_same
    }

    /// Notes that both sides of a snapshot are the same.
    pub fn note(
        &self,
        ns: &Namespace,
        group: &BackupGroup,
        time: BackupTime,
        sides: Sides,
        now: i64,
    ) {
        self.now.lock().push(Entry {
            ns: ns.to_string(),
            group: group.to_string(),
            time: time.epoch(),
            listed: sides.listed.to_string(),
            manifest: sides.manifest.to_string(),
            when: now,
        });
    }

    /// Writes what is remembered from now on: what this run has seen. Blocking.
    pub fn close(&self) -> io::Result<()> {
        let snapshots = std::mem::take(&mut *self.now.lock());
        let is_old = snapshots.len() == self.earlier.len()
            && snapshots.iter().all(|entry| {
                let key = (entry.ns.clone(), entry.group.clone());
                self.earlier.get(&key) == Some(entry)
            });
        if is_old {
            return Ok(());
        }
        let content = Content {
            way: self.way.clone(),
            snapshots,
        };
        let temporary = self.path.with_extension("compared-tmp");
        std::fs::write(&temporary, serde_json::to_vec(&content)?)?;
        ownership::inherit(&File::open(&temporary)?, &temporary)?;
        std::fs::rename(&temporary, &self.path)
    }
}

fn read(path: &Path) -> io::Result<Option<Content>> {
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_SIZE).read_to_end(&mut text)) {
        Ok(_) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_comparison_counts_while_both_sides_are_as_they_were_and_for_a_week() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("syncjob-x.compared");
        let (ns, group): (Namespace, BackupGroup) =
            ("a/b".parse().unwrap(), "vm/1".parse().unwrap());
        let time = |epoch| BackupTime::new(epoch).unwrap();
        let sides = Sides {
            listed: Digest::of(b"listed"),
            manifest: Digest::of(b"manifest"),
        };
        let first = Compared::open(path.clone(), "r/s");
        assert!(!first.is_same(&ns, &group, time(7), sides, 1000));
        first.note(&ns, &group, time(7), sides, 1000);
        first.close().unwrap();
        let other = |way: &str| Compared::open(path.clone(), way);
        let again = other("r/s");
        assert!(again.is_same(&ns, &group, time(7), sides, 1000));
        for (time, sides, now) in [
            (time(8), sides, 1000),
            (
                time(7),
                Sides {
                    listed: Digest::of(b"x"),
                    ..sides
                },
                1000,
            ),
            (
                time(7),
                Sides {
                    manifest: Digest::of(b"x"),
                    ..sides
                },
                1000,
            ),
            (time(7), sides, 1000 + TRUSTED),
            // A clock that was set back says nothing of how long ago that was.
            (time(7), sides, 999),
        ] {
            assert!(!again.is_same(&ns, &group, time, sides, now));
        }
        again.close().unwrap();
        assert!(!other("r/t").is_same(&ns, &group, time(7), sides, 1000));
        // Nothing was seen of the group in this run: it is forgotten.
        other("r/s").close().unwrap();
        assert!(!other("r/s").is_same(&ns, &group, time(7), sides, 1000));
        std::fs::write(&path, "nonsense").unwrap();
        assert!(!other("r/s").is_same(&ns, &group, time(7), sides, 1000));
    }
}
