//! What goes wrong is on the list, with the exit codes of a monitoring plugin, until it is well again.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};
use testbed::api::Api;
use testbed::push_receiver::PushReceiver;

use super::world::{LONG, World, now};

#[test]
fn a_sync_that_fails_is_critical_until_it_is_acknowledged_and_recovers_with_a_good_run() {
    let world = World::new();
    let source = world.dir.path().join("datastore/store2");
    let create = ["datastore", "create", "store2", source.to_str().unwrap()];
    world.server.ok("manager", &create).unwrap();
    let remote = json!({
        "name": "self", "host": "127.0.0.1", "port": world.server.address.port(), "auth-id": "admin@pbs",
        "password": world.server.password, "fingerprint": "00:".repeat(31) + "00",
    });
    world.api.post("config/remote", remote).unwrap();
    let job =
        json!({"id": "copies", "store": "store1", "remote": "self", "remote-store": "store2"});
    world.api.post("config/sync", job).unwrap();
    let run = || {
        let upid = world.api.post("admin/sync/copies/run", json!({})).unwrap();
        world.api.end_of(&upid).unwrap()
    };
    let (code, text) = world.plugin("job-failed");
    assert_eq!(
        (code, text.starts_with("BACKSTOP OK - 1 ok |")),
        (0, true),
        "{text}"
    );

    assert_ne!(run(), "OK");
    assert_ne!(run(), "OK");
    let check = world.check("job-failed");
    assert_eq!(
        (&check["state"], &check["object"]),
        (&json!("critical"), &json!("job/sync/copies"))
    );
    let evidence = check["evidence"].as_str().unwrap();
    assert!(
        evidence.starts_with("failed 2 times in a row, last "),
        "{evidence}"
    );
    assert!(evidence.ends_with("no success is known"), "{evidence}");
    let (code, text) = world.plugin("job-failed");
    assert_eq!(code, 2);
    assert!(
        text.starts_with(
            "BACKSTOP CRITICAL - 1 critical, 0 ok; job-failed job/sync/copies: failed 2 times"
        ),
        "{text}"
    );
    assert!(text.contains("'job-failed job/sync/copies'=2;;0"), "{text}");
    let (code, text) = world.health(&["--code", "job-failed"]);
    assert_eq!(code, 2);
    assert!(
        text.starts_with("CRITICAL  job-failed  job/sync/copies  since "),
        "{text}"
    );
    assert!(
        text.contains("-> read its log: proxmox-backup-manager task log 'UPID:"),
        "{text}"
    );

    world.tell(&[
        "acknowledge",
        "job-failed",
        "job/sync/copies",
        "--comment",
        "new certificate",
        "--until",
        "8h",
    ]);
    let (code, text) = world.plugin("job-failed");
    assert_eq!(
        (
            code,
            text.starts_with("BACKSTOP OK - 1 acknowledged, 0 ok |")
        ),
        (0, true),
        "{text}"
    );
    let acknowledged = world.check("job-failed");
    assert_eq!(acknowledged["state"], "critical");
    assert_eq!(acknowledged["acknowledged"]["by"], "root@pam");
    world.tell(&["unacknowledge", "job-failed", "job/sync/copies"]);
    world.wait_for_exit("job-failed", 2);
    world.tell(&["acknowledge", "job-failed", "job/sync/copies"]);

    // The remote does not show the certificate that is expected of it; with the right one pinned, it does.
    let changed = world.wait_for("certificate-changed", "critical");
    assert_eq!(changed["object"], "remote/self");
    let evidence = changed["evidence"].as_str().unwrap();
    assert!(evidence.starts_with("expected 00:00:"), "{evidence}");
    assert!(
        evidence.contains(&format!("shown {}", world.server.fingerprint)),
        "{evidence}"
    );
    let fingerprint = json!({"fingerprint": world.server.fingerprint});
    world.api.put("config/remote/self", fingerprint).unwrap();
    world.wait_for("certificate-changed", "ok");
    assert_eq!(run(), "OK");
    let check = world.check("job-failed");
    assert_eq!(
        (&check["state"], &check["recovered"]["from"]),
        (&json!("ok"), &json!("critical"))
    );
    assert!(check.get("acknowledged").is_none(), "{check}");
    let (code, text) = world.health(&["--code", "job-failed"]);
    assert_eq!(code, 0);
    assert!(
        text.starts_with("recovered job-failed  job/sync/copies"),
        "{text}"
    );
    let refused = ["acknowledge", "job-failed", "job/sync/copies"];
    let refused = world.server.run("health", &refused).unwrap();
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("all is well with it"),
        "{refused:?}"
    );
    // What has happened is remembered in its order, and in the server's log.
    let history = world
        .server
        .ok("health", &["history", "--output-format", "json"])
        .unwrap();
    let history: Value = serde_json::from_str(&history).unwrap();
    let states: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .filter(|change| change["code"] == "job-failed")
        .collect();
    let states: Vec<_> = states
        .iter()
        .map(|change| change["to"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["critical", "ok"]);
    world
        .server
        .wait_for_log(&["health: failed", "job/sync/copies", "critical"], 1)
        .unwrap();
}

#[test]
fn stale_and_damaged_backups_and_a_datastore_that_is_gone_are_critical() {
    let world = World::new();
    world.back_up("h1", now() - 2 * 86_400);
    // One backup has no cadence.
    world.wait_for("backup-stale", "ok");
    world.tell(&["expect", "set", "store1", "24h"]);
    let check = world.wait_for("backup-stale", "critical");
    assert_eq!(check["object"], "group/store1/host/h1");
    world.wait_for_exit("backup-stale", 2);
    world.tell(&["expect", "set", "store1", "36h"]);
    world.wait_for_exit("backup-stale", 1);
    world.tell(&["expect", "set", "store1", "never", "--group", "host/h1"]);
    world.wait_for_exit("backup-stale", 0);
    let list = world
        .server
        .ok("health", &["expect", "list", "--output-format", "json"])
        .unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    world.tell(&["expect", "remove", "store1", "--group", "host/h1"]);
    world.wait_for_exit("backup-stale", 1);
    world.back_up("h1", now());
    let check = world.wait_for("backup-stale", "ok");
    assert_eq!(check["recovered"]["from"], "warning");

    // A chunk rots, in a maintenance window.
    world.tell(&[
        "window",
        "add",
        "disks",
        "2h",
        "--datastore",
        "store1",
        "--comment",
        "new disks",
    ]);
    let mut chunks = Vec::new();
    for folder in fs::read_dir(world.datastore().join(".chunks")).unwrap() {
        let folder = folder.unwrap().path();
        if folder.is_dir() {
            chunks.extend(
                fs::read_dir(folder)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    assert!(!chunks.is_empty());
    for chunk in &chunks {
        let mut bytes = fs::read(chunk).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(chunk, bytes).unwrap();
    }
    assert!(
        !world
            .server
            .run("manager", &["verify", "store1"])
            .unwrap()
            .status
            .success()
    );
    let check = world.wait_for("backup-verify-failed", "critical");
    assert_eq!(check["expected"]["window"], "disks");
    let text = world.wait_for_exit("backup-verify-failed", 0);
    assert!(
        text.starts_with("BACKSTOP OK - 1 expected, 0 ok |"),
        "{text}"
    );
    let windows = world.server.ok("health", &["window", "list"]).unwrap();
    assert!(
        windows.contains("disks") && windows.contains("new disks") && windows.contains("2h"),
        "{windows}"
    );
    world.tell(&["window", "remove", "disks"]);
    world.wait_for_exit("backup-verify-failed", 2);

    // The directory is gone; what was known of its groups is not.
    let aside = world.dir.path().join("aside");
    fs::rename(world.datastore(), &aside).unwrap();
    let check = world.wait_for("datastore-unavailable", "critical");
    assert_eq!(check["object"], "datastore/store1");
    let held = world.check("backup-verify-failed");
    assert_eq!(held["state"], "critical");
    assert!(held["held"].is_string(), "{held}");
    fs::rename(&aside, world.datastore()).unwrap();
    world.wait_for("datastore-unavailable", "ok");
    let begin = Instant::now();
    while world.check("backup-verify-failed")["held"].is_string() {
        assert!(begin.elapsed() < LONG);
    }
}

#[test]
fn people_are_told_of_trouble_and_of_its_end_unless_somebody_knows_of_it() {
    let world = World::new();
    let receiver = PushReceiver::start(|_| (200, String::new())).unwrap();
    let url = receiver.url("/");
    // In base64: `{{ json fields }} {{ title }}`
    let body = "e3sganNvbiBmaWVsZHMgfX0ge3sgdGl0bGUgfX0=";
    let hook = ["notification", "endpoint", "webhook", "create", "hook"];
    let settings = ["--method", "post", "--url", &url, "--body", body];
    world
        .server
        .ok("manager", &[&hook[..], &settings].concat())
        .unwrap();
    let matcher = [
        "notification",
        "matcher",
        "create",
        "stale",
        "--target",
        "hook",
    ];
    let rules = ["--match-field", "exact:check=backup-stale"];
    world
        .server
        .ok("manager", &[&matcher[..], &rules].concat())
        .unwrap();
    world.back_up("h1", now() - 2 * 86_400);
    world.tell(&["expect", "set", "store1", "24h"]);
    world.wait_for_exit("backup-stale", 2);
    let first = receiver.wait_for(1)[0].text();
    assert!(
        first.contains("CRITICAL: backup-stale on group/store1/host/h1"),
        "{first}"
    );
    assert!(first.contains("\"type\":\"health\""), "{first}");
    // What is acknowledged gets better and worse; nobody is told before it is over.
    world.tell(&["acknowledge", "backup-stale", "group/store1/host/h1"]);
    world.tell(&["expect", "set", "store1", "36h"]);
    world.wait_for_exit("backup-stale", 0);
    world.back_up("h1", now());
    world.wait_for("backup-stale", "ok");
    let second = receiver.wait_for(2)[1].text();
    assert!(
        second.contains("backup-stale on group/store1/host/h1 is well again"),
        "{second}"
    );
}

#[test]
fn somebody_who_may_audit_one_datastore_sees_its_checks_alone_and_may_change_nothing() {
    let world = World::new();
    let other = world.dir.path().join("datastore/store2");
    let create = ["datastore", "create", "store2", other.to_str().unwrap()];
    world.server.ok("manager", &create).unwrap();
    world.back_up("h1", now());
    let user = json!({"userid": "auditor@pbs", "password": "auditing"});
    world.api.post("access/users", user).unwrap();
    let grant =
        json!({"path": "/datastore/store2", "role": "DatastoreAudit", "auth-id": "auditor@pbs"});
    world.api.put("access/acl", grant).unwrap();
    world.wait_for("backup-stale", "ok");
    let auditor = Api::log_in(&world.server, "auditor@pbs", "auditing").unwrap();
    let seen = |api: &Api| -> Vec<String> {
        let answer = api.get("backstop/health").unwrap();
        let checks = answer["checks"].as_array().unwrap().iter();
        checks
            .map(|check| check["object"].as_str().unwrap().to_owned())
            .collect()
    };
    let some = seen(&auditor);
    assert!(
        !some.is_empty() && some.iter().all(|object| object == "datastore/store2"),
        "{some:?}"
    );
    let all = seen(&world.api);
    for object in [
        "datastore/store1",
        "datastore/store2",
        "group/store1/host/h1",
        "certificate/own",
        "clock/host",
    ] {
        assert!(all.iter().any(|seen| seen == object), "{object}: {all:?}");
    }
    let refused = |result: anyhow::Result<Value>| {
        let text = format!("{:#}", result.unwrap_err());
        assert!(text.contains("permission check failed"), "{text}");
    };
    let one = json!({"code": "datastore-filling", "object": "datastore/store2"});
    refused(auditor.post("backstop/health/acknowledge", one.clone()));
    refused(auditor.delete("backstop/health/acknowledge", one));
    refused(auditor.post(
        "backstop/health/expectations",
        json!({"store": "store2", "every": "1d"}),
    ));
    refused(auditor.post(
        "backstop/health/windows",
        json!({"id": "w1", "duration": "1h"}),
    ));
    refused(auditor.get("backstop/health/windows"));

    // Who may see nothing is not told that all is well, and makes nobody look.
    let nobody = json!({"userid": "nobody@pbs", "password": "seeing nothing"});
    world.api.post("access/users", nobody).unwrap();
    let nobody = Api::log_in(&world.server, "nobody@pbs", "seeing nothing").unwrap();
    let answer = nobody.get("backstop/health?refresh=1").unwrap();
    assert_eq!(
        (&answer["state"], &answer["checks"]),
        (&json!("unknown"), &json!([]))
    );
    let note = answer["note"].as_str().unwrap();
    assert!(note.starts_with("no check matches"), "{note}");
    // Whether a datastore exists is nothing for those who may not change it.
    refused(nobody.post(
        "backstop/health/expectations",
        json!({"store": "nosuch", "every": "1d"}),
    ));
}

#[test]
fn a_wrong_name_is_not_well_and_nothing_can_be_expected_of_it() {
    let world = World::new();
    world.wait_for("datastore-unavailable", "ok");
    for filter in [
        ["--datastore", "nosuch"],
        ["--object", "job/sync/typo"],
        ["--code", "job-failed"],
    ] {
        let (code, text) = world.health(&[&filter[..], &["--plugin", "true"]].concat());
        assert_eq!(code, 3, "{filter:?}: {text}");
        assert!(
            text.starts_with("BACKSTOP UNKNOWN - no check matches"),
            "{text}"
        );
        let (code, text) = world.health(&filter);
        assert_eq!(code, 3, "{filter:?}");
        assert!(text.contains("UNKNOWN: no check matches"), "{text}");
    }
    let (code, text) = world.health(&["--datastore", "store1", "--plugin", "true"]);
    assert_eq!(code, 0, "{text}");
    for words in [
        &["expect", "set", "stroe1", "24h"][..],
        &["window", "add", "w1", "2h", "--datastore", "stroe1"],
    ] {
        let refused = world.server.run("health", words).unwrap();
        assert!(!refused.status.success(), "{words:?}");
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(text.contains("stroe1"), "{text}");
    }
    // One that was expected and whose datastore is removed.
    let other = world.dir.path().join("datastore/store2");
    let create = ["datastore", "create", "store2", other.to_str().unwrap()];
    world.server.ok("manager", &create).unwrap();
    world.tell(&["expect", "set", "store2", "7d"]);
    world.wait_for("backup-stale", "ok");
    world
        .server
        .ok("manager", &["datastore", "remove", "store2"])
        .unwrap();
    let check = world.wait_for("backup-stale", "critical");
    assert_eq!(check["object"], "group/store2/*");
    let evidence = check["evidence"].as_str().unwrap();
    assert!(
        evidence.starts_with("there is no datastore 'store2'"),
        "{evidence}"
    );
    // What is said of one that is gone can be taken back.
    world.tell(&["expect", "remove", "store2"]);
    // A date will do for an acknowledgement.
    let until = ["acknowledge", "backup-stale", "group/store2/*", "--until"];
    let past = world
        .server
        .run("health", &[&until[..], &["2026-01-01"]].concat())
        .unwrap();
    let text = String::from_utf8_lossy(&past.stderr).into_owned();
    assert!(text.contains("cannot end in the past"), "{text}");
}

#[test]
fn without_a_server_the_plugin_says_that_nothing_is_known() {
    let mut world = World::new();
    world.server.kill().unwrap();
    let output = world.server.run("health", &["--plugin"]).unwrap();
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with("BACKSTOP UNKNOWN - "), "{text}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
