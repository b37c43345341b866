//! The scheduler with a clock that jumps as the test wants, and jobs that only note their starts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::super::JobKind;
use super::*;

#[derive(Default)]
struct Fake {
    schedules: RefCell<Vec<(&'static str, &'static str)>>,
    last: RefCell<HashMap<String, i64>>,
    running: RefCell<HashSet<String>>,
    refused: RefCell<HashMap<String, String>>,
    closed: RefCell<HashMap<String, String>>,
    failed: RefCell<Vec<(String, i64)>>,
    owed: RefCell<HashSet<String>>,
    starts: RefCell<Vec<(String, i64)>>,
    panics: RefCell<HashSet<String>>,
    forgets: bool,
    now: RefCell<i64>,
}

impl Fake {
    fn with(schedules: &[(&'static str, &'static str)], made: i64) -> Self {
        let fake = Self::default();
        *fake.schedules.borrow_mut() = schedules.to_vec();
        let last = schedules.iter().map(|(id, _)| ((*id).to_owned(), made));
        fake.last.borrow_mut().extend(last);
        fake
    }

    fn pass(&self, scheduler: &mut Scheduler, now: i64, zone: &str) -> Vec<String> {
        *self.now.borrow_mut() = now;
        scheduler.pass(now, &TimeZone::get(zone).unwrap(), self)
    }

    /// Passes every minute from `from` to `to`, both as RFC 3339.
    fn run(&self, scheduler: &mut Scheduler, from: &str, to: &str, zone: &str) {
        let mut now = at(from);
        while now <= at(to) {
            self.pass(scheduler, now, zone);
            now += i64::try_from(until_next_minute(now)).unwrap();
        }
    }

    fn starts(&self) -> Vec<String> {
        let starts = self.starts.borrow_mut().split_off(0);
        starts
            .iter()
            .map(|(id, time)| format!("{id} {}", Timestamp::from_second(*time).unwrap()))
            .collect()
    }
}

impl Jobs for Fake {
    fn scheduled(&self) -> Vec<Scheduled> {
        let scheduled = |(id, schedule): &(&str, &str)| Scheduled {
            job: JobId::new(JobKind::Prune, *id),
            schedule: (*schedule).to_owned(),
        };
        self.schedules.borrow().iter().map(scheduled).collect()
    }

    fn last_run(&self, job: &JobId, _: i64) -> Result<LastRun, String> {
        assert!(!self.panics.borrow().contains(&job.id), "a fault in {job}");
        if self.running.borrow().contains(&job.id) {
            return Ok(LastRun::Running);
        }
        let last = self.last.borrow()[&job.id];
        match self.owed.borrow().contains(&job.id) {
            true => Ok(LastRun::Owed(last)),
            false => Ok(LastRun::At(last)),
        }
    }

    fn count_from(&self, job: &JobId, now: i64) -> Result<(), String> {
        self.last.borrow_mut().insert(job.id.clone(), now);
        Ok(())
    }

    fn start(&self, scheduled: &Scheduled) -> Attempt {
        let id = &scheduled.job.id;
        if let Some(reason) = self.refused.borrow().get(id) {
            return Attempt::Refused(reason.clone());
        }
        if let Some(reason) = self.closed.borrow().get(id) {
            return Attempt::Closed(reason.clone());
        }
        self.owed.borrow_mut().remove(id);
        let now = *self.now.borrow();
        self.starts.borrow_mut().push((id.clone(), now));
        if !self.forgets {
            self.last.borrow_mut().insert(id.clone(), now);
        }
        Attempt::Started
    }

    fn fail(&self, scheduled: &Scheduled, _: &str) -> Result<(), String> {
        let (id, now) = (scheduled.job.id.clone(), *self.now.borrow());
        self.last.borrow_mut().insert(id.clone(), now);
        self.owed.borrow_mut().insert(id.clone());
        self.failed.borrow_mut().push((id, now));
        Ok(())
    }
}

fn at(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_second()
}

#[test]
fn a_job_runs_at_each_of_its_times() {
    let jobs = Fake::with(
        &[("a", "mon..fri 02:30"), ("b", "0/6:00")],
        at("2026-01-01T10:00:30Z"),
    );
    let mut scheduler = Scheduler::default();
    jobs.run(
        &mut scheduler,
        "2026-01-01T10:01:00Z",
        "2026-01-05T03:00:00Z",
        "UTC",
    );
    let starts = jobs.starts();
    let of = |id: &str| starts.iter().filter(|start| start.starts_with(id)).count();
    assert_eq!((of("a"), of("b")), (2, 15));
    assert!(starts.contains(&"a 2026-01-05T02:30:00Z".to_owned()));
}

#[test]
fn missed_runs_are_made_up_for_once() {
    let jobs = Fake::with(&[("a", "02:00")], at("2026-01-05T02:00:00Z"));
    let mut scheduler = Scheduler::default();
    jobs.run(
        &mut scheduler,
        "2026-01-08T09:30:20Z",
        "2026-01-09T02:00:00Z",
        "UTC",
    );
    assert_eq!(
        jobs.starts(),
        ["a 2026-01-08T09:30:20Z", "a 2026-01-09T02:00:00Z"]
    );
}

#[test]
fn a_run_that_takes_longer_than_a_day_is_followed_by_one_other() {
    let jobs = Fake::with(
        &[("a", "02:00"), ("b", "hourly")],
        at("2026-01-05T01:59:00Z"),
    );
    let mut scheduler = Scheduler::default();
    jobs.run(
        &mut scheduler,
        "2026-01-05T02:00:00Z",
        "2026-01-05T02:00:00Z",
        "UTC",
    );
    jobs.running.borrow_mut().insert("a".to_owned());
    jobs.run(
        &mut scheduler,
        "2026-01-05T02:01:00Z",
        "2026-01-06T08:00:00Z",
        "UTC",
    );
    let others = jobs.starts();
    assert_eq!(
        others.iter().filter(|start| start.starts_with('a')).count(),
        1
    );
    assert_eq!(
        others.iter().filter(|start| start.starts_with('b')).count(),
        31
    );
    jobs.running.borrow_mut().clear();
    jobs.run(
        &mut scheduler,
        "2026-01-06T08:01:00Z",
        "2026-01-07T02:00:00Z",
        "UTC",
    );
    let starts: Vec<String> = jobs
        .starts()
        .into_iter()
        .filter(|start| start.starts_with('a'))
        .collect();
    assert_eq!(starts, ["a 2026-01-06T08:01:00Z", "a 2026-01-07T02:00:00Z"]);
}

#[test]
fn changes_to_summer_and_winter_time_neither_lose_nor_double_a_daily_run() {
    for (from, to, expected) in [
        (
            "2026-03-28T00:00:00Z",
            "2026-03-30T12:00:00Z",
            ["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"],
        ),
        (
            "2026-10-23T12:00:00Z",
            "2026-10-26T12:00:00Z",
            ["2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30"],
        ),
    ] {
        let jobs = Fake::with(&[("a", "02:30")], at(from));
        jobs.run(&mut Scheduler::default(), from, to, "Europe/Vienna");
        assert_eq!(jobs.starts(), expected.map(|time| format!("a {time}:00Z")));
    }
}

#[test]
fn a_clock_that_jumps_ahead_makes_up_once() {
    let jobs = Fake::with(&[("a", "hourly")], at("2026-01-05T02:00:00Z"));
    let mut scheduler = Scheduler::default();
    jobs.run(
        &mut scheduler,
        "2026-01-05T02:01:00Z",
        "2026-01-05T02:10:00Z",
        "UTC",
    );
    jobs.run(
        &mut scheduler,
        "2026-01-07T09:20:00Z",
        "2026-01-07T10:00:00Z",
        "UTC",
    );
    assert_eq!(
        jobs.starts(),
        ["a 2026-01-07T09:20:00Z", "a 2026-01-07T10:00:00Z"]
    );
}

#[test]
fn a_clock_that_is_set_back_stops_no_job() {
    // The clock was wrong by twelve years when the job ran.
    let jobs = Fake::with(&[("a", "hourly")], at("2038-01-05T02:00:00Z"));
    let mut scheduler = Scheduler::default();
    jobs.run(
        &mut scheduler,
        "2026-01-05T02:10:00Z",
        "2026-01-05T04:00:00Z",
        "UTC",
    );
    assert_eq!(
        jobs.starts(),
        ["a 2026-01-05T03:00:00Z", "a 2026-01-05T04:00:00Z"]
    );
    // And while it is watched.
    jobs.run(
        &mut scheduler,
        "2026-01-04T22:30:00Z",
        "2026-01-04T23:00:00Z",
        "UTC",
    );
    assert_eq!(jobs.starts(), ["a 2026-01-04T23:00:00Z"]);
}

#[test]
fn a_small_correction_of_the_clock_runs_nothing_twice() {
    let jobs = Fake::with(&[("a", "hourly")], at("2026-01-05T02:10:00Z"));
    let mut scheduler = Scheduler::default();
    jobs.run(
        &mut scheduler,
        "2026-01-05T03:00:00Z",
        "2026-01-05T03:00:00Z",
        "UTC",
    );
    jobs.run(
        &mut scheduler,
        "2026-01-05T02:59:58Z",
        "2026-01-05T03:30:00Z",
        "UTC",
    );
    assert_eq!(jobs.starts(), ["a 2026-01-05T03:00:00Z"]);
}

#[test]
fn what_is_wrong_with_a_job_is_said_once_and_stops_no_other() {
    let schedules = [
        ("bad", "24:00"),
        ("odd", "minutely"),
        ("shut", "minutely"),
        ("good", "minutely"),
    ];
    let jobs = Fake::with(&schedules, at("2026-01-05T02:00:00Z"));
    let shut = "datastore 'x' is unavailable: offline maintenance mode: ".to_owned();
    jobs.closed.borrow_mut().insert("shut".to_owned(), shut);
    jobs.panics.borrow_mut().insert("odd".to_owned());
    let mut scheduler = Scheduler::default();
    let said = jobs.pass(&mut scheduler, at("2026-01-05T02:01:00Z"), "UTC");
    assert_eq!(said.len(), 3, "{said:?}");
    assert_eq!(
        said[0],
        "prune job 'bad' does not run by its schedule: schedule '24:00' makes no sense - unable to parse calendar event \
         at '24:00' - Context(\"date or time specification\")"
    );
    assert!(said[1].contains("'odd'") && said[2].ends_with("offline maintenance mode: "));
    for minute in 2..5 {
        assert!(
            jobs.pass(
                &mut scheduler,
                at("2026-01-05T02:00:00Z") + minute * 60,
                "UTC"
            )
            .is_empty()
        );
    }
    assert_eq!(jobs.starts().len(), 4);
    // What was missed meanwhile is made up for when it is possible again; other trouble is said anew.
    jobs.closed.borrow_mut().clear();
    jobs.panics.borrow_mut().clear();
    jobs.schedules.borrow_mut()[0] = ("bad", "25:00");
    let said = jobs.pass(&mut scheduler, at("2026-01-05T02:05:00Z"), "UTC");
    assert!(
        matches!(said.as_slice(), [text] if text.contains("'25:00'")),
        "{said:?}"
    );
    assert_eq!(jobs.starts().len(), 3);
}

#[test]
fn a_start_that_cannot_be_written_down_is_not_repeated() {
    let mut jobs = Fake::with(&[("a", "hourly")], at("2026-01-05T02:10:00Z"));
    jobs.forgets = true;
    jobs.run(
        &mut Scheduler::default(),
        "2026-01-05T03:00:00Z",
        "2026-01-05T04:30:00Z",
        "UTC",
    );
    assert_eq!(
        jobs.starts(),
        ["a 2026-01-05T03:00:00Z", "a 2026-01-05T04:00:00Z"]
    );
}

#[test]
fn passes_are_at_full_minutes() {
    for (now, wait) in [(0, 60), (1, 59), (59, 1), (-1, 1), (1_767_225_630, 30)] {
        assert_eq!(until_next_minute(now), wait);
    }
}

#[test]
fn a_job_that_cannot_begin_fails_once_for_each_of_its_times_and_runs_as_soon_as_it_can() {
    let jobs = Fake::with(&[("a", "0/6:00")], at("2026-01-05T00:00:10Z"));
    jobs.refused
        .borrow_mut()
        .insert("a".to_owned(), "the disk is gone".to_owned());
    let mut scheduler = Scheduler::default();
    let (from, to) = ("2026-01-05T05:00:00Z", "2026-01-05T13:30:00Z");
    jobs.run(&mut scheduler, from, to, "UTC");
    let failed: Vec<_> = jobs.failed.borrow().iter().map(|(_, time)| *time).collect();
    let due = ["2026-01-05T06:00:00Z", "2026-01-05T12:00:00Z"];
    assert_eq!(failed, due.map(at));
    assert!(jobs.starts().is_empty());
    // another process goes on with it
    jobs.refused.borrow_mut().clear();
    let mut scheduler = Scheduler::default();
    let (from, to) = ("2026-01-05T13:31:00Z", "2026-01-05T18:30:00Z");
    jobs.run(&mut scheduler, from, to, "UTC");
    assert_eq!(
        jobs.starts(),
        ["a 2026-01-05T13:31:00Z", "a 2026-01-05T18:00:00Z"]
    );
    assert_eq!(jobs.failed.borrow().len(), 2);
}
