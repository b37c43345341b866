//! What a push would do can be asked for, and asking changes nothing at either side.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::world::World;

/// Every file below a folder with its content; folders have none.
fn everything(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let content = match path.is_dir() {
                true => {
                    folders.push(path.clone());
                    None
                }
                false => Some(fs::read(&path).unwrap()),
            };
            found.insert(path, content);
        }
    }
    found
}

#[test]
fn a_dry_push_tells_what_would_be_sent_made_removed_and_left_alone_and_touches_nothing() {
    let world = World::new();
    world.write("disk", 70, 1);
    let here = |words: &[&str]| world.here.ok("client", words).unwrap();
    here(&["namespace", "create", "gone"]);
    world.backup_here(&["--backup-id", "x", "--ns", "gone"], 1_700_000_000);
    for time in [1_700_000_000, 1_700_000_001] {
        world.backup_here(&["--backup-id", "x"], time);
    }
    for id in ["foreign", "vanishing"] {
        world.backup_here(&["--backup-id", id], 1_700_000_000);
    }
    let (log, end) = world.push(json!({"remote-ns": "copy"}));
    assert_eq!(end, "OK", "{log}");
    let copy = world.there.root.join("datastore/store1/ns/copy");
    fs::write(copy.join("host/foreign/owner"), "other@pbs\n").unwrap();
    for id in ["x", "foreign"] {
        world.backup_here(&["--backup-id", id], 1_700_000_002);
    }
    here(&["snapshot", "forget", "host/vanishing/2023-11-14T22:13:20Z"]);
    here(&["snapshot", "forget", "host/x/2023-11-14T22:13:20Z"]);
    here(&["namespace", "delete", "gone", "--delete-groups", "true"]);
    here(&["namespace", "create", "new"]);
    world.backup_here(&["--backup-id", "y", "--ns", "new"], 1_700_000_000);
    world.manager(&["encryption-key", "create", "key1"]);
    let options = [
        "--sync-direction",
        "push",
        "--remote-ns",
        "copy",
        "--remove-vanished",
        "true",
        "--owner",
        "admin@pbs",
        "--active-encryption-key",
        "key1",
    ];
    world.add_job("job1", &options);

    let store = world.there.root.join("datastore/store1");
    let notes = world.here.root.join("var/lib/proxmox-backup/sync");
    let tasks = || {
        let tasks = world.there_api().get("nodes/localhost/tasks").unwrap();
        let kinds = tasks.as_array().unwrap().iter();
        kinds
            .map(|task| task["worker_type"].clone())
            .collect::<Vec<_>>()
    };
    let before = (everything(&store), everything(&notes), tasks());
    let told = world.manager(&["sync-job", "run", "job1", "--dry-run"]);
    let wanted = [
        "dry run: sync datastore 'store1' to 'there/store1'",
        "Would sync datastore 'store1', namespace 'new' into datastore 'store1', namespace 'copy/new'",
        "Would create namespace copy/new on remote",
        "[host/x]: skipped: 1 snapshot(s) (2023-11-14T22:13:21Z) - older than the newest",
        "[host/x]: would send snapshot 2023-11-14T22:13:22Z (1 MiB, encrypted on the fly)",
        "[host/x]: would remove vanished snapshot 2023-11-14T22:13:20Z from remote",
        "Group 'host/foreign' not owned by remote user 'admin@pbs' on target, skipping upload",
        "Would remove vanished group host/vanishing from remote (1 snapshots)",
        "[host/y]: would send snapshot 2023-11-14T22:13:20Z (1 MiB, encrypted on the fly)",
        "Would remove vanished namespace copy/gone from remote",
        "Summary: dry run: 2 snapshots of 2 groups would be sent (2 MiB before what the target has already)",
        "Summary: dry run: would be removed at the target: snapshots: 3, groups: 2, namespaces: 1",
        "Summary: dry run: nothing was sent, nothing was changed",
    ];
    for line in wanted {
        assert!(told.contains(line), "no {line:?} in\n{told}");
    }
    assert!(!told.contains("[host/foreign]: would"), "{told}");
    // The same once, without a job; without a key nothing is encrypted, and nothing goes unless that is asked for.
    let once = [
        "push",
        "store1",
        "there",
        "store1",
        "--remote-ns",
        "copy",
        "--dry-run",
    ];
    let told = world.manager(&once);
    let line = "[host/x]: would send snapshot 2023-11-14T22:13:22Z (1 MiB)";
    assert!(told.contains(line), "{told}");
    assert!(!told.contains("remove"), "{told}");
    let after = (everything(&store), everything(&notes), tasks());
    assert!(before == after, "a dry run has changed something");
    assert!(world.runs().get("last-run-state").is_none(), "it is no run");

    // And so it comes.
    let (log, end) = world.run_job("job1");
    assert_eq!(end, "WARNINGS: 1", "{log}");
    let line = "Summary: removed vanished: snapshots: 3, groups: 2, namespaces: 1";
    assert!(log.contains(line), "{log}");
    assert!(log.contains("Summary: snapshots copied: 2"), "{log}");
    let left = [
        "host/foreign/1700000000",
        "host/x/1700000001",
        "host/x/1700000002",
    ];
    assert_eq!(world.snapshots_there("copy"), left);
}
