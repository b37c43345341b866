//! Reads the text of a calendar event.

use super::values::ValueSet;
use super::{CalendarEvent, CalendarEventError, Expected};

const YEAR_END: u16 = 2200;
const MONTH_END: u16 = 13;
const DAY_END: u16 = 32;
const HOUR_END: u16 = 24;
const SIXTY: u16 = 60;

/// Names in full; the first three letters do as well.
const WEEKDAYS: [&str; 7] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];

pub(super) fn parse(text: &str) -> Result<CalendarEvent, CalendarEventError> {
    let (body, utc) = match text.strip_suffix("UTC") {
        Some(body) => (body.trim_end_matches(' '), true),
        None => (text, false),
    };
    if let Some(event) = keyword(body) {
        return Ok(CalendarEvent { utc, ..event });
    }
    let mut event = CalendarEvent {
        utc,
        ..every_day_at_midnight()
    };
    let mut rest = body;
    let has_weekdays = rest.starts_with(|c: char| c.is_ascii_alphabetic());
    if has_weekdays {
        (event.weekdays, rest) = weekdays(rest)?;
        rest = rest.trim_start_matches(' ');
    }
    let date = date(rest);
    if let Some((years, months, days, after)) = date.clone() {
        (event.years, event.months, event.days) = (years, months, days);
        rest = after.trim_start_matches(' ');
    }
    let time = time(rest);
    if let Some((hours, minutes, seconds, after)) = time.clone() {
        (event.hours, event.minutes, event.seconds) = (hours, minutes, seconds);
        rest = after;
    }
    let expected = if !has_weekdays && date.is_none() && time.is_none() {
        Expected::DateOrTime
    } else if rest.is_empty() {
        return Ok(event);
    } else {
        Expected::End
    };
    Err(CalendarEventError {
        rest: rest.to_owned(),
        expected,
    })
}

fn every_day_at_midnight() -> CalendarEvent {
    CalendarEvent {
        weekdays: ValueSet::full(0, 7),
        years: ValueSet::full(0, YEAR_END),
        months: ValueSet::full(1, MONTH_END),
        days: ValueSet::full(1, DAY_END),
        hours: ValueSet::one(0, HOUR_END, 0),
        minutes: ValueSet::one(0, SIXTY, 0),
        seconds: ValueSet::one(0, SIXTY, 0),
        utc: false,
    }
}

fn keyword(word: &str) -> Option<CalendarEvent> {
    let daily = every_day_at_midnight();
    let first_of_months = |step| {
        let mut months = ValueSet::empty(1, MONTH_END);
        months.insert_steps(1, MONTH_END, step);
        CalendarEvent {
            months,
            days: ValueSet::one(1, DAY_END, 1),
            ..every_day_at_midnight()
        }
    };
    Some(match word {
        "minutely" => CalendarEvent {
            hours: ValueSet::full(0, HOUR_END),
            minutes: ValueSet::full(0, SIXTY),
            ..daily
        },
        "hourly" => CalendarEvent {
            hours: ValueSet::full(0, HOUR_END),
            ..daily
        },
        "daily" => daily,
        "weekly" => CalendarEvent {
            weekdays: ValueSet::one(0, 7, 0),
            ..daily
        },
        "monthly" => first_of_months(1),
        "quarterly" => first_of_months(3),
        "semiannually" | "semi-annually" => first_of_months(6),
        "yearly" | "annually" => first_of_months(12),
        _ => return None,
    })
}

/// A list of weekdays and ranges of them, and what follows it.
pub(crate) fn weekdays(text: &str) -> Result<(ValueSet, &str), CalendarEventError> {
    let mut set = ValueSet::empty(0, 7);
    let Some(mut rest) = weekday_range(text, &mut set) else {
        let (word, _) = split_word(text);
        return Err(CalendarEventError {
            rest: word.to_owned(),
            expected: Expected::Weekday,
        });
    };
    while let Some(after) = rest
        .strip_prefix(',')
        .and_then(|next| weekday_range(next, &mut set))
    {
        rest = after;
    }
    Ok((set, rest))
}

fn weekday_range<'a>(text: &'a str, set: &mut ValueSet) -> Option<&'a str> {
    let (first, rest) = weekday(text)?;
    let (last, rest) = rest
        .strip_prefix("..")
        .and_then(weekday)
        .unwrap_or((first, rest));
    // A range may go on after Sunday.
    let length = (last + 7 - first) % 7;
    (0..=length).for_each(|step| set.insert((first + step) % 7));
    Some(rest)
}

fn weekday(text: &str) -> Option<(u16, &str)> {
    let (word, rest) = split_word(text);
    let word = word.to_ascii_lowercase();
    let number = (0..).zip(WEEKDAYS).find(|(_, name)| {
        word == *name
            || name
                .get(..3)
                .is_some_and(|abbreviation| word == abbreviation)
    });
    number.map(|(number, _)| (number, rest))
}

fn split_word(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    text.split_at(end)
}

type Date<'a> = (ValueSet, ValueSet, ValueSet, &'a str);

/// `year-month-day` or `month-day`.
fn date(text: &str) -> Option<Date<'_>> {
    full_date(text).or_else(|| {
        let (months, rest) = list(text, 1, MONTH_END)?;
        let (days, rest) = list(rest.strip_prefix('-')?, 1, DAY_END)?;
        Some((ValueSet::full(0, YEAR_END), months, days, rest))
    })
}

fn full_date(text: &str) -> Option<Date<'_>> {
    let (years, rest) = list(text, 0, YEAR_END)?;
    let (months, rest) = list(rest.strip_prefix('-')?, 1, MONTH_END)?;
    let (days, rest) = list(rest.strip_prefix('-')?, 1, DAY_END)?;
    Some((years, months, days, rest))
}

type Time<'a> = (ValueSet, ValueSet, ValueSet, &'a str);

/// `hour:minute:second`, `hour:minute` or `minute`.
fn time(text: &str) -> Option<Time<'_>> {
    let no_second = ValueSet::one(0, SIXTY, 0);
    if let Some((hours, rest)) = list(text, 0, HOUR_END)
        && let Some(rest) = rest.strip_prefix(':')
    {
        let (minutes, rest) = list(rest, 0, SIXTY)?;
        let seconds = rest.strip_prefix(':').and_then(|rest| list(rest, 0, SIXTY));
        let (seconds, rest) = seconds.unwrap_or((no_second, rest));
        return Some((hours, minutes, seconds, rest));
    }
    let (minutes, rest) = list(text, 0, SIXTY)?;
    // An hour that does not exist does not become a minute.
    let is_minute = !rest.starts_with(':');
    is_minute.then(|| (ValueSet::full(0, HOUR_END), minutes, no_second, rest))
}

/// A list of numbers below `end`, ranges and repetitions of them, or `*`; and what follows it. An element after the first
/// that cannot be read ends the list before its comma.
fn list(text: &str, min: u16, end: u16) -> Option<(ValueSet, &str)> {
    if let Some(rest) = text.strip_prefix('*') {
        let mut set = ValueSet::empty(min, end);
        let (step, rest) = match rest.strip_prefix('/') {
            Some(after) => match number(after, end)? {
                // No step at all: the slash is not part of the list.
                (0, _) => (1, rest),
                step => step,
            },
            None => (1, rest),
        };
        set.insert_steps(min, end, step);
        return Some((set, rest));
    }
    let mut set = ValueSet::empty(min, end);
    let mut rest = item(text, end, &mut set)?;
    while let Some(after) = rest
        .strip_prefix(',')
        .and_then(|next| item(next, end, &mut set))
    {
        rest = after;
    }
    Some((set, rest))
}

/// `n`, `n..m`, `n/step` or `n..m/step`.
fn item<'a>(text: &'a str, end: u16, set: &mut ValueSet) -> Option<&'a str> {
    let (first, mut rest) = number(text, end)?;
    let mut item_end = None;
    if let Some(after) = rest.strip_prefix("..") {
        let (last, after) = number(after, end)?;
        if last < first {
            return None;
        }
        (item_end, rest) = (Some(last + 1), after);
    }
    let mut step = u16::from(item_end.is_some());
    if let Some(after) = rest.strip_prefix('/') {
        (step, rest) = number(after, end)?;
    }
    set.insert_steps(first, item_end.unwrap_or(end), step);
    Some(rest)
}

/// Decimal digits for a number below `end`.
pub(crate) fn number(text: &str, end: u16) -> Option<(u16, &str)> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(digits);
    let value = digits.parse::<u16>().ok().filter(|value| *value < end)?;
    Some((value, rest))
}
