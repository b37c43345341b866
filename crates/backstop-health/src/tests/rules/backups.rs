//! Backup groups.
use super::super::*;

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
