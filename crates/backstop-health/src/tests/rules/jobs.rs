//! Jobs.
use super::super::*;

#[test]
fn a_job_that_is_not_started_is_late_and_then_very_late() {
    let mut world = World::new();
    world.facts.jobs = vec![sync_job("hourly")];
    world.ran(Outcome::Ok);
    world.job().reference = START + 60;
    let due = START + HOUR;
    world.look_after(due + 600 - START);
    assert_eq!(world.state(Code::JobLate), State::Ok);
    world.look_after(1);
    assert_eq!(world.state(Code::JobLate), State::Warning);
    assert_eq!(world.check(Code::JobLate).finding.since, Some(due));
    world.look_after(2 * HOUR);
    assert_eq!(world.state(Code::JobLate), State::Critical);
    // It runs at last.
    world.job().running = Some(START);
    world.look_after(1);
    assert_eq!(world.state(Code::JobLate), State::Ok);
}

#[test]
fn what_was_due_before_the_server_started_is_not_late_at_once() {
    let mut world = World::new();
    world.facts.jobs = vec![sync_job("hourly")];
    world.facts.started = START + 3 * DAY;
    world.ran(Outcome::Ok);
    world.look_after(3 * DAY + 60);
    assert_eq!(world.state(Code::JobLate), State::Ok);
    world.look_after(600);
    assert_eq!(world.state(Code::JobLate), State::Warning);
}

#[test]
fn a_job_that_never_ran_says_so_after_its_first_turn() {
    let mut world = World::new();
    world.facts.jobs = vec![sync_job("hourly")];
    world.job().reference = START + 1;
    world.look_after(60);
    assert_eq!(world.state(Code::JobNeverRan), State::Ok);
    world.look_after(HOUR + 600);
    assert_eq!(world.state(Code::JobNeverRan), State::Warning);
    assert!(
        world
            .evidence(Code::JobNeverRan)
            .starts_with("it never ran")
    );
    for (schedule, state) in [("25:00:00", State::Critical), ("2020-1-1", State::Warning)] {
        world.job().schedule = Some(schedule.to_owned());
        world.look_after(1);
        assert_eq!(world.state(Code::JobNeverRan), state, "{schedule}");
    }
    world.job().disabled = true;
    world.look_after(1);
    assert_eq!(world.state(Code::JobNeverRan), State::Ok);
    // Without a schedule it is run by hand, whenever.
    world.job().schedule = None;
    world.look_after(1);
    let has = |code| {
        world
            .last
            .checks
            .iter()
            .any(|check| check.finding.code == code && check.recovered.is_none())
    };
    assert!(!has(Code::JobNeverRan) && !has(Code::JobLate) && has(Code::JobFailed));
}

#[test]
fn a_run_far_beyond_the_usual_is_told_once_the_usual_is_known() {
    let mut world = World::new();
    world.facts.jobs = vec![sync_job("daily")];
    world.job().running = Some(START);
    world.look_after(20 * HOUR);
    assert_eq!(world.state(Code::JobSlow), State::Ok);
    assert!(
        world
            .evidence(Code::JobSlow)
            .contains("only 0 of the 3 runs")
    );
    for run in 0..3 {
        assert!(world.learnt.note_run("job/sync/offsite", run, run + HOUR));
        assert!(!world.learnt.note_run("job/sync/offsite", run, run + HOUR));
    }
    world.look_after(20 * HOUR);
    assert_eq!(world.state(Code::JobSlow), State::Critical);
    world.job().running = Some(world.now - 4 * HOUR);
    world.look_after(1);
    assert_eq!(world.state(Code::JobSlow), State::Warning);
    world.job().running = Some(world.now - 3 * HOUR);
    world.look_after(1);
    assert_eq!(world.state(Code::JobSlow), State::Ok);
}

#[test]
fn a_first_run_that_hangs_is_told_although_nothing_is_known_of_how_long_it_takes() {
    for (schedule, limit) in [
        (Some("daily"), 24 * HOUR),
        (Some("weekly"), 24 * HOUR),
        (None, 24 * HOUR),
        // Two turns were missed, and more than some hours have passed.
        (Some("hourly"), 6 * HOUR),
        (Some("0/8:00"), 16 * HOUR),
    ] {
        let mut world = World::new();
        world.facts.jobs = vec![sync_job("hourly")];
        world.job().schedule = schedule.map(str::to_owned);
        world.job().running = Some(START);
        world.look_after(limit);
        assert_eq!(world.state(Code::JobSlow), State::Ok, "{schedule:?}");
        world.look_after(1);
        let check = world.check(Code::JobSlow);
        assert_eq!(check.finding.state, State::Warning, "{schedule:?}");
        assert_eq!(check.finding.since, Some(START + limit));
        assert!(check.is_loud());
    }
}

#[test]
fn a_restart_neither_calls_an_alarm_of_a_late_job_off_nor_gives_it_time_anew() {
    let mut world = World::new();
    world.facts.jobs = vec![sync_job("2:00")];
    world.ran(Outcome::Ok);
    assert_eq!(world.look_after(2 * HOUR + 60), [""; 0]);
    assert_eq!(world.look_after(600), ["job-late ok>warning!"]);
    for _ in 0..3 {
        world.facts.started = world.now + 30;
        assert_eq!(world.look_after(60), [""; 0]);
        assert_eq!(world.state(Code::JobLate), State::Warning);
    }
    // One that restarts all the time is late, too: what counts is for how long a server was there to start it.
    let mut world = World::new();
    world.facts.jobs = vec![sync_job("2:00")];
    world.ran(Outcome::Ok);
    world.look_after(2 * HOUR);
    let mut told = Vec::new();
    for _ in 0..4 {
        // An hour without a server, then some minutes with one.
        world.facts.started = world.now + HOUR;
        told.extend(world.look_after(HOUR));
        told.extend(world.look_after(200));
    }
    assert_eq!(told, ["job-late ok>warning!"]);
    // It runs at last, and the next turn begins anew.
    world.ran(Outcome::Ok);
    assert_eq!(world.look_after(1), ["job-late warning>ok!"]);
    let tomorrow = START + DAY + 2 * HOUR;
    assert_eq!(world.look_after(tomorrow + 590 - world.now), [""; 0]);
}
