//! Says in words when an event happens.

use super::CalendarEvent;
use super::values::{ValueSet, join_runs};

const WEEKDAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// Up to so many times of day are listed one by one.
const MOST_LISTED: usize = 6;

/// Weekdays in the grammar of calendar events.
pub(super) fn weekday_names(weekdays: &ValueSet) -> String {
    let short = |number| {
        name(&WEEKDAYS, number)
            .get(..3)
            .unwrap_or_default()
            .to_lowercase()
    };
    join_runs(&weekdays.runs(), "..", ",", short)
}

impl CalendarEvent {
    /// An English sentence part that says when the event happens, such as `every Wednesday at 02:30`.
    pub fn in_words(&self) -> String {
        if self.months.len() == 0 || self.days.len() == 0 {
            return "never, as there is no such date".to_owned();
        }
        let (time, is_frequent) = self.time_in_words();
        let date = self.date_in_words();
        let text = match date {
            None if is_frequent => time,
            None => format!("every day {time}"),
            Some(date) if is_frequent => format!("{time}, {date}"),
            Some(date) => format!("{date} {time}"),
        };
        if self.utc {
            format!("{text} (UTC)")
        } else {
            text
        }
    }

    /// The days; `None` for all.
    fn date_in_words(&self) -> Option<String> {
        let mut text = match (self.weekdays.is_full(), self.days.is_full()) {
            (true, true) if self.months.is_full() && self.years.is_full() => return None,
            (true, true) => "every day".to_owned(),
            (false, true) => format!(
                "every {}",
                listed(&self.weekdays, |day| name(&WEEKDAYS, day).to_owned())
            ),
            (true, false) => format!("on {}", self.days_in_words()),
            (false, false) => {
                let weekdays = listed(&self.weekdays, |day| name(&WEEKDAYS, day).to_owned());
                format!("every {weekdays} that is {}", self.days_in_words())
            }
        };
        match (self.months.is_full(), self.days.is_full()) {
            (true, true) => {}
            (true, false) => text.push_str(" of any month"),
            (false, of_days) => {
                text.push_str(if of_days { " in " } else { " of " });
                let month = |month: u16| name(&MONTHS, month.saturating_sub(1)).to_owned();
                text.push_str(&listed(&self.months, month));
            }
        }
        if !self.years.is_full() {
            text.push_str(" in ");
            text.push_str(&listed(&self.years, |year| year.to_string()));
        }
        Some(text)
    }

    fn days_in_words(&self) -> String {
        let plural = if self.days.len() == 1 { "day" } else { "days" };
        format!("{plural} {}", listed(&self.days, |day| day.to_string()))
    }

    /// The times, and whether they are given as a distance rather than as times of day.
    fn time_in_words(&self) -> (String, bool) {
        let is_on_minute = self.seconds.single() == Some(0);
        if self.hours.is_full() {
            let text = match (self.minutes.is_full(), is_on_minute) {
                (true, true) => "every minute".to_owned(),
                (true, false) if self.seconds.is_full() => "every second".to_owned(),
                (true, false) => match repeated(&self.seconds, "seconds") {
                    Some(text) => text,
                    None => format!("every minute at {}", numbered("second", &self.seconds)),
                },
                (false, true) => {
                    match (self.minutes.single(), repeated(&self.minutes, "minutes")) {
                        (Some(0), _) => "every hour".to_owned(),
                        (_, Some(text)) => text,
                        _ => format!("every hour at {}", numbered("minute", &self.minutes)),
                    }
                }
                (false, false) => format!(
                    "every hour at {} and {}",
                    numbered("minute", &self.minutes),
                    numbered("second", &self.seconds)
                ),
            };
            return (text, true);
        }
        if let (Some((0, step)), Some(minute), true) =
            (self.hours.steps(), self.minutes.single(), is_on_minute)
            && 24 % step == 0
        {
            let text = match minute {
                0 => format!("every {step} hours"),
                minute => format!("every {step} hours at minute {minute}"),
            };
            return (text, true);
        }
        if self.hours.len() * self.minutes.len() * self.seconds.len() <= MOST_LISTED {
            return (format!("at {}", self.all_times().join(", ")), false);
        }
        let hours = listed(&self.hours, |hour| hour.to_string());
        let of_hours = format!("of {} {hours}", plural("hour", &self.hours));
        let minutes = match (self.minutes.is_full(), repeated(&self.minutes, "minutes")) {
            (true, _) => "every minute".to_owned(),
            (false, Some(text)) => text,
            (false, None) => format!("at {}", numbered("minute", &self.minutes)),
        };
        let text = if is_on_minute {
            format!("{minutes} {of_hours}")
        } else {
            format!(
                "{minutes} {of_hours}, at {}",
                numbered("second", &self.seconds)
            )
        };
        (text, false)
    }

    fn all_times(&self) -> Vec<String> {
        let mut times = Vec::new();
        for hour in self.hours.iter() {
            for minute in self.minutes.iter() {
                for second in self.seconds.iter() {
                    times.push(match self.seconds.single() {
                        Some(0) => format!("{hour:02}:{minute:02}"),
                        _ => format!("{hour:02}:{minute:02}:{second:02}"),
                    });
                }
            }
        }
        times
    }
}

fn name(names: &[&'static str], number: u16) -> &'static str {
    names.get(usize::from(number)).copied().unwrap_or_default()
}

fn plural(word: &str, set: &ValueSet) -> String {
    if set.single().is_some() {
        word.to_owned()
    } else {
        format!("{word}s")
    }
}

fn numbered(word: &str, set: &ValueSet) -> String {
    format!(
        "{} {}",
        plural(word, set),
        listed(set, |value| value.to_string())
    )
}

/// `every 15 minutes`, if the distances are even over the end of the hour, too.
fn repeated(set: &ValueSet, unit: &str) -> Option<String> {
    let (first, step) = set.steps()?;
    (first == 0 && 60 % step == 0).then(|| format!("every {step} {unit}"))
}

/// `1, 3 to 5 and 9`.
fn listed(set: &ValueSet, name: impl Fn(u16) -> String) -> String {
    let text = join_runs(&set.runs(), " to ", ", ", name);
    match text.rsplit_once(", ") {
        Some((head, tail)) => format!("{head} and {tail}"),
        None => text,
    }
}
