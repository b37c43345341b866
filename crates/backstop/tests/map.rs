//! Images as block devices: the real client and server, the kernel's loop devices, and stock clients beside ours.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use testbed::server::{ServerProcess, succeeded};
use testbed::stock;

const BINARY: &str = env!("CARGO_BIN_EXE_backstop");

struct World {
    server: ServerProcess,
    scratch: tempfile::TempDir,
}

impl World {
    /// A server with the image `host/x`, `drive.img`; `None` (and a line that says so) where nothing can be mapped.
    fn new() -> Option<Self> {
        let is_device =
            |path: &str| fs::metadata(path).is_ok_and(|found| found.file_type().is_char_device());
        if !testbed::is_root() || !is_device("/dev/fuse") || !is_device("/dev/loop-control") {
            println!("skipped: mapping needs root, /dev/fuse and /dev/loop-control");
            return None;
        }
        let scratch = testbed::scratch::directory().unwrap();
        let root = scratch.path().join("root");
        let server = ServerProcess::with_datastore(Path::new(BINARY), &root).unwrap();
        testbed::tree::image(&scratch.path().join("disk"), 5, 21).unwrap();
        let world = Self { server, scratch };
        let spec = format!("drive.img:{}", world.image().display());
        world.ok(&["backup", &spec, "--backup-id", "x"]);
        Some(world)
    }

    fn image(&self) -> PathBuf {
        self.scratch.path().join("disk")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.server.run("client", arguments).unwrap()
    }

    /// What a command that succeeds writes to standard error.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        succeeded(&output).unwrap();
        String::from_utf8(output.stderr).unwrap()
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(255), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Maps the image and returns the path of its device.
    fn map(&self) -> Mapped<'_> {
        let said = self.ok(&["map", "host/x", "drive.img"]);
        let repository = self.server.repository("store1");
        let (_, device) = said
            .split_once(&format!("Image '{repository}:host/x/drive.img' mapped on "))
            .unwrap_or_else(|| panic!("{said}"));
        Mapped {
            world: self,
            device: device.trim_end().to_owned(),
        }
    }
}

/// A mapping that a failed test takes away, too.
struct Mapped<'a> {
    world: &'a World,
    device: String,
}

impl Drop for Mapped<'_> {
    fn drop(&mut self) {
        let _ = self.world.run(&["unmap", &self.device]);
        let _ = self.world.run(&["unmap"]);
    }
}

#[test]
fn a_mapped_image_is_a_block_device_of_the_same_bytes_until_it_is_unmapped() {
    let Some(world) = World::new() else { return };
    assert_eq!(world.ok(&["unmap"]), "Nothing mapped.\n");
    let mapped = world.map();
    let device = mapped.device.as_str();
    assert!(fs::metadata(device).unwrap().file_type().is_block_device());
    assert!(fs::read(device).unwrap() == fs::read(world.image()).unwrap());
    let written = fs::File::options()
        .write(true)
        .open(device)
        .and_then(|mut device| device.write_all(&[1; 4096]));
    assert!(written.is_err());

    let name = format!("{}:host/x/drive.img", world.server.repository("store1"));
    assert_eq!(world.ok(&["unmap"]), format!("{device}:\t{name}\n"));
    let twice = world.refused(&["map", "host/x", "drive.img"]);
    assert!(
        twice.contains("the given archive is already mapped, cannot map twice"),
        "{twice}"
    );
    assert_eq!(world.ok(&["unmap", "x/drive.img"]), "");
    assert_eq!(world.ok(&["unmap"]), "Nothing mapped.\n");

    let again = world.map();
    let number = again.device.trim_start_matches("/dev/loop").to_owned();
    assert_eq!(world.ok(&["unmap", &number]), "");
    let gone = world.refused(&["unmap", &again.device]);
    assert!(gone.contains("nothing mapped to"), "{gone}");
    let unknown = world.refused(&["unmap", "host/y/drive.img"]);
    assert!(
        unknown.contains("no mapping for name 'host/y/drive.img' found"),
        "{unknown}"
    );
    let files = fs::read_dir(world.server.root.join("run/pbs-loopdev")).unwrap();
    assert_eq!(files.count(), 0);
}

#[test]
fn what_a_client_that_was_killed_leaves_is_cleaned_up() {
    let Some(world) = World::new() else { return };
    for listed in [true, false] {
        let mapped = world.map();
        let run = world.server.root.join("run/pbs-loopdev");
        let process = fs::read_dir(&run)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|end| end == "pid"))
            .unwrap();
        let pid: i32 = fs::read_to_string(&process).unwrap().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        let start = std::time::Instant::now();
        // All of it is gone when the lock that it held is free.
        let held = fs::File::open(&process).unwrap();
        while flock(&held, FlockOperation::NonBlockingLockExclusive).is_err() {
            assert!(start.elapsed().as_secs() < 60);
            std::thread::yield_now();
        }
        drop(held);
        if listed {
            let said = world.ok(&["unmap"]);
            assert!(
                said.contains("Cleaned up dangling mapping") && said.contains("Nothing mapped."),
                "{said}"
            );
        } else {
            // Mapping it anew takes the remains away, too.
            drop(world.map());
        }
        assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
        drop(mapped);
    }
}

#[test]
fn what_cannot_be_mapped_is_refused_with_what_to_do() {
    let Some(world) = World::new() else { return };
    for (words, expected) in [
        (
            ["map", "host/x", "root.pxar"],
            "use the 'mount' command to mount pxar archives",
        ),
        (
            ["map", "host/x", "etc.conf"],
            "Can only mount/map pxar archives and drive images.",
        ),
        (["map", "host/nope", "drive.img"], "host/nope"),
        (["map", "host/x", "other.img"], "other.img"),
    ] {
        let said = world.refused(&words);
        assert!(said.contains(expected), "{said}");
    }
}

/// Maps with one client and unmaps with the other, in a `/run` of their own.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs tmpfs /run
"$OURS" client map host/x drive.img
"$STOCK" unmap
"$STOCK" unmap drive.img
"$STOCK" map host/x drive.img
"$OURS" client unmap
"$OURS" client unmap drive.img
"$OURS" client unmap
"#;

#[test]
fn stock_clients_unmap_what_ours_has_mapped_and_the_reverse() {
    let Some(stock) = stock::program("proxmox-backup-client") else {
        return;
    };
    let Some(world) = World::new() else { return };
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT]);
    world.server.environment(&mut command, "store1");
    command
        .env("OURS", BINARY)
        .env("STOCK", stock)
        .env_remove("BACKSTOP_ROOT")
        .stdin(Stdio::null());
    let output = command.output().unwrap();
    succeeded(&output).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let listed = |line: &&&str| line.starts_with("/dev/loop") && line.ends_with("/drive.img");
    assert_eq!(lines.iter().filter(listed).count(), 2, "{said}");
    assert_eq!(lines.last(), Some(&"Nothing mapped."), "{said}");
}
