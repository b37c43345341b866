//! Processes are killed, networks stall and disks fill: earlier snapshots stay intact, nothing half-done
//! becomes visible, and the next backup works.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use testbed::server::{ServerProcess, succeeded};
use testbed::tree;
use testbed::tree_compare::{Aspects, compare};

const FIRST: &str = "host/x/2023-11-14T22:13:21Z";
const SECOND: &str = "host/x/2023-11-14T22:13:22Z";
/// The longest that a dead peer may hold a group, as docs/client.md states it, and some time to spare.
const STALL_LIMIT: Duration = Duration::from_secs(240);

struct World {
    server: ServerProcess,
    dir: tempfile::TempDir,
}

impl World {
    /// A server that holds one finished snapshot of the tree `small`; the tree `big` is not backed up yet.
    fn new() -> Self {
        let dir = testbed::scratch::directory().unwrap();
        let root = dir.path().join("root");
        let server =
            ServerProcess::with_datastore(Path::new(env!("CARGO_BIN_EXE_backstop")), &root)
                .unwrap();
        tree::mixed(&dir.path().join("small"), 1, 20, 2).unwrap();
        tree::mixed(&dir.path().join("big"), 2, 200, 64).unwrap();
        let world = Self { server, dir };
        succeeded(&world.backup("small", 1_700_000_001).output().unwrap()).unwrap();
        world
    }

    fn spec(&self, name: &str) -> OsString {
        let mut spec = OsString::from("root.pxar:");
        spec.push(self.dir.path().join(name));
        spec
    }

    fn backup(&self, tree: &str, time: u64) -> Command {
        let mut command = self.server.command("client", "store1");
        command.arg("backup").arg(self.spec(tree)).args([
            "--backup-id",
            "x",
            "--backup-time",
            &time.to_string(),
        ]);
        command
    }

    /// A backup of `big` that is slow enough to be interrupted: 1 MiB/s.
    fn slow_backup(&self) -> Child {
        self.slow_backup_with(&[])
    }

    fn slow_backup_with(&self, options: &[&str]) -> Child {
        let mut command = self.backup("big", 1_700_000_002);
        command
            .args(["--rate", "1MiB"])
            .args(options)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn store(&self) -> PathBuf {
        self.server.root.join("datastore/store1")
    }

    fn snapshots(&self) -> String {
        self.server.ok("client", &["snapshot", "list"]).unwrap()
    }

    fn assert_restores(&self, snapshot: &str, tree: &str, target: &str) {
        let path = self.dir.path().join(target);
        let mut command = self.server.command("client", "store1");
        let output = command
            .args(["restore", snapshot, "root.pxar"])
            .arg(&path)
            .output()
            .unwrap();
        succeeded(&output).unwrap();
        let aspects = Aspects {
            ownership: testbed::is_root(),
            top_directory: true,
            skip: &[],
        };
        let result = compare(&self.dir.path().join(tree), &path, aspects).unwrap();
        assert_eq!(result.differences, Vec::<String>::new());
    }
}

/// Waits until `condition` holds; panics after `limit`.
fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < limit,
            "{what} did not happen within {limit:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn chunk_count(store: &Path) -> usize {
    fs::read_dir(store.join(".chunks"))
        .unwrap()
        .map(|dir| fs::read_dir(dir.unwrap().path()).unwrap().count())
        .sum()
}

/// Waits until a running backup has stored chunks of its own.
fn wait_for_upload(world: &World, before: usize) {
    wait_until("the upload", Duration::from_secs(120), || {
        chunk_count(&world.store()) > before + 1
    });
}

fn failed(output: &Output) -> String {
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    text
}

#[test]
fn a_client_that_is_killed_leaves_nothing_and_blocks_nobody() {
    let world = World::new();
    let before = chunk_count(&world.store());
    let mut client = world.slow_backup();
    wait_for_upload(&world, before);
    assert!(world.store().join(SECOND).is_dir());
    client.kill().unwrap();
    client.wait().unwrap();
    wait_until("the clean-up", Duration::from_secs(60), || {
        !world.store().join(SECOND).exists()
    });
    assert!(!world.snapshots().contains("22:13:22Z"));
    wait_until("the release of the group", Duration::from_secs(60), || {
        world
            .backup("big", 1_700_000_002)
            .output()
            .unwrap()
            .status
            .success()
    });
    world.assert_restores(FIRST, "small", "first");
    world.assert_restores(SECOND, "big", "second");
}

#[test]
fn a_backup_into_a_namespace_that_is_cut_off_is_not_listed() {
    let mut world = World::new();
    let team = world.store().join("ns/team");
    let ok = |world: &World, words: &[&str]| world.server.ok("client", words).unwrap();
    ok(&world, &["namespace", "create", "team"]);
    let before = chunk_count(&world.store());
    let client = world.slow_backup_with(&["--ns", "team"]);
    wait_for_upload(&world, before);
    assert!(team.join(SECOND).is_dir());
    world.server.kill().unwrap();
    failed(&client.wait_with_output().unwrap());

    let root = world.server.root.clone();
    let binary = Path::new(env!("CARGO_BIN_EXE_backstop"));
    world.server = ServerProcess::start(binary, &root, ([127, 0, 0, 1], 0).into()).unwrap();
    let listed = ok(
        &world,
        &[
            "snapshot",
            "list",
            "--ns",
            "team",
            "--output-format",
            "json",
        ],
    );
    assert_eq!(listed.trim(), "[]");
    assert!(!team.join(SECOND).exists());
}

#[test]
fn a_server_that_is_killed_loses_no_finished_snapshot_and_shows_no_half_one() {
    let mut world = World::new();
    let before = chunk_count(&world.store());
    let client = world.slow_backup();
    wait_for_upload(&world, before);
    world.server.kill().unwrap();
    failed(&client.wait_with_output().unwrap());

    let root = world.server.root.clone();
    let binary = Path::new(env!("CARGO_BIN_EXE_backstop"));
    world.server = ServerProcess::start(binary, &root, ([127, 0, 0, 1], 0).into()).unwrap();
    world.assert_restores(FIRST, "small", "first");
    let mut restore = world.server.command("client", "store1");
    restore
        .args(["restore", SECOND, "root.pxar"])
        .arg(world.dir.path().join("half"));
    failed(&restore.output().unwrap());
    succeeded(&world.backup("big", 1_700_000_003).output().unwrap()).unwrap();
    world.assert_restores("host/x", "big", "newest");
}

/// Carries bytes between a client and a server until it is told to stall.
struct Proxy {
    address: SocketAddr,
    stalled: Arc<AtomicBool>,
    carried: Arc<AtomicU64>,
}

impl Proxy {
    fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            stalled: Arc::default(),
            carried: Arc::default(),
        };
        let (stalled, carried) = (proxy.stalled.clone(), proxy.carried.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(server)) else {
                    return;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (stalled, carried) = (stalled.clone(), carried.clone());
                    std::thread::spawn(move || carry(from, to, &stalled, &carried));
                }
            }
        });
        proxy
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, stalled: &AtomicBool, carried: &AtomicU64) {
    let mut buffer = [0; 16 * 1024];
    loop {
        if stalled.load(Ordering::SeqCst) {
            // as a dead link does: take nothing, send nothing, close nothing
            std::thread::park();
            continue;
        }
        let Ok(count) = from.read(&mut buffer) else {
            return;
        };
        if stalled.load(Ordering::SeqCst) {
            continue;
        }
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            let _ = to.shutdown(std::net::Shutdown::Write);
            return;
        }
        carried.fetch_add(count as u64, Ordering::SeqCst);
    }
}

#[test]
fn a_network_that_stalls_ends_in_an_error_and_frees_the_group() {
    let world = World::new();
    let proxy = Proxy::start(world.server.address);
    let mut command = world.backup("big", 1_700_000_002);
    command.env(
        "PBS_REPOSITORY",
        format!("admin@pbs@{}:store1", proxy.address),
    );
    let client = command
        .args(["--rate", "1MiB"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the upload", Duration::from_secs(120), || {
        proxy.carried.load(Ordering::SeqCst) > 3 << 20
    });
    proxy.stalled.store(true, Ordering::SeqCst);

    let start = Instant::now();
    let text = failed(&client.wait_with_output().unwrap());
    assert!(
        start.elapsed() < STALL_LIMIT,
        "the client noticed after {:?}",
        start.elapsed()
    );
    assert!(!text.trim().is_empty());
    wait_until("the clean-up", STALL_LIMIT, || {
        !world.store().join(SECOND).exists()
    });
    wait_until("the release of the group", Duration::from_secs(60), || {
        world
            .backup("big", 1_700_000_003)
            .output()
            .unwrap()
            .status
            .success()
    });
    world.assert_restores(FIRST, "small", "first");
}

/// A small file system of its own, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path, mebibytes: u32) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let options = format!("size={mebibytes}m,mode=0755");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "backstop-test"])
            .arg(path)
            .stderr(Stdio::null())
            .status();
        status
            .is_ok_and(|status| status.success())
            .then(|| Self(path.into()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_named_and_costs_no_finished_snapshot() {
    let world = World::new();
    let Some(disk) = SmallDisk::mount(&world.dir.path().join("disk"), 24) else {
        println!("skipped: a small file system cannot be mounted here");
        return;
    };
    let path = disk.0.join("store2");
    world
        .server
        .ok(
            "manager",
            &[
                "datastore".as_ref(),
                "create".as_ref(),
                "store2".as_ref(),
                path.as_os_str(),
            ],
        )
        .unwrap();
    let run = |arguments: &[&str], tree: Option<&str>| {
        let mut command = world.server.command("client", "store2");
        command.args(&arguments[..1]);
        if let Some(tree) = tree {
            command.arg(world.spec(tree));
        }
        command.args(&arguments[1..]).output().unwrap()
    };
    succeeded(&run(
        &["backup", "--backup-id", "x", "--backup-time", "1700000001"],
        Some("small"),
    ))
    .unwrap();
    let text = failed(&run(
        &["backup", "--backup-id", "x", "--backup-time", "1700000002"],
        Some("big"),
    ));
    assert!(text.contains("No space left on device"), "{text}");
    wait_until("the clean-up", Duration::from_secs(60), || {
        !path.join(SECOND).exists()
    });
    let target = world.dir.path().join("from-full");
    succeeded(&run(
        &["restore", FIRST, "root.pxar", target.to_str().unwrap()],
        None,
    ))
    .unwrap();
    let aspects = Aspects {
        ownership: testbed::is_root(),
        top_directory: true,
        skip: &[],
    };
    let result = compare(&world.dir.path().join("small"), &target, aspects).unwrap();
    assert_eq!(result.differences, Vec::<String>::new());
}
