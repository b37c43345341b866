//! The tool that writes the configuration is killed while it writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::random::Random;
use testbed::server::succeeded;

use crate::world::seed;

const KILLS: u32 = 60;

fn manager(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
    command
        .arg("manager")
        .args(words)
        .env("BACKSTOP_ROOT", root)
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn ok(root: &Path, words: &[&str]) -> String {
    succeeded(&manager(root, words).output().unwrap()).unwrap()
}

/// The comment of each user and datastore, and the role of each permission.
fn state(root: &Path) -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    for (list, key, value) in [
        ("user", "userid", "comment"),
        ("datastore", "name", "comment"),
        ("acl", "ugid", "roleid"),
    ] {
        let items = ok(root, &[list, "list", "--output-format", "json"]);
        let items: Vec<Value> = serde_json::from_str(&items).unwrap();
        for item in items {
            let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
            state.insert(format!("{list} {}", text(key)), text(value));
        }
    }
    state
}

#[test]
fn a_configuration_write_that_is_killed_happens_wholly_or_not_at_all() {
    let dir = testbed::scratch::directory().unwrap();
    let root = dir.path();
    let mut random = Random::new(seed("configuration"));
    let path = root.join("datastore/store1");
    ok(
        root,
        &["datastore", "create", "store1", path.to_str().unwrap()],
    );
    ok(root, &["user", "create", "anna@pbs", "--comment", "0"]);
    let start = Instant::now();
    ok(root, &["user", "update", "anna@pbs", "--comment", "1"]);
    let usual = start.elapsed().as_micros() as u64;
    let mut known = state(root);
    for cycle in 2..KILLS + 2 {
        let number = cycle.to_string();
        let user = format!("user{}@pbs", cycle % 7);
        let create = !known.contains_key(&format!("user {user}"));
        let role = ["Audit", "Admin", "DatastoreBackup"][cycle as usize % 3];
        let (words, key, value) = match cycle % 4 {
            0 if create => (
                vec!["user", "create", &user, "--comment", &number],
                format!("user {user}"),
                Some(number.clone()),
            ),
            0 => (vec!["user", "remove", &user], format!("user {user}"), None),
            1 => (
                vec!["user", "update", "anna@pbs", "--comment", &number],
                "user anna@pbs".to_owned(),
                Some(number.clone()),
            ),
            2 => (
                vec!["datastore", "update", "store1", "--comment", &number],
                "datastore store1".to_owned(),
                Some(number.clone()),
            ),
            _ => (
                vec![
                    "acl",
                    "update",
                    "/datastore/store1",
                    role,
                    "--auth-id",
                    "anna@pbs",
                ],
                "acl anna@pbs".to_owned(),
                Some(role.to_owned()),
            ),
        };
        let is_role = key.starts_with("acl");
        let mut child = manager(root, &words).spawn().unwrap();
        // The moment is the point of the test.
        std::thread::sleep(Duration::from_micros(random.below(2 * usual)));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let mut wanted = known.clone();
        match value {
            Some(value) => wanted.insert(key, value),
            None => wanted.remove(&key),
        };
        let found = state(root);
        // A user can have several roles; the list shows all, the map one of them.
        let same = |wanted: &BTreeMap<String, String>| {
            let mut pairs = found.iter().zip(wanted);
            found.len() == wanted.len()
                && pairs.all(|(a, b)| a == b || (is_role && a.0 == b.0 && a.0.starts_with("acl")))
        };
        assert!(
            same(&wanted) || (same(&known) && !output.status.success()),
            "{words:?}: {found:?}, before {known:?}"
        );
        known = found;
    }
    // Nobody waits for a lock of the dead, and their temporaries do not pile up.
    ok(root, &["user", "update", "anna@pbs", "--comment", "last"]);
    let stale = fs::read_dir(root.join("etc/proxmox-backup"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("tmp"))
        .count();
    assert!(stale <= 8, "{stale} temporary files are left");
}
