//! Whatever the data plane does, the API answers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use testbed::ping::{Pinger, percentile};
use testbed::server::ServerProcess;
use testbed::tree;

/// A file system on a loop device that can be made to hang.
struct HangingDisk(PathBuf);

impl HangingDisk {
    fn mount(dir: &Path) -> Option<Self> {
        let image = dir.join("disk.img");
        fs::File::create(&image)
            .unwrap()
            .set_len(256 << 20)
            .unwrap();
        let target = dir.join("disk");
        fs::create_dir(&target).unwrap();
        let run = |program: &str, arguments: &[&Path]| {
            let mut command = Command::new(program);
            if program == "mkfs.ext4" {
                // a datastore has 65536 directories
                command.args(["-q", "-N", "100000", "-F"]);
            }
            let status = command
                .args(arguments)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            status.is_ok_and(|status| status.success())
        };
        let mounted =
            run("mkfs.ext4", &[&image]) && run("mount", &[Path::new("-oloop"), &image, &target]);
        mounted.then_some(Self(target))
    }

    fn freeze(&self, freeze: bool) -> bool {
        let verb = if freeze { "--freeze" } else { "--unfreeze" };
        Command::new("fsfreeze")
            .arg(verb)
            .arg(&self.0)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    }
}

impl Drop for HangingDisk {
    fn drop(&mut self) {
        self.freeze(false);
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn backups_that_wait_for_a_hanging_disk_do_not_hold_up_the_api() {
    let dir = testbed::scratch::directory().unwrap();
    let Some(disk) = testbed::is_root()
        .then(|| HangingDisk::mount(dir.path()))
        .flatten()
    else {
        println!("skipped: a file system that can be frozen cannot be mounted here");
        return;
    };
    let root = dir.path().join("root");
    let server = ServerProcess::start(
        Path::new(env!("CARGO_BIN_EXE_backstop")),
        &root,
        ([127, 0, 0, 1], 0).into(),
    )
    .unwrap();
    let store = disk.0.join("store1");
    server
        .ok(
            "manager",
            &[
                "datastore".as_ref(),
                "create".as_ref(),
                "store1".as_ref(),
                store.as_os_str(),
            ],
        )
        .unwrap();
    for number in 0..16 {
        tree::mixed(&dir.path().join(format!("source-{number}")), number, 20, 2).unwrap();
    }
    let pinger = Pinger::connect(&server).unwrap();
    assert!(disk.freeze(true));
    let children: Vec<_> = (0..16)
        .map(|number| {
            let mut spec = OsString::from("root.pxar:");
            spec.push(dir.path().join(format!("source-{number}")));
            let mut command = server.command("client", "store1");
            command
                .arg("backup")
                .arg(spec)
                .args(["--backup-id", &format!("id-{number}")]);
            command
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let start = Instant::now();
    let times = pinger
        .ping_while(|| start.elapsed() < Duration::from_secs(5))
        .unwrap();
    // nothing is timed here: were one async thread blocked by the disk, the pings would hang as long as it does
    assert!(
        times.len() > 10 && percentile(&times, 100.0) < Duration::from_secs(4),
        "{times:?}"
    );
    assert!(disk.freeze(false));
    for child in children {
        testbed::server::succeeded(&child.wait_with_output().unwrap()).unwrap();
    }
}

/// Memory in MiB that a process has for itself alone: without the pages of its program, which belong to the page cache.
fn held(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib >> 10
}

#[test]
fn a_server_gives_the_memory_of_its_backups_back() {
    let dir = testbed::scratch::directory().unwrap();
    let server = ServerProcess::with_datastore(
        Path::new(env!("CARGO_BIN_EXE_backstop")),
        &dir.path().join("root"),
    )
    .unwrap();
    let children: Vec<_> = (0..4)
        .map(|number| {
            let image = dir.path().join(format!("disk-{number}"));
            tree::image(&image, number, 48).unwrap();
            let mut spec = OsString::from("disk.img:");
            spec.push(&image);
            let mut command = server.command("client", "store1");
            command
                .arg("backup")
                .arg(spec)
                .args(["--backup-id", &format!("id-{number}")]);
            command
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        testbed::server::succeeded(&child.wait_with_output().unwrap()).unwrap();
    }
    // the last task may still be ending
    let deadline = Instant::now() + Duration::from_secs(60);
    while held(server.pid()) >= 64 {
        assert!(
            Instant::now() < deadline,
            "{} MiB are still held",
            held(server.pid())
        );
        std::thread::yield_now();
    }
}
