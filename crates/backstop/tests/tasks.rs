//! Tasks as their operator meets them: what failed is told without disturbing scripts, logs can be followed, and
//! whatever runs can be stopped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::server::{ServerProcess, succeeded};
use testbed::tree;

struct World {
    server: ServerProcess,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = testbed::scratch::directory().unwrap();
        let root = dir.path().join("root");
        let server =
            ServerProcess::with_datastore(Path::new(env!("CARGO_BIN_EXE_backstop")), &root)
                .unwrap();
        Self { server, dir }
    }

    /// Creating a datastore where there are files is a task that fails.
    fn fail_a_task(&self) {
        let path = self.dir.path().join("full");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("file"), "x").unwrap();
        let path = path.to_str().unwrap();
        let output = self.manager(&["datastore", "create", "store2", path]);
        assert_eq!(output.status.code(), Some(255));
    }

    fn manager(&self, words: &[&str]) -> Output {
        self.server.run("manager", words).unwrap()
    }

    fn all_tasks(&self) -> Vec<Value> {
        let words = ["task", "list", "--all", "--limit", "20"];
        let output = self.manager(&[&words[..], &["--output-format", "json-pretty"]].concat());
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        serde_json::from_str(&succeeded(&output).unwrap()).unwrap()
    }

    /// A backup that takes minutes, and the id of its task.
    fn slow_backup(&self) -> (Child, String) {
        let tree = self.dir.path().join("big");
        tree::mixed(&tree, 2, 200, 64).unwrap();
        let mut command = self.server.command("client", "store1");
        let backup = command
            .arg("backup")
            .arg(format!("root.pxar:{}", tree.display()))
            .args(["--backup-id", "x", "--rate", "1MiB"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let upid = wait_for("the backup's task", || {
            let words = ["task", "list", "--output-format", "json"];
            let running = succeeded(&self.manager(&words)).unwrap();
            let running: Vec<Value> = serde_json::from_str(&running).unwrap();
            let task = running.first()?;
            assert!(task.get("endtime").is_none() && task.get("status").is_none());
            Some(task["upid"].as_str().unwrap().to_owned())
        });
        (backup, upid)
    }
}

/// Polls until there is something.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "no {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn what_failed_is_told_on_standard_error_and_scripts_are_not_disturbed() {
    let mut world = World::new();
    let quiet = world.manager(&["task", "list"]);
    assert_eq!(texts(&quiet), (String::new(), String::new()));
    world.fail_a_task();
    let told = |world: &World| {
        let list = world.manager(&["task", "list"]);
        assert_eq!(list.status.code(), Some(0));
        let (table, news) = texts(&list);
        assert_eq!(table, "", "nothing runs");
        assert!(
            news.starts_with("1 task failed in the last 24 hours:\n"),
            "{news}"
        );
        assert!(news.contains(" create-datastore store2\n"), "{news}");
        assert!(
            news.ends_with("All tasks: backstop manager task list --all --limit 50\n"),
            "{news}"
        );
        let hint = news
            .lines()
            .find_map(|line| line.trim().strip_prefix("backstop manager task log "));
        hint.unwrap().trim_matches('\'').to_owned()
    };
    let upid = told(&world);
    let (log, error) = texts(&world.manager(&["task", "log", &upid]));
    assert!(log.ends_with("\n") && log.contains("TASK ERROR: "), "{log}");
    assert!(error.starts_with("Error: task failed (status "), "{error}");
    let all = world.all_tasks();
    assert_eq!(all[0]["upid"], upid.as_str(), "newest first");
    assert_eq!(all[1]["status"], "OK");
    let as_json = world.manager(&["task", "list", "--output-format", "json"]);
    assert_eq!(texts(&as_json), ("[]\n".into(), String::new()));
    // The files tell the same when no server runs.
    world.server.stop().unwrap();
    assert_eq!(told(&world), upid);
}

#[test]
fn a_running_backup_is_followed_and_stopped() {
    let world = World::new();
    let (mut backup, upid) = world.slow_backup();
    let follower = world
        .server
        .command("manager", "store1")
        .args(["task", "log", &upid])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let store = world.server.root.join("datastore/store1");
    wait_for("chunk", || {
        let mut folders = fs::read_dir(store.join(".chunks")).unwrap();
        let stored = |folder: fs::DirEntry| fs::read_dir(folder.path()).unwrap().next().is_some();
        folders.any(|folder| stored(folder.unwrap())).then_some(())
    });
    let stop = world.manager(&["task", "stop", &upid]);
    assert_eq!(texts(&stop), (String::new(), String::new()));
    assert!(!backup.wait().unwrap().success());
    let (log, error) = texts(&follower.wait_with_output().unwrap());
    assert!(log.starts_with("starting new backup on datastore"), "{log}");
    assert!(log.contains("received abort request ...\n"), "{log}");
    assert!(error.starts_with("Error: task failed (status "), "{error}");
    assert!(
        world.all_tasks()[0]["status"]
            .as_str()
            .unwrap()
            .contains("abort"),
        "{:?}",
        world.all_tasks()[0]
    );
    let listed = world
        .server
        .ok("client", &["snapshot", "list", "--output-format", "json"])
        .unwrap();
    assert_eq!(listed, "[]\n");
}
