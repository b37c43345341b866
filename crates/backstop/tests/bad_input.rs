//! Whatever is wrong, the error names the thing, and earlier snapshots stay restorable.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use testbed::server::{ServerProcess, succeeded};
use testbed::tree;
use testbed::tree_compare::{Aspects, compare};

const SNAPSHOT: &str = "host/x/2023-11-14T22:13:21Z";

/// A server that holds one snapshot of `source`.
struct World {
    server: ServerProcess,
    dir: tempfile::TempDir,
    spec: OsString,
}

impl World {
    fn new() -> Self {
        let dir = testbed::scratch::directory().unwrap();
        let root = dir.path().join("root");
        let server =
            ServerProcess::with_datastore(Path::new(env!("CARGO_BIN_EXE_backstop")), &root)
                .unwrap();
        let source = dir.path().join("source");
        tree::mixed(&source, 1, 40, 6).unwrap();
        let mut spec = OsString::from("root.pxar:");
        spec.push(&source);
        let world = Self { server, dir, spec };
        succeeded(&world.backup("x", 1_700_000_001, &[])).unwrap();
        world
    }

    fn backup(&self, id: &str, time: u64, options: &[&OsStr]) -> Output {
        let time = time.to_string();
        let mut command = self.server.command("client", "store1");
        command
            .arg("backup")
            .arg(&self.spec)
            .args(["--backup-id", id, "--backup-time", &time])
            .args(options);
        command.output().unwrap()
    }

    fn restore(&self, snapshot: &str, target: &str) -> Output {
        let mut command = self.server.command("client", "store1");
        command
            .args(["restore", snapshot, "root.pxar"])
            .arg(self.dir.path().join(target))
            .output()
            .unwrap()
    }

    fn datastore(&self) -> PathBuf {
        self.server.root.join("datastore/store1")
    }

    fn assert_first_snapshot_restores(&self) {
        succeeded(&self.restore(SNAPSHOT, "proof")).unwrap();
        let aspects = Aspects {
            ownership: testbed::is_root(),
            top_directory: true,
            skip: &[],
        };
        let result = compare(
            &self.dir.path().join("source"),
            &self.dir.path().join("proof"),
            aspects,
        )
        .unwrap();
        assert_eq!(result.differences, Vec::<String>::new());
    }
}

/// The error text of a command that must fail.
fn refused(output: &Output) -> String {
    assert!(
        !output.status.success(),
        "it succeeded: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert_eq!(output.status.code(), Some(255));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    text
}

fn assert_names(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not named in: {text}");
    }
}

fn with(world: &World, change: impl FnOnce(&mut Command)) -> Output {
    let mut command = world.server.command("client", "store1");
    change(&mut command);
    command.args(["snapshot", "list"]).output().unwrap()
}

#[test]
fn a_wrong_fingerprint_is_refused_and_both_are_shown() {
    let world = World::new();
    let wrong = ["00"; 32].join(":");
    let text = refused(&with(&world, |command| {
        command.env("PBS_FINGERPRINT", &wrong);
    }));
    assert_names(&text, &[&wrong, &world.server.fingerprint]);
}

#[test]
fn a_wrong_password_is_refused() {
    let world = World::new();
    let text = refused(&with(&world, |command| {
        command.env("PBS_PASSWORD", "not-the-password");
    }));
    assert_names(&text, &["permission check failed"]);
    assert!(!text.contains("not-the-password"), "{text}");
}

#[test]
fn an_unknown_datastore_is_named() {
    let world = World::new();
    let repository = world.server.repository("no-such-store");
    let text = refused(&with(&world, |command| {
        command.env("PBS_REPOSITORY", &repository);
    }));
    assert_names(&text, &["no-such-store"]);
}

#[test]
fn a_user_without_permission_is_told_which_one_is_missing() {
    let world = World::new();
    world
        .server
        .ok(
            "manager",
            &["user", "create", "bob@pbs", "--password", "bobs-password"],
        )
        .unwrap();
    let repository = world
        .server
        .repository("store1")
        .replace("admin@pbs", "bob@pbs");
    let mut command = world.server.command("client", "store1");
    command
        .env("PBS_REPOSITORY", repository)
        .env("PBS_PASSWORD", "bobs-password");
    let output = command.arg("backup").arg(&world.spec).output().unwrap();
    assert_names(&refused(&output), &["permission check failed"]);
    world.assert_first_snapshot_restores();
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let world = World::new();
    let text = refused(&with(&world, |command| {
        command.env("PBS_REPOSITORY", "admin@pbs@127.0.0.1:1:store1");
    }));
    assert_names(&text, &["127.0.0.1:1"]);
}

#[test]
fn an_encrypted_backup_is_not_restored_with_a_wrong_key_or_none() {
    let world = World::new();
    let key = |name: &str| {
        let path = world.dir.path().join(name);
        let arguments = [
            OsStr::new("key"),
            "create".as_ref(),
            "--kdf".as_ref(),
            "none".as_ref(),
            path.as_os_str(),
        ];
        succeeded(&world.server.run("client", &arguments).unwrap()).unwrap();
        path
    };
    let (right, wrong) = (key("right.json"), key("wrong.json"));
    succeeded(&world.backup(
        "enc",
        1_700_000_001,
        &["--keyfile".as_ref(), right.as_os_str()],
    ))
    .unwrap();
    let restore = |target: &str, options: &[&OsStr]| {
        let mut command = world.server.command("client", "store1");
        command
            .args(["restore", "host/enc", "root.pxar"])
            .arg(world.dir.path().join(target))
            .args(options);
        command.output().unwrap()
    };
    assert_names(&refused(&restore("none", &[])), &["key"]);
    assert_names(
        &refused(&restore(
            "wrong",
            &["--keyfile".as_ref(), wrong.as_os_str()],
        )),
        &["wrong key"],
    );
    succeeded(&restore(
        "right",
        &["--keyfile".as_ref(), right.as_os_str()],
    ))
    .unwrap();
}

/// The largest chunk of the datastore: certainly one with file content.
fn largest_chunk(datastore: &Path) -> PathBuf {
    let mut best = (0, PathBuf::new());
    for prefix in fs::read_dir(datastore.join(".chunks")).unwrap() {
        for chunk in fs::read_dir(prefix.unwrap().path()).unwrap() {
            let path = chunk.unwrap().path();
            best = best.max((fs::metadata(&path).unwrap().len(), path));
        }
    }
    best.1
}

#[test]
fn damaged_chunks_are_named_and_never_restored() {
    let world = World::new();
    let chunk = largest_chunk(&world.datastore());
    let digest = chunk.file_name().unwrap().to_str().unwrap().to_string();
    let good = fs::read(&chunk).unwrap();

    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x40;
    fs::write(&chunk, &flipped).unwrap();
    assert_names(&refused(&world.restore(SNAPSHOT, "flipped")), &[&digest]);

    fs::write(&chunk, &good[..middle]).unwrap();
    assert_names(&refused(&world.restore(SNAPSHOT, "truncated")), &[&digest]);

    fs::remove_file(&chunk).unwrap();
    assert_names(&refused(&world.restore(SNAPSHOT, "missing")), &[&digest]);

    fs::write(&chunk, &good).unwrap();
    world.assert_first_snapshot_restores();
}

#[test]
fn damaged_indexes_and_manifests_are_named() {
    let world = World::new();
    let snapshot = world.datastore().join(SNAPSHOT);
    for name in ["root.pxar.didx", "index.json.blob"] {
        let path = snapshot.join(name);
        let good = fs::read(&path).unwrap();
        // places that a checksum covers; the rest of an index's header is reserved or a random id
        let positions = match name {
            "root.pxar.didx" => [good.len() - 5, 4096 + 3, 40],
            _ => [good.len() - 5, good.len() / 2, 9],
        };
        for (number, position) in positions.into_iter().enumerate() {
            let mut flipped = good.clone();
            flipped[position] ^= 1;
            fs::write(&path, &flipped).unwrap();
            let stem = if name == "index.json.blob" {
                "manifest"
            } else {
                "root.pxar"
            };
            assert_names(
                &refused(&world.restore(SNAPSHOT, &format!("flipped-{stem}-{number}"))),
                &[stem],
            );
        }
        fs::write(&path, &good[..good.len() - 7]).unwrap();
        refused(&world.restore(SNAPSHOT, &format!("truncated-{name}")));
        fs::write(&path, &good).unwrap();
    }
    world.assert_first_snapshot_restores();
}

#[test]
fn a_backup_older_than_the_last_one_is_refused() {
    let world = World::new();
    assert_names(
        &refused(&world.backup("x", 1_600_000_000, &[])),
        &["backup timestamp is older than last backup"],
    );
    world.assert_first_snapshot_restores();
}
