//! How much may be on its way between two servers at once: as much as the line needs to be full, and no more.
//!
//! What is on its way lies in memory, and is lost when the connection breaks. So a run begins with [`LEAST`] and takes more
//! while chunks arrive quickly; when they take long, more of them on their way would only wait for each other. All of a run's
//! chunks together, from the request for one (or the reading of one that is to be sent) until it is stored (or the target has
//! it), are never more than [`MOST`] plain bytes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// How many groups are worked on at the same time, unless the job says how many.
pub(super) const GROUPS_AT_ONCE: usize = 4;
/// How many files of a snapshot are worked on at once.
pub(super) const FILES_AT_ONCE: usize = 4;
/// How many chunks of an index are worked on at once; how many bytes of them are on their way is bounded for the whole run.
pub(super) const CHUNKS_AT_ONCE: usize = 64;

/// What is counted in, in bytes.
const UNIT: u64 = 64 << 10;
/// How much may be on its way in any case, in bytes; a largest chunk fits.
const LEAST: u64 = 16 << 20;
/// How much may be on its way at most, in bytes. 1 Gbit/s at 100 ms needs 12.5 MB.
const MOST: u64 = 128 << 20;
/// Chunks that arrive within this time let more be on their way.
const QUICK: Duration = Duration::from_millis(500);
/// Chunks that take longer let less be on their way.
const SLOW: Duration = Duration::from_secs(2);

const LEAST_UNITS: usize = (LEAST / UNIT) as usize;
const MOST_UNITS: usize = (MOST / UNIT) as usize;

/// The chunks of a run that are on their way.
pub(super) struct InFlight {
    permits: Semaphore,
    /// How many permits there are, taken ones included.
    size: AtomicUsize,
}

/// A chunk on its way, until it is stored or the target has it.
pub(super) struct Flight<'a> {
    in_flight: &'a InFlight,
    permit: SemaphorePermit<'a>,
    start: Instant,
}

impl InFlight {
    pub fn new() -> Self {
        Self {
            permits: Semaphore::new(LEAST_UNITS),
            size: AtomicUsize::new(LEAST_UNITS),
        }
    }

    /// Waits until a chunk of so many plain bytes may be asked for, or read to be sent. `None`: no longer.
    pub async fn begin(&self, bytes: u64) -> Option<Flight<'_>> {
        let units = u32::try_from(bytes.div_ceil(UNIT).clamp(1, LEAST / UNIT)).unwrap_or(1);
        let permit = self.permits.acquire_many(units).await.ok()?;
        Some(Flight {
            in_flight: self,
            permit,
            start: Instant::now(),
        })
    }

    fn adapt(&self, units: usize, took: Duration) {
        let size = self.size.load(Ordering::Relaxed);
        if took <= QUICK {
            let more = units.min(MOST_UNITS.saturating_sub(size));
            // Two at the same time may overshoot, which the next check of either takes back.
            self.size.fetch_add(more, Ordering::Relaxed);
            self.permits.add_permits(more);
        } else if took > SLOW || size > MOST_UNITS {
            let less = (units / 4).max(1).min(size.saturating_sub(LEAST_UNITS));
            let gone = self.permits.forget_permits(less);
            self.size.fetch_sub(gone, Ordering::Relaxed);
        }
    }
}

impl Flight<'_> {
    /// The chunk has arrived; it counts until this is dropped.
    pub fn arrived(&self) {
        self.in_flight
            .adapt(self.permit.num_permits(), self.start.elapsed());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    async fn fetch(in_flight: &InFlight, count: usize, took: Duration) {
        for _ in 0..count {
            let flight = in_flight.begin(4 << 20).await.unwrap();
            tokio::time::advance(took).await;
            flight.arrived();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn more_is_asked_for_while_it_comes_quickly_and_less_when_it_does_not() {
        let in_flight = InFlight::new();
        let size = || in_flight.size.load(Ordering::Relaxed);
        fetch(&in_flight, 4, Duration::from_millis(100)).await;
        assert_eq!(size(), 2 * LEAST_UNITS);
        fetch(&in_flight, 100, Duration::from_millis(100)).await;
        assert_eq!(size(), MOST_UNITS);
        fetch(&in_flight, 10, Duration::from_secs(1)).await;
        assert_eq!(size(), MOST_UNITS);
        fetch(&in_flight, 1000, Duration::from_secs(3)).await;
        assert_eq!(size(), LEAST_UNITS);
        assert_eq!(in_flight.permits.available_permits(), LEAST_UNITS);
    }

    #[tokio::test]
    async fn the_largest_chunk_fits_and_then_nothing_else_until_it_is_stored() {
        let in_flight = InFlight::new();
        let largest = in_flight.begin(64 << 20).await.unwrap();
        assert!(in_flight.permits.try_acquire().is_err());
        drop(largest);
        assert!(in_flight.begin(0).await.is_some());
    }
}
