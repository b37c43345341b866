//! Sync with a stock server: we pull from it, and it pulls from us.
//!
//! Runs where `BACKSTOP_STOCK_BIN` names a folder with the stock programs, as root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use testbed::server::{ServerProcess, succeeded};
use testbed::stock::{PASSWORD, StockServer};
use testbed::tree;
use testbed::tree_compare::{Aspects, compare};

struct World {
    /// Ours, beside the stock server.
    ours: ServerProcess,
    stock: StockServer,
    scratch: tempfile::TempDir,
}

impl World {
    fn new() -> Option<Self> {
        let scratch = testbed::scratch::directory().unwrap();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let stock = StockServer::start(&scratch.path().join("stock/store1")).unwrap()?;
        // In the namespaces of the stock server, whose ports nobody else reaches.
        let program = scratch.path().join("backstop");
        let script = format!(
            "#!/bin/sh\nexec nsenter --target {} --mount --net {} \"$@\"\n",
            stock.pid(),
            env!("CARGO_BIN_EXE_backstop")
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let ours = ServerProcess::with_datastore(&program, &scratch.path().join("ours")).unwrap();
        Some(Self {
            ours,
            stock,
            scratch,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn stock(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = self.stock.stock_command(program);
        succeeded(&command.args(arguments).output().unwrap()).unwrap()
    }

    fn assert_same(&self, one: &str, other: &str) {
        let aspects = Aspects {
            ownership: true,
            top_directory: true,
            skip: &[],
        };
        let result = compare(&self.path(one), &self.path(other), aspects).unwrap();
        assert_eq!(result.differences, Vec::<String>::new());
    }

    /// A tree, an image and a key, and the words that back them up.
    fn sources(&self) -> Vec<String> {
        fs::create_dir(self.path("source")).unwrap();
        tree::every_kind(&self.path("source")).unwrap();
        tree::image(&self.path("disk"), 5, 13).unwrap();
        vec![
            "backup".to_owned(),
            format!("root.pxar:{}", self.path("source").display()),
            format!("drive.img:{}", self.path("disk").display()),
        ]
    }
}

fn words<'a>(first: &'a [String], rest: &[&'a str]) -> Vec<&'a str> {
    let first = first.iter().map(String::as_str);
    first.chain(rest.iter().copied()).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn we_pull_what_stock_clients_backed_up_to_a_stock_server() {
    let Some(world) = World::new() else { return };
    let sources = world.sources();
    let key = world.path("key.json");
    let client = "proxmox-backup-client";
    world.stock(client, &["key", "create", text(&key), "--kdf", "none"]);
    world.stock(client, &["namespace", "create", "team"]);
    let plain = ["--backup-id", "x", "--backup-time", "1700000001"];
    world.stock(client, &words(&sources, &plain));
    let later = [
        "--backup-id",
        "x",
        "--backup-time",
        "1700000002",
        "--ns",
        "team",
    ];
    world.stock(client, &words(&sources, &later));
    let sealed = ["--backup-id", "sealed", "--keyfile", text(&key)];
    world.stock(client, &words(&sources, &sealed));

    let remote = [
        "remote",
        "create",
        "stock",
        "--host",
        "127.0.0.1",
        "--auth-id",
        "admin@pbs",
    ];
    let secret = [
        "--password",
        PASSWORD,
        "--fingerprint",
        &world.stock.fingerprint,
    ];
    let ours = |arguments: &[&str]| world.ours.ok("manager", arguments).unwrap();
    ours(&[&remote[..], &secret].concat());
    let pull = ["pull", "stock", "store1", "store1", "--worker-threads", "2"];
    let log = ours(&pull);
    assert!(log.contains("Created namespace team"), "{log}");
    let log = ours(&pull);
    assert!(
        log.contains("Summary: sync job found no new data to pull"),
        "{log}"
    );
    ours(&["verify", "store1"]);

    for (snapshot, options) in [
        ("host/x", &["--ns", ""][..]),
        ("host/x", &["--ns", "team"]),
        ("host/sealed", &["--keyfile", text(&key)]),
    ] {
        let target = format!("target{}", options.concat().replace('/', "-"));
        let image = world.path("image");
        for (archive, path) in [("root.pxar", &world.path(&target)), ("drive.img", &image)] {
            let restore = ["restore", snapshot, archive, text(path)];
            // Owned by root at the target, as the command line is.
            let mut command = world.ours.command("client", "store1");
            command.args([&restore[..], options].concat());
            succeeded(&command.output().unwrap()).unwrap();
        }
        world.assert_same("source", &target);
        assert!(fs::read(&image).unwrap() == fs::read(world.path("disk")).unwrap());
        fs::remove_file(&image).unwrap();
    }

    // What comes later comes alone.
    let third = ["--backup-id", "x", "--backup-time", "1700000003"];
    world.stock(client, &words(&sources, &third));
    let log = ours(&pull);
    assert!(
        log.contains("[host/x]: 2023-11-14T22:13:23Z: sync done"),
        "{log}"
    );
}

#[test]
fn a_stock_server_pulls_from_ours_and_its_client_restores() {
    let Some(world) = World::new() else { return };
    let sources = world.sources();
    world
        .ours
        .ok("client", &["namespace", "create", "team"])
        .unwrap();
    for options in [
        &["--backup-id", "x", "--backup-time", "1700000001"][..],
        &["--backup-id", "x", "--backup-time", "1700000002"],
        &[
            "--backup-id",
            "x",
            "--backup-time",
            "1700000003",
            "--ns",
            "team",
        ],
    ] {
        world.ours.ok("client", &words(&sources, options)).unwrap();
    }
    let manager = "proxmox-backup-manager";
    let port = world.ours.address.port().to_string();
    let remote = [
        "remote",
        "create",
        "ours",
        "--host",
        "127.0.0.1",
        "--port",
        &port,
    ];
    let account = ["--auth-id", "admin@pbs", "--password", &world.ours.password];
    let pin = ["--fingerprint", &world.ours.fingerprint];
    world.stock(manager, &[&remote[..], &account, &pin].concat());
    world.stock(manager, &["pull", "ours", "store1", "store1"]);
    // Nothing is left to do, and the group is locked by nobody.
    world.stock(manager, &["pull", "ours", "store1", "store1"]);
    let verify = world.stock(manager, &["verify", "store1"]);
    assert!(!verify.contains("failed"), "{verify}");
    // Pulled by root, so that the stock client needs root's rights.
    for (number, ns) in ["", "team"].into_iter().enumerate() {
        let target = format!("target{number}");
        let restore = [
            "restore",
            "host/x",
            "root.pxar",
            text(&world.path(&target)),
            "--ns",
            ns,
        ]
        .map(str::to_owned);
        let restore: Vec<&str> = restore.iter().map(String::as_str).collect();
        world.stock("proxmox-backup-client", &restore);
        world.assert_same("source", &target);
    }
}
