//! The ring of what was measured lately. It is bounded in number and in age.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Generation;

/// How far back it reaches, in seconds.
const MAX_AGE: i64 = 30 * 60;
/// Most generations kept: half an hour of them at the sampler's pace.
const MAX_GENERATIONS: usize = 180;

/// What was measured in the last half hour.
#[derive(Debug, Default)]
pub struct History {
    ring: Mutex<VecDeque<Arc<Generation>>>,
}

impl History {
    /// Adds the newest generation and forgets what is too old.
    pub fn push(&self, generation: Generation) {
        let oldest = generation.time.saturating_sub(MAX_AGE);
        let mut ring = self.ring.lock();
        ring.retain(|known| known.time > oldest);
        while ring.len() >= MAX_GENERATIONS {
            ring.pop_front();
        }
        ring.push_back(Arc::new(generation));
    }

    /// What was measured last.
    pub fn newest(&self) -> Option<Arc<Generation>> {
        self.ring.lock().back().cloned()
    }

    /// Everything that is newer than `start` (seconds since 1970), sorted by time.
    pub fn since(&self, start: i64) -> Vec<Arc<Generation>> {
        let ring = self.ring.lock();
        let newer = ring.iter().filter(|generation| generation.time > start);
        let mut found: Vec<_> = newer.cloned().collect();
        drop(ring);
        // The clock of the host may have been set back in between.
        found.sort_by_key(|generation| generation.time);
        found
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn history(times: impl IntoIterator<Item = i64>) -> History {
        let history = History::default();
        for time in times {
            history.push(Generation {
                time,
                host: Vec::new(),
                datastores: Vec::new(),
                disks: Vec::new(),
            });
        }
        history
    }

    fn times(history: &History, start: i64) -> Vec<i64> {
        let found = history.since(start);
        found.iter().map(|generation| generation.time).collect()
    }

    #[test]
    fn only_what_is_newer_than_the_start_is_told() {
        let history = history([1000, 1010, 1020]);
        assert_eq!(times(&history, 0), [1000, 1010, 1020]);
        assert_eq!(times(&history, 1010), [1020]);
        assert_eq!(times(&history, 1020), [0; 0]);
        assert_eq!(history.newest().unwrap().time, 1020);
    }

    #[test]
    fn what_is_older_than_half_an_hour_is_forgotten() {
        let history = history([1000, 1001, 1000 + MAX_AGE]);
        assert_eq!(times(&history, 0), [1001, 1000 + MAX_AGE]);
    }

    #[test]
    fn the_number_of_generations_is_bounded_even_when_the_clock_stands_still() {
        let history = history((0..1000).map(|_| 1000));
        assert_eq!(history.since(0).len(), MAX_GENERATIONS);
    }

    #[test]
    fn a_clock_that_is_set_back_leaves_the_order_by_time() {
        let history = history([1000, 1010, 500]);
        assert_eq!(times(&history, 0), [500, 1000, 1010]);
        assert_eq!(history.newest().unwrap().time, 500);
    }

    #[test]
    fn a_new_history_is_empty() {
        let history = History::default();
        assert!(history.newest().is_none());
        assert!(history.since(0).is_empty());
    }
}
