//! Promises about namespaces, groups and snapshots.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use backstop_calendar::retention::KeepOptions;
use backstop_format::Digest;
use backstop_types::{AuthId, SyncLevel, Tuning};
use jiff::tz::TimeZone;

use super::*;
use crate::fixture::{TestStore, manifest, tuning};

const ROOT: Namespace = Namespace::root();
const TIMES: [&str; 3] = [
    "2024-01-01T00:00:00Z",
    "2024-01-02T00:00:00Z",
    "2024-01-03T00:00:00Z",
];

fn ns(text: &str) -> Namespace {
    text.parse().unwrap()
}

fn group(text: &str) -> BackupGroup {
    text.parse().unwrap()
}

/// A group with three snapshots.
fn three(test: &TestStore) -> Vec<Snapshot> {
    TIMES
        .iter()
        .map(|time| test.backup(&format!("vm/100/{time}"), &[b"content"]))
        .collect()
}

#[test]
fn a_snapshot_appears_when_it_is_finished_and_only_then() {
    for sync_level in [SyncLevel::None, SyncLevel::File, SyncLevel::Filesystem] {
        let test = TestStore::empty();
        test.store
            .set_tuning(Tuning {
                sync_level,
                ..tuning()
            })
            .unwrap();
        let snapshot: Snapshot = "vm/100/2024-01-01T00:00:00Z".parse().unwrap();
        assert!(
            test.store.create_snapshot(&ROOT, &snapshot).is_err(),
            "without a group"
        );
        let (owner, _lock) = test
            .store
            .create_group_locked(&ROOT, &snapshot.group, &AuthId::root())
            .unwrap();
        assert_eq!(owner, AuthId::root());
        let writer = test.store.create_snapshot(&ROOT, &snapshot).unwrap();
        let blob = DataBlob::encode(b"text", None, true).unwrap();
        writer
            .store_blob(&"etc.conf.blob".parse().unwrap(), &blob)
            .unwrap();
        assert!(
            writer
                .store_blob(&"index.json.blob".parse().unwrap(), &blob)
                .is_err()
        );
        assert!(
            writer
                .store_blob(&"a.didx".parse().unwrap(), &blob)
                .is_err()
        );
        assert!(writer.store_index(&"a.blob".parse().unwrap(), b"").is_err());
        assert!(
            test.store
                .lock_snapshot(&ROOT, &snapshot, LockMode::Shared)
                .unwrap_err()
                .is_retryable()
        );
        assert_eq!(
            test.store.last_finished(&ROOT, &snapshot.group).unwrap(),
            None
        );
        writer
            .finish(&manifest(&snapshot, Digest([0; 32]), 1))
            .unwrap();
        assert_eq!(
            test.store.last_finished(&ROOT, &snapshot.group).unwrap(),
            Some(snapshot.clone())
        );
        assert!(matches!(
            test.store.create_snapshot(&ROOT, &snapshot),
            Err(DatastoreError::SnapshotExists(_))
        ));
        let info = test.store.snapshot_info(&ROOT, &snapshot).unwrap();
        assert_eq!(
            (info.files.as_slice(), info.is_finished()),
            (
                &["etc.conf.blob".to_owned(), "index.json.blob".to_owned()][..],
                true
            )
        );
    }
}

#[test]
fn an_unfinished_snapshot_is_removed() {
    let test = TestStore::empty();
    let snapshot: Snapshot = "vm/100/2024-01-01T00:00:00Z".parse().unwrap();
    let (_, lock) = test
        .store
        .create_group_locked(&ROOT, &snapshot.group, &AuthId::root())
        .unwrap();
    drop(test.store.create_snapshot(&ROOT, &snapshot).unwrap());
    test.store
        .create_snapshot(&ROOT, &snapshot)
        .unwrap()
        .abort()
        .unwrap();
    let other: Snapshot = "vm/100/2025-01-01T00:00:00Z".parse().unwrap();
    let writer = test.store.create_snapshot(&ROOT, &snapshot).unwrap();
    assert!(
        writer
            .finish(&manifest(&other, Digest([0; 32]), 1))
            .is_err(),
        "the manifest of another snapshot"
    );
    assert!(!test.store.snapshot_exists(&ROOT, &snapshot));
    assert!(
        test.store
            .remove_group_without_snapshots(&ROOT, &snapshot.group, lock)
            .unwrap()
    );
    assert_eq!(test.store.groups(&ROOT).unwrap(), []);
    let locks = std::fs::read_dir(test.dir.path().join("locks/store1"))
        .unwrap()
        .count();
    assert_eq!(locks, 0, "no lock files are left");
}

#[test]
fn a_group_belongs_to_who_made_it_until_somebody_else_is_named() {
    let test = TestStore::empty();
    let vm = group("vm/100");
    let other: AuthId = "a@pbs!token".parse().unwrap();
    let (owner, lock) = test.store.create_group_locked(&ROOT, &vm, &other).unwrap();
    assert_eq!(owner, other);
    assert!(
        test.store
            .create_group_locked(&ROOT, &vm, &other)
            .unwrap_err()
            .to_string()
            .starts_with("unable to acquire backup group lock")
    );
    assert!(
        test.store.set_owner(&ROOT, &vm, &AuthId::root()).is_err(),
        "in use"
    );
    drop(lock);
    assert_eq!(
        test.store
            .create_group_locked(&ROOT, &vm, &AuthId::root())
            .unwrap()
            .0,
        other
    );
    let file = test.path().join("vm/100/owner");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "a@pbs!token\n");
    test.store.set_owner(&ROOT, &vm, &AuthId::root()).unwrap();
    assert_eq!(test.store.owner(&ROOT, &vm).unwrap(), AuthId::root());
    std::fs::write(&file, "").unwrap();
    assert!(test.store.owner(&ROOT, &vm).is_err());
    assert!(matches!(
        test.store.owner(&ROOT, &group("vm/101")),
        Err(DatastoreError::NoSuchGroup(_))
    ));
    assert!(matches!(
        test.store.set_owner(&ROOT, &group("vm/101"), &other),
        Err(DatastoreError::NoSuchGroup(_))
    ));
    test.store
        .set_group_notes(&ROOT, &vm, "first\nsecond")
        .unwrap();
    assert_eq!(
        test.store.group_notes(&ROOT, &vm).unwrap().as_deref(),
        Some("first\nsecond")
    );
}

#[test]
fn notes_and_marks_of_a_snapshot_are_kept_in_place() {
    let test = TestStore::empty();
    let snapshot = test.backup("vm/100/2024-01-01T00:00:00Z", &[b"content"]);
    test.store.set_notes(&ROOT, &snapshot, "note").unwrap();
    let changed = test
        .store
        .update_manifest(&ROOT, &snapshot, |manifest| {
            manifest.set_unprotected("other", true.into());
            manifest.files.clear();
        })
        .unwrap();
    let (loaded, size) = test.store.load_manifest(&ROOT, &snapshot).unwrap();
    assert_eq!(loaded, changed);
    assert_eq!(
        (loaded.notes(), loaded.files.len()),
        ("note", 1),
        "the signed part stays as it was"
    );
    assert_eq!(
        size,
        test.store
            .snapshot_path(&ROOT, &snapshot)
            .join("index.json.blob")
            .metadata()
            .unwrap()
            .len()
    );
    let missing: Snapshot = "vm/100/2024-05-05T00:00:00Z".parse().unwrap();
    assert!(matches!(
        test.store.set_notes(&ROOT, &missing, "x"),
        Err(DatastoreError::NoSuchSnapshot(_))
    ));
}

#[test]
fn a_protected_or_used_snapshot_is_not_removed() {
    let test = TestStore::empty();
    let snapshot = test.backup("vm/100/2024-01-01T00:00:00Z", &[b"content"]);
    let reader = test
        .store
        .lock_snapshot(&ROOT, &snapshot, LockMode::Shared)
        .unwrap();
    assert!(matches!(
        test.store.remove_snapshot(&ROOT, &snapshot, false),
        Err(DatastoreError::Locked { .. })
    ));
    drop(reader);
    test.store.set_protected(&ROOT, &snapshot, true).unwrap();
    for force in [false, true] {
        let error = test
            .store
            .remove_snapshot(&ROOT, &snapshot, force)
            .unwrap_err();
        assert_eq!(error.to_string(), "cannot remove protected snapshot");
    }
    let stats = test.store.remove_group(&ROOT, &snapshot.group).unwrap();
    assert_eq!(
        (
            stats.removed_groups,
            stats.protected_snapshots,
            stats.removed_snapshots
        ),
        (0, 1, 0)
    );
    assert!(test.store.snapshots(&ROOT, &snapshot.group).unwrap()[0].protected);
    test.store.set_protected(&ROOT, &snapshot, false).unwrap();
    test.store.remove_snapshot(&ROOT, &snapshot, false).unwrap();
    assert!(matches!(
        test.store.remove_snapshot(&ROOT, &snapshot, false),
        Err(DatastoreError::NoSuchSnapshot(_))
    ));
}

#[test]
fn a_group_goes_with_its_last_snapshot_unless_somebody_uses_it() {
    let test = TestStore::empty();
    let snapshots = three(&test);
    let vm = group("vm/100");
    for snapshot in &snapshots[..2] {
        test.store.remove_snapshot(&ROOT, snapshot, false).unwrap();
    }
    let lock = test.store.lock_group(&ROOT, &vm).unwrap();
    test.store
        .remove_snapshot(&ROOT, &snapshots[2], false)
        .unwrap();
    assert!(test.store.group_exists(&ROOT, &vm));
    drop(lock);
    let last = test.backup("vm/100/2025-01-01T00:00:00Z", &[b"content"]);
    test.store.remove_snapshot(&ROOT, &last, false).unwrap();
    assert!(!test.store.group_exists(&ROOT, &vm));
}

#[test]
fn namespaces_are_made_listed_and_removed() {
    let test = TestStore::empty();
    for name in ["b", "a", "a/x", "a/x/y"] {
        test.store.create_namespace(&ns(name)).unwrap();
    }
    assert!(matches!(
        test.store.create_namespace(&ns("a")),
        Err(DatastoreError::NamespaceExists(_))
    ));
    assert!(matches!(
        test.store.create_namespace(&ns("c/d")),
        Err(DatastoreError::NoSuchNamespace(_))
    ));
    assert!(test.path().join("ns/a/ns/x/ns/y").is_dir());
    let names = |parent: &str, depth| -> Vec<String> {
        test.store
            .namespaces(&ns(parent), depth)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(names("", None), ["", "a", "a/x", "a/x/y", "b"]);
    assert_eq!(names("", Some(1)), ["", "a", "b"]);
    assert_eq!(names("a/x", Some(0)), ["a/x"]);
    assert!(test.store.groups(&ns("nope")).is_err());

    test.backup_in(&ns("a/x"), "host/h/2024-01-01T00:00:00Z", &[b"content"]);
    let removal = test.store.remove_namespace(&ns("a"), false).unwrap();
    assert!(!removal.complete);
    assert_eq!(names("", None), ["", "a", "a/x", "b"]);
    let removal = test.store.remove_namespace(&ns("a"), true).unwrap();
    assert_eq!(
        (
            removal.complete,
            removal.stats.removed_groups,
            removal.stats.removed_snapshots
        ),
        (true, 1, 1)
    );
    assert_eq!(names("", None), ["", "b"]);
    assert!(test.store.remove_namespace(&ns("a"), true).is_err());
}

#[test]
fn files_outside_a_snapshot_are_never_opened() {
    let test = TestStore::empty();
    let snapshot = test.backup("vm/100/2024-01-01T00:00:00Z", &[b"content"]);
    std::fs::write(test.dir.path().join("secret"), "secret").unwrap();
    let link = test.store.snapshot_path(&ROOT, &snapshot).join("link.blob");
    std::os::unix::fs::symlink(test.dir.path().join("secret"), link).unwrap();
    assert!(
        test.store
            .open_file(&ROOT, &snapshot, &"link.blob".parse().unwrap())
            .is_err()
    );
    let error = test
        .store
        .open_file(&ROOT, &snapshot, &"absent.blob".parse().unwrap())
        .unwrap_err();
    assert!(
        matches!(error, DatastoreError::NoSuchFile { .. })
            && error.to_string().ends_with("failed - not found")
    );
}

#[test]
fn a_second_client_log_is_refused() {
    let test = TestStore::empty();
    let snapshot = test.backup("vm/100/2024-01-01T00:00:00Z", &[b"content"]);
    let log = DataBlob::encode(b"log", None, true).unwrap();
    test.store.store_client_log(&ROOT, &snapshot, &log).unwrap();
    assert!(
        test.store
            .store_client_log(&ROOT, &snapshot, &log)
            .unwrap_err()
            .to_string()
            .contains("already contains a log")
    );
}

#[test]
fn pruning_removes_what_the_rule_does_not_keep() {
    let test = TestStore::empty();
    let snapshots = three(&test);
    let keep = KeepOptions {
        last: Some(1),
        ..KeepOptions::default()
    };
    let prune_until = |last: usize, dry_run| -> Vec<&'static str> {
        let mut marks = Vec::new();
        let outcome = test.store.prune_group(
            &ROOT,
            &group("vm/100"),
            &keep,
            &TimeZone::UTC,
            dry_run,
            |item| {
                marks.push(match item.outcome {
                    Ok(()) => item.verdict.mark.as_str(),
                    Err(_) => "failed",
                });
                if marks.len() == last {
                    return Err(DatastoreError::Aborted);
                }
                Ok(())
            },
        );
        assert_eq!(outcome.is_err(), marks.len() == last);
        marks
    };
    let prune = |dry_run| prune_until(usize::MAX, dry_run);
    assert_eq!(prune(true), ["remove", "remove", "keep"]);
    assert_eq!(
        test.store
            .snapshot_times(&ROOT, &group("vm/100"))
            .unwrap()
            .len(),
        3
    );
    let reader = test
        .store
        .lock_snapshot(&ROOT, &snapshots[0], LockMode::Shared)
        .unwrap();
    // whoever wants it to end is heard before the next one is removed
    assert_eq!(prune_until(1, false), ["failed"]);
    assert_eq!(prune(false), ["failed", "remove", "keep"]);
    drop(reader);
    assert_eq!(prune(false), ["remove", "keep"]);
    assert_eq!(prune(false), ["keep"]);
}

#[test]
fn stock_datastores_are_listed() {
    let test = TestStore::stock("pbs-3.2.4");
    let groups: Vec<String> = test
        .store
        .groups(&ROOT)
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    for expected in [
        "ct/200",
        "host/enc1",
        "host/fix1",
        "host/sign1",
        "host/encm1",
        "host/tokhost",
        "vm/100",
    ] {
        assert!(
            groups.contains(&expected.to_owned()),
            "{expected} in {groups:?}"
        );
    }
    assert_eq!(
        test.store
            .owner(&ROOT, &group("host/tokhost"))
            .unwrap()
            .to_string(),
        "fixture@pbs!tok1"
    );
    assert_eq!(
        test.store
            .snapshot_times(&ROOT, &group("ct/200"))
            .unwrap()
            .len(),
        12
    );
    let deep = ns("team-a/sub/deep");
    assert!(test.store.namespaces(&ROOT, None).unwrap().contains(&deep));
    assert_eq!(test.store.groups(&deep).unwrap(), [group("host/nsh")]);
    let protected: Snapshot = "host/fix1/2024-06-04T12:20:00Z".parse().unwrap();
    assert!(
        test.store
            .group_notes(&ROOT, &group("host/fix1"))
            .unwrap()
            .is_some()
    );
    assert!(test.store.gc_status().index_file_count > 0);
    let info = test.store.snapshot_info(&ROOT, &protected).unwrap();
    assert!(info.is_finished() && info.files.contains(&"root.pxar.didx".to_owned()));
    let (manifest, _) = test.store.load_manifest(&ROOT, &protected).unwrap();
    assert_eq!(manifest.backup_id, "fix1");
}
