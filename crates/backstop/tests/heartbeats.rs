//! Heartbeats of the real server: each finished run is told once, and what fails is told later.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use testbed::api::Api;
use testbed::authority::Authority;
use testbed::push_receiver::{PushReceiver, Received, Watch};
use testbed::server::ServerProcess;
use testbed::waiting_backup::WaitingBackup;

const BINARY: &str = env!("CARGO_BIN_EXE_backstop");
const TOKEN: &str = "T0kenT0ken";

struct World {
    server: ServerProcess,
    scratch: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let scratch = testbed::scratch::directory().unwrap();
        let server =
            ServerProcess::with_datastore(Path::new(BINARY), &scratch.path().join("root")).unwrap();
        std::fs::write(scratch.path().join("file"), b"content\n").unwrap();
        Self { server, scratch }
    }

    fn api(&self) -> Api {
        Api::connect(&self.server).unwrap()
    }

    fn heartbeat(&self, words: &[&str]) -> Output {
        self.server.run("heartbeat", words).unwrap()
    }

    fn create(&self, name: &str, url: &str, more: &[&str]) {
        let words = [&["create", name, "--url", url], more].concat();
        let output = self.heartbeat(&words);
        assert!(output.status.success(), "{output:?}");
    }

    fn back_up(&self, id: &str, more: &[&str]) -> Output {
        let spec = format!("etc.conf:{}", self.scratch.path().join("file").display());
        let words = [&["backup", &spec, "--backup-id", id], more].concat();
        self.server.run("client", &words).unwrap()
    }

    /// Runs a garbage collection to its end.
    fn collect(&self, api: &Api) {
        let upid = api.post("admin/datastore/store1/gc", json!({})).unwrap();
        api.end_of(&upid).unwrap();
    }

    /// Waits until so many pushes of a heartbeat have failed or wait behind one that has.
    fn wait_until_undelivered(&self, api: &Api, name: &str, count: usize) -> Value {
        let path = format!("backstop/heartbeats/{name}");
        api.wait(&path, |view| {
            view["undelivered"].as_array().map(Vec::len) == Some(count)
        })
        .unwrap()
    }

    fn restart(&mut self) {
        self.server.kill().unwrap();
        let root = self.server.root.clone();
        self.server =
            ServerProcess::start(Path::new(BINARY), &root, ([127, 0, 0, 1], 0).into()).unwrap();
    }
}

fn fine(_: &Received) -> (u16, String) {
    (200, r#"{"ok":true}"#.to_owned())
}

fn told(push: &Received) -> (String, String) {
    (
        push.parameter("status").unwrap(),
        push.parameter("msg").unwrap(),
    )
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn each_finished_run_is_told_once_to_who_watches_it() {
    let world = World::new();
    let api = world.api();
    let receiver = PushReceiver::start(fine).unwrap();
    let url = |name: &str| receiver.url(&format!("/api/push/{name}?status=up&msg=OK&ping="));
    world
        .server
        .ok("client", &["namespace", "create", "site"])
        .unwrap();
    world.create("all", &url("all"), &[]);
    world.create("gcs", &url("gcs"), &["--job", "gc:store1"]);
    world.create("site", &url("site"), &["--store", "store1", "--ns", "site"]);
    let group = ["--store", "store1", "--group", "host/web"];
    world.create("web", &url("web"), &group);
    world.create("asleep", &url("asleep"), &["--disable", "true"]);

    assert!(world.back_up("web", &[]).status.success());
    assert!(world.back_up("web", &["--ns", "site"]).status.success());
    world.collect(&api);
    // Three runs for `all`, one for each of the others.
    let pushes = receiver.wait_for(6);
    let of = |name: &str| -> Vec<(String, String)> {
        let path = format!("/api/push/{name}");
        pushes
            .iter()
            .filter(|push| push.path() == path)
            .map(told)
            .collect()
    };
    let up = |message: &str| ("up".to_owned(), message.to_owned());
    let (web, site) = (
        up("backup store1:host/web: OK"),
        up("backup store1:site/host/web: OK"),
    );
    let gc = up("gc:store1: OK");
    // A client is done a moment before its session is.
    let mut all = of("all");
    all.sort();
    assert_eq!(all, [web.clone(), site.clone(), gc.clone()]);
    assert_eq!(
        (of("gcs"), of("site"), of("web")),
        (vec![gc], vec![site], vec![web])
    );
    for push in &pushes {
        let ping: u64 = push.parameter("ping").unwrap().parse().unwrap();
        assert!(ping < 600_000, "{ping}");
        assert_eq!(push.method, "GET");
    }
    assert_eq!(receiver.received().len(), 6);
}

#[test]
fn a_backup_that_is_cut_off_is_told_as_a_failure() {
    let world = World::new();
    let receiver = PushReceiver::start(fine).unwrap();
    world.create("all", &receiver.url(&format!("/api/push/{TOKEN}")), &[]);
    let pipe = world.scratch.path().join("pipe");
    let mut backup = WaitingBackup::begin(&world.server, "store1", "cut", &pipe).unwrap();
    // The session is there once the client sends.
    backup.feed(&vec![7; 8 << 20]).unwrap();
    let api = world.api();
    let running = api
        .wait("nodes/localhost/tasks?running=1", |tasks| {
            tasks.as_array().is_some_and(|tasks| !tasks.is_empty())
        })
        .unwrap();
    drop(backup);
    let push = receiver.wait_for(1).remove(0);
    let (status, message) = told(&push);
    assert_eq!(status, "down", "{message}");
    assert!(message.starts_with("backup store1:host/cut: "), "{message}");
    api.end_of(&running[0]["upid"]).unwrap();
    assert_eq!(receiver.received().len(), 1);
}

#[test]
fn healthchecks_is_told_of_start_and_end_of_the_same_run() {
    let world = World::new();
    let api = world.api();
    let receiver = PushReceiver::start(fine).unwrap();
    let words = [
        "--receiver",
        "healthchecks",
        "--start",
        "true",
        "--job",
        "gc:store1",
    ];
    world.create("checks", &receiver.url("/ping/uuid-of-the-check"), &words);
    world.collect(&api);
    let pushes = receiver.wait_for(2);
    let paths: Vec<_> = pushes.iter().map(Received::path).collect();
    assert_eq!(
        paths,
        ["/ping/uuid-of-the-check/start", "/ping/uuid-of-the-check"]
    );
    let run = pushes[0].parameter("rid").unwrap();
    assert_eq!(
        (run.len(), &pushes[1].parameter("rid").unwrap()),
        (36, &run)
    );
    assert_eq!(
        (pushes[1].method.as_str(), pushes[1].text()),
        ("POST", "gc:store1: OK".to_owned())
    );
    let changed = world.heartbeat(&[
        "update",
        "checks",
        "--exit-code",
        "true",
        "--delete",
        "start",
    ]);
    assert!(changed.status.success(), "{changed:?}");
    world.collect(&api);
    let pushes = receiver.wait_for(3);
    assert_eq!(pushes[2].path(), "/ping/uuid-of-the-check/0");
    assert_ne!(pushes[2].parameter("rid").unwrap(), run);
}

#[test]
fn what_a_receiver_refuses_at_first_is_listed_and_told_later_in_order() {
    let world = World::new();
    let api = world.api();
    let asked = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&asked);
    let receiver = PushReceiver::start(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        (500, format!("broken {TOKEN}"))
    })
    .unwrap();
    world.create("kuma", &receiver.url(&format!("/api/push/{TOKEN}")), &[]);
    world.collect(&api);
    let view = world.wait_until_undelivered(&api, "kuma", 1);
    let error = view["undelivered"][0]["last-error"].as_str().unwrap();
    assert!(
        error.contains("500") && error.contains("broken ***"),
        "{error}"
    );
    assert!(world.back_up("web", &[]).status.success());
    world.wait_until_undelivered(&api, "kuma", 2);
    let list = text(&world.heartbeat(&["list"]));
    assert!(list.contains("kuma") && !list.contains(TOKEN), "{list}");

    receiver.answer_with(fine);
    // Whoever corrects something need not wait until it is tried again.
    let changed = world.heartbeat(&["update", "kuma", "--comment", "corrected"]);
    assert!(changed.status.success(), "{changed:?}");
    world.wait_until_undelivered(&api, "kuma", 0);
    // The first has arrived, so that none fails any more; the other one follows.
    let failed = asked.load(Ordering::SeqCst) as usize;
    let pushes = receiver.wait_for(failed + 2);
    let told: Vec<_> = pushes[failed..].iter().map(|push| told(push).1).collect();
    assert_eq!(told, ["gc:store1: OK", "backup store1:host/web: OK"]);
}

#[test]
fn a_receiver_that_never_answers_holds_up_its_own_heartbeat_alone() {
    let world = World::new();
    let api = world.api();
    let (hanging, hold) = PushReceiver::start_hanging().unwrap();
    let working = PushReceiver::start(fine).unwrap();
    // In this order they are noted.
    world.create("a-hanging", &hanging.url("/api/push/a"), &[]);
    world.create("b-working", &working.url("/api/push/b"), &[]);
    for count in [1, 2] {
        world.collect(&api);
        let pushes = working.wait_for(count);
        assert_eq!(told(&pushes[count - 1]).1, "gc:store1: OK");
        assert!(hanging.received().is_empty(), "it has answered nobody");
    }
    drop(hold);
    // What it was told of in vain is told again.
    let pushes = hanging.wait_for(2);
    assert!(
        pushes
            .iter()
            .all(|push| told(push) == ("up".to_owned(), "gc:store1: OK".to_owned()))
    );
    world.wait_until_undelivered(&api, "a-hanging", 0);
}

#[test]
fn a_push_survives_the_death_of_the_server() {
    let mut world = World::new();
    let receiver = PushReceiver::start(|_| (503, String::new())).unwrap();
    let url = receiver.url(&format!("/api/push/{TOKEN}"));
    world.create("kuma", &url, &[]);
    let api = world.api();
    world.collect(&api);
    let view = world.wait_until_undelivered(&api, "kuma", 1);
    let failed = view["undelivered"][0].clone();
    world.restart();
    let api = world.api();
    let kept = world.wait_until_undelivered(&api, "kuma", 1)["undelivered"][0].clone();
    assert_eq!(
        (&kept["id"], &kept["first-failure"]),
        (&failed["id"], &failed["first-failure"])
    );
    // What lies on the disk does not hold the secret.
    let spool = world
        .server
        .root
        .join("var/lib/proxmox-backup/backstop-heartbeats");
    let entries = std::fs::read_dir(spool).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    for file in files.filter(|path| path.is_file()) {
        let text = std::fs::read(file).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains(TOKEN));
    }
    receiver.answer_with(fine);
    let changed = world.heartbeat(&["update", "kuma", "--comment", "x"]);
    assert!(changed.status.success(), "{changed:?}");
    world.wait_until_undelivered(&api, "kuma", 0);
    let pushes = receiver.received();
    let last = pushes.last().unwrap();
    assert_eq!(told(last), ("up".to_owned(), "gc:store1: OK".to_owned()));
}

#[test]
fn a_receiver_with_an_unknown_certificate_is_told_nothing() {
    let world = World::new();
    let folder = world.scratch.path();
    let authority = Authority::create(folder).unwrap();
    let (certificate, key) = authority
        .issue(folder, "status", &["status.example.org"])
        .unwrap();
    let receiver = PushReceiver::start_tls(&certificate, &key, fine).unwrap();
    let url = receiver.url(&format!("/api/push/{TOKEN}"));
    world.create("kuma", &url, &["--tls-server-name", "status.example.org"]);
    let refused = world.heartbeat(&["test", "kuma"]);
    assert!(!refused.status.success());
    let said = text(&refused);
    assert!(
        said.contains("no trusted TLS connection") && !said.contains(TOKEN),
        "{said}"
    );
    assert!(receiver.received().is_empty());
    let authority = authority.certificate.to_str().unwrap();
    assert!(
        world
            .heartbeat(&["update", "kuma", "--ca-file", authority])
            .status
            .success()
    );
    let taken = world.heartbeat(&["test", "kuma"]);
    assert!(taken.status.success(), "{}", text(&taken));
    let misnamed = ["update", "kuma", "--tls-server-name", "other.example.org"];
    assert!(world.heartbeat(&misnamed).status.success());
    assert!(!world.heartbeat(&["test", "kuma"]).status.success());
    assert_eq!(receiver.received().len(), 1);
}

#[test]
fn a_missing_run_is_an_error_at_the_receiver() {
    let world = World::new();
    let api = world.api();
    let watch = Watch::new(TOKEN, 3600, 1_000_000);
    let telling = Arc::clone(&watch);
    let receiver = PushReceiver::start(move |push| telling.take(push)).unwrap();
    world.create(
        "gcs",
        &receiver.url(&format!("/api/push/{TOKEN}")),
        &["--job", "gc:store1"],
    );
    world.collect(&api);
    let _ = receiver.wait_for(1);
    assert_eq!(watch.last_told(), Some(1_000_000));
    assert!(watch.state().0);
    watch.set_clock(1_003_601);
    assert!(!watch.state().0, "a job that did not run is late");
    world.collect(&api);
    let _ = receiver.wait_for(2);
    assert!(watch.state().0);
}

#[test]
fn urls_go_in_and_never_come_out() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    let api = world.api();
    let url = format!("https://me:geheim@kuma.example.org:3001/api/push/{TOKEN}");
    world.create("kuma", &url, &["--comment", "nightly"]);
    let file = world
        .server
        .root
        .join("etc/proxmox-backup/backstop-heartbeats.json");
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(std::fs::read_to_string(&file).unwrap().contains(TOKEN));
    let shown = [
        api.get("backstop/heartbeats").unwrap().to_string(),
        api.get("backstop/heartbeats/kuma").unwrap().to_string(),
        text(&world.heartbeat(&["list", "--output-format", "json"])),
        text(&world.heartbeat(&["show", "kuma"])),
        text(&world.heartbeat(&["create", "other", "--url", &url, "--job", "x"])),
        text(&world.heartbeat(&["create", "kuma", "--url", &url])),
        text(&world.heartbeat(&["create", "other", "--url", &url, "--start", "true"])),
    ];
    for text in &shown {
        assert!(!text.contains(TOKEN) && !text.contains("geheim"), "{text}");
    }
    assert!(
        shown[1].contains("https://kuma.example.org:3001"),
        "{}",
        shown[1]
    );
    assert!(shown[5].contains("already exists"), "{}", shown[5]);
    assert!(
        !world
            .heartbeat(&["update", "kuma", "--ns", "x"])
            .status
            .success()
    );
    assert!(world.heartbeat(&["remove", "kuma"]).status.success());
    assert_eq!(api.get("backstop/heartbeats").unwrap(), json!([]));
    assert!(!world.heartbeat(&["show", "kuma"]).status.success());
}

#[test]
fn a_push_that_the_receiver_did_not_take_has_not_arrived() {
    let world = World::new();
    let api = world.api();
    let refused = r#"{"ok":false,"msg":"Monitor not found or not active."}"#;
    let receiver = PushReceiver::start(move |_| (200, refused.to_owned())).unwrap();
    world.create("kuma", &receiver.url(&format!("/api/push/{TOKEN}")), &[]);
    let test = world.heartbeat(&["test", "kuma"]);
    let said = text(&test);
    assert!(
        !test.status.success() && said.contains("not active"),
        "{said}"
    );
    let checks = ["--receiver", "healthchecks"];
    world.create("checks", &receiver.url("/ping/some-uuid"), &checks);
    receiver.answer_with(|_| (200, "OK (not found)".to_owned()));
    let test = world.heartbeat(&["test", "checks"]);
    let said = text(&test);
    assert!(
        !test.status.success() && said.contains("not found"),
        "{said}"
    );
    world.collect(&api);
    world.wait_until_undelivered(&api, "kuma", 1);
    world.wait_until_undelivered(&api, "checks", 1);
}

#[test]
fn what_runs_while_the_file_of_heartbeats_makes_no_sense_is_told_later() {
    let world = World::new();
    let api = world.api();
    let receiver = PushReceiver::start(fine).unwrap();
    world.create("kuma", &receiver.url(&format!("/api/push/{TOKEN}")), &[]);
    let file = world
        .server
        .root
        .join("etc/proxmox-backup/backstop-heartbeats.json");
    let good = std::fs::read_to_string(&file).unwrap();
    for broken in ["{ not json".to_owned(), good.replace("\"url\"", "\"uri\"")] {
        std::fs::write(&file, broken).unwrap();
        world.collect(&api);
    }
    assert_eq!(receiver.received().len(), 0);
    std::fs::write(&file, &good).unwrap();
    // Whoever has corrected it need not wait.
    let changed = world.heartbeat(&["update", "kuma", "--comment", "corrected"]);
    assert!(changed.status.success(), "{changed:?}");
    let pushes = receiver.wait_for(2);
    for push in &pushes {
        assert_eq!(told(push), ("up".to_owned(), "gc:store1: OK".to_owned()));
    }
}

#[test]
fn what_does_not_exist_cannot_be_watched() {
    let world = World::new();
    let url = "http://127.0.0.1:1/api/push/x";
    for watched in [
        &["--job", "sync:doesnotexist"][..],
        &["--job", "gc:nowhere"],
        &["--store", "nowhere"],
        &["--store", "nowhere", "--group", "vm/100"],
    ] {
        let words = [&["create", "ghost", "--url", url][..], watched].concat();
        let refused = world.heartbeat(&words);
        let said = text(&refused);
        assert!(
            !refused.status.success() && said.contains(watched[1]),
            "{said}"
        );
    }
    world.create("web", url, &["--store", "store1", "--group", "host/later"]);
    let refused = world.heartbeat(&["update", "web", "--store", "nowhere"]);
    assert!(!refused.status.success(), "{}", text(&refused));
    let changed = world.heartbeat(&["update", "web", "--comment", "x"]);
    assert!(changed.status.success(), "{}", text(&changed));
}
