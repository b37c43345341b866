//! Failures of jobs, and damage, that somebody hears of whatever became of the run: cut off, expected, acknowledged, by hand.

use std::fs;

use super::*;

const TITLE: &str = "title";

/// What was told, when so much of it has come.
fn titles(world: &World, count: usize) -> Vec<String> {
    let received = world.receiver.wait_for(count);
    received
        .iter()
        .map(|told| body(told)[TITLE].as_str().unwrap().to_owned())
        .collect()
}

impl World {
    /// Makes health look, and waits until a check is in this state.
    fn wait_for_check(&self, code: &str, state: &str) {
        let begin = Instant::now();
        let words = ["--refresh", "true", "--code", code];
        let form = ["--all", "true", "--output-format", "json"];
        loop {
            let output = self
                .server
                .run("health", &[&words[..], &form].concat())
                .unwrap();
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
            let checks = answer["checks"].as_array().unwrap();
            if checks.iter().any(|check| check["state"] == state) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "none is {state}: {answer}");
        }
    }

    fn run_failing_sync(&self) {
        let run = ["sync-job", "run", "copies"];
        assert!(!self.server.run("manager", &run).unwrap().status.success());
    }
}

#[test]
fn a_job_that_was_cut_off_is_told_when_the_next_server_starts() {
    let mut world = World::new(&["--match-field", "exact:type=prune"]);
    let job = ["prune-job", "create", "nightly", "--store", "store1"];
    let settings = ["--schedule", "2199-1-1", "--keep-last", "1"];
    world.manager(&[&job[..], &settings].concat());
    // As a power cut in the middle of a run leaves it: the process of the task is gone.
    let upid = "UPID:h:7FFFFFF0:00000001:00000001:6B000000:prunejob:store1:root@pam:";
    let state = format!("{{\"started\":{{\"upid\":\"{upid}\"}}}}");
    let file = "var/lib/proxmox-backup/jobstates/prunejob-nightly.json";
    let file = world.dir.path().join(file);
    world.server.stop().unwrap();
    fs::write(&file, state).unwrap();
    world.cut_power();
    let told = body(&world.receiver.wait_for(1)[0]);
    assert_eq!(told[TITLE], "Pruning datastore 'store1' failed");
    let text = told["message"].as_str().unwrap();
    assert!(text.contains("it was cut off"), "{text}");
    // Only once: not by health, and not by the server after this one.
    world.wait_for_check("job-failed", "critical");
    world.cut_power();
    world.wait_for_check("job-failed", "critical");
    world.manager(&["notification", "target", "test", "hook"]);
    assert_eq!(titles(&world, 2).len(), 2);
}

#[test]
fn a_failure_in_a_maintenance_window_is_told_when_it_outlasts_it() {
    let world = World::new(&["--match-severity", "error"]);
    world.server.create_failing_sync("copies").unwrap();
    // A job that health has not looked at yet is in no window.
    world.wait_for_check("job-failed", "ok");
    let tell = |words: &[&str]| world.server.ok("health", words).unwrap();
    tell(&["window", "add", "moving", "2h", "--code", "job-failed"]);
    world.run_failing_sync();
    world.wait_for_check("job-failed", "critical");
    world.run_failing_sync();
    world.manager(&["notification", "target", "test", "hook"]);
    assert_eq!(titles(&world, 1), ["Test notification"]);
    tell(&["window", "remove", "moving"]);
    world.wait_for_check("job-failed", "critical");
    let title = "CRITICAL: job-failed on job/sync/copies";
    assert_eq!(titles(&world, 2)[1], title);

    // What is acknowledged is not told again, and is when that ends.
    let object = ["job-failed", "job/sync/copies"];
    tell(&[&["acknowledge"], &object[..]].concat());
    world.run_failing_sync();
    world.wait_for_check("job-failed", "critical");
    world.manager(&["notification", "target", "test", "hook"]);
    assert_eq!(titles(&world, 3)[2], "Test notification");
    // The next failure after that is told by its run; health may have looked in between.
    tell(&[&["unacknowledge"], &object[..]].concat());
    world.run_failing_sync();
    let mut told = titles(&world, 4).split_off(3);
    if told == [title] {
        told = titles(&world, 5).split_off(4);
    }
    assert!(told[0].starts_with("Sync remote 'dead' "), "{told:?}");
}

#[test]
fn damage_that_a_verification_by_hand_finds_is_told() {
    let world = World::new(&["--match-severity", "error"]);
    let source = world.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    let archive = format!("etc.pxar:{}", source.display());
    let time = ["--backup-time", "1700000000"];
    let backup = ["backup", &archive, "--backup-id", "h1"];
    world
        .server
        .ok("client", &[&backup[..], &time].concat())
        .unwrap();
    let snapshot = world
        .dir
        .path()
        .join("datastore/store1/host/h1/2023-11-14T22:13:20Z");
    let index = snapshot.join("etc.pxar.didx");
    let good = fs::read(&index).unwrap();
    fs::write(&index, [&good[..good.len() - 1], b"x"].concat()).unwrap();
    let verified = world.server.run("manager", &["verify", "store1"]).unwrap();
    assert!(!verified.status.success());
    world.wait_for_check("backup-verify-failed", "critical");
    let told = body(&world.receiver.wait_for(1)[0]);
    assert_eq!(
        told[TITLE],
        "CRITICAL: backup-verify-failed on group/store1/host/h1"
    );
    fs::write(&index, good).unwrap();
    world.manager(&["verify", "store1", "--ignore-verified", "false"]);
    world.wait_for_check("backup-verify-failed", "ok");
    let told = body(&world.receiver.wait_for(2)[1]);
    assert_eq!(told["fields"]["recovered"], "true");
}
