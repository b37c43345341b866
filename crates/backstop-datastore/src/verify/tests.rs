//! Promises of verification.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::fixture::{Lines, TestStore};

const ROOT: Namespace = Namespace::root();
const UPID: &str = "UPID:vm:00007067:000CF758:000000E6:6B00CC99:verify:store1:root@pam:";

fn start(test: &TestStore) -> VerifyRun {
    test.store.start_verification(VerifyThreads::default())
}

fn verify(test: &TestStore, snapshot: &Snapshot) -> (VerifyOutcome, Lines) {
    let lines = Lines::default();
    let outcome = test
        .store
        .verify_snapshot(&ROOT, snapshot, UPID, &start(test), &lines)
        .unwrap();
    (outcome, lines)
}

fn recorded(test: &TestStore, snapshot: &Snapshot) -> Option<VerifyResult> {
    test.store
        .load_manifest(&ROOT, snapshot)
        .unwrap()
        .0
        .verify_state()
        .map(|state| state.state)
}

#[test]
fn everything_that_stock_servers_wrote_verifies() {
    for release in ["pbs-3.2.4", "pbs-4.2.3"] {
        let test = TestStore::stock(release);
        let (chunks, lines) = (start(&test), Lines::default());
        let mut count = 0;
        for namespace in test.store.namespaces(&ROOT, None).unwrap() {
            for group in test.store.groups(&namespace).unwrap() {
                for time in test.store.snapshot_times(&namespace, &group).unwrap() {
                    let snapshot = group.snapshot(time);
                    let outcome = test
                        .store
                        .verify_snapshot(&namespace, &snapshot, UPID, &chunks, &lines)
                        .unwrap();
                    assert_eq!(
                        outcome,
                        VerifyOutcome::Ok,
                        "{snapshot} {:?}",
                        lines.warnings.lock()
                    );
                    count += 1;
                }
            }
        }
        assert!(count > 10);
    }
}

#[test]
fn a_corrupt_chunk_is_set_aside_and_a_new_backup_repairs_all_snapshots() {
    let test = TestStore::empty();
    let first = test.backup("vm/1/2024-01-01T00:00:00Z", &[b"good", b"content"]);
    let second = test.backup("vm/1/2024-01-02T00:00:00Z", &[b"content"]);
    let path = test.store.chunks().chunk_path(&Digest::of(b"content"));
    let mut raw = std::fs::read(&path).unwrap();
    *raw.last_mut().unwrap() ^= 1;
    std::fs::write(&path, raw).unwrap();

    let (outcome, lines) = verify(&test, &first);
    assert_eq!(
        (outcome, recorded(&test, &first)),
        (VerifyOutcome::Failed, Some(VerifyResult::Failed))
    );
    assert!(
        lines
            .warnings
            .lock()
            .iter()
            .any(|line| line.starts_with("corrupt chunk renamed to") && line.contains(".0.bad"))
    );
    assert!(test.has(b"good") && !test.has(b"content"));
    assert_eq!(verify(&test, &second).0, VerifyOutcome::Failed);
    test.insert(b"content");
    assert_eq!(
        (verify(&test, &first).0, verify(&test, &second).0),
        (VerifyOutcome::Ok, VerifyOutcome::Ok)
    );
    assert_eq!(recorded(&test, &first), Some(VerifyResult::Ok));
}

#[test]
fn a_chunk_with_the_wrong_content_is_found_although_its_crc_is_right() {
    let test = TestStore::empty();
    let snapshot = test.backup("vm/1/2024-01-01T00:00:00Z", &[b"content"]);
    let path = test.store.chunks().chunk_path(&Digest::of(b"content"));
    std::fs::write(
        &path,
        DataBlob::encode(b"kontent", None, true).unwrap().raw(),
    )
    .unwrap();
    assert_eq!(verify(&test, &snapshot).0, VerifyOutcome::Failed);
    assert!(!test.has(b"content"));
}

#[test]
fn a_chunk_that_cannot_be_read_is_an_error_but_stays() {
    let test = TestStore::empty();
    let snapshot = test.backup("vm/1/2024-01-01T00:00:00Z", &[b"content", b"other"]);
    let path = test.store.chunks().chunk_path(&Digest::of(b"content"));
    std::fs::remove_file(&path).unwrap();
    // Reading a directory fails as a failing disk does.
    std::fs::create_dir(&path).unwrap();
    let (outcome, lines) = verify(&test, &snapshot);
    assert_eq!(outcome, VerifyOutcome::Failed);
    assert!(
        lines.warnings.lock()[0]
            .starts_with("can't verify chunk, load failed - store 'store1', unable to load chunk")
    );
    assert!(path.is_dir());
    std::fs::remove_dir(&path).unwrap();
    assert_eq!(verify(&test, &snapshot).0, VerifyOutcome::Failed, "missing");
}

#[test]
fn chunks_found_bad_once_count_for_every_snapshot_of_the_task() {
    let test = TestStore::empty();
    let first = test.backup("vm/1/2024-01-01T00:00:00Z", &[b"content"]);
    let second = test.backup("vm/2/2024-01-01T00:00:00Z", &[b"content"]);
    std::fs::remove_file(test.store.chunks().chunk_path(&Digest::of(b"content"))).unwrap();
    let (chunks, lines) = (start(&test), Lines::default());
    for snapshot in [first, second] {
        let outcome = test
            .store
            .verify_snapshot(&ROOT, &snapshot, UPID, &chunks, &lines)
            .unwrap();
        assert_eq!(outcome, VerifyOutcome::Failed);
    }
    assert!(
        lines
            .warnings
            .lock()
            .iter()
            .any(|line| line.ends_with("was marked as corrupt"))
    );
}

#[test]
fn files_that_do_not_fit_the_manifest_are_found() {
    let test = TestStore::empty();
    let snapshot = test.backup("vm/1/2024-01-01T00:00:00Z", &[b"content"]);
    let other = test.backup("vm/2/2024-01-01T00:00:00Z", &[b"other content"]);
    let index = |snapshot| {
        test.store
            .snapshot_path(&ROOT, snapshot)
            .join("root.pxar.didx")
    };
    let good = std::fs::read(index(&snapshot)).unwrap();
    std::fs::copy(index(&other), index(&snapshot)).unwrap();
    let (outcome, lines) = verify(&test, &snapshot);
    assert_eq!(outcome, VerifyOutcome::Failed);
    assert!(lines.warnings.lock()[0].contains("wrong index checksum"));
    std::fs::write(index(&snapshot), good).unwrap();
    assert_eq!(verify(&test, &snapshot).0, VerifyOutcome::Ok);
    std::fs::remove_file(index(&snapshot)).unwrap();
    assert_eq!(verify(&test, &snapshot).0, VerifyOutcome::Failed);
}

#[test]
fn snapshots_in_use_are_skipped_and_unreadable_ones_fail() {
    let test = TestStore::empty();
    let snapshot = test.backup("vm/1/2024-01-01T00:00:00Z", &[b"content"]);
    let lock = test
        .store
        .lock_snapshot(&ROOT, &snapshot, LockMode::Exclusive)
        .unwrap();
    assert_eq!(verify(&test, &snapshot).0, VerifyOutcome::Skipped);
    drop(lock);
    std::fs::write(
        test.store
            .snapshot_path(&ROOT, &snapshot)
            .join("index.json.blob"),
        "no blob",
    )
    .unwrap();
    assert_eq!(verify(&test, &snapshot).0, VerifyOutcome::Failed);
    test.store.remove_snapshot(&ROOT, &snapshot, false).unwrap();
    assert_eq!(verify(&test, &snapshot).0, VerifyOutcome::Skipped);
}

#[test]
fn a_manifest_that_names_a_path_is_refused() {
    let test = TestStore::empty();
    let snapshot = test.backup("vm/1/2024-01-01T00:00:00Z", &[b"content"]);
    let (mut manifest, _) = test.store.load_manifest(&ROOT, &snapshot).unwrap();
    manifest.files[0].filename = "../../owner.blob".into();
    test.store
        .store_manifest(&ROOT, &snapshot, &manifest, false)
        .unwrap();
    let (outcome, lines) = verify(&test, &snapshot);
    assert_eq!(outcome, VerifyOutcome::Failed);
    assert!(lines.warnings.lock()[0].contains("../../owner.blob"));
}

#[test]
fn verified_snapshots_are_due_again_as_configured() {
    let mut manifest = Manifest::new("vm", "1", 0);
    let state = |days: i64, state| {
        let upid = Upid {
            starttime: clock::now() - days * 86400 - 3600,
            ..UPID.parse().unwrap()
        };
        Some(VerifyState {
            state,
            upid: upid.to_string(),
        })
    };
    let never = VerifyAge {
        ignore_verified: true,
        outdated_after: None,
    };
    let three = VerifyAge {
        ignore_verified: true,
        outdated_after: Some(3),
    };
    assert!(never.is_due(&manifest));
    manifest.set_verify_state(state(3, VerifyResult::Ok).as_ref());
    assert!(
        !never.is_due(&manifest)
            && !three.is_due(&manifest)
            && VerifyAge::default().is_due(&manifest)
    );
    manifest.set_verify_state(state(4, VerifyResult::Ok).as_ref());
    assert!(!never.is_due(&manifest) && three.is_due(&manifest));
    manifest.set_verify_state(state(0, VerifyResult::Failed).as_ref());
    assert!(never.is_due(&manifest));
}

#[test]
fn each_chunk_is_read_once_in_a_run_whatever_number_of_indexes_name_it() {
    let test = TestStore::empty();
    let snapshots: Vec<Snapshot> = (1..=3)
        .map(|day| {
            test.backup(
                &format!("vm/1/2024-01-0{day}T00:00:00Z"),
                &[b"one", b"other"],
            )
        })
        .collect();
    let (run, lines) = (start(&test), Lines::default());
    for snapshot in &snapshots {
        let outcome = test
            .store
            .verify_snapshot(&ROOT, snapshot, UPID, &run, &lines)
            .unwrap();
        assert_eq!(outcome, VerifyOutcome::Ok);
        // From now on nobody could read it again.
        let path = test.store.chunks().chunk_path(&Digest::of(b"one"));
        if path.exists() {
            std::fs::remove_file(path).unwrap();
        }
    }
    let (outcome, _) = verify(&test, &snapshots[0]);
    assert_eq!(outcome, VerifyOutcome::Failed, "another run reads it");
}

#[test]
fn a_chunk_is_good_for_its_length_and_mode_alone() {
    let test = TestStore::empty();
    let run = start(&test);
    let digest = Digest::of(b"x");
    run.add_good(&digest, 5, false);
    for (size, encrypted, left) in [(5, false, 0), (6, false, 1), (5, true, 1)] {
        let mut chunks = vec![(digest, size)];
        run.retain_unknown(&mut chunks, encrypted);
        assert_eq!(chunks.len(), left, "{size} {encrypted}");
    }
}

#[test]
fn thread_counts_come_from_the_caller_then_the_settings_then_the_machine() {
    let test = TestStore::empty();
    let counts = |threads| {
        let run = test.store.start_verification(threads);
        (run.readers(), run.checkers())
    };
    let (readers, checkers) = counts(VerifyThreads::default());
    assert!((1..=32).contains(&readers) && (1..=32).contains(&checkers));
    let tuning = backstop_types::Tuning {
        verification_readers: Some(3),
        verification_workers: Some(7),
        ..crate::fixture::tuning()
    };
    test.store.set_tuning(tuning).unwrap();
    assert_eq!(counts(VerifyThreads::default()), (3, 7));
    let asked = VerifyThreads {
        read: Some(1),
        verify: None,
    };
    assert_eq!(counts(asked), (1, 7));
    let absurd = VerifyThreads {
        read: Some(1000),
        verify: Some(0),
    };
    assert_eq!(counts(absurd), (32, 1));
}
