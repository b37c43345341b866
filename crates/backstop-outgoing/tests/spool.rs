//! The spool on a real folder, with a clock of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use backstop_outgoing::{Delivery, Limits, Spool};
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    items: 5,
    age: Duration::from_secs(10_000),
    first_wait: Duration::from_secs(10),
    longest_wait: Duration::from_secs(100),
};

fn open(folder: &Path) -> Spool {
    Spool::open(folder, LIMITS).unwrap()
}

/// Delivers everything that is due and tells what it was.
fn delivered(spool: &Spool, now: i64) -> Vec<String> {
    let mut seen = Vec::new();
    let pass = spool.deliver(now, |_, item: &String| {
        seen.push(item.clone());
        Delivery::Delivered
    });
    assert_eq!(pass.unwrap().delivered, seen.len());
    seen
}

fn refuse(spool: &Spool, now: i64) -> backstop_outgoing::spool::Pass {
    let failing = |_: &str, _: &String| Delivery::Failed("the server answered 500".to_owned());
    spool.deliver(now, failing).unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with('.')).collect()
}

#[test]
fn what_was_added_survives_a_restart_and_is_delivered_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let first = open(&path);
    for item in ["one", "two", "three"] {
        first.add("kuma", &item, 100).unwrap();
    }
    drop(first);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o700
    );
    for name in files(&path) {
        let mode = std::fs::metadata(path.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let spool = open(&path);
    assert_eq!(delivered(&spool, 100), ["one", "two", "three"]);
    assert!(spool.is_empty().unwrap());
    assert_eq!(delivered(&open(&path), 200), [""; 0]);
}

#[test]
fn failures_are_tried_again_after_growing_waits_which_a_restart_does_not_forget() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).add("kuma", &"push", 1000).unwrap();
    let mut now = 1000;
    for (attempt, wait) in [10, 20, 40, 80, 100, 100].into_iter().enumerate() {
        let spool = open(folder.path());
        let pass = refuse(&spool, now);
        assert_eq!(pass.failed, ["kuma: the server answered 500"]);
        assert_eq!(pass.next, Some(now + wait));
        let stuck = open(folder.path()).undelivered().unwrap().remove(0);
        assert_eq!(stuck.attempts as usize, attempt + 1);
        assert_eq!((stuck.queued, stuck.first_failure), (1000, Some(1000)));
        assert_eq!(stuck.last_error.as_deref(), Some("the server answered 500"));
        assert_eq!(stuck.next_try, now + wait);
        // One second too early nothing is tried.
        assert_eq!(delivered(&spool, now + wait - 1), [""; 0]);
        now += wait;
    }
    assert_eq!(delivered(&open(folder.path()), now), ["push"]);
    assert_eq!(open(folder.path()).undelivered().unwrap(), []);
}

#[test]
fn a_stuck_lane_keeps_its_order_and_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    spool.add("down", &"d1", 1).unwrap();
    spool.add("down", &"d2", 2).unwrap();
    spool.add("up", &"u1", 3).unwrap();
    let seen = RefCell::new(Vec::new());
    let deliver = |lane: &str, item: &String| {
        seen.borrow_mut().push(item.clone());
        match lane {
            "up" => Delivery::Delivered,
            _ => Delivery::Failed("refused".to_owned()),
        }
    };
    spool.deliver(10, deliver).unwrap();
    assert_eq!(seen.take(), ["d1", "u1"]);
    let stuck = spool.undelivered().unwrap();
    let stuck: Vec<_> = stuck
        .iter()
        .map(|item| (item.lane.as_str(), item.attempts))
        .collect();
    assert_eq!(stuck, [("down", 1), ("down", 0)]);
    assert_eq!(delivered(&spool, 20), ["d1", "d2"]);
}

#[test]
fn an_unreadable_file_is_set_aside_and_holds_up_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    spool.add("kuma", &"before", 1).unwrap();
    spool.add("kuma", &"damaged", 1).unwrap();
    spool.add("kuma", &vec![1, 2], 1).unwrap();
    spool.add("kuma", &"after", 1).unwrap();
    let mut names = files(folder.path());
    names.sort();
    std::fs::write(folder.path().join(&names[1]), b"{\"lane\":").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("0-link.json")).unwrap();
    let mut seen = Vec::new();
    let pass = spool.deliver(5, |_, item: &String| {
        seen.push(item.clone());
        Delivery::Delivered
    });
    assert_eq!(seen, ["before", "after"]);
    assert_eq!(pass.unwrap().set_aside.len(), 3);
    assert_eq!(spool.files_set_aside().unwrap().len(), 3);
    assert!(spool.is_empty().unwrap());
}

#[test]
fn what_a_crash_left_half_written_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).add("kuma", &"whole", 1).unwrap();
    std::fs::write(folder.path().join(".0000-x.json.tmp"), b"{").unwrap();
    let spool = open(folder.path());
    assert!(!folder.path().join(".0000-x.json.tmp").exists());
    assert_eq!(delivered(&spool, 2), ["whole"]);
}

#[test]
fn too_much_and_too_old_is_dropped_counted_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    for number in 0..7 {
        spool.add("kuma", &number.to_string(), number).unwrap();
    }
    let dropped = open(folder.path()).dropped().unwrap();
    assert_eq!((dropped.count, dropped.last), (2, 6));
    assert!(dropped.reason.contains("full"), "{}", dropped.reason);
    refuse(&spool, 100);
    // At 10,002 the item of the second 2 is exactly as old as allowed.
    let pass = refuse(&spool, 10_004);
    assert_eq!(pass.dropped.len(), 2);
    assert!(
        pass.dropped[0].contains("the server answered 500"),
        "{:?}",
        pass.dropped
    );
    assert_eq!(spool.dropped().unwrap().count, 4);
    assert_eq!(delivered(&spool, 10_004 + 100).len(), 0, "too old by now");
    assert_eq!(spool.dropped().unwrap().count, 7);
}

#[test]
fn the_hopeless_is_counted_and_the_withdrawn_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    spool.add("a", &"hopeless", 1).unwrap();
    spool.add("b", &"withdrawn", 1).unwrap();
    let pass = spool.deliver(1, |lane, _: &String| match lane {
        "a" => Delivery::Hopeless("no such address".to_owned()),
        _ => Delivery::Withdrawn,
    });
    assert_eq!(pass.unwrap().dropped, ["no such address"]);
    assert!(spool.is_empty().unwrap());
    assert_eq!(spool.dropped().unwrap().count, 1);
}

#[test]
fn a_clock_that_was_set_back_does_not_hold_up_anything() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    spool.add("kuma", &"push", 1_000_000).unwrap();
    refuse(&spool, 1_000_000);
    assert_eq!(delivered(&spool, 5000), ["push"]);
}

#[test]
fn two_never_deliver_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()), open(folder.path()));
    one.add("kuma", &"push", 1).unwrap();
    let pass = one.deliver(1, |_, _: &String| {
        let meanwhile = other.deliver(1, |_, _: &String| panic!("delivered twice"));
        assert!(meanwhile.unwrap().is_busy);
        // Adding is possible all the time.
        other.add("kuma", &"more", 1).unwrap();
        Delivery::Delivered
    });
    assert_eq!(pass.unwrap().delivered, 1);
    assert_eq!(delivered(&other, 1), ["more"]);
}

#[test]
fn what_made_room_during_its_delivery_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    spool.add("kuma", &"first", 1).unwrap();
    let pass = spool.deliver(1, |_, item: &String| {
        if item == "first" {
            for number in 0..5 {
                spool.add("kuma", &number.to_string(), 1).unwrap();
            }
        }
        Delivery::Failed("later".to_owned())
    });
    assert_eq!(pass.unwrap().failed.len(), 1);
    assert_eq!(delivered(&spool, 2), ["0", "1", "2", "3", "4"]);
}

#[test]
fn what_is_put_off_counts_as_no_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    spool.add("kuma", &"one", 1).unwrap();
    spool.add("kuma", &"two", 1).unwrap();
    let mut seen = 0;
    let pass = spool.deliver(1, |_, _: &String| {
        seen += 1;
        Delivery::Later
    });
    assert_eq!((seen, pass.unwrap().next), (1, Some(1)));
    assert_eq!(spool.undelivered().unwrap(), []);
    assert_eq!(delivered(&spool, 1), ["one", "two"]);
}

#[test]
fn everything_can_be_made_due() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    spool.add("kuma", &"push", 1).unwrap();
    refuse(&spool, 1);
    assert_eq!(delivered(&spool, 2), [""; 0]);
    spool.retry_now(2).unwrap();
    assert_eq!(delivered(&spool, 2), ["push"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever fails and whenever the program restarts: each item arrives once, in the order of its lane, or is counted.
    #[test]
    fn nothing_is_lost_doubled_or_out_of_order(
        steps in proptest::collection::vec((0..3_usize, 0..3_u8, 0..60_i64, any::<bool>()), 1..40),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = open(folder.path());
        let (mut now, mut added, mut arrived) = (0, 0_u64, Vec::new());
        for (lane, action, pause, is_failing) in steps {
            now += pause;
            match action {
                0 => {
                    spool.add(&lane.to_string(), &(lane, added), now).unwrap();
                    added += 1;
                }
                1 => {
                    spool.deliver(now, |_, item: &(usize, u64)| {
                        if is_failing && item.0 == lane {
                            return Delivery::Failed("no".to_owned());
                        }
                        arrived.push(*item);
                        Delivery::Delivered
                    }).unwrap();
                }
                _ => {
                    drop(spool);
                    spool = open(folder.path());
                }
            }
        }
        now += 1000;
        spool.deliver(now, |_, item: &(usize, u64)| {
            arrived.push(*item);
            Delivery::Delivered
        }).unwrap();
        prop_assert!(spool.is_empty().unwrap());
        prop_assert_eq!(arrived.len() as u64 + spool.dropped().unwrap().count, added);
        for lane in 0..3 {
            let numbers: Vec<u64> = arrived.iter().filter(|i| i.0 == lane).map(|i| i.1).collect();
            prop_assert!(numbers.is_sorted_by(|a, b| a < b), "{:?}", numbers);
        }
    }
}
