//! Damage here, a line that breaks, either server dying in the middle of a push, a full target: what is there stays, the error
//! names the snapshot, and the next run goes on.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use testbed::link::{Link, LinkSpec};
use testbed::waiting_backup::WaitingBackup;

use crate::breaks::{below, random};
use crate::failures::SmallDisk;
use crate::world::{World, chunks};

#[test]
fn a_damaged_chunk_is_never_sent_its_snapshot_is_named_and_the_next_ones_arrive() {
    let world = World::new();
    let backup = |seed: u64, time: i64| {
        let before = world.chunks_here();
        world.write("disk", seed, 1);
        world.backup_here(&["--backup-id", "x"], time);
        let new = world.chunks_here().into_iter();
        let new: Vec<PathBuf> = new.filter(|chunk| !before.contains(chunk)).collect();
        new[0].clone()
    };
    backup(10, 1_700_000_000);
    let second = backup(11, 1_700_000_001);
    backup(12, 1_700_000_002);
    let sound = fs::read(&second).unwrap();
    let mut damaged = sound.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&second, damaged).unwrap();

    let (log, end) = world.push(json!({}));
    assert!(end.starts_with("sync failed with some errors."), "{end}");
    let line = "sync snapshot host/x/2023-11-14T22:13:21Z failed - archive disk.img.fidx: chunk ";
    assert!(log.contains(line), "{log}");
    assert!(end.contains("host/x/2023-11-14T22:13:21Z"), "{end}");
    let arrived = ["host/x/1700000000", "host/x/1700000002"];
    assert_eq!(world.snapshots_there(""), arrived);
    let name = second.file_name().unwrap();
    let there = chunks(&world.there.root.join("datastore/store1"));
    assert!(there.iter().all(|chunk| chunk.file_name() != Some(name)));
    // It cannot be added any more, which each run says.
    fs::write(&second, sound).unwrap();
    let (log, end) = world.push(json!({}));
    assert_eq!(end, "WARNINGS: 1", "{log}");
    let line = "snapshot host/x/2023-11-14T22:13:21Z could not be sent by an earlier run";
    assert!(log.contains(line), "{log}");
    assert_eq!(world.snapshots_there(""), arrived);
    let words = ["snapshot", "forget", "host/x/2023-11-14T22:13:21Z"];
    world.here.ok("client", &words).unwrap();
    let (log, end) = world.push(json!({}));
    assert_eq!(end, "OK", "{log}");
}

/// Plain size of a chunk.
const CHUNK: u64 = 4 << 20;
/// Chunks of the second snapshot, all of them new.
const CHUNKS: u64 = 6;
/// Less than what is sent in any case, from the login to the last chunk.
const SENT: u64 = CHUNKS * CHUNK;

const FIRST: &str = "host/x/1700000000";
const SECOND: &str = "host/x/1700000001";
const FIRST_NAME: &str = "host/x/2023-11-14T22:13:20Z";
const SECOND_NAME: &str = "host/x/2023-11-14T22:13:21Z";

/// A snapshot that the other server has, and one of three archives that is to go there over a line.
fn world() -> (World, Link) {
    let world = World::new();
    prepare(&world);
    let link = world.line(LinkSpec::default());
    (world, link)
}

fn prepare(world: &World) {
    world.write("disk", 13, 8);
    world.backup_here(&["--backup-id", "x"], 1_700_000_000);
    world.add_job(
        "job1",
        &["--sync-direction", "push", "--owner", "admin@pbs"],
    );
    let (log, end) = world.run_job("job1");
    assert_eq!(end, "OK", "{log}");
    let mut words = vec!["backup".to_owned()];
    for (number, archive) in ["a", "b", "c"].into_iter().enumerate() {
        world.write(archive, 20 + number as u64, 8);
        words.push(format!("{archive}.img:{}", world.path(archive).display()));
    }
    let options = ["--backup-id", "x", "--backup-time", "1700000001"];
    words.extend(options.map(str::to_owned));
    world.here.ok("client", &words).unwrap();
}

/// The whole snapshots of the other server.
fn whole(world: &World) -> Vec<i64> {
    let list = world.there_api().get("admin/datastore/store1/snapshots");
    let list = list.unwrap();
    let whole = list.as_array().unwrap().iter();
    let whole = whole.filter(|item| item["size"].is_u64());
    let mut whole: Vec<i64> = whole
        .map(|item| item["backup-time"].as_i64().unwrap())
        .collect();
    whole.sort_unstable();
    whole
}

/// The next run sends it; then all is as it is here.
fn completes(world: &World) {
    let (log, end) = world.run_job("job1");
    assert_eq!(end, "OK", "{log}");
    assert_eq!(world.snapshots_there(""), [FIRST, SECOND]);
    for archive in ["a", "b", "c"] {
        let name = format!("{archive}.img");
        let restore = ["restore", SECOND_NAME, &name, "-"];
        let output = world.there.run("client", &restore).unwrap();
        assert!(output.stdout == world.read(archive), "{archive}");
    }
    assert!(world.restored_there(FIRST_NAME, &[]) == world.read("disk"));
    let verify = ["verify", "store1", "--ignore-verified", "false"];
    world.there.ok("manager", &verify).unwrap();
}

#[test]
fn a_line_that_breaks_at_any_byte_of_a_push_leaves_nothing_half_and_is_an_error_that_names_the_snapshot()
 {
    let (world, link) = world();
    let mut random = random("broken pushes");
    for _ in 0..4 {
        // From before the login to the last chunk.
        link.cut_after_sent(below(&mut random, SENT));
        let (log, end) = world.run_job("job1");
        assert!(link.is_cut(), "{log}");
        let named = end.contains(&format!("snapshot {SECOND_NAME}: "));
        // Before the session begins, there is no snapshot to name.
        assert!(
            end != "OK" && (named || !log.contains("start sync")),
            "{end}\n{log}"
        );
        link.mend();
        assert_eq!(whole(&world), [1_700_000_000]);
    }
    completes(&world);
}

#[test]
fn a_target_that_is_killed_at_any_moment_of_a_push_keeps_what_it_had() {
    let (mut world, link) = world();
    let mut random = random("killed targets of pushes");
    for _ in 0..3 {
        link.stop_after_sent(below(&mut random, SENT));
        let upid = world.api.post("admin/sync/job1/run", json!({})).unwrap();
        link.wait_until_stopped().unwrap();
        world.restart_there();
        link.lead_to(world.there.address);
        link.cut();
        let (log, end) = world.ended(&upid);
        let named = end.contains(&format!("snapshot {SECOND_NAME}: "));
        assert!(
            end != "OK" && (named || !log.contains("start sync")),
            "{end}\n{log}"
        );
        link.mend();
        assert_eq!(whole(&world), [1_700_000_000]);
    }
    completes(&world);
}

#[test]
fn a_server_that_is_killed_at_any_moment_of_its_push_leaves_nothing_half_and_goes_on() {
    let (mut world, link) = world();
    let mut random = random("killed sources of pushes");
    for round in 1..=3 {
        link.stop_after_sent(below(&mut random, SENT));
        world.api.post("admin/sync/job1/run", json!({})).unwrap();
        link.wait_until_stopped().unwrap();
        world.restart_here();
        link.mend();
        assert_eq!(whole(&world), [1_700_000_000]);
        let jobs = world
            .api
            .client
            .get("admin/sync", json!({"sync-direction": "push"}));
        let jobs = world.api.runtime.block_on(jobs).unwrap();
        assert_eq!(jobs[0]["backstop"]["failures"], round, "{jobs}");
        // The other server sees the end of the connection, and gives the group free.
        let there = world.there_api();
        let is_tidy = |list: &Value| list.as_array().is_some_and(|list| list.len() == 1);
        there
            .wait("admin/datastore/store1/snapshots", is_tidy)
            .unwrap();
    }
    completes(&world);
}

#[test]
fn what_comes_and_goes_here_during_a_push_is_no_failure() {
    let (world, link) = world();
    world.backup_here(&["--backup-id", "x"], 1_700_000_002);
    // A login, the lists and the first chunks.
    link.stop_after_sent(CHUNK);
    let upid = world.api.post("admin/sync/job1/run", json!({})).unwrap();
    link.wait_until_stopped().unwrap();
    // What is on its way is kept until it has arrived; what has not begun may go, and new ones may come.
    let forget = |snapshot: &str| {
        world
            .here
            .run("client", &["snapshot", "forget", snapshot])
            .unwrap()
    };
    assert!(!forget(SECOND_NAME).status.success());
    assert!(forget("host/x/2023-11-14T22:13:22Z").status.success());
    world.backup_here(&["--backup-id", "x"], 1_700_000_003);
    world.backup_here(&["--backup-id", "y"], 1_700_000_000);
    link.go_on();
    let (log, end) = world.ended(&upid);
    assert_eq!(end, "OK", "{log}");
    let line = "2023-11-14T22:13:22Z: skipped because vanished since start of sync";
    assert!(log.contains(line), "{log}");
    assert_eq!(world.snapshots_there(""), [FIRST, SECOND]);
    let (log, end) = world.run_job("job1");
    assert_eq!(end, "OK", "{log}");
    let all = [FIRST, SECOND, "host/x/1700000003", "host/y/1700000000"];
    assert_eq!(world.snapshots_there(""), all);
}

#[test]
fn a_full_target_of_a_push_keeps_what_it_has_and_takes_the_rest_when_there_is_room() {
    let scratch = testbed::scratch::directory().unwrap();
    let Some(disk) = SmallDisk::mount(&scratch.path().join("there/datastore")) else {
        println!("skipped: a small file system cannot be mounted here");
        return;
    };
    let world = World::in_directory(scratch);
    prepare(&world);
    let ballast = disk.0.join("ballast");
    fs::write(&ballast, vec![1; 30 << 20]).unwrap();
    let (log, end) = world.run_job("job1");
    assert!(
        end.contains(&format!("snapshot {SECOND_NAME}: ")),
        "{end}\n{log}"
    );
    assert!(end.contains("No space left on device"), "{end}");
    assert_eq!(whole(&world), [1_700_000_000]);
    assert!(world.restored_there(FIRST_NAME, &[]) == world.read("disk"));
    fs::remove_file(&ballast).unwrap();
    completes(&world);
    // Before the directory that it lies in.
    drop(disk);
}

#[test]
fn a_group_that_is_in_use_at_the_target_is_waited_for() {
    let world = World::new();
    world.write("disk", 16, 1);
    world.backup_here(&["--backup-id", "y"], 1_700_000_000);
    let mut busy = WaitingBackup::begin(&world.there, "store1", "y", &world.path("pipe")).unwrap();
    busy.feed(&vec![7; 5 << 20]).unwrap();
    let there = world.there_api();
    let is_there = |list: &Value| list.as_array().unwrap().len() == 1;
    there
        .wait("admin/datastore/store1/groups", is_there)
        .unwrap();
    let upid = world.begin_push(json!({}));
    let path = format!("nodes/localhost/tasks/{}/log", upid.as_str().unwrap());
    let waits = |log: &Value| {
        log.to_string()
            .contains("something else works on this group at the target")
    };
    world.api.wait(&path, waits).unwrap();
    // A client that dies leaves nothing.
    drop(busy);
    let (log, end) = world.ended(&upid);
    assert_eq!(end, "OK", "{log}");
    assert_eq!(world.snapshots_there(""), ["host/y/1700000000"]);
}
