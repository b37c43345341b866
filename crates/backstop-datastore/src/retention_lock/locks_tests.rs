#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_700_000_000;

fn ns(text: &str) -> Namespace {
    text.parse().unwrap()
}

fn days(locks: &Locks, namespace: &str, now: i64) -> u32 {
    locks
        .governing(&ns(namespace), now)
        .map_or(0, |found| found.days)
}

#[test]
fn a_lock_is_set_and_lengthened_at_once_and_never_shortened_by_setting() {
    let mut locks = Locks::none(NOW);
    locks.set(&ns("a"), 30, None, "root@pam", NOW).unwrap();
    assert_eq!(days(&locks, "a", NOW), 30);
    locks.set(&ns("a"), 31, Some(48), "a@pbs", NOW + 1).unwrap();
    assert_eq!(days(&locks, "a", NOW + 1), 31);
    let shorter = locks.set(&ns("a"), 30, None, "root@pam", NOW + 2);
    assert_eq!(
        shorter.unwrap_err().to_string(),
        "the retention lock of namespace 'a' is 31 days; it cannot be set to 30, only lengthened. Request shortening \
         instead, which takes effect after the grace window"
    );
    let grace = locks.set(&ns("a"), 31, Some(24), "root@pam", NOW + 2);
    assert!(matches!(
        grace,
        Err(Refusal::ShorterGrace { current: 48, .. })
    ));
    assert_eq!(days(&locks, "a", NOW + 3), 31);
    for (days, grace) in [(0, None), (3651, None), (40, Some(0)), (40, Some(721))] {
        let refused = locks.set(&ns("a"), days, grace, "root@pam", NOW + 4);
        assert!(refused.is_err(), "{days} {grace:?}");
    }
}

#[test]
fn the_strictest_lock_above_decides() {
    let mut locks = Locks::none(NOW);
    locks.set(&ns("a"), 30, None, "x@pbs", NOW).unwrap();
    locks.set(&ns("a/b"), 10, None, "x@pbs", NOW).unwrap();
    locks.set(&ns("a/b/c"), 40, None, "x@pbs", NOW).unwrap();
    assert_eq!(locks.governing(&ns(""), NOW), None);
    assert_eq!(locks.governing(&ns("b"), NOW), None);
    assert_eq!(locks.governing(&ns("ab"), NOW), None);
    let found = locks.governing(&ns("a/b"), NOW).unwrap();
    assert_eq!((found.namespace, found.days), (ns("a"), 30));
    let found = locks.governing(&ns("a/b/c/d"), NOW).unwrap();
    assert_eq!((found.namespace, found.days), (ns("a/b/c"), 40));
    locks.set(&ns(""), 50, None, "x@pbs", NOW).unwrap();
    assert_eq!(days(&locks, "a/b/c/d", NOW), 50);
    assert_eq!(days(&locks, "z", NOW), 50);
}

#[test]
fn a_request_takes_effect_when_its_grace_window_has_passed_and_not_before() {
    let mut locks = Locks::none(NOW);
    locks.set(&ns(""), 30, Some(2), "x@pbs", NOW).unwrap();
    let effective = locks.request(&ns(""), 0, "root@pam", NOW + 10).unwrap();
    assert_eq!(effective, NOW + 10 + 2 * HOUR);
    assert_eq!(days(&locks, "a", effective - 1), 30);
    assert_eq!(locks.governing_to_come(&ns("a")), None);
    assert_eq!(days(&locks, "a", effective), 0);
    let mut settled = locks.clone();
    settled.settle(effective - 1);
    assert_eq!(settled, locks);
    settled.settle(effective);
    assert!(settled.locks.is_empty());
    let last = settled.history.last().unwrap();
    assert_eq!(
        (&*last.by, &*last.what),
        ("root@pam", "removed as requested")
    );

    locks.cancel(&ns(""), "b@pbs", effective - 1).unwrap();
    assert_eq!(days(&locks, "a", effective + 1), 30);
    assert_eq!(
        locks.cancel(&ns(""), "b@pbs", effective).unwrap_err(),
        Refusal::NoRequest(ns(""))
    );
    assert_eq!(
        locks
            .request(&ns(""), 30, "root@pam", effective)
            .unwrap_err(),
        Refusal::NotShorter {
            namespace: ns(""),
            days: 30,
            current: 30
        }
    );
    assert_eq!(
        locks
            .request(&ns("a"), 0, "root@pam", effective)
            .unwrap_err(),
        Refusal::NoLock(ns("a"))
    );
}

#[test]
fn setting_a_lock_withdraws_a_request_and_a_second_request_waits_anew() {
    let mut locks = Locks::none(NOW);
    locks.set(&ns(""), 30, Some(1), "x@pbs", NOW).unwrap();
    locks.request(&ns(""), 20, "root@pam", NOW).unwrap();
    locks
        .request(&ns(""), 10, "root@pam", NOW + HOUR - 1)
        .unwrap();
    assert_eq!(days(&locks, "", NOW + HOUR), 30);
    assert_eq!(days(&locks, "", NOW + 2 * HOUR - 1), 10);
    locks.set(&ns(""), 30, None, "x@pbs", NOW + HOUR).unwrap();
    assert_eq!(days(&locks, "", NOW + 100 * HOUR), 30);
}

#[test]
fn age_counts_from_when_a_snapshot_was_written_unless_its_time_is_later_and_past() {
    assert_eq!(counts_from(100, 500, 1000), 500);
    assert_eq!(counts_from(600, 500, 1000), 600);
    // a client whose clock is wrong must not lock its group for years
    assert_eq!(counts_from(2000, 500, 1000), 500);
}

#[test]
fn the_history_is_bounded() {
    let mut locks = Locks::none(NOW);
    for days in 1..=300 {
        locks.set(&ns(""), days, None, "x@pbs", NOW).unwrap();
    }
    assert_eq!(locks.history.len(), HISTORY);
    let last = locks.history.last().unwrap();
    assert_eq!(last.what, "set to 300 days with a grace window of 24 hours");
}

#[test]
fn extreme_numbers_in_the_file_do_no_harm() {
    let text = r#"{"version": 1, "seen": 9223372036854775807, "locks": {"": {"days": 4294967295, "grace-hours": 4294967295,
        "set-at": -9223372036854775808, "set-by": ""}}}"#;
    let mut locks: Locks = serde_json::from_str(text).unwrap();
    let found = locks.governing(&ns("a"), i64::MAX).unwrap();
    assert_eq!(found.until(i64::MAX), i64::MAX);
    locks.request(&ns(""), 1, "x", i64::MAX).unwrap();
    locks.request_clock(i64::MAX, "x", i64::MAX).unwrap();
    locks.settle(i64::MAX);
}

#[derive(Clone, Debug)]
enum Step {
    Wait(i64),
    Set(usize, u32, Option<u32>),
    Request(usize, u32),
    Cancel(usize),
    Store,
}

const PLACES: [&str; 4] = ["", "a", "a/b", "c"];

fn step() -> impl Strategy<Value = Step> {
    let place = 0..PLACES.len();
    prop_oneof![
        (1..40 * HOUR).prop_map(Step::Wait),
        (place.clone(), 0_u32..40, proptest::option::of(0_u32..40))
            .prop_map(|(place, days, grace)| Step::Set(place, days, grace)),
        (place.clone(), 0_u32..40).prop_map(|(place, days)| Step::Request(place, days)),
        place.prop_map(Step::Cancel),
        Just(Step::Store),
    ]
}

proptest! {
    /// Whatever is done in whatever order: what a lock promises at one moment still holds until a grace window, of which
    /// somebody was told, has passed since.
    #[test]
    fn no_order_of_changes_loosens_a_lock_within_its_grace_window(steps in prop::collection::vec(step(), 1..60)) {
        let mut locks = Locks::none(NOW);
        let mut now = NOW;
        // for each place the promises made so far: until when so many days hold
        let mut promises: Vec<(usize, i64, u32)> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(seconds) => now += seconds,
                Step::Set(place, days, grace) => {
                    let before = locks.clone();
                    if locks.set(&ns(PLACES[place]), days, grace, "x@pbs", now).is_err() {
                        let mut settled = before;
                        settled.settle(now);
                        prop_assert_eq!(&locks.locks, &settled.locks, "a refused change changes nothing");
                    }
                }
                Step::Request(place, days) => {
                    let _ = locks.request(&ns(PLACES[place]), days, "root@pam", now);
                }
                Step::Cancel(place) => {
                    let _ = locks.cancel(&ns(PLACES[place]), "x@pbs", now);
                }
                Step::Store => {
                    let text = serde_json::to_string(&locks).unwrap();
                    let read: Locks = serde_json::from_str(&text).unwrap();
                    prop_assert_eq!(&read, &locks);
                    locks.settle(now);
                }
            }
            for (place, until, promised) in &promises {
                if now < *until {
                    prop_assert!(days(&locks, PLACES[*place], now) >= *promised);
                }
            }
            for (place, name) in PLACES.iter().enumerate() {
                let held = days(&locks, name, now);
                // children hold at least what their parents do
                if let Some(parent) = ns(name).parent() {
                    prop_assert!(held >= days(&locks, parent.as_str(), now));
                }
                let to_come = locks.governing_to_come(&ns(name)).map_or(0, |found| found.days);
                prop_assert!(to_come <= held);
                if let Some(governing) = locks.governing(&ns(name), now) {
                    let lock = &locks.locks[&governing.namespace];
                    let until = match &lock.request {
                        Some(request) if request.effective_at > now => request.effective_at,
                        _ => now + i64::from(lock.grace_hours) * HOUR,
                    };
                    promises.push((place, until, held));
                }
            }
        }
    }
}

fn any_locks() -> impl Strategy<Value = Locks> {
    let request = (any::<u32>(), any::<i64>()).prop_map(|(days, effective_at)| Request {
        days,
        made_at: 0,
        made_by: String::new(),
        effective_at,
    });
    let lock = (any::<u32>(), any::<u32>(), proptest::option::of(request));
    let lock = lock.prop_map(|(days, grace_hours, request)| Lock {
        days,
        grace_hours,
        set_at: 0,
        set_by: String::new(),
        request,
    });
    prop::collection::vec((0..PLACES.len(), lock), 0..6).prop_map(|places| {
        let mut locks = Locks::none(0);
        let named = |(place, lock): (usize, Lock)| (ns(PLACES[place]), lock);
        locks.locks.extend(places.into_iter().map(named));
        locks
    })
}

proptest! {
    /// The same as the fuzz target, on files that can be understood.
    #[test]
    fn whatever_numbers_the_file_has_a_request_opens_nothing_at_once(
        locks in any_locks(), now in i64::MIN..i64::MAX / 2, days in any::<u32>()
    ) {
        let mut locks = locks;
        for place in PLACES.map(ns) {
            let held = locks.governing(&place, now).map_or(0, |found| found.days);
            let _ = locks.set(&place, days, None, "root@pam", now);
            let _ = locks.request(&place, days / 2, "root@pam", now);
            let after = locks.governing(&place, now);
            if let Some(found) = &after {
                prop_assert!(found.until(now) >= now);
            }
            let grace = locks.locks.get(&place).map_or(0, |lock| lock.grace_hours);
            prop_assert!(grace == 0 || after.map_or(0, |found| found.days) >= held);
        }
        let _ = locks.request_clock(now, "root@pam", now);
        locks.settle(now);
    }
}
