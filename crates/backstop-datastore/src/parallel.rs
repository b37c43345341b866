//! Work on many items by several threads.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::Result;

/// Threads for work that waits for the disk as much as it computes: at least two, and few enough to leave it to others.
pub(crate) fn disk_threads() -> usize {
    processors().clamp(2, 8)
}

/// Number of processors.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Calls `work` with each number below `count`, in order as threads become free. Each thread has a state of its own; all are
/// returned. After an error nothing new is begun.
pub(crate) fn each<S: Send>(
    threads: usize,
    count: usize,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> Result<()> + Sync,
) -> Result<Vec<S>> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let run = || {
        let mut own = state();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count || stop.load(Ordering::Relaxed) {
                return Ok(own);
            }
            work(&mut own, number).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.min(count).max(1))
            .map(|_| scope.spawn(run))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::error::DatastoreError;

    #[test]
    fn every_number_is_worked_on_once() {
        let mut all: Vec<usize> = each(3, 1000, Vec::new, |seen, number| {
            seen.push(number);
            Ok(())
        })
        .unwrap()
        .concat();
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn an_error_ends_the_work() {
        let begun = AtomicUsize::new(0);
        let outcome = each(
            2,
            usize::MAX,
            || (),
            |(), number| {
                begun.fetch_add(1, Ordering::Relaxed);
                if number == 10 {
                    Err(DatastoreError::Aborted)
                } else {
                    Ok(())
                }
            },
        );
        assert!(matches!(outcome, Err(DatastoreError::Aborted)));
        assert!(begun.into_inner() > 10);
    }
}
