//! Points in time as people and scripts write them: RFC 3339, seconds since 1970, or, for people, a local date.

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

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

/// Reads what [`parse`] reads, and the host's local time: `2026-12-01`, which is its begin, or `2026-12-01 08:00`.
///
/// # Errors
/// When it is none of that.
pub fn parse_local(text: &str) -> anyhow::Result<i64> {
    in_zone(text, TimeZone::system())
}

fn in_zone(text: &str, zone: TimeZone) -> anyhow::Result<i64> {
    if let Ok(moment) = parse(text) {
        return Ok(moment);
    }
    // What names a zone of its own is no local time.
    let local: Option<DateTime> = text
        .parse()
        .ok()
        .filter(|_| !text.contains(['[', '+', 'Z', 'z']));
    let zoned = local.and_then(|local| local.to_zoned(zone).ok());
    match zoned {
        Some(zoned) => Ok(zoned.timestamp().as_second()),
        None => bail!(
            "'{text}' is no point in time; write a date such as 2026-12-01, with a time as in '2026-12-01 08:00', or \
             2026-12-01T08:00:00Z"
        ),
    }
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

    #[test]
    fn a_date_is_its_begin_where_the_host_is() {
        let zone = || TimeZone::fixed(jiff::tz::offset(2));
        let begin = 1_796_076_000;
        for (text, moment) in [
            ("2026-12-01", begin),
            ("2026-12-01 08:00", begin + 8 * 3600),
            ("2026-12-01T08:00:30", begin + 8 * 3600 + 30),
            ("2026-12-01T08:00:00Z", begin + 10 * 3600),
            ("@5", 5),
        ] {
            assert_eq!(in_zone(text, zone()).unwrap(), moment, "{text}");
        }
        for text in ["", "tomorrow", "2026-13-01", "08:00", "2026-12-01[Nowhere]"] {
            let err = in_zone(text, zone()).unwrap_err().to_string();
            assert!(err.contains("write a date such as 2026-12-01"), "{err}");
        }
    }
}
