//! Two servers: `here` has the sync jobs; it pulls from `there`, or pushes to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testbed::api::Api;
use testbed::link::{Link, LinkSpec};
use testbed::server::{ServerProcess, succeeded};

pub const BINARY: &str = env!("CARGO_BIN_EXE_backstop");

pub struct World {
    pub here: ServerProcess,
    pub there: ServerProcess,
    /// Calls to the server that pulls.
    pub api: Api,
    pub scratch: tempfile::TempDir,
}

impl World {
    /// Both with a datastore `store1`; the source is known here as the remote `there`.
    pub fn new() -> Self {
        Self::in_directory(testbed::scratch::directory().unwrap())
    }

    pub fn in_directory(scratch: tempfile::TempDir) -> Self {
        let start = |name: &str| {
            ServerProcess::with_datastore(Path::new(BINARY), &scratch.path().join(name)).unwrap()
        };
        let (here, there) = (start("here"), start("there"));
        let api = Api::connect(&here).unwrap();
        let world = Self {
            here,
            there,
            api,
            scratch,
        };
        let (port, password) = (world.port(), world.there.password.clone());
        let words = [
            "remote",
            "create",
            "there",
            "--host",
            "127.0.0.1",
            "--port",
            &port,
        ];
        let account = ["--auth-id", "admin@pbs", "--password", &password];
        let pin = ["--fingerprint", &world.there.fingerprint];
        world.manager(&[&words[..], &account, &pin].concat());
        world
    }

    /// Puts a line between both servers.
    pub fn line(&self, spec: LinkSpec) -> Link {
        let link = Link::start(self.there.address, spec).unwrap();
        let port = link.address().port().to_string();
        self.manager(&["remote", "update", "there", "--port", &port]);
        link
    }

    /// Kills the server that pulls, as a power cut would, and starts it again.
    pub fn restart_here(&mut self) {
        let root = self.here.root.clone();
        self.here.kill().unwrap();
        self.here = start_again(&root);
        self.api = Api::connect(&self.here).unwrap();
    }

    /// The same for the source.
    pub fn restart_there(&mut self) {
        let root = self.there.root.clone();
        self.there.kill().unwrap();
        self.there = start_again(&root);
    }

    /// What is known of the runs of the only job.
    pub fn runs(&self) -> Value {
        let jobs = self.api.get("admin/sync").unwrap();
        jobs[0].clone()
    }

    /// How many chunks of runs that were cut off are noted.
    pub fn noted(&self) -> u64 {
        let folder = fs::read_dir(self.here.root.join("var/lib/proxmox-backup/sync"));
        let files = folder
            .into_iter()
            .flatten()
            .map(|file| file.unwrap().path());
        let is_noted = |path: &PathBuf| {
            let extension = path.extension();
            extension.is_some_and(|extension| extension == "chunks")
        };
        files
            .filter(is_noted)
            .map(|path| fs::metadata(path).map_or(0, |found| found.len() / 32))
            .sum()
    }

    pub fn port(&self) -> String {
        self.there.address.port().to_string()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Makes a file of random content.
    pub fn write(&self, name: &str, seed: u64, mebibytes: usize) {
        let content = testbed::random::Random::new(seed).bytes(mebibytes << 20);
        fs::write(self.path(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// Backs the file `disk` up to the source.
    pub fn backup(&self, options: &[&str], time: i64) {
        let spec = format!("disk.img:{}", self.path("disk").display());
        let time = time.to_string();
        let words = ["backup", &spec, "--backup-time", &time];
        let words = [&words[..], options].concat();
        self.there.ok("client", &words).unwrap();
    }

    pub fn backup_image(&self, id: &str, time: i64) {
        self.backup(&["--backup-id", id], time);
    }

    pub fn manager(&self, words: &[&str]) -> String {
        succeeded(&self.here.run("manager", words).unwrap()).unwrap()
    }

    /// Adds a job that pulls from the source.
    pub fn add_job(&self, id: &str, options: &[&str]) {
        let words = [
            "sync-job", "create", id, "--store", "store1", "--remote", "there",
        ];
        self.manager(&[&words[..], &["--remote-store", "store1"], options].concat());
    }

    /// Runs a job; its log, and how it ended.
    pub fn run_job(&self, id: &str) -> (String, String) {
        let upid = self
            .api
            .post(&format!("admin/sync/{id}/run"), json!({}))
            .unwrap();
        self.ended(&upid)
    }

    /// Starts to pull as `admin@pbs`.
    pub fn begin(&self, more: Value) -> Value {
        let mut words = json!({"store": "store1", "remote": "there", "remote-store": "store1"});
        let own = words.as_object_mut().unwrap();
        own.extend(more.as_object().unwrap().clone());
        self.api.post("pull", words).unwrap()
    }

    /// Pulls; the log, and how it ended.
    pub fn pull(&self, more: Value) -> (String, String) {
        self.ended(&self.begin(more))
    }

    /// Backs the file `disk` up to the server that pushes.
    pub fn backup_here(&self, options: &[&str], time: i64) {
        let spec = format!("disk.img:{}", self.path("disk").display());
        let time = time.to_string();
        let words = ["backup", &spec, "--backup-time", &time];
        self.here
            .ok("client", &[&words[..], options].concat())
            .unwrap();
    }

    /// Starts to push as `admin@pbs`.
    pub fn begin_push(&self, more: Value) -> Value {
        let mut words = json!({"store": "store1", "remote": "there", "remote-store": "store1"});
        let own = words.as_object_mut().unwrap();
        own.extend(more.as_object().unwrap().clone());
        self.api.post("push", words).unwrap()
    }

    /// Pushes; the log, and how it ended.
    pub fn push(&self, more: Value) -> (String, String) {
        self.ended(&self.begin_push(more))
    }

    /// Calls to the other server.
    pub fn there_api(&self) -> Api {
        Api::connect(&self.there).unwrap()
    }

    /// The snapshots of the other server in a namespace.
    pub fn snapshots_there(&self, ns: &str) -> Vec<String> {
        snapshot_names(&self.there_api(), ns)
    }

    /// The image in a snapshot of the other server.
    pub fn restored_there(&self, snapshot: &str, options: &[&str]) -> Vec<u8> {
        self.restore_with(self.there.command("client", "store1"), snapshot, options)
    }

    /// The chunks of the server that pushes.
    pub fn chunks_here(&self) -> Vec<PathBuf> {
        chunks(&self.here.root.join("datastore/store1"))
    }

    pub fn ended(&self, upid: &Value) -> (String, String) {
        let end = self.api.end_of(upid).unwrap();
        (self.log(upid), end)
    }

    pub fn log(&self, upid: &Value) -> String {
        let path = format!("nodes/localhost/tasks/{}/log", upid.as_str().unwrap());
        let lines = self.api.client.get(&path, json!({"limit": 1000}));
        let lines = self.api.runtime.block_on(lines).unwrap();
        let lines = lines.as_array().unwrap().iter();
        let lines: Vec<&str> = lines.map(|line| line["t"].as_str().unwrap()).collect();
        lines.join("\n")
    }

    pub fn namespaces(&self) -> Vec<String> {
        let list = self.api.get("admin/datastore/store1/namespace").unwrap();
        let list = list.as_array().unwrap().iter();
        let mut list: Vec<String> = list
            .map(|item| item["ns"].as_str().unwrap().to_owned())
            .collect();
        list.sort();
        list
    }

    /// The snapshots at the target, those of all namespaces that are named.
    pub fn snapshots(&self, ns: &str) -> Vec<String> {
        snapshot_names(&self.api, ns)
    }

    /// The image in a snapshot at the target.
    pub fn restored(&self, snapshot: &str) -> Vec<u8> {
        self.restore_with(self.here.command("client", "store1"), snapshot, &[])
    }

    pub fn restore_with(&self, mut client: Command, snapshot: &str, options: &[&str]) -> Vec<u8> {
        let output = client
            .args(["restore", snapshot, "disk.img", "-"])
            .args(options)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    /// The chunks of the source.
    pub fn source_chunks(&self) -> Vec<PathBuf> {
        chunks(&self.there.root.join("datastore/store1"))
    }
}

fn start_again(root: &Path) -> ServerProcess {
    ServerProcess::start(Path::new(BINARY), root, ([127, 0, 0, 1], 0).into()).unwrap()
}

/// How many chunks a run has fetched, by its log.
pub fn fetched(log: &str) -> u64 {
    let Some(line) = log
        .lines()
        .find(|line| line.contains("Summary: sync job pulled"))
    else {
        return 0;
    };
    let (_, rest) = line.split_once(" in ").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// The chunk files of a datastore.
pub fn chunks(store: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(store.join(".chunks")).unwrap();
    let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

fn snapshot_names(api: &Api, ns: &str) -> Vec<String> {
    let list = api
        .client
        .get("admin/datastore/store1/snapshots", json!({"ns": ns}));
    let list = api.runtime.block_on(list).unwrap();
    let name = |item: &Value| {
        let (ty, id) = (&item["backup-type"], &item["backup-id"]);
        let (ty, id) = (ty.as_str().unwrap(), id.as_str().unwrap());
        format!("{ty}/{id}/{}", item["backup-time"])
    };
    let mut names: Vec<String> = list.as_array().unwrap().iter().map(name).collect();
    names.sort();
    names
}
