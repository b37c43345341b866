//! Damage here, either server dying in the middle of a push: what is there stays, the error names the snapshot, and the next
//! run goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::api::Api;
use testbed::server::ServerProcess;

use crate::world::{BINARY, World, chunks};

/// How long something may take to come true. Generous: a loaded machine is slow, not broken.
const LIMIT: Duration = Duration::from_secs(120);

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

/// A snapshot that the other server has, and one of three archives that is on its way there, slowly.
fn halfway() -> (World, Value) {
    let world = World::new();
    world.write("disk", 13, 8);
    world.backup_here(&["--backup-id", "x"], 1_700_000_000);
    let (log, end) = world.push(json!({}));
    assert_eq!(end, "OK", "{log}");
    let mut words = vec!["backup".to_owned()];
    for (number, archive) in ["a", "b", "c"].into_iter().enumerate() {
        world.write(archive, 20 + number as u64, 8);
        words.push(format!("{archive}.img:{}", world.path(archive).display()));
    }
    let options = ["--backup-id", "x", "--backup-time", "1700000001"];
    words.extend(options.map(str::to_owned));
    world.here.ok("client", &words).unwrap();
    let store = world.there.root.join("datastore/store1");
    let before = chunks(&store).len();
    let upid = world.begin_push(json!({"rate-out": "1MiB", "burst-out": "1MiB"}));
    let start = Instant::now();
    while chunks(&store).len() < before + 2 {
        assert!(
            start.elapsed() < LIMIT,
            "nothing arrives:\n{}",
            world.log(&upid)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    (world, upid)
}

fn restarted(server: &ServerProcess) -> ServerProcess {
    let root = server.root.clone();
    ServerProcess::start(Path::new(BINARY), &root, ([127, 0, 0, 1], 0).into()).unwrap()
}

fn completes(world: &World) {
    let (log, end) = world.push(json!({}));
    assert_eq!(end, "OK", "{log}");
    assert_eq!(
        world.snapshots_there(""),
        ["host/x/1700000000", "host/x/1700000001"]
    );
    for archive in ["a", "b", "c"] {
        let name = format!("{archive}.img");
        let restore = ["restore", "host/x/2023-11-14T22:13:21Z", &name, "-"];
        let output = world.there.run("client", &restore).unwrap();
        assert!(output.stdout == world.read(archive), "{archive}");
    }
    assert!(world.restored_there("host/x/2023-11-14T22:13:20Z", &[]) == world.read("disk"));
}

#[test]
fn a_target_that_dies_keeps_what_it_had_and_the_next_push_completes() {
    let (mut world, upid) = halfway();
    world.there.kill().unwrap();
    let (log, end) = world.ended(&upid);
    assert!(
        end.contains("sync group host/x failed - snapshot host/x/2023-11-14T22:13:21Z: "),
        "{end}\n{log}"
    );
    world.there = restarted(&world.there);
    let port = world.port();
    world.manager(&["remote", "update", "there", "--port", &port]);
    // What was incomplete is gone once the server has tidied, or at the latest when the snapshot is written again.
    completes(&world);
}

#[test]
fn a_source_that_dies_leaves_nothing_incomplete_and_the_next_push_completes() {
    let (mut world, _) = halfway();
    world.here.kill().unwrap();
    // The other server sees the end of the connection, and removes what is incomplete.
    let there = world.there_api();
    let listed = there.wait("admin/datastore/store1/snapshots", |list| {
        list.as_array().is_some_and(|list| list.len() == 1)
    });
    assert_eq!(listed.unwrap()[0]["backup-time"], 1_700_000_000);
    world.here = restarted(&world.here);
    world.api = Api::connect(&world.here).unwrap();
    completes(&world);
}
