#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_700_000_000;
const DAY: i64 = 86_400;

struct Fake {
    wall: AtomicI64,
    steady: AtomicI64,
}

impl Clock for Fake {
    fn wall(&self) -> i64 {
        self.wall.load(Ordering::Relaxed)
    }
    fn steady(&self) -> i64 {
        self.steady.load(Ordering::Relaxed)
    }
}

impl Fake {
    fn started(wall: i64) -> Self {
        Fake {
            wall: wall.into(),
            steady: wall.into(),
        }
    }
    fn pass(&self, seconds: i64) {
        self.wall.fetch_add(seconds, Ordering::Relaxed);
        self.steady.fetch_add(seconds, Ordering::Relaxed);
    }
    fn jump(&self, seconds: i64) {
        self.wall.fetch_add(seconds, Ordering::Relaxed);
    }
}

#[test]
fn time_passes_as_the_clocks_say_while_they_agree() {
    let (clock, mut anchor) = (Fake::started(NOW), None);
    for _ in 0..100 {
        let time = TrustedTime::tell(&clock, &mut anchor, NOW - DAY);
        assert_eq!((time.now, time.ahead), (clock.wall(), 0));
        clock.pass(DAY);
        clock.jump(10);
    }
}

#[test]
fn a_clock_that_is_set_forward_does_not_count() {
    let (clock, mut anchor) = (Fake::started(NOW), None);
    TrustedTime::tell(&clock, &mut anchor, NOW);
    clock.jump(400 * DAY);
    clock.pass(60);
    let time = TrustedTime::tell(&clock, &mut anchor, NOW);
    assert_eq!(time.ahead, 400 * DAY);
    assert!(time.now <= NOW + 60 + SLACK);
    assert_eq!(time.seen, NOW + 60);
    // opening the datastore again in the same process forgets nothing
    let time = TrustedTime::tell(&clock, &mut None, time.seen);
    assert!(time.now <= NOW + 60 + 2 * SLACK && time.ahead > 399 * DAY);
    // when it is right again, so is everything
    clock.jump(-400 * DAY);
    let time = TrustedTime::tell(&clock, &mut anchor, NOW);
    assert_eq!((time.now, time.ahead), (NOW + 60, 0));
}

#[test]
fn a_start_after_a_short_while_believes_the_clock_and_after_a_long_one_does_not() {
    let short = TrustedTime::tell(&Fake::started(NOW + LONGEST_GAP), &mut None, NOW);
    assert_eq!((short.now, short.ahead), (NOW + LONGEST_GAP, 0));
    let clock = Fake::started(NOW + LONGEST_GAP + 1);
    let mut anchor = None;
    let long = TrustedTime::tell(&clock, &mut anchor, NOW);
    assert_eq!((long.seen, long.ahead), (NOW, LONGEST_GAP + 1));
    // time goes on from where it was
    clock.pass(5 * DAY);
    let later = TrustedTime::tell(&clock, &mut anchor, NOW);
    assert_eq!(later.seen, NOW + 5 * DAY);
}

#[test]
fn a_clock_that_is_behind_is_believed_and_forgets_nothing() {
    let (clock, mut anchor) = (Fake::started(0), None);
    let time = TrustedTime::tell(&clock, &mut anchor, NOW);
    assert_eq!((time.now, time.ahead), (0, 0));
    clock.jump(NOW + 60);
    let time = TrustedTime::tell(&clock, &mut anchor, NOW);
    assert_eq!((time.now, time.ahead), (NOW + 60, 0));
}

proptest! {
    /// Jumps of any size and order, restarts that are short apart, and the slack together never make time run faster than it
    /// passes, but for the slack of one process each.
    #[test]
    fn time_never_runs_faster_than_it_passes(
        steps in prop::collection::vec((0_i64..3 * DAY, -500 * DAY..500 * DAY, any::<bool>()), 1..60)
    ) {
        let (clock, mut anchor) = (Fake::started(NOW), None);
        let (mut seen, mut passed) = (NOW, 0);
        for (pass, jump, reopen) in steps {
            clock.pass(pass);
            passed += pass;
            clock.jump(jump);
            if reopen {
                anchor = None;
            }
            let time = TrustedTime::tell(&clock, &mut anchor, seen);
            prop_assert!(time.now <= NOW + passed + 2 * SLACK);
            prop_assert!(time.now <= clock.wall());
            prop_assert!(time.seen <= time.now);
            seen = seen.max(time.seen);
        }
    }
}
