//! A datastore whose file system goes away, fails or hangs, and comes back: the real server on a file system with
//! faults.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::api::Api;
use testbed::fault_fs::{Fault, FaultFs};
use testbed::server::{ServerProcess, succeeded};
use testbed::waiting_backup::WaitingBackup;

/// More than the server needs to give a file system up, even on a slow machine.
const LONG: Duration = Duration::from_secs(120);

/// A server with a datastore `store1` on the disk and one, `away`, on a file system with faults.
struct World {
    // Dropped first, so that nothing hangs.
    faults: FaultFs,
    server: ServerProcess,
    api: Api,
    dir: tempfile::TempDir,
}

impl World {
    /// Nothing where mounting is not possible.
    fn new() -> Option<Self> {
        if !FaultFs::is_possible() {
            println!("skipped: mounting needs root and /dev/fuse");
            return None;
        }
        let dir = testbed::scratch::directory().unwrap();
        let root = dir.path().join("root");
        let binary = Path::new(env!("CARGO_BIN_EXE_backstop"));
        let server = ServerProcess::with_datastore(binary, &root).unwrap();
        let (target, source) = (dir.path().join("away"), dir.path().join("source"));
        let create = ["datastore", "create", "away", target.to_str().unwrap()];
        server.ok("manager", &create).unwrap();
        // as if the file system were mounted only now
        fs::rename(&target, &source).unwrap();
        fs::create_dir(&target).unwrap();
        let faults = FaultFs::mount(&source, &target).unwrap();
        let api = Api::connect(&server).unwrap();
        let mut world = Self {
            faults,
            server,
            api,
            dir,
        };
        world.back_up("store1", "first").unwrap();
        world.wait_until_usable();
        Some(world)
    }

    /// The mount replaced a directory; depending on the moment, the server has seen it missing.
    fn wait_until_usable(&mut self) {
        let start = Instant::now();
        while let Err(err) = self.back_up("away", "first") {
            assert!(start.elapsed() < LONG, "{err}");
        }
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join(format!("{text}.txt"));
        fs::write(&path, text.repeat(1000)).unwrap();
        path
    }

    fn backup(&self, store: &str, id: &str, from: &Path) -> Command {
        let mut command = self.server.command("client", store);
        let spec = format!("data.img:{}", from.display());
        command.args(["backup", &spec, "--backup-id", id]);
        command
    }

    fn back_up(&self, store: &str, id: &str) -> anyhow::Result<String> {
        succeeded(&self.backup(store, id, &self.file(id)).output()?)
    }

    fn snapshots(&self, store: &str) -> anyhow::Result<Vec<Value>> {
        let list = self
            .api
            .get(&format!("admin/datastore/{store}/snapshots"))?;
        Ok(list.as_array().unwrap().clone())
    }

    fn usage_of(&self, store: &str) -> Value {
        let all = self.api.get("status/datastore-usage").unwrap();
        let mut found = all.as_array().unwrap().iter();
        found.find(|item| item["store"] == store).unwrap().clone()
    }

    fn lines(&self, words: &[&str]) -> usize {
        self.server.wait_for_log(words, 0).unwrap()
    }
}

const GONE: &[&str] = &["WARN", "datastore is unavailable", "away"];
const BACK: &[&str] = &["WARN", "datastore is available again", "away"];

#[test]
fn a_file_system_that_fails_is_told_and_used_again_when_it_is_back() {
    let Some(world) = World::new() else { return };
    let gone = world.lines(GONE);
    let stale = std::io::Error::from_raw_os_error(libc::ESTALE).to_string();
    let broken = std::io::Error::from_raw_os_error(libc::EIO).to_string();
    for (round, (fault, reason)) in [
        (Fault::Error(libc::ESTALE), stale.as_str()),
        (Fault::Error(libc::EIO), broken.as_str()),
        (Fault::Bare, "there is no chunk store at"),
    ]
    .into_iter()
    .enumerate()
    {
        world.faults.set(fault);
        world.server.wait_for_log(GONE, gone + round + 1).unwrap();
        let refused = "datastore 'away' is unavailable: ";
        for _ in 0..20 {
            let error = format!("{:#}", world.snapshots("away").unwrap_err());
            assert!(error.contains(refused) && error.contains(reason), "{error}");
        }
        let error = world.back_up("away", "second").unwrap_err().to_string();
        assert!(error.contains(refused) && error.contains(reason), "{error}");
        let usage = world.usage_of("away");
        assert!(usage["error"].as_str().unwrap().contains(reason), "{usage}");
        // the other datastore does not notice
        assert!(world.usage_of("store1")["total"].is_u64());
        let id = format!("round-{round}");
        world.back_up("store1", &id).unwrap();
        // nothing was left in the bare directory
        world.faults.set(Fault::None);
        world.server.wait_for_log(BACK, gone + round + 1).unwrap();
        world.back_up("away", &id).unwrap();
        assert_eq!(world.snapshots("away").unwrap().len(), round + 2);
    }
    // one line at each change
    assert_eq!(world.lines(GONE), gone + 3);
    assert_eq!(world.lines(BACK), gone + 3);
}

#[test]
fn a_file_system_that_hangs_stops_nobody_else_and_its_tasks_end() {
    let Some(world) = World::new() else { return };
    let gone = world.lines(GONE);
    let pipe = world.dir.path().join("pipe");
    let mut waiting = WaitingBackup::begin(&world.server, "away", "waiting", &pipe).unwrap();
    let active = "admin/datastore/away/active-operations";
    world
        .api
        .wait(active, |active| active["write"] == 1)
        .unwrap();
    // a verification that stands still at a chunk
    world.faults.set(Fault::HangOnChunks);
    let upid = world
        .api
        .post(
            "admin/datastore/away/verify",
            json!({"ignore-verified": false}),
        )
        .unwrap();
    world.faults.wait_for_hanging(1);
    world.faults.set(Fault::Hang);
    waiting.feed(&vec![7; 5 << 20]).unwrap();
    // more calls than there are threads
    let (client, runtime) = (Arc::clone(&world.api.client), &world.api.runtime);
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let client = Arc::clone(&client);
            runtime.spawn(async move {
                let path = "admin/datastore/away/snapshots";
                client.get(path, json!({})).await
            })
        })
        .collect();
    world.back_up("store1", "meanwhile").unwrap();
    world.server.wait_for_log(GONE, gone + 1).unwrap();
    let reason = "does not answer";
    for call in calls {
        let error = runtime.block_on(call).unwrap().unwrap_err().to_string();
        assert!(
            error.contains("datastore 'away' is unavailable: ") && error.contains(reason),
            "{error}"
        );
    }
    let end = world.api.end_of(&upid).unwrap();
    assert!(
        end.contains("datastore 'away' is unavailable: ") && end.contains(reason),
        "{end}"
    );
    let output = waiting.end().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains(reason), "{said}");
    // its task ends a moment after the client was told
    world
        .api
        .wait("nodes/localhost/tasks?running=1", |tasks| {
            *tasks == json!([])
        })
        .unwrap();
    world.back_up("store1", "still").unwrap();

    world.faults.set(Fault::None);
    world.server.wait_for_log(BACK, gone + 1).unwrap();
    // what was given up tidies up after itself: the unfinished snapshot goes, its locks are free, nothing counts as running
    world
        .api
        .wait(active, |active| *active == json!({"read": 0, "write": 0}))
        .unwrap();
    assert_eq!(world.snapshots("away").unwrap().len(), 1);
    assert!(!world.dir.path().join("source/host/waiting").exists());
    world.back_up("away", "waiting").unwrap();
    for path in ["admin/datastore/away/verify", "admin/datastore/away/gc"] {
        let upid = world.api.post(path, json!({})).unwrap();
        assert_eq!(world.api.end_of(&upid).unwrap(), "OK", "{path}");
    }
    assert_eq!(world.lines(GONE), gone + 1);
    assert_eq!(world.lines(BACK), gone + 1);
}
