#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;

use parking_lot::Mutex;

use super::*;
use crate::fixture::{Lines, TestStore, age_all_chunks};
use crate::task_log::Silent;

fn ns(text: &str) -> Namespace {
    text.parse().unwrap()
}

fn group() -> BackupGroup {
    "host/g1".parse().unwrap()
}

const OLD: &str = "host/g1/2024-01-01T00:00:00Z";
const NEW: &str = "host/g1/2024-01-02T00:00:00Z";
const NEWEST: &str = "host/g1/2024-01-03T00:00:00Z";

/// A datastore with these namespaces, named parents first.
fn store(namespaces: &[&str]) -> TestStore {
    let test = TestStore::empty();
    for name in namespaces {
        test.store.create_namespace(&ns(name)).unwrap();
    }
    test
}

fn times(test: &TestStore, namespace: &str) -> Vec<String> {
    let times = test.store.snapshot_times(&ns(namespace), &group()).unwrap();
    times.iter().rev().map(|time| time.to_string()).collect()
}

fn move_group(test: &TestStore, from: &str, to: &str, merge: bool) -> Result<()> {
    test.store
        .move_group(&ns(from), &group(), &ns(to), merge, &Silent)
}

fn refusal(result: Result<()>) -> String {
    match result {
        Err(DatastoreError::Move(refusal)) => refusal.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

/// All lock files, by their names.
fn lock_files(test: &TestStore) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![test.dir.path().join("locks/store1")];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_group_moves_with_everything_that_belongs_to_it() {
    let test = store(&["a"]);
    let old = test.backup(OLD, &[b"one"]);
    let new = test.backup(NEW, &[b"two"]);
    let root = Namespace::root();
    let owner = "somebody@pbs!token".parse().unwrap();
    test.store.set_owner(&root, &group(), &owner).unwrap();
    test.store
        .set_group_notes(&root, &group(), "of the group")
        .unwrap();
    test.store.set_notes(&root, &old, "of the old one").unwrap();
    test.store.set_protected(&root, &new, true).unwrap();
    let log = Lines::default();
    test.store
        .move_group(&root, &group(), &ns("a"), true, &log)
        .unwrap();
    assert_eq!(*log.info.lock(), ["moving group 'host/g1' from '' to 'a'"]);
    assert!(!test.store.group_exists(&root, &group()));
    let a = ns("a");
    assert_eq!(test.store.owner(&a, &group()).unwrap(), owner);
    assert_eq!(
        test.store.group_notes(&a, &group()).unwrap().as_deref(),
        Some("of the group")
    );
    assert_eq!(
        test.store.load_manifest(&a, &old).unwrap().0.notes(),
        "of the old one"
    );
    assert!(test.store.is_protected(&a, &new));
    assert_eq!(times(&test, "a").len(), 2);
    let left: Vec<PathBuf> = lock_files(&test)
        .into_iter()
        .filter(|path| {
            let of_datastore = ["move-journal", ".retention-lock.lck"];
            !path.to_str().unwrap().contains("/a/")
                && !of_datastore.iter().any(|name| path.ends_with(name))
        })
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}

#[test]
fn what_is_in_use_stays_whole_where_it_is() {
    let test = store(&["a"]);
    test.backup(OLD, &[b"one"]);
    let new = test.backup(NEW, &[b"two"]);
    let root = Namespace::root();
    let backup = test.store.lock_group(&root, &group()).unwrap();
    let result = move_group(&test, "", "a", true);
    assert!(matches!(result, Err(DatastoreError::Locked { .. })));
    drop(backup);
    let reader = test
        .store
        .lock_snapshot(&root, &new, LockMode::Shared)
        .unwrap();
    let result = move_group(&test, "", "a", true);
    assert!(matches!(result, Err(DatastoreError::Locked { .. })));
    drop(reader);
    let backup = test.store.lock_group(&ns("a"), &group()).unwrap();
    let result = move_group(&test, "", "a", true);
    assert!(matches!(result, Err(DatastoreError::Locked { .. })));
    drop(backup);
    assert_eq!(times(&test, "").len(), 2);
    assert!(!test.store.group_exists(&ns("a"), &group()));
    move_group(&test, "", "a", true).unwrap();
    assert_eq!(times(&test, "a").len(), 2);
}

#[test]
fn impossible_moves_are_refused_and_change_nothing() {
    let test = store(&["a"]);
    test.backup(OLD, &[b"one"]);
    let text = |from, to, merge| refusal(move_group(&test, from, to, merge));
    assert_eq!(
        text("", "", true),
        "source and target namespace must be different"
    );
    assert_eq!(
        text("", "nope", true),
        "target namespace 'nope' does not exist"
    );
    assert_eq!(
        text("a", "", true),
        "group 'host/g1' does not exist in namespace 'a'"
    );
    test.backup_in(&ns("a"), NEW, &[b"two"]);
    assert_eq!(
        text("", "a", false),
        "group 'host/g1' already exists in target namespace 'a' and merge-group is disabled"
    );
    assert_eq!(
        text("", "a", true),
        "cannot merge group 'host/g1' from '' into 'a': snapshot time mismatch"
    );
    let other = "somebody@pbs".parse().unwrap();
    test.store.set_owner(&ns("a"), &group(), &other).unwrap();
    assert_eq!(
        text("a", "", true),
        "cannot merge group 'host/g1' from 'a' into '': owner mismatch (source: somebody@pbs, target: root@pam)"
    );
    assert_eq!(times(&test, "").len(), 1);
    assert_eq!(times(&test, "a").len(), 1);
}

#[test]
fn newer_snapshots_join_a_group_which_keeps_its_notes() {
    let test = store(&["a"]);
    test.backup(NEW, &[b"two"]);
    test.backup(NEWEST, &[b"three"]);
    test.backup_in(&ns("a"), OLD, &[b"one"]);
    let set = |namespace: &str, notes| {
        test.store
            .set_group_notes(&ns(namespace), &group(), notes)
            .unwrap();
    };
    set("", "coming");
    set("a", "kept");
    let log = Lines::default();
    test.store
        .move_group(&ns(""), &group(), &ns("a"), true, &log)
        .unwrap();
    assert_eq!(times(&test, "a").len(), 3);
    assert!(!test.store.group_exists(&ns(""), &group()));
    assert_eq!(
        test.store
            .group_notes(&ns("a"), &group())
            .unwrap()
            .as_deref(),
        Some("kept")
    );
    assert_eq!(log.warnings.lock().len(), 1);
}

#[test]
fn a_merge_that_was_stopped_is_completed_by_the_next_one() {
    let test = store(&["a"]);
    for snapshot in [OLD, NEW] {
        test.backup(snapshot, &[b"one"]);
    }
    let before = "host/g1/2023-01-01T00:00:00Z";
    test.backup_in(&ns("a"), before, &[b"zero"]);
    // A reader of the newer one: the locks of a batch are taken before anything moves.
    let reader = test
        .store
        .lock_snapshot(&ns(""), &NEW.parse().unwrap(), LockMode::Shared)
        .unwrap();
    let result = move_group(&test, "", "a", true);
    assert!(matches!(result, Err(DatastoreError::Locked { .. })));
    assert_eq!(times(&test, "").len(), 2);
    drop(reader);
    // As if the power had failed between two snapshots.
    std::fs::rename(
        test.store.snapshot_path(&ns(""), &OLD.parse().unwrap()),
        test.store.snapshot_path(&ns("a"), &OLD.parse().unwrap()),
    )
    .unwrap();
    move_group(&test, "", "a", true).unwrap();
    assert_eq!(times(&test, "a").len(), 3);
    assert!(!test.store.group_exists(&ns(""), &group()));
}

#[test]
fn a_group_of_more_snapshots_than_can_be_locked_at_once_moves_too() {
    let test = store(&["a"]);
    let first = test.backup(OLD, &[b"one"]);
    let path = test.store.group_path(&ns(""), &group());
    for number in 1..=MAX_LOCKED as i64 {
        let time = BackupTime::new(first.time.epoch() + number).unwrap();
        std::fs::create_dir(path.join(time.to_string())).unwrap();
    }
    move_group(&test, "", "a", true).unwrap();
    assert_eq!(times(&test, "a").len(), MAX_LOCKED + 1);
    assert!(!test.store.group_exists(&ns(""), &group()));
    assert_eq!(
        test.store.owner(&ns("a"), &group()).unwrap(),
        AuthId::root()
    );
}

/// Moves a group while garbage is collected: to where the collection has been, from where it has not yet been.
struct MovesMeanwhile<'a> {
    test: &'a TestStore,
    outcome: Mutex<Option<Result<()>>>,
}

impl TaskLog for MovesMeanwhile<'_> {
    fn info(&self, line: &str) {
        if line.starts_with("marked 50%") {
            let moved = move_group(self.test, "z", "a", true);
            *self.outcome.lock() = Some(moved);
        }
    }
    fn warn(&self, line: &str) {
        panic!("{line}");
    }
}

#[test]
fn chunks_of_a_snapshot_that_moves_under_a_garbage_collection_stay() {
    let test = store(&["a", "z"]);
    let mut other: Snapshot = OLD.parse().unwrap();
    other.group.id = "first".parse().unwrap();
    test.backup_in(&ns("a"), &other.to_string(), &[b"first"]);
    test.backup_in(&ns("z"), NEW, &[b"moving"]);
    test.insert(b"garbage");
    age_all_chunks(&test.path());
    let log = MovesMeanwhile {
        test: &test,
        outcome: Mutex::new(None),
    };
    test.store.collect_garbage(None, &log).unwrap();
    log.outcome.into_inner().expect("moved").unwrap();
    assert!(test.has(b"moving") && test.has(b"first"));
    assert!(!test.has(b"garbage"));
}

const ALL: NamespaceMove = NamespaceMove {
    max_depth: None,
    delete_source: true,
    merge_groups: true,
};

fn move_namespace(test: &TestStore, from: &str, to: &str, options: NamespaceMove) -> Result<()> {
    test.store
        .move_namespace(&ns(from), &ns(to), options, &Silent)
}

fn all_namespaces(test: &TestStore) -> Vec<String> {
    let found = test.store.namespaces(&Namespace::root(), None).unwrap();
    found.iter().skip(1).map(Namespace::to_string).collect()
}

#[test]
fn a_namespace_moves_with_those_below_it() {
    let test = store(&["a", "a/b", "a/b/c", "t"]);
    test.backup_in(&ns("a"), OLD, &[b"one"]);
    test.backup_in(&ns("a/b/c"), NEW, &[b"two"]);
    move_namespace(&test, "a", "t/new", ALL).unwrap();
    assert_eq!(
        all_namespaces(&test),
        ["t", "t/new", "t/new/b", "t/new/b/c"]
    );
    assert_eq!(times(&test, "t/new").len(), 1);
    assert_eq!(times(&test, "t/new/b/c").len(), 1);
}

#[test]
fn depth_and_source_are_kept_as_asked() {
    let test = store(&["a", "a/b", "a/b/c"]);
    for namespace in ["a", "a/b", "a/b/c"] {
        test.backup_in(&ns(namespace), OLD, &[b"one"]);
    }
    let shallow = NamespaceMove {
        max_depth: Some(1),
        ..ALL
    };
    let log = Lines::default();
    test.store
        .move_namespace(&ns("a"), &ns("t"), shallow, &log)
        .unwrap();
    assert_eq!(*log.warnings.lock(), Vec::<String>::new());
    assert_eq!(all_namespaces(&test), ["a", "a/b", "a/b/c", "t", "t/b"]);
    assert_eq!(times(&test, "a/b/c").len(), 1);
    assert_eq!(times(&test, "t/b").len(), 1);
    let keep = NamespaceMove {
        delete_source: false,
        ..ALL
    };
    move_namespace(&test, "t", "u", keep).unwrap();
    assert!(all_namespaces(&test).contains(&"t/b".to_owned()));
    assert_eq!(times(&test, "u/b").len(), 1);
}

#[test]
fn a_namespace_can_move_into_its_own_parent_but_not_below_itself() {
    let test = store(&["a", "a/b", "a/b/b"]);
    test.backup_in(&ns("a/b"), OLD, &[b"one"]);
    test.backup_in(&ns("a/b/b"), NEW, &[b"two"]);
    assert_eq!(
        refusal(move_namespace(&test, "a", "a/b/x", ALL)),
        "cannot move namespace 'a' into its own subtree (target: 'a/b/x')"
    );
    move_namespace(&test, "a/b", "a", ALL).unwrap();
    assert_eq!(all_namespaces(&test), ["a", "a/b"]);
    assert_eq!(times(&test, "a"), ["2024-01-01T00:00:00Z"]);
    assert_eq!(times(&test, "a/b"), ["2024-01-02T00:00:00Z"]);
}

#[test]
fn impossible_namespace_moves_are_refused_and_change_nothing() {
    let test = store(&[
        "a",
        "a/b",
        "a/b/c",
        "1",
        "1/2",
        "1/2/3",
        "1/2/3/4",
        "1/2/3/4/5",
    ]);
    let before = all_namespaces(&test);
    let text = |from, to| refusal(move_namespace(&test, from, to, ALL));
    assert_eq!(text("", "a"), "cannot move root namespace");
    assert_eq!(
        text("a", "a"),
        "source and target namespace must be different"
    );
    assert_eq!(text("nope", "x"), "source namespace 'nope' does not exist");
    assert_eq!(
        text("a", "nope/x"),
        "target parent namespace 'nope' does not exist"
    );
    assert_eq!(
        text("a", "1/2/3/4/5/6"),
        "namespace depth limit exceeded: source subtree depth (2) + target depth (6) would exceed max (7)"
    );
    assert_eq!(all_namespaces(&test), before);
}

#[test]
fn groups_that_cannot_move_stay_and_are_named() {
    let test = store(&["a", "t"]);
    test.backup_in(&ns("a"), OLD, &[b"one"]);
    test.backup_in(&ns("t"), NEW, &[b"two"]);
    let busy: Snapshot = "vm/7/2024-01-01T00:00:00Z".parse().unwrap();
    let free = "vm/8/2024-01-01T00:00:00Z";
    test.backup_in(&ns("a"), &busy.to_string(), &[b"three"]);
    test.backup_in(&ns("a"), free, &[b"four"]);
    let reader = test
        .store
        .lock_snapshot(&ns("a"), &busy, LockMode::Shared)
        .unwrap();
    assert_eq!(
        refusal(move_namespace(&test, "a", "t", ALL)),
        "namespace move partially completed; 2 group(s) could not be moved and remain at source; \
         1 with a fatal error (investigate before retrying): 'host/g1' in 'a'; \
         1 still lock-conflicted (rerun move-namespace or move-group may succeed): 'vm/7' in 'a'"
    );
    drop(reader);
    assert!(test.store.group_exists(&ns("t"), &"vm/8".parse().unwrap()));
    assert!(test.store.group_exists(&ns("a"), &busy.group));
    assert_eq!(times(&test, "a").len(), 1);
}
