//! The life of a datastore: maintenance, adoption, removal, and what is measured of it. With the real server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use testbed::api::Api;
use testbed::server::{ServerProcess, succeeded};
use testbed::waiting_backup::WaitingBackup;

struct World {
    server: ServerProcess,
    api: Api,
    dir: tempfile::TempDir,
    /// How many backups were made, each of a group of its own: one group has at most one a second.
    backups: AtomicUsize,
}

impl World {
    fn new() -> Self {
        let dir = testbed::scratch::directory().unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_backstop"));
        let server = ServerProcess::with_datastore(binary, &dir.path().join("root")).unwrap();
        let api = Api::connect(&server).unwrap();
        Self {
            server,
            api,
            dir,
            backups: AtomicUsize::new(0),
        }
    }

    fn back_up(&self) -> anyhow::Result<String> {
        let file = self.dir.path().join("file");
        fs::write(&file, "content")?;
        let spec = format!("data.img:{}", file.display());
        let number = self.backups.fetch_add(1, Ordering::Relaxed) + 1;
        let id = format!("host{number}");
        let arguments = ["backup", &spec, "--backup-id", &id];
        succeeded(&self.server.run("client", &arguments)?)
    }

    fn set(&self, parameters: Value) {
        self.api.put("config/datastore/store1", parameters).unwrap();
    }

    fn snapshots(&self) -> anyhow::Result<usize> {
        let list = self.api.get("admin/datastore/store1/snapshots")?;
        Ok(list.as_array().unwrap().len())
    }

    fn store(&self) -> std::path::PathBuf {
        self.dir.path().join("root/datastore/store1")
    }
}

fn said<T: std::fmt::Debug>(result: anyhow::Result<T>) -> String {
    format!("{:#}", result.unwrap_err())
}

#[test]
fn maintenance_modes_forbid_what_they_should_and_nothing_else() {
    let world = World::new();
    world.back_up().unwrap();
    world.set(json!({"maintenance-mode": "read-only,message=moving%20house"}));
    let closed = "datastore 'store1' is unavailable: read-only maintenance mode: moving house";
    assert_eq!(world.snapshots().unwrap(), 1);
    let restored = world.dir.path().join("restored");
    let restore = [
        "restore",
        "host/host1",
        "data.img",
        restored.to_str().unwrap(),
    ];
    world.server.ok("client", &restore).unwrap();
    assert_eq!(fs::read_to_string(&restored).unwrap(), "content");
    let error = said(world.back_up());
    assert!(error.contains(closed), "{error}");
    let verify = world
        .api
        .post("admin/datastore/store1/verify", json!({}))
        .unwrap();
    for path in ["gc", "prune-datastore", "namespace"] {
        let parameters = if path == "namespace" {
            json!({"name": "x"})
        } else {
            json!({})
        };
        let error = said(
            world
                .api
                .post(&format!("admin/datastore/store1/{path}"), parameters),
        );
        assert!(error.contains(closed), "{path}: {error}");
    }
    // verification reads; only its result cannot be noted
    world.api.end_of(&verify).unwrap();
    world.set(json!({"maintenance-mode": "offline"}));
    // without a message nothing follows
    let closed = "datastore 'store1' is unavailable: offline maintenance mode:";
    for path in ["snapshots", "groups", "status", "rrd?timeframe=hour&cf=MAX"] {
        let error = said(world.api.get(&format!("admin/datastore/store1/{path}")));
        assert!(error.contains(closed), "{path}: {error}");
    }
    let list = world.api.get("admin/datastore").unwrap();
    assert_eq!(list[0]["maintenance"], "offline");
    world.set(json!({"delete": "maintenance-mode"}));
    world.back_up().unwrap();
    assert_eq!(world.snapshots().unwrap(), 2);
    // a number that nobody understands is refused before it can do harm
    for (key, value) in [
        ("maintenance-mode", "closed"),
        ("tuning", "gc-atime-cutoff=0"),
        ("tuning", "default-verification-readers=33"),
    ] {
        let answer = world
            .api
            .put("config/datastore/store1", json!({key: value}));
        let Err(error) = answer else {
            panic!("{key}={value} is accepted");
        };
        let error = format!("{error:#}");
        assert!(error.contains(key), "{error}");
    }
    let error = said(world.api.post("admin/datastore/store1/mount", json!({})));
    assert!(
        error.contains("datastore 'store1' is not removable"),
        "{error}"
    );
}

#[test]
fn a_datastore_in_use_is_counted_for_all_processes_and_not_removed() {
    let world = World::new();
    let pipe = world.dir.path().join("pipe");
    let waiting = WaitingBackup::begin(&world.server, "store1", "waiting", &pipe).unwrap();
    let active = "admin/datastore/store1/active-operations";
    world
        .api
        .wait(active, |active| active["write"] == 1)
        .unwrap();
    let counted = world
        .dir
        .path()
        .join("root/run/proxmox-backup/active-operations/store1");
    let entry = || -> Option<Value> {
        let all: Value = serde_json::from_slice(&fs::read(&counted).ok()?).unwrap();
        all.as_array()?
            .iter()
            .find(|entry| entry["pid"] == world.server.pid())
            .cloned()
    };
    world
        .api
        .wait("ping", |_| {
            entry().is_some_and(|entry| entry["active_operations"]["write"] == 1)
        })
        .unwrap();
    let upid = world
        .api
        .delete("config/datastore/store1", json!({}))
        .unwrap();
    assert_eq!(
        world.api.end_of(&upid).unwrap(),
        "datastore is currently in use"
    );
    // it stays closed, with its settings
    let error = said(world.api.put(
        "config/datastore/store1",
        json!({"maintenance-mode": "read-only"}),
    ));
    assert!(error.contains("datastore is being deleted"), "{error}");
    let error = said(world.snapshots());
    assert!(
        error.contains("datastore 'store1' is unavailable: datastore is being deleted"),
        "{error}"
    );
    waiting.end().unwrap();
    let idle = |active: &Value| *active == json!({"read": 0, "write": 0});
    world.api.wait(active, idle).unwrap();
    let upid = world
        .api
        .delete("config/datastore/store1", json!({}))
        .unwrap();
    assert_eq!(world.api.end_of(&upid).unwrap(), "OK");
    assert!(world.store().join(".chunks").is_dir());
    assert_eq!(world.api.get("config/datastore").unwrap(), json!([]));
}

#[test]
fn a_datastore_is_adopted_only_if_it_is_whole_and_destroyed_only_if_it_is_there() {
    let world = World::new();
    world.back_up().unwrap();
    let store = world.store();
    let create = |path: &Path, reuse: bool| {
        let parameters = json!({"name": "store1", "path": path, "reuse-datastore": reuse});
        let upid = world.api.post("config/datastore", parameters).unwrap();
        world.api.end_of(&upid).unwrap()
    };
    let remove = |destroy: bool| {
        let parameters = json!({"destroy-data": destroy});
        let upid = world
            .api
            .delete("config/datastore/store1", parameters)
            .unwrap();
        world.api.end_of(&upid).unwrap()
    };
    assert_eq!(remove(false), "OK");
    let error = create(&store, false);
    assert!(error.contains("a chunk store exists already"), "{error}");
    let error = create(&world.dir.path().join("nothing"), true);
    assert!(error.contains("there is no datastore to reuse"), "{error}");
    let chunks = store.join(".chunks/00ff");
    fs::set_permissions(&chunks, fs::Permissions::from_mode(0o755)).unwrap();
    let error = create(&store, true);
    assert!(
        error.contains("00ff") && error.contains("mode is 755, expected 750"),
        "{error}"
    );
    fs::set_permissions(&chunks, fs::Permissions::from_mode(0o750)).unwrap();
    assert_eq!(create(&store, true), "OK");
    assert_eq!(world.snapshots().unwrap(), 1);
    world.back_up().unwrap();
    // its file system is not mounted
    let elsewhere = world.dir.path().join("elsewhere");
    fs::rename(&store, &elsewhere).unwrap();
    fs::create_dir(&store).unwrap();
    let error = remove(true);
    assert!(error.contains("store1"), "{error}");
    assert!(elsewhere.join("host/host1").is_dir());
    fs::remove_dir(&store).unwrap();
    fs::rename(&elsewhere, &store).unwrap();
    // what is not the datastore's stays
    fs::write(store.join("note.txt"), "keep me").unwrap();
    let start = std::time::Instant::now();
    while remove(true) != "WARNINGS: 1" {
        assert!(start.elapsed().as_secs() < 120);
    }
    let left: Vec<_> = fs::read_dir(&store)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["note.txt"]);
}

#[test]
fn what_was_measured_survives_a_stop_and_a_crash() {
    let world = World::new();
    let World {
        mut server,
        mut api,
        dir,
        ..
    } = world;
    let binary = Path::new(env!("CARGO_BIN_EXE_backstop"));
    let listen = server.address;
    let measured = |rows: &Value| {
        let rows = rows.as_array().unwrap().iter();
        rows.filter(|row| row["used"].is_number()).count()
    };
    let paths = ["nodes/localhost/rrd", "admin/datastore/store1/rrd"];
    let history = |api: &Api, path: &str, enough: usize| {
        let path = format!("{path}?timeframe=hour&cf=AVERAGE");
        measured(&api.wait(&path, |rows| measured(rows) >= enough).unwrap())
    };
    for path in paths {
        history(&api, path, 1);
    }
    let journal = dir
        .path()
        .join("root/var/lib/proxmox-backup/rrdb/backstop.journal");
    let is_empty = || fs::metadata(&journal).unwrap().len() == 0;
    for crash in [false, true] {
        api.wait("ping", |_| !is_empty()).unwrap();
        if crash {
            server.kill().unwrap();
        } else {
            server.stop().unwrap();
        }
        assert_eq!(is_empty(), !crash);
        server = ServerProcess::start(binary, &dir.path().join("root"), listen).unwrap();
        api = Api::connect(&server).unwrap();
        for path in paths {
            for (timeframe, cf) in [("hour", "MAX"), ("decade", "AVERAGE")] {
                let path = format!("{path}?timeframe={timeframe}&cf={cf}");
                assert!(measured(&api.get(&path).unwrap()) >= 1, "{path}");
            }
        }
    }
    let usage = api.get("status/datastore-usage").unwrap();
    assert_eq!(usage[0]["history-delta"], 1800);
    assert_eq!(usage[0]["history"].as_array().unwrap().len(), 1440);
    assert!(usage[0]["history"][1439].is_number() || usage[0]["history"][1438].is_number());
    // too few points for an estimate
    assert_eq!(usage[0].get("estimated-full-date"), None);
}
