//! Promises of summaries: a list shows what is there, whoever changed it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use backstop_types::Snapshot;

use super::*;
use crate::fixture::TestStore;

const ROOT: Namespace = Namespace::root();

/// Lists one group, and counts how many snapshots were read for that.
struct Lister {
    test: TestStore,
    group: BackupGroup,
    read: AtomicUsize,
}

impl Lister {
    fn new(snapshots: usize) -> Self {
        let test = TestStore::empty();
        for day in 1..=snapshots {
            test.backup(&format!("vm/1/2024-01-{day:02}T00:00:00Z"), &[b"content"]);
        }
        Lister {
            test,
            group: "vm/1".parse().unwrap(),
            read: AtomicUsize::new(0),
        }
    }

    fn snapshot(&self, day: u32) -> Snapshot {
        format!("vm/1/2024-01-{day:02}T00:00:00Z").parse().unwrap()
    }

    fn path(&self, day: u32) -> PathBuf {
        self.test.store.snapshot_path(&ROOT, &self.snapshot(day))
    }

    /// Each snapshot as "day files notes", newest first.
    fn list(&self) -> Vec<String> {
        let groups = [self.group.clone()];
        let texts: Vec<Vec<String>> = self
            .test
            .store
            .summaries(
                &ROOT,
                &groups,
                &|info, manifest| {
                    self.read.fetch_add(1, Ordering::Relaxed);
                    let day = info.snapshot.time.to_string()[8..10].to_owned();
                    let notes = manifest.and_then(|(manifest, _)| manifest.notes().lines().next());
                    let protected = if info.protected { " protected" } else { "" };
                    format!(
                        "{day} {}{protected} {}",
                        info.files.len(),
                        notes.unwrap_or_default()
                    )
                },
                &|_, texts| texts.map(str::to_owned).collect(),
            )
            .unwrap();
        texts[0]
            .iter()
            .map(|text| text.trim_end().to_owned())
            .collect()
    }

    fn reads(&self) -> usize {
        self.read.swap(0, Ordering::Relaxed)
    }

    /// Trusts what was just written, and goes on when the clock of files has moved, so that a further change has another time.
    fn settle(&self) {
        self.test
            .store
            .summaries
            .coarse
            .store(-60, Ordering::Relaxed);
        self.list();
        self.list();
        self.reads();
        let probe = self.test.dir.path().join("probe");
        let now = || {
            std::fs::write(&probe, "x").unwrap();
            let metadata = probe.metadata().unwrap();
            (metadata.ctime(), metadata.ctime_nsec())
        };
        let start = now();
        assert!(
            (0..10_000_000).any(|_| now() != start),
            "the clock stands still"
        );
    }
}

#[test]
fn what_was_just_written_is_read_again_because_the_clock_of_files_is_coarse() {
    let lister = Lister::new(3);
    assert_eq!(lister.list(), ["03 2", "02 2", "01 2"]);
    assert_eq!(lister.reads(), 3);
    assert_eq!(lister.list(), ["03 2", "02 2", "01 2"]);
    assert_eq!(lister.reads(), 3);
}

#[test]
fn every_change_of_a_settled_directory_is_seen() {
    let lister = Lister::new(3);
    lister.settle();
    let store = &lister.test.store;
    // Through the library, as a stock server does it: files are replaced.
    store
        .set_notes(&ROOT, &lister.snapshot(2), "by us")
        .unwrap();
    assert_eq!(lister.list(), ["03 2", "02 2 by us", "01 2"]);
    lister.settle();
    store
        .set_protected(&ROOT, &lister.snapshot(1), true)
        .unwrap();
    assert_eq!(lister.list(), ["03 2", "02 2 by us", "01 2 protected"]);
    lister.settle();
    // By hand: a manifest overwritten in place leaves its directory as it was.
    let bytes = std::fs::read(lister.path(2).join(ArchiveName::MANIFEST)).unwrap();
    std::fs::write(lister.path(3).join(ArchiveName::MANIFEST), bytes).unwrap();
    assert_eq!(
        lister.list(),
        ["03 2 by us", "02 2 by us", "01 2 protected"]
    );
    lister.settle();
    std::fs::remove_file(lister.path(3).join(ArchiveName::MANIFEST)).unwrap();
    assert_eq!(lister.list()[0], "03 1");
    lister.settle();
    std::fs::write(lister.path(3).join("client.log.blob"), "x").unwrap();
    assert_eq!(lister.list()[0], "03 2");
    lister.settle();
    std::fs::remove_dir_all(lister.path(3)).unwrap();
    assert_eq!(lister.list(), ["02 2 by us", "01 2 protected"]);
    lister.settle();
    // Another directory under the same name, with the times of the old one.
    let old = lister.path(2).metadata().unwrap();
    std::fs::rename(lister.path(2), lister.test.path().join("aside")).unwrap();
    lister.test.backup("vm/1/2024-01-02T00:00:00Z", &[b"other"]);
    crate::fixture::set_times(&lister.path(2), old.mtime());
    assert_eq!(lister.list(), ["02 2", "01 2 protected"]);
    lister.settle();
    lister.test.backup("vm/1/2024-01-09T00:00:00Z", &[b"new"]);
    assert_eq!(lister.list(), ["09 2", "02 2", "01 2 protected"]);
}

#[test]
fn a_manifest_that_cannot_be_read_is_tried_again() {
    let lister = Lister::new(1);
    let manifest = lister.path(1).join(ArchiveName::MANIFEST);
    let good = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, "damaged").unwrap();
    lister.list();
    assert_eq!(lister.reads(), 1);
    lister.list();
    assert_eq!(lister.reads(), 1);
    std::fs::write(&manifest, good).unwrap();
    assert_eq!(lister.list(), ["01 2"]);
}

#[test]
fn an_unchanged_group_is_not_read_again_until_it_is_forgotten() {
    let lister = Lister::new(5);
    lister.settle();
    lister.list();
    assert_eq!(lister.reads(), 0);
    lister.test.store.forget_summaries();
    assert_eq!(lister.list().len(), 5);
    assert_eq!(lister.reads(), 5);
    let group = lister.test.store.group_path(&ROOT, &lister.group);
    std::fs::remove_dir_all(group).unwrap();
    assert_eq!(lister.list(), [""; 0]);
    assert_eq!(lister.test.store.summaries.groups.lock().bytes, 0);
}
