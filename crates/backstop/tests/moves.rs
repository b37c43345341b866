//! Moving groups and namespaces: the real client and server, and both against the stock ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use testbed::server::{ServerProcess, succeeded};
use testbed::stock::{self, StockServer};

const BINARY: &str = env!("CARGO_BIN_EXE_backstop");

struct World {
    server: ServerProcess,
    scratch: tempfile::TempDir,
}

/// Arguments of a backup of `file` into a namespace.
fn backup<'a>(spec: &'a str, namespace: &'a str, id: &'a str, time: &'a str) -> Vec<&'a str> {
    let mut words = vec!["backup", spec, "--backup-id", id, "--backup-time", time];
    if !namespace.is_empty() {
        words.extend(["--ns", namespace]);
    }
    words
}

impl World {
    fn new(namespaces: &[&str]) -> Self {
        let scratch = testbed::scratch::directory().unwrap();
        let root = scratch.path().join("root");
        let server = ServerProcess::with_datastore(Path::new(BINARY), &root).unwrap();
        fs::write(scratch.path().join("file"), b"content\n").unwrap();
        let world = Self { server, scratch };
        for namespace in namespaces {
            world.client(&["namespace", "create", namespace]);
        }
        world
    }

    fn client(&self, arguments: &[&str]) -> String {
        self.server.ok("client", arguments).unwrap()
    }

    fn manager(&self, arguments: &[&str]) -> String {
        self.server.ok("manager", arguments).unwrap()
    }

    /// What a command says that must fail.
    fn refused(&self, mut command: Command, arguments: &[&str]) -> String {
        let output = command.args(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!text.contains("panicked"), "{text}");
        text
    }

    fn spec(&self) -> String {
        format!("etc.conf:{}", self.scratch.path().join("file").display())
    }

    fn backup(&self, namespace: &str, id: &str, time: u64) {
        let (spec, time) = (self.spec(), time.to_string());
        self.client(&backup(&spec, namespace, id, &time));
    }

    fn assert_restores(&self, namespace: &str, snapshot: &str) {
        let content = self.client(&["restore", snapshot, "etc.conf", "-", "--ns", namespace]);
        assert_eq!(content, "content\n");
    }

    fn path(&self, below: &str) -> PathBuf {
        self.server.root.join("datastore/store1").join(below)
    }

    /// A user with a role below a path, and the client as that user.
    fn user(&self, name: &str, role: &str, path: &str) {
        let id = format!("{name}@pbs");
        self.manager(&["user", "create", &id, "--password", "password1"]);
        self.manager(&["acl", "update", path, role, "--auth-id", &id]);
    }

    fn client_as(&self, name: &str) -> Command {
        let mut command = self.server.command("client", "store1");
        let repository = self.server.repository("store1");
        let repository = repository.replace("admin@pbs", &format!("{name}@pbs"));
        command
            .env("PBS_REPOSITORY", repository)
            .env("PBS_PASSWORD", "password1");
        command
    }
}

#[test]
fn groups_and_namespaces_move_and_restore_from_their_new_place() {
    let world = World::new(&["a", "b"]);
    world.backup("a", "x", 1_700_000_001);
    let log = world.client(&["group", "move", "host/x", "--ns", "a", "--target-ns", "b"]);
    assert!(
        log.contains("moving group 'host/x' from 'a' to 'b'") && log.contains("TASK OK"),
        "{log}"
    );
    world.assert_restores("b", "host/x/2023-11-14T22:13:21Z");
    assert!(!world.path("ns/a/host/x").exists());

    world.backup("a", "x", 1_700_000_002);
    let log = world.client(&["group", "move", "host/x", "--ns", "a", "--target-ns", "b"]);
    assert!(
        log.contains("merging group 'host/x' from 'a' to 'b'")
            && log.contains("removing backup group"),
        "{log}"
    );
    world.backup("a", "x", 1_700_000_001);
    let refused = world.refused(
        world.server.command("client", "store1"),
        &["group", "move", "host/x", "--ns", "a", "--target-ns", "b"],
    );
    assert!(
        refused.contains("cannot merge group 'host/x' from 'a' into 'b': snapshot time mismatch"),
        "{refused}"
    );

    let log = world.client(&["namespace", "move", "b", "--target-ns", "a/c"]);
    assert!(
        log.contains("moving namespace 'b' -> 'a/c': 1 namespace(s)"),
        "{log}"
    );
    assert_eq!(world.client(&["namespace", "list"]), "a\na/c\n");
    world.assert_restores("a/c", "host/x/2023-11-14T22:13:22Z");
    let refused = world.refused(
        world.server.command("client", "store1"),
        &["namespace", "move", "a", "--target-ns", "a/c/d"],
    );
    assert!(refused.contains("into its own subtree"), "{refused}");
}

#[test]
fn owners_move_their_own_groups_and_nobody_elses() {
    let world = World::new(&["mine", "mine/deep", "other"]);
    world.user("bob", "DatastorePowerUser", "/datastore/store1/mine");
    world.backup("mine", "theirs", 1_700_000_001);
    let spec = world.spec();
    succeeded(
        &world
            .client_as("bob")
            .args(backup(&spec, "mine", "own", "1700000001"))
            .output()
            .unwrap(),
    )
    .unwrap();
    let words = |group, from, to| ["group", "move", group, "--ns", from, "--target-ns", to];
    let refused = world.refused(
        world.client_as("bob"),
        &words("host/theirs", "mine", "mine/deep"),
    );
    assert!(refused.contains("backup owner check failed"), "{refused}");
    let refused = world.refused(world.client_as("bob"), &words("host/own", "mine", "other"));
    assert!(
        refused.contains("missing Datastore.Modify|Datastore.Backup on /datastore/store1/other"),
        "{refused}"
    );
    let refused = world.refused(
        world.client_as("bob"),
        &["namespace", "move", "mine/deep", "--target-ns", "mine/x"],
    );
    assert!(
        refused.contains("missing Datastore.Modify on /datastore/store1/mine"),
        "{refused}"
    );
    succeeded(
        &world
            .client_as("bob")
            .args(words("host/own", "mine", "mine/deep"))
            .output()
            .unwrap(),
    )
    .unwrap();
    assert!(world.path("ns/mine/ns/deep/host/own/owner").is_file());
    assert!(world.path("ns/mine/host/theirs/owner").is_file());
}

#[test]
fn a_running_backup_keeps_its_group_where_it_is() {
    let world = World::new(&["a", "b"]);
    let fifo = world.scratch.path().join("fifo");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .unwrap();
    let spec = format!("drive.img:{}", fifo.display());
    let client = world
        .server
        .command("client", "store1")
        .args(backup(&spec, "a", "x", "1700000001"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut source = fs::File::options().write(true).open(&fifo).unwrap();
    source.write_all(&[7; 1 << 16]).unwrap();
    let start = Instant::now();
    while !world.path("ns/a/host/x/owner").exists() {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    let tool = || world.server.command("client", "store1");
    let refused = world.refused(
        tool(),
        &["group", "move", "host/x", "--ns", "a", "--target-ns", "b"],
    );
    assert!(
        refused.contains("unable to acquire backup group lock"),
        "{refused}"
    );
    let refused = world.refused(tool(), &["namespace", "move", "a", "--target-ns", "b/a"]);
    assert!(refused.contains("still lock-conflicted"), "{refused}");
    drop(source);
    succeeded(&client.wait_with_output().unwrap()).unwrap();
    world.client(&["namespace", "move", "a", "--target-ns", "b/a"]);
    assert_eq!(world.client(&["namespace", "list"]), "b\nb/a\n");
    let content = world.client(&["restore", "host/x", "drive.img", "-", "--ns", "b/a"]);
    assert_eq!(content.as_bytes(), [7; 1 << 16]);
}

#[test]
fn the_stock_client_moves_on_our_server() {
    let Some(program) = stock::program("proxmox-backup-client") else {
        return;
    };
    let world = World::new(&["a", "b"]);
    let stock = |words: &[&str]| {
        let mut command = Command::new(&program);
        world.server.environment(&mut command, "store1");
        succeeded(&command.args(words).output().unwrap()).unwrap()
    };
    world.backup("a", "x", 1_700_000_001);
    stock(&["group", "move", "host/x", "--ns", "a", "--target-ns", "b"]);
    stock(&["namespace", "move", "b", "--target-ns", "a/c"]);
    assert_eq!(world.client(&["namespace", "list"]), "a\na/c\n");
    world.assert_restores("a/c", "host/x/2023-11-14T22:13:21Z");
}

#[test]
fn our_client_moves_on_a_stock_server() {
    let scratch = testbed::scratch::directory().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(scratch.path(), open).unwrap();
    let Some(server) = StockServer::start(&scratch.path().join("stock/store1")).unwrap() else {
        return;
    };
    fs::write(scratch.path().join("file"), b"content\n").unwrap();
    let spec = format!("etc.conf:{}", scratch.path().join("file").display());
    let ours = |words: &[&str]| {
        let mut command = server.command(Path::new(BINARY));
        succeeded(&command.arg("client").args(words).output().unwrap()).unwrap()
    };
    ours(&["namespace", "create", "a"]);
    ours(&["namespace", "create", "b"]);
    ours(&backup(&spec, "a", "x", "1700000001"));
    let log = ours(&["group", "move", "host/x", "--ns", "a", "--target-ns", "b"]);
    assert!(
        log.contains("moving group 'host/x' from 'a' to 'b'"),
        "{log}"
    );
    ours(&["namespace", "move", "b", "--target-ns", "a/c"]);
    assert_eq!(ours(&["namespace", "list"]), "a\na/c\n");
    let content = ours(&["restore", "host/x", "etc.conf", "-", "--ns", "a/c"]);
    assert_eq!(content, "content\n");
}
