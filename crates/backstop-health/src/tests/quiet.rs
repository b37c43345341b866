//! What somebody knows of or expects: who is called, and when again.
use super::sequences::{failing, unscheduled};
use super::*;

#[test]
fn an_acknowledgement_ends_with_its_time_and_when_it_gets_worse() {
    let mut world = World::new();
    world.facts.jobs = vec![unscheduled()];
    world.ran(Outcome::Warnings(2));
    assert_eq!(world.look_after(1), ["job-failed ok>warning!"]);
    let (code, object) = (Code::JobFailed, "job/sync/offsite");
    let now = world.now;
    let acknowledge = |world: &mut World, until| {
        world
            .ledger
            .acknowledge(code, object, "ann@pbs", "", until, now)
    };
    assert_eq!(acknowledge(&mut world, Some(now)), Err(LedgerError::Past));
    acknowledge(&mut world, Some(now + HOUR)).unwrap();
    assert_eq!(world.look_after(HOUR - 1), [""; 0]);
    assert!(!world.check(code).is_loud());
    assert_eq!(
        world.look_after(1),
        ["job-failed warning>warning unacknowledged!"]
    );
    assert!(world.check(code).is_loud());
    acknowledge(&mut world, None).unwrap();
    world.look_after(60);
    world.ran(failed());
    assert_eq!(world.look_after(1), ["job-failed warning>critical!"]);
    assert_eq!(world.check(code).acknowledged, None);
    // What gets better stays acknowledged.
    let now = world.now;
    world
        .ledger
        .acknowledge(code, object, "ann@pbs", "", None, now)
        .unwrap();
    world.ran(Outcome::Warnings(1));
    assert_eq!(world.look_after(1), ["job-failed critical>warning"]);
    assert!(world.check(code).acknowledged.is_some());
    world.ledger.unacknowledge(code, object).unwrap();
    assert_eq!(
        world.ledger.unacknowledge(code, object),
        Err(LedgerError::NotAcknowledged)
    );
    assert_eq!(
        world.ledger.unacknowledge(code, "job/sync/x"),
        Err(LedgerError::Unknown)
    );
    world.ran(Outcome::Ok);
    world.look_after(1);
    let now = world.now;
    let well = world
        .ledger
        .acknowledge(code, object, "ann@pbs", "", None, now);
    assert_eq!(well, Err(LedgerError::Well));
}

#[test]
fn what_comes_up_in_a_window_is_expected_and_is_loud_when_it_outlasts_it() {
    let mut world = failing();
    world.window(2 * HOUR);
    // Quiet, and shown as what it is.
    assert_eq!(world.look_after(60), ["job-failed ok>critical"]);
    let check = world.check(Code::JobFailed);
    assert_eq!(check.finding.state, State::Critical);
    let expected = check.expected.as_ref().unwrap();
    let end = world.settings.windows[0].start.unwrap() + 2 * HOUR;
    assert_eq!((expected.window.as_str(), expected.until), ("upgrade", end));
    assert!(!check.is_loud());
    let left = end - world.now;
    assert_eq!(world.look_after(left - 1), [""; 0]);
    let told = world.look_after(1);
    assert!(
        told.contains(&"job-failed critical>critical outlasted!".to_owned()),
        "{told:?}"
    );
    assert!(world.check(Code::JobFailed).is_loud());
    world.ran(Outcome::Ok);
    assert!(
        world
            .look_after(60)
            .contains(&"job-failed critical>ok!".to_owned())
    );
}

#[test]
fn what_comes_and_goes_in_a_window_is_recorded_and_nobody_is_told() {
    let mut world = failing();
    world.window(2 * HOUR);
    world.look_after(60);
    world.ran(Outcome::Ok);
    assert_eq!(world.look_after(60), ["job-failed critical>ok"]);
    assert!(world.check(Code::JobFailed).recovered.is_some());
    assert_eq!(world.ledger.history().count(), 2);
}

#[test]
fn what_was_bad_before_a_window_stays_loud_in_it_and_a_next_window_does_not_take_it_over() {
    let mut world = failing();
    world.look_after(60);
    world.now += 60;
    world.window(HOUR);
    assert_eq!(world.look_after(60), [""; 0]);
    assert!(world.check(Code::JobFailed).is_loud());
    // Windows without a gap between them are no way to mute something.
    let mut world = failing();
    world.window(60);
    world.settings.windows[0].start = None;
    world.settings.windows[0].schedule = Some("*:0/1".to_owned());
    world.now += 30;
    assert_eq!(world.look_after(0), ["job-failed ok>critical"]);
    assert_eq!(
        world.look_after(60),
        ["job-failed critical>critical outlasted!"]
    );
    assert!(world.check(Code::JobFailed).is_loud());
}

#[test]
fn a_window_covers_its_place_and_codes_only() {
    let mut world = failing();
    world.window(HOUR);
    let of = |datastore: &str| Place {
        datastore: datastore.to_owned(),
        namespace: None,
        group: None,
    };
    world.settings.windows[0].place = Some(of("store2"));
    assert_eq!(world.look_after(1), ["job-failed ok>critical!"]);
    let mut world = failing();
    world.window(HOUR);
    world.settings.windows[0].place = Some(of("store1"));
    world.settings.windows[0].codes = vec![Code::JobLate];
    assert_eq!(world.look_after(1), ["job-failed ok>critical!"]);
    let mut world = failing();
    world.window(HOUR);
    world.settings.windows[0].object = Some("job/sync/offsite".to_owned());
    assert_eq!(world.look_after(1), ["job-failed ok>critical"]);
}

#[test]
fn what_is_loud_stays_loud_when_it_worsens_in_a_window() {
    let mut world = World::new();
    world.facts.jobs = vec![unscheduled()];
    world.ran(Outcome::Warnings(1));
    assert_eq!(world.look_after(60), ["job-failed ok>warning!"]);
    world.now += 60;
    world.window(HOUR);
    world.ran(failed());
    assert_eq!(world.look_after(60), ["job-failed warning>critical!"]);
    assert!(world.check(Code::JobFailed).is_loud());

    // What was acknowledged was quiet: what becomes of it in the window belongs to the window.
    let mut world = World::new();
    world.facts.jobs = vec![unscheduled()];
    world.ran(Outcome::Warnings(1));
    world.look_after(60);
    let now = world.now;
    let (code, object) = (Code::JobFailed, "job/sync/offsite");
    world
        .ledger
        .acknowledge(code, object, "ann@pbs", "", None, now)
        .unwrap();
    world.look_after(60);
    world.now += 60;
    world.window(HOUR);
    world.ran(failed());
    assert_eq!(world.look_after(60), ["job-failed warning>critical"]);
    assert_eq!(
        world.look_after(HOUR),
        ["job-failed critical>critical outlasted!"]
    );

    // What came up in a window and worsens after it is loud, also when the next one has begun.
    let mut world = World::new();
    world.facts.jobs = vec![unscheduled()];
    world.window(120);
    world.settings.windows[0].start = None;
    world.settings.windows[0].schedule = Some("*:0/2".to_owned());
    world.ran(Outcome::Warnings(1));
    assert_eq!(world.look_after(60), ["job-failed ok>warning"]);
    world.ran(failed());
    assert_eq!(world.look_after(60), ["job-failed warning>critical!"]);
}

#[test]
fn one_damage_that_somebody_knows_of_says_nothing_of_the_next() {
    let mut world = World::new();
    let mut one = group(&daily(10), 1 << 30);
    one.damaged = vec![START - DAY, START - 2 * DAY];
    world.facts.groups = vec![one];
    assert_eq!(world.look_after(1), ["backup-verify-failed ok>critical!"]);
    let (code, object) = (Code::BackupVerifyFailed, "group/store1/vm/100");
    let acknowledge = |world: &mut World| {
        let now = world.now;
        let ledger = &mut world.ledger;
        ledger
            .acknowledge(code, object, "ann@pbs", "known", None, now)
            .unwrap();
    };
    acknowledge(&mut world);
    assert_eq!(world.look_after(60), [""; 0]);
    assert!(!world.check(code).is_loud());
    world.facts.groups[0].damaged.push(START - 3 * DAY);
    let ended = ["backup-verify-failed critical>critical unacknowledged!"];
    assert_eq!(world.look_after(60), ended);
    assert!(world.check(code).is_loud());
    // What is repaired is not known any more: another one in its place is new.
    acknowledge(&mut world);
    world.facts.groups[0].damaged.truncate(1);
    assert_eq!(world.look_after(60), [""; 0]);
    assert!(!world.check(code).is_loud());
    world.facts.groups[0].damaged.push(START - 4 * DAY);
    assert_eq!(world.look_after(60), ended);

    // A job that goes on failing is what was acknowledged.
    let mut world = failing();
    world.look_after(30);
    let now = world.now;
    world
        .ledger
        .acknowledge(
            Code::JobFailed,
            "job/sync/offsite",
            "ann@pbs",
            "",
            None,
            now,
        )
        .unwrap();
    world.now += HOUR;
    world.ran(failed());
    assert_eq!(world.look_after(30), [""; 0]);
    assert!(!world.check(Code::JobFailed).is_loud());
}

#[test]
fn an_acknowledgement_of_before_there_were_counts_is_read() {
    let text = r#"{"by":"a@pbs","at":1,"comment":"","state":"critical"}"#;
    let made: Acknowledgement = serde_json::from_str(text).unwrap();
    assert_eq!(made.count, None);
    // It learns the count when it is looked at, and more is more from then on.
    let made = made.still_knows(Some(3)).unwrap();
    assert_eq!(made.count, Some(3));
    assert_eq!(made.still_knows(Some(4)), None);
}

#[test]
fn what_is_held_is_named_wholly() {
    let held = |prefix: &str| Held {
        prefix: prefix.to_owned(),
        reason: String::new(),
    };
    for (prefix, object, covered) in [
        ("datastore/store1", "datastore/store1", true),
        ("datastore/store1", "datastore/store10", false),
        ("job/sync/a", "job/sync/ab", false),
        ("job/sync/a", "job/sync/a", true),
        ("group/store1/", "group/store1/vm/100", true),
        ("group/store1", "group/store1/vm/100", true),
        ("group/store1/", "group/store10/vm/100", false),
        ("remote/", "remote/x", true),
    ] {
        assert_eq!(held(prefix).covers(object), covered, "{prefix} {object}");
    }
}
