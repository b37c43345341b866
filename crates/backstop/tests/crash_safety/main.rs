//! Processes are killed at random moments of every kind of write. After each restart every finished snapshot restores bit
//! for bit, nothing half-written is listed, no lock is held, and in the end a garbage collection leaves no garbage.
//!
//! Each test prints its seed; `CRASH_SEED=n cargo test …` repeats the same contents and moments.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod configuration;
mod full_disk;
mod world;

use std::collections::BTreeSet;

use world::World;

#[test]
fn a_server_killed_during_backups_keeps_what_it_has_said_is_finished() {
    let mut world = World::new("backup");
    let (name, mut command) = world.backup("host/x");
    let usual = world.measure(&mut command);
    world.finished.insert(name);
    for cycle in 0..50 {
        let (name, command) = world.backup(if cycle % 3 == 0 { "host/y" } else { "host/x" });
        let output = world.interrupt(command, usual);
        if output.status.success() {
            world.finished.insert(name.clone());
        }
        let listed = world.check();
        // The answer may have been lost on its way, but then the snapshot is whole.
        let mut wanted = world.finished.clone();
        wanted.extend(listed.contains(&name).then_some(name));
        assert_eq!(listed, wanted);
        world.finished = listed;
        world.check_one_restore();
    }
    world.check_no_garbage_stays();
    assert_eq!(world.kills, 50);
}

#[test]
fn a_server_killed_during_pruning_removes_snapshots_wholly_or_not_at_all() {
    let mut world = World::new("prune");
    let prune = |world: &World| {
        let mut command = world.server.command("client", "store1");
        command.args(["prune", "host/x", "--keep-last", "2"]);
        command
    };
    (0..14).for_each(|_| drop(world.put_snapshot("host/x")));
    let usual = world.measure(&mut prune(&world));
    for _ in 0..50 {
        while world.finished.len() < 14 {
            world.put_snapshot("host/x");
        }
        let newest: BTreeSet<String> = world.finished.iter().rev().take(2).cloned().collect();
        let before = std::mem::replace(&mut world.finished, newest.clone());
        let command = prune(&world);
        let output = world.interrupt(command, usual);
        let listed = world.check();
        assert!(listed.is_subset(&before), "{listed:?}");
        if output.status.success() {
            assert_eq!(listed, newest);
        }
        world.finished = listed;
        world.check_one_restore();
    }
    world.check_no_garbage_stays();
    assert_eq!(world.kills, 50);
}

#[test]
fn a_server_killed_during_garbage_collection_loses_no_chunk_that_is_needed() {
    let mut world = World::new("garbage collection");
    let collect = |world: &World| {
        let mut command = world.server.command("manager", "store1");
        command.args(["garbage-collection", "start", "store1"]);
        command
    };
    (0..4).for_each(|_| drop(world.put_snapshot("host/x")));
    world.put_garbage(300);
    world.age_chunks();
    let usual = world.measure(&mut collect(&world));
    for _ in 0..50 {
        world.put_snapshot("host/x");
        let oldest = world.finished.first().unwrap().clone();
        world
            .server
            .ok("client", &["snapshot", "forget", &oldest])
            .unwrap();
        world.finished.remove(&oldest);
        world.put_garbage(300);
        world.age_chunks();
        let command = collect(&world);
        world.interrupt(command, usual);
        let listed = world.check();
        assert_eq!(listed, world.finished);
        world.check_one_restore();
    }
    world.check_no_garbage_stays();
    assert_eq!(world.kills, 50);
}

#[test]
fn a_server_killed_during_verification_damages_nothing() {
    let mut world = World::new("verify");
    let verify = |world: &World| {
        let mut command = world.server.command("manager", "store1");
        command.args(["verify", "store1", "--ignore-verified", "false"]);
        command
    };
    (0..12).for_each(|_| drop(world.put_snapshot("host/x")));
    let noted = world.finished.first().unwrap().clone();
    let update = |world: &World, text: &str| {
        let mut command = world.server.command("client", "store1");
        command.args(["snapshot", "notes", "update", &noted, text]);
        command
    };
    let note_time = world.measure(&mut update(&world, "first"));
    let usual = world.measure(&mut verify(&world));
    let mut note = "first".to_owned();
    for cycle in 0..40 {
        let next = format!("note {cycle}");
        let output = if cycle % 2 == 0 {
            let command = verify(&world);
            world.interrupt(command, usual)
        } else {
            let command = update(&world, &next);
            world.interrupt(command, note_time)
        };
        assert_eq!(world.check(), world.finished);
        let shown = world
            .server
            .ok("client", &["snapshot", "notes", "show", &noted])
            .unwrap();
        let shown = shown.trim_end().trim_start_matches("Notes: ").to_owned();
        if cycle % 2 == 1 && (output.status.success() || shown == next) {
            note = next;
        }
        assert_eq!(shown, note);
        world.check_one_restore();
    }
    succeed(&world, &["verify", "store1", "--ignore-verified", "false"]);
    world.check_no_garbage_stays();
    assert_eq!(world.kills, 40);
}

fn succeed(world: &World, words: &[&str]) {
    world.server.ok("manager", words).unwrap();
}
