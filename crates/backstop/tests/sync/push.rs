//! Push: what arrives at the other server, to whom it belongs there, what is left alone, what is removed.

use std::fs;

use serde_json::{Value, json};
use testbed::api::Api;

use crate::world::World;

fn lines(log: &str, wanted: &[&str]) {
    for line in wanted {
        assert!(log.contains(line), "no {line:?} in\n{log}");
    }
}

#[test]
fn a_push_brings_everything_once_and_then_only_what_is_new() {
    let world = World::new();
    world.write("disk", 1, 9);
    for id in ["x", "other"] {
        world.backup_here(&["--backup-id", id], 1_700_000_000);
    }
    let first = "host/x/2023-11-14T22:13:20Z";
    let client = |words: &[&str]| world.here.ok("client", words).unwrap();
    client(&[
        "snapshot",
        "notes",
        "update",
        first,
        "kept for the auditors",
    ]);
    fs::write(world.path("log"), "what the client said").unwrap();
    let log_file = world.path("log");
    client(&["snapshot", "upload-log", first, log_file.to_str().unwrap()]);
    world.manager(&["verify", "store1"]);
    // One group after the other, as the log is to be compared.
    let options = ["--sync-direction", "push", "--owner", "admin@pbs"];
    world.add_job("job1", &[&options[..], &["--worker-threads", "1"]].concat());

    let (log, end) = world.run_job("job1");
    assert_eq!(end, "OK", "{log}");
    lines(
        &log,
        &[
            "Starting datastore sync job 'there:store1:store1::job1'",
            "sync datastore 'store1' to 'there/store1'",
            "Syncing datastore 'store1', root namespace into datastore 'store1', root namespace",
            "Found 2 groups to sync (out of 2 total)",
            "[host/other]: 2023-11-14T22:13:20Z: start sync",
            "[host/other]: 2023-11-14T22:13:20Z: sync archive disk.img.fidx",
            "[host/other]: 2023-11-14T22:13:20Z/disk.img.fidx: uploaded ",
            "[host/other]: percentage done: 50.00% (1/2 groups)",
            "[host/x]: 2023-11-14T22:13:20Z: sync done",
            "[host/x]: percentage done: 100.00% (2/2 groups)",
            "Summary: sync job pushed ",
            "in 6 chunks (average rate: ",
            "sync job 'there:store1:store1::job1' end",
        ],
    );
    assert!(world.restored_there(first, &[]) == world.read("disk"));
    let there = world.there_api();
    let groups = there.get("admin/datastore/store1/groups").unwrap();
    assert_eq!(groups[1]["owner"], "admin@pbs");
    let listed = there.get("admin/datastore/store1/snapshots").unwrap();
    let of_x = |item: &&Value| item["backup-id"] == "x";
    let item = listed.as_array().unwrap().iter().find(of_x).unwrap();
    assert_eq!(item["comment"], "kept for the auditors");
    // Nobody has verified the copy.
    assert!(item["verification"].is_null(), "{item}");
    let logs = |root: &std::path::Path| {
        let path = root.join("datastore/store1").join(first);
        fs::read(path.join("client.log.blob")).unwrap()
    };
    assert_eq!(logs(&world.there.root), logs(&world.here.root));

    let (log, end) = world.run_job("job1");
    assert_eq!(end, "OK", "{log}");
    lines(
        &log,
        &[
            "[host/x]: skipped: 1 snapshot(s) (2023-11-14T22:13:20Z) - older than the newest snapshot present on sync target",
            "Summary: sync job found no new data to push",
        ],
    );

    // One chunk is new; the two others are those of the snapshot before.
    let mut disk = world.read("disk");
    disk[..1 << 20].fill(7);
    fs::write(world.path("disk"), disk).unwrap();
    world.backup_here(&["--backup-id", "x"], 1_700_003_600);
    let (log, end) = world.run_job("job1");
    assert_eq!(end, "OK", "{log}");
    lines(&log, &["in 1 chunks"]);
    assert!(world.restored_there("host/x/2023-11-14T23:13:20Z", &[]) == world.read("disk"));
    let verify = world.there.run("manager", &["verify", "store1"]).unwrap();
    testbed::server::succeeded(&verify).unwrap();

    let jobs = world
        .api
        .client
        .get("admin/sync", json!({"sync-direction": "push"}));
    let jobs = world.api.runtime.block_on(jobs).unwrap();
    assert_eq!(jobs[0]["last-run-state"], "OK");
    // The command does the same once.
    let text = world.manager(&["push", "store1", "there", "store1", "--worker-threads", "2"]);
    lines(
        &text,
        &[
            "push datastore 'store1' to 'there/store1'",
            "no new data to push",
        ],
    );
}

#[test]
fn a_pushed_group_can_be_filtered_limited_and_mapped_to_namespaces() {
    let world = World::new();
    world.write("disk", 2, 1);
    for ns in ["a", "a/b", "a/b/c", "other"] {
        world
            .here
            .ok("client", &["namespace", "create", ns])
            .unwrap();
        world.backup_here(&["--backup-id", "x", "--ns", ns], 1_700_000_000);
    }
    let (log, end) = world.push(json!({"ns": "a", "remote-ns": "m/n", "max-depth": 1}));
    assert_eq!(end, "OK", "{log}");
    lines(
        &log,
        &[
            "Successfully created new namespace m on remote",
            "Successfully created new namespace m/n/b on remote",
            "Finished syncing namespace a/b, current progress: 2 groups, 2 snapshots",
        ],
    );
    let there = world.there_api();
    let namespaces = || {
        let list = there.get("admin/datastore/store1/namespace").unwrap();
        let list = list.as_array().unwrap().iter();
        list.map(|item| item["ns"].as_str().unwrap().to_owned())
            .collect::<Vec<String>>()
    };
    assert_eq!(namespaces(), ["", "m", "m/n", "m/n/b"]);
    let (_, end) = world.push(json!({"ns": "a", "remote-ns": "1/2/3/4/5/6"}));
    assert!(
        end.contains("source subtree depth (2) + target depth (6) would exceed max (7)"),
        "{end}"
    );
    let (_, end) = world.push(json!({"ns": "nothing"}));
    assert!(end.contains("namespace"), "{end}");

    let key = world.path("key.json");
    let key = key.to_str().unwrap();
    world
        .here
        .ok("client", &["key", "create", key, "--kdf", "none"])
        .unwrap();
    let old = ["--backup-id", "y"];
    world.backup_here(&old, 1_700_000_000);
    world.backup_here(&old, 1_700_000_001);
    world.manager(&["verify", "store1"]);
    world.backup_here(&old, 1_700_000_002);
    world.backup_here(&["--backup-id", "z", "--keyfile", key], 1_700_000_000);
    let (log, end) = world.push(json!({
        "max-depth": 0, "verified-only": true, "transfer-last": 1, "group-filter": ["group:host/y"]
    }));
    assert_eq!(end, "OK", "{log}");
    assert_eq!(world.snapshots_there(""), ["host/y/1700000001"]);
    lines(
        &log,
        &["skipped: 1 snapshot(s) (2023-11-14T22:13:20Z) - due to transfer-last"],
    );
    let (log, end) = world.push(json!({"max-depth": 0, "encrypted-only": true}));
    assert_eq!(end, "OK", "{log}");
    assert_eq!(
        world.snapshots_there(""),
        ["host/y/1700000001", "host/z/1700000000"]
    );
    let restored = world.restored_there("host/z/2023-11-14T22:13:20Z", &["--keyfile", key]);
    assert!(restored == world.read("disk"));
}

#[test]
fn groups_of_others_at_the_target_are_left_alone_and_that_is_said() {
    let world = World::new();
    world.write("disk", 3, 1);
    for id in ["x", "y"] {
        world.backup_here(&["--backup-id", id], 1_700_000_000);
    }
    let (log, end) = world.push(json!({}));
    assert_eq!(end, "OK", "{log}");
    let owner = world.there.root.join("datastore/store1/host/x/owner");
    fs::write(owner, "other@pbs\n").unwrap();
    for id in ["x", "y"] {
        world.backup_here(&["--backup-id", id], 1_700_000_001);
    }
    let (log, end) = world.push(json!({"remove-vanished": true}));
    assert_eq!(end, "WARNINGS: 1", "{log}");
    lines(
        &log,
        &[
            "Group 'host/x' not owned by remote user 'admin@pbs' on target, skipping upload",
            "--remote-ns",
        ],
    );
    let left = [
        "host/x/1700000000",
        "host/y/1700000000",
        "host/y/1700000001",
    ];
    assert_eq!(world.snapshots_there(""), left);
    // Elsewhere there is room for both.
    let (log, end) = world.push(json!({"remote-ns": "mirror"}));
    assert_eq!(end, "OK", "{log}");
    assert_eq!(world.snapshots_there("mirror").len(), 4);
}

#[test]
fn both_sides_have_their_say_in_what_a_push_may_do() {
    let world = World::new();
    world.write("disk", 4, 1);
    world
        .here
        .ok("client", &["namespace", "create", "team"])
        .unwrap();
    world.backup_here(&["--backup-id", "x"], 1_700_000_000);
    world.backup_here(&["--backup-id", "x", "--ns", "team"], 1_700_000_000);
    // An account that may do there what a push needs, and no more.
    let on_there = |words: &[&str]| {
        let output = world.there.run("manager", words).unwrap();
        testbed::server::succeeded(&output).unwrap();
    };
    on_there(&["user", "create", "sync@pbs", "--password", "sync-secret"]);
    let grant = ["--auth-id", "sync@pbs"];
    on_there(
        &[
            &["acl", "update", "/datastore/store1", "DatastoreBackup"][..],
            &grant,
        ]
        .concat(),
    );
    let account = ["--auth-id", "sync@pbs", "--password", "sync-secret"];
    world.manager(&[&["remote", "update", "there"][..], &account].concat());
    // Somebody here who may push from all of this datastore to the root there.
    world.manager(&[
        "user",
        "create",
        "pusher@pbs",
        "--password",
        "pusher-secret",
    ]);
    let allow = |path: &str, role: &str| {
        world.manager(&["acl", "update", path, role, "--auth-id", "pusher@pbs"]);
    };
    let pusher = Api::log_in(&world.here, "pusher@pbs", "pusher-secret").unwrap();
    let words = json!({"store": "store1", "remote": "there", "remote-store": "store1"});
    let refused = |more: Value| {
        let mut words = words.clone();
        words
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        format!("{:#}", pusher.post("push", words).unwrap_err())
    };
    let error = refused(json!({}));
    assert!(
        error.contains("missing Remote.DatastoreBackup on /remote/there/store1"),
        "{error}"
    );
    allow("/remote/there/store1", "RemoteSyncPushOperator");
    let error = refused(json!({}));
    assert!(error.contains("on /datastore/store1"), "{error}");
    allow("/datastore/store1", "DatastoreReader");
    let error = refused(json!({"remove-vanished": true}));
    assert!(error.contains("Remote.DatastorePrune"), "{error}");

    let upid = pusher.post("push", words.clone()).unwrap();
    let (log, end) = world.ended(&upid);
    // What may be pushed was pushed; the namespace may not be made.
    let reason = "missing permissions 'Remote.DatastoreModify' on '/remote/there/store1/team' for 'pusher@pbs'";
    assert!(end.contains(reason), "{end}\n{log}");
    assert_eq!(world.snapshots_there(""), ["host/x/1700000000"]);
    let groups = world
        .there_api()
        .get("admin/datastore/store1/groups")
        .unwrap();
    assert_eq!(groups[0]["owner"], "sync@pbs");
    // Here it may be made now, there not yet.
    allow("/remote/there/store1", "RemoteDatastorePowerUser");
    allow("/remote/there/store1", "RemoteDatastoreAdmin");
    let (log, end) = world.ended(&pusher.post("push", words.clone()).unwrap());
    assert!(
        end.contains("making the namespace 'team' in '' at the remote failed"),
        "{end}\n{log}"
    );
    on_there(
        &[
            &["acl", "update", "/datastore/store1", "DatastoreAdmin"][..],
            &grant,
        ]
        .concat(),
    );
    let (log, end) = world.ended(&pusher.post("push", words).unwrap());
    assert_eq!(end, "OK", "{log}");
    assert_eq!(world.snapshots_there("team"), ["host/x/1700000000"]);
}

#[test]
fn what_vanished_here_goes_there_but_nothing_protected_foreign_or_filtered() {
    let world = World::new();
    world.write("disk", 5, 1);
    for ns in ["gone", "gone/deep", "kept"] {
        world
            .here
            .ok("client", &["namespace", "create", ns])
            .unwrap();
        world.backup_here(&["--backup-id", "x", "--ns", ns], 1_700_000_000);
    }
    for time in [1_700_000_000, 1_700_000_001, 1_700_000_002] {
        world.backup_here(&["--backup-id", "x"], time);
    }
    for id in ["vanishing", "filtered", "guarded"] {
        world.backup_here(&["--backup-id", id], 1_700_000_000);
    }
    let (log, end) = world.push(json!({"remote-ns": "copy"}));
    assert_eq!(end, "OK", "{log}");
    let protect = |snapshot: &str| {
        let words = [
            "snapshot",
            "protected",
            "update",
            snapshot,
            "true",
            "--ns",
            "copy",
        ];
        world.there.ok("client", &words).unwrap();
    };
    protect("host/x/2023-11-14T22:13:21Z");
    protect("host/guarded/2023-11-14T22:13:20Z");
    // Groups of others, and namespaces that are none of this job.
    let foreign = world
        .there
        .root
        .join("datastore/store1/ns/copy/host/foreign");
    fs::create_dir_all(foreign.join("2023-11-14T22:13:20Z")).unwrap();
    fs::write(foreign.join("owner"), "other@pbs\n").unwrap();
    world
        .there
        .ok("client", &["namespace", "create", "beside"])
        .unwrap();

    let forget = |snapshot: &str| {
        world
            .here
            .ok("client", &["snapshot", "forget", snapshot])
            .unwrap();
    };
    forget("host/x/2023-11-14T22:13:20Z");
    forget("host/x/2023-11-14T22:13:21Z");
    for id in ["vanishing", "filtered", "guarded"] {
        forget(&format!("host/{id}/2023-11-14T22:13:20Z"));
    }
    let words = ["namespace", "delete", "gone", "--delete-groups", "true"];
    world.here.ok("client", &words).unwrap();
    let before = world.snapshots_there("copy");
    let (log, end) = world.push(json!({"remote-ns": "copy"}));
    assert_eq!(end, "OK", "{log}");
    assert_eq!(
        world.snapshots_there("copy"),
        before,
        "nothing goes unless it is asked for"
    );

    let options = json!({
        "remote-ns": "copy", "remove-vanished": true, "group-filter": ["exclude:group:host/filtered"]
    });
    let (log, end) = world.push(options);
    assert_eq!(end, "OK", "{log}");
    lines(
        &log,
        &[
            "Removed vanished snapshot host/x/2023-11-14T22:13:20Z from remote",
            "Kept protected snapshot host/x/2023-11-14T22:13:21Z on remote",
            "Removed vanished group host/vanishing from remote",
            "Kept 1 protected snapshots of group host/guarded on remote",
            "Successfully removed vanished namespace copy/gone/deep from remote",
            "Successfully removed vanished namespace copy/gone from remote",
            // The group in `gone/deep`, the one in `gone` and `host/vanishing`; `host/x` lost one snapshot more.
            "Summary: removed vanished: snapshots: 4, groups: 3, namespaces: 2",
        ],
    );
    let left = [
        "host/filtered/1700000000",
        "host/foreign/1700000000",
        "host/guarded/1700000000",
        "host/x/1700000001",
        "host/x/1700000002",
    ];
    assert_eq!(world.snapshots_there("copy"), left);
    let namespaces = world
        .there_api()
        .get("admin/datastore/store1/namespace")
        .unwrap();
    let namespaces: Vec<&str> = namespaces
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["ns"].as_str().unwrap())
        .collect();
    assert_eq!(namespaces, ["", "beside", "copy", "copy/kept"]);

    // What only a filter keeps from being pushed is still here, so that it has not vanished.
    let options = json!({"remote-ns": "copy", "remove-vanished": true, "verified-only": true});
    let (log, end) = world.push(options);
    assert_eq!(end, "OK", "{log}");
    assert!(
        world
            .snapshots_there("copy")
            .contains(&"host/x/1700000002".to_owned()),
        "{log}"
    );
}
