//! A limit on how many password hashes are computed at once: each takes 16 MiB, and a flood of
//! logins must not take all memory or all threads.

use parking_lot::{Condvar, Mutex};

/// Most hashes at once.
const MAX_RUNNING: usize = 4;
/// Most callers that wait for their turn; further ones are turned away.
const MAX_WAITING: usize = 64;

#[derive(Debug, Default)]
struct State {
    running: usize,
    waiting: usize,
}

/// The queue before the password hash.
#[derive(Debug, Default)]
pub(super) struct HashQueue {
    state: Mutex<State>,
    turn: Condvar,
}

/// The right to compute a hash; dropping it lets the next one go on.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a HashQueue);

impl HashQueue {
    /// Waits for a turn; `None` when too many wait already.
    pub(super) fn wait(&self) -> Option<Turn<'_>> {
        let mut state = self.state.lock();
        if state.running >= MAX_RUNNING {
            if state.waiting >= MAX_WAITING {
                return None;
            }
            state.waiting += 1;
            while state.running >= MAX_RUNNING {
                self.turn.wait(&mut state);
            }
            state.waiting -= 1;
        }
        state.running += 1;
        Some(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state.lock().running -= 1;
        self.0.turn.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn never_more_than_the_limit_run_and_everybody_gets_a_turn() {
        let queue = HashQueue::default();
        let (running, most, done) = (
            AtomicUsize::new(0),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _turn = queue.wait().unwrap();
                        let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        std::thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(done.load(Ordering::SeqCst), 800);
        assert!(most.load(Ordering::SeqCst) <= MAX_RUNNING);
    }

    #[test]
    fn a_flood_is_turned_away() {
        let queue = HashQueue::default();
        let turns: Vec<_> = (0..MAX_RUNNING).map(|_| queue.wait().unwrap()).collect();
        queue.state.lock().waiting = MAX_WAITING;
        assert!(queue.wait().is_none());
        queue.state.lock().waiting = 0;
        drop(turns);
        assert!(queue.wait().is_some());
    }
}
