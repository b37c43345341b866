//! Rules of what gathering tells of itself: listings, remotes, memory, manifests, and whether anybody can be told.

use super::*;

fn listed(at: Option<i64>, running: Option<i64>) -> World {
    let mut world = World::new();
    world.facts.datastores = vec![DatastoreFacts {
        name: "store1".to_owned(),
        listing: Some(ListingFacts {
            at,
            groups: 3,
            running,
        }),
        ..DatastoreFacts::default()
    }];
    world
}

#[test]
fn a_datastore_that_was_not_looked_at_since_the_start_is_shown_as_unknown_and_is_loud_after_some_minutes()
 {
    let mut world = listed(None, Some(START));
    world.facts.started = START;
    let vm = group(&daily(5), 1);
    world.learnt.note_backups(&vm.object(), &[START], START);
    assert_eq!(world.look_after(300), [""; 0]);
    let moment = world.moment();
    let unseen = unseen(&world.facts, &world.learnt, &world.last.checks, &moment);
    let shown: Vec<_> = unseen
        .iter()
        .map(|check| {
            (
                check.finding.code,
                check.finding.object.as_str(),
                check.finding.state,
                check.is_loud(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            (
                Code::DatastoreListing,
                "datastore/store1",
                State::Unknown,
                false
            ),
            (
                Code::BackupStale,
                "group/store1/vm/100",
                State::Unknown,
                false
            ),
        ]
    );
    assert_eq!(Counts::of(&unseen).held, 2);
    assert_eq!(world.look_after(600), ["datastore-listing ok>unknown!"]);
    let moment = world.moment();
    let unseen = super::unseen(&world.facts, &world.learnt, &world.last.checks, &moment);
    assert_eq!(unseen.len(), 1);
    world.facts.datastores[0].listing.as_mut().unwrap().at = Some(world.now);
    assert_eq!(world.look_after(60), ["datastore-listing unknown>ok!"]);
}

#[test]
fn a_listing_tells_its_age_and_one_that_runs_for_long_is_unknown() {
    let mut world = listed(Some(START - 600), Some(START - 60));
    assert_eq!(world.look_after(60), [""; 0]);
    let evidence = world.evidence(Code::DatastoreListing);
    assert!(
        evidence.starts_with("its 3 groups were looked at "),
        "{evidence}"
    );
    let measure = world.check(Code::DatastoreListing).finding.measure.clone();
    assert_eq!(measure.unwrap().value as i64, 660);
    assert_eq!(world.look_after(HOUR), ["datastore-listing ok>unknown!"]);
}

#[test]
fn a_remote_that_does_not_answer_is_unknown_and_one_hiccup_is_none() {
    let mut world = World::new();
    let dead = RemoteFacts {
        name: "far".to_owned(),
        error: Some("connection refused".to_owned()),
        since: Some(START),
        failures: 1,
        has_answered: false,
    };
    world.facts.remotes = vec![dead.clone()];
    assert_eq!(world.look_after(60), ["remote-unreachable ok>unknown!"]);
    assert!(
        world
            .evidence(Code::RemoteUnreachable)
            .ends_with("connection refused")
    );
    world.facts.remotes = vec![RemoteFacts {
        has_answered: true,
        ..dead.clone()
    }];
    assert_eq!(world.look_after(60), ["remote-unreachable unknown>ok!"]);
    world.facts.remotes[0].failures = 2;
    assert_eq!(world.look_after(60), ["remote-unreachable ok>unknown!"]);
}

#[test]
fn a_memory_that_was_lost_is_a_warning_until_its_file_is_removed() {
    let mut world = World::new();
    let aside = Some("/x/memory.json.unreadable".to_owned());
    world.facts.memory = Some(MemoryFacts { aside });
    assert_eq!(world.look_after(60), ["memory-lost ok>warning!"]);
    world.facts.memory = Some(MemoryFacts::default());
    assert_eq!(world.look_after(60), ["memory-lost warning>ok!"]);
}

#[test]
fn manifests_and_owners_that_cannot_be_read_are_critical() {
    let mut world = World::new();
    world.facts.groups = vec![group(&daily(10), 1 << 30)];
    world.look_after(60);
    world.facts.groups[0].unreadable = vec![START - DAY];
    assert_eq!(world.look_after(60), ["backup-unreadable ok>critical!"]);
    world.facts.groups[0].unreadable.clear();
    world.facts.groups[0].ownerless = Some("it is garbage".to_owned());
    world.look_after(60);
    assert!(
        world
            .evidence(Code::BackupUnreadable)
            .ends_with("it is garbage")
    );
    world.facts.groups[0].ownerless = None;
    assert_eq!(world.look_after(60), ["backup-unreadable critical>ok!"]);
}

#[test]
fn errors_that_reach_nobody_are_a_warning_with_a_remedy() {
    let mut world = World::new();
    world.facts.audience = Some(AudienceFacts {
        reasons: vec!["target 'mail-to-root' is disabled".to_owned()],
        ..AudienceFacts::default()
    });
    assert_eq!(world.look_after(60), ["notification-nobody ok>warning!"]);
    let check = world.check(Code::NotificationNobody);
    assert_eq!(check.finding.object, "notifications/errors");
    assert!(check.finding.evidence.contains("is disabled"));
    assert!(check.finding.remedy.as_ref().unwrap().contains("--email"));
    let reached = vec!["hook".to_owned()];
    world.facts.audience = Some(AudienceFacts {
        reached: reached.clone(),
        ..AudienceFacts::default()
    });
    assert_eq!(world.look_after(60), ["notification-nobody warning>ok!"]);
    // Somebody is told, and somebody else is not.
    world.facts.audience = Some(AudienceFacts {
        reached,
        unheard: vec![UnheardFacts {
            target: "user:ann@pbs".to_owned(),
            count: 2,
            last: world.now,
            reason: "user 'ann@pbs' has no address".to_owned(),
        }],
        ..AudienceFacts::default()
    });
    assert_eq!(world.look_after(60), ["notification-nobody ok>warning!"]);
}
