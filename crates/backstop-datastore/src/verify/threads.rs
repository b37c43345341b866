//! How many chunks are read and how many are checked at the same time.

use std::path::Path;

use parking_lot::{Condvar, Mutex};
use rustix::fs::{major, minor};

use crate::parallel;

/// Most threads of either kind.
pub(super) const MAX: usize = 32;
/// Readers where several help, unless somebody says otherwise.
const READERS: usize = 4;

/// Readers for the disk that holds `path`: one for a disk that has to move an arm, several for all others and for those of which
/// nothing is known.
pub(super) fn default_readers(path: &Path) -> usize {
    if is_rotational(path) { 1 } else { READERS }
}

/// One checker for each processor.
pub(super) fn default_checkers() -> usize {
    parallel::processors()
}

fn is_rotational(path: &Path) -> bool {
    let Ok(found) = rustix::fs::stat(path) else {
        return false;
    };
    let (major, minor) = (major(found.st_dev), minor(found.st_dev));
    let device = format!("/sys/dev/block/{major}:{minor}");
    // A partition has its queue one level above.
    ["queue/rotational", "../queue/rotational"]
        .iter()
        .any(|file| {
            std::fs::read_to_string(Path::new(&device).join(file))
                .is_ok_and(|text| text.trim() == "1")
        })
}

/// Lets at most so many threads do something at the same time, each with something of its own that is used again.
pub(super) struct Gate<T> {
    free: Mutex<Vec<T>>,
    freed: Condvar,
}

impl<T: Default> Gate<T> {
    pub(super) fn new(places: usize) -> Self {
        Gate {
            free: Mutex::new((0..places).map(|_| T::default()).collect()),
            freed: Condvar::new(),
        }
    }

    /// Waits for a place, and keeps it during `work`.
    pub(super) fn pass<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        let mut free = self.free.lock();
        let own = loop {
            match free.pop() {
                Some(own) => break own,
                None => self.freed.wait(&mut free),
            }
        };
        drop(free);
        // Given back even when the work panics.
        let mut place = Place { gate: self, own };
        work(&mut place.own)
    }
}

struct Place<'a, T: Default> {
    gate: &'a Gate<T>,
    own: T,
}

impl<T: Default> Drop for Place<'_, T> {
    fn drop(&mut self) {
        self.gate.free.lock().push(std::mem::take(&mut self.own));
        self.gate.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn no_more_pass_at_once_than_there_are_places() {
        let (gate, inside, passed) = (Gate::<()>::new(2), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        gate.pass(|()| {
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                            std::thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                        });
                        passed.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 1200);
    }
}
