//! Whole numbers as fractions and back, and the middle of a list.

#[expect(
    clippy::cast_precision_loss,
    reason = "exact to 2^53, and close enough above"
)]
pub fn float(number: i64) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact to 2^53, and close enough above"
)]
pub fn float_u(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
pub fn whole(number: f64) -> i64 {
    number as i64
}

/// The value that `percent` of the values do not exceed; `None` without values. Sorts them.
pub fn percentile(values: &mut [i64], percent: usize) -> Option<i64> {
    values.sort_unstable();
    let last = values.len().checked_sub(1)?;
    let at = last.saturating_mul(percent.min(100)) / 100;
    values.get(at).copied()
}

/// The middle value; `None` without values. Sorts them.
pub fn median(values: &mut [i64]) -> Option<i64> {
    percentile(values, 50)
}
