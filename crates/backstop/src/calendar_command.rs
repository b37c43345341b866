//! `backstop calendar`: says what a calendar event means and when it happens next.

use std::fmt::Write as _;
use std::process::ExitCode;

use backstop_calendar::CalendarEvent;
use backstop_types::config_schema::value;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use crate::command::{Arguments, Command, Parameter};
use crate::moment;
use crate::output::{self, Format, OUTPUT_FORMAT, size};

/// The declaration of the command.
pub fn command() -> Command {
    Command::new(
        "Explain a calendar event, as schedules are written, and show when it happens next.",
        calendar,
    )
    .argument(Parameter::of(
        "event",
        "The calendar event, such as 'mon..fri 8..17:0/15'.",
        &value::CALENDAR_EVENT,
    ))
    .option(
        Parameter::integer("iterations", "How many times to show.", Some(1), Some(1000))
            .default("5"),
    )
    .option(Parameter::text(
        "base-time",
        "Show times after this one (RFC 3339, or seconds since 1970 as @SECONDS) instead of now.",
    ))
    .option(OUTPUT_FORMAT)
}

fn calendar(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let text = arguments.required("event")?;
    let event: CalendarEvent = text.parse()?;
    let count: usize = arguments.text("iterations").unwrap_or("5").parse()?;
    let base = match arguments.text("base-time") {
        Some(text) => moment::parse(text)?,
        None => output::time::now(),
    };
    let zone = TimeZone::system();
    let times: Vec<i64> = std::iter::successors(event.next_after(base, &zone), |last| {
        event.next_after(*last, &zone)
    })
    .take(count)
    .collect();
    match Format::of(arguments)?.json(&json!({ "event": text, "next": times })) {
        Some(json) => output::out(&json),
        None => output::out(&explanation(&event, base, &times, &zone)),
    }
    Ok(ExitCode::SUCCESS)
}

fn explanation(event: &CalendarEvent, base: i64, times: &[i64], zone: &TimeZone) -> String {
    let mut text = format!("{}\nnormal form: {event}\n", event.in_words());
    if times.is_empty() {
        text.push_str("It does not happen any more.\n");
    }
    for time in times {
        let local = Timestamp::from_second(*time)
            .map(|time| {
                time.to_zoned(zone.clone())
                    .strftime("%a %Y-%m-%d %H:%M:%S %:z")
                    .to_string()
            })
            .unwrap_or_else(|_| time.to_string());
        // The distance is at most some thousand years of seconds, which a float holds exactly.
        let distance = size::duration((time - base) as f64);
        let _ = writeln!(text, "  {local}  (after {distance})");
    }
    text
}
