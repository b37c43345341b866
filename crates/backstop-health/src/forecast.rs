//! When something will be full, if it goes on as before.

use crate::number::{float, whole};

/// Fewer points than this tell nothing.
const ENOUGH: usize = 7;

/// The time at which a straight line through the points (time, share in use) reaches 1; 0 when it never does. `None`:
/// there are too few points to tell.
pub fn full_at(points: &[(i64, f64)]) -> Option<i64> {
    let (start, _) = *points.first()?;
    if points.len() < ENOUGH {
        return None;
    }
    let count = float(i64::try_from(points.len()).ok()?);
    // Times are counted from the first one, so that no digits are lost.
    let shifted = || {
        points
            .iter()
            .map(|(time, share)| (float(time.saturating_sub(start)), share))
    };
    let (times, shares) = shifted().fold((0.0, 0.0), |(times, shares), (time, share)| {
        (times + time, shares + share)
    });
    let (mean_time, mean_share) = (times / count, shares / count);
    let (mut covariance, mut variance) = (0.0, 0.0);
    for (time, share) in shifted() {
        covariance += (time - mean_time) * (share - mean_share);
        variance += (time - mean_time) * (time - mean_time);
    }
    let slope = covariance / variance;
    if slope == 0.0 {
        return Some(0);
    }
    let after = mean_time + (1.0 - mean_share) / slope;
    after
        .is_finite()
        .then(|| start.saturating_add(whole(after.floor())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn line(from: f64, per_day: f64, days: i64) -> Vec<(i64, f64)> {
        let point = |day: i64| (1_700_000_000 + day * 86_400, from + per_day * float(day));
        (0..days).map(point).collect()
    }

    #[test]
    fn a_steady_growth_fills_on_the_day_that_it_says() {
        // half full, one percent a day
        let full = full_at(&line(0.5, 0.01, 30)).unwrap();
        assert!((full - (1_700_000_000 + 50 * 86_400)).abs() < 60, "{full}");
        // shrinking: the line was at 1 in the past
        let full = full_at(&line(0.5, -0.01, 30)).unwrap();
        assert!((full - (1_700_000_000 - 50 * 86_400)).abs() < 60, "{full}");
    }

    #[test]
    fn what_does_not_change_is_never_full_and_too_few_points_tell_nothing() {
        assert_eq!(full_at(&line(0.5, 0.0, 30)), Some(0));
        assert_eq!(full_at(&line(0.5, 0.01, 6)), None);
        assert_eq!(full_at(&[]), None);
        assert_eq!(full_at(&[(5, 0.5); 10]), None);
        assert_eq!(full_at(&[(5, f64::NAN); 10]), None);
    }
}
