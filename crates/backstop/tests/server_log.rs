//! The log of the real server: its forms, and what its lines carry.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_backstop");
const PATIENCE: Duration = Duration::from_secs(120);

/// A server whose lines are heard one by one.
struct Server {
    process: Child,
    lines: mpsc::Receiver<String>,
    _root: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let root = testbed::scratch::directory().unwrap();
        let mut process = Command::new(BINARY)
            .args(["server", "--listen", "127.0.0.1:0", "--root"])
            .arg(root.path())
            .args(arguments)
            .env_remove("BACKSTOP_ROOT")
            .env("PBS_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (heard, lines) = mpsc::channel();
        let log = BufReader::new(process.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let _ = heard.send(line);
            }
        });
        // Then commands find it.
        let mut told = BufReader::new(process.stdout.take().unwrap()).lines();
        assert!(told.any(|line| line.unwrap().contains("password of admin@pbs")));
        std::thread::spawn(move || told.count());
        Self {
            process,
            lines,
            _root: root,
        }
    }

    /// The next line that fits.
    fn wait_for(&self, fits: impl Fn(&str) -> bool) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("no such line");
            if fits(&line) {
                return line;
            }
        }
    }

    /// Runs a job that fails.
    fn fail_a_task(&self) {
        let root = self._root.path();
        let manager = |words: &[&str]| {
            let mut command = Command::new(BINARY);
            command.arg("manager").args(words);
            command
                .env("BACKSTOP_ROOT", root)
                .env("HOME", root)
                .output()
                .unwrap()
        };
        let store = root.join("store");
        let fingerprint = ["00"; 32].join(":");
        let remote = [
            "remote",
            "create",
            "dead",
            "--host",
            "127.0.0.1",
            "--port",
            "1",
        ];
        let account = [
            "--auth-id",
            "a@pbs",
            "--password",
            "secret",
            "--fingerprint",
            &fingerprint,
        ];
        let job = [
            "sync-job", "create", "broken", "--store", "store1", "--remote", "dead",
        ];
        let prepared = [
            vec!["datastore", "create", "store1", store.to_str().unwrap()],
            [&remote[..], &account[..]].concat(),
            [&job[..], &["--remote-store", "gone"]].concat(),
        ];
        for words in &prepared {
            let done = manager(words);
            assert!(done.status.success(), "{words:?}: {done:?}");
        }
        assert!(!manager(&["sync-job", "run", "broken"]).status.success());
    }
}

#[test]
fn each_line_of_the_json_log_is_an_object_with_time_level_and_the_task_that_it_belongs_to() {
    let server = Server::start(&["--log-format", "json"]);
    server.fail_a_task();
    let line = server.wait_for(|line| line.contains("task failed"));
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["level"], "WARN");
    assert!(
        line["upid"].as_str().unwrap().contains(":syncjob:"),
        "{line}"
    );
    let time: Result<jiff::Timestamp, _> = line["timestamp"].as_str().unwrap().parse();
    assert!(time.is_ok(), "{line}");
}

#[test]
fn the_log_is_text_where_nothing_else_is_asked_for_and_the_journal_is_not_there() {
    let server = Server::start(&[]);
    server.fail_a_task();
    let line = server.wait_for(|line| line.contains("task failed"));
    assert!(line.contains("WARN") && line.contains("upid="), "{line}");
    assert!(!line.starts_with('{'), "{line}");
}

#[test]
fn an_unknown_form_is_refused_with_those_that_exist() {
    let done = Command::new(BINARY)
        .args(["server", "--log-format", "xml"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        !done.status.success() && said.contains("journald"),
        "{said}"
    );
}
