//! Sync with a stock server, in all four pairings: each pulls from the other, and each pushes to the other.
//!
//! Runs where `BACKSTOP_STOCK_BIN` names a folder with the stock programs, as root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use testbed::authority::Authority;
use testbed::server::{ServerProcess, succeeded};
use testbed::stock::{PASSWORD, StockServer};
use testbed::tree;
use testbed::tree_compare::{Aspects, compare};

struct World {
    /// Ours, beside the stock server.
    ours: ServerProcess,
    stock: StockServer,
    scratch: tempfile::TempDir,
    /// On a disk, as stock clients keep no extended attributes of what lies in memory.
    disk: tempfile::TempDir,
}

/// A login to the stock server, whose interface is asked with `curl`.
struct StockApi {
    cookie: String,
    csrf: String,
}

const CUSTOM: &str = "nodes/localhost/certificates/custom";
const STOCK_API: &str = "https://127.0.0.1:8007/api2/json";

impl StockApi {
    /// `None` (and a line that says so) where there is no `curl`.
    fn log_in(world: &World) -> Option<Self> {
        let password = format!("password={PASSWORD}");
        let login = format!("{STOCK_API}/access/ticket");
        let form = ["--data", "username=admin@pbs", "--data", &password, &login];
        let Some(login) = Self::curl(world, &form) else {
            println!("skipped: curl is not installed");
            return None;
        };
        let login: serde_json::Value = serde_json::from_str(&login).unwrap();
        let of = |key: &str| login["data"][key].as_str().unwrap().to_owned();
        Some(Self {
            cookie: format!("PBSAuthCookie={}", of("ticket").replace('%', "%25")),
            csrf: format!("CSRFPreventionToken: {}", of("CSRFPreventionToken")),
        })
    }

    fn curl(world: &World, arguments: &[&str]) -> Option<String> {
        let mut command = world.stock.command(Path::new("curl"));
        command.args(["--silent", "--show-error", "--fail", "--insecure"]);
        match command.args(arguments).output() {
            Ok(output) if output.status.code() != Some(127) => Some(succeeded(&output).unwrap()),
            _ => None,
        }
    }

    fn call(&self, world: &World, method: &str, path: &str, data: &[String]) -> String {
        let url = format!("{STOCK_API}/{path}");
        let mut arguments = vec!["--request", method, "--cookie", &self.cookie];
        arguments.extend(["--header", &self.csrf]);
        for item in data {
            arguments.extend(["--data-urlencode", item]);
        }
        arguments.push(&url);
        Self::curl(world, &arguments).unwrap()
    }
}

impl World {
    fn new() -> Option<Self> {
        Self::in_directory(testbed::scratch::directory().unwrap(), "")
    }

    /// Ours runs with these variables.
    fn in_directory(scratch: tempfile::TempDir, variables: &str) -> Option<Self> {
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let stock = StockServer::start(&scratch.path().join("stock/store1")).unwrap()?;
        // In the namespaces of the stock server, whose ports nobody else reaches.
        let program = scratch.path().join("backstop");
        let script = format!(
            "#!/bin/sh\nexec env {variables} nsenter --target {} --mount --net {} \"$@\"\n",
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
            disk: tempfile::tempdir().unwrap(),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        match name {
            "source" => self.disk.path().join(name),
            _ => self.scratch.path().join(name),
        }
    }

    /// The fingerprint of the certificate of the stock server.
    fn shown(&self) -> String {
        let info = self.stock("proxmox-backup-manager", &["cert", "info"]);
        let mut lines = info.lines();
        let found = lines.find_map(|line| line.strip_prefix("Fingerprint (sha256): "));
        found.unwrap().to_owned()
    }

    fn stock(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = self.stock.stock_command(program);
        succeeded(&command.args(arguments).output().unwrap()).unwrap()
    }

    /// Makes the stock server known to ours, as `stock`.
    fn add_stock_as_remote(&self) {
        let remote = ["remote", "create", "stock", "--host", "127.0.0.1"];
        let account = ["--auth-id", "admin@pbs", "--password", PASSWORD];
        let pin = ["--fingerprint", &self.stock.fingerprint];
        let words = [&remote[..], &account, &pin].concat();
        self.ours.ok("manager", &words).unwrap();
    }

    /// Makes ours known to the stock server, as `ours`.
    fn add_ours_as_remote(&self) {
        let port = self.ours.address.port().to_string();
        let remote = ["remote", "create", "ours", "--host", "127.0.0.1"];
        let account = ["--auth-id", "admin@pbs", "--password", &self.ours.password];
        let pin = ["--port", &port, "--fingerprint", &self.ours.fingerprint];
        let words = [&remote[..], &account, &pin].concat();
        self.stock("proxmox-backup-manager", &words);
    }

    /// Makes a key file of the client.
    fn key(&self, name: &str) -> String {
        let key = self.path(name);
        let words = ["key", "create", text(&key), "--kdf", "none"];
        self.stock("proxmox-backup-client", &words);
        text(&key).to_owned()
    }

    /// Restores the tree and the image of a snapshot with the stock client, and compares them.
    fn stock_restores(&self, target: &str, snapshot: &str, options: &[&str]) {
        let image = self.path("image");
        for (archive, path) in [("root.pxar", &self.path(target)), ("drive.img", &image)] {
            let words = ["restore", snapshot, archive, text(path)];
            self.stock("proxmox-backup-client", &[&words[..], options].concat());
        }
        self.assert_same("source", target);
        assert!(fs::read(&image).unwrap() == fs::read(self.path("disk")).unwrap());
        fs::remove_file(&image).unwrap();
    }

    /// The same, from a datastore of our server.
    fn stock_restores_from_ours(&self, store: &str, target: &str, options: &[&str]) {
        let port = self.ours.address.port();
        let repository = format!("admin@pbs@127.0.0.1:{port}:{store}");
        let image = self.path("image");
        for (archive, path) in [("root.pxar", &self.path(target)), ("drive.img", &image)] {
            let mut command = self.stock.stock_command("proxmox-backup-client");
            command
                .env("PBS_REPOSITORY", &repository)
                .env("PBS_PASSWORD", &self.ours.password)
                .env("PBS_FINGERPRINT", &self.ours.fingerprint)
                .args(["restore", "host/x", archive, text(path)])
                .args(options);
            succeeded(&command.output().unwrap()).unwrap();
        }
        self.assert_same("source", target);
        assert!(fs::read(&image).unwrap() == fs::read(self.path("disk")).unwrap());
        fs::remove_file(&image).unwrap();
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
    let key = world.key("key.json");
    let client = "proxmox-backup-client";
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
    let sealed = ["--backup-id", "sealed", "--keyfile", &key];
    world.stock(client, &words(&sources, &sealed));

    world.add_stock_as_remote();
    let ours = |arguments: &[&str]| world.ours.ok("manager", arguments).unwrap();
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
        ("host/sealed", &["--keyfile", &key]),
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

    // A job remembers what it has compared, by what the lists of the stock server show.
    let job = ["sync-job", "create", "job1", "--remote", "stock"];
    let stores = ["--remote-store", "store1", "--store", "store1"];
    ours(&[&job[..], &stores].concat());
    let run = ["sync-job", "run", "job1"];
    let sessions = || {
        let tasks = world.stock(
            "proxmox-backup-manager",
            &["task", "list", "--all", "true", "--limit", "1000"],
        );
        tasks.matches(":reader:").count()
    };
    ours(&run);
    let before = sessions();
    let log = ours(&run);
    for group in ["host/x", "host/sealed"] {
        let is_same = |line: &str| line.contains(group) && line.contains(": no data changes");
        assert!(log.lines().any(is_same), "{log}");
    }
    assert!(
        log.contains("Summary: snapshots copied: 0, still missing: 0"),
        "{log}"
    );
    assert_eq!(sessions(), before, "{log}");

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
    let key = world.path("key.json");
    let client = |arguments: &[&str]| world.ours.ok("client", arguments).unwrap();
    client(&["key", "create", text(&key), "--kdf", "none"]);
    let sealed = ["--backup-id", "sealed", "--keyfile", text(&key)];
    client(&words(&sources, &sealed));
    let manager = "proxmox-backup-manager";
    world.add_ours_as_remote();
    let pull = ["pull", "ours", "store1", "store1"];
    let log = world.stock(manager, &pull);
    assert!(log.contains("Created namespace team"), "{log}");
    // Nothing is left to do, and the group is locked by nobody.
    let log = world.stock(manager, &pull);
    assert!(log.contains("no data changes"), "{log}");
    assert!(!log.contains("sync done"), "{log}");
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
    let image = world.path("image");
    let restore = ["restore", "host/sealed", "drive.img", text(&image)];
    let restore = [&restore[..], &["--keyfile", text(&key)]].concat();
    world.stock("proxmox-backup-client", &restore);
    assert!(fs::read(&image).unwrap() == fs::read(world.path("disk")).unwrap());
    // What comes later comes alone.
    client(&words(
        &sources,
        &["--backup-id", "x", "--backup-time", "1700000009"],
    ));
    let log = world.stock(manager, &pull);
    assert!(log.contains("2023-11-14T22:13:29Z: sync done"), "{log}");
}

#[test]
fn we_push_to_a_stock_server_and_its_client_restores() {
    let Some(world) = World::new() else { return };
    let sources = world.sources();
    let key = world.key("key.json");
    let client = |words: &[&str]| world.ours.ok("client", words).unwrap();
    client(&["namespace", "create", "team"]);
    for options in [
        &["--backup-id", "x", "--backup-time", "1700000001"][..],
        &["--backup-id", "x", "--backup-time", "1700000002"],
        &["--backup-id", "y", "--backup-time", "1700000002"],
        &[
            "--backup-id",
            "x",
            "--backup-time",
            "1700000003",
            "--ns",
            "team",
        ],
        &["--backup-id", "sealed", "--keyfile", &key],
    ] {
        client(&words(&sources, options));
    }
    fs::write(world.path("log"), "what the client said").unwrap();
    let newest = "host/x/2023-11-14T22:13:22Z";
    client(&["snapshot", "upload-log", newest, text(&world.path("log"))]);
    world.add_stock_as_remote();
    let ours = |arguments: &[&str]| world.ours.ok("manager", arguments).unwrap();
    let push = ["push", "store1", "stock", "store1", "--worker-threads", "2"];
    let log = ours(&push);
    assert!(
        log.contains("Successfully created new namespace team on remote"),
        "{log}"
    );
    let log = ours(&push);
    assert!(
        log.contains("Summary: sync job found no new data to push"),
        "{log}"
    );
    let verify = world.stock("proxmox-backup-manager", &["verify", "store1"]);
    assert!(!verify.contains("failed"), "{verify}");
    world.stock_restores("plain", newest, &[]);
    world.stock_restores("team", "host/x", &["--ns", "team"]);
    world.stock_restores("sealed", "host/sealed", &["--keyfile", &key]);
    let log = world.stock("proxmox-backup-client", &["snapshot", "files", newest]);
    assert!(log.contains("client.log.blob"), "{log}");

    // What comes later brings only what is new; with a key, it is encrypted on its way.
    client(&words(
        &sources,
        &["--backup-id", "y", "--backup-time", "1700000004"],
    ));
    let log = ours(&push);
    assert!(
        log.contains("[host/y]: 2023-11-14T22:13:24Z: sync done"),
        "{log}"
    );
    ours(&["encryption-key", "create", "given1", "--keyfile", &key]);
    let sealing = [
        "--encryption-key",
        "given1",
        "--remote-ns",
        "sealed",
        "--max-depth",
        "0",
    ];
    ours(&[&push[..], &sealing].concat());
    let options = ["--ns", "sealed", "--keyfile", &key];
    world.stock_restores("sealed-here", newest, &options);
    // Vanished here: gone there.
    for time in ["2023-11-14T22:13:22Z", "2023-11-14T22:13:24Z"] {
        client(&["snapshot", "forget", &format!("host/y/{time}")]);
    }
    let log = ours(
        &[
            &push[..],
            &["--remove-vanished", "true", "--max-depth", "0"],
        ]
        .concat(),
    );
    assert!(
        log.contains("Removed vanished group host/y from remote"),
        "{log}"
    );
    assert!(
        log.contains("removed vanished: snapshots: 2, groups: 1"),
        "{log}"
    );
}

#[test]
fn a_stock_server_pushes_to_ours_and_its_client_restores() {
    let Some(world) = World::new() else { return };
    let sources = world.sources();
    let (client, manager) = ("proxmox-backup-client", "proxmox-backup-manager");
    world.stock(client, &["namespace", "create", "team"]);
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
        world.stock(client, &words(&sources, options));
    }
    world.add_ours_as_remote();
    let push = ["push", "store1", "ours", "store1"];
    world.stock(manager, &push);
    let log = world.stock(manager, &push);
    assert!(log.contains("skipped: 2 snapshot(s)"), "{log}");
    world.ours.ok("manager", &["verify", "store1"]).unwrap();
    world.stock_restores_from_ours("store1", "plain", &["--ns", ""]);
    world.stock_restores_from_ours("store1", "team", &["--ns", "team"]);

    // Encrypted on its way with a key that our command made for the stock server.
    let mut ours = world
        .stock
        .command(Path::new(env!("CARGO_BIN_EXE_backstop")));
    let made = ours
        .args(["manager", "encryption-key", "create", "key1"])
        .output();
    let key = world.path("key1.json");
    fs::write(&key, succeeded(&made.unwrap()).unwrap()).unwrap();
    let create = [
        "sync-job", "create", "push1", "--store", "store1", "--remote", "ours",
    ];
    let place = [
        "--remote-store",
        "store1",
        "--remote-ns",
        "sealed",
        "--max-depth",
        "0",
    ];
    let sealing = [
        "--sync-direction",
        "push",
        "--active-encryption-key",
        "key1",
    ];
    world.stock(manager, &[&create[..], &place, &sealing].concat());
    world.stock(manager, &["sync-job", "run", "push1"]);
    let options = ["--ns", "sealed", "--keyfile", text(&key)];
    world.stock_restores_from_ours("store1", "sealed", &options);
    world.ours.ok("manager", &["verify", "store1"]).unwrap();
    // Ours decrypts what stock has encrypted.
    let ours = |arguments: &[&str]| world.ours.ok("manager", arguments).unwrap();
    ours(&["encryption-key", "create", "key1", "--keyfile", text(&key)]);
    let path = world.path("ours/datastore/open");
    ours(&["datastore", "create", "open", text(&path)]);
    let create = [
        "sync-job",
        "create",
        "open1",
        "--store",
        "open",
        "--remote-store",
        "store1",
    ];
    let place = ["--remote-ns", "sealed", "--associated-key", "key1"];
    ours(&[&create[..], &place].concat());
    ours(&["sync-job", "run", "open1"]);
    world.stock_restores_from_ours("open", "open", &[]);
}

#[test]
fn a_stock_source_with_another_certificate_gets_no_password_until_it_is_accepted() {
    let Some(world) = World::new() else { return };
    let sources = world.sources();
    let plain = ["--backup-id", "x", "--backup-time", "1700000001"];
    world.stock("proxmox-backup-client", &words(&sources, &plain));
    let ours = |arguments: &[&str]| world.ours.ok("manager", arguments).unwrap();
    let remote = ["remote", "create", "stock", "--host", "127.0.0.1"];
    let account = ["--auth-id", "admin@pbs", "--password", PASSWORD];
    let pin = ["--fingerprint", &world.stock.fingerprint];
    ours(&[&remote[..], &account, &pin].concat());
    let pull = ["pull", "stock", "store1", "store1"];
    ours(&pull);

    // A stock server replaces its certificate at once, and signs nothing.
    let Some(stock) = StockApi::log_in(&world) else {
        return;
    };
    stock.call(&world, "DELETE", CUSTOM, &[]);
    let renewed = &world.shown();
    assert_ne!(*renewed, world.stock.fingerprint);

    let output = world.ours.run("manager", &pull).unwrap();
    assert!(!output.status.success());
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    for part in [
        format!("expected:    {}", world.stock.fingerprint),
        format!("presented:   {renewed}"),
        "does not tell which certificates it had before (HTTP status 401)".to_owned(),
        "subject:".to_owned(),
        "issuer:".to_owned(),
    ] {
        assert!(said.contains(&part), "{part} is missing in {said}");
    }
    let command = "proxmox-backup-manager remote update ";
    let (_, command) = said.split_once(command).unwrap();
    let accepted: Vec<&str> = command.split_whitespace().take(3).collect();
    assert_eq!(accepted, ["stock", "--fingerprint", renewed]);
    ours(&[&["remote", "update"], &accepted[..]].concat());
    ours(&pull);
    let config = world.path("ours/etc/proxmox-backup/remote.cfg");
    assert!(fs::read_to_string(config).unwrap().contains(renewed));
}

#[test]
fn a_stock_source_addressed_by_ip_is_known_by_name_and_authority_and_renews_without_anybodys_help()
{
    const NAME: &str = "backup.example.test";
    let scratch = testbed::scratch::directory().unwrap();
    // As with public authorities: a root that we know, and an intermediate that only the server shows.
    let root = Authority::create(scratch.path()).unwrap();
    let authority = root.intermediate().unwrap();
    let trusted = format!("SSL_CERT_FILE={}", root.certificate.display());
    let Some(mut world) = World::in_directory(scratch, &trusted) else {
        return;
    };
    let Some(stock) = StockApi::log_in(&world) else {
        return;
    };
    let sources = world.sources();
    let backup = |world: &World, time: &str| {
        let options = ["--backup-id", "x", "--backup-time", time];
        world.stock("proxmox-backup-client", &words(&sources, &options));
    };
    let renew = |world: &mut World, file: &str, name: &str| {
        let former = world.shown();
        let issued = authority
            .issue(world.scratch.path(), file, &[name])
            .unwrap();
        let data = [
            format!("certificates@{}", text(&issued.0)),
            format!("key@{}", text(&issued.1)),
            "force=1".to_owned(),
        ];
        stock.call(world, "POST", CUSTOM, &data);
        world.stock.fingerprint = world.shown();
        assert_ne!(world.stock.fingerprint, former);
    };
    backup(&world, "1700000001");
    renew(&mut world, "first", NAME);
    let remote = ["remote", "create", "stock", "--host", "127.0.0.1"];
    let account = ["--auth-id", "admin@pbs", "--password", PASSWORD];
    let name = ["--tls-server-name", NAME];
    let ours = |world: &World, arguments: &[&str]| world.ours.ok("manager", arguments).unwrap();
    ours(&world, &[&remote[..], &account, &name].concat());
    let pull = ["pull", "stock", "store1", "store1"];
    let log = ours(&world, &pull);
    assert!(log.contains("2023-11-14T22:13:21Z: sync done"), "{log}");
    let config = world.path("ours/etc/proxmox-backup/remote.cfg");
    let config = || fs::read_to_string(&config).unwrap();
    let before = config();
    assert!(
        !before.contains("fingerprint") && !before.contains(NAME),
        "{before}"
    );

    // Renewed between two runs: nothing has to be done, in either direction.
    renew(&mut world, "second", NAME);
    backup(&world, "1700000002");
    let log = ours(&world, &pull);
    assert!(log.contains("2023-11-14T22:13:22Z: sync done"), "{log}");
    ours(
        &world,
        &["push", "store1", "stock", "store1", "--remote-ns", "back"],
    );
    assert_eq!(config(), before);
    let check = ours(&world, &["remote", "check", "stock"]);
    assert!(check.contains(NAME), "{check}");

    // A server that has a certificate for another name gets no password.
    renew(&mut world, "third", "other.example.test");
    let output = world.ours.run("manager", &pull).unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("certificate not valid for name"), "{said}");
}
