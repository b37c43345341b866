//! Backups that vanish, and backups that are there and cannot be read.

use std::fs;

use serde_json::json;

use super::world::{World, now};

impl World {
    /// A server that knows of some groups.
    fn with_groups(ids: &[&str]) -> Self {
        let world = Self::new();
        for id in ids {
            world.back_up(id, now());
        }
        for id in ids {
            world.wait_for_object("backup-stale", &format!("group/store1/host/{id}"), "ok");
        }
        world
    }
}

#[test]
fn a_group_that_vanishes_is_critical_until_it_is_back_or_acknowledged() {
    let mut world = World::with_groups(&["h1", "h2"]);
    let (group, aside) = (
        world.datastore().join("host/h1"),
        world.dir.path().join("h1"),
    );
    fs::rename(&group, &aside).unwrap();
    let check = world.wait_for("backup-gone", "critical");
    assert_eq!(check["object"], "group/store1/host/h1");
    assert_eq!(world.plugin("backup-gone").0, 2);
    // A restart does not forget it.
    world.restart_after(|_| {});
    world.wait_for("backup-gone", "critical");
    fs::rename(&aside, &group).unwrap();
    let check = world.wait_for("backup-gone", "ok");
    assert_eq!(check["recovered"]["from"], "critical");
    // One that vanishes while no server runs.
    world.restart_after(|root| fs::remove_dir_all(root.join("datastore/store1/host/h2")).unwrap());
    world.wait_for_object("backup-gone", "group/store1/host/h2", "critical");
    world.tell(&["acknowledge", "backup-gone", "group/store1/host/h2"]);
    world.wait_for_exit("backup-gone", 0);
}

#[test]
fn what_somebody_removes_or_moves_is_no_loss() {
    let mut world = World::with_groups(&["h1", "h2", "h3", "h4"]);
    let store = "admin/datastore/store1";
    world
        .api
        .delete(
            &format!("{store}/groups"),
            json!({"backup-type": "host", "backup-id": "h1"}),
        )
        .unwrap();
    // The last snapshot of a group.
    let listed = world
        .api
        .get(&format!("{store}/snapshots?backup-type=host&backup-id=h2"))
        .unwrap();
    let time = &listed[0]["backup-time"];
    let snapshot = json!({"backup-type": "host", "backup-id": "h2", "backup-time": time});
    world
        .api
        .delete(&format!("{store}/snapshots"), snapshot)
        .unwrap();
    world
        .api
        .post(&format!("{store}/namespace"), json!({"name": "a"}))
        .unwrap();
    let moved = json!({"backup-type": "host", "backup-id": "h3", "target-ns": "a"});
    let upid = world
        .api
        .post(&format!("{store}/move-group"), moved)
        .unwrap();
    assert_eq!(world.api.end_of(&upid).unwrap(), "OK");
    world.wait_for_object("backup-stale", "group/store1/ns/a/host/h3", "ok");
    // The server may end right after a removal.
    world
        .api
        .delete(
            &format!("{store}/groups"),
            json!({"backup-type": "host", "backup-id": "h4"}),
        )
        .unwrap();
    world.restart_after(|_| {});
    world.wait_for_object("backup-stale", "group/store1/ns/a/host/h3", "ok");
    assert_eq!(world.checks("backup-gone"), [json!(null); 0]);
}

#[test]
fn a_datastore_that_vanishes_from_the_configuration_is_critical_and_one_that_is_removed_is_not() {
    let world = World::with_groups(&["h1"]);
    let file = world.etc().join("datastore.cfg");
    let before = fs::read(&file).unwrap();
    fs::write(&file, "").unwrap();
    let check = world.wait_for("backup-gone", "critical");
    assert_eq!(check["object"], "datastore/store1");
    fs::write(&file, before).unwrap();
    world.wait_for("backup-gone", "ok");
    world.wait_for("backup-stale", "ok");
    world
        .server
        .ok("manager", &["datastore", "remove", "store1"])
        .unwrap();
    world.wait_for_exit("backup-gone", 0);
    assert_eq!(world.check("backup-gone")["state"], "ok");
}

#[test]
fn a_manifest_or_an_owner_that_cannot_be_read_is_critical() {
    let world = World::with_groups(&["h1"]);
    let group = world.datastore().join("host/h1");
    let mut entries = fs::read_dir(&group)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let snapshot = entries.find(|path| path.is_dir()).unwrap();
    for file in [snapshot.join("index.json.blob"), group.join("owner")] {
        let before = fs::read(&file).unwrap();
        fs::write(&file, "garbage").unwrap();
        let check = world.wait_for("backup-unreadable", "critical");
        assert_eq!(check["object"], "group/store1/host/h1");
        fs::write(&file, before).unwrap();
        world.wait_for("backup-unreadable", "ok");
    }
}
