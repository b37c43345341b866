//! Backup groups.
use super::super::*;

#[test]
fn a_group_is_stale_against_its_own_cadence_also_when_old_backups_are_pruned() {
    let mut world = World::new();
    world.facts.groups = vec![group(&daily(10), 1 << 30)];
    world.watched();
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
fn a_backup_in_the_future_is_told_and_hides_no_staleness() {
    let mut world = World::new();
    let mut days = daily(10);
    days.insert(0, -500 * DAY);
    world.facts.groups = vec![group(&days, 1)];
    world.watched();
    assert_eq!(world.look_after(1), ["clock-jump ok>warning!"]);
    let check = world.check(Code::ClockJump);
    assert_eq!(check.finding.object, "group/store1/vm/100");
    assert!(
        check
            .finding
            .evidence
            .starts_with("1 backup is of the future")
    );
    assert_eq!(world.state(Code::BackupStale), State::Ok);
    assert_eq!(world.look_after(37 * HOUR), ["backup-stale ok>warning!"]);
    let learnt = world.learnt.backups("group/store1/vm/100");
    assert!(learnt.iter().all(|time| *time <= START));
    // A clock that is some minutes ahead is none of it.
    world.facts.groups[0].newest[0].time = world.now + HOUR;
    let told = world.look_after(0);
    assert!(
        told.contains(&"backup-stale warning>ok!".to_owned()),
        "{told:?}"
    );
    assert!(!world.check(Code::ClockJump).finding.state.is_bad());
    // Nothing else is there.
    let mut world = World::new();
    world.facts.groups = vec![group(&[-2 * DAY], 1)];
    world.look_after(1);
    assert_eq!(world.state(Code::BackupStale), State::Ok);
    assert!(
        world
            .evidence(Code::BackupStale)
            .contains("no backup that is not of the future")
    );
}

#[test]
fn what_is_expected_of_a_datastore_that_there_is_not_is_critical_at_once() {
    let mut world = World::new();
    let expectation = Expectation {
        place: Place {
            datastore: "stroe1".to_owned(),
            namespace: None,
            group: None,
        },
        every: "24h".parse().unwrap(),
        made_by: "root@pam".to_owned(),
        made_at: START,
    };
    world.settings.expect(expectation).unwrap();
    // While the configuration of datastores cannot be read, nobody knows.
    assert_eq!(world.look_after(1), [""; 0]);
    world.facts.knows_datastores = true;
    assert_eq!(world.look_after(1), ["backup-stale ok>critical!"]);
    assert_eq!(
        world.check(Code::BackupStale).finding.object,
        "group/stroe1/*"
    );
    assert!(
        world
            .evidence(Code::BackupStale)
            .starts_with("there is no datastore 'stroe1'")
    );
    world.facts.datastores = vec![DatastoreFacts {
        name: "stroe1".to_owned(),
        ..DatastoreFacts::default()
    }];
    world.look_after(1);
    assert_eq!(world.state(Code::BackupStale), State::Ok);
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
    for (count, usual, size) in [(6, 1000, 10), (4, 100 * gib, 0), (6, 30 << 20, 1 << 20)] {
        let mut world = World::new();
        let mut one = group(&daily(count), usual);
        one.newest[0].size = Some(size);
        world.facts.groups = vec![one];
        world.look_after(1);
        assert_eq!(world.state(Code::BackupSize), State::Ok);
    }
}

#[test]
fn next_to_nothing_counts_for_small_groups_and_for_those_that_vary() {
    let judge = |sizes: &[u64]| {
        let mut world = World::new();
        let mut one = group(&daily(i64::try_from(sizes.len()).unwrap()), 0);
        for (snapshot, size) in one.newest.iter_mut().zip(sizes) {
            snapshot.size = Some(*size);
        }
        world.facts.groups = vec![one];
        world.look_after(1);
        (
            world.state(Code::BackupSize),
            world.evidence(Code::BackupSize).to_owned(),
        )
    };
    let mib = 1 << 20;
    let (state, text) = judge(&[310, 30 * mib, 30 * mib, 31 * mib, 30 * mib, 29 * mib]);
    assert_eq!(state, State::Critical);
    assert!(text.ends_with("has 310 B; 30.0 MiB is usual"), "{text}");
    let varies = [700, 1100, 900, 1400, 1000, 800].map(|size| size * mib);
    assert_eq!(judge(&varies).0, State::Ok);
    let mut vanished = varies;
    vanished[0] = 4096;
    assert_eq!(judge(&vanished).0, State::Critical);
    // Large and small ones in turn: small ones are usual.
    let turns = [mib, 900 * mib, mib, 900 * mib, mib, 900 * mib, mib];
    assert_eq!(judge(&turns).0, State::Ok);
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
