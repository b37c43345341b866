//! A limit on logins that wait for somebody outside of this process: a directory server, or the system's own check.
//! One that does not answer must take neither all threads nor the logins of other realms with it.
//!
//! Whoever waits here holds no thread.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Most logins at once, of all realms together. Half of the threads that answer REST calls.
const MAX_RUNNING: usize = 16;
/// Most logins at once of one realm.
const MAX_OF_REALM: usize = 6;
/// Most logins that wait; further ones are turned away.
const MAX_WAITING: usize = 128;
/// How long a login waits at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// The queue before everything that asks outside.
#[derive(Debug)]
pub(super) struct OutsideQueue {
    all: Arc<Semaphore>,
    realms: Mutex<HashMap<String, Arc<Semaphore>>>,
    waiting: AtomicUsize,
}

/// The right to ask outside; dropping it lets the next one go on.
#[derive(Debug)]
pub struct OutsideTurn {
    _realm: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Default for OutsideQueue {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(MAX_RUNNING)),
            realms: Mutex::default(),
            waiting: AtomicUsize::new(0),
        }
    }
}

/// Counts one that waits, for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl OutsideQueue {
    /// Waits for a turn; `None` when too many wait already, or it takes too long.
    pub(super) async fn wait(&self, realm: &str) -> Option<OutsideTurn> {
        let others = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if others >= MAX_WAITING {
            return None;
        }
        let own = self.of_realm(realm);
        let turn = async {
            let realm = own.acquire_owned().await.ok()?;
            let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(OutsideTurn {
                _realm: realm,
                _all: all,
            })
        };
        timeout(PATIENCE, turn).await.ok().flatten()
    }

    fn of_realm(&self, realm: &str) -> Arc<Semaphore> {
        let mut realms = self.realms.lock();
        // Names come from outside: only those in use are kept.
        realms
            .retain(|_, own| Arc::strong_count(own) > 1 || own.available_permits() < MAX_OF_REALM);
        let own = realms
            .entry(realm.to_owned())
            .or_insert_with(|| Arc::new(Semaphore::new(MAX_OF_REALM)));
        Arc::clone(own)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_realm_that_does_not_answer_leaves_turns_to_others() {
        let queue = OutsideQueue::default();
        let mut held = Vec::new();
        for _ in 0..MAX_OF_REALM {
            held.push(queue.wait("dead").await.unwrap());
        }
        assert!(queue.wait("dead").await.is_none());
        assert!(queue.wait("alive").await.is_some());
        held.pop();
        assert!(queue.wait("dead").await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_turned_away_and_leaves_nothing_behind() {
        let queue = OutsideQueue::default();
        for number in 0..1000 {
            drop(queue.wait(&format!("realm{number}")).await.unwrap());
        }
        assert!(queue.realms.lock().len() <= 1);
        let mut held = Vec::new();
        for number in 0..MAX_RUNNING {
            held.push(queue.wait(&format!("realm{}", number % 4)).await.unwrap());
        }
        assert!(queue.wait("other").await.is_none());
        queue.waiting.store(MAX_WAITING, Ordering::Relaxed);
        held.clear();
        assert!(queue.wait("other").await.is_none());
        queue.waiting.store(0, Ordering::Relaxed);
        assert!(queue.wait("other").await.is_some());
    }
}
