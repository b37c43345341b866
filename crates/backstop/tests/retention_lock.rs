//! The retention lock of the real program: whoever asks, on whichever way, a locked snapshot stays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use testbed::api::Api;
use testbed::server::ServerProcess;

const BINARY: &str = env!("CARGO_BIN_EXE_backstop");
const OLD: &str = "host/x/2023-11-14T22:13:21Z";
const NEW: &str = "host/x/2023-11-14T22:13:22Z";

struct World {
    server: ServerProcess,
    scratch: tempfile::TempDir,
}

impl World {
    /// Two snapshots in namespace `a`, which is locked for 30 days, and an empty namespace `b`.
    fn locked() -> Self {
        let scratch = testbed::scratch::directory().unwrap();
        let server =
            ServerProcess::with_datastore(Path::new(BINARY), &scratch.path().join("root")).unwrap();
        fs::write(scratch.path().join("file"), b"content\n").unwrap();
        let world = Self { server, scratch };
        for namespace in ["a", "b"] {
            world.ok("client", &["namespace", "create", namespace]);
        }
        for time in ["1700000001", "1700000002"] {
            world.backup("x", time);
        }
        let text = world.ok(
            "retention-lock",
            &["set", "store1", "--ns", "a", "--days", "30"],
        );
        assert!(text.contains("root@pam") && text.contains("30"), "{text}");
        world
    }

    fn backup(&self, id: &str, time: &str) {
        let spec = format!("etc.conf:{}", self.scratch.path().join("file").display());
        let words = [
            "backup",
            &spec,
            "--backup-id",
            id,
            "--backup-time",
            time,
            "--ns",
            "a",
        ];
        self.ok("client", &words);
    }

    fn ok(&self, tool: &str, words: &[&str]) -> String {
        self.server.ok(tool, words).unwrap()
    }

    fn refused(&self, tool: &str, words: &[&str]) -> String {
        let output = self.server.run(tool, words).unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(!output.status.success(), "{tool} {words:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        said
    }

    /// It is refused because of the lock, and says so.
    fn locked_out(&self, tool: &str, words: &[&str]) {
        let said = self.refused(tool, words);
        assert!(
            said.contains("in namespace 'a' is locked until 2")
                && said.contains("by the retention lock of namespace 'a' (30 days)"),
            "{tool} {words:?}: {said}"
        );
    }

    fn snapshots(&self) -> Vec<Value> {
        let words = ["snapshot", "list", "--ns", "a", "--output-format", "json"];
        serde_json::from_str(&self.ok("client", &words)).unwrap()
    }

    fn path(&self, below: &str) -> PathBuf {
        self.server.root.join("datastore/store1").join(below)
    }

    fn assert_complete(&self) {
        for snapshot in [OLD, NEW] {
            let words = ["restore", snapshot, "etc.conf", "-", "--ns", "a"];
            assert_eq!(self.ok("client", &words), "content\n");
        }
    }
}

#[test]
fn no_command_and_no_job_removes_a_locked_snapshot() {
    let world = World::locked();
    // as admin@pbs, who has the role Admin everywhere and owns the group
    world.locked_out("client", &["snapshot", "forget", OLD, "--ns", "a"]);
    let api = Api::connect(&world.server).unwrap();
    let group = json!({"ns": "a", "backup-type": "host", "backup-id": "x"});
    let said = api.delete("admin/datastore/store1/groups", group);
    let said = format!("{:#}", said.unwrap_err());
    assert!(
        said.contains("by the retention lock of namespace 'a'"),
        "{said}"
    );
    world.locked_out(
        "client",
        &["namespace", "delete", "a", "--delete-groups", "true"],
    );
    let words = ["group", "move", "host/x", "--ns", "a", "--target-ns", "b"];
    world.locked_out("client", &words);
    let said = world.refused("client", &["namespace", "move", "a", "--target-ns", "b/a"]);
    assert!(said.contains("could not be moved"), "{said}");
    // as root@pam
    let words = [
        "namespace",
        "delete",
        "store1",
        "a",
        "--delete-groups",
        "true",
    ];
    world.locked_out("manager", &words);
    world.locked_out("manager", &["datastore", "remove", "store1"]);
    let words = ["datastore", "remove", "store1", "--destroy-data", "true"];
    world.locked_out("manager", &words);
    // a refused removal leaves the datastore as it was
    world.assert_complete();

    // rules keep what is locked, say why, and are no failure
    let words = [
        "prune",
        "host/x",
        "--ns",
        "a",
        "--keep-last",
        "1",
        "--output-format",
        "json",
    ];
    let dry = [&words[..], &["--dry-run", "true"]].concat();
    for words in [&dry[..], &words[..]] {
        let pruned: Value = serde_json::from_str(&world.ok("client", words)).unwrap();
        let kept = pruned.as_array().unwrap().iter();
        assert!(
            kept.clone().all(|item| item["keep"] == json!(true)),
            "{pruned}"
        );
        assert_eq!(kept.count(), 2);
    }
    let group = json!({"ns": "a", "backup-type": "host", "backup-id": "x", "keep-last": 1,
        "dry-run": true, "reasons": true});
    let told = api.post("admin/datastore/store1/prune", group).unwrap();
    let reason = told[0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("retention lock until 2"), "{told}");
    world.ok(
        "manager",
        &[
            "prune-job",
            "create",
            "daily",
            "--store",
            "store1",
            "--schedule",
            "2199-1-1",
            "--keep-last",
            "1",
        ],
    );
    let log = world.ok("manager", &["prune-job", "run", "daily"]);
    assert!(
        log.contains(&format!("keep locked {OLD}")) && log.contains("TASK OK"),
        "{log}"
    );

    let listed = world.snapshots();
    assert_eq!(listed.len(), 2);
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for item in listed {
        let until = item["locked-until"].as_u64().unwrap();
        assert!(
            until > now + 29 * 86_400 && until <= now + 30 * 86_400,
            "{item}"
        );
    }
    let table = world.ok("client", &["snapshot", "list", "--ns", "a"]);
    assert!(
        !table.contains("locked"),
        "the table is that of stock clients: {table}"
    );
    world.assert_complete();
}

#[test]
fn a_lock_is_lengthened_at_once_and_shortened_only_by_the_superuser_after_a_while() {
    let world = World::locked();
    let api = Api::connect(&world.server).unwrap();
    let path = "backstop/datastore/store1/retention-lock";
    let refusal = |result: anyhow::Result<Value>| format!("{:#}", result.unwrap_err());

    let shorter = refusal(api.put(path, json!({"ns": "a", "days": 29})));
    assert!(
        shorter.contains("it cannot be set to 29, only lengthened"),
        "{shorter}"
    );
    api.put(path, json!({"ns": "a", "days": 31, "grace-hours": 48}))
        .unwrap();
    // a role is not enough
    for result in [
        api.delete(path, json!({"ns": "a"})),
        api.post(&format!("{path}/shorten"), json!({"ns": "a", "days": 1})),
        api.post(&format!("{path}/confirm-clock"), json!({})),
    ] {
        let said = refusal(result);
        assert!(said.contains("permission check failed"), "{said}");
    }
    let said = refusal(api.put(path, json!({"ns": "nowhere", "days": 5})));
    assert!(said.contains("namespace 'nowhere' not found"), "{said}");

    let words = ["request-removal", "store1", "--ns", "a"];
    let said = world.ok("retention-lock", &words);
    assert!(
        said.starts_with("Requested. It takes effect on 2"),
        "{said}"
    );
    let shown = world.ok("retention-lock", &["show", "store1"]);
    let request = "REQUEST: the lock of a is to be removed on 2";
    assert!(
        shown.contains(request) && shown.contains("root@pam"),
        "{shown}"
    );
    // a request opens nothing before its time, whether the server goes on or not
    let said = world.refused("client", &["snapshot", "forget", OLD, "--ns", "a"]);
    assert!(said.contains("(31 days)"), "{said}");
    let status = api.get(path).unwrap();
    let lock = &status["locks"][0];
    let (made, effective) = (
        &lock["request"]["made-at"],
        &lock["request"]["effective-at"],
    );
    assert_eq!(
        effective.as_i64().unwrap() - made.as_i64().unwrap(),
        48 * 3600
    );
    assert_eq!(status["governing"], Value::Null, "the root is not locked");

    // whoever may lengthen may also withdraw
    api.post(&format!("{path}/cancel"), json!({"ns": "a"}))
        .unwrap();
    let shown = world.ok(
        "retention-lock",
        &["show", "store1", "--output-format", "json"],
    );
    let status: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(status["locks"][0].get("request"), None);
    let by: Vec<&str> = status["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| change["by"].as_str().unwrap())
        .collect();
    assert_eq!(by, ["root@pam", "admin@pbs", "root@pam", "admin@pbs"]);
    let said = world.refused("retention-lock", &["confirm-clock", "store1"]);
    assert!(said.contains("there is nothing to confirm"), "{said}");
    // each change is a task of whoever made it, the refused ones too
    let tasks = world.ok(
        "manager",
        &["task", "list", "--all", "--output-format", "json"],
    );
    let tasks: Vec<Value> = serde_json::from_str(&tasks).unwrap();
    let of_lock = tasks
        .iter()
        .filter(|task| task["worker_type"] == "retention-lock");
    assert_eq!(of_lock.count(), 7, "{tasks:?}");
}

#[test]
fn a_lock_survives_the_server_and_holds_without_one() {
    let mut world = World::locked();
    world.server.kill().unwrap();
    let words = [
        "namespace",
        "delete",
        "store1",
        "a",
        "--delete-groups",
        "true",
    ];
    world.locked_out("manager", &words);
    world.locked_out("manager", &["datastore", "remove", "store1"]);
    let shown = world.ok("retention-lock", &["show", "store1", "--ns", "a"]);
    assert!(shown.contains("30"), "{shown}");
    let said = world.refused(
        "retention-lock",
        &["set", "store1", "--ns", "a", "--days", "3"],
    );
    assert!(said.contains("only lengthened"), "{said}");
    world.ok("retention-lock", &["set", "store1", "--days", "2"]);
    world.ok(
        "retention-lock",
        &["shorten", "store1", "--ns", "a", "--days", "3"],
    );
    world.ok("retention-lock", &["cancel", "store1", "--ns", "a"]);
    assert!(world.path(".backstop-retention-lock.json").is_file());

    // another installation that takes the datastore over is bound by its lock
    let root = world.scratch.path().join("root2");
    let other = ServerProcess::start(Path::new(BINARY), &root, ([127, 0, 0, 1], 0).into()).unwrap();
    let path = world.path("");
    let path = path.to_str().unwrap().trim_end_matches('/');
    other
        .ok(
            "manager",
            &[
                "datastore",
                "create",
                "store1",
                path,
                "--reuse-datastore",
                "true",
            ],
        )
        .unwrap();
    world.server = other;
    world.locked_out("client", &["snapshot", "forget", OLD, "--ns", "a"]);
    world.assert_complete();
}

impl World {
    /// Lets the lock's file have been written at another time, while no server runs.
    fn restart_with(&mut self, edit: impl FnOnce(&mut Value)) {
        self.server.stop().unwrap();
        let path = self.path(".backstop-retention-lock.json");
        let mut locks: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut locks);
        fs::write(&path, serde_json::to_vec(&locks).unwrap()).unwrap();
        let root = self.server.root.clone();
        self.server =
            ServerProcess::start(Path::new(BINARY), &root, ([127, 0, 0, 1], 0).into()).unwrap();
    }

    /// Lets the data of a snapshot have been written so many days ago.
    fn age(&self, snapshot: &str, days: u64) {
        let then = SystemTime::now() - Duration::from_secs(days * 86_400);
        let file = self.path(&format!("ns/a/{snapshot}/etc.conf.blob"));
        let file = fs::File::options().append(true).open(file).unwrap();
        file.set_modified(then).unwrap();
    }
}

#[test]
fn time_that_nobody_saw_passing_counts_when_it_is_confirmed_and_requests_come_true_in_time() {
    let mut world = World::locked();
    let forget = |snapshot| ["snapshot", "forget", snapshot, "--ns", "a"];
    // the server was off for 40 days, or its clock is set forward
    world.age(OLD, 35);
    let now = i64::try_from(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs(),
    )
    .unwrap();
    world.restart_with(|locks| locks["seen"] = json!(now - 40 * 86_400));
    let said = world.refused("client", &forget(OLD));
    assert!(
        said.contains("has jumped") && said.contains("confirm-clock"),
        "{said}"
    );
    let shown = world.ok("retention-lock", &["show", "store1"]);
    assert!(
        shown.contains("CLOCK: the clock of the system is "),
        "{shown}"
    );
    world.ok("retention-lock", &["confirm-clock", "store1"]);
    let shown = world.ok("retention-lock", &["show", "store1"]);
    assert!(
        shown.contains("REQUEST: the clock is to be believed from 2"),
        "{shown}"
    );
    let said = world.refused("client", &forget(OLD));
    assert!(said.contains("has jumped"), "{said}");

    // the grace window passes
    world.restart_with(|locks| locks["clock-request"]["effective-at"] = locks["seen"].clone());
    world.ok("client", &forget(OLD));
    world.locked_out("client", &forget(NEW));
    let shown = world.ok("retention-lock", &["show", "store1"]);
    assert!(
        !shown.contains("CLOCK") && !shown.contains("REQUEST"),
        "{shown}"
    );

    world.age(NEW, 2);
    world.ok(
        "retention-lock",
        &["shorten", "store1", "--ns", "a", "--days", "1"],
    );
    world.locked_out("client", &forget(NEW));
    world.restart_with(|locks| locks["locks"]["a"]["request"]["effective-at"] = json!(now));
    world.ok("client", &forget(NEW));
    let shown = world.ok("retention-lock", &["show", "store1"]);
    assert!(
        shown.contains("shorten") || shown.contains(" 1 "),
        "{shown}"
    );
}

#[test]
fn a_change_that_is_killed_is_made_or_not_and_never_spoils_the_lock() {
    let mut world = World::locked();
    world.server.kill().unwrap();
    let mut held = 30;
    for days in 31..51_u64 {
        let mut command = world.server.command("retention-lock", "store1");
        let wanted = days.to_string();
        command.args(["set", "store1", "--ns", "a", "--days", &wanted]);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // at another moment each time
        std::thread::sleep(Duration::from_millis(days % 20 * 3));
        let _ = child.kill();
        let done = child.wait().unwrap();
        let words = ["show", "store1", "--ns", "a", "--output-format", "json"];
        let status: Value = serde_json::from_str(&world.ok("retention-lock", &words)).unwrap();
        let now = status["governing"]["days"].as_u64().unwrap();
        assert!(
            now == days || (now == held && !done.success()),
            "{now} of {days}"
        );
        held = now;
    }
}
