//! Datastores and all else of a server, and the words and forms that it is told in.
use super::super::*;

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
    // A surge that a line through a month does not follow.
    let mut world = World::new();
    let mut one = datastore(800);
    one.history = (0..30 * 24)
        .map(|hour| {
            let surge = (hour - 28 * 24 + 1).max(0) as f64 / 24.0;
            (START - (30 * 24 - 1 - hour) * HOUR, 0.6 + surge * 0.1)
        })
        .collect();
    assert!(forecast::full_at(&one.history).unwrap() > START + 30 * DAY);
    world.facts.datastores = vec![one];
    world.look_after(1);
    assert_eq!(world.state(Code::DatastoreFilling), State::Critical);
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
fn garbage_is_overdue_since_the_datastore_is_here_and_not_since_what_was_synced_to_it() {
    let mut world = World::new();
    let mut one = datastore(1);
    one.oldest = Some(START - 400 * DAY);
    one.first_seen = Some(START);
    world.facts.datastores = vec![one];
    assert_eq!(world.look_after(30 * DAY), [""; 0]);
    assert_eq!(world.look_after(1), ["gc-overdue ok>warning!"]);
    assert_eq!(
        world.check(Code::GcOverdue).finding.since,
        Some(START + 30 * DAY)
    );
}

#[test]
fn corrupt_chunks_that_were_never_counted_are_not_said_to_be_none() {
    let mut world = World::new();
    world.facts.datastores = vec![datastore(1)];
    let mut one = group(&daily(3), 1);
    world.facts.groups = vec![one.clone()];
    assert_eq!(world.look_after(1), [""; 0]);
    assert!(
        world
            .evidence(Code::DatastoreCorrupt)
            .contains("never counted")
    );
    // What verification has found is told of the group, and named here until chunks are counted anew.
    one.damaged = vec![START - DAY];
    one.verified = Some(START - 60);
    world.facts.groups = vec![one];
    assert_eq!(world.look_after(1), ["backup-verify-failed ok>critical!"]);
    let named = "verification has found damage in 1 backup since (backup-verify-failed)";
    for (collected, is_named, state) in [
        (None, true, State::Ok),
        (Some((START - 120, 0)), true, State::Ok),
        (Some((START, 0)), false, State::Ok),
        (Some((START, 3)), false, State::Critical),
    ] {
        world.facts.datastores[0].collected = collected;
        world.look_after(1);
        let text = world.evidence(Code::DatastoreCorrupt);
        assert_eq!(text.ends_with(named), is_named, "{collected:?}: {text}");
        assert_eq!(world.state(Code::DatastoreCorrupt), state, "{collected:?}");
    }
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

fn rendered(world: &World, age: i64) -> (State, String) {
    let checks = &world.last.checks;
    let overall = Overall::of(checks, age);
    (overall.state, plugin::render(checks, &overall))
}

#[test]
fn nothing_to_look_at_is_not_well() {
    let overall = Overall::of(&[], 5);
    assert_eq!(overall.state, State::Unknown);
    let text = plugin::render(&[], &overall);
    assert!(
        text.starts_with("BACKSTOP UNKNOWN - no check matches"),
        "{text}"
    );
    let mut world = World::new();
    world.look_after(1);
    assert_eq!(Overall::of(&world.last.checks, 900).state, State::Ok);
    let old = Overall::of(&world.last.checks, 901);
    assert_eq!(old.state, State::Unknown);
    assert!(old.note.unwrap().contains("15m"));
    // What is known to be bad stays so.
    world.facts.jobs = vec![sync_job("hourly")];
    world.ran(failed());
    world.look_after(1);
    assert_eq!(Overall::of(&world.last.checks, 901).state, State::Critical);
}

#[test]
fn what_a_receiver_refuses_is_critical_until_somebody_has_seen_to_it() {
    let mut world = World::new();
    world.facts.deliveries = vec![DeliveryFacts {
        target: "hook".to_owned(),
        refused: 2,
        error: Some("the server answered 400".to_owned()),
        ..DeliveryFacts::default()
    }];
    world.look_after(1);
    assert_eq!(world.state(Code::NotificationUndelivered), State::Critical);
    world.facts.deliveries[0].refused = 0;
    world.look_after(1);
    assert_eq!(world.state(Code::NotificationUndelivered), State::Ok);
}

#[test]
fn the_plugin_form_has_exit_code_text_and_performance_data() {
    let mut world = World::new();
    world.facts.jobs = vec![sync_job("hourly")];
    world.facts.datastores = vec![datastore(500)];
    world.ran(Outcome::Failed("a | b\nc".to_owned()));
    world.look_after(60);
    let (state, text) = rendered(&world, 5);
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
    let (state, text) = rendered(&world, 5);
    assert_eq!((state, plugin::exit_code(state)), (State::Ok, 0));
    assert!(
        text.starts_with("BACKSTOP OK - 1 acknowledged, 9 ok |"),
        "{text}"
    );
    // What is too old is worth nothing.
    let (state, text) = rendered(&world, 3600);
    assert_eq!((state, plugin::exit_code(state)), (State::Unknown, 3));
    assert!(text.contains("1h old"));
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
