//! The stock client against our server, and a datastore that both servers write.
//!
//! Runs where `BACKSTOP_STOCK_BIN` names a folder with the stock programs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use testbed::server::{ServerProcess, succeeded};
use testbed::tree_compare::{Aspects, compare};
use testbed::{stock, tree};

struct World {
    server: ServerProcess,
    stock: PathBuf,
    /// On a real disk: the stock client stores no attributes of files in memory.
    dir: tempfile::TempDir,
    _scratch: tempfile::TempDir,
}

impl World {
    fn new() -> Option<Self> {
        let stock = stock::program("proxmox-backup-client")?;
        let scratch = testbed::scratch::directory().unwrap();
        let root = scratch.path().join("root");
        let server =
            ServerProcess::with_datastore(Path::new(env!("CARGO_BIN_EXE_backstop")), &root)
                .unwrap();
        Some(Self {
            server,
            stock,
            dir: tempfile::tempdir().unwrap(),
            _scratch: scratch,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn spec(&self, archive: &str, name: &str) -> OsString {
        let mut spec = OsString::from(format!("{archive}:"));
        spec.push(self.path(name));
        spec
    }

    /// The stock client, prepared to talk to our server.
    fn stock_command(&self) -> Command {
        let mut command = Command::new(&self.stock);
        self.server.environment(&mut command, "store1");
        command.env_remove("RUST_BACKTRACE");
        command
    }

    fn stock<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        let output = self.stock_command().args(arguments).output().unwrap();
        succeeded(&output).unwrap();
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    }

    fn ours<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        let output = self.server.run("client", arguments).unwrap();
        succeeded(&output).unwrap();
        output
    }

    fn assert_same(&self, source: &str, target: &str) {
        let aspects = Aspects {
            ownership: testbed::is_root(),
            top_directory: true,
            skip: &[],
        };
        let result = compare(&self.path(source), &self.path(target), aspects).unwrap();
        assert_eq!(result.differences, Vec::<String>::new());
    }

    fn every_kind(&self) {
        fs::create_dir(self.path("source")).unwrap();
        tree::every_kind(&self.path("source")).unwrap();
    }
}

fn words<'a>(spec: &'a OsStr, rest: &[&'a str]) -> Vec<&'a OsStr> {
    let mut words = vec![OsStr::new("backup"), spec];
    words.extend(rest.iter().map(|word| OsStr::new(*word)));
    words
}

#[test]
fn the_stock_client_backs_up_and_restores_in_every_mode() {
    let Some(world) = World::new() else { return };
    world.every_kind();
    tree::image(&world.path("disk"), 5, 21).unwrap();
    let key = world.path("key.json");
    world.stock(&[
        OsStr::new("key"),
        "create".as_ref(),
        "--kdf".as_ref(),
        "none".as_ref(),
        key.as_os_str(),
    ]);
    let key = key.to_str().unwrap();
    let spec = world.spec("root.pxar", "source");
    for (number, mode) in ["legacy", "data", "metadata"].into_iter().enumerate() {
        for encrypted in [false, true] {
            let id = format!("id-{number}-{encrypted}");
            let key_options = if encrypted {
                vec!["--keyfile", key]
            } else {
                vec![]
            };
            for time in ["1700000001", "1700000002"] {
                let mut options = vec![
                    "--backup-id",
                    &id,
                    "--backup-time",
                    time,
                    "--change-detection-mode",
                    mode,
                ];
                options.extend(&key_options);
                let mut arguments = words(&spec, &options);
                let image = world.spec("drive.img", "disk");
                arguments.push(&image);
                let log = world.stock(&arguments);
                if time == "1700000002" {
                    assert!(log.contains("drive.img: had to backup 0 B"), "{log}");
                }
            }
            let group = format!("host/{id}");
            for (by, name) in [(true, "stock"), (false, "ours")] {
                let target = format!("target-{id}-{name}");
                let path = world.path(&target);
                let mut arguments = vec!["restore", &group, "root.pxar", path.to_str().unwrap()];
                arguments.extend(&key_options);
                if by {
                    world.stock(&arguments);
                } else {
                    world.ours(&arguments);
                }
                world.assert_same("source", &target);
                let image = world.path(&format!("{target}.img"));
                let mut arguments = vec!["restore", &group, "drive.img", image.to_str().unwrap()];
                arguments.extend(&key_options);
                if by {
                    world.stock(&arguments);
                } else {
                    world.ours(&arguments);
                }
                assert!(fs::read(image).unwrap() == fs::read(world.path("disk")).unwrap());
            }
        }
    }
}

#[test]
fn our_client_and_the_stock_client_share_chunks_and_previous_snapshots() {
    let Some(world) = World::new() else { return };
    tree::mixed(&world.path("source"), 21, 200, 40).unwrap();
    tree::image(&world.path("disk"), 5, 21).unwrap();
    let (tree, image) = (
        world.spec("root.pxar", "source"),
        world.spec("drive.img", "disk"),
    );
    let arguments = |time| {
        let mut all = words(&tree, &["--backup-id", "x", "--backup-time", time]);
        all.push(&image);
        all
    };
    world.stock(&arguments("1700000001"));
    let ours = world.ours(&arguments("1700000002"));
    let log = String::from_utf8_lossy(&ours.stderr).into_owned();
    assert!(log.contains("root.pxar: had to backup 0 B of"), "{log}");
    assert!(log.contains("drive.img: had to backup 0 B of"), "{log}");
    let log = world.stock(&arguments("1700000003"));
    assert!(log.contains("root.pxar: had to backup 0 B of"), "{log}");
    assert!(log.contains("drive.img: had to backup 0 B of"), "{log}");
    // the archives themselves are the same bytes
    let snapshots = world.server.root.join("datastore/store1/host/x");
    let csum = |time: &str, name: &str| {
        fs::read(
            snapshots
                .join(format!("2023-11-14T22:13:{time}Z"))
                .join(name),
        )
        .unwrap()[32..64]
            .to_vec()
    };
    for name in ["root.pxar.didx", "drive.img.fidx", "catalog.pcat1.didx"] {
        assert_eq!(csum("21", name), csum("22", name), "{name}");
    }
}

#[test]
fn the_stock_client_lists_browses_prunes_and_forgets() {
    let Some(world) = World::new() else { return };
    tree::mixed(&world.path("source"), 21, 120, 4).unwrap();
    let spec = world.spec("root.pxar", "source");
    world.stock(&["login"]);
    for time in ["1700000001", "1700086401", "1700172801", "1700172901"] {
        world.stock(&words(&spec, &["--backup-id", "x", "--backup-time", time]));
    }
    let list = world.stock(&["snapshot", "list"]);
    assert_eq!(list.matches("host/x/2023-11-").count(), 4, "{list}");
    assert!(world.stock(&["list"]).contains("host/x"));
    let snapshot = "host/x/2023-11-14T22:13:21Z";
    assert!(
        world
            .stock(&["snapshot", "files", snapshot])
            .contains("root.pxar.didx")
    );
    assert!(
        world
            .stock(&["catalog", "dump", snapshot])
            .contains("file-000101")
    );
    world.stock(&["snapshot", "notes", "update", snapshot, "a note"]);
    assert!(
        world
            .stock(&["snapshot", "notes", "show", snapshot])
            .contains("a note")
    );
    world.stock(&["snapshot", "protected", "update", snapshot, "true"]);
    let forget = world
        .stock_command()
        .args(["snapshot", "forget", snapshot])
        .output()
        .unwrap();
    assert!(!forget.status.success());
    world.stock(&["snapshot", "protected", "update", snapshot, "false"]);
    let pruned = world.stock(&["prune", "host/x", "--keep-daily", "2"]);
    assert_eq!(pruned.matches("keep").count(), 2, "{pruned}");
    assert_eq!(
        world
            .stock(&["snapshot", "list"])
            .matches("host/x/2023-11-")
            .count(),
        2
    );
    assert!(world.stock(&["garbage-collect"]).contains("TASK OK"));
    assert!(world.stock(&["status"]).contains("total"));
    assert!(world.stock(&["version"]).contains("server version: 4.2"));
    assert!(
        world
            .stock(&["server-identity"])
            .contains("pbs-instance-id")
    );
    assert!(
        world
            .stock(&["task", "list", "--all"])
            .contains("garbage_collection")
    );
    world.stock(&["namespace", "create", "team"]);
    world.stock(&words(&spec, &["--backup-id", "x", "--ns", "team"]));
    assert!(world.stock(&["namespace", "list"]).contains("team"));
    world.stock(&["namespace", "delete", "team", "--delete-groups", "true"]);
    world.stock(&["change-owner", "host/x", "admin@pbs"]);
    world.stock(&["logout"]);
}

#[test]
fn the_stock_catalog_shell_restores_a_file() {
    let Some(world) = World::new() else { return };
    tree::mixed(&world.path("source"), 21, 120, 4).unwrap();
    let spec = world.spec("root.pxar", "source");
    for (id, mode) in [("legacy", "legacy"), ("split", "data")] {
        world.stock(&words(
            &spec,
            &["--backup-id", id, "--change-detection-mode", mode],
        ));
        let mut command = world.stock_command();
        command.args(["catalog", "shell", &format!("host/{id}"), "root.pxar"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let target = world.path(&format!("shell-{id}"));
        let script = format!(
            "cd folder-001\nls\nselect file-000101\nrestore-selected {}\nexit\n",
            target.display()
        );
        child
            .stdin
            .take()
            .unwrap()
            .write_all(script.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let restored = fs::read(target.join("folder-001/file-000101"))
            .unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(restored == fs::read(world.path("source/folder-001/file-000101")).unwrap());
    }
}

#[test]
fn the_stock_client_mounts_a_snapshot() {
    let Some(world) = World::new() else { return };
    if !testbed::is_root() || !Path::new("/dev/fuse").exists() {
        println!("skipped: mounting needs root and /dev/fuse");
        return;
    }
    tree::mixed(&world.path("source"), 21, 120, 4).unwrap();
    world.stock(&words(
        &world.spec("root.pxar", "source"),
        &["--backup-id", "x"],
    ));
    let target = world.path("mounted");
    fs::create_dir(&target).unwrap();
    world.stock(&["mount", "host/x", "root.pxar", target.to_str().unwrap()]);
    let result = compare(
        &world.path("source"),
        &target,
        Aspects {
            ownership: true,
            top_directory: true,
            skip: &[],
        },
    );
    let unmounted = Command::new("umount").arg(&target).status().unwrap();
    assert_eq!(result.unwrap().differences, Vec::<String>::new());
    assert!(unmounted.success());
}

#[test]
fn the_stock_benchmark_runs() {
    let Some(world) = World::new() else { return };
    let text = world.stock(&["benchmark"]);
    assert!(text.contains("TLS (maximal backup upload speed)"), "{text}");
    assert!(!text.contains("not tested"), "{text}");
    assert!(
        !world
            .server
            .root
            .join("datastore/store1/host/benchmark")
            .exists()
    );
}

#[test]
fn the_stock_client_logs_in_with_a_token() {
    let Some(world) = World::new() else { return };
    tree::mixed(&world.path("source"), 1, 5, 1).unwrap();
    let manager = |arguments: &[&str]| world.server.ok("manager", arguments).unwrap();
    let reply = manager(&["user", "generate-token", "admin@pbs", "host1"]);
    let secret = reply
        .split("\"value\": \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_string();
    manager(&[
        "acl",
        "update",
        "/datastore/store1",
        "DatastoreBackup",
        "--auth-id",
        "admin@pbs!host1",
    ]);
    let spec = world.spec("root.pxar", "source");
    let mut command = world.stock_command();
    let repository = world
        .server
        .repository("store1")
        .replace("admin@pbs", "admin@pbs!host1");
    command
        .env("PBS_REPOSITORY", repository)
        .env("PBS_PASSWORD", secret);
    succeeded(
        &command
            .args(words(&spec, &["--backup-id", "x"]))
            .output()
            .unwrap(),
    )
    .unwrap();
}
