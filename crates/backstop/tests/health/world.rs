//! A server with one datastore, and what asks for its health.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::api::Api;
use testbed::server::ServerProcess;

/// How long something may take until it is seen. Generous, as machines can be slow.
pub const LONG: Duration = Duration::from_secs(120);
const BINARY: &str = env!("CARGO_BIN_EXE_backstop");

pub struct World {
    pub server: ServerProcess,
    pub api: Api,
    pub dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let dir = testbed::scratch::directory().unwrap();
        let binary = Path::new(BINARY);
        let server = ServerProcess::with_datastore(binary, dir.path()).unwrap();
        let api = Api::connect(&server).unwrap();
        Self { server, api, dir }
    }

    pub fn datastore(&self) -> PathBuf {
        self.dir.path().join("datastore/store1")
    }

    /// Exit code and output of `backstop health`, which looks anew.
    pub fn health(&self, words: &[&str]) -> (i32, String) {
        let words = [words, &["--refresh", "true"]].concat();
        let output = self.server.run("health", &words).unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap(), text)
    }

    pub fn plugin(&self, code: &str) -> (i32, String) {
        self.health(&["--plugin", "true", "--code", code])
    }

    /// The only check with this code.
    pub fn check(&self, code: &str) -> Value {
        let (_, text) = self.health(&["--code", code, "--output-format", "json"]);
        let answer: Value = serde_json::from_str(&text).unwrap();
        let checks = answer["checks"].as_array().unwrap();
        assert!(checks.len() <= 1, "{answer}");
        checks.first().cloned().unwrap_or_default()
    }

    pub fn wait_for(&self, code: &str, state: &str) -> Value {
        let begin = Instant::now();
        loop {
            let check = self.check(code);
            if check["state"] == state {
                return check;
            }
            assert!(begin.elapsed() < LONG, "{check}");
        }
    }

    /// Asks until the plugin's exit code is this one: on a slow machine, a datastore may not be listed in time at first.
    pub fn wait_for_exit(&self, check: &str, code: i32) -> String {
        let begin = Instant::now();
        loop {
            let (seen, text) = self.plugin(check);
            if seen == code {
                return text;
            }
            assert!(begin.elapsed() < LONG, "{seen}: {text}");
        }
    }

    /// Ends the server as a power cut would, and starts it again. `meanwhile` is done before.
    pub fn restart_after(&mut self, meanwhile: impl FnOnce(&Path)) {
        self.server.kill().unwrap();
        let root = self.server.root.clone();
        meanwhile(&root);
        let address = ([127, 0, 0, 1], 0).into();
        self.server = ServerProcess::start(Path::new(BINARY), &root, address).unwrap();
        self.api = Api::connect(&self.server).unwrap();
    }

    /// All checks of a kind, also those that are well, looked at anew.
    pub fn checks(&self, code: &str) -> Vec<Value> {
        let (_, text) = self.health(&["--code", code, "--output-format", "json"]);
        let answer: Value = serde_json::from_str(&text).unwrap();
        answer["checks"].as_array().unwrap().clone()
    }

    /// Waits until a check of this object says that.
    pub fn wait_for_object(&self, code: &str, object: &str, state: &str) -> Value {
        let begin = Instant::now();
        loop {
            let checks = self.checks(code);
            let found = checks
                .iter()
                .find(|check| check["object"] == object && check["state"] == state);
            if let Some(check) = found {
                return check.clone();
            }
            assert!(begin.elapsed() < LONG, "{object} {state}: {checks:?}");
        }
    }

    /// The configuration directory.
    pub fn etc(&self) -> PathBuf {
        self.server.root.join("etc/proxmox-backup")
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.server.root.join("var/lib/proxmox-backup")
    }

    pub fn tell(&self, words: &[&str]) {
        self.server.ok("health", words).unwrap();
    }

    pub fn back_up(&self, id: &str, time: i64) {
        let file = self.dir.path().join("disk");
        fs::write(&file, id.repeat(10_000)).unwrap();
        let (spec, time) = (format!("disk.img:{}", file.display()), time.to_string());
        let words = ["backup", &spec, "--backup-id", id, "--backup-time", &time];
        self.server.ok("client", &words).unwrap();
    }
}

pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
