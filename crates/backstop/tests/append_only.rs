//! Append-only API tokens of the real program: they add and read, whatever their access rules say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use testbed::api::Api;
use testbed::server::{ServerProcess, succeeded};
use testbed::stock;

const BINARY: &str = env!("CARGO_BIN_EXE_backstop");
const TOKEN: &str = "bob@pbs!adds";
const OLD: &str = "host/x/2023-11-14T22:13:21Z";

struct World {
    server: ServerProcess,
    scratch: tempfile::TempDir,
    secret: String,
}

impl World {
    /// A token with the role Admin everywhere, as its user.
    fn new() -> Self {
        let scratch = testbed::scratch::directory().unwrap();
        let server =
            ServerProcess::with_datastore(Path::new(BINARY), &scratch.path().join("root")).unwrap();
        fs::write(scratch.path().join("file"), b"content\n").unwrap();
        let manager = |words: &[&str]| server.ok("manager", words).unwrap();
        manager(&["user", "create", "bob@pbs", "--password", "password1"]);
        let said = manager(&["user", "generate-token", "bob@pbs", "adds"]);
        let from = said.find('{').unwrap();
        let token: Value = serde_json::from_str(&said[from..]).unwrap();
        let secret = token["value"].as_str().unwrap().to_owned();
        for id in ["bob@pbs", TOKEN] {
            manager(&["acl", "update", "/", "Admin", "--auth-id", id]);
        }
        manager(&["namespace", "create", "store1", "b"]);
        Self {
            server,
            scratch,
            secret,
        }
    }

    fn as_token(&self, mut command: Command, words: &[&str]) -> Output {
        let repository = self.server.repository("store1");
        command
            .env("PBS_REPOSITORY", repository.replace("admin@pbs", TOKEN))
            .env("PBS_PASSWORD", &self.secret);
        command.args(words).output().unwrap()
    }

    fn run(&self, words: &[&str]) -> Output {
        self.as_token(self.server.command("client", "store1"), words)
    }

    fn ok(&self, words: &[&str]) -> String {
        succeeded(&self.run(words)).unwrap()
    }

    fn refused(&self, words: &[&str]) {
        let output = self.run(words);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{words:?}");
        assert!(
            said.contains("this API token is append-only"),
            "{words:?}: {said}"
        );
    }

    fn backup(&self, time: &str) -> Vec<String> {
        let spec = format!("etc.conf:{}", self.scratch.path().join("file").display());
        let words = ["backup", &spec, "--backup-id", "x", "--backup-time", time];
        words.map(str::to_owned).to_vec()
    }

    fn backs_up(&self, time: &str) {
        let words = self.backup(time);
        self.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn an_append_only_token_adds_and_reads_and_nothing_else() {
    let world = World::new();
    let manager = |words: &[&str]| world.server.ok("token", words).unwrap();
    manager(&["append-only", TOKEN]);
    assert!(manager(&["list"]).contains(TOKEN));

    world.backs_up("1700000001");
    world.backs_up("1700000002");
    assert_eq!(world.ok(&["restore", OLD, "etc.conf", "-"]), "content\n");
    let listed = world.ok(&["snapshot", "list"]);
    assert!(listed.contains(OLD), "{listed}");
    let log = world.scratch.path().join("file");
    world.ok(&["snapshot", "upload-log", OLD, log.to_str().unwrap()]);

    // what is there cannot be replaced
    let words = world.backup("1700000001");
    let again = world.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(!again.status.success());

    for words in [
        &["snapshot", "forget", OLD][..],
        &["prune", "host/x", "--keep-last", "1"],
        &["prune", "host/x", "--keep-last", "1", "--dry-run", "true"],
        &["snapshot", "notes", "update", OLD, "harmless"],
        &["snapshot", "protected", "update", OLD, "true"],
        &["change-owner", "host/x", "bob@pbs"],
        &["group", "move", "host/x", "--target-ns", "b"],
        &["namespace", "create", "c"],
        &["namespace", "delete", "b"],
    ] {
        world.refused(words);
    }
    assert_eq!(world.ok(&["restore", OLD, "etc.conf", "-"]), "content\n");
}

#[test]
fn the_mark_is_set_by_its_user_and_taken_off_by_an_administrator_alone() {
    let world = World::new();
    let admin = Api::connect(&world.server).unwrap();
    let bob = Api::log_in(&world.server, "bob@pbs", "password1").unwrap();
    let token = Api::log_in(&world.server, TOKEN, &world.secret).unwrap();
    let path = "backstop/append-only/bob%40pbs/adds";
    let refusal = |result: anyhow::Result<Value>| format!("{:#}", result.unwrap_err());
    // a user without rights of its own can tie its tokens, and not untie them
    world
        .server
        .ok(
            "manager",
            &[
                "acl",
                "update",
                "/",
                "Admin",
                "--auth-id",
                "bob@pbs",
                "--delete",
                "true",
            ],
        )
        .unwrap();
    bob.put(path, json!({})).unwrap();
    let said = refusal(bob.delete(path, json!({})));
    assert!(said.contains("permission check failed"), "{said}");
    let missing = refusal(bob.put("backstop/append-only/bob%40pbs/other", json!({})));
    assert!(
        missing.contains("no such token 'bob@pbs!other'"),
        "{missing}"
    );

    world
        .server
        .ok(
            "manager",
            &["acl", "update", "/", "Admin", "--auth-id", "bob@pbs"],
        )
        .unwrap();
    // the token has the role Admin, and yet it can change nothing about itself or others
    for result in [
        token.delete(path, json!({})),
        token.delete("access/users/bob%40pbs/token/adds", json!({})),
        token.put(
            "access/users/bob%40pbs/token/adds",
            json!({"regenerate": true}),
        ),
        token.post("access/users/bob%40pbs/token/other", json!({})),
        token.put(
            "access/acl",
            json!({"path": "/", "role": "Admin", "auth-id": TOKEN}),
        ),
        token.delete(
            "admin/datastore/store1/groups",
            json!({"backup-type": "host", "backup-id": "x"}),
        ),
        token.delete("config/datastore/store1", json!({"destroy-data": true})),
        token.put(
            "backstop/datastore/store1/retention-lock",
            json!({"days": 3650}),
        ),
    ] {
        let said = refusal(result);
        assert!(
            said.contains("append-only") || said.contains("permission check failed"),
            "{said}"
        );
    }
    let held = token.get("access/permissions").unwrap();
    let held = held["/datastore"].as_object().unwrap();
    let names: Vec<&str> = held.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "Datastore.Audit",
            "Datastore.Backup",
            "Datastore.Read",
            "Remote.Audit",
            "Sys.Audit",
            "Tape.Audit"
        ]
    );

    admin.delete(path, json!({})).unwrap();
    world.backs_up("1700000001");
    world.ok(&["snapshot", "forget", OLD]);
    // a new token of the same name begins without the mark
    admin.put(path, json!({})).unwrap();
    admin
        .delete("access/users/bob%40pbs/token/adds", json!({}))
        .unwrap();
    admin
        .post("access/users/bob%40pbs/token/adds", json!({}))
        .unwrap();
    let marked = admin.get("backstop/append-only").unwrap();
    assert_eq!(marked, json!([]));
}

#[test]
fn the_stock_client_backs_up_and_restores_with_an_append_only_token() {
    let Some(program) = stock::program("proxmox-backup-client") else {
        return;
    };
    let world = World::new();
    world.server.ok("token", &["append-only", TOKEN]).unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(&program);
        world.server.environment(&mut command, "store1");
        world.as_token(command, words)
    };
    for time in ["1700000001", "1700000002"] {
        let words = world.backup(time);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        succeeded(&run(&words)).unwrap();
    }
    let content = succeeded(&run(&["restore", OLD, "etc.conf", "-"])).unwrap();
    assert_eq!(content, "content\n");
    let refused = run(&["snapshot", "forget", OLD]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("this API token is append-only"), "{said}");
}
