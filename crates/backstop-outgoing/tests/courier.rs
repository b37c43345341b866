//! The courier on a real spool. Nothing here depends on how long something takes: what hangs does so until the test lets it go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use backstop_outgoing::courier::MOST_LANES;
use backstop_outgoing::spool::Pass;
use backstop_outgoing::{Carrier, Courier, Delivery, Limits, Spool, SpoolError};

/// How long a test waits before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// What fails is not tried again while a test runs.
const LIMITS: Limits = Limits {
    items: 1000,
    age: Duration::from_secs(100_000),
    first_wait: Duration::from_secs(3600),
    longest_wait: Duration::from_secs(3600),
    refusals: 3,
};

/// A door that is closed until somebody opens it.
#[derive(Default)]
struct Door {
    is_open: Mutex<bool>,
    changed: Condvar,
}

impl Door {
    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let opened = self.is_open.lock().unwrap();
        drop(
            self.changed
                .wait_while(opened, |is_open| !*is_open)
                .unwrap(),
        );
    }
}

/// What happened, in its order.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Begun(String, String),
    Ended(String, Vec<String>),
}

struct Post {
    spool: Spool,
    /// Lanes whose receivers do not answer before their door is open.
    doors: BTreeMap<String, Door>,
    /// What the disk refused.
    loose: Mutex<Vec<(String, String)>>,
    events: Mutex<Sender<Event>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Post {
    fn new(folder: &Path, stuck: &[&str]) -> (Arc<Self>, Receiver<Event>) {
        let (events, receiver) = mpsc::channel();
        let doors = stuck
            .iter()
            .map(|lane| ((*lane).to_owned(), Door::default()));
        let post = Self {
            spool: Spool::open(folder, LIMITS).unwrap(),
            doors: doors.collect(),
            loose: Mutex::default(),
            events: Mutex::new(events),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
        };
        (Arc::new(post), receiver)
    }

    fn tell(&self, event: Event) {
        // The test may have seen enough.
        let _ = self.events.lock().unwrap().send(event);
    }

    fn add(&self, lane: &str, item: &str) {
        self.spool.add(lane, &item, now()).unwrap();
    }
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

impl Carrier for Post {
    type Item = String;

    fn spool(&self) -> &Spool {
        &self.spool
    }

    fn fill(&self, _now: i64) -> Vec<(String, String)> {
        std::mem::take(&mut *self.loose.lock().unwrap())
    }

    fn deliver(&self, lane: &str, item: &String) -> Delivery {
        let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        self.tell(Event::Begun(lane.to_owned(), item.clone()));
        if let Some(door) = self.doors.get(lane) {
            door.wait();
        }
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        match item.as_str() {
            "refused" => Delivery::Failed("no".to_owned()),
            "fault" => panic!("a receiver that nobody thought of"),
            _ => Delivery::Delivered,
        }
    }

    fn delivered(&self, lane: &str, outcome: &Result<Pass, SpoolError>) {
        let failed = outcome.as_ref().unwrap().failed.clone();
        self.tell(Event::Ended(lane.to_owned(), failed));
    }
}

fn next(events: &Receiver<Event>) -> Event {
    events.recv_timeout(PATIENCE).expect("something happens")
}

fn begun(lane: &str, item: &str) -> Event {
    Event::Begun(lane.to_owned(), item.to_owned())
}

fn ended(lane: &str) -> Event {
    Event::Ended(lane.to_owned(), Vec::new())
}

/// A courier that hangs at the first of two items.
fn hanging(folder: &Path) -> (Arc<Post>, Receiver<Event>, Courier) {
    let (post, events) = Post::new(folder, &["stuck"]);
    post.add("stuck", "s1");
    post.add("stuck", "s2");
    let courier = Courier::start("test", Arc::clone(&post)).unwrap();
    assert_eq!(next(&events), begun("stuck", "s1"));
    (post, events, courier)
}

#[test]
fn a_receiver_that_never_answers_holds_up_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let (post, events, courier) = hanging(folder.path());
    // All that follows happens while the first one hangs: also what is added only now.
    for item in ["w1", "w2"] {
        post.add("works", item);
        assert_eq!(next(&events), begun("works", item));
        assert_eq!(next(&events), ended("works"));
    }
    post.add("stuck", "s3");
    post.add("works", "w3");
    assert_eq!(next(&events), begun("works", "w3"));
    assert_eq!(next(&events), ended("works"));
    assert_eq!(post.spool.len().unwrap(), 3, "what hangs is kept");
    // Its own lane goes on in order, one after the other.
    post.doors["stuck"].open();
    let mut order = Vec::new();
    while order.len() < 2 {
        if let Event::Begun(lane, item) = next(&events) {
            assert_eq!(lane, "stuck");
            order.push(item);
        }
    }
    assert_eq!(order, ["s2", "s3"]);
    assert_eq!(post.most_at_once.load(Ordering::SeqCst), 2);
    drop(courier);
}

#[test]
fn what_hangs_when_the_process_ends_is_delivered_by_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let (post, events, courier) = hanging(folder.path());
    // Another process does not deliver there meanwhile, but elsewhere.
    let (other, seen) = Post::new(folder.path(), &[]);
    let busy = other
        .spool
        .deliver_lane("stuck", now, |_: &String| panic!("delivered twice"))
        .unwrap();
    assert!(busy.is_busy);
    other.add("works", "w1");
    let elsewhere = other.spool.deliver(now(), |lane, item: &String| {
        other.tell(begun(lane, item));
        Delivery::Delivered
    });
    let elsewhere = elsewhere.unwrap();
    assert_eq!((elsewhere.delivered, elsewhere.is_busy), (1, true));
    assert_eq!(next(&seen), begun("works", "w1"));
    // Nothing more is begun once it is over; what was under way is done.
    drop(courier);
    post.doors["stuck"].open();
    assert_eq!(next(&events), ended("stuck"));
    let third = Courier::start("test", Arc::clone(&other)).unwrap();
    assert_eq!(next(&seen), begun("stuck", "s2"));
    assert_eq!(next(&seen), ended("stuck"));
    assert!(other.spool.is_empty().unwrap());
    drop(third);
}

#[test]
fn only_so_many_lanes_are_delivered_at_once_and_the_others_follow() {
    let folder = tempfile::tempdir().unwrap();
    let lanes: Vec<String> = (0..MOST_LANES).map(|n| format!("stuck{n}")).collect();
    let lanes: Vec<&str> = lanes.iter().map(String::as_str).collect();
    let (post, events) = Post::new(folder.path(), &lanes);
    for lane in &lanes {
        post.add(lane, "item");
    }
    post.add("last", "item");
    let _courier = Courier::start("test", Arc::clone(&post)).unwrap();
    for _ in &lanes {
        assert!(matches!(next(&events), Event::Begun(..)));
    }
    // One ends, and its thread is free for the next.
    post.doors["stuck3"].open();
    assert_eq!(next(&events), ended("stuck3"));
    assert_eq!(next(&events), begun("last", "item"));
    assert_eq!(next(&events), ended("last"));
    assert_eq!(post.most_at_once.load(Ordering::SeqCst), MOST_LANES);
    post.doors.values().for_each(Door::open);
}

#[test]
fn a_fault_costs_its_lane_an_attempt_and_no_other_anything() {
    let folder = tempfile::tempdir().unwrap();
    let (post, events) = Post::new(folder.path(), &[]);
    for item in ["fault", "refused"] {
        post.add(item, item);
    }
    let _courier = Courier::start("test", Arc::clone(&post)).unwrap();
    let mut failed = Vec::new();
    while failed.len() < 2 {
        if let Event::Ended(_, reasons) = next(&events) {
            failed.extend(reasons);
        }
    }
    failed.sort();
    assert_eq!(failed, ["fault: a fault of the program", "refused: no"]);
    let stuck = post.spool.undelivered(0).unwrap();
    assert!(stuck.iter().all(|item| item.attempts == 1), "{stuck:?}");
    post.add("works", "w1");
    assert_eq!(next(&events), begun("works", "w1"));
}

#[test]
fn what_the_disk_refused_is_told_once_and_waits_for_no_stuck_receiver() {
    let folder = tempfile::tempdir().unwrap();
    let (post, events) = Post::new(folder.path(), &["stuck"]);
    let keep = |lane: &str, item: &str| {
        let loose = (lane.to_owned(), item.to_owned());
        post.loose.lock().unwrap().push(loose);
        post.spool.wake();
    };
    let _courier = Courier::start("test", Arc::clone(&post)).unwrap();
    keep("stuck", "s1");
    assert_eq!(next(&events), begun("stuck", "s1"));
    keep("works", "refused");
    assert_eq!(next(&events), begun("works", "refused"));
    // Tried once: it is kept nowhere.
    assert_eq!(next(&events), ended("works"));
    keep("stuck", "s2");
    keep("works", "w2");
    assert_eq!(next(&events), begun("works", "w2"));
    post.doors["stuck"].open();
    let mut last = next(&events);
    while matches!(&last, Event::Ended(..)) {
        last = next(&events);
    }
    assert_eq!(last, begun("stuck", "s2"));
}
