//! Data that waits to be hashed, handed out in pairs of like length, for which [`DigestPair`](super::DigestPair) is fastest.
//!
//! One item is handed out alone only when nobody else is at work: a second one comes while the others are busy, or they take
//! it when they are done. It neither hashes nor starts threads, and it loses nothing.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Items with their lengths in bytes, and the number of threads that work on them.
#[derive(Debug)]
pub struct PairQueue<T> {
    state: Mutex<State<T>>,
    limit: usize,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<(u64, T)>,
    running: usize,
}

impl<T> PairQueue<T> {
    /// A queue on which at most `limit` threads work, at least one.
    pub fn new(limit: usize) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                running: 0,
            }),
            limit: limit.max(1),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Nothing is called while the lock is held that could leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an item whose data is `length` bytes long. When this is `true`, the caller must see to it that a thread calls
    /// [`work`](Self::work).
    #[must_use]
    pub fn push(&self, length: u64, item: T) -> bool {
        let mut state = self.state();
        state.waiting.push_back((length, item));
        let start = state.running == 0 || (state.waiting.len() > 1 && state.running < self.limit);
        state.running += usize::from(start);
        start
    }

    /// Calls `take` with what waits, one or two items at a time, until other threads can do the rest. A panic in `take` ends
    /// that call only.
    pub fn work(&self, mut take: impl FnMut(T, Option<T>)) {
        while let Some((first, second)) = self.next() {
            let _ = catch_unwind(AssertUnwindSafe(|| take(first, second)));
        }
    }

    /// The oldest item, and the one among the others whose length is nearest to its own. `None`: this thread has to stop.
    fn next(&self) -> Option<(T, Option<T>)> {
        let mut state = self.state();
        let alone = state.running == 1;
        if state.waiting.is_empty() || (state.waiting.len() == 1 && !alone) {
            state.running = state.running.saturating_sub(1);
            return None;
        }
        let (length, first) = state.waiting.pop_front()?;
        let nearest = state
            .waiting
            .iter()
            .enumerate()
            .min_by_key(|(_, (other, _))| other.abs_diff(length))
            .map(|(position, _)| position);
        let second = nearest
            .and_then(|position| state.waiting.remove(position))
            .map(|(_, item)| item);
        Some((first, second))
    }

    /// Whether nothing waits and nobody is at work.
    pub fn is_idle(&self) -> bool {
        let state = self.state();
        state.waiting.is_empty() && state.running == 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_oldest_comes_first_with_the_one_that_is_most_like_it() {
        let queue = PairQueue::new(1);
        let starts: Vec<bool> = [5, 90, 7, 100, 4]
            .map(|length| queue.push(length, length))
            .into();
        assert_eq!(starts, [true, false, false, false, false]);
        let mut taken = Vec::new();
        queue.work(|first, second| taken.push((first, second)));
        assert_eq!(taken, [(5, Some(4)), (90, Some(100)), (7, None)]);
        assert!(queue.is_idle());
        assert!(queue.push(1, 1), "a new item needs a thread again");
    }

    #[test]
    fn a_second_thread_is_asked_for_only_when_there_is_a_pair_for_it() {
        let queue = PairQueue::new(2);
        assert!(queue.push(1, 'a'));
        let mut seen = Vec::new();
        queue.work(|first, second| {
            if seen.is_empty() {
                assert!(!queue.push(1, 'b'), "one item waits for the busy thread");
                assert!(queue.push(1, 'c'), "two are worth another thread");
                assert!(!queue.push(1, 'd'), "the limit is reached");
                // the other thread
                queue.work(|first, second| assert_eq!((first, second), ('b', Some('c'))));
            }
            seen.push((first, second));
        });
        assert_eq!(seen, [('a', None), ('d', None)]);
        assert!(queue.is_idle());
    }

    #[test]
    fn a_panic_loses_its_own_items_only() {
        let queue = PairQueue::new(1);
        for item in 0..6 {
            let _ = queue.push(1, item);
        }
        let mut seen = Vec::new();
        queue.work(|first, second| {
            assert_ne!(first, 2, "for the test");
            seen.extend([Some(first), second]);
        });
        assert_eq!(seen, [Some(0), Some(1), Some(4), Some(5)]);
        assert!(queue.is_idle());
    }
}
