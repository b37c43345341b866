//! What is bad, and how bad.
use super::*;

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
    world.look_after(40 * HOUR);
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
    world.look_after(1);
    assert_eq!(world.state(Code::JobSlow), State::Critical);
    world.job().running = Some(world.now - 4 * HOUR);
    world.look_after(1);
    assert_eq!(world.state(Code::JobSlow), State::Warning);
    world.job().running = Some(world.now - 3 * HOUR);
    world.look_after(1);
    assert_eq!(world.state(Code::JobSlow), State::Ok);
}

#[test]
fn a_group_is_stale_against_its_own_cadence_also_when_old_backups_are_pruned() {
    let mut world = World::new();
    world.facts.groups = vec![group(&daily(10), 1 << 30)];
    world.look_after(36 * HOUR);
    assert_eq!(world.state(Code::BackupStale), State::Ok);
    // Only the last one is kept; its cadence is still known.
    world.facts.groups = vec![group(&[0], 1 << 30)];
    assert_eq!(world.look_after(1), ["backup-stale ok>warning!"]);
    assert_eq!(
        world.check(Code::BackupStale).finding.since,
        Some(START + 36 * HOUR)
    );
    assert_eq!(
        world.look_after(37 * HOUR),
        ["backup-stale warning>critical!"]
    );
    let back = GroupFacts {
        newest: vec![SnapshotFacts {
            time: world.now - 60,
            size: None,
        }],
        ..group(&[0], 0)
    };
    world.facts.groups = vec![back];
    assert_eq!(world.look_after(1), ["backup-stale critical>ok!"]);
}

#[test]
fn without_a_cadence_nothing_is_said_unless_one_is_expected() {
    let mut world = World::new();
    world.facts.groups = vec![group(&[0, DAY], 1 << 30)];
    world.look_after(100 * DAY);
    assert_eq!(world.state(Code::BackupStale), State::Ok);
    assert!(
        world
            .evidence(Code::BackupStale)
            .contains("1 of the 4 intervals")
    );
    let place = |namespace: Option<&str>, group: Option<&str>| Place {
        datastore: "store1".to_owned(),
        namespace: namespace.map(|ns| ns.parse().unwrap()),
        group: group.map(str::to_owned),
    };
    let expect = |world: &mut World, place, every: &str| {
        let expectation = Expectation {
            place,
            every: every.parse().unwrap(),
            made_by: "root@pam".to_owned(),
            made_at: world.now,
        };
        world.settings.expect(expectation).unwrap();
        world.look_after(1);
        world.state(Code::BackupStale)
    };
    assert_eq!(
        expect(&mut world, place(None, None), "24h"),
        State::Critical
    );
    assert!(
        world
            .evidence(Code::BackupStale)
            .contains("one every 1d is expected of store1")
    );
    // The narrower one counts.
    assert_eq!(
        expect(&mut world, place(Some("a"), None), "1000d"),
        State::Critical
    );
    assert_eq!(
        expect(&mut world, place(None, Some("vm/100")), "never"),
        State::Ok
    );
    assert_eq!(
        expect(&mut world, place(None, Some("vm/100")), "80d"),
        State::Warning
    );
    assert_eq!(
        expect(&mut world, place(None, Some("vm/100")), "99d"),
        State::Ok
    );
    assert_eq!(world.settings.expectations.len(), 3);
    world.settings.forget(&place(None, Some("vm/100"))).unwrap();
    assert!(world.settings.forget(&place(None, Some("vm/100"))).is_err());
}

#[test]
fn what_is_expected_and_never_came_is_critical() {
    let mut world = World::new();
    world.facts.listed.insert("store1".to_owned());
    let expectation = Expectation {
        place: Place {
            datastore: "store1".to_owned(),
            namespace: None,
            group: Some("vm/999".to_owned()),
        },
        every: "24h".parse().unwrap(),
        made_by: "root@pam".to_owned(),
        made_at: START,
    };
    world.settings.expect(expectation).unwrap();
    world.look_after(DAY);
    assert_eq!(world.state(Code::BackupStale), State::Ok);
    assert_eq!(world.look_after(3 * HOUR), ["backup-stale ok>critical!"]);
    assert_eq!(
        world.check(Code::BackupStale).finding.object,
        "group/store1/vm/999"
    );
    let mut came = group(&[0], 1);
    came.group = "vm/999".to_owned();
    came.newest[0].time = world.now;
    world.facts.groups = vec![came];
    assert_eq!(world.look_after(1), ["backup-stale critical>ok!"]);
}

#[test]
fn a_backup_in_the_future_is_no_fresh_backup() {
    let mut world = World::new();
    world.facts.groups = vec![group(&[-2 * DAY, DAY], 1)];
    world.look_after(1);
    assert_eq!(world.state(Code::BackupStale), State::Warning);
    assert!(world.learnt.backups("group/store1/vm/100").len() == 1);
}

#[test]
fn sizes_are_compared_with_the_usual_ones() {
    let gib = 1_u64 << 30;
    for (size, state) in [
        (100 * gib, State::Ok),
        (60 * gib, State::Ok),
        (40 * gib, State::Warning),
        (gib, State::Critical),
        (0, State::Critical),
        (250 * gib, State::Ok),
        (400 * gib, State::Warning),
    ] {
        let mut world = World::new();
        let mut one = group(&daily(6), 100 * gib);
        one.newest[0].size = Some(size);
        world.facts.groups = vec![one];
        world.look_after(1);
        assert_eq!(world.state(Code::BackupSize), state, "{size}");
    }
    // Small ones change as they like, few tell nothing.
    for (count, usual, size) in [(6, 1000, 10), (4, 100 * gib, 0)] {
        let mut world = World::new();
        let mut one = group(&daily(count), usual);
        one.newest[0].size = Some(size);
        world.facts.groups = vec![one];
        world.look_after(1);
        assert_eq!(world.state(Code::BackupSize), State::Ok);
    }
}

#[test]
fn damage_is_critical_and_missing_verification_a_warning_where_a_job_should_verify() {
    let mut world = World::new();
    let mut one = group(&daily(50), 1);
    one.damaged = vec![START - DAY, START - 2 * DAY];
    world.facts.groups = vec![one];
    world.look_after(1);
    assert_eq!(world.state(Code::BackupVerifyFailed), State::Critical);
    assert!(
        world
            .evidence(Code::BackupVerifyFailed)
            .starts_with("2 backups are damaged: of 2026-11-28 00:00:00")
    );
    assert_eq!(world.state(Code::BackupVerifyOld), State::Ok);
    assert!(
        world
            .evidence(Code::BackupVerifyOld)
            .contains("no job verifies it")
    );
    let job = VerificationFacts {
        job: "v1".to_owned(),
        datastore: "store1".to_owned(),
        again_after: Some(30),
        ..VerificationFacts::default()
    };
    world.facts.verifications = vec![job];
    world.look_after(1);
    assert_eq!(world.state(Code::BackupVerifyOld), State::Warning);
    for (age, again, state) in [
        (36, Some(30), State::Ok),
        (38, Some(30), State::Warning),
        (38, None, State::Warning),
        (-1, None, State::Ok),
    ] {
        world.facts.groups[0].verified = Some(world.now - age * DAY);
        world.facts.verifications[0].again_after = again;
        world.look_after(1);
        assert_eq!(world.state(Code::BackupVerifyOld), state, "{age}");
    }
}

fn datastore(used: u64) -> DatastoreFacts {
    DatastoreFacts {
        name: "store1".to_owned(),
        looked: true,
        space: Some((1000, 1000 - used)),
        ..DatastoreFacts::default()
    }
}

#[test]
fn a_datastore_is_full_by_its_share_or_by_its_trend() {
    // Per mille a day that it grew in the last ten days.
    for (used, growth, state) in [
        (899, 0, State::Ok),
        (900, 0, State::Warning),
        (970, 0, State::Critical),
        (800, 10, State::Warning),
        (800, 1, State::Ok),
        (800, 50, State::Critical),
        (400, 100, State::Ok),
        (800, -10, State::Ok),
    ] {
        let mut world = World::new();
        let mut one = datastore(used);
        let share = |day: i64| (i64::try_from(used).unwrap() - day * growth) as f64 / 1000.0;
        one.history = (0..10)
            .rev()
            .map(|day| (START - day * DAY, share(day)))
            .collect();
        world.facts.datastores = vec![one];
        world.look_after(1);
        assert_eq!(
            world.state(Code::DatastoreFilling),
            state,
            "{used} {growth}"
        );
    }
    // A day tells nothing.
    let mut world = World::new();
    let mut one = datastore(800);
    one.history = (0..24)
        .map(|hour| (START + hour * HOUR, 0.7 + hour as f64 * 0.004))
        .collect();
    world.facts.datastores = vec![one];
    world.look_after(1);
    assert_eq!(world.state(Code::DatastoreFilling), State::Ok);
}

#[test]
fn garbage_corruption_maintenance_and_absence_are_told() {
    let mut world = World::new();
    let mut one = datastore(1);
    one.oldest = Some(START - 31 * DAY);
    world.facts.datastores = vec![one];
    assert_eq!(world.look_after(1), ["gc-overdue ok>warning!"]);
    world.facts.datastores[0].collected = Some((world.now, 2));
    assert_eq!(
        world.look_after(1),
        ["datastore-corrupt ok>critical!", "gc-overdue warning>ok!"]
    );
    world.facts.datastores[0].reachable = Reachable::Maintenance("read-only: disks".to_owned());
    assert_eq!(world.look_after(1), ["datastore-maintenance ok>warning!"]);
    world.facts.datastores[0].reachable = Reachable::No("stale file handle".to_owned());
    world.held = vec![Held {
        prefix: "datastore/store1".to_owned(),
        reason: "away".to_owned(),
    }];
    let told = world.look_after(1);
    assert_eq!(
        told,
        [
            "datastore-unavailable ok>critical!",
            "datastore-maintenance warning>ok!"
        ]
    );
    assert_eq!(world.state(Code::DatastoreCorrupt), State::Critical);
}

#[test]
fn certificates_collisions_clock_and_deliveries_are_told() {
    let mut world = World::new();
    let certificate = |remote: Option<&str>, left: i64| CertificateFacts {
        remote: remote.map(str::to_owned),
        validity: Some((START - 300 * DAY, START + left)),
        ..CertificateFacts::default()
    };
    for (left, state) in [
        (22 * DAY, State::Ok),
        (20 * DAY, State::Warning),
        (4 * DAY, State::Critical),
        (-1, State::Critical),
    ] {
        world.facts.certificates = vec![certificate(None, left)];
        world.look_after(0);
        assert_eq!(world.state(Code::CertificateExpiring), state, "{left}");
    }
    // A short-lived one is renewed in the last third.
    world.facts.certificates[0].validity = Some((START - 4 * DAY, START + 3 * DAY));
    world.look_after(0);
    assert_eq!(world.state(Code::CertificateExpiring), State::Ok);
    world.facts.certificates = vec![certificate(Some("peer"), 100 * DAY)];
    world.facts.certificates[0].untrusted = Some("expected AA, shown BB".to_owned());
    world.look_after(0);
    assert_eq!(world.state(Code::CertificateChanged), State::Critical);

    let target = |job: &str, source: &str| TargetFacts {
        job: job.to_owned(),
        scope: Scope::datastore("store1"),
        datastore: "store1".to_owned(),
        source: source.to_owned(),
        takes_all: true,
        owner: "root@pam".to_owned(),
        ..TargetFacts::default()
    };
    world.facts.targets = vec![target("a", "remote1"), target("b", "remote1")];
    world.facts.listed.insert("store1".to_owned());
    world.facts.groups = vec![group(&[0], 1)];
    world.look_after(1);
    assert_eq!(world.state(Code::OwnerCollision), State::Ok);
    assert_eq!(world.state(Code::TargetCollision), State::Ok);
    world.facts.targets[1].source = "remote2".to_owned();
    world.facts.groups[0].owner = Some("host@pbs!backup".to_owned());
    world.look_after(1);
    assert_eq!(world.state(Code::OwnerCollision), State::Warning);
    assert_eq!(world.state(Code::TargetCollision), State::Warning);
    world.facts.targets[1].namespace = "b".parse().unwrap();
    world.facts.targets[0].depth = Some(0);
    world.facts.targets[0].owner = "host@pbs".to_owned();
    world.look_after(1);
    assert_eq!(world.state(Code::OwnerCollision), State::Ok);
    assert_eq!(world.state(Code::TargetCollision), State::Ok);

    let now = world.now;
    world.facts.clock.jumps = vec![(now, -7200)];
    world.look_after(1);
    assert_eq!(world.state(Code::ClockJump), State::Warning);
    assert!(
        world
            .evidence(Code::ClockJump)
            .starts_with("it was set back by 2h")
    );
    world.look_after(DAY);
    assert_eq!(world.state(Code::ClockJump), State::Ok);

    let since = world.now;
    world.facts.deliveries = vec![DeliveryFacts {
        heartbeat: true,
        target: "kuma".to_owned(),
        waiting: 1,
        since: Some(since),
        error: Some("404".to_owned()),
        ..DeliveryFacts::default()
    }];
    for (seconds, state) in [
        (600, State::Ok),
        (1, State::Warning),
        (4 * HOUR, State::Critical),
    ] {
        world.look_after(seconds);
        assert_eq!(world.state(Code::HeartbeatUndelivered), state, "{seconds}");
    }
    assert!(
        world
            .evidence(Code::HeartbeatUndelivered)
            .ends_with("last error: 404")
    );
    world.facts.deliveries.clear();
    let told = world.look_after(1);
    assert_eq!(told, ["heartbeat-undelivered critical>ok!"]);
}

#[test]
fn the_plugin_form_has_exit_code_text_and_performance_data() {
    let mut world = World::new();
    world.facts.jobs = vec![sync_job("hourly")];
    world.facts.datastores = vec![datastore(500)];
    world.ran(Outcome::Failed("a | b\nc".to_owned()));
    world.look_after(60);
    let (state, text) = plugin::render(&world.last.checks, 5);
    assert_eq!((state, plugin::exit_code(state)), (State::Critical, 2));
    let first = text.lines().next().unwrap();
    assert!(
        first.starts_with(
            "BACKSTOP CRITICAL - 1 critical, 9 ok; job-failed job/sync/offsite: failed"
        ),
        "{first}"
    );
    assert_eq!(first.matches('|').count(), 1);
    let data = first.split('|').nth(1).unwrap();
    assert!(
        data.contains("critical=1 warning=0 unknown=0 ok=9 acknowledged=0 expected=0"),
        "{data}"
    );
    assert!(
        data.contains(" 'job-failed job/sync/offsite'=1;;0 "),
        "{data}"
    );
    assert!(
        data.contains(" 'datastore-filling datastore/store1'=50%;90;97"),
        "{data}"
    );
    assert_eq!(text.lines().count(), 2);
    let now = world.now;
    world
        .ledger
        .acknowledge(Code::JobFailed, "job/sync/offsite", "a@pbs", "", None, now)
        .unwrap();
    world.look_after(1);
    let (state, text) = plugin::render(&world.last.checks, 5);
    assert_eq!((state, plugin::exit_code(state)), (State::Ok, 0));
    assert!(
        text.starts_with("BACKSTOP OK - 1 acknowledged, 9 ok |"),
        "{text}"
    );
    // What is too old is worth nothing.
    let (state, text) = plugin::render(&world.last.checks, 3600);
    assert_eq!((state, plugin::exit_code(state)), (State::Unknown, 3));
    assert!(text.contains("3600 seconds old"));
    assert_eq!(plugin::exit_code(State::Warning), 1);
}

#[test]
fn codes_and_states_are_words_both_ways() {
    for code in Code::ALL {
        assert_eq!(code.as_str().parse::<Code>().unwrap(), *code);
        assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{code}\""));
    }
    for state in State::ALL {
        assert_eq!(state.as_str().parse::<State>().unwrap(), state);
    }
    assert!("nonsense".parse::<Code>().is_err());
}

#[test]
fn the_name_of_an_object_tells_its_place() {
    let mut one = group(&[0], 1);
    one.namespace = "a/ns/b".parse().unwrap();
    let scope = Scope::of_object(&one.object());
    assert_eq!(one.object(), "group/store1/ns/a/ns/ns/ns/b/vm/100");
    assert_eq!(scope.namespace, Some(one.namespace));
    assert_eq!(scope.group.as_deref(), Some("vm/100"));
    let datastore = Scope::of_object("datastore/store1");
    assert_eq!(datastore, Scope::datastore("store1"));
    for other in ["clock/host", "job/sync/a", "", "group", "datastore"] {
        assert_eq!(Scope::of_object(other), Scope::default(), "{other}");
    }
}
