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
    refusals: 3,
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
        let stuck = open(folder.path()).undelivered(0).unwrap().remove(0);
        assert_eq!(stuck.attempts as usize, attempt + 1);
        assert_eq!((stuck.queued, stuck.first_failure), (1000, Some(1000)));
        assert_eq!(stuck.last_error.as_deref(), Some("the server answered 500"));
        assert_eq!(stuck.next_try, now + wait);
        // One second too early nothing is tried.
        assert_eq!(delivered(&spool, now + wait - 1), [""; 0]);
        now += wait;
    }
    assert_eq!(delivered(&open(folder.path()), now), ["push"]);
    assert_eq!(open(folder.path()).undelivered(0).unwrap(), []);
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
    let stuck = spool.undelivered(0).unwrap();
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
    assert!(
        dropped.reason.contains("more than 5 wait for kuma"),
        "{}",
        dropped.reason
    );
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
fn one_lane_that_is_full_displaces_nothing_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    spool.add("quiet", &"q", 1).unwrap();
    for number in 0..8 {
        spool.add("noisy", &number.to_string(), 2).unwrap();
    }
    assert_eq!(
        spool.dropped().unwrap().lanes.keys().collect::<Vec<_>>(),
        ["noisy"]
    );
    let mut kept = delivered(&spool, 3);
    kept.sort();
    assert_eq!(kept, ["3", "4", "5", "6", "7", "q"]);
}

#[test]
fn what_a_receiver_refuses_is_set_aside_so_that_the_rest_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    for item in ["good1", "bad", "good2"] {
        spool.add("kuma", &item, 1).unwrap();
    }
    let mut arrived = Vec::new();
    let mut now = 1;
    for attempt in 1..=3 {
        let pass = spool
            .deliver(now, |_, item: &String| match item.as_str() {
                "bad" => Delivery::Refused("the server answered 400".to_owned()),
                item => {
                    arrived.push(item.to_owned());
                    Delivery::Delivered
                }
            })
            .unwrap();
        assert_eq!(pass.refused.len(), usize::from(attempt == 3));
        now = pass.next.unwrap_or(now);
        spool = open(folder.path());
    }
    assert_eq!(arrived, ["good1", "good2"]);
    assert!(spool.is_empty().unwrap());
    let stuck = spool.undelivered(now).unwrap();
    assert_eq!(
        (stuck.len(), stuck[0].refused, stuck[0].attempts),
        (1, true, 3)
    );
    assert_eq!(
        stuck[0].last_error.as_deref(),
        Some("the server answered 400")
    );
    assert_eq!(spool.item::<String>(&stuck[0].id).unwrap().unwrap(), "bad");
    assert_eq!(spool.dropped().unwrap().count, 0, "it is not lost yet");
    // Not even age takes it away.
    assert_eq!(delivered(&spool, now + 100_000), [""; 0]);
    spool.retry_now(now + 100_000).unwrap();
    assert_eq!(delivered(&spool, now + 100_000), ["bad"]);
    assert_eq!(spool.undelivered(now).unwrap(), []);
}

#[test]
fn what_was_refused_can_be_given_up_and_is_not_kept_without_end() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        items: 1000,
        refusals: 1,
        ..LIMITS
    };
    let spool = Spool::open(folder.path(), limits).unwrap();
    for number in 0..103 {
        spool.add("kuma", &number.to_string(), 1).unwrap();
    }
    let refuse = |_: &str, _: &String| Delivery::Refused("no".to_owned());
    assert_eq!(spool.deliver(1, refuse).unwrap().refused.len(), 103);
    let stuck = spool.undelivered(1).unwrap();
    assert_eq!((stuck.len(), spool.dropped().unwrap().count), (100, 3));
    assert_eq!(spool.take_lost().len(), 103);
    assert!(spool.discard(&stuck[0].id).unwrap());
    assert!(!spool.discard(&stuck[0].id).unwrap());
    assert_eq!(spool.undelivered(1).unwrap().len(), 99);
    assert_eq!(spool.retain_lanes(|lane| lane != "kuma").unwrap(), 99);
    assert_eq!(spool.undelivered(1).unwrap(), []);
    assert!(spool.dropped().unwrap().lanes.is_empty());
}

#[test]
fn a_receiver_that_says_when_to_come_back_is_left_alone_until_then() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    spool.add("kuma", &"push", 1).unwrap();
    let busy = |seconds| {
        move |_: &str, _: &String| Delivery::Busy {
            reason: "429".to_owned(),
            wait: Duration::from_secs(seconds),
        }
    };
    assert_eq!(spool.deliver(1, busy(77)).unwrap().next, Some(78));
    // Not longer than anything waits, and not shorter than after any failure.
    assert_eq!(spool.deliver(78, busy(100_000)).unwrap().next, Some(178));
    assert_eq!(spool.deliver(178, busy(0)).unwrap().next, Some(218));
}

#[test]
fn what_nobody_has_tried_in_time_has_not_arrived() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    spool.add("kuma", &"push", 1000).unwrap();
    assert_eq!(spool.undelivered(1060).unwrap(), []);
    let late = spool.undelivered(1061).unwrap();
    assert_eq!((late.len(), late[0].attempts), (1, 0));
}

#[test]
fn losses_are_counted_by_lane_and_forgotten_after_some_days() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let day = 86_400;
    for (lane, at) in [("a", 10 * day), ("a", 10 * day + 7200), ("b", 11 * day)] {
        spool.add(lane, &"x", at).unwrap();
        let hopeless = |_: &str, _: &String| Delivery::Hopeless(format!("no {at}"));
        spool.deliver(at, hopeless).unwrap();
    }
    let lanes = open(folder.path()).dropped().unwrap().lanes;
    assert_eq!(
        (
            lanes["a"].since(10 * day),
            lanes["a"].since(10 * day + 7200)
        ),
        (2, 1)
    );
    assert_eq!(
        (lanes["a"].since(11 * day), lanes["b"].since(10 * day)),
        (0, 1)
    );
    assert_eq!(lanes["a"].reason, format!("no {}", 10 * day + 7200));
    spool.add("b", &"x", 20 * day).unwrap();
    let hopeless = |_: &str, _: &String| Delivery::Hopeless("no".to_owned());
    spool.deliver(20 * day, hopeless).unwrap();
    let dropped = spool.dropped().unwrap();
    assert_eq!((dropped.count, dropped.lanes.len()), (4, 1));
}

#[test]
fn a_new_item_takes_the_place_of_those_it_replaces_and_of_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    for (lane, item) in [("a", "x1"), ("a", "y1"), ("b", "x1"), ("a", "x2")] {
        spool.add(lane, &item, 1).unwrap();
    }
    let same = |older: &String, queued| older.starts_with('x') && queued == 1;
    let absorb = |new: &mut String, older: &String| new.push_str(&format!("+{older}"));
    spool
        .add_in_place_of("a", "x3".to_owned(), 2, same, absorb)
        .unwrap();
    let mut left = delivered(&spool, 3);
    left.sort();
    assert_eq!(left, ["x1", "x3+x1+x2", "y1"]);
    assert_eq!(spool.dropped().unwrap().count, 0);
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
    assert_eq!(spool.undelivered(0).unwrap(), []);
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
