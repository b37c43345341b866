//! Sync between two real servers, pull and push, and between two datastores of one: what arrives, what is left alone, what is removed,
//! and what a failure costs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod breaks;
mod choices;
mod commands;
mod failures;
mod keys;
mod mounting;
mod network;
mod push;
mod push_dry_run;
mod push_failures;
mod rules;
mod state;
mod vanished;
mod world;

use std::fs;

use serde_json::json;
use world::World;

#[test]
fn a_job_brings_everything_once_and_then_only_what_is_new() {
    let world = World::new();
    world.write("disk", 1, 9);
    world.backup_image("x", 1_700_000_000);
    world.backup_image("other", 1_700_000_000);
    // One group after the other, as the log is to be compared.
    world.add_job("job1", &["--owner", "admin@pbs", "--worker-threads", "1"]);

    let (log, end) = world.run_job("job1");
    assert_eq!(end, "OK", "{log}");
    for line in [
        "Starting datastore sync job 'there:store1:store1::job1'",
        "sync datastore 'store1' from 'there/store1'",
        "Syncing datastore 'store1', root namespace into datastore 'store1', root namespace",
        "Found 2 groups to sync (out of 2 total)",
        "[host/other]: 2023-11-14T22:13:20Z: start sync",
        "[host/other]: 2023-11-14T22:13:20Z/disk.img.fidx: sync archive",
        "[host/other]: percentage done: 50.00% (1/2 groups)",
        "[host/x]: percentage done: 100.00% (2/2 groups)",
        // Both groups have the same content, which is fetched once.
        "in 3 chunks (average rate: ",
        "sync job 'there:store1:store1::job1' end",
    ] {
        assert!(log.contains(line), "no {line:?} in\n{log}");
    }
    assert_eq!(
        world.restored("host/x/2023-11-14T22:13:20Z"),
        world.read("disk")
    );
    let owner = world.api.get("admin/datastore/store1/groups").unwrap();
    assert_eq!(owner[0]["owner"], "admin@pbs");

    let (log, end) = world.run_job("job1");
    assert_eq!(end, "OK", "{log}");
    assert!(
        log.contains("[host/x]: 2023-11-14T22:13:20Z: no data changes"),
        "{log}"
    );
    assert!(
        log.contains("Summary: sync job found no new data to pull"),
        "{log}"
    );

    // One chunk is new; the two others are proven by the last snapshot.
    let mut disk = world.read("disk");
    disk[..1 << 20].fill(7);
    fs::write(world.path("disk"), disk).unwrap();
    world.backup_image("x", 1_700_003_600);
    let (log, end) = world.run_job("job1");
    assert_eq!(end, "OK", "{log}");
    assert!(log.contains("in 1 chunks"), "{log}");
    assert_eq!(
        world.restored("host/x/2023-11-14T23:13:20Z"),
        world.read("disk")
    );
    let verify = world.here.run("manager", &["verify", "store1"]).unwrap();
    testbed::server::succeeded(&verify).unwrap();

    // The state of the job says how it went.
    let jobs = world.api.get("admin/sync").unwrap();
    assert_eq!(jobs[0]["last-run-state"], "OK");
    let state = world
        .here
        .root
        .join("var/lib/proxmox-backup/jobstates/syncjob-job1.json");
    assert!(state.is_file());
    world.manager(&["sync-job", "remove", "job1"]);
    assert!(!state.exists());
    let left = fs::read_dir(world.here.root.join("var/lib/proxmox-backup/sync")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn namespaces_are_mapped_made_and_limited() {
    let world = World::new();
    world.write("disk", 2, 1);
    for ns in ["a", "a/b", "a/b/c", "other"] {
        world
            .there
            .ok("client", &["namespace", "create", ns])
            .unwrap();
        world.backup(&["--backup-id", "x", "--ns", ns], 1_700_000_000);
    }
    let (log, end) = world.pull(json!({"remote-ns": "a", "ns": "m", "max-depth": 1}));
    assert_eq!(end, "OK", "{log}");
    assert!(log.contains("Created namespace m/b"), "{log}");
    assert_eq!(world.namespaces(), ["", "m", "m/b"]);
    assert!(
        log.contains("Finished syncing namespace a/b, current progress: 2 groups, 2 snapshots"),
        "{log}"
    );
    let (log, end) = world.pull(json!({"remote-ns": "a", "ns": "m"}));
    assert_eq!(end, "OK", "{log}");
    assert_eq!(world.namespaces(), ["", "m", "m/b", "m/b/c"]);
    let (log, end) = world.pull(json!({"max-depth": 0}));
    assert_eq!(end, "OK", "{log}");
    assert!(log.contains("Found 0 groups to sync"), "{log}");
    assert!(!log.contains("Finished syncing"), "{log}");
    let (log, end) = world.pull(json!({"remote-ns": "nothing"}));
    assert!(
        end.contains("Querying namespaces failed - "),
        "{end}\n{log}"
    );
    // Deeper than any namespace may be: said before anything is copied.
    for ns in ["1", "1/2", "1/2/3", "1/2/3/4", "1/2/3/4/5"] {
        world
            .here
            .ok("client", &["namespace", "create", ns])
            .unwrap();
    }
    let (log, end) = world.pull(json!({"ns": "1/2/3/4/5"}));
    assert!(
        end.contains("source subtree depth (3) + target depth (5) would exceed max (7)"),
        "{end}\n{log}"
    );
}

#[test]
fn a_datastore_of_the_same_server_is_a_source_too_and_a_schedule_starts_it() {
    let world = World::new();
    world.write("disk", 3, 5);
    let path = world.here.root.join("datastore/copy");
    world.manager(&["datastore", "create", "copy", path.to_str().unwrap()]);
    let spec = format!("disk.img:{}", world.path("disk").display());
    let words = [
        "backup",
        &spec,
        "--backup-id",
        "x",
        "--backup-time",
        "1700000000",
    ];
    world.here.ok("client", &words).unwrap();
    let create = [
        "sync-job",
        "create",
        "local1",
        "--remote-store",
        "store1",
        "--store",
        "copy",
    ];
    world.manager(&[&create[..], &["--schedule", "*:*", "--owner", "admin@pbs"]].concat());
    // Due at the next full minute.
    let jobs = world
        .api
        .wait("admin/sync", |jobs| jobs[0]["last-run-state"].is_string())
        .unwrap();
    assert_eq!(jobs[0]["last-run-state"], "OK");
    let log = world.log(&jobs[0]["last-run-upid"]);
    assert!(log.contains("task triggered by schedule '*:*'"), "{log}");
    assert!(log.contains("sync datastore 'copy' from 'store1'"), "{log}");
    assert!(log.contains("in 2 chunks"), "{log}");
    let restored = world.here.command("client", "copy");
    assert_eq!(
        world.restore_with(restored, "host/x/2023-11-14T22:13:20Z", &[]),
        world.read("disk")
    );
    world.manager(&["sync-job", "update", "local1", "--delete", "schedule"]);
    // Nothing can be copied onto itself.
    let output = world
        .here
        .run(
            "manager",
            &["sync-job", "update", "local1", "--store", "store1"],
        )
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains("source and target datastore can't be the same"),
        "{text}"
    );
    // With the datastore the job goes.
    world.manager(&["datastore", "remove", "store1"]);
    assert_eq!(world.api.get("config/sync").unwrap(), json!([]));
}
