//! What is known of a job beyond its last run, wherever it is shown.

use std::fs;

use serde_json::{Value, json};
use testbed::link::LinkSpec;

use crate::failures::damage;
use crate::world::World;

#[test]
fn a_job_knows_its_last_success_its_failures_and_how_far_it_is_behind() {
    let mut world = World::new();
    world.write("disk", 40, 1);
    world.backup_image("x", 1_700_000_000);
    world.add_job("job1", &["--owner", "admin@pbs", "--schedule", "yearly"]);
    // A job that never ran shows as on every server.
    assert!(world.runs().get("backstop").is_none());
    assert!(!world.manager(&["sync-job", "list"]).contains("lag"));

    let (log, end) = world.run_job("job1");
    assert_eq!(end, "OK", "{log}");
    assert!(
        log.contains("Summary: snapshots copied: 1, still missing: 0"),
        "{log}"
    );
    let runs = world.runs();
    let known = &runs["backstop"];
    for (key, value) in [
        ("failures", 0),
        ("snapshots", 1),
        ("chunks", 1),
        ("missing", 0),
        ("lag", 0),
    ] {
        assert_eq!(known[key], value, "{key} in {runs}");
    }
    assert!(known["bytes"].as_u64().unwrap() > 1 << 20, "{runs}");
    let success = known["last-success"].as_i64().unwrap();
    assert_eq!(runs["last-run-endtime"], success);
    assert!(runs["next-run"].as_i64().unwrap() > success, "{runs}");
    assert!(known["source-seen"].as_i64().unwrap() <= success);

    // Lists for people say more; those for programs are as they know them.
    let list = world.manager(&["sync-job", "list"]);
    for word in ["last-success", "failures", "lag", "next-run", "none"] {
        assert!(list.contains(word), "no {word} in\n{list}");
    }
    let list = world.manager(&["sync-job", "list", "--output-format", "json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(
        list[0],
        json!({
            "id": "job1", "store": "store1", "remote": "there", "remote-store": "store1",
            "owner": "admin@pbs", "schedule": "yearly",
        })
    );
    let status = || -> Value {
        let text = world.manager(&["sync-job", "status", "--output-format", "json"]);
        let list: Value = serde_json::from_str(&text).unwrap();
        list[0].clone()
    };
    assert_eq!(status()["last-success"], success);
    assert!(world.manager(&["sync-job", "status"]).contains("copied"));

    // Damage at the source: what is missing is counted, and how old it is.
    let first = world.source_chunks();
    world.write("disk", 41, 1);
    world.backup_image("x", 1_700_003_600);
    let new = world.source_chunks();
    let new = new.iter().find(|chunk| !first.contains(chunk)).unwrap();
    let sound = damage(new);
    let (log, end) = world.run_job("job1");
    assert!(end != "OK");
    assert!(
        log.contains("still missing: 1 (the newest one of 2023-11-14T23:13:20Z, "),
        "{log}"
    );
    let known = status();
    assert_eq!(
        (&known["failures"], &known["missing"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(known["behind-since"], 1_700_003_600);
    let lag = known["lag"].as_i64().unwrap();
    assert!(lag > success - 1_700_003_600 - 1, "{lag}");
    assert_eq!(known["last-success"], success);

    // A source that does not answer: nobody knows what it has.
    let seen = known["source-seen"].clone();
    world.there.kill().unwrap();
    let (_, end) = world.run_job("job1");
    assert!(end.contains("remote connection to"), "{end}");
    let known = world.runs()["backstop"].clone();
    assert_eq!(known["failures"], 2);
    assert!(
        known.get("lag").is_none() && known.get("missing").is_none(),
        "{known}"
    );
    assert_eq!(known["source-seen"], seen);
    assert!(world.manager(&["sync-job", "list"]).contains("unknown"));

    // All that outlives the server.
    world.restart_here();
    assert_eq!(world.runs()["backstop"], known);
    world.restart_there();
    let port = world.port();
    world.manager(&["remote", "update", "there", "--port", &port]);
    fs::write(new, sound).unwrap();
    let (log, end) = world.run_job("job1");
    assert_eq!(end, "OK", "{log}");
    let known = world.runs()["backstop"].clone();
    assert_eq!((&known["failures"], &known["lag"]), (&json!(0), &json!(0)));
    let folder = world.here.root.join("var/lib/proxmox-backup/jobstates");
    let left = |name: &str| {
        let files = fs::read_dir(&folder).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|found| found.starts_with(name)).count()
    };
    assert!(left("syncjob-job1") >= 3);
    world.manager(&["sync-job", "remove", "job1"]);
    assert_eq!(left("syncjob-job1"), 0);
}

#[test]
fn what_has_not_changed_costs_no_session_and_what_has_is_compared_again() {
    let world = World::new();
    world.write("disk", 42, 1);
    for id in ["a", "b", "c"] {
        world.backup_image(id, 1_700_000_000);
    }
    world.add_job("job1", &["--owner", "admin@pbs"]);
    let sessions = || {
        let there = testbed::api::Api::connect(&world.there).unwrap();
        let tasks = there.get("nodes/localhost/tasks").unwrap();
        let tasks = tasks.as_array().unwrap().iter();
        tasks.filter(|task| task["worker_type"] == "reader").count()
    };
    let run = |sessions_before: usize, opened: usize| {
        let (log, end) = world.run_job("job1");
        assert_eq!(end, "OK", "{log}");
        assert_eq!(sessions() - sessions_before, opened, "{log}");
        log
    };
    run(0, 3);
    let log = run(3, 0);
    for id in ["a", "b", "c"] {
        let line = format!("[host/{id}]: 2023-11-14T22:13:20Z: no data changes");
        assert!(log.contains(&line), "{log}");
    }
    // Notes at the source are taken over; those here are replaced by them.
    let notes = |server: &testbed::server::ServerProcess, snapshot: &str, text: &str| {
        let words = ["snapshot", "notes", "update", snapshot, text];
        server.ok("client", &words).unwrap();
    };
    notes(&world.there, "host/a/2023-11-14T22:13:20Z", "noted there");
    notes(&world.here, "host/b/2023-11-14T22:13:20Z", "noted here");
    run(3, 2);
    let list = world.api.get("admin/datastore/store1/snapshots").unwrap();
    let comment = |id: &str| {
        let items = list.as_array().unwrap();
        let item = items.iter().find(|item| item["backup-id"] == id).unwrap();
        item["comment"].clone()
    };
    assert_eq!(comment("a"), "noted there");
    assert_eq!(comment("b"), Value::Null);
    run(5, 0);
    // A snapshot that was removed here comes again.
    let forget = ["snapshot", "forget", "host/c/2023-11-14T22:13:20Z"];
    world.here.ok("client", &forget).unwrap();
    run(5, 1);
    assert_eq!(world.snapshots("").len(), 3);
}

#[test]
fn a_run_whose_server_died_does_not_show_as_one_that_runs_even_while_there_is_no_server() {
    let mut world = World::new();
    world.write("disk", 43, 9);
    world.backup_image("x", 1_700_000_000);
    world.add_job("job1", &["--owner", "admin@pbs"]);
    let link = world.line(LinkSpec::default());
    link.stop_after(1 << 20);
    let upid = world.api.post("admin/sync/job1/run", json!({})).unwrap();
    link.wait_until_stopped().unwrap();
    let status = |world: &World| -> Value {
        let text = world.manager(&["sync-job", "status", "--output-format", "json"]);
        let list: Value = serde_json::from_str(&text).unwrap();
        list[0].clone()
    };
    let running = status(&world);
    assert_eq!(running["last-run-upid"], upid);
    assert!(running.get("last-run-state").is_none(), "{running}");
    world.here.kill().unwrap();
    let dead = status(&world);
    assert_eq!(dead["last-run-upid"], upid);
    assert_eq!(dead["last-run-state"], "unknown", "{dead}");
    assert!(dead["last-run-endtime"].is_i64(), "{dead}");
    assert!(world.manager(&["sync-job", "status"]).contains("unknown"));
    // The server says the same when it is back, and counts it.
    link.mend();
    world.restart_here();
    let runs = world.runs();
    assert_eq!(runs["last-run-state"], "unknown", "{runs}");
    assert_eq!(runs["last-run-endtime"], dead["last-run-endtime"]);
    // A log that tells how it ended is believed, whoever wrote it.
    let state = world
        .here
        .root
        .join("var/lib/proxmox-backup/jobstates/syncjob-job1.json");
    let (log, end) = world.run_job("job1");
    assert_eq!(end, "OK", "{log}");
    let finished: Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
    let upid = finished["finished"]["upid"].clone();
    world.here.kill().unwrap();
    let started = json!({"started": {"upid": upid}}).to_string();
    fs::write(&state, started).unwrap();
    assert_eq!(status(&world)["last-run-state"], "OK");
}
