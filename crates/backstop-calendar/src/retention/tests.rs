//! Published vectors and a second, naive implementation of the rule.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use jiff::civil::date;
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> i64 {
    text.parse::<Timestamp>()
        .unwrap_or_else(|_| panic!("{text}"))
        .as_second()
}

fn group(times: &[String]) -> Vec<Candidate> {
    times
        .iter()
        .map(|time| Candidate {
            time: at(time),
            finished: true,
            protected: false,
        })
        .collect()
}

fn set_a() -> Vec<Candidate> {
    let times = [
        "01T06", "01T18", "02T06", "02T18", "03T06", "03T18", "04T06",
    ];
    group(&times.map(|time| format!("2026-03-{time}:00:00Z")))
}

fn kept(candidates: &[Candidate], keep: KeepOptions, zone: &TimeZone) -> Vec<String> {
    select(candidates, &keep, zone)
        .into_iter()
        .zip(candidates)
        .filter(|(mark, _)| mark.keeps())
        .map(|(_, candidate)| {
            Timestamp::from_second(candidate.time)
                .unwrap()
                .strftime("%Y-%m-%d %H:%M")
                .to_string()
        })
        .collect()
}

fn keep(last: u64, hourly: u64, daily: u64, weekly: u64, monthly: u64, yearly: u64) -> KeepOptions {
    let set = |count: u64| (count > 0).then_some(count);
    KeepOptions {
        last: set(last),
        hourly: set(hourly),
        daily: set(daily),
        weekly: set(weekly),
        monthly: set(monthly),
        yearly: set(yearly),
    }
}

fn short(candidates: &[Candidate], keep: KeepOptions) -> String {
    let kept = kept(candidates, keep, &TimeZone::UTC);
    kept.iter()
        .map(|time| time.get(8..13).unwrap().replace(' ', "T"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn published_selections_are_made() {
    let a = set_a();
    assert_eq!(short(&a, keep(3, 0, 0, 0, 0, 0)), "03T06 03T18 04T06");
    assert_eq!(short(&a, keep(0, 0, 2, 0, 0, 0)), "03T18 04T06");
    assert_eq!(short(&a, keep(1, 0, 2, 0, 0, 0)), "02T18 03T18 04T06");
    assert_eq!(short(&a, keep(2, 0, 2, 0, 0, 0)), "01T18 02T18 03T18 04T06");
    assert_eq!(short(&a, keep(0, 2, 0, 0, 0, 0)), "03T18 04T06");
    assert_eq!(short(&a, keep(0, 0, 0, 0, 0, 1)), "04T06");
    assert_eq!(short(&a, KeepOptions::default()).split(' ').count(), 7);

    let mut protected = a.clone();
    protected[3].protected = true;
    assert_eq!(
        short(&protected, keep(0, 0, 2, 0, 0, 0)),
        "02T18 03T18 04T06"
    );
    assert_eq!(
        select(&protected, &keep(0, 0, 2, 0, 0, 0), &TimeZone::UTC)[3],
        Mark::Protected
    );
}

#[test]
fn only_the_newest_unfinished_snapshot_is_kept() {
    let mut a = set_a();
    a[6].finished = false;
    assert_eq!(short(&a, keep(2, 0, 0, 0, 0, 0)), "03T06 03T18 04T06");
    assert_eq!(
        select(&a, &keep(2, 0, 0, 0, 0, 0), &TimeZone::UTC)[6],
        Mark::KeepPartial
    );
    a[5].finished = false;
    assert_eq!(short(&a, keep(1, 0, 0, 0, 0, 0)), "03T06 04T06");
    a[6].finished = true;
    assert_eq!(short(&a, keep(2, 0, 0, 0, 0, 0)), "03T06 04T06");
}

#[test]
fn weeks_are_those_of_iso_8601() {
    let days = [
        "2025-12-27",
        "2025-12-28",
        "2025-12-29",
        "2025-12-31",
        "2026-01-01",
        "2026-01-04",
        "2026-01-05",
        "2026-01-11",
        "2026-01-12",
    ];
    let w = group(&days.map(|day| format!("{day}T12:00:00Z")));
    assert_eq!(
        kept(&w, keep(0, 0, 0, 3, 0, 0), &TimeZone::UTC),
        ["2026-01-04 12:00", "2026-01-11 12:00", "2026-01-12 12:00"]
    );
    assert_eq!(
        kept(&w, keep(0, 0, 0, 2, 2, 2), &TimeZone::UTC),
        ["2025-12-31 12:00", "2026-01-11 12:00", "2026-01-12 12:00"]
    );
}

#[test]
fn months_and_years_are_covered_by_shorter_periods() {
    let times: Vec<String> = (2024..=2025)
        .flat_map(|year| (1..=12).map(move |month| format!("{year}-{month:02}-15T12:00:00Z")))
        .collect();
    let months: Vec<String> = kept(&group(&times), keep(0, 0, 3, 0, 4, 2), &TimeZone::UTC)
        .iter()
        .map(|time| time.get(..7).unwrap().to_owned())
        .collect();
    assert_eq!(
        months,
        [
            "2024-12", "2025-06", "2025-07", "2025-08", "2025-09", "2025-10", "2025-11", "2025-12"
        ]
    );
}

#[test]
fn days_are_those_of_the_time_zone() {
    let times = [
        "01T21:30", "01T22:30", "01T23:30", "02T00:30", "02T22:59", "02T23:01",
    ];
    let z = group(&times.map(|time| format!("2026-03-{time}:00Z")));
    let daily = keep(0, 0, 2, 0, 0, 0);
    for (zone, expected) in [
        ("UTC", ["2026-03-01 23:30", "2026-03-02 23:01"]),
        ("Europe/Vienna", ["2026-03-02 22:59", "2026-03-02 23:01"]),
        ("America/New_York", ["2026-03-02 00:30", "2026-03-02 23:01"]),
    ] {
        assert_eq!(
            kept(&z, daily, &TimeZone::get(zone).unwrap()),
            expected,
            "{zone}"
        );
    }
}

#[test]
fn the_repeated_hour_is_one_hour() {
    let start = at("2026-10-24T23:00:00Z");
    let f: Vec<Candidate> = (0..10)
        .map(|i| Candidate {
            time: start + i * 1800,
            finished: true,
            protected: false,
        })
        .collect();
    assert_eq!(
        kept(
            &f,
            keep(0, 3, 0, 0, 0, 0),
            &TimeZone::get("Europe/Vienna").unwrap()
        ),
        ["2026-10-25 01:30", "2026-10-25 02:30", "2026-10-25 03:30"]
    );
}

#[test]
fn all_options_together() {
    let h: Vec<String> = (1..=7)
        .flat_map(|day| [0, 8, 16].map(|hour| format!("2026-05-{day:02}T{hour:02}:00:00Z")))
        .collect();
    assert_eq!(
        short(&group(&h), keep(2, 2, 2, 2, 0, 0)),
        "03T16 04T16 05T16 06T16 07T00 07T08 07T16"
    );
    let mut day = date(2024, 1, 1);
    let mut y = vec![];
    while day <= date(2026, 3, 15) {
        y.push(format!("{day}T02:00:00Z"));
        day = day.tomorrow().unwrap();
    }
    assert_eq!(y.len(), 805);
    let y = group(&y);
    let days = |keep| {
        kept(&y, keep, &TimeZone::UTC)
            .iter()
            .map(|time| time.get(..10).unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let all = days(keep(3, 0, 7, 4, 6, 2));
    assert_eq!(all.len(), 21);
    for day in [
        "2024-12-31",
        "2025-08-31",
        "2026-01-31",
        "2026-02-08",
        "2026-03-01",
        "2026-03-06",
        "2026-03-15",
    ] {
        assert!(all.contains(&day.to_owned()), "{day}");
    }
    assert_eq!(days(keep(0, 0, 7, 4, 0, 0)).len(), 11);
    assert_eq!(days(keep(7, 0, 7, 0, 0, 0)).len(), 14);
    assert_eq!(
        days(keep(0, 0, 0, 0, 3, 3)),
        [
            "2024-12-31",
            "2025-12-31",
            "2026-01-31",
            "2026-02-28",
            "2026-03-15"
        ]
    );
}

#[test]
fn each_verdict_names_its_reason() {
    let at = |text: &str, finished, protected| Candidate {
        time: text.parse::<Timestamp>().unwrap().as_second(),
        finished,
        protected,
    };
    let candidates = [
        at("2026-03-01T06:00:00Z", true, false),
        at("2026-03-02T06:00:00Z", true, false),
        at("2026-03-02T18:00:00Z", true, false),
        at("2026-03-03T06:00:00Z", true, true),
        at("2026-03-03T18:00:00Z", false, false),
        at("2026-03-04T06:00:00Z", true, false),
        at("2026-03-04T18:00:00Z", false, false),
    ];
    let keep = KeepOptions {
        last: Some(1),
        daily: Some(1),
        ..KeepOptions::default()
    };
    let reasons = |keep: &KeepOptions| -> Vec<String> {
        let verdicts = explain(&candidates, keep, &TimeZone::UTC);
        verdicts
            .iter()
            .map(|verdict| verdict.reason.to_string())
            .collect()
    };
    assert_eq!(
        reasons(&keep),
        [
            "no rule keeps it",
            "keep-daily keeps a newer one of the day",
            "keep-daily 1 of 1",
            "protected",
            "unfinished",
            "keep-last 1 of 1",
            "the newest, may be running",
        ]
    );
    assert_eq!(reasons(&KeepOptions::default())[0], "no rules are set");
}

/// The rule with texts as period names and lists instead of sets.
fn naive(candidates: &[Candidate], keep: &KeepOptions, zone: &TimeZone) -> Vec<&'static str> {
    let mut sorted: Vec<(usize, Candidate)> = candidates.iter().copied().enumerate().collect();
    sorted.sort_by_key(|(_, candidate)| -candidate.time);
    let mut marks: Vec<&'static str> = vec![""; sorted.len()];
    for (rank, (_, candidate)) in sorted.iter().enumerate() {
        if !candidate.finished {
            marks[rank] = if rank == 0 { "keep-partial" } else { "remove" };
        }
    }
    let formats = [
        ("%s", keep.last),
        ("%Y-%m-%d %H", keep.hourly),
        ("%Y-%m-%d", keep.daily),
        ("%G/%V", keep.weekly),
        ("%Y-%m", keep.monthly),
        ("%Y", keep.yearly),
    ];
    for (format, count) in formats {
        let Some(count) = count else { continue };
        let name = |candidate: &Candidate| {
            Timestamp::from_second(candidate.time)
                .unwrap()
                .to_zoned(zone.clone())
                .strftime(format)
                .to_string()
        };
        let covered: Vec<String> = sorted
            .iter()
            .zip(&marks)
            .filter(|(_, mark)| **mark == "keep")
            .map(|((_, c), _)| name(c))
            .collect();
        let mut chosen: Vec<String> = vec![];
        for (rank, (_, candidate)) in sorted.iter().enumerate() {
            if !marks[rank].is_empty() || candidate.protected || covered.contains(&name(candidate))
            {
                continue;
            }
            if chosen.contains(&name(candidate)) {
                marks[rank] = "remove";
            } else if chosen.len() as u64 == count {
                break;
            } else {
                chosen.push(name(candidate));
                marks[rank] = "keep";
            }
        }
    }
    let mut result = vec![""; sorted.len()];
    for ((position, candidate), mark) in sorted.iter().zip(marks) {
        result[*position] = match mark {
            _ if candidate.protected => "protected",
            "" => "remove",
            mark => mark,
        };
        if keep.keeps_all() && !candidate.protected {
            result[*position] = "keep";
        }
    }
    result
}

proptest! {
    #[test]
    fn the_selection_is_that_of_the_naive_rule(
        times in proptest::collection::btree_set(1_700_000_000i64..1_790_000_000, 0..60),
        flags in proptest::collection::vec((0u8..8, 0u8..6), 60),
        counts in proptest::collection::vec(proptest::option::weighted(0.6, 1u64..6), 6),
        spread in 1i64..20_000, zone in 0usize..4,
    ) {
        let candidates: Vec<Candidate> = times
            .iter()
            .zip(flags)
            .map(|(time, (finished, protected))| Candidate {
                time: 1_780_000_000 + (time - 1_745_000_000) / spread,
                finished: finished > 0,
                protected: protected == 0,
            })
            .collect();
        // Two snapshots of one group never have the same time.
        prop_assume!(candidates.windows(2).all(|pair| pair[0].time != pair[1].time));
        let keep = KeepOptions {
            last: counts[0], hourly: counts[1], daily: counts[2], weekly: counts[3], monthly: counts[4], yearly: counts[5],
        };
        let zone = TimeZone::get(["UTC", "Europe/Vienna", "America/New_York", "Asia/Kolkata"][zone]).unwrap();
        let marks: Vec<_> = select(&candidates, &keep, &zone).into_iter().map(Mark::as_str).collect();
        prop_assert_eq!(marks, naive(&candidates, &keep, &zone));
    }
}
