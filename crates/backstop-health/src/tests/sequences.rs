//! What happens after what.
use super::*;

/// A job that is run by hand, so that it is never late.
pub fn unscheduled() -> JobFacts {
    JobFacts {
        schedule: None,
        ..sync_job("hourly")
    }
}

pub fn failing() -> World {
    let mut world = World::new();
    world.facts.jobs = vec![unscheduled()];
    world.ran(Outcome::Ok);
    assert_eq!(world.look_after(60), [""; 0]);
    world.now += HOUR;
    world.ran(failed());
    world
}

#[test]
fn a_failure_is_told_counted_acknowledged_and_its_end_is_told() {
    let mut world = failing();
    let since = world.now;
    assert_eq!(world.look_after(30), ["job-failed ok>critical!"]);
    let check = world.check(Code::JobFailed).clone();
    assert!(check.is_loud());
    assert_eq!(check.finding.since, Some(since));
    assert!(check.finding.evidence.contains("connection refused"));
    assert!(
        check
            .finding
            .evidence
            .contains("last success 2026-11-29 00:00:00"),
        "{check:?}"
    );
    assert!(
        check
            .finding
            .remedy
            .unwrap()
            .contains("proxmox-backup-manager sync-job run offsite")
    );
    // It goes on; nobody is told again, and the count grows.
    for count in 2..5 {
        world.now += HOUR;
        world.ran(failed());
        assert_eq!(world.look_after(30), [""; 0]);
        assert!(
            world
                .evidence(Code::JobFailed)
                .starts_with(&format!("failed {count} times in a row"))
        );
        let check = world.check(Code::JobFailed);
        assert_eq!(check.finding.since, Some(since));
        assert_eq!(
            check.finding.measure.as_ref().unwrap().value,
            f64::from(count)
        );
    }
    let (code, object) = (Code::JobFailed, "job/sync/offsite");
    let now = world.now;
    world
        .ledger
        .acknowledge(code, object, "ann@pbs", "cable", None, now)
        .unwrap();
    assert_eq!(world.look_after(60), [""; 0]);
    let check = world.check(code);
    assert!(!check.is_loud() && check.finding.state == State::Critical);
    assert_eq!(check.acknowledged.as_ref().unwrap().by, "ann@pbs");
    // The end of what was told is told, although it was acknowledged; that is no longer.
    world.now += HOUR;
    world.ran(Outcome::Ok);
    assert_eq!(world.look_after(30), ["job-failed critical>ok!"]);
    let recovered = world.now;
    let check = world.check(code);
    assert_eq!(check.acknowledged, None);
    assert_eq!(check.finding.since, Some(recovered));
    let was = check.recovered.as_ref().unwrap();
    assert_eq!(
        (was.from, was.at, was.bad_since),
        (State::Critical, recovered, since)
    );
    assert!(was.evidence.contains("connection refused"));
    world.job().disabled = true;
    assert_eq!(world.look_after(DAY - 1), [""; 0]);
    assert!(world.check(code).recovered.is_some());
    world.look_after(1);
    assert_eq!(world.check(code).recovered, None);
    // The next failure is told anew.
    world.job().disabled = false;
    world.ran(failed());
    assert!(
        world
            .look_after(1)
            .contains(&"job-failed ok>critical!".to_owned())
    );
    let history: Vec<_> = world.ledger.history().map(|change| change.to).collect();
    assert_eq!(history[..2], [State::Critical, State::Ok]);
}

#[test]
fn what_cannot_be_looked_at_stays_as_it_was() {
    let mut world = World::new();
    let datastore = DatastoreFacts {
        name: "store1".to_owned(),
        ..DatastoreFacts::default()
    };
    world.facts.datastores = vec![datastore];
    let mut damaged = group(&daily(10), 1 << 30);
    damaged.damaged = vec![START - DAY];
    world.facts.groups = vec![damaged];
    assert_eq!(world.look_after(1), ["backup-verify-failed ok>critical!"]);
    // The file system hangs, and nobody knows anything of the groups.
    let groups = std::mem::take(&mut world.facts.groups);
    world.facts.datastores[0].reachable = Reachable::Silent(20);
    world.held = vec![Held {
        prefix: "group/store1/".to_owned(),
        reason: "no answer".to_owned(),
    }];
    assert_eq!(world.look_after(60), ["datastore-unavailable ok>critical!"]);
    assert_eq!(
        world.evidence(Code::DatastoreUnavailable),
        "no answer for 20s"
    );
    let check = world.check(Code::BackupVerifyFailed);
    assert!(check.is_loud() && check.held.is_some());
    let check = world.check(Code::BackupStale);
    assert_eq!(
        (check.finding.state, check.is_loud()),
        (State::Unknown, false)
    );
    assert_eq!(Counts::of(&world.last.checks).held, 4);
    world.facts.datastores[0].reachable = Reachable::Yes;
    world.facts.groups = groups;
    world.held.clear();
    assert_eq!(world.look_after(60), ["datastore-unavailable critical>ok!"]);
    assert_eq!(world.state(Code::BackupStale), State::Ok);
}

#[test]
fn trouble_of_what_is_removed_ends_in_a_recovery() {
    let mut world = failing();
    world.look_after(1);
    world.facts.jobs.clear();
    assert_eq!(world.look_after(60), ["job-failed critical>ok gone!"]);
    assert_eq!(world.evidence(Code::JobFailed), "it is not there any more");
    let gone = world.check(Code::JobFailed).recovered.clone();
    assert!(gone.unwrap().gone);
    assert_eq!(world.look_after(DAY), [""; 0]);
    let mut codes = world.last.checks.iter().map(|check| check.finding.code);
    assert!(codes.all(|code| code == Code::ClockJump));
}
