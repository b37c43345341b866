//! What is lost is loud until it is back or acknowledged; what somebody removes is nothing.

use super::*;

/// A server with one datastore and a group that is backed up each day, and its memory of what is gone.
struct Place {
    world: World,
    absences: Absences,
}

fn datastore(at: i64) -> DatastoreFacts {
    DatastoreFacts {
        name: "store1".to_owned(),
        looked: true,
        listing: Some(ListingFacts {
            at: Some(at),
            groups: 1,
            running: None,
        }),
        ..DatastoreFacts::default()
    }
}

impl Place {
    fn new() -> Self {
        let mut world = World::new();
        let mut vm = group(&daily(10), 1 << 30);
        vm.snapshots = 10;
        world.facts.groups = vec![vm];
        world.facts.datastores = vec![datastore(START)];
        world.facts.listed = ["store1".to_owned()].into();
        world.learnt.first_seen("store1", START);
        let mut place = Self {
            world,
            absences: Absences::default(),
        };
        assert_eq!(place.look(60), [""; 0]);
        place
    }

    /// Looks after some seconds, at a listing of now.
    fn look(&mut self, seconds: i64) -> Vec<String> {
        let world = &mut self.world;
        let now = world.now + seconds;
        for datastore in &mut world.facts.datastores {
            if let Some(listing) = &mut datastore.listing {
                listing.at = Some(now);
            }
        }
        world.facts.gone.clear();
        // It survives a restart at any time.
        let text = serde_json::to_string(&self.absences).unwrap();
        self.absences = serde_json::from_str(&text).unwrap();
        self.absences
            .observe(&mut world.facts, &world.learnt, true, now);
        let told = world.look_after(seconds);
        let there: Vec<String> = world.facts.groups.iter().map(GroupFacts::object).collect();
        let stores: Vec<String> = world
            .facts
            .datastores
            .iter()
            .map(|datastore| format!("datastore/{}", datastore.name))
            .collect();
        let absences = &self.absences;
        world.learnt.retain(|object| {
            there.iter().chain(&stores).any(|known| known == object) || absences.holds(object)
        });
        for object in self.absences.settle(&world.last.checks, now) {
            world.ledger.forget(Code::BackupGone, &object);
        }
        told.into_iter()
            .filter(|told| told.starts_with("backup-gone"))
            .collect()
    }

    fn note(&mut self, object: &str) {
        self.absences.note([object.to_owned()], self.world.now);
    }
}

const VM: &str = "group/store1/vm/100";

#[test]
fn a_group_that_vanishes_is_loud_until_it_is_back() {
    let mut place = Place::new();
    let vm = place.world.facts.groups.pop().unwrap();
    assert_eq!(place.look(60), ["backup-gone ok>critical!"]);
    assert_eq!(place.look(DAY * 30), [""; 0]);
    let check = place.world.check(Code::BackupGone);
    assert_eq!(check.finding.object, VM);
    assert!(check.is_loud());
    place.world.facts.groups.push(vm);
    assert_eq!(place.look(60), ["backup-gone critical>ok!"]);
    assert_eq!(place.world.evidence(Code::BackupGone), "it is there again");
}

#[test]
fn a_group_that_vanishes_is_loud_until_somebody_knows_of_it_and_is_forgotten_then_without_a_word() {
    let mut place = Place::new();
    place.world.facts.groups.clear();
    place.look(60);
    let now = place.world.now;
    let known = place
        .world
        .ledger
        .acknowledge(Code::BackupGone, VM, "ann@pbs", "", None, now);
    known.unwrap();
    assert_eq!(place.look(60), [""; 0]);
    assert!(!place.world.check(Code::BackupGone).is_loud());
    assert_eq!(place.look(DAY), [""; 0]);
    assert_eq!(place.look(60), [""; 0]);
    let mut checks = place.world.last.checks.iter();
    assert!(checks.all(|check| check.finding.code != Code::BackupGone));
}

#[test]
fn a_group_that_somebody_removes_is_no_trouble() {
    let mut place = Place::new();
    place.note(VM);
    // The listing is older than the removal.
    assert_eq!(place.look(0), [""; 0]);
    place.world.facts.groups.clear();
    assert_eq!(place.look(60), [""; 0]);
    assert_eq!(place.look(DAY), [""; 0]);
}

#[test]
fn a_removal_that_failed_excuses_no_later_loss() {
    let mut place = Place::new();
    place.note(VM);
    assert_eq!(place.look(60), [""; 0]);
    place.world.facts.groups.clear();
    assert_eq!(place.look(60), ["backup-gone ok>critical!"]);
}

#[test]
fn a_group_without_snapshots_is_gone_when_it_stays_so() {
    let mut place = Place::new();
    let vm = &mut place.world.facts.groups[0];
    vm.newest.clear();
    vm.snapshots = 0;
    assert_eq!(place.look(60), [""; 0]);
    assert_eq!(place.look(600), ["backup-gone ok>critical!"]);
}

#[test]
fn what_is_not_listed_is_not_gone() {
    let mut place = Place::new();
    place.world.facts.groups.clear();
    place.world.facts.listed.clear();
    place.world.held = vec![Held {
        prefix: "group/store1/".to_owned(),
        reason: "no answer".to_owned(),
    }];
    let (facts, learnt) = (&mut place.world.facts, &place.world.learnt);
    place.absences.observe(facts, learnt, true, START + 120);
    assert_eq!(facts.gone, []);
}

#[test]
fn a_datastore_that_vanishes_from_the_configuration_is_loud_and_one_that_is_removed_is_not() {
    let mut place = Place::new();
    let facts = &mut place.world.facts;
    facts.groups.clear();
    facts.listed.clear();
    let store = facts.datastores.pop().unwrap();
    assert_eq!(place.look(60), ["backup-gone ok>critical!"]);
    let check = place.world.check(Code::BackupGone);
    assert_eq!(check.finding.object, "datastore/store1");
    assert_eq!(place.absences.datastores_gone().count(), 1);
    // What was learnt of its groups is still known.
    assert_eq!(place.world.learnt.backups(VM).len(), 10);
    place.world.facts.datastores.push(store);
    assert_eq!(place.look(60), ["backup-gone critical>ok!"]);
    let mut place = Place::new();
    place.note("datastore/store1");
    place.world.facts.groups.clear();
    place.world.facts.listed.clear();
    place.world.facts.datastores.clear();
    assert_eq!(place.look(60), [""; 0]);
    assert_eq!(place.world.learnt.datastores().count(), 0);
    assert_eq!(place.look(60), [""; 0]);
}

#[test]
fn what_is_remembered_of_losses_and_removals_is_bounded() {
    let mut place = Place::new();
    let one = place.world.facts.groups[0].clone();
    let many = (0..3000).map(|id| GroupFacts {
        group: format!("vm/{id}"),
        newest: one.newest[..1].to_vec(),
        ..one.clone()
    });
    place.world.facts.groups = many.collect();
    place.note(VM);
    place.look(60);
    place.world.facts.groups.clear();
    place.look(60);
    let gone = &place.world.facts.gone;
    let named = gone.iter().filter(|gone| gone.more == 0).count();
    let more: u64 = gone.iter().map(|gone| gone.more).sum();
    assert_eq!((named, more), (1000, 2000));
    place.look(60);
    let more: u64 = place.world.facts.gone.iter().map(|gone| gone.more).sum();
    assert_eq!(more, 2000);
    let noted = (0..50_000).map(|id| format!("group/store1/vm/{id}"));
    place.absences.note(noted, START);
    assert!(serde_json::to_string(&place.absences).unwrap().len() < 2_000_000);
}
