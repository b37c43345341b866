//! Nobody who can be told, and what waits because the settings cannot be read.

use std::fs;
use std::time::Instant;

use serde_json::Value;

use super::world::{LONG, World};

#[test]
fn a_server_that_can_tell_nobody_of_errors_says_so_and_how_to_mend_it() {
    let world = World::new();
    let check = world.wait_for("notification-nobody", "warning");
    assert_eq!(check["object"], "notifications/errors");
    let remedy = check["remedy"].as_str().unwrap();
    assert!(remedy.contains("user update root@pam --email"), "{remedy}");
    let (code, text) = world.health(&[]);
    assert_eq!(code, 1, "{text}");
    // What is lost meanwhile is counted.
    let collect = ["garbage-collection", "start", "store1"];
    world.server.ok("manager", &collect).unwrap();
    let begin = Instant::now();
    loop {
        let check = world.check("notification-nobody");
        if check["evidence"]
            .as_str()
            .unwrap()
            .contains("of the last day reached nobody")
        {
            break;
        }
        assert!(begin.elapsed() < LONG, "{check}");
    }
    let address = ["user", "update", "root@pam", "--email", "root@localhost"];
    world.server.ok("manager", &address).unwrap();
    world.wait_for("notification-nobody", "ok");
    let (code, text) = world.health(&[]);
    assert_eq!(code, 0, "{text}");
    // A matcher that is switched off leads nobody anywhere.
    let off = [
        "notification",
        "matcher",
        "update",
        "default-matcher",
        "--disable",
        "true",
    ];
    world.server.ok("manager", &off).unwrap();
    let check = world.wait_for("notification-nobody", "warning");
    let evidence = check["evidence"].as_str().unwrap();
    assert!(
        evidence.contains("'default-matcher' is disabled"),
        "{evidence}"
    );
}

#[test]
fn what_was_accepted_while_the_settings_cannot_be_read_is_counted_as_waiting() {
    let world = World::new();
    let file = world.etc().join("notifications.cfg");
    fs::write(&file, "garbage").unwrap();
    let collect = ["garbage-collection", "start", "store1"];
    world.server.ok("manager", &collect).unwrap();
    let wait_until = |is_seen: &dyn Fn(&Value) -> bool| {
        let begin = Instant::now();
        loop {
            let checks = world.checks("notification-undelivered");
            let mut of_all = checks
                .iter()
                .filter(|check| check["object"] == "target/notifications");
            if of_all.any(is_seen) {
                return;
            }
            assert!(begin.elapsed() < LONG, "{checks:?}");
        }
    };
    wait_until(&|check| {
        let evidence = check["evidence"].to_string();
        evidence.contains("were not given to all targets yet")
    });
    fs::remove_file(&file).unwrap();
    wait_until(&|check| check["measure"]["value"] == 0.0);
}
