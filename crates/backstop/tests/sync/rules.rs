//! Owners, filters, privileges.

use std::fs;

use serde_json::{Value, json};
use testbed::api::Api;
use testbed::waiting_backup::WaitingBackup;

use crate::world::World;

#[test]
fn groups_of_other_owners_are_left_alone_and_that_is_said_in_plain_words() {
    let world = World::new();
    world.write("disk", 6, 1);
    world.backup_image("x", 1_700_000_000);
    world.backup_image("y", 1_700_000_000);
    let (log, end) = world.pull(json!({}));
    assert_eq!(end, "OK", "{log}");
    fs::write(
        world.here.root.join("datastore/store1/host/x/owner"),
        "other@pbs\n",
    )
    .unwrap();
    world.backup_image("x", 1_700_000_001);
    world.backup_image("y", 1_700_000_001);
    let words = [
        "sync-job",
        "create",
        "job1",
        "--store",
        "store1",
        "--remote",
        "there",
        "--remote-store",
        "store1",
    ];
    let output = world
        .here
        .run("manager", &[&words[..], &["--owner", "admin@pbs"]].concat())
        .unwrap();
    assert!(output.status.success());
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        warning.contains("host/x (owner other@pbs)") && warning.contains("--ns"),
        "{warning}"
    );
    assert!(!warning.contains("host/y"), "{warning}");

    // A dry run says the same before anything is copied, and copies nothing.
    let there = testbed::api::Api::connect(&world.there).unwrap();
    let readers = || {
        let tasks = there.get("nodes/localhost/tasks").unwrap();
        let tasks = tasks.as_array().unwrap().iter();
        tasks.filter(|task| task["worker_type"] == "reader").count()
    };
    let (snapshots, opened) = (world.snapshots(""), readers());
    let run = ["sync-job", "run", "job1", "--dry-run"];
    let output = world.here.run("manager", &run).unwrap();
    assert!(!output.status.success());
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    for line in [
        "sync group host/x would fail - owner check failed (admin@pbs != other@pbs)",
        "sync into a namespace of its own (--ns)",
        "[host/y]: would copy snapshot 2023-11-14T22:13:21Z",
        "Summary: dry run: 1 snapshots of 1 groups would be copied, 0 removed; nothing was changed",
    ] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
    assert_eq!((world.snapshots(""), readers()), (snapshots, opened));
    assert!(world.runs().get("last-run-state").is_none(), "it is no run");

    let (log, end) = world.run_job("job1");
    assert!(end.starts_with("sync failed with some errors."), "{end}");
    let line = "sync group host/x failed - owner check failed (admin@pbs != other@pbs)";
    assert!(
        log.contains(line) && log.contains("--ns") && log.contains("change-owner"),
        "{log}"
    );
    let snapshots = [
        "host/x/1700000000",
        "host/y/1700000000",
        "host/y/1700000001",
    ];
    assert_eq!(world.snapshots(""), snapshots);
    // Elsewhere there is room for both.
    world
        .here
        .ok("client", &["namespace", "create", "mirror"])
        .unwrap();
    world.manager(&["sync-job", "update", "job1", "--ns", "mirror"]);
    let (log, end) = world.run_job("job1");
    assert_eq!(end, "OK", "{log}");
    assert_eq!(world.snapshots("mirror").len(), 4);
}

#[test]
fn filters_choose_groups_and_snapshots_before_anything_is_fetched() {
    let world = World::new();
    world.write("disk", 7, 1);
    let key = world.path("key.json");
    let key = key.to_str().unwrap();
    world
        .there
        .ok("client", &["key", "create", key, "--kdf", "none"])
        .unwrap();
    for time in 1_700_000_000..1_700_000_004 {
        world.backup_image("x", time);
    }
    world.backup(&["--backup-id", "sealed", "--keyfile", key], 1_700_000_000);
    world.backup(&["--backup-id", "7", "--backup-type", "vm"], 1_700_000_000);
    let there = Api::connect(&world.there).unwrap();

    let (log, end) = world.pull(json!({"encrypted-only": true}));
    assert_eq!(end, "OK", "{log}");
    assert_eq!(world.snapshots(""), ["host/sealed/1700000000"]);
    let group = json!({"backup-type": "host", "backup-id": "x", "backup-time": 1_700_000_001});
    let upid = there.post("admin/datastore/store1/verify", group).unwrap();
    assert_eq!(there.end_of(&upid).unwrap(), "OK");
    let filter = ["regex:^host/", "exclude:group:host/sealed"];
    let (log, end) = world.pull(json!({"verified-only": true, "group-filter": filter}));
    assert_eq!(end, "OK", "{log}");
    assert!(
        log.contains("Found 1 groups to sync (out of 3 total)"),
        "{log}"
    );
    assert_eq!(
        world.snapshots(""),
        ["host/sealed/1700000000", "host/x/1700000001"]
    );
    // Nobody has verified the copy.
    let list = world.api.get("admin/datastore/store1/snapshots").unwrap();
    assert!(
        list.as_array()
            .unwrap()
            .iter()
            .all(|item| item.get("verification").is_none()),
        "{list}"
    );

    let (log, end) = world.pull(json!({"transfer-last": 1, "worker-threads": 4}));
    assert_eq!(end, "OK", "{log}");
    let wanted = [
        "host/sealed/1700000000",
        "host/x/1700000001",
        "host/x/1700000003",
        "vm/7/1700000000",
    ];
    assert_eq!(world.snapshots(""), wanted);
    for line in [
        "host/x: skipped: 1 snapshot(s) (2023-11-14T22:13:20Z) - older than the newest snapshot present on sync target",
        "host/x: skipped: 1 snapshot(s) (2023-11-14T22:13:22Z) - due to transfer-last",
    ] {
        assert!(log.contains(line), "no {line:?} in\n{log}");
    }
    // The encrypted one is restored with the key of its client.
    let restore = world.here.command("client", "store1");
    assert_eq!(
        world.restore_with(
            restore,
            "host/sealed/2023-11-14T22:13:20Z",
            &["--keyfile", key]
        ),
        world.read("disk")
    );
}

#[test]
fn a_backup_that_is_under_way_is_skipped_at_the_source_and_waited_for_at_the_target() {
    let world = World::new();
    world.write("disk", 8, 1);
    world.backup_image("x", 1_700_000_000);
    let mut unfinished =
        WaitingBackup::begin(&world.there, "store1", "x", &world.path("pipe1")).unwrap();
    unfinished.feed(&vec![7; 5 << 20]).unwrap();
    let there = Api::connect(&world.there).unwrap();
    let two = |list: &Value| list.as_array().unwrap().len() == 2;
    there.wait("admin/datastore/store1/snapshots", two).unwrap();
    let (log, end) = world.pull(json!({}));
    assert_eq!(end, "OK", "{log}");
    assert!(log.contains(" - in-progress backup"), "{log}");
    assert_eq!(world.snapshots(""), ["host/x/1700000000"]);

    world.backup_image("y", 1_700_000_000);
    let mut busy = WaitingBackup::begin(&world.here, "store1", "y", &world.path("pipe2")).unwrap();
    busy.feed(&vec![7; 5 << 20]).unwrap();
    let found = |list: &Value| list.as_array().unwrap().len() == 2;
    world
        .api
        .wait("admin/datastore/store1/groups", found)
        .unwrap();
    let upid = world.begin(json!({"group-filter": ["group:host/y"]}));
    let path = format!("nodes/localhost/tasks/{}/log", upid.as_str().unwrap());
    let waits = |log: &Value| {
        log.to_string()
            .contains("something else works on this group")
    };
    world.api.wait(&path, waits).unwrap();
    testbed::server::succeeded(&busy.end().unwrap()).unwrap();
    let (log, end) = world.ended(&upid);
    assert_eq!(end, "OK", "{log}");
    drop(unfinished);
}

/// A user of the server that pulls, with these roles.
fn user(world: &World, name: &str, roles: &[(&str, &str)]) -> Api {
    let id = format!("{name}@pbs");
    let password = "Some-Passw0rd";
    world.manager(&["user", "create", &id, "--password", password]);
    for (path, role) in roles {
        world.manager(&["acl", "update", path, role, "--auth-id", &id]);
    }
    Api::log_in(&world.here, &id, password).unwrap()
}

#[test]
fn who_may_not_read_the_remote_or_write_the_target_gets_no_job_and_no_pull() {
    let world = World::new();
    world.write("disk", 9, 1);
    world.backup_image("x", 1_700_000_000);
    let operator = user(
        &world,
        "operator",
        &[
            ("/datastore/store1", "DatastoreAdmin"),
            ("/remote/there", "RemoteSyncOperator"),
        ],
    );
    let stranger = user(
        &world,
        "stranger",
        &[("/datastore/store1", "DatastoreAdmin")],
    );
    let keeper = user(
        &world,
        "keeper",
        &[
            ("/datastore/store1", "DatastoreBackup"),
            ("/datastore/store1", "DatastoreAudit"),
            ("/remote/there", "RemoteSyncOperator"),
        ],
    );
    let job = |id: &str, more: Value| {
        let mut job =
            json!({"id": id, "store": "store1", "remote": "there", "remote-store": "store1"});
        job.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        job
    };
    let refused = |api: &Api, job: Value| {
        let error = format!("{:#}", api.post("config/sync", job).unwrap_err());
        assert!(error.contains("permission check failed"), "{error}");
    };
    refused(&stranger, job("job1", json!({})));
    // Without Datastore.Modify only for itself, and without removing.
    refused(&keeper, job("job1", json!({})));
    refused(
        &keeper,
        job(
            "job1",
            json!({"owner": "keeper@pbs", "remove-vanished": true}),
        ),
    );
    keeper
        .post("config/sync", job("job1", json!({"owner": "keeper@pbs"})))
        .unwrap();
    operator
        .post("config/sync", job("job2", json!({"owner": "operator@pbs"})))
        .unwrap();
    assert_eq!(stranger.get("config/sync").unwrap(), json!([]));
    assert_eq!(
        operator
            .get("config/sync")
            .unwrap()
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let error = format!(
        "{:#}",
        stranger.post("admin/sync/job2/run", json!({})).unwrap_err()
    );
    assert!(error.contains("permission check failed"), "{error}");
    let words = json!({"store": "store1", "remote": "there", "remote-store": "store1"});
    let error = format!("{:#}", stranger.post("pull", words.clone()).unwrap_err());
    assert!(error.contains("Remote.Read"), "{error}");

    let upid = keeper.post("admin/sync/job1/run", json!({})).unwrap();
    assert_eq!(keeper.end_of(&upid).unwrap(), "OK");
    let groups = world.api.get("admin/datastore/store1/groups").unwrap();
    assert_eq!(groups[0]["owner"], "keeper@pbs");
    // While it runs, the owner of the job needs what the work needs: here, to make a namespace.
    world
        .there
        .ok("client", &["namespace", "create", "new"])
        .unwrap();
    let upid = keeper.post("admin/sync/job1/run", json!({})).unwrap();
    let end = keeper.end_of(&upid).unwrap();
    assert!(end.contains("Cannot sync namespace 'new' into namespace 'new' - missing permissions 'Datastore.Modify' on '/datastore/store1' for 'keeper@pbs'"), "{end}");

    // A remote that jobs need stays.
    let output = world
        .here
        .run("manager", &["remote", "remove", "there"])
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("is used by sync job"), "{text}");
}
