//! Calendar events, such as `mon..fri 8..17:0/15`: what a schedule is.
//!
//! Grammar and meaning: `docs/formats/calendar-events.md`. An event knows no present; whoever asks gives a moment and a
//! time zone.

mod next;
pub(crate) mod parse;
pub(crate) mod values;
mod words;

use std::fmt;
use std::str::FromStr;

use values::ValueSet;

/// Moments that recur, as admitted values of each part of a date and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalendarEvent {
    /// From Monday, 0.
    weekdays: ValueSet,
    years: ValueSet,
    months: ValueSet,
    days: ValueSet,
    hours: ValueSet,
    minutes: ValueSet,
    seconds: ValueSet,
    /// Whether the event is one of universal time instead of local time.
    utc: bool,
}

/// Why a text is no calendar event. The text is that of stock servers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unable to parse calendar event at '{rest}' - {expected}")]
pub struct CalendarEventError {
    /// Where reading stopped: the rest of the text, or the word that is no weekday.
    pub rest: String,
    /// What was expected there.
    pub expected: Expected,
}

/// What a text lacks to be a calendar event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Expected {
    /// A date or a time, as there is no weekday either.
    #[error("Context(\"date or time specification\")")]
    DateOrTime,
    /// The name of a weekday.
    #[error("Context(\"weekday\")")]
    Weekday,
    /// Nothing more.
    #[error("Nom(Eof)")]
    End,
}

impl FromStr for CalendarEvent {
    type Err = CalendarEventError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse::parse(text)
    }
}

impl fmt::Display for CalendarEvent {
    /// The normal form: weekdays unless all, then date and time in full.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.weekdays.is_full() {
            write!(f, "{} ", words::weekday_names(&self.weekdays))?;
        }
        let two = |set: &ValueSet| set.text(2);
        write!(
            f,
            "{}-{}-{} {}:{}:{}{}",
            self.years.text(4),
            two(&self.months),
            two(&self.days),
            two(&self.hours),
            two(&self.minutes),
            two(&self.seconds),
            if self.utc { " UTC" } else { "" }
        )
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
