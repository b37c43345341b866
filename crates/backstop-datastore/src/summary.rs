//! Summaries of snapshots: what a list shows of each, remembered in memory so that a list of very many is a matter of looking
//! at their directories, not of reading their manifests.
//!
//! A summary is derived and never trusted blindly. It is used as long as inode and times of the snapshot's directory and of its
//! manifest are what they were *before* it was made, whoever works on the directory. The kernel's clock for files is coarse, so
//! what had changed within the last seconds before it was read is read again the next time. The names of a group's
//! snapshots are remembered in the same way. Nothing is written to disk.

use std::collections::HashMap;
use std::ffi::CStr;
use std::hash::BuildHasher;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use backstop_format::manifest::Manifest;
use backstop_types::{ArchiveName, BackupGroup, BackupTime, Namespace};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use crate::clock;
use crate::datastore::Datastore;
use crate::digest_set::DigestHash;
use crate::error::{DatastoreError, Result};
use crate::parallel;
use crate::snapshot::SnapshotInfo;

/// What changed this short before it was read, in seconds, may have changed again without a trace.
const COARSE: i64 = 3;
/// Memory for summaries, in bytes. What does not fit is read each time.
const BUDGET: usize = 256 << 20;
/// Memory that a summary needs besides its text, in bytes.
const OVERHEAD: usize = size_of::<Summary>() + 16;
/// Length of a snapshot directory's name.
const NAME: usize = 20;

/// Makes the text of a summary of a snapshot, of its manifest, and of the manifest's size in bytes. The manifest is absent
/// when it cannot be read, or the snapshot is unfinished.
pub type Summarise<'a> = dyn Fn(&SnapshotInfo, Option<(&Manifest, u64)>) -> String + Sync + 'a;

/// Shows the group with a number of the list, given the texts of its snapshots, newest first.
pub type Show<'a, T> = dyn Fn(usize, &mut dyn Iterator<Item = &str>) -> T + Sync + 'a;

/// Identity and times of a file or directory, mixed with a number that nobody knows; `None` when it does not exist or changed
/// too recently to be sure.
type Stamp = Option<u64>;

#[derive(Clone)]
struct Summary {
    time: BackupTime,
    directory: Stamp,
    manifest: Stamp,
    text: Arc<str>,
}

struct Group {
    directory: Stamp,
    /// Newest first.
    summaries: Vec<Summary>,
    bytes: usize,
}

struct Remembered {
    group: Arc<Group>,
    /// The listing that used it last.
    used: u64,
}

#[derive(Default)]
struct Groups {
    by_path: HashMap<PathBuf, Remembered>,
    bytes: usize,
    listing: u64,
}

/// The summaries of a datastore.
pub(crate) struct Summaries {
    groups: Mutex<Groups>,
    hash: DigestHash,
    /// [`COARSE`]; tests do not wait for it.
    coarse: AtomicI64,
}

impl Default for Summaries {
    fn default() -> Self {
        Summaries {
            groups: Mutex::default(),
            hash: DigestHash::default(),
            coarse: AtomicI64::new(COARSE),
        }
    }
}

impl Datastore {
    /// What `show` makes of each group, given the summaries of its snapshots; on several threads. A snapshot that vanished
    /// meanwhile is left out; a group that did has none.
    ///
    /// What `summarise` makes is remembered, so it must depend on its arguments alone and be the same function in all calls.
    ///
    /// # Errors
    /// The disk fails.
    pub fn summaries<T: Send>(
        &self,
        namespace: &Namespace,
        groups: &[BackupGroup],
        summarise: &Summarise,
        show: &Show<T>,
    ) -> Result<Vec<T>> {
        self.check_present()?;
        let listing = {
            let mut known = self.summaries.groups.lock();
            known.listing += 1;
            known.listing
        };
        let parts = parallel::each(
            parallel::disk_threads(),
            groups.len(),
            Vec::new,
            |found, number| {
                if let Some(group) = groups.get(number) {
                    let summaries = self.group_summaries(namespace, group, summarise, listing)?;
                    let summaries = summaries.iter().flat_map(|group| &group.summaries);
                    let shown = show(number, &mut summaries.map(|summary| &*summary.text));
                    found.push((number, shown));
                }
                Ok(())
            },
        )?;
        let mut all: Vec<_> = parts.into_iter().flatten().collect();
        all.sort_unstable_by_key(|(number, _)| *number);
        Ok(all.into_iter().map(|(_, shown)| shown).collect())
    }

    /// Forgets all summaries, which frees their memory.
    pub fn forget_summaries(&self) {
        let mut known = self.summaries.groups.lock();
        known.by_path = HashMap::new();
        known.bytes = 0;
    }

    /// `None`: the group vanished.
    fn group_summaries(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
        summarise: &Summarise,
        listing: u64,
    ) -> Result<Option<Arc<Group>>> {
        let path = self.group_path(namespace, group);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                self.summaries.remember(path, None, listing);
                return Ok(None);
            }
            other => other.map_err(DatastoreError::sys("list", &path))?,
        };
        let known = self.summaries.recall(&path, listing);
        let look = Look {
            summaries: &self.summaries,
            dir,
            path: &path,
        };
        let directory = look.stamp(c"", AtFlags::EMPTY_PATH)?.stamp;
        let is_current = |group: &&Arc<Group>| directory.is_some() && group.directory == directory;
        if let Some(current) = known.as_ref().filter(is_current)
            && look.are_unchanged(&current.summaries)?
        {
            return Ok(known);
        }
        let times = match known.as_ref().filter(is_current) {
            Some(current) => current
                .summaries
                .iter()
                .map(|summary| summary.time)
                .collect(),
            None => self.snapshot_times(namespace, group)?,
        };
        let mut old = HashMap::new();
        for summary in known.iter().flat_map(|group| &group.summaries) {
            old.insert(summary.time, summary);
        }
        let mut summaries = Vec::with_capacity(times.len());
        for time in times {
            let Some((directory, manifest)) = look.snapshot(time)? else {
                continue;
            };
            let unchanged = old.get(&time).filter(|summary| {
                directory.is_some()
                    && (summary.directory, summary.manifest) == (directory, manifest)
            });
            match unchanged {
                Some(summary) => summaries.push((*summary).clone()),
                None => summaries.extend(self.summarise(
                    namespace,
                    group,
                    Summary {
                        time,
                        directory,
                        manifest,
                        text: Arc::from(""),
                    },
                    summarise,
                )?),
            }
        }
        let texts: usize = summaries.iter().map(|summary| summary.text.len()).sum();
        let group = Arc::new(Group {
            directory,
            bytes: texts + summaries.len() * OVERHEAD,
            summaries,
        });
        self.summaries
            .remember(path, Some(Arc::clone(&group)), listing);
        Ok(Some(group))
    }

    /// Reads a snapshot. `None`: it vanished.
    fn summarise(
        &self,
        namespace: &Namespace,
        group: &BackupGroup,
        mut summary: Summary,
        summarise: &Summarise,
    ) -> Result<Option<Summary>> {
        let snapshot = group.snapshot(summary.time);
        let info = match self.snapshot_info(namespace, &snapshot) {
            Err(DatastoreError::NoSuchSnapshot(_)) => return Ok(None),
            other => other?,
        };
        let manifest = if info.is_finished() {
            self.load_manifest(namespace, &snapshot)
                .inspect_err(|error| {
                    // Health tells of it, once.
                    tracing::debug!(store = %self.name(), %snapshot, %error, "unable to read a manifest");
                    // The next time it may be readable.
                    summary.directory = None;
                })
                .ok()
        } else {
            None
        };
        let manifest = manifest.as_ref().map(|(manifest, size)| (manifest, *size));
        summary.text = summarise(&info, manifest).into();
        Ok(Some(summary))
    }
}

impl Summaries {
    fn recall(&self, path: &PathBuf, listing: u64) -> Option<Arc<Group>> {
        let mut groups = self.groups.lock();
        let found = groups.by_path.get_mut(path)?;
        found.used = listing;
        Some(Arc::clone(&found.group))
    }

    /// Replaces what is remembered of a group. When the budget is used up, what this listing has not used is forgotten.
    fn remember(&self, path: PathBuf, group: Option<Arc<Group>>, listing: u64) {
        let mut guard = self.groups.lock();
        let groups = &mut *guard;
        if let Some(old) = groups.by_path.remove(&path) {
            groups.bytes -= old.group.bytes;
        }
        let Some(group) = group else { return };
        if groups.bytes + group.bytes > BUDGET {
            groups.by_path.retain(|_, other| other.used == listing);
            groups.bytes = groups.by_path.values().map(|other| other.group.bytes).sum();
        }
        if groups.bytes + group.bytes <= BUDGET {
            groups.bytes += group.bytes;
            let used = listing;
            groups.by_path.insert(path, Remembered { group, used });
        }
    }
}

/// Looks at the directories of a group.
struct Look<'a> {
    summaries: &'a Summaries,
    dir: OwnedFd,
    path: &'a PathBuf,
}

struct Seen {
    exists: bool,
    stamp: Stamp,
}

impl Look<'_> {
    fn stamp(&self, name: &CStr, flags: AtFlags) -> Result<Seen> {
        let coarse = self.summaries.coarse.load(Ordering::Relaxed);
        let settled_before = clock::now() - coarse;
        let wanted = StatxFlags::INO
            | StatxFlags::SIZE
            | StatxFlags::MTIME
            | StatxFlags::CTIME
            | StatxFlags::TYPE;
        let found = match rustix::fs::statx(&self.dir, name, flags, wanted) {
            Err(Errno::NOENT | Errno::NOTDIR) => {
                return Ok(Seen {
                    exists: false,
                    stamp: None,
                });
            }
            other => other.map_err(DatastoreError::sys("look at a snapshot of", self.path))?,
        };
        let (mtime, ctime) = (found.stx_mtime, found.stx_ctime);
        let is_settled = mtime.tv_sec.max(ctime.tv_sec) < settled_before;
        let stamp = is_settled.then(|| {
            self.summaries.hash.hash_one((
                found.stx_ino,
                found.stx_size,
                [mtime.tv_sec, ctime.tv_sec],
                [mtime.tv_nsec, ctime.tv_nsec],
            ))
        });
        Ok(Seen {
            exists: true,
            stamp,
        })
    }

    /// The stamps of a snapshot's directory and manifest. The first is `None` unless both are sure. `None`: it does not exist.
    fn snapshot(&self, time: BackupTime) -> Result<Option<(Stamp, Stamp)>> {
        use std::io::Write;
        // "2024-01-01T00:00:00Z/index.json.blob" with a zero byte at the end.
        let mut name = [0; NAME + 1 + ArchiveName::MANIFEST.len() + 1];
        name[NAME + 1..][..ArchiveName::MANIFEST.len()]
            .copy_from_slice(ArchiveName::MANIFEST.as_bytes());
        if write!(&mut name[..NAME], "{time}").is_err() {
            return Ok(Some((None, None)));
        }
        fn c_name(name: &[u8]) -> &CStr {
            CStr::from_bytes_until_nul(name).unwrap_or_default()
        }
        let directory = self.stamp(c_name(&name), AtFlags::SYMLINK_NOFOLLOW)?;
        if !directory.exists {
            return Ok(None);
        }
        name[NAME] = b'/';
        let manifest = self.stamp(c_name(&name), AtFlags::SYMLINK_NOFOLLOW)?;
        if manifest.exists && manifest.stamp.is_none() {
            return Ok(Some((None, None)));
        }
        Ok(Some((directory.stamp, manifest.stamp)))
    }

    fn are_unchanged(&self, summaries: &[Summary]) -> Result<bool> {
        for summary in summaries {
            let unchanged = match self.snapshot(summary.time)? {
                Some((directory, manifest)) => {
                    directory.is_some()
                        && (summary.directory, summary.manifest) == (directory, manifest)
                }
                None => false,
            };
            if !unchanged {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
