//! Parts of the day, such as `mon..fri 8:00-17:30`: when a notification is wanted, or a rate limit holds.
//!
//! Whoever asks gives a local moment. A part begins with its first minute and ends before its last one; it never goes on over
//! midnight, for which two are needed.

use std::str::FromStr;

use jiff::civil::DateTime;

use crate::event::parse::{number, weekdays};
use crate::event::values::ValueSet;

/// A part of each day, or of each of some weekdays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DailyDuration {
    /// From Monday, 0; `None`: every day.
    weekdays: Option<ValueSet>,
    /// Minute of the day, inclusive.
    start: u16,
    /// Minute of the day, exclusive.
    end: u16,
}

/// Why a text is no part of the day. The text is that of stock servers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unable to parse daily duration at '{rest}' - {expected}")]
pub struct DailyDurationError {
    /// Where reading stopped.
    pub rest: String,
    /// What was expected there.
    pub expected: &'static str,
}

const WEEKDAY: &str = "Context(\"weekday\")";
const DIGIT: &str = "Nom(Digit)";
const DASH: &str = "Nom(Tag)";
const TOO_LARGE: &str = "Context(\"time value too large\")";
const REVERSED: &str = "Context(\"end time before start time\")";
const END: &str = "Nom(Eof)";

impl DailyDuration {
    /// Whether a local moment lies in it.
    #[must_use]
    pub fn contains(&self, local: DateTime) -> bool {
        let weekday = u16::try_from(local.weekday().to_monday_zero_offset()).unwrap_or_default();
        let minute = u16::try_from(local.hour()).unwrap_or_default() * 60
            + u16::try_from(local.minute()).unwrap_or_default();
        self.weekdays
            .as_ref()
            .is_none_or(|days| days.contains(weekday))
            && (self.start..self.end).contains(&minute)
    }
}

impl FromStr for DailyDuration {
    type Err = DailyDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut rest = text;
        let mut days = None;
        if rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let (set, after) = weekdays(rest).map_err(|err| error(&err.rest, WEEKDAY))?;
            days = Some(set);
            rest = skip_space(after);
        }
        let (start, after) = time(rest)?;
        let rest = skip_space(after);
        let after = rest.strip_prefix('-').ok_or_else(|| error(rest, DASH))?;
        let end_text = skip_space(after);
        let (end, rest) = time(end_text)?;
        if start > end {
            return Err(error(end_text, REVERSED));
        }
        if !rest.is_empty() {
            return Err(error(rest, END));
        }
        Ok(Self {
            weekdays: days,
            start,
            end,
        })
    }
}

fn error(rest: &str, expected: &'static str) -> DailyDurationError {
    DailyDurationError {
        rest: rest.to_owned(),
        expected,
    }
}

fn skip_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

/// `hour` or `hour:minute`, as the minute of the day, and what follows.
fn time(text: &str) -> Result<(u16, &str), DailyDurationError> {
    let part = |text, end| {
        number(text, end).ok_or_else(|| match text.starts_with(|c: char| c.is_ascii_digit()) {
            true => error(
                text.trim_start_matches(|c: char| c.is_ascii_digit()),
                TOO_LARGE,
            ),
            false => error(text, DIGIT),
        })
    };
    let (hour, rest) = part(text, 24)?;
    // A colon that no minute follows is left over, as on stock servers.
    match rest.strip_prefix(':').map(|minute| part(minute, 60)) {
        Some(Ok((minute, rest))) => Ok((hour * 60 + minute, rest)),
        _ => Ok((hour * 60, rest)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    fn contains(duration: &str, local: &str) -> bool {
        let duration: DailyDuration = duration.parse().unwrap();
        duration.contains(local.parse().unwrap())
    }

    #[test]
    fn a_part_of_the_day_begins_with_its_start_and_ends_before_its_end() {
        for (duration, local, wanted) in [
            ("8-17", "2026-11-28T08:00:00", true),
            ("8-17", "2026-11-28T07:59:59", false),
            ("8-17", "2026-11-28T16:59:59", true),
            ("8-17", "2026-11-28T17:00:00", false),
            ("8:30-8:30", "2026-11-28T08:30:00", false),
            ("0:00 - 23:59", "2026-11-28T23:59:00", false),
            // a Saturday
            ("mon..fri 8-17", "2026-11-28T12:00:00", false),
            ("mon..fri 8-17", "2026-11-27T12:00:00", true),
            ("Sat,sunday 10:15-14", "2026-11-28T10:15:00", true),
            ("fri..mon 0-1", "2026-11-29T00:59:00", true),
        ] {
            assert_eq!(contains(duration, local), wanted, "{duration} {local}");
        }
    }

    #[test]
    fn refusals_say_where_reading_stopped() {
        for (text, wanted) in [
            (
                "bogus",
                "unable to parse daily duration at 'bogus' - Context(\"weekday\")",
            ),
            ("", "unable to parse daily duration at '' - Nom(Digit)"),
            (
                " 8-9",
                "unable to parse daily duration at ' 8-9' - Nom(Digit)",
            ),
            ("8", "unable to parse daily duration at '' - Nom(Tag)"),
            (
                "9-8",
                "unable to parse daily duration at '8' - Context(\"end time before start time\")",
            ),
            (
                "8-24",
                "unable to parse daily duration at '' - Context(\"time value too large\")",
            ),
            ("8-9x", "unable to parse daily duration at 'x' - Nom(Eof)"),
        ] {
            let error = text.parse::<DailyDuration>().unwrap_err();
            assert_eq!(error.to_string(), wanted);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z0-9:., -]{0,24}|\\PC{0,16}") {
            let _ = text.parse::<DailyDuration>();
        }
    }
}
