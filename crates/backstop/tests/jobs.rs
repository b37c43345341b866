//! Jobs of the real program: set up by the manager, run by the server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::server::{ServerProcess, succeeded};

/// How long a server may take for what it does at its start.
const PATIENCE: Duration = Duration::from_secs(120);

fn state_file(root: &Path, name: &str) -> PathBuf {
    root.join("var/lib/proxmox-backup/jobstates").join(name)
}

fn state(root: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(state_file(root, name)).unwrap()).unwrap()
}

/// Asks until the state of a job is `finished`. Each question is a program of its own, so this does not spin.
fn wait_until_finished(server: &ServerProcess, root: &Path, name: &str) -> Value {
    let begin = Instant::now();
    loop {
        let state = state(root, name);
        if let Some(finished) = state.get("finished") {
            return finished.clone();
        }
        assert!(begin.elapsed() < PATIENCE, "{name} is {state}");
        server.ok("manager", &["task", "list", "--all"]).unwrap();
    }
}

fn backup(server: &ServerProcess, source: &Path, time: i64) {
    let time = time.to_string();
    let archive = format!("etc.pxar:{}", source.display());
    let words = [
        "backup",
        &archive,
        "--backup-id",
        "h1",
        "--backup-time",
        &time,
    ];
    server.ok("client", &words).unwrap();
}

fn snapshots(server: &ServerProcess) -> usize {
    let words = ["snapshot", "list", "--output-format", "json"];
    let list: Value = serde_json::from_str(&server.ok("client", &words).unwrap()).unwrap();
    list.as_array().unwrap().len()
}

#[test]
fn what_was_missed_runs_at_the_start_and_nothing_else_does() {
    let dir = testbed::scratch::directory().unwrap();
    let root = dir.path();
    let binary = Path::new(env!("CARGO_BIN_EXE_backstop"));
    let mut server = ServerProcess::with_datastore(binary, root).unwrap();
    let source = root.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    for time in [1_700_000_000, 1_700_000_100, 1_700_000_200] {
        backup(&server, &source, time);
    }
    let manager = |words: &[&str]| server.ok("manager", words).unwrap();
    manager(&[
        "prune-job",
        "create",
        "missed",
        "--store",
        "store1",
        "--schedule",
        "hourly",
        "--keep-last",
        "1",
    ]);
    manager(&[
        "verify-job",
        "create",
        "later",
        "--store",
        "store1",
        "--schedule",
        "2199-1-1",
    ]);
    manager(&[
        "prune-job",
        "create",
        "off",
        "--store",
        "store1",
        "--schedule",
        "minutely",
        "--disable",
        "true",
    ]);
    manager(&["datastore", "update", "store1", "--gc-schedule", "daily"]);
    let refused = server
        .run(
            "manager",
            &["prune-job", "update", "missed", "--schedule", "24:00"],
        )
        .unwrap();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        text.starts_with("Error: parameter verification failed - 'schedule': unable to parse calendar event at '24:00' - "),
        "{text}"
    );
    server.stop().unwrap();

    // Two days pass; one job is broken by hand.
    let long_ago = format!("{{\"created\":{{\"time\":{}}}}}", now() - 2 * 86_400);
    for name in [
        "prunejob-missed",
        "prunejob-off",
        "verificationjob-later",
        "garbage_collection-store1",
    ] {
        fs::write(state_file(root, &format!("{name}.json")), &long_ago).unwrap();
    }
    let config = root.join("etc/proxmox-backup/prune.cfg");
    let broken = fs::read_to_string(&config).unwrap()
        + "\nprune: broken\n\tschedule 24:00\n\tstore store1\n";
    fs::write(&config, broken).unwrap();

    let server = ServerProcess::start(binary, root, ([127, 0, 0, 1], 0).into()).unwrap();
    let pruned = wait_until_finished(&server, root, "prunejob-missed.json");
    assert!(pruned["state"]["OK"]["endtime"].is_i64(), "{pruned}");
    assert_eq!(snapshots(&server), 1);
    let log = server
        .ok(
            "manager",
            &["task", "log", pruned["upid"].as_str().unwrap()],
        )
        .unwrap();
    for line in [
        "prune job 'missed'",
        "task triggered by schedule 'hourly'",
        "retention options: --keep-last 1",
        "TASK OK",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    let collected = wait_until_finished(&server, root, "garbage_collection-store1.json");
    assert!(
        collected["upid"]
            .as_str()
            .unwrap()
            .contains(":garbage_collection:store1:root@pam:")
    );
    for name in ["verificationjob-later.json", "prunejob-off.json"] {
        assert_eq!(state(root, name).to_string(), long_ago, "{name}");
    }
    // Nothing is due any more, and the jobs tell of their runs.
    let list = server
        .ok(
            "manager",
            &["garbage-collection", "list", "--output-format", "json"],
        )
        .unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list[0]["last-run-state"], "OK");
    assert!(list[0]["next-run"].as_i64().unwrap() > now());
}

#[test]
fn a_job_that_cannot_begin_fails_in_sight_and_runs_when_its_datastore_is_back() {
    let dir = testbed::scratch::directory().unwrap();
    let root = dir.path();
    let binary = Path::new(env!("CARGO_BIN_EXE_backstop"));
    let mut server = ServerProcess::with_datastore(binary, root).unwrap();
    let jobs = [
        ("prunejob-nightly", "prunejob"),
        ("verificationjob-weekly", "verificationjob"),
        ("garbage_collection-store1", "garbage_collection"),
    ];
    for words in [
        &["prune-job", "create", "nightly", "--store", "store1"][..],
        &["verify-job", "create", "weekly", "--store", "store1"],
        &["datastore", "update", "store1"],
    ] {
        let key = match words[0] {
            "datastore" => "--gc-schedule",
            _ => "--schedule",
        };
        server
            .ok("manager", &[words, &[key, "monthly"]].concat())
            .unwrap();
    }
    let path = server
        .ok(
            "manager",
            &["datastore", "show", "store1", "--output-format", "json"],
        )
        .unwrap();
    let path: Value = serde_json::from_str(&path).unwrap();
    let path = PathBuf::from(path["path"].as_str().unwrap());
    server.stop().unwrap();
    let away = path.with_extension("away");
    fs::rename(&path, &away).unwrap();
    let made = now() - 40 * 86_400;
    for (name, _) in jobs {
        let text = format!("{{\"created\":{{\"time\":{made}}}}}");
        fs::write(state_file(root, &format!("{name}.json")), text).unwrap();
    }

    // Each leaves a task that failed and says why, and is known to be owed a run.
    let mut server = ServerProcess::start(binary, root, ([127, 0, 0, 1], 0).into()).unwrap();
    for (name, kind) in jobs {
        let failed = wait_until_finished(&server, root, &format!("{name}.json"));
        let reason = failed["state"]["Error"]["message"].as_str().unwrap();
        assert!(
            reason.contains("'store1'") && reason.contains("No such file"),
            "{failed}"
        );
        let upid = failed["upid"].as_str().unwrap();
        assert!(upid.contains(&format!(":{kind}:store1")), "{upid}");
        // The command fails as the task did.
        let log = server.run("manager", &["task", "log", upid]).unwrap();
        let log = String::from_utf8(log.stdout).unwrap();
        for line in [
            "task triggered by schedule 'monthly'",
            "it cannot begin; it is tried again each minute until it can",
            reason,
        ] {
            assert!(log.contains(line), "{line}: {log}");
        }
        let history = state(root, &format!("{name}.history"));
        assert_eq!(history["failures"], 1, "{history}");
        assert_eq!(history["owed"], true, "{history}");
    }
    let health = server
        .run("health", &["--refresh", "true", "--code", "job-failed"])
        .unwrap();
    let health = String::from_utf8_lossy(&health.stdout).into_owned();
    assert!(health.contains("job/prune/nightly"), "{health}");
    server.stop().unwrap();

    // The next server does not wait for the next month.
    fs::rename(&away, &path).unwrap();
    let server = ServerProcess::start(binary, root, ([127, 0, 0, 1], 0).into()).unwrap();
    for (name, _) in jobs {
        let begin = Instant::now();
        loop {
            let history = state(root, &format!("{name}.history"));
            if history["failures"] == 0 {
                assert_eq!(history.get("owed"), None, "{history}");
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{name}: {history}");
            server.ok("manager", &["task", "list", "--all"]).unwrap();
        }
    }
}

#[test]
fn a_job_runs_on_demand_and_says_how_it_ended() {
    let dir = testbed::scratch::directory().unwrap();
    let root = dir.path();
    let server =
        ServerProcess::with_datastore(Path::new(env!("CARGO_BIN_EXE_backstop")), root).unwrap();
    let source = root.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    backup(&server, &source, 1_700_000_000);
    let manager = |words: &[&str]| server.ok("manager", words).unwrap();
    manager(&[
        "verify-job",
        "create",
        "check",
        "--store",
        "store1",
        "--ignore-verified",
        "false",
    ]);
    assert_eq!(
        state(root, "verificationjob-check.json")["created"]["time"]
            .as_i64()
            .map(|time| time > 1_700_000_000),
        Some(true)
    );
    backup(&server, &source, 1_700_000_060);
    let output = manager(&["verify-job", "run", "check"]);
    let lines: Vec<&str> = output.lines().collect();
    let [begin, store, found, threads, group, newest, ..] = lines[..] else {
        panic!("{output}");
    };
    assert_eq!(
        [begin, store, found],
        [
            "Starting datastore verify job 'store1:check'",
            "verify datastore store1",
            "found 1 groups",
        ]
    );
    assert!(threads.starts_with("using ") && threads.ends_with(" verify thread(s)"));
    assert!(group.starts_with("verify group store1:host/") && group.ends_with(" (2 snapshots)"));
    assert!(newest.ends_with("/2023-11-14T22:14:20Z"), "{newest}");
    let shares: Vec<&str> = output
        .lines()
        .filter(|line| line.starts_with("percentage done: "))
        .collect();
    assert_eq!(
        shares,
        [
            "percentage done: 50.00% (0/1 groups, 1/2 snapshots in group #1)",
            "percentage done: 100.00% (1/1 groups)",
        ]
    );
    assert!(output.ends_with("TASK OK\n"), "{output}");
    let finished = wait_until_finished(&server, root, "verificationjob-check.json");
    assert!(finished["state"]["OK"]["endtime"].is_i64(), "{finished}");

    // A job without rules keeps everything and warns.
    manager(&[
        "prune-job",
        "create",
        "idle",
        "--store",
        "store1",
        "--schedule",
        "2199-1-1",
    ]);
    let output = server
        .run("manager", &["prune-job", "run", "idle"])
        .unwrap();
    let output = succeeded(&output).unwrap();
    assert!(
        output.contains("No prune selection - keeping all files.")
            && output.ends_with("TASK WARNINGS: 1\n"),
        "{output}"
    );
    assert_eq!(snapshots(&server), 2);

    // One whose datastore may not be written fails to start, and says why.
    manager(&[
        "datastore",
        "update",
        "store1",
        "--maintenance-mode",
        "read-only",
    ]);
    let refused = server
        .run("manager", &["prune-job", "run", "idle"])
        .unwrap();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        text.contains("datastore 'store1' is unavailable: read-only maintenance mode"),
        "{text}"
    );
    let unknown = server
        .run("manager", &["prune-job", "run", "nope"])
        .unwrap();
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no such prune 'nope'"));
    manager(&["prune-job", "remove", "idle"]);
    assert!(!state_file(root, "prunejob-idle.json").exists());
}

fn now() -> i64 {
    i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap()
}
