//! Published vectors and the edges of the grammar.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::*;

fn event(text: &str) -> CalendarEvent {
    text.parse().unwrap_or_else(|err| panic!("{text}: {err}"))
}

fn moment(text: &str, zone: &str) -> i64 {
    match text.parse::<Timestamp>() {
        Ok(moment) => moment.as_second(),
        Err(_) => {
            let local: jiff::civil::DateTime = text.parse().unwrap();
            local.in_tz(zone).unwrap().timestamp().as_second()
        }
    }
}

fn next(text: &str, after: &str, zone: &str) -> String {
    let zone_rules = TimeZone::get(zone).unwrap();
    match event(text).next_after(moment(after, zone), &zone_rules) {
        None => "none".to_owned(),
        Some(next) => Timestamp::from_second(next)
            .unwrap()
            .to_zoned(zone_rules)
            .strftime("%Y-%m-%d %H:%M:%S%:z")
            .to_string(),
    }
}

#[test]
fn the_published_vectors_hold() {
    for (text, after, expected) in [
        ("*:0", "2026-01-01 00:00:00", "2026-01-01 01:00:00"),
        ("*", "2026-01-01 00:00:00", "2026-01-01 00:01:00"),
        ("5", "2026-01-01 12:00:00", "2026-01-01 12:05:00"),
        ("*/15", "2026-01-01 00:07:30", "2026-01-01 00:15:00"),
        ("*:0/7", "2026-01-01 00:49:00", "2026-01-01 00:56:00"),
        ("8:30", "2026-01-01 08:29:59", "2026-01-01 08:30:00"),
        ("8:30", "2026-01-01 08:30:00", "2026-01-02 08:30:00"),
        ("21:00", "2026-01-01 12:00:00", "2026-01-01 21:00:00"),
        ("*:*:0/20", "2026-01-01 12:00:40", "2026-01-01 12:01:00"),
        ("*-*-* *:*:*", "2026-01-01 00:00:00", "2026-01-01 00:00:01"),
        ("mon 13:00", "2026-01-05 13:00:00", "2026-01-12 13:00:00"),
        ("mon,wed..fri", "2026-01-05 00:00:00", "2026-01-07 00:00:00"),
        (
            "mon..sun 4:00",
            "2026-01-01 04:00:00",
            "2026-01-02 04:00:00",
        ),
        (
            "mon..fri 8..17,22:0/15",
            "2026-01-02 22:45:00",
            "2026-01-05 08:00:00",
        ),
        (
            "fri..mon 8..17,22:0/15",
            "2026-01-02 22:45:00",
            "2026-01-03 08:00:00",
        ),
        (
            "sat *-*-1..7 18:00",
            "2026-01-01 00:00:00",
            "2026-01-03 18:00:00",
        ),
        (
            "fri *-*-13 0:0",
            "2026-01-01 00:00:00",
            "2026-02-13 00:00:00",
        ),
        ("*-*-31", "2026-01-31 00:00:00", "2026-03-31 00:00:00"),
        ("02-29", "2026-01-01 00:00:00", "2028-02-29 00:00:00"),
        (
            "2030-1..3-5,6 8:00",
            "2026-01-01 00:00:00",
            "2030-01-05 08:00:00",
        ),
        (
            "*-*-1..15/7 3:00",
            "2026-01-15 03:00:00",
            "2026-02-01 03:00:00",
        ),
        (
            "*-12-25..31/3 6:00",
            "2026-12-31 06:00:00",
            "2027-12-25 06:00:00",
        ),
        ("minutely", "2026-01-01 00:00:00", "2026-01-01 00:01:00"),
        ("hourly", "2026-01-01 00:00:00", "2026-01-01 01:00:00"),
        ("daily", "2026-01-01 00:00:00", "2026-01-02 00:00:00"),
        ("weekly", "2026-01-01 00:00:00", "2026-01-05 00:00:00"),
        ("monthly", "2026-01-01 00:00:00", "2026-02-01 00:00:00"),
        ("quarterly", "2026-01-01 00:00:00", "2026-04-01 00:00:00"),
        ("semiannually", "2026-01-01 00:00:00", "2026-07-01 00:00:00"),
        (
            "semi-annually",
            "2026-01-01 00:00:00",
            "2026-07-01 00:00:00",
        ),
        ("yearly", "2026-01-01 00:00:00", "2027-01-01 00:00:00"),
        ("annually", "2026-01-01 00:00:00", "2027-01-01 00:00:00"),
        ("weekly UTC", "1970-01-01 00:00:00", "1970-01-05 00:00:00"),
    ] {
        assert_eq!(
            next(text, after, "UTC"),
            format!("{expected}+00:00"),
            "{text}"
        );
    }
    for text in ["*-2-30", "2024-*-*", "0-0", "*-*-0", "2021-02-29"] {
        assert_eq!(next(text, "2026-01-01 00:00:00", "UTC"), "none", "{text}");
    }
}

#[test]
fn repetitions_begin_anew_in_each_hour_day_and_month() {
    // Stock servers leave out the first value after the end of the cycle.
    for (text, after, expected) in [
        ("0/5:00", "2026-01-01 20:00:00", "2026-01-02 00:00:00"),
        ("*:0/7", "2026-01-01 00:56:00", "2026-01-01 01:00:00"),
        ("*:0/45", "2026-01-01 00:45:00", "2026-01-01 01:00:00"),
        ("*-*-1/7", "2026-01-29 00:00:00", "2026-02-01 00:00:00"),
        ("*-*-1/10", "2026-02-21 00:00:00", "2026-03-01 00:00:00"),
        ("*-1/5-1", "2026-11-01 00:00:00", "2027-01-01 00:00:00"),
        ("*:*:0/25", "2026-01-01 12:00:50", "2026-01-01 12:01:00"),
        ("0/6:00", "2026-01-01 18:00:00", "2026-01-02 00:00:00"),
        ("10..20/4:30", "2026-01-01 18:30:00", "2026-01-02 10:30:00"),
    ] {
        assert_eq!(
            next(text, after, "UTC"),
            format!("{expected}+00:00"),
            "{text}"
        );
    }
}

#[test]
fn a_skipped_fixed_time_happens_at_the_end_of_the_gap() {
    for (zone, text, after, expected) in [
        (
            "Europe/Vienna",
            "2:30",
            "2026-03-28 02:30:00",
            "2026-03-29 03:00:00+02:00",
        ),
        (
            "Europe/Vienna",
            "2:30",
            "2026-03-29 03:00:00",
            "2026-03-30 02:30:00+02:00",
        ),
        (
            "Europe/Vienna",
            "2,3:00",
            "2026-03-29 03:00:00",
            "2026-03-30 02:00:00+02:00",
        ),
        (
            "America/Santiago",
            "daily",
            "2026-09-05 00:00:00",
            "2026-09-06 01:00:00-03:00",
        ),
        (
            "Asia/Beirut",
            "daily",
            "2026-03-28 00:00:00",
            "2026-03-29 01:00:00+03:00",
        ),
        (
            "Africa/Cairo",
            "daily",
            "2026-04-23 00:00:00",
            "2026-04-24 01:00:00+03:00",
        ),
        (
            "America/Havana",
            "daily",
            "2026-03-07 00:00:00",
            "2026-03-08 01:00:00-04:00",
        ),
        (
            "Pacific/Apia",
            "12:00",
            "2011-12-29 12:00:00",
            "2011-12-31 00:00:00+14:00",
        ),
        // Every hour: the clock counts, and the hour is only skipped on the clock.
        (
            "Europe/Vienna",
            "*:30",
            "2026-03-29 01:30:00",
            "2026-03-29 03:30:00+02:00",
        ),
        // Universal time knows no gap.
        (
            "Europe/Vienna",
            "1:30 UTC",
            "2026-03-29T00:00:00Z",
            "2026-03-29 03:30:00+02:00",
        ),
    ] {
        assert_eq!(next(text, after, zone), expected, "{text} in {zone}");
    }
}

#[test]
fn a_repeated_fixed_time_happens_once_and_an_hourly_event_in_both_passes() {
    for (text, after, expected) in [
        ("2:30", "2026-10-24T12:00:00Z", "2026-10-25 02:30:00+02:00"),
        ("2:30", "2026-10-25T00:30:00Z", "2026-10-26 02:30:00+01:00"),
        ("2:30", "2026-10-25T01:10:00Z", "2026-10-26 02:30:00+01:00"),
        (
            "2..3:0/30",
            "2026-10-25T00:30:00Z",
            "2026-10-25 03:00:00+01:00",
        ),
        (
            "hourly",
            "2026-10-25T00:00:00Z",
            "2026-10-25 02:00:00+01:00",
        ),
        (
            "hourly",
            "2026-10-25T01:00:00Z",
            "2026-10-25 03:00:00+01:00",
        ),
        (
            "*:0/15",
            "2026-10-25T00:45:00Z",
            "2026-10-25 02:00:00+01:00",
        ),
    ] {
        assert_eq!(next(text, after, "Europe/Vienna"), expected, "{text}");
    }
}

#[test]
fn refusals_have_the_text_of_stock_servers() {
    let date_or_time = "Context(\"date or time specification\")";
    let weekday = "Context(\"weekday\")";
    let end = "Nom(Eof)";
    for (text, rest, expected) in [
        ("", "", date_or_time),
        ("UTC", "", date_or_time),
        ("60", "60", date_or_time),
        ("8:60", "8:60", date_or_time),
        ("8:", "8:", date_or_time),
        ("5/", "5/", date_or_time),
        ("+5", "+5", date_or_time),
        (" 8:00", " 8:00", date_or_time),
        ("*:0/60", "*:0/60", date_or_time),
        ("*/2200-1-1", "*/2200-1-1", date_or_time),
        ("2026-01-", "2026-01-", date_or_time),
        ("5..3:00", "5..3:00", date_or_time),
        ("99999999999", "99999999999", date_or_time),
        ("２:00", "２:00", date_or_time),
        ("foo", "foo", weekday),
        ("Daily", "Daily", weekday),
        ("daily 8:00", "daily", weekday),
        ("weekly  ", "weekly", weekday),
        ("tues", "tues", weekday),
        ("UTC8:00", "UTC", weekday),
        ("mon..", "..", end),
        ("mon tue", "tue", end),
        ("mon, tue", ", tue", end),
        ("mon,foo", ",foo", end),
        ("mon..tue..wed", "..wed", end),
        ("mon 60", "60", end),
        ("mon 5..3", "5..3", end),
        ("*-13-1", "-1", end),
        ("*-1-32", "-32", end),
        ("*-1-1/99", "-1/99", end),
        ("3-3-3-3", "-3", end),
        ("*,5", ",5", end),
        ("*/0", "/0", end),
        ("8:*/5,7", ",7", end),
        ("5,,6", ",,6", end),
        ("1..2..3", "..3", end),
        ("8:00 ", " ", end),
        ("8:00:60", ":60", end),
        ("8:00:00.5", ".5", end),
        ("8:00 UTC UTC", " UTC", end),
        ("8:0 utc", " utc", end),
        ("2026-01-01T08:00", "T08:00", end),
        ("8:00 Europe/Vienna", " Europe/Vienna", end),
        // Stock servers take these for minute and second.
        ("24:00", "24:00", date_or_time),
        ("59:59", "59:59", date_or_time),
        ("*/24:00", "*/24:00", date_or_time),
        ("8,24:0", "8,24:0", date_or_time),
        ("12-1 24:00", "24:00", end),
    ] {
        let text_of_error = text.parse::<CalendarEvent>().unwrap_err().to_string();
        let wanted = format!("unable to parse calendar event at '{rest}' - {expected}");
        assert_eq!(text_of_error, wanted, "{text}");
    }
}

#[test]
fn spaces_case_and_zeros_are_as_free_as_on_stock_servers() {
    for (text, same) in [
        ("mon8:00", "mon 8:00"),
        ("mon ", "mon"),
        ("1-2 ", "*-1-2"),
        ("mon  *-*-* ", "mon"),
        ("8:00UTC", "8:00 UTC"),
        ("8:00   UTC", "8:00 UTC"),
        ("weekly  UTC", "mon UTC"),
        ("mOn..fRiday", "mon..fri"),
        ("sat..mon", "sat,sun,mon"),
        ("wed..tue", "*-*-*"),
        ("00000000008:00", "8:00"),
        ("3..3", "3"),
        ("3/0", "3"),
        ("5..9/0", "5"),
        ("*/15:00", "0,15:00"),
        ("*-*/12-1", "1-1"),
        ("2199-1-1/31", "2199-1-1"),
    ] {
        assert_eq!(event(text), event(same), "{text}");
    }
}

#[test]
fn the_normal_form_and_the_words_say_what_an_event_is() {
    for (text, normal, words) in [
        (
            "Wed 02:30",
            "wed *-*-* 02:30:00",
            "every Wednesday at 02:30",
        ),
        ("daily", "*-*-* 00:00:00", "every day at 00:00"),
        (
            "weekly UTC",
            "mon *-*-* 00:00:00 UTC",
            "every Monday at 00:00 (UTC)",
        ),
        ("hourly", "*-*-* *:00:00", "every hour"),
        ("minutely", "*-*-* *:*:00", "every minute"),
        ("*:*:*", "*-*-* *:*:*", "every second"),
        ("*/15", "*-*-* *:00/15:00", "every 15 minutes"),
        ("*:0/30", "*-*-* *:00,30:00", "every 30 minutes"),
        (
            "*:0/7",
            "*-*-* *:00/7:00",
            "every hour at minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56",
        ),
        ("5", "*-*-* *:05:00", "every hour at minute 5"),
        ("*/2:00", "*-*-* 00/2:00:00", "every 2 hours"),
        ("8,20:00", "*-*-* 08,20:00:00", "every day at 08:00, 20:00"),
        (
            "mon..fri 8..17,22:0/15",
            "mon..fri *-*-* 08..17,22:00/15:00",
            "every Monday to Friday every 15 minutes of hours 8 to 17 and 22",
        ),
        (
            "sat *-*-1..7 18:00",
            "sat *-*-01..07 18:00:00",
            "every Saturday that is days 1 to 7 of any month at 18:00",
        ),
        (
            "quarterly",
            "*-01/3-01 00:00:00",
            "on day 1 of January, April, July and October at 00:00",
        ),
        (
            "2030-2-*",
            "2030-02-* 00:00:00",
            "every day in February in 2030 at 00:00",
        ),
        (
            "mon *:30",
            "mon *-*-* *:30:00",
            "every hour at minute 30, every Monday",
        ),
        ("0-0", "*-00-00 00:00:00", "never, as there is no such date"),
    ] {
        assert_eq!(event(text).to_string(), normal, "{text}");
        assert_eq!(event(text).in_words(), words, "{text}");
        assert_eq!(event(normal), event(text), "{normal}");
    }
}

#[test]
fn an_event_at_the_end_of_time_is_none() {
    for after in [i64::MIN, i64::MAX, 253_402_207_200] {
        assert_eq!(event("minutely").next_after(after, &TimeZone::UTC), None);
    }
}
