//! The log of the real server: its forms, what its lines carry, and that it does not flood.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};
use testbed::api::Api;
use testbed::server::ServerProcess;

const BINARY: &str = env!("CARGO_BIN_EXE_backstop");
const PATIENCE: Duration = Duration::from_secs(120);

/// A server whose standard error, the log, goes into a file.
struct Session {
    server: ServerProcess,
    log: PathBuf,
    root: tempfile::TempDir,
}

impl Session {
    /// Starts it with these options.
    fn start(options: &str) -> Self {
        let root = testbed::scratch::directory().unwrap();
        let log = root.path().join("log");
        let program = wrapper(
            root.path(),
            &format!("exec '{BINARY}' \"$@\" {options} 2>'{}'", log.display()),
        );
        let server = ServerProcess::with_datastore(&program, &root.path().join("root")).unwrap();
        Self { server, log, root }
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.log).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// The first line that fits, as soon as it is there.
    fn wait_for(&self, fits: impl Fn(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let lines = self.lines();
            if let Some(line) = lines.iter().find(|line| fits(line)) {
                return line.clone();
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "no such line:\n{}",
                lines.join("\n")
            );
        }
    }

    fn api(&self) -> Api {
        Api::connect(&self.server).unwrap()
    }
}

/// A program that is the real one, and starts servers with `start`, a line of a shell.
fn wrapper(folder: &Path, start: &str) -> PathBuf {
    let program = folder.join("backstop");
    let text =
        format!("#!/bin/sh\nif [ \"$1\" = server ]; then\n{start}\nfi\nexec '{BINARY}' \"$@\"\n");
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// Runs a job that fails.
fn fail_a_task(server: &ServerProcess) {
    server.create_failing_sync("broken").unwrap();
    let done = server
        .run("manager", &["sync-job", "run", "broken"])
        .unwrap();
    assert!(!done.status.success(), "{done:?}");
}

/// JSON, read by somebody who accepts no key twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Strict, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Strict(Value::Array(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Strict, A::Error> {
        let mut map = serde_json::Map::new();
        while let Some((key, Strict(value))) = entries.next_entry::<String, Strict>()? {
            if map.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format!("the key {key} comes twice")));
            }
        }
        Ok(Strict(Value::Object(map)))
    }
}

fn strict(line: &str) -> Value {
    let parsed: Result<Strict, _> = serde_json::from_str(line);
    parsed.unwrap_or_else(|err| panic!("{err}: {line}")).0
}

#[test]
fn every_line_of_a_session_in_json_is_an_object_without_a_key_twice_up_to_its_ending() {
    assert!(serde_json::from_str::<Strict>(r#"{"a":[{"b":1,"b":2}]}"#).is_err());
    let mut session = Session::start("--log-format json");
    let api = session.api();
    let heartbeat = json!({"name": "dead", "url": "http://127.0.0.1:1/ping/secret", "receiver": "healthchecks"});
    api.post("backstop/heartbeats", heartbeat).unwrap();
    fail_a_task(&session.server);
    let source = session.root.path().join("source");
    fs::create_dir(&source).unwrap();
    let archive = format!("etc.pxar:{}", source.display());
    session
        .server
        .ok("client", &["backup", &archive, "--backup-id", "h1"])
        .unwrap();
    session
        .server
        .ok("manager", &["garbage-collection", "start", "store1"])
        .unwrap();
    session.wait_for(|line| line.contains("task failed"));
    session.wait_for(|line| line.contains("did not arrive"));
    // Files that make no sense.
    let etc = session.server.root.join("etc/proxmox-backup");
    for file in ["metricserver.cfg", "prune.cfg", "backstop-heartbeats.json"] {
        fs::write(etc.join(file), "{garbage").unwrap();
    }
    assert!(api.get("backstop/heartbeats").is_err());
    session.wait_for(|line| line.contains("nothing is sent to metric servers"));
    session.server.stop().unwrap();
    let lines: Vec<Value> = session.lines().iter().map(|line| strict(line)).collect();
    for line in &lines {
        let time: Result<jiff::Timestamp, _> = line["timestamp"].as_str().unwrap().parse();
        assert!(time.is_ok(), "{line}");
        let level = line["level"].as_str().unwrap();
        assert!(["ERROR", "WARN", "INFO"].contains(&level), "{line}");
        assert!(
            line["target"].as_str().unwrap().starts_with("backstop"),
            "{line}"
        );
        assert!(!line.to_string().contains("secret"), "{line}");
    }
    let said = |text: &str| {
        let says = |line: &&Value| {
            line["message"]
                .as_str()
                .is_some_and(|said| said.contains(text))
        };
        lines
            .iter()
            .find(says)
            .unwrap_or_else(|| panic!("no line says {text}"))
    };
    let failed = said("task failed");
    assert_eq!(failed["level"], "WARN");
    assert!(
        failed["upid"].as_str().unwrap().contains(":syncjob:"),
        "{failed}"
    );
    assert_eq!(said("ending: no new requests")["level"], "INFO");
    let broken = said("nothing is sent to metric servers").clone();
    let again = lines
        .iter()
        .filter(|line| line["message"] == broken["message"]);
    assert_eq!(again.count(), 1, "it is said once");
}

#[test]
fn a_server_that_cannot_start_says_so_in_the_form_that_is_asked_for() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let root = testbed::scratch::directory().unwrap();
    let start = |format: &str| {
        let done = Command::new(BINARY)
            .args(["server", "--log-format", format, "--root"])
            .arg(root.path())
            .args(["--listen", &taken.local_addr().unwrap().to_string()])
            .env_remove("BACKSTOP_ROOT")
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(255), "{done:?}");
        String::from_utf8(done.stderr).unwrap()
    };
    let said = start("json");
    let lines: Vec<Value> = said.lines().map(strict).collect();
    let last = lines.last().unwrap();
    assert_eq!(last["level"], "ERROR");
    let message = last["message"].as_str().unwrap();
    assert!(message.starts_with("the server ends: "), "{said}");
    assert!(message.contains("127.0.0.1"), "{said}");
    let said = start("text");
    assert!(
        said.contains("Error: ") && !said.contains("the server ends"),
        "{said}"
    );
}

#[test]
fn the_log_is_text_where_nothing_else_is_asked_for_and_the_journal_is_not_there() {
    let session = Session::start("");
    fail_a_task(&session.server);
    let line = session.wait_for(|line| line.contains("task failed"));
    assert!(line.contains("WARN") && line.contains("upid="), "{line}");
    assert!(!line.starts_with('{'), "{line}");
}

#[test]
fn lines_carry_their_request_and_a_flood_of_equal_ones_is_counted_in_full() {
    const REQUESTS: u64 = 60;
    let mut session = Session::start("--log-format json");
    let api = session.api();
    let file = session
        .server
        .root
        .join("etc/proxmox-backup/backstop-heartbeats.json");
    fs::write(file, r#"{"odd":{"url":7}}"#).unwrap();
    for _ in 0..REQUESTS {
        api.get("backstop/heartbeats").unwrap();
    }
    session.server.stop().unwrap();
    let lines: Vec<Value> = session.lines().iter().map(|line| strict(line)).collect();
    const TEXT: &str = "this heartbeat makes no sense";
    let (mut of_requests, mut told) = (Vec::new(), 0);
    for line in &lines {
        let message = line["message"].as_str().unwrap();
        if message.starts_with(TEXT) {
            if line["span"]["path"] == "/api2/json/backstop/heartbeats" {
                assert_eq!(line["span"]["name"], "request");
                assert_eq!(line["span"]["method"], "GET");
                of_requests.push(line["span"]["id"].as_u64().unwrap());
            } else {
                told += 1;
            }
        } else if message.starts_with("the same again: ") && message.contains(TEXT) {
            assert_eq!(line["target"], "backstop::repeated");
            told += line["repeated"].as_u64().unwrap();
        }
    }
    let written = of_requests.len() as u64;
    let text = session.lines().join("\n");
    assert!((1..REQUESTS).contains(&written), "{text}");
    // Others may look at the file, too.
    assert!(written + told >= REQUESTS, "{text}");
    of_requests.dedup();
    assert_eq!(
        of_requests.len() as u64,
        written,
        "each request has a number of its own"
    );
}

#[test]
fn a_level_that_is_not_understood_is_said() {
    let root = testbed::scratch::directory().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let done = Command::new(BINARY)
        .args(["server", "--log-format", "json", "--root"])
        .arg(root.path())
        .args(["--listen", &taken.local_addr().unwrap().to_string()])
        .env_remove("BACKSTOP_ROOT")
        .env("PBS_LOG", "verbose")
        .output()
        .unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    let first = strict(said.lines().next().unwrap());
    assert_eq!(first["level"], "WARN");
    assert!(
        first["message"]
            .as_str()
            .unwrap()
            .contains("PBS_LOG 'verbose' is not understood"),
        "{said}"
    );
}

/// The fields of a message to the journal, as its protocol has them.
fn journal_fields(mut message: &[u8]) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut fields = BTreeMap::new();
    while let Some(end) = message.iter().position(|byte| *byte == b'\n') {
        let (line, rest) = (&message[..end], &message[end + 1..]);
        if let Some(equals) = line.iter().position(|byte| *byte == b'=') {
            fields.insert(text(&line[..equals]), text(&line[equals + 1..]));
            message = rest;
        } else {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            fields.insert(text(line), text(&rest[8..8 + length]));
            message = &rest[8 + length + 1..];
        }
    }
    assert!(message.is_empty());
    fields
}

#[test]
fn systemds_journal_gets_the_fields_of_each_line() {
    let probe = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "mount",
            "-t",
            "tmpfs",
            "none",
            "/run",
        ])
        .output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        println!("skipped: no mount namespaces here (unshare --mount)");
        return;
    }
    let root = testbed::scratch::directory().unwrap();
    // Not below /run, which the namespace has a new one of.
    assert!(!root.path().starts_with("/run"));
    let folder = root.path().join("journal");
    fs::create_dir(&folder).unwrap();
    let journal = UnixDatagram::bind(folder.join("socket")).unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    let program = wrapper(
        root.path(),
        &format!(
            "if [ -z \"$INSIDE\" ]; then INSIDE=1 exec unshare --mount --propagation private \"$0\" \"$@\"; fi\n\
             set -e\nmount -t tmpfs none /run\nmkdir -p /run/systemd/journal\nmount --bind '{}' /run/systemd/journal\n\
             exec '{BINARY}' \"$@\" --log-format journald",
            folder.display()
        ),
    );
    let reader = std::thread::spawn(move || {
        let mut packet = vec![0; 1 << 20];
        let mut heard = Vec::new();
        loop {
            let size = journal.recv(&mut packet).unwrap();
            // Whoever logs looks first whether anybody is there.
            if size == 0 {
                continue;
            }
            let fields = journal_fields(&packet[..size]);
            let is_last = fields
                .get("MESSAGE")
                .is_some_and(|said| said.starts_with("ending: "));
            heard.push(fields);
            if is_last {
                return heard;
            }
        }
    });
    let mut server = ServerProcess::with_datastore(&program, &root.path().join("root")).unwrap();
    fail_a_task(&server);
    server.stop().unwrap();
    let heard = reader.join().unwrap();
    for fields in &heard {
        assert_eq!(fields["SYSLOG_IDENTIFIER"], "backstop", "{fields:?}");
        assert!(fields.contains_key("PRIORITY"), "{fields:?}");
    }
    let failed = heard
        .iter()
        .find(|fields| fields["MESSAGE"] == "task failed");
    let failed = failed.unwrap_or_else(|| panic!("{heard:#?}"));
    assert_eq!(failed["PRIORITY"], "4", "{failed:?}");
    let upid = failed.iter().find(|(key, _)| key.ends_with("UPID"));
    assert!(upid.unwrap().1.contains(":syncjob:"), "{failed:?}");
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
