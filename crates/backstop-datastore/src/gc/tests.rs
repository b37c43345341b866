//! Promises of garbage collection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use backstop_format::Digest;
use backstop_format::blob::DataBlob;
use backstop_format::index::{ChunkIndex, DynamicIndexBuilder};
use backstop_types::{AuthId, BackupGroup, Namespace, Snapshot, Tuning};

use super::*;
use crate::fixture::{Lines, TestStore, age, age_all_chunks, manifest, set_times, tuning};
use crate::lock_file::LockMode;

const ROOT: Namespace = Namespace::root();

fn collect(test: &TestStore) -> GcStatus {
    test.store
        .collect_garbage(Some("UPID:test"), &Lines::default())
        .unwrap()
}

#[test]
fn the_cutoff_never_passes_the_oldest_writer() {
    let day = 86_700;
    assert_eq!(
        Cutoff::new(1_000_000, 1445, None),
        Cutoff {
            min_atime: 999_999 - day,
            oldest_writer: 1_000_000
        }
    );
    assert_eq!(
        Cutoff::new(1_000_000, 1445, Some(999_000)).min_atime,
        999_999 - day
    );
    let old = Cutoff::new(1_000_000, 1445, Some(500_000));
    assert_eq!(
        old,
        Cutoff {
            min_atime: 499_700,
            oldest_writer: 500_000
        }
    );
    assert_eq!(
        Cutoff::new(1_000_000, 1445, Some(1_000_005)).oldest_writer,
        1_000_000
    );
}

#[test]
fn only_old_chunks_that_no_index_names_are_removed() {
    let test = TestStore::empty();
    test.backup("vm/1/2024-01-01T00:00:00Z", &[b"used", b"shared"]);
    test.backup("vm/2/2024-01-01T00:00:00Z", &[b"shared", b"more"]);
    test.insert(b"garbage");
    age_all_chunks(&test.path());
    test.insert(b"young");
    let status = collect(&test);
    assert!(
        [&b"used"[..], b"shared", b"more", b"young"]
            .iter()
            .all(|content| test.has(content))
    );
    assert!(!test.has(b"garbage"));
    assert_eq!(
        (status.index_file_count, status.index_data_bytes),
        (2, 10 + 10)
    );
    assert_eq!((status.removed_chunks, status.removed_bytes), (1, 12 + 7));
    assert_eq!(
        (
            status.pending_chunks + status.disk_chunks,
            status.upid.as_deref()
        ),
        (4, Some("UPID:test"))
    );
    assert_eq!(status.cache_stats, Some(CacheStats { hits: 1, misses: 3 }));
    // The next opener sees the same.
    assert_eq!(gc_status::load(&test.path()), status);
    assert_eq!(test.store.gc_status(), status);
}

#[test]
fn marked_chunks_are_touched_for_a_stock_server_that_shares_the_store() {
    use std::os::unix::fs::MetadataExt;
    let test = TestStore::empty();
    test.backup("vm/1/2024-01-01T00:00:00Z", &[b"used"]);
    age_all_chunks(&test.path());
    collect(&test);
    let path = test.store.chunks().chunk_path(&Digest::of(b"used"));
    assert!(path.metadata().unwrap().atime() >= clock::now() - 60);
}

#[test]
fn unused_chunks_of_less_than_the_cutoff_are_pending() {
    let test = TestStore::empty();
    let digest = test.insert(b"left by a backup that failed");
    let path = test.store.chunks().chunk_path(&digest);
    set_times(&path, clock::now() - 3600);
    let status = collect(&test);
    assert_eq!(
        (
            status.pending_chunks,
            status.removed_chunks,
            status.disk_chunks
        ),
        (1, 0, 0)
    );
    test.store
        .set_tuning(Tuning {
            gc_atime_cutoff_minutes: 59,
            ..tuning()
        })
        .unwrap();
    assert_eq!(collect(&test).removed_chunks, 1);
}

#[test]
fn chunks_that_a_running_backup_touched_stay_however_long_it_runs() {
    let test = TestStore::empty();
    test.store
        .set_tuning(Tuning {
            gc_atime_cutoff_minutes: 0,
            ..tuning()
        })
        .unwrap();
    let digest = test.insert(b"not yet in an index");
    let path = test.store.chunks().chunk_path(&digest);
    let writer = test.store.hold_writer().unwrap();
    test.store.process_lock.backdate_writers(3600);
    set_times(&path, clock::now() - 3000);
    assert_eq!(collect(&test).removed_chunks, 0);
    drop(writer);
    assert_eq!(collect(&test).removed_chunks, 1);
}

#[test]
fn an_index_in_an_unexpected_place_keeps_its_chunks() {
    let test = TestStore::empty();
    let snapshot = test.backup("vm/1/2024-01-01T00:00:00Z", &[b"used"]);
    let index = test
        .store
        .snapshot_path(&ROOT, &snapshot)
        .join("root.pxar.didx");
    std::fs::create_dir(test.path().join("saved")).unwrap();
    std::fs::rename(index, test.path().join("saved/copy.didx")).unwrap();
    age_all_chunks(&test.path());
    let lines = Lines::default();
    test.store.collect_garbage(None, &lines).unwrap();
    assert!(test.has(b"used"));
    assert!(lines.warnings.lock()[0].starts_with("Marked chunks for unexpected index file at"));
}

#[test]
fn an_index_that_cannot_be_read_stops_everything() {
    let test = TestStore::empty();
    test.backup("vm/1/2024-01-01T00:00:00Z", &[b"used"]);
    let other = test.backup("vm/2/2024-01-01T00:00:00Z", &[b"other"]);
    test.insert(b"garbage");
    age_all_chunks(&test.path());
    let index = test
        .store
        .snapshot_path(&ROOT, &other)
        .join("root.pxar.didx");
    let mut raw = std::fs::read(&index).unwrap();
    *raw.last_mut().unwrap() ^= 1;
    std::fs::write(&index, raw).unwrap();
    let error = test
        .store
        .collect_garbage(None, &Lines::default())
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("vm/2/2024-01-01T00:00:00Z/root.pxar.didx"),
        "{error}"
    );
    assert!(test.has(b"garbage") && test.has(b"other"));
    assert_eq!(test.store.gc_status(), GcStatus::default());
}

#[test]
fn corrupt_copies_of_missing_chunks_are_kept_while_they_are_named() {
    let test = TestStore::empty();
    let snapshot = test.backup("vm/1/2024-01-01T00:00:00Z", &[b"used"]);
    let digest = Digest::of(b"used");
    test.store.chunks().mark_corrupt(&digest).unwrap();
    age_all_chunks(&test.path());
    let lines = Lines::default();
    let status = test.store.collect_garbage(None, &lines).unwrap();
    assert_eq!((status.removed_bad, status.still_bad), (0, 0));
    let warning = format!("warning: unable to access non-existent chunk {digest}, required by ");
    assert!(lines.warnings.lock()[0].starts_with(&warning));
    test.store.remove_snapshot(&ROOT, &snapshot, false).unwrap();
    assert_eq!(collect(&test).removed_bad, 0, "young");
    age_all_chunks(&test.path());
    assert_eq!(collect(&test).removed_bad, 1);
}

#[test]
fn leftovers_of_crashes_go_and_foreign_files_stay() {
    let test = TestStore::empty();
    let path = test.store.chunks().chunk_path(&test.insert(b"x"));
    let temporary = path.with_extension("tmp_aB3dE9");
    let foreign = path.with_file_name("README");
    // A chunk in the directory of others is found by nobody, and not judged either.
    let misplaced = path.with_file_name(Digest::of(b"misplaced").to_string());
    let hidden = path.with_file_name(".nfs0000000000000001");
    for file in [&temporary, &foreign, &misplaced, &hidden] {
        std::fs::write(file, "x").unwrap();
        age(file);
    }
    let young = path.with_extension("tmp_fresh1");
    std::fs::write(&young, "x").unwrap();
    std::fs::create_dir(test.path().join(".chunks/saved")).unwrap();
    let lines = Lines::default();
    let status = test.store.collect_garbage(None, &lines).unwrap();
    assert!(!temporary.exists() && young.exists());
    assert!(
        [&foreign, &misplaced, &hidden]
            .iter()
            .all(|file| file.exists())
    );
    assert_eq!((status.disk_chunks, status.removed_chunks), (1, 0));
    let warning = "3 entries of the chunk store are no chunks and were left alone, for example";
    assert!(
        lines.warnings.lock()[0].starts_with(warning),
        "{:?}",
        lines.warnings.lock()
    );
}

#[test]
fn an_empty_file_in_place_of_a_chunk_is_reported() {
    let test = TestStore::empty();
    test.backup("vm/1/2024-01-01T00:00:00Z", &[b"used", b"good"]);
    let path = test.store.chunks().chunk_path(&Digest::of(b"used"));
    std::fs::write(&path, "").unwrap();
    let lines = Lines::default();
    test.store.collect_garbage(None, &lines).unwrap();
    let warnings = lines.warnings.lock();
    assert!(
        warnings[0].starts_with("1 chunks that backups need are empty files"),
        "{warnings:?}"
    );
}

#[test]
fn chunks_behind_a_link_are_swept_like_all_others() {
    let test = TestStore::empty();
    test.backup("vm/1/2024-01-01T00:00:00Z", &[b"used"]);
    test.insert(b"garbage");
    age_all_chunks(&test.path());
    let elsewhere = test.dir.path().join("elsewhere");
    std::fs::rename(test.path().join(".chunks"), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, test.path().join(".chunks")).unwrap();
    let status = collect(&test);
    assert_eq!((status.disk_chunks, status.removed_chunks), (1, 1));
    assert!(test.has(b"used"));
}

#[test]
fn another_datastore_inside_stops_everything() {
    let test = TestStore::empty();
    test.insert(b"garbage");
    age_all_chunks(&test.path());
    std::fs::create_dir_all(test.path().join("vm/other/.chunks")).unwrap();
    let error = test
        .store
        .collect_garbage(None, &Lines::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("Aborting GC for safety reasons: "),
        "{error}"
    );
    assert!(test.has(b"garbage"));
}

#[test]
fn indexes_with_the_same_entries_count_each_and_are_read_once() {
    let test = TestStore::empty();
    for day in 1..=3 {
        test.backup(&format!("vm/1/2024-01-0{day}T00:00:00Z"), &[b"one", b"two"]);
    }
    test.backup("vm/2/2024-01-01T00:00:00Z", &[b"two", b"three"]);
    age_all_chunks(&test.path());
    let status = collect(&test);
    assert_eq!(
        (status.index_file_count, status.index_data_bytes),
        (4, 3 * 6 + 8)
    );
    assert_eq!(status.cache_stats, Some(CacheStats { hits: 5, misses: 3 }));
    assert_eq!((status.disk_chunks, status.removed_chunks), (3, 0));
}

#[test]
fn a_stopped_run_removes_nothing_before_it_has_marked_everything() {
    let test = TestStore::empty();
    for id in 1..20 {
        test.backup(
            &format!("vm/{id}/2024-01-01T00:00:00Z"),
            &[format!("used {id}").as_bytes()],
        );
    }
    test.insert(b"garbage");
    age_all_chunks(&test.path());
    let lines = Lines {
        stop_after: Some(6),
        ..Lines::default()
    };
    assert!(matches!(
        test.store.collect_garbage(None, &lines),
        Err(DatastoreError::Aborted)
    ));
    assert!(test.has(b"garbage"));
    assert!(!test.store.is_collecting_garbage());
    assert_eq!(collect(&test).removed_chunks, 1);
}

#[test]
fn access_times_are_checked_when_asked_for() {
    let test = TestStore::empty();
    test.store.set_tuning(Tuning::default()).unwrap();
    let lines = Lines::default();
    test.store.collect_garbage(None, &lines).unwrap();
    assert_eq!(
        lines.info.lock()[0],
        "Access time update check successful, proceeding with GC."
    );
    let zeros = "bb9f8df61474d25e71fa00722318cd387396ca1736605e1248821cc0de3d3af8"
        .parse()
        .unwrap();
    assert!(test.store.chunks().contains(&zeros).unwrap());
}

#[test]
fn stock_datastores_are_counted_as_stock_counts_them() {
    for release in ["pbs-3.2.4", "pbs-4.2.3"] {
        let test = TestStore::stock(release);
        let lines = Lines::default();
        let status = test.store.collect_garbage(None, &lines).unwrap();
        let indexes: Vec<u64> = all_indexes(&test)
            .iter()
            .map(|(_, index)| index.size())
            .collect();
        assert_eq!(status.index_file_count, indexes.len() as u64);
        assert_eq!(status.index_data_bytes, indexes.iter().sum::<u64>());
        assert_eq!(status.removed_chunks, 0);
        assert_eq!(*lines.warnings.lock(), [""; 0]);
    }
}

pub(super) fn all_indexes(test: &TestStore) -> Vec<(Snapshot, backstop_format::index::AnyIndex)> {
    let mut found = vec![];
    for namespace in test.store.namespaces(&ROOT, None).unwrap() {
        for group in test.store.groups(&namespace).unwrap() {
            for info in test.store.snapshots(&namespace, &group).unwrap() {
                for file in info.files.iter().filter(|file| !file.ends_with(".blob")) {
                    let index = test
                        .store
                        .load_index(&namespace, &info.snapshot, &file.parse().unwrap())
                        .unwrap();
                    found.push((info.snapshot.clone(), index));
                }
            }
        }
    }
    found
}

/// One backup as a client makes it: some chunks are taken over from the previous snapshot without a look at the store, some
/// are new, some are found in the store.
pub(super) fn run_backup(test: &TestStore, group: &BackupGroup, time: i64, round: u64) {
    let (_, _lock) = match test
        .store
        .create_group_locked(&ROOT, group, &AuthId::root())
    {
        // Garbage collection reads a group under its lock when it changes too fast.
        Err(DatastoreError::Locked { .. }) => return,
        other => other.unwrap(),
    };
    let _writer = test.store.hold_writer().unwrap();
    let previous = test.store.last_finished(&ROOT, group).unwrap();
    let _base = previous.as_ref().map(|base| {
        test.store
            .lock_snapshot(&ROOT, base, LockMode::Shared)
            .unwrap()
    });
    let snapshot = group.snapshot(BackupTime::new(time).unwrap());
    let writer = test.store.create_snapshot(&ROOT, &snapshot).unwrap();
    let name = "root.pxar.didx".parse().unwrap();
    let mut index = DynamicIndexBuilder::new();
    if let Some(previous) = &previous {
        let base = test.store.load_index(&ROOT, previous, &name).unwrap();
        let first = base.chunk_count().saturating_sub(20);
        for span in (first..base.chunk_count()).filter_map(|i| base.chunk(i)) {
            index.append(span.size(), &span.digest).unwrap();
        }
    }
    for i in 0..6u64 {
        // Some contents are new, others come back after a while.
        let content = ((round * 7 + i * i * 31) % 10_007).to_le_bytes();
        let digest = Digest::of(&content);
        test.store
            .chunks()
            .insert(&digest, &DataBlob::encode(&content, None, false).unwrap())
            .unwrap();
        index.append(8, &digest).unwrap();
    }
    let (raw, csum, size) = index.finish().unwrap();
    writer.store_index(&name, &raw).unwrap();
    writer.finish(&manifest(&snapshot, csum, size)).unwrap();
}

#[test]
fn no_chunk_of_a_finished_backup_is_removed_while_backups_and_removals_go_on() {
    let test = TestStore::empty();
    let impatient = Tuning {
        gc_atime_cutoff_minutes: 0,
        sync_level: backstop_types::SyncLevel::None,
        ..tuning()
    };
    test.store.set_tuning(impatient).unwrap();
    let (stop, removed) = (AtomicBool::new(false), AtomicU64::new(0));
    let (finished, backups) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (test, stop, finished) = (&test, &stop, finished.clone());
            scope.spawn(move || {
                let group: BackupGroup = format!("host/h{thread}").parse().unwrap();
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    run_backup(
                        test,
                        &group,
                        1_700_000_000 + round as i64,
                        round * 3 + thread,
                    );
                    let old = test
                        .store
                        .snapshot_times(&ROOT, &group)
                        .unwrap()
                        .into_iter()
                        .skip(2);
                    for time in old {
                        let _ = test
                            .store
                            .remove_snapshot(&ROOT, &group.snapshot(time), false);
                    }
                    let _ = finished.send(());
                }
            });
        }
        // Rounds until there was something to remove, so that the test is about something. Each
        // waits for a backup to end: on a busy machine rounds alone could all pass before the first.
        for round in 0..10_000 {
            if backups.recv_timeout(Duration::from_secs(60)).is_err() {
                break;
            }
            let status = test.store.collect_garbage(None, &Lines::default()).unwrap();
            removed.fetch_add(status.removed_chunks, Ordering::Relaxed);
            if round >= 5 && removed.load(Ordering::Relaxed) > 30 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(removed.into_inner() > 30);
    let indexes = all_indexes(&test);
    assert!(indexes.len() >= 3);
    for (snapshot, index) in indexes {
        for digest in (0..index.chunk_count()).filter_map(|i| index.digest(i)) {
            assert!(
                test.store.chunks().contains(digest).unwrap(),
                "{snapshot} lost {digest}"
            );
        }
    }
}

/// Lets something happen whenever garbage collection is about to read an index.
struct Intruder<F: Fn(usize) + Sync> {
    calls: parking_lot::Mutex<usize>,
    action: F,
}

impl<F: Fn(usize) + Sync> TaskLog for Intruder<F> {
    fn info(&self, _line: &str) {}
    fn warn(&self, _line: &str) {}
    fn is_aborted(&self) -> bool {
        // One thread marks, several sweep: one after the other.
        let mut calls = self.calls.lock();
        (self.action)(*calls);
        *calls += 1;
        false
    }
}

/// A backup takes over old chunks of the newest snapshot without touching them, and that snapshot is removed, while the list
/// of indexes is being worked through.
#[test]
fn chunks_taken_over_from_a_snapshot_that_is_removed_meanwhile_are_kept() {
    let group: BackupGroup = "host/h".parse().unwrap();
    // At the given moment only, or from then on at every one.
    for (moment, again) in (0..6).flat_map(|moment| [(moment, false), (moment, true)]) {
        let test = TestStore::empty();
        test.backup("ct/1/2024-01-01T00:00:00Z", &[b"first group"]);
        for time in 1..=3 {
            run_backup(&test, &group, time, time as u64);
        }
        test.backup("vm/1/2024-01-01T00:00:00Z", &[b"last group"]);
        age_all_chunks(&test.path());
        let log = Intruder {
            calls: Default::default(),
            action: |call| {
                // While garbage collection holds the group's lock, nothing can happen to it.
                if (call == moment || again && call > moment && call < 60)
                    && let Ok(lock) = test.store.lock_group(&ROOT, &group)
                {
                    drop(lock);
                    let base = test.store.last_finished(&ROOT, &group).unwrap().unwrap();
                    run_backup(&test, &group, base.time.epoch() + 1, 1000 + call as u64);
                    test.store.remove_snapshot(&ROOT, &base, false).unwrap();
                }
            },
        };
        test.store.collect_garbage(None, &log).unwrap();
        for (snapshot, index) in all_indexes(&test) {
            for digest in (0..index.chunk_count()).filter_map(|i| index.digest(i)) {
                let present = test.store.chunks().contains(digest).unwrap();
                assert!(present, "{snapshot} lost {digest} at {moment}");
            }
        }
    }
}
