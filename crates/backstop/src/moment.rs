//! Points in time as people and scripts write them: RFC 3339, or seconds since 1970.

use anyhow::Context as _;
use jiff::Timestamp;

/// Reads `2026-11-21T14:00:00Z`, the same with another offset, `@1795269600` or `1795269600`.
///
/// # Errors
/// When it is neither, or outside the years 1 to 9999.
pub fn parse(text: &str) -> anyhow::Result<i64> {
    let digits = text.strip_prefix('@').unwrap_or(text);
    let moment = match digits.parse::<i64>() {
        Ok(seconds) => Timestamp::from_second(seconds).ok(),
        Err(_) => text.parse::<Timestamp>().ok(),
    };
    let moment = moment.with_context(|| {
        format!("'{text}' is no point in time; write 2026-11-21T14:00:00Z or seconds since 1970 as @1795269600")
    })?;
    Ok(moment.as_second())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn both_forms_are_read_and_nothing_else() {
        for text in [
            "@1795269600",
            "1795269600",
            "2026-11-21T14:00:00Z",
            "2026-11-21T15:00:00+01:00",
        ] {
            assert_eq!(parse(text).unwrap(), 1_795_269_600, "{text}");
        }
        for text in ["", "@", "tomorrow", "2026-11-21", "@99999999999999", "1.5"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
