//! Spans of time as people write and read them.

use jiff::{Span, SpanRelativeTo};

/// Longest span that settings may name: a hundred years, in seconds.
const MAX: i64 = 100 * 366 * 86_400;

/// A span such as `24h`, `7d` or `1h 30m`, in seconds.
///
/// # Errors
/// It is none, not positive, or longer than a hundred years.
pub fn parse_span(text: &str) -> Result<i64, String> {
    let wrong =
        || format!("'{text}' is no time span; write one such as '90m', '24h', '7d' or '2w'");
    let span: Span = text.trim().parse().map_err(|_| wrong())?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| wrong())?;
    let seconds = duration.as_secs();
    if (1..=MAX).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(wrong())
    }
}

/// A span for people, in its two largest units: `3d 4h`, `25m`, `0s`.
pub fn span_text(seconds: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let mut rest = seconds.max(0);
    let mut parts = Vec::new();
    let mut left = 2;
    for (length, name) in UNITS {
        let count = rest / length;
        rest %= length;
        if count > 0 {
            parts.push(format!("{count}{name}"));
        }
        // The second unit is the one right below the first, whether it is zero or not.
        if !parts.is_empty() {
            left -= 1;
        }
        if left == 0 {
            break;
        }
    }
    if parts.is_empty() {
        return "0s".to_owned();
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn spans_are_read_and_written() {
        for (text, seconds) in [
            ("24h", 86_400),
            ("7d", 604_800),
            ("2w", 1_209_600),
            ("1h 30m", 5400),
            ("90 minutes", 5400),
        ] {
            assert_eq!(parse_span(text), Ok(seconds), "{text}");
        }
        for text in ["", "24", "h", "-1h", "0s", "1 month", "100000d", "tomorrow"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
        for (seconds, text) in [
            (0, "0s"),
            (-5, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3601, "1h"),
            (3660, "1h 1m"),
            (90_061, "1d 1h"),
            (86_400 * 400, "400d"),
        ] {
            assert_eq!(span_text(seconds), text);
        }
        assert!(span_text(i64::MAX).ends_with('h'));
    }
}
