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

/// The days of a surge.
const SURGE: i64 = 3;
const DAY: i64 = 86_400;
/// A point that is further away from a time than this says nothing of it, in seconds.
const NEAR: i64 = 2 * 3600;
/// So much more than ever before is a surge; as a share.
const BEYOND: f64 = 0.01;

/// The time at which it is full if it goes on as in the last three days, which have led beyond all that was seen before. The middle
/// one of their growths counts, so that one large backup is no surge, and what comes and goes each week is none. `None`: there
/// is no surge.
pub fn surge_full_at(points: &[(i64, f64)]) -> Option<i64> {
    let (now, share) = *points.last()?;
    let begin = now.saturating_sub(SURGE * DAY);
    let at = |time: i64| {
        let distance = |point: &&(i64, f64)| point.0.saturating_sub(time).saturating_abs();
        let near = points.iter().min_by_key(distance)?;
        (distance(&near) <= NEAR).then_some(near.1)
    };
    let mut growths = Vec::new();
    for day in 0..SURGE {
        let end = now.saturating_sub(day * DAY);
        growths.push(at(end)? - at(end.saturating_sub(DAY))?);
    }
    growths.sort_by(f64::total_cmp);
    let growth = *growths.get(growths.len() / 2)?;
    let earlier = points.iter().filter(|(time, _)| *time <= begin);
    let most = earlier.map(|(_, share)| *share).fold(0.0, f64::max);
    if !(growth > 0.0 && share > most + BEYOND) {
        return None;
    }
    let seconds = (1.0 - share) / growth * float(DAY);
    seconds
        .is_finite()
        .then(|| now.saturating_add(whole(seconds)))
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
    fn a_surge_counts_when_it_goes_on_for_days_and_is_new() {
        let hourly = |share: &dyn Fn(i64) -> f64| -> Vec<(i64, f64)> {
            let point = |hour: i64| (1_700_000_000 + hour * 3600, share(hour));
            (0..30 * 24).map(point).collect()
        };
        let end = 30 * 24 - 1;
        let after = |points: &[(i64, f64)]| {
            let full = surge_full_at(points)?;
            Some((full - points.last().unwrap().0) / 3600)
        };
        // Ten percent a day for two days: full in two more.
        let surge = hourly(&|hour| 0.6 + 0.1 * float((hour - end + 48).max(0)) / 24.0);
        assert_eq!(after(&surge), Some(48));
        // One large backup.
        let step = hourly(&|hour| if hour > end - 40 { 0.9 } else { 0.6 });
        assert_eq!(after(&step), None);
        // Each week the same, pruned at its end.
        let weekly = hourly(&|hour| 0.6 + 0.04 * float((hour - end).rem_euclid(168)) / 24.0);
        assert_eq!(after(&weekly), None);
        // Shrinking, too short, with holes, and nonsense.
        assert_eq!(after(&hourly(&|hour| 0.6 - 0.0001 * float(hour))), None);
        assert_eq!(surge_full_at(&surge[surge.len() - 40..]), None);
        assert_eq!(surge_full_at(&[(0, 0.1), (30 * 86_400, 0.5)]), None);
        assert_eq!(after(&hourly(&|_| f64::NAN)), None);
        assert_eq!(surge_full_at(&[]), None);
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
