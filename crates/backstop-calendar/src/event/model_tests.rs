//! Comparison with a slow model, and with `systemd-analyze calendar`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;

/// Whether the local time is one that the event names.
fn names(event: &CalendarEvent, local: DateTime) -> bool {
    let part = |value: i8| u16::try_from(value).unwrap();
    event.seconds.contains(part(local.second()))
        && event.minutes.contains(part(local.minute()))
        && event.hours.contains(part(local.hour()))
        && event.days.contains(part(local.day()))
        && event.months.contains(part(local.month()))
        && event.years.contains(u16::try_from(local.year()).unwrap())
        && event
            .weekdays
            .contains(part(local.weekday().to_monday_zero_offset()))
}

/// Steps through every second around `after`; `None` if nothing happens within `days`.
fn slow_next(event: &CalendarEvent, after: i64, days: i64, zone: &TimeZone) -> Option<i64> {
    let utc = TimeZone::UTC;
    let zone = if event.utc { &utc } else { zone };
    let local = |second| zone.to_datetime(Timestamp::from_second(second).unwrap());
    let mut latest = local(after - 100_000);
    for second in after - 99_999..=after + days * 86_400 {
        let now = local(second);
        let happens = if event.hours.is_full() {
            names(event, now)
        } else {
            // Every local time up to now that was not reached before is reached now.
            let mut any = false;
            while latest < now {
                latest = latest.checked_add(jiff::Span::new().seconds(1)).unwrap();
                any |= names(event, latest);
            }
            any
        };
        if happens && second > after {
            return Some(second);
        }
    }
    None
}

fn list(min: u16, end: u16) -> impl Strategy<Value = String> {
    let item = (min..end, min..end, 0..end, 0u8..5).prop_map(|(a, b, step, form)| match form {
        0 => format!("{}..{}", a.min(b), a.max(b)),
        1 => format!("{a}/{step}"),
        2 => format!("{}..{}/{step}", a.min(b), a.max(b)),
        _ => a.to_string(),
    });
    prop_oneof![
        4 => proptest::collection::vec(item, 1..4).prop_map(|items| items.join(",")),
        2 => Just("*".to_owned()),
        1 => (1..end).prop_map(|step| format!("*/{step}")),
    ]
}

fn weekdays() -> impl Strategy<Value = String> {
    const NAMES: [&str; 7] = ["mon", "Tuesday", "WED", "thu", "friday", "sat", "sun"];
    let range = (0usize..7, 0usize..7, any::<bool>()).prop_map(|(first, last, single)| {
        if single {
            NAMES[first].to_owned()
        } else {
            format!("{}..{}", NAMES[first], NAMES[last])
        }
    });
    proptest::collection::vec(range, 1..3).prop_map(|ranges| ranges.join(","))
}

/// Texts of events. `often` makes those likely that happen within days.
fn event_text(often: bool) -> impl Strategy<Value = String> {
    let rarely = if often { 0.1 } else { 0.5 };
    let date = (
        proptest::option::weighted(rarely, list(2024, 2040)),
        list(1, 13),
        list(1, 32),
    )
        .prop_map(|(year, month, day)| match year {
            Some(year) => format!("{year}-{month}-{day}"),
            None => format!("{month}-{day}"),
        });
    let time = (
        proptest::option::weighted(0.8, list(0, 24)),
        list(0, 60),
        proptest::option::weighted(0.3, list(0, 60)),
    )
        .prop_map(|(hour, minute, second)| match (hour, second) {
            (Some(hour), Some(second)) => format!("{hour}:{minute}:{second}"),
            (Some(hour), None) => format!("{hour}:{minute}"),
            (None, _) => minute,
        });
    let parts = (
        proptest::option::weighted(0.3, weekdays()),
        proptest::option::weighted(rarely, date),
        time,
        proptest::bool::weighted(0.1),
    );
    parts.prop_map(|(weekdays, date, time, utc)| {
        let parts = [weekdays, date, Some(time)];
        let text: Vec<String> = parts.into_iter().flatten().collect();
        text.join(" ") + if utc { " UTC" } else { "" }
    })
}

/// Moments, most of them near a change of the clock.
fn moments() -> impl Strategy<Value = (i64, &'static str)> {
    const JUMPS: [(&str, &str); 10] = [
        ("2026-03-29T01:00:00Z", "Europe/Vienna"),
        ("2026-10-25T01:00:00Z", "Europe/Vienna"),
        ("2026-03-08T07:00:00Z", "America/New_York"),
        ("2026-11-01T06:00:00Z", "America/New_York"),
        ("2026-09-06T04:00:00Z", "America/Santiago"),
        ("2026-04-05T03:00:00Z", "America/Santiago"),
        ("2026-10-03T15:30:00Z", "Australia/Lord_Howe"),
        ("2026-04-04T15:00:00Z", "Australia/Lord_Howe"),
        ("2026-07-01T00:00:00Z", "Asia/Kolkata"),
        ("2026-12-31T23:00:00Z", "UTC"),
    ];
    (
        0..JUMPS.len(),
        -100_000i64..20_000,
        -7_300i64..7_300,
        any::<bool>(),
    )
        .prop_map(|(number, far, near, is_near)| {
            let (jump, zone) = JUMPS[number];
            let jump = jump.parse::<Timestamp>().unwrap().as_second();
            (jump + if is_near { near } else { far }, zone)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_next_moment_is_that_of_the_slow_model(text in event_text(true), (after, zone) in moments()) {
        const DAYS: i64 = 2;
        let event: CalendarEvent = text.parse().unwrap();
        let zone = TimeZone::get(zone).unwrap();
        let next = event.next_after(after, &zone);
        match slow_next(&event, after, DAYS, &zone) {
            Some(expected) => prop_assert_eq!(next, Some(expected)),
            None => prop_assert!(next.is_none_or(|next| next > after + DAYS * 86_400)),
        }
    }
}

proptest! {
    #[test]
    fn the_normal_form_means_the_same(text in event_text(false)) {
        let event: CalendarEvent = text.parse().unwrap();
        prop_assert_eq!(event.to_string().parse::<CalendarEvent>().unwrap(), event);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-z0-9*/.,: -]{0,24}|\\PC{0,16}") {
        if let Ok(event) = text.parse::<CalendarEvent>() {
            event.in_words();
            event.next_after(1_770_000_000, &TimeZone::UTC);
        }
    }
}

/// The next three moments after 2026-01-01 in UTC, by the other program; `None` where it is absent.
fn systemd(event: &CalendarEvent) -> Option<Vec<i64>> {
    let output = Command::new("systemd-analyze")
        .args([
            "calendar",
            "--iterations=3",
            "--base-time=2026-01-01 00:00:00 UTC",
        ])
        .arg(event.to_string())
        .envs([("TZ", "UTC"), ("LC_ALL", "C"), ("SYSTEMD_COLORS", "0")])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() || text.contains("never"),
        "{event}: {output:?}"
    );
    let moment = |line: &str| {
        let line = line.trim();
        let time = line.strip_prefix("Next elapse: ").or_else(|| {
            line.strip_prefix("Iter. #2: ")
                .or_else(|| line.strip_prefix("Iter. #3: "))
        })?;
        let time = time.split_once(' ')?.1.strip_suffix(" UTC")?;
        let local: DateTime = time.parse().unwrap();
        Some(local.in_tz("UTC").unwrap().timestamp().as_second())
    };
    Some(text.lines().filter_map(moment).collect())
}

#[test]
fn systemd_agrees_where_it_speaks_the_same_language() {
    if systemd(&"daily".parse().unwrap()).is_none() {
        eprintln!("skipped: there is no systemd-analyze here");
        return;
    }
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(60));
    let agrees = |text: String| {
        let event: CalendarEvent = text.parse().unwrap();
        // Years of two digits are read as later ones there; day and month 0 are errors.
        prop_assume!(event.years.is_full() || event.years.next(0) >= Some(1970));
        prop_assume!(event.days.next(0).is_some() && event.months.next(0).is_some());
        let base = "2026-01-01T00:00:00Z"
            .parse::<Timestamp>()
            .unwrap()
            .as_second();
        let mut own = Vec::new();
        let mut after = base;
        while own.len() < 3
            && let Some(next) = event.next_after(after, &TimeZone::UTC)
        {
            own.push(next);
            after = next;
        }
        prop_assert_eq!(systemd(&event).unwrap(), own, "{}", event);
        Ok(())
    };
    runner.run(&event_text(false), agrees).unwrap();
}
