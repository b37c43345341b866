//! Any text as a calendar event: refused, or described in words and followed for some rounds, always forwards.
#![no_main]

use backstop_calendar::event::CalendarEvent;
use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (i64, &str)| {
    let (start, text) = input;
    let Ok(event) = text.parse::<CalendarEvent>() else {
        return;
    };
    assert!(!event.in_words().is_empty());
    let mut time = start;
    for _ in 0..20 {
        match event.next_after(time, &TimeZone::UTC) {
            Some(next) => assert!(next > time, "{text:?} after {time} is {next}"),
            None => break,
        }
        time = time.saturating_add(86_400);
    }
});
