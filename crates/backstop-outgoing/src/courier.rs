//! Delivers from a spool, several lanes at a time.
//!
//! One thread looks for what is due, and each lane that has something is given a thread of its own until it is empty or has failed. A
//! receiver that hangs holds up its own lane alone; no lane is delivered twice at the same time, nor out of order. What the spool
//! promises across crashes stays as it is: the threads keep nothing that is not on the disk, but for what the disk refused.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::Builder;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use serde::de::DeserializeOwned;

use crate::spool::{Delivery, Look, Pass, Spool, SpoolError};

/// Most lanes that are delivered at the same time; only as many stuck receivers could hold up others.
pub const MOST_LANES: usize = 16;
/// How long nothing is looked at when nothing happens: another process may have left something.
const IDLE: Duration = Duration::from_secs(60);
/// How long to wait after the spool could not be used.
const AFTER_TROUBLE: Duration = Duration::from_secs(30);
/// How long to wait for another process that delivers in the same lane.
const WHILE_BUSY: Duration = Duration::from_secs(5);
/// Most items of one lane that are kept in memory because the disk refuses them; the oldest go first.
const MOST_LOOSE: usize = 100;

/// What a courier carries, and to whom.
pub trait Carrier: Send + Sync + 'static {
    /// What is in the spool.
    type Item: DeserializeOwned + Send + 'static;

    /// Where it is.
    fn spool(&self) -> &Spool;

    /// Fills the spool, before each look into it. What is returned could not be kept: it is tried once, soon. Must not wait for a
    /// receiver.
    fn fill(&self, _now: i64) -> Vec<(String, Self::Item)> {
        Vec::new()
    }

    /// Tries to deliver an item, once. May take its time, and is called for several lanes at once.
    fn deliver(&self, lane: &str, item: &Self::Item) -> Delivery;

    /// Is told how it went with something that could not be kept.
    fn tried(&self, _lane: &str, _item: &Self::Item, _outcome: &Delivery) {}

    /// Is told of what will not arrive: it was dropped, refused, given up, or nobody wants it any more.
    fn lost(&self, _lane: &str, _item: &Self::Item) {}

    /// Is told what a look found.
    fn looked(&self, _found: &Result<Look, SpoolError>) {}

    /// Is told how it went with a lane.
    fn delivered(&self, _lane: &str, _outcome: &Result<Pass, SpoolError>) {}
}

/// Wakes the thread that looks.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    signal: Mutex<Signal>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Signal {
    is_rung: bool,
    is_over: bool,
}

impl Bell {
    pub fn ring(&self) {
        self.signal.lock().is_rung = true;
        self.changed.notify_all();
    }

    fn end(&self) {
        self.signal.lock().is_over = true;
        self.changed.notify_all();
    }

    fn is_over(&self) -> bool {
        self.signal.lock().is_over
    }

    /// From here on a ring counts. Says whether it is over.
    fn hush(&self) -> bool {
        let mut signal = self.signal.lock();
        signal.is_rung = false;
        signal.is_over
    }

    fn wait_until(&self, until: Instant) {
        let mut signal = self.signal.lock();
        while !signal.is_rung && !signal.is_over {
            if self.changed.wait_until(&mut signal, until).timed_out() {
                return;
            }
        }
    }
}

/// The threads that deliver. Dropping it lets what is under way end, begins nothing more, and does not wait.
#[derive(Debug)]
pub struct Courier(Arc<Bell>);

impl Drop for Courier {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Courier {
    /// Starts to deliver, also what an earlier process has left. `name` is that of the threads. A spool has one courier at most.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start<C: Carrier>(name: &'static str, carrier: Arc<C>) -> io::Result<Self> {
        let bell = Arc::clone(carrier.spool().bell());
        let round = Arc::new(Round {
            name,
            carrier,
            bell: Arc::clone(&bell),
            state: Mutex::new(State {
                under_way: BTreeSet::new(),
                resting: BTreeMap::new(),
                loose: BTreeMap::new(),
            }),
        });
        Builder::new()
            .name(name.to_owned())
            .spawn(move || round.run())?;
        Ok(Self(bell))
    }
}

/// What the threads of a courier share.
struct Round<C: Carrier> {
    name: &'static str,
    carrier: Arc<C>,
    bell: Arc<Bell>,
    state: Mutex<State<C::Item>>,
}

struct State<T> {
    /// Lanes that have a thread.
    under_way: BTreeSet<String>,
    /// Lanes that are left alone until then.
    resting: BTreeMap<String, Instant>,
    /// What is in no spool, by lane.
    loose: BTreeMap<String, Vec<T>>,
}

impl<T> State<T> {
    fn is_taken(&self, lane: &str) -> bool {
        self.under_way.contains(lane) || self.resting.contains_key(lane)
    }

    fn keep(&mut self, lane: String, item: T) {
        let kept = self.loose.entry(lane).or_default();
        if kept.len() >= MOST_LOOSE {
            kept.remove(0);
            tracing::error!("something is lost that could not be kept");
        }
        kept.push(item);
    }
}

impl<C: Carrier> Round<C> {
    fn run(self: &Arc<Self>) {
        while !self.bell.hush() {
            let pause = catch_unwind(AssertUnwindSafe(|| self.look())).unwrap_or_else(|_| {
                tracing::error!("a look for {} is lost to a fault of the program", self.name);
                AFTER_TROUBLE
            });
            self.bell.wait_until(Instant::now() + pause);
        }
    }

    /// Begins whatever is due, and says how long there is nothing more to begin unless somebody rings.
    fn look(self: &Arc<Self>) -> Duration {
        let begun = Instant::now();
        self.hand_over_lost();
        self.state.lock().resting.retain(|_, until| *until > begun);
        for (lane, item) in self.carrier.fill(clock()) {
            self.state.lock().keep(lane, item);
        }
        // A spool that cannot be used holds up nothing that is not in it.
        let loose: Vec<String> = self.state.lock().loose.keys().cloned().collect();
        for lane in loose {
            self.begin(lane);
        }
        let now = clock();
        let is_taken = |lane: &str| self.state.lock().is_taken(lane);
        let found = self.carrier.spool().look(now, is_taken);
        self.carrier.looked(&found);
        let mut pause = IDLE;
        match found {
            Ok(look) => {
                if let Some(next) = look.next {
                    let seconds = u64::try_from(next.saturating_sub(now)).unwrap_or(0);
                    pause = pause.min(Duration::from_secs(seconds.max(1)));
                }
                for lane in look.lanes {
                    self.begin(lane);
                }
            }
            Err(_) => pause = AFTER_TROUBLE,
        }
        let state = self.state.lock();
        let rests = state.resting.values().map(|until| *until - begun);
        rests.min().map_or(pause, |rest| pause.min(rest))
    }

    /// Gives a lane a thread. When there are too many, it waits for the end of one, which rings.
    fn begin(self: &Arc<Self>, lane: String) {
        {
            let mut state = self.state.lock();
            if state.is_taken(&lane) || state.under_way.len() >= MOST_LANES {
                return;
            }
            state.under_way.insert(lane.clone());
        }
        let (own, of_thread) = (Arc::clone(self), lane.clone());
        let thread = Builder::new().name(self.name.to_owned());
        if let Err(err) = thread.spawn(move || own.work(&of_thread)) {
            tracing::error!(%err, lane, "unable to start a thread that delivers");
            self.end(&lane, Some(AFTER_TROUBLE));
        }
    }

    /// Delivers a lane.
    fn work(&self, lane: &str) {
        let loose = self.state.lock().loose.remove(lane);
        for item in loose.into_iter().flatten() {
            let outcome = self.attempt(lane, &item);
            tracing::warn!(lane, ?outcome, "told without keeping it");
            self.carrier.tried(lane, &item, &outcome);
        }
        let deliver = |item: &C::Item| match self.bell.is_over() {
            true => Delivery::Later,
            false => self.attempt(lane, item),
        };
        let outcome = self.carrier.spool().deliver_lane(lane, clock, deliver);
        let rest = match &outcome {
            Ok(pass) if pass.is_busy => Some(WHILE_BUSY),
            Ok(_) => None,
            Err(_) => Some(AFTER_TROUBLE),
        };
        self.hand_over_lost();
        self.carrier.delivered(lane, &outcome);
        self.end(lane, rest);
    }

    fn hand_over_lost(&self) {
        for lost in self.carrier.spool().take_lost() {
            // What cannot be read was nothing.
            if let Ok(item) = serde_json::from_value(lost.item) {
                self.carrier.lost(&lost.lane, &item);
            }
        }
    }

    /// An attempt that cannot end the thread.
    fn attempt(&self, lane: &str, item: &C::Item) -> Delivery {
        let attempt = catch_unwind(AssertUnwindSafe(|| self.carrier.deliver(lane, item)));
        attempt.unwrap_or_else(|_| Delivery::Failed("a fault of the program".to_owned()))
    }

    fn end(&self, lane: &str, rest: Option<Duration>) {
        {
            let mut state = self.state.lock();
            state.under_way.remove(lane);
            if let Some(rest) = rest {
                state.resting.insert(lane.to_owned(), Instant::now() + rest);
            }
        }
        self.bell.ring();
    }
}

fn clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}
