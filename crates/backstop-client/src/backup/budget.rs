//! A bound on what a pipeline holds in memory: bytes of chunks, or entries that wait for their turn.
//!
//! Taking blocks the thread; for use in threads only, never in async code. Closing wakes everybody who waits.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::error::{ClientError, Result};

/// A counted resource.
#[derive(Clone)]
pub(crate) struct Budget {
    shared: Arc<Shared>,
}

struct Shared {
    total: usize,
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    free: usize,
    closed: bool,
}

/// A part of a budget; given back when dropped.
pub(crate) struct Permit {
    shared: Arc<Shared>,
    amount: usize,
}

impl Budget {
    pub fn new(total: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                total,
                state: Mutex::new(State {
                    free: total,
                    closed: false,
                }),
                freed: Condvar::new(),
            }),
        }
    }

    /// Takes `amount` (or everything, if that is less), waiting until it is free.
    ///
    /// # Errors
    /// [`ClientError::Cancelled`] once the budget is closed.
    pub fn take(&self, amount: usize) -> Result<Permit> {
        let amount = amount.min(self.shared.total);
        let mut state = self.shared.state.lock();
        while !state.closed && state.free < amount {
            self.shared.freed.wait(&mut state);
        }
        if state.closed {
            return Err(ClientError::Cancelled);
        }
        state.free -= amount;
        Ok(Permit {
            shared: Arc::clone(&self.shared),
            amount,
        })
    }

    /// Makes every present and future [`Self::take`] fail.
    pub fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.freed.notify_all();
    }

    #[cfg(test)]
    fn free(&self) -> usize {
        self.shared.state.lock().free
    }
}

impl Permit {
    /// Gives back what exceeds `amount`.
    pub fn shrink(&mut self, amount: usize) {
        if let Some(excess) = self.amount.checked_sub(amount) {
            self.amount = amount;
            self.give_back(excess);
        }
    }

    fn give_back(&self, amount: usize) {
        if amount > 0 {
            self.shared.state.lock().free += amount;
            self.shared.freed.notify_all();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back(self.amount);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_is_taken_comes_back_when_dropped_or_shrunk() {
        let budget = Budget::new(10);
        let mut permit = budget.take(8).unwrap();
        permit.shrink(3);
        permit.shrink(5);
        assert_eq!(budget.free(), 7);
        drop(permit);
        assert_eq!(budget.free(), 10);
    }

    #[test]
    fn more_than_everything_is_granted_alone() {
        let budget = Budget::new(10);
        let permit = budget.take(1000).unwrap();
        assert_eq!(budget.free(), 0);
        drop(permit);
        assert_eq!(budget.free(), 10);
    }

    #[test]
    fn closing_wakes_a_waiting_thread_with_an_error() {
        let budget = Budget::new(1);
        let held = budget.take(1).unwrap();
        let waiter = std::thread::spawn({
            let budget = budget.clone();
            move || budget.take(1).is_err()
        });
        budget.close();
        assert!(waiter.join().unwrap());
        drop(held);
        assert!(budget.take(1).is_err());
    }

    #[test]
    fn a_waiting_thread_continues_when_something_is_freed() {
        let budget = Budget::new(1);
        let held = budget.take(1).unwrap();
        let waiter = std::thread::spawn({
            let budget = budget.clone();
            move || budget.take(1).is_ok()
        });
        drop(held);
        assert!(waiter.join().unwrap());
    }
}
