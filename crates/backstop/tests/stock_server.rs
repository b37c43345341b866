//! Our client against the stock server, and one datastore in the hands of both servers.
//!
//! Runs where `BACKSTOP_STOCK_BIN` names a folder with the stock programs, as root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use testbed::api::Api;
use testbed::server::{ServerProcess, succeeded};
use testbed::stock::StockServer;
use testbed::tree;
use testbed::tree_compare::{Aspects, compare};

const BINARY: &str = env!("CARGO_BIN_EXE_backstop");

struct World {
    stock: StockServer,
    dir: tempfile::TempDir,
    scratch: tempfile::TempDir,
}

impl World {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let scratch = testbed::scratch::directory().unwrap();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let stock = StockServer::start(&scratch.path().join("stock/store1")).unwrap()?;
        Some(Self {
            stock,
            dir,
            scratch,
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

    /// Our client against the stock server; both of its outputs.
    fn ours<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        let output = self
            .stock
            .command(Path::new(BINARY))
            .arg("client")
            .args(arguments)
            .output()
            .unwrap();
        succeeded(&output).unwrap();
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    }

    /// The stock client against the stock server.
    fn theirs<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        let output = self
            .stock
            .stock_command("proxmox-backup-client")
            .args(arguments)
            .output()
            .unwrap();
        succeeded(&output).unwrap();
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    }

    fn assert_same(&self, source: &str, target: &str) {
        let aspects = Aspects {
            ownership: true,
            top_directory: true,
            skip: &[],
        };
        let result = compare(&self.path(source), &self.path(target), aspects).unwrap();
        assert_eq!(result.differences, Vec::<String>::new());
    }
}

fn backup<'a>(specs: &'a [OsString], rest: &[&'a str]) -> Vec<&'a OsStr> {
    let mut words = vec![OsStr::new("backup")];
    words.extend(specs.iter().map(OsString::as_os_str));
    words.extend(rest.iter().map(|word| OsStr::new(*word)));
    words
}

#[test]
fn our_client_backs_up_to_a_stock_server_and_either_client_restores() {
    let Some(world) = World::new() else { return };
    fs::create_dir(world.path("source")).unwrap();
    tree::every_kind(&world.path("source")).unwrap();
    tree::image(&world.path("disk"), 5, 21).unwrap();
    let key = world.path("key.json");
    world.ours(&[
        OsStr::new("key"),
        "create".as_ref(),
        "--kdf".as_ref(),
        "none".as_ref(),
        key.as_os_str(),
    ]);
    let key = key.to_str().unwrap();
    let specs = [
        world.spec("root.pxar", "source"),
        world.spec("drive.img", "disk"),
    ];
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
                let log = world.ours(&backup(&specs, &options));
                if time == "1700000002" {
                    assert!(log.contains("drive.img: had to backup 0 B"), "{log}");
                }
            }
            let group = format!("host/{id}");
            for theirs in [true, false] {
                let target = format!("target-{id}-{theirs}");
                let run = |archive: &str, path: &Path| {
                    let mut arguments = vec!["restore", &group, archive, path.to_str().unwrap()];
                    arguments.extend(&key_options);
                    if theirs {
                        world.theirs(&arguments)
                    } else {
                        world.ours(&arguments)
                    }
                };
                run("root.pxar", &world.path(&target));
                world.assert_same("source", &target);
                let image = world.path(&format!("{target}.img"));
                run("drive.img", &image);
                assert!(fs::read(image).unwrap() == fs::read(world.path("disk")).unwrap());
            }
        }
    }
    let verify = world
        .stock
        .stock_command("proxmox-backup-manager")
        .args(["verify", "store1"])
        .output()
        .unwrap();
    let text = succeeded(&verify).unwrap();
    assert!(!text.contains("failed"), "{text}");
}

#[test]
fn our_client_lists_prunes_and_manages_a_stock_server() {
    let Some(world) = World::new() else { return };
    tree::mixed(&world.path("source"), 21, 120, 4).unwrap();
    let specs = [world.spec("root.pxar", "source")];
    world.ours(&["login"]);
    for time in ["1700000001", "1700086401", "1700172801", "1700172901"] {
        world.ours(&backup(
            &specs,
            &["--backup-id", "x", "--backup-time", time],
        ));
    }
    for arguments in [
        vec!["snapshot", "list"],
        vec!["snapshot", "list", "--output-format", "json-pretty"],
        vec!["list"],
        vec!["snapshot", "files", "host/x/2023-11-14T22:13:21Z"],
        vec!["status", "--output-format", "json"],
        vec!["namespace", "list"],
    ] {
        // standard output is the same text as the stock client's
        let ours = world
            .stock
            .command(Path::new(BINARY))
            .arg("client")
            .args(&arguments)
            .output()
            .unwrap();
        let theirs = world
            .stock
            .stock_command("proxmox-backup-client")
            .args(&arguments)
            .output()
            .unwrap();
        let [ours, theirs] = [ours, theirs].map(|output| {
            let text = succeeded(&output).unwrap();
            if arguments[0] == "status" {
                // others use the same disk, so the figures may differ between the two calls
                text.replace(|character: char| character.is_ascii_digit(), "")
            } else {
                text
            }
        });
        assert_eq!(ours, theirs, "{arguments:?}");
    }
    assert!(
        world
            .ours(&["catalog", "dump", "host/x/2023-11-14T22:13:21Z"])
            .contains("file-000101")
    );
    let pruned = world.ours(&["prune", "host/x", "--keep-daily", "2"]);
    assert_eq!(pruned.matches("keep").count(), 2, "{pruned}");
    assert!(world.ours(&["garbage-collect"]).contains("TASK OK"));
    world.ours(&["namespace", "create", "team"]);
    world.ours(&backup(&specs, &["--backup-id", "x", "--ns", "team"]));
    world.ours(&["namespace", "delete", "team", "--delete-groups", "true"]);
    assert!(
        world
            .ours(&["benchmark"])
            .contains("TLS (maximal backup upload speed)")
    );
    assert!(world.ours(&["version"]).contains("server version: 4.2"));
    assert!(world.ours(&["server-identity"]).contains("pbs-instance-id"));
    world.ours(&["logout"]);
}

#[test]
fn a_datastore_of_either_server_is_opened_verified_and_restored_by_the_other() {
    let Some(world) = World::new() else { return };
    tree::mixed(&world.path("source"), 21, 120, 8).unwrap();
    let specs = [world.spec("root.pxar", "source")];

    // ours, opened by the stock server
    let root = world.scratch.path().join("root");
    let ours = ServerProcess::with_datastore(Path::new(BINARY), &root).unwrap();
    let mut command = ours.command("client", "store1");
    succeeded(
        &command
            .args(backup(&specs, &["--backup-id", "by-us"]))
            .output()
            .unwrap(),
    )
    .unwrap();
    // its file must not disturb the stock server
    ours.ok("retention-lock", &["set", "store1", "--days", "30"])
        .unwrap();
    drop(ours);
    let copied = world.scratch.path().join("copied");
    let run = |program: &str, arguments: &[&OsStr]| {
        let output = std::process::Command::new(program)
            .args(arguments)
            .output()
            .unwrap();
        succeeded(&output).unwrap();
    };
    run(
        "cp",
        &[
            "-a".as_ref(),
            root.join("datastore/store1").as_os_str(),
            copied.as_os_str(),
        ],
    );
    run(
        "chown",
        &["-R".as_ref(), "backup:backup".as_ref(), copied.as_os_str()],
    );
    let manager = |arguments: &[&OsStr]| {
        let output = world
            .stock
            .stock_command("proxmox-backup-manager")
            .args(arguments)
            .output()
            .unwrap();
        succeeded(&output).unwrap()
    };
    let create: [&OsStr; 5] = [
        "datastore".as_ref(),
        "create".as_ref(),
        "ours".as_ref(),
        copied.as_os_str(),
        "--reuse-datastore=true".as_ref(),
    ];
    manager(&create);
    manager(&["verify".as_ref(), "ours".as_ref()]);
    let collected = manager(&[
        "garbage-collection".as_ref(),
        "start".as_ref(),
        "ours".as_ref(),
    ]);
    assert!(
        collected.contains("TASK OK") && !collected.contains("WARN"),
        "{collected}"
    );
    assert!(copied.join(".backstop-retention-lock.json").is_file());
    let mut restore = world.stock.stock_command("proxmox-backup-client");
    restore.env("PBS_REPOSITORY", "admin@pbs@127.0.0.1:ours");
    restore
        .args(["restore", "host/by-us", "root.pxar"])
        .arg(world.path("by-them"));
    succeeded(&restore.output().unwrap()).unwrap();
    world.assert_same("source", "by-them");

    // theirs, opened by our server
    world.theirs(&backup(&specs, &["--backup-id", "by-them"]));
    let copied = world.scratch.path().join("copied-stock");
    run(
        "cp",
        &[
            "-a".as_ref(),
            world.scratch.path().join("stock/store1").as_os_str(),
            copied.as_os_str(),
        ],
    );
    let ours = ServerProcess::start(
        Path::new(BINARY),
        &world.scratch.path().join("root2"),
        ([127, 0, 0, 1], 0).into(),
    )
    .unwrap();
    let create: [&OsStr; 5] = [
        "datastore".as_ref(),
        "create".as_ref(),
        "store1".as_ref(),
        copied.as_os_str(),
        "--reuse-datastore=true".as_ref(),
    ];
    ours.ok("manager", &create).unwrap();
    let mut restore = ours.command("client", "store1");
    restore
        .args(["restore", "host/by-them", "root.pxar"])
        .arg(world.path("by-us"));
    succeeded(&restore.output().unwrap()).unwrap();
    world.assert_same("source", "by-us");
}

#[test]
fn our_catalog_shell_restores_a_file_from_a_stock_server() {
    let Some(world) = World::new() else { return };
    tree::mixed(&world.path("source"), 21, 120, 4).unwrap();
    let specs = [world.spec("root.pxar", "source")];
    for mode in ["legacy", "data"] {
        world.ours(&backup(
            &specs,
            &["--backup-id", mode, "--change-detection-mode", mode],
        ));
        let mut command = world.stock.command(Path::new(BINARY));
        command.args([
            "client",
            "catalog",
            "shell",
            &format!("host/{mode}"),
            "root.pxar",
        ]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let target = world.path(&format!("shell-{mode}"));
        let script = format!(
            "cd folder-001\nselect file-000101\nrestore-selected {}\nexit\n",
            target.display()
        );
        child
            .stdin
            .take()
            .unwrap()
            .write_all(script.as_bytes())
            .unwrap();
        succeeded(&child.wait_with_output().unwrap()).unwrap();
        let restored = fs::read(target.join("folder-001/file-000101")).unwrap();
        assert!(restored == fs::read(world.path("source/folder-001/file-000101")).unwrap());
    }
}

#[test]
fn our_client_mounts_a_snapshot_of_a_stock_server() {
    let Some(world) = World::new() else { return };
    if !Path::new("/dev/fuse").exists() {
        println!("skipped: mounting needs root and /dev/fuse");
        return;
    }
    tree::mixed(&world.path("source"), 21, 120, 4).unwrap();
    let specs = [world.spec("root.pxar", "source")];
    world.ours(&backup(
        &specs,
        &["--backup-id", "x", "--change-detection-mode", "data"],
    ));
    let target = world.path("mounted");
    fs::create_dir(&target).unwrap();
    world.ours(&["mount", "host/x", "root.pxar", target.to_str().unwrap()]);
    // the mount is in the namespace of the server
    let inside = Path::new("/proc")
        .join(world.stock.pid().to_string())
        .join("root");
    let seen = inside.join(target.strip_prefix("/").unwrap());
    let aspects = Aspects {
        ownership: true,
        top_directory: true,
        skip: &[],
    };
    let result = compare(&world.path("source"), &seen, aspects);
    let unmounted = world
        .stock
        .command(Path::new("umount"))
        .arg(&target)
        .status()
        .unwrap();
    assert_eq!(result.unwrap().differences, Vec::<String>::new());
    assert!(unmounted.success());
}

#[test]
fn our_client_logs_in_to_a_stock_server_with_a_token() {
    let Some(world) = World::new() else { return };
    tree::mixed(&world.path("source"), 21, 20, 1).unwrap();
    let manager = |arguments: &[&str]| {
        let output = world
            .stock
            .stock_command("proxmox-backup-manager")
            .args(arguments)
            .output()
            .unwrap();
        succeeded(&output).unwrap()
    };
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
    let specs = [world.spec("root.pxar", "source")];
    let target = world.path("target");
    for arguments in [
        backup(&specs, &["--backup-id", "x"]),
        ["restore", "host/x", "root.pxar", target.to_str().unwrap()]
            .map(OsStr::new)
            .to_vec(),
    ] {
        let mut command = world.stock.command(Path::new(BINARY));
        command
            .env("PBS_REPOSITORY", "admin@pbs!host1@127.0.0.1:store1")
            .env("PBS_PASSWORD", &secret);
        succeeded(&command.arg("client").args(arguments).output().unwrap()).unwrap();
    }
    world.assert_same("source", "target");
}

#[test]
fn the_installation_of_a_stock_server_is_taken_over_and_handed_back() {
    let Some(world) = World::new() else { return };
    tree::mixed(&world.path("source"), 21, 120, 4).unwrap();
    let specs = [world.spec("root.pxar", "source")];
    world.theirs(&backup(
        &specs,
        &["--backup-id", "x", "--backup-time", "1700000001"],
    ));

    // our server on the stock server's configuration and datastore, while the stock server rests
    let theirs = Path::new("/proc")
        .join(world.stock.pid().to_string())
        .join("root/etc/proxmox-backup");
    let root = world.path("root");
    let etc = root.join("etc/proxmox-backup");
    fs::create_dir_all(root.join("etc")).unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&theirs, &etc])
        .output()
        .unwrap();
    succeeded(&copied).unwrap();
    let mut ours =
        ServerProcess::start(Path::new(BINARY), &root, ([127, 0, 0, 1], 0).into()).unwrap();
    assert_eq!(ours.fingerprint, world.stock.fingerprint);
    ours.password = testbed::stock::PASSWORD.into();
    let list = ours.ok("client", &["snapshot", "list"]).unwrap();
    assert!(list.contains("host/x/2023-11-14T22:13:21Z"), "{list}");
    let mut command = ours.command("client", "store1");
    let output = command
        .args(backup(
            &specs,
            &["--backup-id", "x", "--backup-time", "1700000002"],
        ))
        .output()
        .unwrap();
    succeeded(&output).unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("root.pxar: had to backup 0 B of"));
    ours.stop().unwrap();
    for name in [
        "user.cfg",
        "acl.cfg",
        "datastore.cfg",
        "shadow.json",
        "proxy.pem",
        "authkey.key",
    ] {
        assert!(
            fs::read(theirs.join(name)).unwrap() == fs::read(etc.join(name)).unwrap(),
            "{name} has changed"
        );
    }

    // and back: what we wrote is restored, continued and removed
    world.theirs(&[
        "restore",
        "host/x/2023-11-14T22:13:22Z",
        "root.pxar",
        world.path("back").to_str().unwrap(),
    ]);
    world.assert_same("source", "back");
    let log = world.theirs(&backup(
        &specs,
        &["--backup-id", "x", "--backup-time", "1700000003"],
    ));
    assert!(log.contains("root.pxar: had to backup 0 B of"), "{log}");
    world.theirs(&["snapshot", "forget", "host/x/2023-11-14T22:13:22Z"]);
    assert_eq!(
        world
            .theirs(&["snapshot", "list"])
            .matches("host/x/2023-11-")
            .count(),
        2
    );
}

#[test]
fn users_tokens_rules_and_realms_of_a_stock_server_are_changed_here_and_work_there_again() {
    let Some(world) = World::new() else { return };
    let manager = |words: &[&str]| {
        let output = world
            .stock
            .stock_command("proxmox-backup-manager")
            .args(words)
            .output()
            .unwrap();
        succeeded(&output).unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let words = ["user", "create", "ann@pbs", "--password", "Ann-Password-1"];
    manager(&[&words[..], &["--comment", "made there"]].concat());
    manager(&["user", "generate-token", "ann@pbs", "there"]);
    let rule = ["acl", "update", "/datastore/store1", "DatastoreAdmin"];
    manager(&[&rule[..], &["--auth-id", "ann@pbs"]].concat());
    let realm = [
        "openid",
        "create",
        "sso",
        "--issuer-url",
        "https://id.example.com",
    ];
    manager(&[&realm[..], &["--client-id", "b", "--comment", "made there"]].concat());

    let theirs = Path::new("/proc")
        .join(world.stock.pid().to_string())
        .join("root/etc/proxmox-backup");
    let root = world.path("root");
    let etc = root.join("etc/proxmox-backup");
    fs::create_dir_all(root.join("etc")).unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&theirs, &etc])
        .output()
        .unwrap();
    succeeded(&copied).unwrap();
    let mut ours =
        ServerProcess::start(Path::new(BINARY), &root, ([127, 0, 0, 1], 0).into()).unwrap();
    // Whom the stock server made logs in here, and changes are made with the server and without one.
    let ann = Api::log_in(&ours, "ann@pbs", "Ann-Password-1").unwrap();
    let recovery = json!({"type": "recovery", "password": "Ann-Password-1"});
    ann.post("access/tfa/ann@pbs", recovery).unwrap();
    drop(ann);
    let make = |words: &[&str]| ours.ok("manager", words).unwrap();
    make(&["user", "update", "ann@pbs", "--comment", "changed here"]);
    make(&["user", "create", "bob@pbs", "--password", "Bob-Password-1"]);
    make(&[&rule[..], &["--auth-id", "bob@pbs"]].concat());
    let made = make(&["user", "generate-token", "bob@pbs", "here"]);
    let made: Value = serde_json::from_str(made.strip_prefix("Result: ").unwrap()).unwrap();
    let secret = made["value"].as_str().unwrap();
    make(&[&rule[..], &["--auth-id", "bob@pbs!here"]].concat());
    make(&["openid", "update", "sso", "--comment", "changed here"]);
    make(&["user", "tfa", "list", "ann@pbs"]);
    ours.stop().unwrap();
    for name in [
        "user.cfg",
        "acl.cfg",
        "domains.cfg",
        "shadow.json",
        "token.shadow",
        "tfa.json",
    ] {
        // In place, so that files that are there keep their owner.
        fs::write(theirs.join(name), fs::read(etc.join(name)).unwrap()).unwrap();
    }

    let list = |words: &[&str]| -> Vec<Value> {
        let words = [words, &["--output-format", "json"]].concat();
        serde_json::from_str(&manager(&words)).unwrap()
    };
    let users = list(&["user", "list"]);
    let find = |id: &str| users.iter().find(|user| user["userid"] == id).unwrap();
    assert_eq!(find("ann@pbs")["comment"], "changed here");
    assert!(find("bob@pbs").is_object());
    assert_eq!(list(&["openid", "list"])[0]["comment"], "changed here");
    assert_eq!(list(&["user", "list-tokens", "bob@pbs"]).len(), 1);
    assert_eq!(list(&["user", "list-tokens", "ann@pbs"]).len(), 1);
    assert_eq!(
        list(&["user", "tfa", "list", "ann@pbs"])[0]["id"],
        "recovery"
    );
    for (who, secret) in [("bob@pbs", "Bob-Password-1"), ("bob@pbs!here", secret)] {
        let log_in = || {
            let mut client = world.stock.stock_command("proxmox-backup-client");
            client
                .args(["snapshot", "list"])
                .env("PBS_REPOSITORY", format!("{who}@127.0.0.1:store1"))
                .env("PBS_PASSWORD", secret);
            succeeded(&client.output().unwrap())
        };
        // A stock server believes its own memory of the files for some seconds.
        let begin = std::time::Instant::now();
        while let Err(error) = log_in() {
            assert!(begin.elapsed().as_secs() < 60, "{who}: {error:#}");
        }
    }
}

#[test]
fn targets_and_matchers_of_either_program_are_those_of_the_other() {
    let Some(world) = World::new() else { return };
    let run = |mut command: std::process::Command, words: &str| {
        let output = command.args(words.split(' ')).output().unwrap();
        succeeded(&output).unwrap()
    };
    let ours = |words: &str| {
        let mut command = world.stock.command(Path::new(BINARY));
        command.args(["manager", "notification"]);
        run(command, words)
    };
    let stock = |words: &str| {
        let mut command = world.stock.stock_command("proxmox-backup-manager");
        command.arg("notification");
        run(command, words)
    };
    ours(
        "endpoint webhook create hook --method post --url http://127.0.0.1:9/{{secrets.a}} --secret name=a,value=aHVzaA==",
    );
    ours(
        "endpoint smtp create mail --server 127.0.0.1 --from-address a@example.com --mailto b@example.com --password hush",
    );
    ours(
        "matcher create night --match-calendar 22-23:59 --match-severity warning,error --target hook --target mail",
    );
    stock("endpoint gotify create got --server http://127.0.0.1:9 --token hush");
    stock("endpoint webhook update hook --comment both --secret name=a --secret name=b,value=Yg==");
    stock("matcher update night --mode any");
    ours("matcher update default-matcher --comment ours");
    for what in [
        "target list",
        "matcher list",
        "endpoint webhook list",
        "endpoint smtp list",
        "endpoint gotify list",
    ] {
        let words = format!("{what} --output-format json");
        let sorted = |text: String| {
            let mut list: Vec<Value> = serde_json::from_str(&text).unwrap();
            list.sort_by_key(|entry| entry["name"].to_string());
            list
        };
        assert_eq!(sorted(ours(&words)), sorted(stock(&words)), "{what}");
    }
    let hook: Value =
        serde_json::from_str(&ours("endpoint webhook show hook --output-format json")).unwrap();
    assert_eq!(hook["secret"], json!(["name=a", "name=b"]));
    stock("matcher delete night");
    ours("endpoint webhook delete hook");
    assert!(!stock("target list --output-format json").contains("hook"));
}
