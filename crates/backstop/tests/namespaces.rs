//! The tree of namespaces, and what belongs to groups and snapshots in it: the real client, manager and server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use testbed::server::{ServerProcess, succeeded};

const BINARY: &str = env!("CARGO_BIN_EXE_backstop");
const TIME: &str = "1700000001";
const SNAPSHOT: &str = "host/x/2023-11-14T22:13:21Z";

struct World {
    server: ServerProcess,
    scratch: tempfile::TempDir,
}

/// What a command said that must have failed without a panic.
fn refused(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && !text.contains("panicked"),
        "{text}"
    );
    text
}

impl World {
    fn new() -> Self {
        let scratch = testbed::scratch::directory().unwrap();
        let root = scratch.path().join("root");
        let server = ServerProcess::with_datastore(Path::new(BINARY), &root).unwrap();
        fs::write(scratch.path().join("file"), b"content\n").unwrap();
        Self { server, scratch }
    }

    fn run(&self, tool: &str, arguments: &[&str]) -> Output {
        self.server.run(tool, arguments).unwrap()
    }

    fn client(&self, arguments: &[&str]) -> String {
        succeeded(&self.run("client", arguments)).unwrap()
    }

    fn manager(&self, arguments: &[&str]) -> String {
        succeeded(&self.run("manager", arguments)).unwrap()
    }

    fn client_refused(&self, arguments: &[&str]) -> String {
        refused(&self.run("client", arguments))
    }

    fn manager_refused(&self, arguments: &[&str]) -> String {
        refused(&self.run("manager", arguments))
    }

    fn spec(&self) -> String {
        format!("etc.conf:{}", self.scratch.path().join("file").display())
    }

    fn backup(&self, namespace: &str) {
        let spec = self.spec();
        let mut words = vec!["backup", &spec, "--backup-id", "x", "--backup-time", TIME];
        if !namespace.is_empty() {
            words.extend(["--ns", namespace]);
        }
        self.client(&words);
    }

    fn store(&self) -> PathBuf {
        self.server.root.join("datastore/store1")
    }

    /// The client as somebody else.
    fn client_as(&self, id: &str, secret: &str) -> Command {
        let mut command = self.server.command("client", "store1");
        let repository = self.server.repository("store1").replace("admin@pbs", id);
        command
            .env("PBS_REPOSITORY", repository)
            .env("PBS_PASSWORD", secret)
            .stdin(Stdio::null());
        command
    }

    fn user(&self, id: &str) {
        self.manager(&["user", "create", id, "--password", "password1"]);
        let path = "/datastore/store1";
        self.manager(&["acl", "update", path, "DatastoreBackup", "--auth-id", id]);
    }

    fn token(&self, user: &str, name: &str) -> String {
        let said = self.manager(&["user", "generate-token", user, name]);
        let (_, rest) = said.split_once("\"value\": \"").unwrap();
        let id = format!("{user}!{name}");
        let path = "/datastore/store1";
        self.manager(&["acl", "update", path, "DatastoreBackup", "--auth-id", &id]);
        rest.split('"').next().unwrap().to_owned()
    }
}

#[test]
fn the_tree_is_seven_levels_deep_and_goes_with_or_without_its_groups() {
    let world = World::new();
    let levels = [
        "a",
        "a/b",
        "a/b/c",
        "a/b/c/d",
        "a/b/c/d/e",
        "a/b/c/d/e/f",
        "a/b/c/d/e/f/g",
    ];
    let missing = world.client_refused(&["namespace", "create", "a/b"]);
    assert!(
        missing.contains("parent a doesn't already exists"),
        "{missing}"
    );
    for level in levels {
        world.client(&["namespace", "create", level]);
    }
    let deeper = world.client_refused(&["namespace", "create", "a/b/c/d/e/f/g/h"]);
    assert!(deeper.contains("verification failed - 'ns'"), "{deeper}");
    assert_eq!(
        world.client(&["namespace", "list"]),
        format!("{}\n", levels.join("\n"))
    );
    assert_eq!(
        world.client(&["namespace", "list", "a", "--max-depth", "2"]),
        "a\na/b\na/b/c\n"
    );
    world.backup("a/b/c/d/e/f/g");
    world.backup("a/b");
    let protected = [
        "snapshot",
        "protected",
        "update",
        SNAPSHOT,
        "true",
        "--ns",
        "a/b",
    ];
    world.client(&protected);

    let kept = world.client_refused(&["namespace", "delete", "a"]);
    assert!(
        kept.contains("only partially deleted due to existing groups but `delete-groups` not true"),
        "{kept}"
    );
    // What was empty is gone; what holds a backup is not.
    assert_eq!(world.client(&["namespace", "list"]).lines().count(), 7);
    let kept = world.client_refused(&["namespace", "delete", "a", "--delete-groups", "true"]);
    assert!(
        kept.contains("group only partially deleted due to protected snapshots"),
        "{kept}"
    );
    assert_eq!(world.client(&["namespace", "list"]), "a\na/b\n");
    world.client(&[
        "snapshot",
        "protected",
        "update",
        SNAPSHOT,
        "false",
        "--ns",
        "a/b",
    ]);
    world.client(&["namespace", "delete", "a", "--delete-groups", "true"]);
    assert_eq!(world.client(&["namespace", "list"]), "");
    assert!(!world.store().join("ns/a").exists());
}

#[test]
fn the_manager_keeps_the_tree_with_a_server_and_without() {
    let mut world = World::new();
    world.server.stop().unwrap();
    for online in [false, true] {
        if online {
            let root = world.server.root.clone();
            let listen = ([127, 0, 0, 1], 0).into();
            world.server = ServerProcess::start(Path::new(BINARY), &root, listen).unwrap();
        }
        world.manager(&["namespace", "create", "store1", "a"]);
        world.manager(&["namespace", "create", "store1", "a/b"]);
        // Once more is no error, as for the client.
        world.manager(&["namespace", "create", "store1", "a/b"]);
        let missing = world.manager_refused(&["namespace", "create", "store1", "x/y"]);
        assert!(
            missing.contains("parent x doesn't already exists"),
            "{missing}"
        );
        assert_eq!(world.manager(&["namespace", "list", "store1"]), "a\na/b\n");
        assert_eq!(
            world.manager(&["namespace", "list", "store1", "a", "--max-depth", "0"]),
            "a\n"
        );
        let json = world.manager(&["namespace", "list", "store1", "--output-format", "json"]);
        let list: serde_json::Value = serde_json::from_str(&json).unwrap();
        let expected = serde_json::json!([{"ns": ""}, {"ns": "a"}, {"ns": "a/b"}]);
        assert_eq!(list, expected);
        let unknown = world.manager_refused(&["namespace", "list", "store2"]);
        assert!(unknown.contains("store2"), "{unknown}");

        let group = world.store().join("ns/a/ns/b/host/x");
        fs::create_dir_all(group.join("2023-11-14T22:13:21Z")).unwrap();
        fs::write(group.join("owner"), "admin@pbs\n").unwrap();
        let kept = world.manager_refused(&["namespace", "delete", "store1", "a"]);
        assert!(kept.contains("due to existing groups"), "{kept}");
        let words = [
            "namespace",
            "delete",
            "store1",
            "a",
            "--delete-groups",
            "true",
        ];
        world.manager(&words);
        assert_eq!(world.manager(&["namespace", "list", "store1"]), "");
        assert!(!group.exists());
    }
    world.manager(&[
        "datastore",
        "update",
        "store1",
        "--maintenance-mode",
        "type=read-only",
    ]);
    world.server.stop().unwrap();
    let closed = world.manager_refused(&["namespace", "create", "store1", "a"]);
    assert!(closed.contains("read-only maintenance mode"), "{closed}");
}

#[test]
fn owners_pass_groups_to_their_tokens_and_back_and_only_administrators_to_others() {
    let world = World::new();
    world.user("bob@pbs");
    world.user("eve@pbs");
    let secret = world.token("bob@pbs", "host1");
    world.token("bob@pbs", "host2");
    let run = |command: &mut Command, words: &[&str]| command.args(words).output().unwrap();
    let bob = || world.client_as("bob@pbs", "password1");
    let spec = world.spec();
    let backup = ["backup", &spec, "--backup-id", "x", "--backup-time", TIME];
    succeeded(&run(&mut bob(), &backup)).unwrap();
    let owner = || fs::read_to_string(world.store().join("host/x/owner")).unwrap();
    let change = |to| ["change-owner", "host/x", to];

    succeeded(&run(&mut bob(), &change("bob@pbs!host1"))).unwrap();
    assert_eq!(owner(), "bob@pbs!host1\n");
    succeeded(&run(&mut bob(), &change("bob@pbs!host2"))).unwrap();
    succeeded(&run(&mut bob(), &change("bob@pbs"))).unwrap();
    assert_eq!(owner(), "bob@pbs\n");
    for (who, secret, to) in [
        ("bob@pbs", "password1", "eve@pbs"),
        ("eve@pbs", "password1", "eve@pbs"),
        ("bob@pbs!host1", secret.as_str(), "bob@pbs!host1"),
    ] {
        let said = refused(&run(&mut world.client_as(who, secret), &change(to)));
        assert!(
            said.contains(&format!(
                "{who} does not have permission to change owner of backup group 'host/x' to {to}"
            )),
            "{said}"
        );
    }
    let nobody = world.client_refused(&change("nobody@pbs"));
    assert!(
        nobody.contains("user 'nobody@pbs' is inactive or non-existent"),
        "{nobody}"
    );
    assert_eq!(owner(), "bob@pbs\n");
    world.client(&change("eve@pbs"));
    let later = [
        "backup",
        &spec,
        "--backup-id",
        "x",
        "--backup-time",
        "1700000002",
    ];
    let said = refused(&run(&mut bob(), &later));
    assert!(said.contains("backup owner check failed"), "{said}");
    succeeded(&run(&mut world.client_as("eve@pbs", "password1"), &later)).unwrap();
}

#[test]
fn notes_protection_logs_and_removal_work_in_a_namespace() {
    let world = World::new();
    world.client(&["namespace", "create", "a"]);
    world.backup("a");
    world.backup("");
    let on = |words: &[&'static str]| [words, &["--ns", "a"]].concat();
    world.client(&on(&[
        "snapshot",
        "notes",
        "update",
        SNAPSHOT,
        "first\nsecond",
    ]));
    let notes = world.client(&on(&["snapshot", "notes", "show", SNAPSHOT]));
    assert_eq!(notes, "first\nsecond\n");
    let list = world.client(&on(&["snapshot", "list", "--output-format", "json"]));
    assert!(list.contains(r#""comment":"first""#), "{list}");
    world.client(&on(&["snapshot", "protected", "update", SNAPSHOT, "true"]));
    assert_eq!(
        world.client(&on(&["snapshot", "protected", "show", SNAPSHOT])),
        "true\n"
    );
    let log = world.scratch.path().join("file");
    let log = log.to_str().unwrap();
    let upload = ["snapshot", "upload-log", SNAPSHOT, log, "--ns", "a"];
    world.client(&upload);
    let twice = world.client_refused(&upload);
    assert!(twice.contains("backup already contains a log."), "{twice}");
    let files = world.client(&on(&["snapshot", "files", SNAPSHOT]));
    assert!(files.contains("client.log.blob"), "{files}");
    assert_eq!(
        world.client(&["restore", SNAPSHOT, "client.log", "-", "--ns", "a"]),
        "content\n"
    );

    let forget = on(&["snapshot", "forget", SNAPSHOT]);
    let kept = world.client_refused(&forget);
    assert!(kept.contains("cannot remove protected snapshot"), "{kept}");
    world.client(&on(&["snapshot", "protected", "update", SNAPSHOT, "false"]));
    world.client(&forget);
    // The group goes with its last snapshot; that of the same name in the root is another one.
    assert!(!world.store().join("ns/a/host/x").exists());
    assert!(world.store().join("host/x/owner").is_file());
}
