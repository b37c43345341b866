#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use backstop_calendar::retention::{KeepOptions, Mark};
use backstop_types::{AuthId, BackupGroup};
use jiff::tz::TimeZone;

use super::*;
use crate::fixture::{TestStore, age, age_all_chunks, set_times, tuning};
use crate::prune::PrunedSnapshot;
use crate::relocation::NamespaceMove;
use crate::task_log::Silent;

const DAY: i64 = 86_400;
const HOUR: i64 = 3600;
/// Years before the tests run: what a client may claim.
const OLD: &str = "host/x/2020-01-01T00:00:00Z";

#[derive(Default)]
struct TestClock {
    wall: AtomicI64,
    steady: AtomicI64,
}

impl Clock for TestClock {
    fn wall(&self) -> i64 {
        self.wall.load(Ordering::Relaxed)
    }
    fn steady(&self) -> i64 {
        self.steady.load(Ordering::Relaxed)
    }
}

impl TestClock {
    fn pass(&self, seconds: i64) {
        self.wall.fetch_add(seconds, Ordering::Relaxed);
        self.steady.fetch_add(seconds, Ordering::Relaxed);
    }
    fn jump(&self, seconds: i64) {
        self.wall.fetch_add(seconds, Ordering::Relaxed);
    }
}

/// A datastore whose clock the test holds.
struct Locked {
    test: TestStore,
    store: Arc<Datastore>,
    clock: Arc<TestClock>,
}

fn open(test: &TestStore, clock: &Arc<TestClock>) -> Arc<Datastore> {
    let name = "store1".parse().unwrap();
    let locks = test.dir.path().join("locks");
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    Datastore::open_with_clock(&name, &test.path(), &locks, tuning(), clock).unwrap()
}

impl Locked {
    fn new() -> Self {
        let test = TestStore::empty();
        let clock = Arc::new(TestClock::default());
        clock.pass(crate::clock::now());
        let store = open(&test, &clock);
        Self { test, store, clock }
    }

    fn restart(&mut self) {
        self.clock
            .steady
            .store(self.clock.wall(), Ordering::Relaxed);
        self.store = open(&self.test, &self.clock);
    }

    fn backup(&self, namespace: &str, snapshot: &str) -> Snapshot {
        if !self.store.namespace_exists(&ns(namespace)) {
            self.store.create_namespace(&ns(namespace)).unwrap();
        }
        self.test.backup_in(&ns(namespace), snapshot, &[b"content"])
    }

    fn set(&self, namespace: &str, days: u32) {
        let lock = self.store.retention_lock();
        lock.set(&ns(namespace), days, None, "root@pam").unwrap();
    }

    fn removal(&self, namespace: &str, snapshot: &Snapshot) -> Result<()> {
        self.store.remove_snapshot(&ns(namespace), snapshot, false)
    }

    fn destroy(&self) -> Result<()> {
        let name = "store1".parse().unwrap();
        let locks = self.test.dir.path().join("locks");
        Datastore::destroy(&name, &self.test.path(), &locks)
    }
}

fn ns(text: &str) -> Namespace {
    text.parse().unwrap()
}

fn assert_locked<T: std::fmt::Debug>(result: Result<T>) -> RetentionLocked {
    match result {
        Err(DatastoreError::RetentionLocked(locked)) => *locked,
        other => panic!("not locked: {other:?}"),
    }
}

#[test]
fn nothing_removes_a_locked_snapshot() {
    let world = Locked::new();
    let (store, a, b) = (&world.store, ns("a"), ns("b"));
    let snapshot = world.backup("a", OLD);
    store.create_namespace(&b).unwrap();
    world.set("a", 30);

    let locked = assert_locked(world.removal("a", &snapshot));
    assert_eq!(
        (locked.snapshot, locked.lock, locked.days),
        (snapshot.clone(), a.clone(), 30)
    );
    let error = world.removal("a", &snapshot).unwrap_err();
    assert!(!error.is_retryable() && !error.is_not_found());
    let text = error.to_string();
    let start = format!("snapshot {OLD} in namespace 'a' is locked until ");
    let end = " by the retention lock of namespace 'a' (30 days); nobody can remove it before, whatever the role";
    assert!(text.starts_with(&start) && text.ends_with(end), "{text}");

    // a caller that holds all locks and forces it
    assert_locked(store.remove_snapshot(&a, &snapshot, true));
    assert_locked(store.remove_group(&a, &snapshot.group));
    assert_locked(store.remove_namespace(&a, true));
    assert_locked(store.remove_namespace(&Namespace::root(), true));
    let moved = assert_locked(store.move_group(&a, &snapshot.group, &b, true, &Silent));
    assert_eq!(moved.attempt, Attempt::Move { to: b.clone() });
    assert_locked(store.check_group_move(&a, &snapshot.group, &Namespace::root(), true));
    let options = NamespaceMove {
        max_depth: None,
        delete_source: true,
        merge_groups: true,
    };
    store
        .move_namespace(&a, &ns("b/a"), options, &Silent)
        .unwrap_err();
    assert_locked(world.destroy());
    let keep = KeepOptions {
        last: Some(1),
        ..KeepOptions::default()
    };
    let newer = world.backup("a", "host/x/2021-01-01T00:00:00Z");
    let mut pruned = Vec::new();
    let each = |item: PrunedSnapshot| {
        pruned.push(item);
        Ok::<_, DatastoreError>(())
    };
    store
        .prune_group(&a, &snapshot.group, &keep, &TimeZone::UTC, false, each)
        .unwrap();
    assert_eq!(pruned[0].verdict.mark, Mark::Locked);
    assert!(pruned[0].outcome.is_ok());
    let reason = pruned[0].verdict.reason.to_string();
    assert!(reason.starts_with("retention lock until 2"), "{reason}");
    assert_eq!(pruned[1].verdict.mark, Mark::Keep);

    let times = store.snapshot_times(&a, &snapshot.group).unwrap();
    assert_eq!(times, [newer.time, snapshot.time]);
    assert!(store.is_finished(&a, &snapshot));
}

#[test]
fn a_lock_ends_when_its_days_have_passed_and_not_a_second_earlier() {
    let world = Locked::new();
    let snapshot = world.backup("", OLD);
    world.set("", 30);
    let until = assert_locked(world.removal("", &snapshot)).until;
    world.clock.pass(until - world.clock.wall() - 1);
    assert_locked(world.removal("", &snapshot));
    world.clock.pass(1);
    world.removal("", &snapshot).unwrap();
}

#[test]
fn age_counts_from_the_upload_and_not_from_what_the_client_claims() {
    let world = Locked::new();
    let snapshot = world.backup("", OLD);
    let path = world.store.snapshot_path(&ns(""), &snapshot);
    let written = world.clock.wall() - 29 * DAY;
    set_times(&path.join("root.pxar.didx"), written);
    // notes and verification change the manifest and start nothing anew
    world.set("", 30);
    assert_eq!(
        assert_locked(world.removal("", &snapshot)).until,
        written + 30 * DAY
    );
    set_times(&path.join("root.pxar.didx"), written - DAY);
    world.removal("", &snapshot).unwrap();
}

#[test]
fn what_was_never_finished_is_not_locked() {
    let world = Locked::new();
    world.set("", 30);
    let snapshot: Snapshot = OLD.parse().unwrap();
    let group = world
        .store
        .create_group_locked(&ns(""), &snapshot.group, &AuthId::root())
        .unwrap();
    let writer = world.store.create_snapshot(&ns(""), &snapshot).unwrap();
    drop(writer);
    assert!(!world.store.snapshot_exists(&ns(""), &snapshot));
    std::fs::create_dir(world.store.snapshot_path(&ns(""), &snapshot)).unwrap();
    drop(group);
    world.removal("", &snapshot).unwrap();
}

#[test]
fn a_clock_that_is_set_forward_opens_nothing_until_it_is_confirmed_and_a_grace_window_has_passed() {
    let mut world = Locked::new();
    let snapshot = world.backup("", OLD);
    world.set("", 30);
    let lock = |world: &Locked| world.store.retention_lock().status().unwrap().unwrap();
    let refused = world.store.retention_lock().confirm_clock("root@pam");
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the clock is trusted, there is nothing to confirm"
    );
    world.clock.jump(100 * DAY);
    let text = world.removal("", &snapshot).unwrap_err().to_string();
    assert!(
        text.contains("jumped 8640000 seconds ahead") && text.contains("confirm-clock"),
        "{text}"
    );
    // neither time that is noted nor a start of the server changes that
    world.store.retention_lock().note_time().unwrap();
    world.restart();
    world.store.retention_lock().note_time().unwrap();
    assert_locked(world.removal("", &snapshot));
    assert_eq!(lock(&world).time.ahead, 100 * DAY);

    world
        .store
        .retention_lock()
        .confirm_clock("root@pam")
        .unwrap();
    world.store.retention_lock().cancel_clock("a@pbs").unwrap();
    world
        .store
        .retention_lock()
        .confirm_clock("root@pam")
        .unwrap();
    world.clock.pass(24 * HOUR - 1);
    assert_locked(world.removal("", &snapshot));
    world.clock.pass(1);
    world.store.retention_lock().note_time().unwrap();
    let status = lock(&world);
    assert_eq!((status.time.ahead, status.locks.clock_request), (0, None));
    world.restart();
    world.removal("", &snapshot).unwrap();
}

#[test]
fn a_request_opens_a_lock_after_its_grace_window_and_is_lasting() {
    let mut world = Locked::new();
    let snapshot = world.backup("a", OLD);
    world.set("", 30);
    world
        .store
        .retention_lock()
        .request(&ns(""), 0, "root@pam")
        .unwrap();
    world.restart();
    world.clock.pass(24 * HOUR - 1);
    assert_locked(world.removal("a", &snapshot));
    world
        .store
        .retention_lock()
        .cancel(&ns(""), "a@pbs")
        .unwrap();
    world.clock.pass(HOUR);
    assert_locked(world.removal("a", &snapshot));
    world
        .store
        .retention_lock()
        .request(&ns(""), 0, "root@pam")
        .unwrap();
    world.clock.pass(24 * HOUR);
    world.removal("a", &snapshot).unwrap();
}

#[test]
fn groups_move_to_where_they_stay_locked_for_as_long() {
    let world = Locked::new();
    let store = &world.store;
    let snapshot = world.backup("a", OLD);
    store.create_namespace(&ns("b")).unwrap();
    let moved =
        |from: &str, to: &str| store.move_group(&ns(from), &snapshot.group, &ns(to), true, &Silent);
    world.set("a", 30);
    world.set("b", 30);
    store
        .retention_lock()
        .request(&ns("b"), 10, "root@pam")
        .unwrap();
    // the target will be shorter soon
    assert_locked(moved("a", "b"));
    store.retention_lock().cancel(&ns("b"), "root@pam").unwrap();
    moved("a", "b").unwrap();
    assert_locked(moved("b", ""));
    // the source alone counts what is requested as not yet there
    store
        .retention_lock()
        .request(&ns("b"), 10, "root@pam")
        .unwrap();
    assert_locked(moved("b", ""));
    world.set("", 40);
    moved("b", "").unwrap();
    assert_locked(world.removal("", &snapshot));
}

#[test]
fn protection_and_locks_are_independent() {
    let world = Locked::new();
    let snapshot = world.backup("", OLD);
    world.set("", 1);
    world.store.set_protected(&ns(""), &snapshot, true).unwrap();
    world.clock.pass(2 * DAY);
    let error = world.removal("", &snapshot).unwrap_err();
    assert!(matches!(error, DatastoreError::Protected(_)));
    world
        .store
        .set_protected(&ns(""), &snapshot, false)
        .unwrap();
    world.removal("", &snapshot).unwrap();
}

#[test]
fn a_file_that_cannot_be_understood_opens_nothing() {
    let world = Locked::new();
    let snapshot = world.backup("", OLD);
    for text in ["", "{", "[]", r#"{"version": 2, "seen": 0}"#] {
        std::fs::write(world.test.path().join(FILE), text).unwrap();
        let error = world.removal("", &snapshot).unwrap_err().to_string();
        assert!(error.contains("until the file is repaired"), "{error}");
        assert!(world.destroy().is_err());
        assert!(
            world
                .store
                .retention_lock()
                .set(&ns(""), 1, None, "x")
                .is_err()
        );
    }
    assert!(world.store.is_finished(&ns(""), &snapshot));
}

#[test]
fn the_file_is_valid_whenever_its_writer_is_killed() {
    let mut world = Locked::new();
    let snapshot = world.backup("", OLD);
    world.set("", 30);
    let path = world.test.path().join(FILE);
    let text = std::fs::read(&path).unwrap();
    // what a killed writer leaves is a temporary of any length beside the whole file
    let temporary = path.with_extension("tmp_aB3dE9");
    std::fs::write(&temporary, &text[..text.len() / 2]).unwrap();
    world.restart();
    assert_locked(world.removal("", &snapshot));
    age(&temporary);
    world.store.collect_garbage(None, &Silent).unwrap();
    assert_locked(world.removal("", &snapshot));
    world.set("", 31);
}

#[test]
fn garbage_collection_keeps_what_is_locked_without_knowing_of_locks() {
    let world = Locked::new();
    let snapshot = world.backup("", OLD);
    let garbage = world.test.insert(b"nobody's");
    world.set("", 30);
    assert_locked(world.removal("", &snapshot));
    age_all_chunks(&world.test.path());
    let lines = crate::fixture::Lines::default();
    world.store.collect_garbage(None, &lines).unwrap();
    assert!(world.test.has(b"content"));
    assert!(!world.store.chunks().contains(&garbage).unwrap());
    assert_eq!(*lines.warnings.lock(), Vec::<String>::new());
    assert!(world.test.path().join(FILE).is_file());
}

#[test]
fn a_lock_that_is_set_while_groups_are_removed_holds_from_then_on() {
    let world = Locked::new();
    let times = 0..60_u32;
    let snapshots: Vec<Snapshot> = times
        .map(|number| world.backup("", &format!("host/x/2020-01-01T00:00:{number:02}Z")))
        .collect();
    let (store, started) = (&world.store, AtomicBool::new(false));
    let left = std::thread::scope(|scope| {
        let removing = scope.spawn(|| {
            let keep = KeepOptions {
                last: Some(1),
                ..KeepOptions::default()
            };
            started.store(true, Ordering::Release);
            let zone = TimeZone::UTC;
            // what became locked in the middle is told as an outcome, and ends nothing
            let each = |_: PrunedSnapshot| Ok::<_, DatastoreError>(());
            store.prune_group(&ns(""), &snapshots[0].group, &keep, &zone, false, each)
        });
        while !started.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        world.set("", 30);
        let left = store.snapshot_times(&ns(""), &snapshots[0].group).unwrap();
        removing.join().unwrap().unwrap();
        left
    });
    // whatever was there when the lock was set is there
    let now = store.snapshot_times(&ns(""), &snapshots[0].group).unwrap();
    assert_eq!(now, left);
    for time in left {
        assert_locked(world.removal("", &snapshots[0].group.snapshot(time)));
    }
}

#[test]
fn a_datastore_without_snapshots_that_are_locked_can_be_destroyed_with_its_locks() {
    let world = Locked::new();
    let group: BackupGroup = "host/x".parse().unwrap();
    world.backup("", OLD);
    world.set("", 1);
    assert_locked(world.destroy());
    let index = world.store.snapshot_path(&ns(""), &OLD.parse().unwrap());
    age(&index.join("root.pxar.didx"));
    std::fs::create_dir(world.test.path().join("photos")).unwrap();
    world.destroy().unwrap();
    assert!(!world.store.group_exists(&ns(""), &group));
    let left: Vec<_> = std::fs::read_dir(world.test.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["photos"]);
    world.destroy().unwrap();
}
