//! Backups that come as always raise no alarm, from the first one on; when they stop, that is noticed.
use super::*;

/// How a group is backed up.
struct Pattern {
    name: &'static str,
    /// When backups are begun, as hours since a Monday at midnight, in a week.
    week: Vec<i64>,
    /// How long a backup takes, in minutes: it counts when it is finished.
    takes: i64,
    /// After a stop, it is noticed within so many hours at least and at most.
    noticed: (i64, i64),
}

fn week(days: std::ops::Range<i64>, hours: &[i64]) -> Vec<i64> {
    days.flat_map(|day| hours.iter().map(move |hour| day * 24 + hour))
        .collect()
}

fn patterns() -> Vec<Pattern> {
    let pattern = |name, week, takes, noticed| Pattern {
        name,
        week,
        takes,
        noticed,
    };
    let all: Vec<i64> = (0..24).collect();
    let work: Vec<i64> = (8..18).collect();
    vec![
        pattern("hourly all day", week(0..7, &all), 5, (1, 3)),
        pattern("hourly, each nearly an hour", week(0..7, &all), 55, (2, 4)),
        pattern("hourly 08-17 all days", week(0..7, &work), 5, (15, 24)),
        pattern("hourly 08-17 Mon-Fri", week(0..5, &work), 5, (15, 97)),
        pattern("daily", week(0..7, &[22]), 90, (36, 60)),
        pattern("daily for half a day", week(0..7, &[20]), 13 * 60, (36, 60)),
        pattern("twice each working day", week(0..5, &[8, 18]), 20, (14, 96)),
        pattern("nightly Mon-Fri", week(0..5, &[22]), 120, (36, 112)),
        pattern("weekly", vec![5 * 24 + 3], 600, (10 * 24, 12 * 24)),
        pattern("twice a week", vec![24, 4 * 24], 60, (72, 7 * 24)),
    ]
}

impl Pattern {
    /// When backups are begun and finished, oldest first, over some weeks from a time of the week on; some minutes late, as ever.
    fn backups(&self, first_hour: i64, weeks: i64) -> Vec<(i64, i64)> {
        let monday = START + DAY;
        let hours =
            (0..weeks + 1).flat_map(|week| self.week.iter().map(move |hour| week * 168 + hour));
        let hours = hours.filter(|hour| (first_hour..first_hour + weeks * 168).contains(hour));
        let late = |hour: i64| hour * 7919 % 9 * 60;
        hours
            .map(|hour| monday + hour * HOUR + late(hour))
            .map(|begin| (begin, begin + self.takes * 60))
            .collect()
    }
}

/// Watches a group of whose backups only the newest three are kept, from one time to another, and returns the first alarm. Looks
/// each hour, right before a backup is finished, when the newest one is oldest, and right after.
fn alarm(
    learnt: &mut Learnt,
    backups: &[(i64, i64)],
    from: i64,
    until: i64,
) -> Option<(i64, String)> {
    let mut facts = Facts {
        groups: vec![group(&[], 0)],
        ..Facts::default()
    };
    let mut times: Vec<i64> = backups
        .iter()
        .flat_map(|(_, end)| [end - 60, *end])
        .collect();
    times.extend((from / HOUR..=until / HOUR).map(|hour| hour * HOUR));
    times.retain(|time| (from..=until).contains(time));
    times.sort_unstable();
    for now in times {
        let there = backups.iter().rev().filter(|(_, end)| *end <= now).take(3);
        facts.groups[0].newest = there
            .map(|(begin, _)| SnapshotFacts {
                time: *begin,
                size: None,
            })
            .collect();
        let newest: Vec<i64> = facts.groups[0].newest.iter().map(|one| one.time).collect();
        learnt.note_backups("group/store1/vm/100", &newest, now);
        let moment = Moment::new(now, TimeZone::UTC);
        let findings = judge(&facts, &Settings::default(), learnt, &moment);
        let stale = findings
            .iter()
            .find(|finding| finding.code == Code::BackupStale)
            .unwrap();
        if stale.state.is_bad() {
            return Some((now, format!("{}: {}", moment.text(now), stale.evidence)));
        }
    }
    None
}

#[test]
fn backups_that_come_as_always_raise_no_alarm_in_eight_weeks() {
    for pattern in patterns() {
        // Whatever day it begins on.
        for first_hour in (0..7).map(|day| day * 24) {
            let backups = pattern.backups(first_hour, 8);
            let (first, last) = (backups[0].1, backups[backups.len() - 1].1);
            let mut learnt = Learnt::default();
            let alarm = alarm(&mut learnt, &backups, first, last);
            assert_eq!(alarm, None, "{} from hour {first_hour}", pattern.name);
        }
    }
}

#[test]
fn what_stops_is_noticed_in_time_on_each_day_of_the_week() {
    for pattern in patterns() {
        let all = pattern.backups(0, 8);
        // The last backups of the last eight days, and so each time of the week.
        let stops = all.len() - (pattern.week.len() + 1)..all.len();
        let mut quickest = i64::MAX;
        let mut watched = (Learnt::default(), all[0].1);
        for stop in stops {
            let backups = &all[..=stop];
            let (begin, end) = backups[stop];
            assert_eq!(alarm(&mut watched.0, backups, watched.1, end), None);
            watched.1 = end;
            let mut learnt = watched.0.clone();
            let (at, _) = alarm(&mut learnt, backups, end, end + 30 * DAY)
                .unwrap_or_else(|| panic!("{}: nobody notices", pattern.name));
            let hours = (at - begin) / HOUR;
            let (least, most) = pattern.noticed;
            assert!(
                (least..=most).contains(&hours),
                "{}: noticed after {hours} h",
                pattern.name
            );
            quickest = quickest.min(hours);
        }
        // A weekend makes nobody wait on other days.
        if pattern.name.contains("Mon-Fri") {
            assert!(quickest <= 40, "{}: {quickest} h", pattern.name);
        }
    }
}

#[test]
fn monthly_backups_are_known_after_some_months() {
    let months: Vec<(i64, i64)> = (0..24)
        .map(|month| START + month * 730 * HOUR + month % 3 * DAY)
        .map(|begin| (begin, begin + 3 * HOUR))
        .collect();
    let mut learnt = Learnt::default();
    let last = months[23].1;
    assert_eq!(alarm(&mut learnt, &months, months[0].1, last), None);
    let (at, _) = alarm(&mut learnt, &months, last, last + 100 * DAY).unwrap();
    let days = (at - months[23].0) / DAY;
    assert!((40..=52).contains(&days), "{days}");
}

#[test]
fn backups_by_hand_raise_no_alarm_however_they_come() {
    // Days between them; a small generator, so that it is the same each time.
    let mut seed = 7_u64;
    for _ in 0..40 {
        let mut time = START;
        let mut backups = Vec::new();
        while time < START + 56 * DAY {
            backups.push((time, time + HOUR));
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let hours = i64::try_from((seed >> 33) % (16 * 24)).unwrap();
            time += (2 * 24 + hours) * HOUR;
        }
        let last = backups[backups.len() - 1].1;
        let mut learnt = Learnt::default();
        let alarm = alarm(&mut learnt, &backups, START, last);
        assert_eq!(alarm, None, "{backups:?}");
    }
}

#[test]
fn what_a_sync_brings_once_a_week_is_as_old_as_that_each_time() {
    // Backups of each night, brought on Sundays.
    let nights = |days: i64| {
        (0..days)
            .map(|night| (START + night * DAY, START + (night / 7 + 1) * 7 * DAY))
            .collect::<Vec<_>>()
    };
    let backups = nights(56);
    let last = backups[55].1;
    let mut learnt = Learnt::default();
    assert_eq!(alarm(&mut learnt, &backups, backups[0].1, last), None);
    let (at, _) = alarm(&mut learnt, &backups, last, last + 30 * DAY).unwrap();
    let days = (at - backups[55].0) / DAY;
    assert!((9..=13).contains(&days), "{days}");
}

#[test]
fn an_outage_does_not_become_the_cadence() {
    let pattern = &patterns()[4];
    let mut backups = pattern.backups(0, 8);
    // Four days without any.
    backups.drain(30..34);
    let end = backups[29].1;
    let mut learnt = Learnt::default();
    assert_eq!(alarm(&mut learnt, &backups, backups[0].1, end), None);
    assert!(alarm(&mut learnt, &backups, end, backups[30].1 - 60).is_some());
    let last = backups[backups.len() - 1];
    assert_eq!(alarm(&mut learnt, &backups, backups[30].1, last.1), None);
    let (at, _) = alarm(&mut learnt, &backups, last.1, last.1 + 30 * DAY).unwrap();
    assert!((36..=60).contains(&((at - last.0) / HOUR)));
}

#[test]
fn the_memory_of_before_is_read_and_what_it_holds_is_not_judged_at_once() {
    let times: Vec<i64> = (0..24).map(|hour| START - hour * HOUR).collect();
    let old = serde_json::json!({
        "runs": {"job/sync/a": [{"start": 5, "seconds": 7}]},
        "backups": {"group/store1/vm/100": times},
        "first_seen": {"store1": 5},
    });
    let mut learnt: Learnt = serde_json::from_value(old).unwrap();
    // Hourly, and of last night nobody knows.
    let backups = [(START, START + 60)];
    let days = |days: i64| START + 60 + days * DAY;
    assert_eq!(alarm(&mut learnt, &backups, days(0), days(7)), None);
    assert!(alarm(&mut learnt, &backups, days(7), days(9)).is_some());
    // The same after a restart in the middle.
    let text = serde_json::to_string(&learnt).unwrap();
    let mut again: Learnt = serde_json::from_str(&text).unwrap();
    assert_eq!(again, learnt);
    assert!(alarm(&mut again, &backups, days(8), days(9)).is_some());
}
