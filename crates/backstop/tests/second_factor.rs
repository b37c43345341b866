//! Logging in with a second factor: the real server over TLS, a security key in software, the client at a terminal, and the
//! manager beside them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use testbed::api::Api;
use testbed::authenticator::{Algorithm, Authenticator, one_time_password};
use testbed::server::ServerProcess;
use testbed::terminal::Terminal;

const BINARY: &str = env!("CARGO_BIN_EXE_backstop");
const USER: &str = "key@pbs";
const PASSWORD: &str = "Second-Factor-1";
const SECRET: &[u8] = b"12345678901234567890";
const URI: &str = "otpauth://totp/backup:key?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=backup";
const ORIGIN: &str = "https://backup.example.com:8007";
const REFUSED: &str = "permission check failed.";

struct Host {
    server: ServerProcess,
    api: Api,
    _dir: Option<tempfile::TempDir>,
}

fn start(root: &Path) -> (ServerProcess, Api) {
    let server = ServerProcess::start(Path::new(BINARY), root, ([127, 0, 0, 1], 0).into()).unwrap();
    let api = Api::connect(&server).unwrap();
    (server, api)
}

impl Host {
    /// A server with a user that may do everything.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (server, api) = start(dir.path());
        let user = json!({ "userid": USER, "password": PASSWORD });
        api.post("access/users", user).unwrap();
        let rule = json!({ "path": "/", "role": "Admin", "auth-id": USER });
        api.put("access/acl", rule).unwrap();
        Self {
            server,
            api,
            _dir: Some(dir),
        }
    }

    /// As after a power cut, and a start on what is on the disk.
    fn crash_and_restart(&mut self) {
        self.server.kill().unwrap();
        let root = self.server.root.clone();
        let (server, api) = start(&root);
        self.server = server;
        self.api = api;
    }

    fn path() -> String {
        format!("access/tfa/{USER}")
    }

    fn add(&self, mut parameters: Value) -> anyhow::Result<Value> {
        parameters["password"] = self.server.password.as_str().into();
        self.api.post(&Self::path(), parameters)
    }

    fn add_totp(&self) -> String {
        let totp = json!({ "type": "totp", "description": "phone", "totp": URI, "value": code(0) });
        let added = self.add(totp).unwrap();
        added["id"].as_str().unwrap().to_owned()
    }

    fn add_recovery(&self) -> Vec<String> {
        let added = self.add(json!({ "type": "recovery" })).unwrap();
        assert_eq!(added["id"], "recovery");
        serde_json::from_value(added["recovery"].clone()).unwrap()
    }

    /// The ticket for a password, and the challenge in it.
    fn first_step(&self) -> (String, Value) {
        let login = json!({ "username": USER, "password": PASSWORD });
        let reply = self.api.post("access/ticket", login).unwrap();
        assert_eq!(reply["CSRFPreventionToken"], "invalid");
        let ticket = reply["ticket"].as_str().unwrap().to_owned();
        let data = ticket.split(':').nth(1).unwrap();
        let data = percent_encoding::percent_decode_str(data)
            .decode_utf8()
            .unwrap()
            .into_owned();
        let challenge = serde_json::from_str(data.strip_prefix("!tfa!").unwrap()).unwrap();
        (ticket, challenge)
    }

    fn second_step(&self, ticket: &str, answer: &str) -> anyhow::Result<()> {
        let login = json!({ "username": USER, "password": answer, "tfa-challenge": ticket });
        let reply = self.api.post("access/ticket", login)?;
        // The ticket is a full one: it can be renewed.
        let login = json!({ "username": USER, "password": reply["ticket"] });
        self.api.post("access/ticket", login).map(|_| ())
    }

    fn log_in(&self, answer: &str) -> anyhow::Result<()> {
        let (ticket, _) = self.first_step();
        self.second_step(&ticket, answer)
    }

    fn refuses(&self, answer: &str) {
        let error = self.log_in(answer).unwrap_err();
        assert!(format!("{error:#}").contains(REFUSED), "{error:#}");
    }

    fn manager(&self, arguments: &[&str]) -> String {
        self.server.ok("manager", arguments).unwrap()
    }
}

/// The one-time password of a step from now.
fn code(step: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = now.as_secs() / 30;
    one_time_password(SECRET, now.checked_add_signed(step).unwrap())
}

#[test]
fn security_keys_of_each_algorithm_are_registered_and_log_in_over_tls() {
    let host = Host::new();
    let file = host.server.root.join("etc/proxmox-backup/tfa.json");
    // As a stock server stores it; only root may change it through the API.
    let config = json!({ "webauthn": { "rp": "Backup", "id": "example.com", "origin": ORIGIN } });
    std::fs::write(&file, config.to_string()).unwrap();
    assert_eq!(
        host.api.get("config/access/tfa/webauthn").unwrap(),
        config["webauthn"]
    );
    let change = json!({ "rp": "x" });
    assert!(host.api.put("config/access/tfa/webauthn", change).is_err());
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Rs256] {
        let mut key = Authenticator::new(algorithm, ORIGIN).unwrap();
        key.self_attested = true;
        let new = json!({ "type": "webauthn", "description": format!("{algorithm:?}") });
        let added = host.add(new).unwrap();
        let options: Value = serde_json::from_str(added["challenge"].as_str().unwrap()).unwrap();
        let answer = json!({
            "type": "webauthn",
            "challenge": options["publicKey"]["challenge"],
            "value": key.register(&options).unwrap().to_string(),
        });
        let id = host.add(answer.clone()).unwrap()["id"].clone();
        assert!(host.add(answer).is_err());
        let (ticket, challenge) = host.first_step();
        let answer = key.authenticate(&challenge["webauthn"]).unwrap();
        let answer = format!("webauthn:{answer}");
        host.second_step(&ticket, &answer).unwrap();
        assert!(host.second_step(&ticket, &answer).is_err());
        let path = format!("{}/{}", Host::path(), id.as_str().unwrap());
        let own = host.api.get(&path).unwrap();
        assert_eq!(own["type"], "webauthn");
        assert_eq!(own.as_object().unwrap().len(), 4, "{own}");
    }
}

#[test]
fn codes_stay_used_when_the_server_dies_right_after_its_answer() {
    let mut host = Host::new();
    host.add_totp();
    let codes = host.add_recovery();
    let step = code(1);
    let recovery = format!("recovery:{}", codes[0]);
    host.log_in(&recovery).unwrap();
    host.crash_and_restart();
    host.refuses(&recovery);
    host.log_in(&format!("totp:{step}")).unwrap();
    host.crash_and_restart();
    host.refuses(&format!("totp:{step}"));
    let (_, challenge) = host.first_step();
    assert_eq!(challenge["recovery"].as_array().unwrap().len(), 9);
    // The reason is in the log that tools read, and no code is.
    let log = host.server.root.join("var/log/proxmox-backup/api/auth.log");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("used already"), "{log}");
    assert!(!log.contains(&step) && !log.contains(&codes[0]), "{log}");
}

#[test]
fn wrong_codes_lock_and_the_manager_lists_unlocks_and_removes() {
    let host = Host::new();
    let id = host.add_totp();
    let (ticket, challenge) = host.first_step();
    assert_eq!(challenge, json!({ "totp": true }));
    // Guesses that come all at once are counted like others.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let api = Api::connect(&host.server).unwrap();
                let guess =
                    json!({ "username": USER, "password": "totp:000000", "tfa-challenge": ticket });
                assert!(api.post("access/ticket", guess).is_err());
            });
        }
    });
    host.refuses(&format!("totp:{}", code(0)));
    let list = host.api.get("access/tfa").unwrap();
    assert_eq!(list[0]["totp-locked"], true);
    let users = host.api.get("access/users").unwrap();
    let user = users
        .as_array()
        .unwrap()
        .iter()
        .find(|user| user["userid"] == USER);
    assert_eq!(user.unwrap()["totp-locked"], true);
    let table = host.manager(&["user", "tfa", "list", USER]);
    for text in [id.as_str(), "totp", "phone", "description"] {
        assert!(table.contains(text), "{table}");
    }
    assert!(!table.contains("GEZDGNBV"), "{table}");
    assert_eq!(
        host.manager(&["user", "tfa", "unlock", USER]),
        "Result: true\n"
    );
    assert_eq!(
        host.manager(&["user", "tfa", "unlock", USER]),
        "Result: false\n"
    );
    host.log_in(&format!("totp:{}", code(0))).unwrap();
    let json = host.manager(&["user", "tfa", "list", USER, "--output-format", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["id"], id.as_str());
    assert_eq!(host.manager(&["user", "tfa", "remove", USER, &id]), "");
    let login = json!({ "username": USER, "password": PASSWORD });
    let reply = host.api.post("access/ticket", login).unwrap();
    assert!(
        reply["ticket"]
            .as_str()
            .unwrap()
            .starts_with("PBS:key@pbs:")
    );
}

#[test]
fn changes_need_the_password_of_the_caller() {
    let host = Host::new();
    let id = host.add_totp();
    let path = format!("{}/{id}", Host::path());
    for password in [json!({}), json!({ "password": PASSWORD })] {
        let mut change = password.clone();
        change["description"] = "x".into();
        assert!(host.api.put(&path, change).is_err());
        assert!(host.api.delete(&path, password).is_err());
    }
    let own = host.server.password.as_str();
    let change = json!({ "description": "renamed", "enable": false, "password": own });
    host.api.put(&path, change).unwrap();
    let factor = host.api.get(&path).unwrap();
    assert_eq!(factor["description"], "renamed");
    assert_eq!(factor["enable"], false);
    host.api.delete(&path, json!({ "password": own })).unwrap();
    let error = host.api.get(&path).unwrap_err();
    assert!(
        format!("{error:#}").contains("no such tfa entry"),
        "{error:#}"
    );
}

#[test]
fn the_client_asks_at_the_terminal_and_says_what_is_missing_elsewhere() {
    let host = Host::new();
    host.add_totp();
    let codes = host.add_recovery();
    let login = || {
        let mut command = host.server.command("client", "store1");
        command.args(["login"]).env("PBS_PASSWORD", PASSWORD).env(
            "PBS_REPOSITORY",
            format!("{USER}@{}:store1", host.server.address),
        );
        command
    };
    let output = login().stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("a one-time password or a recovery code"),
        "{text}"
    );
    assert!(text.contains("no terminal"), "{text}");

    let mut terminal = Terminal::run(login()).unwrap();
    terminal
        .expect("One-time password or recovery code for \"key@pbs\": ")
        .unwrap();
    terminal.type_in("nonsense\r").unwrap();
    terminal.expect("not accepted").unwrap();
    terminal.expect("recovery code for \"key@pbs\": ").unwrap();
    let typed = code(0);
    terminal.type_in(&format!("{typed}\r")).unwrap();
    let (status, shown) = terminal.end().unwrap();
    assert!(status.success(), "{shown}");
    assert!(!shown.contains(&typed), "{shown}");

    // The ticket that was kept is enough from now on.
    let mut next = login();
    next.env_remove("PBS_PASSWORD");
    assert!(next.output().unwrap().status.success());

    let mut terminal = Terminal::run(login()).unwrap();
    terminal.expect("recovery code for \"key@pbs\": ").unwrap();
    terminal
        .type_in(&format!("{}\r", codes[5].replace('-', " ")))
        .unwrap();
    let (status, shown) = terminal.end().unwrap();
    assert!(status.success(), "{shown}");
}
