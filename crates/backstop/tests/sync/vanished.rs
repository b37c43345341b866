//! What is gone at the source is removed at the target only if that is asked for, and then nothing else is.

use std::fs;

use serde_json::json;

use crate::world::World;

fn forget(world: &World, snapshot: &str, ns: &str) {
    let words = ["snapshot", "forget", snapshot, "--ns", ns];
    world.there.ok("client", &words).unwrap();
}

#[test]
fn vanished_snapshots_groups_and_namespaces_go_but_nothing_protected_foreign_or_filtered() {
    let world = World::new();
    world.write("disk", 5, 1);
    for ns in ["gone", "gone/deep", "kept"] {
        world
            .there
            .ok("client", &["namespace", "create", ns])
            .unwrap();
        world.backup(&["--backup-id", "x", "--ns", ns], 1_700_000_000);
    }
    for time in [1_700_000_000, 1_700_000_001, 1_700_000_002] {
        world.backup_image("x", time);
    }
    for id in ["vanishing", "filtered", "guarded"] {
        world.backup_image(id, 1_700_000_000);
    }
    let (log, end) = world.pull(json!({}));
    assert_eq!(end, "OK", "{log}");
    let protect = |snapshot: &str, ns: &str| {
        let words = [
            "snapshot",
            "protected",
            "update",
            snapshot,
            "true",
            "--ns",
            ns,
        ];
        world.here.ok("client", &words).unwrap();
    };
    protect("host/x/2023-11-14T22:13:21Z", "");
    protect("host/guarded/2023-11-14T22:13:20Z", "");
    // A group that is somebody else's and that the source never had.
    let foreign = world.here.root.join("datastore/store1/host/foreign");
    fs::create_dir_all(foreign.join("2023-11-14T22:13:20Z")).unwrap();
    fs::write(foreign.join("owner"), "other@pbs\n").unwrap();

    forget(&world, "host/x/2023-11-14T22:13:20Z", "");
    forget(&world, "host/x/2023-11-14T22:13:21Z", "");
    for id in ["vanishing", "filtered", "guarded"] {
        forget(&world, &format!("host/{id}/2023-11-14T22:13:20Z"), "");
    }
    let words = ["namespace", "delete", "gone", "--delete-groups", "true"];
    world.there.ok("client", &words).unwrap();
    let before = world.snapshots("");
    let (log, end) = world.pull(json!({}));
    assert_eq!(end, "OK", "{log}");
    assert_eq!(
        world.snapshots(""),
        before,
        "nothing goes unless it is asked for"
    );

    let options = json!({"remove-vanished": true, "group-filter": ["exclude:group:host/filtered"]});
    let mut dry = options.clone();
    dry["dry-run"] = json!(true);
    let (log, end) = world.pull(dry);
    assert_eq!(end, "OK", "{log}");
    for line in [
        "[host/x]: would delete vanished snapshot 2023-11-14T22:13:20Z",
        "Would delete vanished group 'host/vanishing'",
        "Would remove vanished namespace gone/deep",
    ] {
        assert!(log.contains(line), "no {line:?} in\n{log}");
    }
    assert!(
        !log.contains("22:13:21Z") && !log.contains("foreign"),
        "{log}"
    );
    assert_eq!(world.snapshots(""), before);
    assert_eq!(world.namespaces().len(), 4);
    let (log, end) = world.pull(options);
    assert_eq!(end, "OK", "{log}");
    for line in [
        "delete vanished snapshot host/x/2023-11-14T22:13:20Z",
        "don't delete vanished snapshot host/x/2023-11-14T22:13:21Z (protected)",
        "Delete vanished group 'host/vanishing'",
        "Kept some protected snapshots of group 'host/guarded'",
        "Removed namespace gone/deep",
        "Removed namespace gone",
        // The group in `gone/deep`, the one in `gone` and `host/vanishing`; `host/x` lost one snapshot more.
        "Summary: removed vanished: snapshots: 4, groups: 3, namespaces: 2",
    ] {
        assert!(log.contains(line), "no {line:?} in\n{log}");
    }
    let left = [
        "host/filtered/1700000000",
        "host/foreign/1700000000",
        "host/guarded/1700000000",
        "host/x/1700000001",
        "host/x/1700000002",
    ];
    assert_eq!(world.snapshots(""), left);
    assert_eq!(world.namespaces(), ["", "kept"]);

    // What only a filter of this run keeps from being pulled is still at the source, so that it is not vanished.
    let options = json!({"remove-vanished": true, "verified-only": true, "encrypted-only": true});
    let (log, end) = world.pull(options);
    assert_eq!(end, "OK", "{log}");
    let left: Vec<&str> = left
        .into_iter()
        .filter(|name| !name.contains("filtered"))
        .collect();
    assert_eq!(world.snapshots(""), left, "{log}");
}

#[test]
fn what_is_under_a_retention_lock_stays_although_it_has_vanished() {
    let world = World::new();
    world.write("disk", 6, 1);
    world
        .there
        .ok("client", &["namespace", "create", "gone"])
        .unwrap();
    world.backup(&["--backup-id", "x", "--ns", "gone"], 1_700_000_000);
    for (id, time) in [
        ("x", 1_700_000_000),
        ("x", 1_700_000_001),
        ("vanishing", 1_700_000_000),
    ] {
        world.backup_image(id, time);
    }
    let (log, end) = world.pull(json!({}));
    assert_eq!(end, "OK", "{log}");
    // Namespaces below the root are under its lock, too.
    let lock = ["set", "store1", "--days", "30"];
    world.here.ok("retention-lock", &lock).unwrap();
    let before = world.snapshots("");

    forget(&world, "host/x/2023-11-14T22:13:20Z", "");
    forget(&world, "host/vanishing/2023-11-14T22:13:20Z", "");
    let words = ["namespace", "delete", "gone", "--delete-groups", "true"];
    world.there.ok("client", &words).unwrap();
    let (log, end) = world.pull(json!({"remove-vanished": true}));
    assert_eq!(end, "OK", "{log}");
    assert_eq!(world.snapshots(""), before);
    assert_eq!(world.snapshots("gone"), ["host/x/1700000000"]);
    for line in [
        "don't delete vanished snapshot: ",
        "Kept group 'host/vanishing': ",
        "Kept group 'host/x': ",
        "Did not remove namespace gone - snapshots under a retention lock remain",
    ] {
        assert!(log.contains(line), "no {line:?} in\n{log}");
    }
    assert_eq!(log.matches("by the retention lock of").count(), 3, "{log}");
    for file in [
        "host/x/2023-11-14T22:13:20Z",
        "host/vanishing/2023-11-14T22:13:20Z",
    ] {
        let path = world.here.root.join("datastore/store1").join(file);
        assert!(path.join("index.json.blob").is_file(), "{file}");
    }
}
