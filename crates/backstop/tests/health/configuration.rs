//! Files that cannot be read: each is on the list by its name, and what is remembered is not lost to a slip of the pen.

use std::fs;

use serde_json::Value;

use super::world::{World, now};

/// What no file is.
const GARBAGE: &str = "\u{1}garbage: {{ [ no\n\tfile of this\nkind";

const FILES: [&str; 26] = [
    "domains.cfg",
    "datastore.cfg",
    "remote.cfg",
    "sync.cfg",
    "prune.cfg",
    "verification.cfg",
    "traffic-control.cfg",
    "s3.cfg",
    "encryption-keys.cfg",
    "metricserver.cfg",
    "notifications.cfg",
    "notifications-priv.cfg",
    "node.cfg",
    "shadow.json",
    "token.shadow",
    "tfa.json",
    "backstop-append-only.json",
    "ldap_passwords.json",
    "backstop-metrics.json",
    "backstop-sessions.json",
    "backstop-remotes.json",
    "backstop-certificate.json",
    "backstop-next-certificate.json",
    "backstop-health.json",
    "backstop-heartbeats.json",
    "acl.cfg",
];

#[test]
fn each_configuration_file_that_cannot_be_read_is_critical_by_its_name() {
    let world = World::new();
    for name in FILES {
        let file = world.etc().join(name);
        let before = fs::read(&file).ok();
        fs::write(&file, GARBAGE).unwrap();
        world.wait_for_object(
            "config-unreadable",
            &format!("configuration/{name}"),
            "critical",
        );
        assert_eq!(world.plugin("config-unreadable").0, 2, "{name}");
        match before {
            Some(before) => fs::write(&file, before).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
    }
    world.wait_for_exit("config-unreadable", 0);
}

#[test]
fn what_decides_who_may_ask_makes_the_plugin_say_why_nothing_is_known() {
    let world = World::new();
    for name in ["user.cfg", "backstop-revocations.json"] {
        let file = world.etc().join(name);
        let before = fs::read(&file).ok();
        fs::write(&file, GARBAGE).unwrap();
        let words = ["--plugin", "true", "--refresh", "true"];
        let output = world.server.run("health", &words).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(matches!(output.status.code(), Some(2 | 3)), "{output:?}");
        assert!(text.contains(name), "{name}: {text}");
        match before {
            Some(before) => fs::write(&file, before).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
    }
}

#[test]
fn what_was_expected_is_expected_while_its_file_makes_no_sense() {
    let mut world = World::new();
    world.back_up("h1", now() - 2 * 86_400);
    world.tell(&["expect", "set", "store1", "24h"]);
    world.wait_for("backup-stale", "critical");
    let file = world.etc().join("backstop-health.json");
    let text = fs::read_to_string(&file).unwrap();
    let mut settings: Value = serde_json::from_str(&text).unwrap();
    settings["expectations"][0]["every"] = 7.into();
    fs::write(&file, settings.to_string()).unwrap();
    world.wait_for_object(
        "config-unreadable",
        "configuration/backstop-health.json",
        "critical",
    );
    assert_eq!(world.check("backup-stale")["state"], "critical");
    // A restart forgets nothing of it.
    world.restart_after(|_| {});
    world.wait_for("backup-stale", "critical");
    fs::write(&file, text).unwrap();
    world.wait_for_object(
        "config-unreadable",
        "configuration/backstop-health.json",
        "ok",
    );
    assert_eq!(world.check("backup-stale")["state"], "critical");
}

#[test]
fn a_memory_that_cannot_be_read_is_kept_and_told_and_costs_no_more_than_it_has_to() {
    let mut world = World::new();
    world.back_up("h1", now() - 2 * 86_400);
    world.tell(&["expect", "set", "store1", "24h"]);
    world.wait_for("backup-stale", "critical");
    world.tell(&["acknowledge", "backup-stale", "group/store1/host/h1"]);
    let memory = world.state().join("backstop-health-memory.json");
    let aside = world.state().join("backstop-health-memory.json.unreadable");
    // An entry of a version of tomorrow.
    let mut broken = String::new();
    world.restart_after(|_| {
        let mut text: Value = serde_json::from_slice(&fs::read(&memory).unwrap()).unwrap();
        let entries = text["ledger"]["entries"].as_array_mut().unwrap();
        let mut other = entries[0].clone();
        other["finding"]["code"] = "of-tomorrow".into();
        entries.push(other);
        broken = text.to_string();
        fs::write(&memory, &broken).unwrap();
    });
    world.wait_for("memory-lost", "warning");
    assert_eq!(fs::read_to_string(&aside).unwrap(), broken);
    let known = world.wait_for("backup-stale", "critical");
    assert_eq!(known["acknowledged"]["by"], "root@pam");
    fs::remove_file(&aside).unwrap();
    world.wait_for("memory-lost", "ok");
    // Nothing can be made of this one.
    world.restart_after(|_| fs::write(&memory, "{").unwrap());
    world.wait_for("memory-lost", "warning");
    assert_eq!(fs::read_to_string(&aside).unwrap(), "{");
    let anew = world.wait_for("backup-stale", "critical");
    assert!(anew.get("acknowledged").is_none(), "{anew}");
}
