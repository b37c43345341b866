//! Notifications of the real program: to web hooks and a mail server that tests start, over ends of the process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod job_failures;
mod smtp;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use testbed::authority::Authority;
use testbed::push_receiver::{PushReceiver, Received};
use testbed::server::ServerProcess;

/// How long a server may take for what it does by itself.
const PATIENCE: Duration = Duration::from_secs(120);
/// In base64: `{"title":"{{ escape title }}","severity":"{{ severity }}","fields":{{ json fields }},"message":"{{ escape message }}"}`
const BODY: &str = "eyJ0aXRsZSI6Int7IGVzY2FwZSB0aXRsZSB9fSIsInNldmVyaXR5Ijoie3sgc2V2ZXJpdHkgfX0iLCJmaWVsZHMiOnt7IGpzb24gZmllbGRzIH19LCJtZXNzYWdlIjoie3sgZXNjYXBlIG1lc3NhZ2UgfX0ifQ==";

struct World {
    dir: tempfile::TempDir,
    server: ServerProcess,
    receiver: PushReceiver,
}

impl World {
    /// A server with a datastore whose target `hook` is a receiver that takes everything. `rules` say of what it is told.
    fn new(rules: &[&str]) -> Self {
        let dir = testbed::scratch::directory().unwrap();
        let server =
            ServerProcess::with_datastore(Path::new(env!("CARGO_BIN_EXE_backstop")), dir.path())
                .unwrap();
        let receiver = PushReceiver::start(|_| (200, String::new())).unwrap();
        let world = Self {
            dir,
            server,
            receiver,
        };
        let url = world.receiver.url("/hook/{{ secrets.path }}");
        // "hush-hush"
        let secret = "name=path,value=aHVzaC1odXNo";
        let hook = ["notification", "endpoint", "webhook", "create", "hook"];
        let settings = [
            "--method", "post", "--url", &url, "--body", BODY, "--secret", secret,
        ];
        world.manager(&[&hook[..], &settings].concat());
        let matcher = [
            "notification",
            "matcher",
            "create",
            "match",
            "--target",
            "hook",
        ];
        world.manager(&[&matcher[..], rules].concat());
        world
    }

    fn manager(&self, words: &[&str]) -> String {
        self.server.ok("manager", words).unwrap()
    }

    fn own(&self, words: &[&str]) -> String {
        self.server.ok("notification", words).unwrap()
    }

    /// Ends the server as a power cut would, and starts it again.
    fn cut_power(&mut self) {
        self.server.kill().unwrap();
        self.server = ServerProcess::start(
            Path::new(env!("CARGO_BIN_EXE_backstop")),
            self.dir.path(),
            ([127, 0, 0, 1], 0).into(),
        )
        .unwrap();
    }

    fn collect_garbage(&self) {
        self.manager(&["garbage-collection", "start", "store1"]);
    }

    /// Each question is a program of its own, so this does not spin.
    fn wait_until_all_has_arrived(&self) {
        let begin = Instant::now();
        while !self.undelivered().is_empty() {
            assert!(begin.elapsed() < PATIENCE, "{:?}", self.undelivered());
        }
    }

    fn undelivered(&self) -> Vec<Value> {
        let text = self.own(&["spool", "list", "--output-format", "json"]);
        serde_json::from_str(&text).unwrap()
    }
}

fn body(received: &Received) -> Value {
    serde_json::from_str(&received.text()).unwrap()
}

#[test]
fn what_did_not_arrive_arrives_after_a_power_cut() {
    let mut world = World::new(&["--match-field", "exact:type=gc"]);
    world
        .receiver
        .answer_with(|_| (500, "no: hush-hush".to_owned()));
    world.collect_garbage();
    let refused = world.receiver.wait_for(1);
    assert_eq!(refused[0].path(), "/hook/hush-hush");
    let failed = ["a notification did not arrive", "hook", "500"];
    world.server.wait_for_log(&failed, 1).unwrap();
    let undelivered = world.undelivered();
    assert_eq!(undelivered.len(), 1);
    assert_eq!(undelivered[0]["target"], "hook");
    assert_eq!(undelivered[0]["template"], "gc-ok");
    let reason = undelivered[0]["last-error"].as_str().unwrap();
    assert!(
        reason.contains("500") && !reason.contains("hush"),
        "{reason}"
    );

    world.cut_power();
    world.receiver.answer_with(|_| (200, String::new()));
    world.own(&["spool", "retry"]);
    let arrived = world.receiver.wait_for(2);
    let told = body(&arrived[1]);
    assert_eq!(
        told["title"],
        "Garbage Collect Datastore 'store1' successful"
    );
    assert_eq!(told["severity"], "info");
    assert_eq!(told["fields"]["datastore"], "store1");
    world
        .server
        .wait_for_log(&["told", "hook", "gc-ok"], 1)
        .unwrap();
    world.wait_until_all_has_arrived();
}

#[test]
fn a_target_that_never_answers_holds_up_no_other() {
    let world = World::new(&["--match-field", "exact:type=gc"]);
    let (hanging, hold) = PushReceiver::start_hanging().unwrap();
    let url = hanging.url("/hook");
    let hook = ["notification", "endpoint", "webhook", "create", "a-hanging"];
    world.manager(&[&hook[..], &["--method", "post", "--url", &url]].concat());
    // It is told first.
    let matcher = ["notification", "matcher", "update", "match"];
    let targets = ["--target", "a-hanging", "--target", "hook"];
    world.manager(&[&matcher[..], &targets].concat());
    for count in [1, 2] {
        world.collect_garbage();
        let arrived = world.receiver.wait_for(count);
        assert_eq!(body(&arrived[count - 1])["fields"]["type"], "gc");
        assert!(hanging.received().is_empty(), "it has answered nobody");
    }
    drop(hold);
    let _ = hanging.wait_for(2);
    world.wait_until_all_has_arrived();
}

#[test]
fn a_damaged_snapshot_is_told_once_and_its_recovery_once() {
    let rules = [
        "--match-severity",
        "error",
        "--match-field",
        "exact:type=verify",
    ];
    let mut world = World::new(&rules);
    let source = world.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    let archive = format!("etc.pxar:{}", source.display());
    let backup = [
        "backup",
        &archive,
        "--backup-id",
        "h1",
        "--backup-time",
        "1700000000",
    ];
    world.server.ok("client", &backup).unwrap();
    let job = ["verify-job", "create", "check", "--store", "store1"];
    let settings = ["--ignore-verified", "false"];
    world.manager(&[&job[..], &settings].concat());
    let index = world
        .dir
        .path()
        .join("datastore/store1/host/h1/2023-11-14T22:13:20Z/etc.pxar.didx");
    let good = fs::read(&index).unwrap();
    fs::write(&index, [&good[..good.len() - 1], b"x"].concat()).unwrap();
    let run = ["verify-job", "run", "check"];
    for _ in 0..2 {
        assert!(!world.server.run("manager", &run).unwrap().status.success());
    }
    let told = body(&world.receiver.wait_for(1)[0]);
    assert_eq!(told["title"], "Verify Datastore 'store1' failed");
    assert_eq!(told["fields"]["job-id"], "check");
    let text = told["message"].as_str().unwrap().to_owned();
    assert!(text.contains("host/h1/2023-11-14T22:13:20Z"), "{text}");

    // What was told is known after a power cut, too.
    world.cut_power();
    fs::write(&index, good).unwrap();
    world.manager(&run);
    let told = world.receiver.wait_for(2);
    let recovery = body(&told[1]);
    assert_eq!(
        recovery["title"],
        "Recovered: Verify Datastore 'store1' successful"
    );
    assert_eq!(recovery["severity"], "info");
    assert_eq!(recovery["fields"]["recovered"], "true");
    assert_eq!(recovery["fields"]["recovered-from"], "error");
    // The matcher takes no successes: the next one is not told, and nothing of before comes late.
    world.manager(&run);
    world.collect_garbage();
    world.manager(&["notification", "target", "test", "hook"]);
    let all = world.receiver.wait_for(3);
    assert_eq!(body(&all[2])["title"], "Test notification");
}

#[test]
fn a_backup_that_went_well_is_told_to_whoever_asks_for_it() {
    let world = World::new(&["--match-field", "exact:type=backup"]);
    let matcher = ["notification", "matcher", "create", "all"];
    let everything = PushReceiver::start(|_| (200, String::new())).unwrap();
    let url = everything.url("/");
    let hook = ["notification", "endpoint", "webhook", "create", "every"];
    let settings = ["--method", "post", "--url", &url, "--body", BODY];
    world.manager(&[&hook[..], &settings].concat());
    world.manager(&[&matcher[..], &["--target", "every"]].concat());
    let source = world.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    let archive = format!("etc.pxar:{}", source.display());
    let backup = ["backup", &archive, "--backup-id", "h1"];
    world.server.ok("client", &backup).unwrap();
    let told = body(&world.receiver.wait_for(1)[0]);
    assert_eq!(
        told["title"],
        "Backup of 'host/h1' to datastore 'store1' successful"
    );
    assert_eq!(told["fields"]["group"], "host/h1");
    // What is told to everybody comes after it, in order, without it.
    world.collect_garbage();
    let told = everything.wait_for(1);
    assert_eq!(body(&told[0])["fields"]["type"], "gc");
}

#[test]
fn a_backup_that_ended_with_the_server_is_told_when_it_starts_again() {
    let mut world = World::new(&["--match-severity", "error"]);
    world.server.kill().unwrap();
    let upid =
        "UPID:localhost:0000C0DE:00000001:00000002:65000000:backup:store1\\x3ahost-h1:root@pam:";
    let tasks = world.dir.path().join("var/log/proxmox-backup/tasks");
    fs::create_dir_all(tasks.join("01")).unwrap();
    let line = "2023-09-12T06:00:00+00:00: starting new backup on datastore 'store1' from 10.0.0.1: \"ns/a/host/h1/2023-09-12T06:00:00Z\"\n";
    fs::write(tasks.join("01").join(upid), line).unwrap();
    fs::write(tasks.join("active"), format!("{upid}\n")).unwrap();
    world.cut_power();
    let told = body(&world.receiver.wait_for(1)[0]);
    assert_eq!(
        told["title"],
        "Backup of 'host/h1' to datastore 'store1' failed"
    );
    assert_eq!(
        told["fields"],
        json!({ "type": "backup", "datastore": "store1", "namespace": "a", "group": "host/h1", "hostname": told["fields"]["hostname"] })
    );
}

#[test]
fn what_a_stock_server_left_is_sent_and_a_malformed_file_holds_up_nothing() {
    let mut world = World::new(&[]);
    world.server.kill().unwrap();
    let folder = world
        .dir
        .path()
        .join("var/lib/proxmox-backup/notifications");
    fs::write(folder.join("a.json"), "{ half").unwrap();
    let left = json!({
        "content": { "template": { "template-name": "package-updates", "data": { "hostname": "old", "available-updates": [] } } },
        "metadata": { "severity": "info", "timestamp": 1_700_000_000, "additional-fields": { "type": "package-updates", "hostname": "old" } },
        "id": "2f8a9a1e-7d3e-4b36-a6a3-0a8a4c1cbb6f",
    });
    fs::write(
        folder.join("2f8a9a1e-7d3e-4b36-a6a3-0a8a4c1cbb6f.json"),
        left.to_string(),
    )
    .unwrap();
    world.cut_power();
    let told = body(&world.receiver.wait_for(1)[0]);
    assert_eq!(told["title"], "New software packages available (old)");
    world
        .server
        .wait_for_log(&["a.json", "unreadable"], 1)
        .unwrap();
}

#[test]
fn a_recipe_makes_a_target_whose_secret_is_in_no_public_place() {
    use std::io::Write as _;
    let world = World::new(&["--match-field", "exact:type=none"]);
    let url = world.receiver.url("/services/hush-hush");
    let words = [
        "recipe",
        "create",
        "slack",
        "--name",
        "slack1",
        "--secrets",
        "-",
        "--matcher",
        "true",
    ];
    let mut command = world.server.command("notification", "store1");
    let mut child = command
        .args(words)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(format!("url={url}\n").as_bytes()).unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
    let etc = world.dir.path().join("etc/proxmox-backup");
    let public = fs::read_to_string(etc.join("notifications.cfg")).unwrap();
    assert!(public.contains("webhook: slack1") && public.contains("matcher: slack1-failures"));
    assert!(!public.contains("hush"), "{public}");
    let shown = world.manager(&["notification", "endpoint", "webhook", "show", "slack1"]);
    assert!(!shown.contains("hush"), "{shown}");
    world.manager(&["notification", "target", "test", "slack1"]);
    let got = world.receiver.wait_for(1);
    assert_eq!(got[0].path(), "/services/hush-hush");
    let text = body(&got[0])["text"].as_str().unwrap().to_owned();
    assert!(text.contains("*Test notification*"), "{text}");
}

#[test]
fn an_old_datastore_setting_sends_mail_to_its_user_also_about_damaged_snapshots() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new(&[]);
    let sendmail = world.dir.path().join("usr/sbin/sendmail");
    fs::create_dir_all(sendmail.parent().unwrap()).unwrap();
    let mails = world.dir.path().join("mails");
    fs::create_dir(&mails).unwrap();
    fs::set_permissions(&mails, fs::Permissions::from_mode(0o777)).unwrap();
    // under its last name only when it is whole
    let script = format!(
        "#!/bin/sh\nn=$(ls {0} | wc -l)\n(echo \"$@\"; cat) > {0}/.new && mv {0}/.new {0}/$n\n",
        mails.display()
    );
    fs::write(&sendmail, script).unwrap();
    fs::set_permissions(&sendmail, fs::Permissions::from_mode(0o755)).unwrap();
    let user = ["user", "create", "ann@pbs", "--email", "ann@example.com"];
    world.manager(&user);
    let store = ["datastore", "update", "store1"];
    let settings = [
        "--notification-mode",
        "legacy-sendmail",
        "--notify-user",
        "ann@pbs",
        "--notify",
        "gc=error,verify=error",
    ];
    world.manager(&[&store[..], &settings].concat());
    let snapshot = world
        .dir
        .path()
        .join("datastore/store1/host/h1/2023-11-14T22:13:20Z");
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(snapshot.join("index.json.blob"), "damaged").unwrap();
    let job = ["verify-job", "create", "check", "--store", "store1"];
    world.manager(&job);
    // A success of which nothing is to be told, and then a failure.
    world.collect_garbage();
    let run = ["verify-job", "run", "check"];
    assert!(!world.server.run("manager", &run).unwrap().status.success());
    world
        .server
        .wait_for_log(&["told", "user:ann@pbs", "verify-err"], 1)
        .unwrap();
    let list: Vec<_> = fs::read_dir(&mails).unwrap().collect();
    assert_eq!(list.len(), 1);
    let mail = fs::read_to_string(mails.join("0")).unwrap();
    assert!(mail.contains("-- ann@example.com\n"), "{mail}");
    assert!(
        mail.contains("Subject: Verify Datastore 'store1' failed"),
        "{mail}"
    );
    // and nothing of it went to the target of the matcher that takes everything
    world.manager(&["notification", "target", "test", "hook"]);
    let all = world.receiver.wait_for(1);
    assert_eq!(body(&all[0])["title"], "Test notification");
}

#[test]
fn another_certificate_of_the_server_is_told() {
    let world = World::new(&["--match-field", "exact:type=certificate"]);
    world.manager(&["cert", "update", "--force", "--now"]);
    let told = body(&world.receiver.wait_for(1)[0]);
    let title = told["title"].as_str().unwrap();
    assert!(
        title.starts_with("Certificate of ") && title.ends_with(" changed"),
        "{title}"
    );
    assert_eq!(told["severity"], "notice");
    let text = told["message"].as_str().unwrap();
    assert!(text.contains(&world.server.fingerprint), "{text}");
}

#[test]
fn a_certificate_that_is_about_to_end_is_told_and_its_renewal_too() {
    let world = World::new(&["--match-field", "exact:check=certificate-expiring"]);
    let authority = Authority::create(world.dir.path()).unwrap();
    let day = Duration::from_secs(86_400);
    let now = SystemTime::now();
    let files = authority
        .issue_for_a_time(
            world.dir.path(),
            "short",
            &["127.0.0.1"],
            (now - 88 * day, now + 2 * day),
        )
        .unwrap();
    let files = [files.0.to_str().unwrap(), files.1.to_str().unwrap()];
    world.manager(&["cert", "upload", files[0], files[1], "--now"]);
    // The server uses another certificate within seconds.
    let wait_for = |state: &str| {
        let begin = Instant::now();
        let words = [
            "--refresh",
            "true",
            "--all",
            "true",
            "--code",
            "certificate-expiring",
        ];
        loop {
            let output = world.server.run("health", &words).unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            if text.contains(state) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{text}");
        }
    };
    wait_for("critical");
    let told = body(&world.receiver.wait_for(1)[0]);
    assert_eq!(
        told["title"],
        "CRITICAL: certificate-expiring on certificate/own"
    );
    assert_eq!(told["severity"], "error");
    assert_eq!(told["fields"]["type"], "certificate");
    let text = told["message"].as_str().unwrap();
    assert!(
        text.contains("proxmox-backup-manager cert update"),
        "{text}"
    );

    world.manager(&["cert", "update", "--force", "--now"]);
    wait_for("ok");
    let told = body(&world.receiver.wait_for(2)[1]);
    assert_eq!(
        told["title"],
        "Recovered: certificate-expiring on certificate/own is well again"
    );
    assert_eq!(told["fields"]["recovered"], "true");
}
