//! Killing the process at every stage of garbage collection, while backups run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use backstop_format::index::ChunkIndex;
use backstop_types::{BackupGroup, Namespace, Snapshot, Tuning};

use super::tests::{all_indexes, run_backup};
use super::*;
use crate::fixture::{Lines, TestStore, age_all_chunks, tuning};

const ROOT: Namespace = Namespace::root();
const STORE: &str = "BACKSTOP_TEST_KILLED_STORE";
const MOMENT: &str = "BACKSTOP_TEST_KILLED_MOMENT";
/// Moments at which the process is killed.
const MOMENTS: usize = 40;

/// Kills this process, as the kernel does, when the collection asks for the n-th time whether it should go on.
struct Killer {
    left: AtomicUsize,
}

impl TaskLog for Killer {
    fn info(&self, _line: &str) {}
    fn warn(&self, _line: &str) {}
    fn is_aborted(&self) -> bool {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 0 {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .unwrap();
        }
        false
    }
}

fn impatient() -> Tuning {
    Tuning {
        gc_atime_cutoff_minutes: 0,
        ..tuning()
    }
}

fn finished_list(dir: &Path) -> PathBuf {
    dir.join("finished")
}

/// Not a test of its own: what the test below starts and lets die.
#[test]
#[ignore = "started by the test that kills it"]
fn a_process_to_be_killed() {
    let Ok(dir) = std::env::var(STORE) else {
        return;
    };
    let moment = std::env::var(MOMENT).unwrap().parse().unwrap();
    let test = TestStore::reopen(Path::new(&dir));
    test.store.set_tuning(impatient()).unwrap();
    let killer = Killer {
        left: AtomicUsize::new(moment),
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (test, stop) = (&test, &stop);
        scope.spawn(move || {
            let group: BackupGroup = "host/h".parse().unwrap();
            let mut finished = OpenOptions::new()
                .append(true)
                .create(true)
                .open(finished_list(Path::new(&dir)))
                .unwrap();
            let first = test
                .store
                .snapshot_times(&ROOT, &group)
                .unwrap()
                .first()
                .map_or(0, |time| time.epoch());
            for time in first + 1..first + 1000 {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let snapshot = group.snapshot(BackupTime::new(time).unwrap());
                run_backup(test, &group, time, time as u64);
                if test.store.is_finished(&ROOT, &snapshot) {
                    writeln!(finished, "{snapshot}").unwrap();
                }
            }
        });
        test.store.collect_garbage(None, &killer).unwrap();
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_killed_collection_takes_nothing_that_is_needed_and_the_next_one_finishes_its_work() {
    let test = TestStore::empty();
    for id in 1..=6 {
        let contents: Vec<String> = (0..5)
            .map(|number| format!("content {number} of {id}"))
            .collect();
        let contents: Vec<&[u8]> = contents.iter().map(String::as_bytes).collect();
        test.backup(&format!("vm/{id}/2024-01-01T00:00:00Z"), &contents);
    }
    let TestStore { dir, store } = test;
    drop(store);
    let mut killed = 0;
    for moment in 0..MOMENTS {
        let test = TestStore::reopen(dir.path());
        for number in 0..10 {
            test.insert(format!("garbage {moment} {number}").as_bytes());
        }
        age_all_chunks(&test.path());
        drop(test);
        let status = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "gc::kill_tests::a_process_to_be_killed",
                "--ignored",
            ])
            .env(STORE, dir.path())
            .env(MOMENT, moment.to_string())
            .output()
            .unwrap()
            .status;
        killed += usize::from(!status.success());
        check(dir.path());
    }
    assert!(killed >= MOMENTS / 2, "only {killed} were killed");

    // What is left over by all of them goes, and nothing else.
    let test = TestStore::reopen(dir.path());
    test.store.set_tuning(impatient()).unwrap();
    age_all_chunks(&test.path());
    let status = test.store.collect_garbage(None, &Lines::default()).unwrap();
    check(dir.path());
    let needed: std::collections::BTreeSet<_> = all_indexes(&test)
        .iter()
        .flat_map(|(_, index)| {
            (0..index.chunk_count())
                .map(|i| *index.digest(i).unwrap())
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(status.disk_chunks, needed.len() as u64);
    assert_eq!(status.pending_chunks, 0);
}

/// Everything that was finished is there, with all its chunks; nobody holds a lock.
fn check(dir: &Path) {
    let test = TestStore::reopen(dir);
    for (snapshot, index) in all_indexes(&test) {
        for digest in (0..index.chunk_count()).filter_map(|i| index.digest(i)) {
            assert!(
                test.store.chunks().contains(digest).unwrap(),
                "{snapshot} lost {digest}"
            );
        }
    }
    let finished = std::fs::read_to_string(finished_list(dir)).unwrap_or_default();
    for line in finished.lines() {
        let snapshot: Snapshot = line.parse().unwrap();
        assert!(
            test.store.is_finished(&ROOT, &snapshot),
            "{snapshot} is gone"
        );
    }
    test.store
        .lock_group(&ROOT, &"host/h".parse().unwrap())
        .unwrap();
}
