//! The history of one measured value in all resolutions.

use super::ring::{Consolidation, Ring};
use crate::metrics::Kind;

/// Resolutions in seconds, and how many slots there are of each: a day, a month, a year, eleven years.
const ARCHIVES: [(i64, usize); 4] = [
    (60, 1440),
    (30 * 60, 1440),
    (6 * 60 * 60, 1440),
    (7 * 24 * 60 * 60, 570),
];

/// The history of one value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    /// When it was measured last, seconds since 1970; 0 for never.
    pub(super) last: i64,
    /// What was measured then; not a number for nothing.
    pub(super) value: f64,
    /// First the averages, then the maxima.
    pub(super) rings: Vec<Ring>,
}

impl Default for Series {
    fn default() -> Self {
        let rings = [Consolidation::Average, Consolidation::Max]
            .into_iter()
            .flat_map(|cf| ARCHIVES.map(|(resolution, slots)| Ring::new(resolution, slots, cf)))
            .collect();
        Self {
            last: 0,
            value: f64::NAN,
            rings,
        }
    }
}

impl Series {
    /// Adds a measured value. One that is not newer than the last is left out.
    pub(super) fn put(&mut self, time: i64, kind: Kind, measured: f64) {
        if time <= self.last || !measured.is_finite() {
            return;
        }
        let elapsed = time.saturating_sub(self.last);
        let value = match kind {
            Kind::Gauge => Some(measured),
            Kind::Derive if self.value.is_nan() => Some(0.0),
            // one that began anew, as after a restart of the host, tells nothing yet
            Kind::Derive if measured < self.value => None,
            Kind::Derive => Some((measured - self.value) / seconds(elapsed)),
        };
        if let Some(value) = value {
            for ring in &mut self.rings {
                ring.put(time, self.last, value);
            }
            self.last = time;
        }
        self.value = measured;
    }

    /// The values from `start` to `end` in a resolution that exists; empty in any other.
    pub(super) fn extract(
        &self,
        consolidation: Consolidation,
        resolution: i64,
        start: i64,
        end: i64,
    ) -> Vec<Option<f64>> {
        let fits =
            |ring: &&Ring| ring.resolution == resolution && ring.consolidation == consolidation;
        let ring = self.rings.iter().find(fits);
        ring.map(|ring| ring.extract(start, end, self.last))
            .unwrap_or_default()
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "times are far below what a float holds exactly"
)]
fn seconds(time: i64) -> f64 {
    time as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn minute(series: &Series, time: i64) -> Option<f64> {
        series.extract(Consolidation::Average, 60, time, time)[0]
    }

    #[test]
    fn what_grows_is_kept_as_growth_per_second() {
        let mut series = Series::default();
        series.put(6000, Kind::Derive, 1000.0);
        series.put(6060, Kind::Derive, 1600.0);
        assert_eq!(minute(&series, 6060), Some(10.0));
        // began anew
        series.put(6120, Kind::Derive, 5.0);
        assert_eq!(minute(&series, 6120), None);
        series.put(6180, Kind::Derive, 125.0);
        assert_eq!(minute(&series, 6180), Some(1.0));
    }

    #[test]
    fn a_value_is_found_in_every_resolution() {
        let mut series = Series::default();
        series.put(6_048_000, Kind::Gauge, 4.0);
        for (resolution, _) in ARCHIVES {
            for cf in [Consolidation::Average, Consolidation::Max] {
                let found = series.extract(cf, resolution, 6_048_000, 6_048_000);
                assert_eq!(found, [Some(4.0)], "{resolution}");
            }
        }
        assert!(series.extract(Consolidation::Max, 61, 0, 100).is_empty());
    }

    #[test]
    fn what_is_not_newer_changes_nothing() {
        let mut series = Series::default();
        series.put(6000, Kind::Gauge, 1.0);
        let before = series.clone();
        series.put(6000, Kind::Gauge, 2.0);
        series.put(5000, Kind::Gauge, 2.0);
        series.put(7000, Kind::Gauge, f64::NAN);
        assert_eq!(series.rings[0].count, before.rings[0].count);
        assert_eq!(minute(&series, 6000), Some(1.0));
        assert_eq!(series.last, 6000);
    }
}
