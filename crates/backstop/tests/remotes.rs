//! Other servers with an account there: added with a look at their certificate, scanned, checked.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use testbed::api::Api;
use testbed::server::{ServerProcess, succeeded};
use testbed::terminal::Terminal;

const BINARY: &str = env!("CARGO_BIN_EXE_backstop");

struct World {
    here: ServerProcess,
    there: ServerProcess,
    _scratch: tempfile::TempDir,
}

impl World {
    /// Two servers; the other one has a datastore.
    fn new() -> Self {
        let scratch = testbed::scratch::directory().unwrap();
        let there = ServerProcess::with_datastore(Path::new(BINARY), &scratch.path().join("there"));
        let here = ServerProcess::start(
            Path::new(BINARY),
            &scratch.path().join("here"),
            ([127, 0, 0, 1], 0).into(),
        );
        Self {
            here: here.unwrap(),
            there: there.unwrap(),
            _scratch: scratch,
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.here.run("manager", arguments).unwrap()
    }

    fn manager(&self, arguments: &[&str]) -> String {
        succeeded(&self.run(arguments)).unwrap()
    }

    /// The words that add the other server under the name `other`.
    fn create<'a>(&'a self, port: &'a str, password: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let mut words = vec![
            "remote",
            "create",
            "other",
            "--host",
            "127.0.0.1",
            "--port",
            port,
        ];
        words.extend(["--userid", "admin@pbs", "--password", password]);
        words.extend(more);
        words
    }

    fn there_port(&self) -> String {
        self.there.address.port().to_string()
    }

    /// The lines of a check: name, state, text.
    fn check(&self) -> (bool, Vec<(String, String, String)>) {
        let output = self.run(&["remote", "check", "other", "--output-format", "json"]);
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
        let lines = list.as_array().unwrap().iter();
        let lines =
            lines.map(|line| (text(line, "check"), text(line, "state"), text(line, "text")));
        (output.status.success(), lines.collect())
    }

    fn config(&self) -> String {
        fs::read_to_string(self.here.root.join("etc/proxmox-backup/remote.cfg")).unwrap()
    }
}

#[test]
fn a_remote_is_scanned_and_checked_with_the_account_it_was_given() {
    let world = World::new();
    world
        .there
        .ok("client", &["namespace", "create", "team"])
        .unwrap();
    let source = world.there.root.join("file");
    fs::write(&source, "content").unwrap();
    let spec = format!("etc.conf:{}", source.display());
    let words = ["backup", &spec, "--backup-id", "x", "--ns", "team"];
    world.there.ok("client", &words).unwrap();
    let port = world.there_port();
    let fingerprint = ["--fingerprint", &world.there.fingerprint];
    let password = world.there.password.clone();
    world.manager(&world.create(&port, &password, &fingerprint));

    // The secret is in the file, in base64, and nowhere else.
    assert!(world.config().contains("password ") && !world.config().contains(&password));
    let api = Api::connect(&world.here).unwrap();
    let remote = api.get("config/remote/other").unwrap();
    assert_eq!(remote["auth-id"], "admin@pbs");
    assert!(remote.get("password").is_none(), "{remote}");
    let shown = world.manager(&["remote", "show", "other", "--output-format", "json"]);
    assert!(!shown.contains("password"), "{shown}");

    let stores = api.get("config/remote/other/scan").unwrap();
    assert_eq!(stores[0]["store"], "store1");
    let namespaces = api
        .get("config/remote/other/scan/store1/namespaces")
        .unwrap();
    assert_eq!(namespaces, json!([{"ns": ""}, {"ns": "team"}]));
    let path = "config/remote/other/scan/store1/groups";
    let groups = api.client.get(path, json!({"namespace": "team"}));
    let groups = api.runtime.block_on(groups).unwrap();
    assert_eq!(groups[0]["backup-id"], "x");
    assert_eq!(groups[0]["owner"], "admin@pbs");
    let absent = api
        .get("config/remote/other/scan/nothing/groups")
        .unwrap_err();
    let absent = format!("{absent:#}");
    assert!(
        absent.contains("failed to scan remote 'other' - "),
        "{absent}"
    );

    let (works, lines) = world.check();
    assert!(works, "{lines:?}");
    let names: Vec<&str> = lines.iter().map(|(name, _, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "name",
            "port",
            "certificate",
            "login",
            "permissions",
            "clock"
        ]
    );
    let text = world.manager(&["remote", "check", "other"]);
    assert_eq!(text.lines().count(), 6, "{text}");
    assert!(!text.contains(&password), "{text}");
}

#[test]
fn a_check_says_what_is_wrong_and_what_to_do() {
    let world = World::new();
    let port = world.there_port();
    let password = world.there.password.clone();
    world.manager(&world.create(
        &port,
        &password,
        &["--fingerprint", &world.here.fingerprint],
    ));

    // Another certificate than expected: the password is not sent, and the command that accepts it is shown.
    let (works, lines) = world.check();
    let (name, state, text) = lines.last().unwrap();
    assert!(!works);
    assert_eq!((name.as_str(), state.as_str()), ("certificate", "failed"));
    let accept = format!(
        "remote update other --fingerprint {}",
        world.there.fingerprint
    );
    assert!(
        text.contains(&world.here.fingerprint) && text.contains(&accept),
        "{text}"
    );
    world.manager(&[
        "remote",
        "update",
        "other",
        "--fingerprint",
        &world.there.fingerprint,
    ]);
    assert!(world.check().0);

    world.manager(&[
        "remote",
        "update",
        "other",
        "--password",
        "not-the-password",
    ]);
    let (_, lines) = world.check();
    let (name, state, text) = lines.last().unwrap();
    assert_eq!((name.as_str(), state.as_str()), ("login", "failed"));
    assert!(
        text.contains("--password") && !text.contains("not-the-password"),
        "{text}"
    );

    // Nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    world.manager(&[
        "remote",
        "update",
        "other",
        "--port",
        &closed.port().to_string(),
    ]);
    let (_, lines) = world.check();
    let (name, state, text) = lines.last().unwrap();
    assert_eq!((name.as_str(), state.as_str()), ("port", "failed"));
    assert!(text.contains("firewall"), "{text}");

    let gone = world.run(&["remote", "check", "nobody"]);
    assert!(!gone.status.success());
    assert!(String::from_utf8_lossy(&gone.stderr).contains("no such remote 'nobody'"));
}

#[test]
fn at_a_terminal_the_certificate_is_shown_and_asked_for() {
    let world = World::new();
    let (port, password) = (world.there_port(), world.there.password.clone());
    let words = world.create(&port, &password, &[]);
    let command = || {
        let mut command = world.here.command("manager", "");
        command.args(&words);
        command
    };
    let mut terminal = Terminal::run(command()).unwrap();
    terminal.expect(&world.there.fingerprint).unwrap();
    terminal.expect("issuer:").unwrap();
    terminal.expect("valid:").unwrap();
    terminal.expect("(y/n): ").unwrap();
    terminal.type_in("n\r").unwrap();
    let (status, shown) = terminal.end().unwrap();
    assert!(
        !status.success() && shown.contains("was not accepted"),
        "{shown}"
    );
    assert!(
        !world
            .here
            .root
            .join("etc/proxmox-backup/remote.cfg")
            .exists()
    );

    let mut terminal = Terminal::run(command()).unwrap();
    terminal.expect("(y/n): ").unwrap();
    terminal.type_in("y\r").unwrap();
    let (status, shown) = terminal.end().unwrap();
    assert!(status.success(), "{shown}");
    assert!(
        world.config().contains(&world.there.fingerprint),
        "{}",
        world.config()
    );
    assert!(world.check().0);
}
