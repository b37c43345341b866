//! Damage at the source, a source that dies, a full target: what is there stays, the error names the snapshot, and the next
//! run goes on where this one stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use testbed::server::ServerProcess;

use crate::world::{BINARY, World, chunks};

/// How long something may take to come true. Generous: a loaded machine is slow, not broken.
const LIMIT: Duration = Duration::from_secs(120);

/// Damages a chunk; returns what it was.
fn damage(chunk: &Path) -> Vec<u8> {
    let content = fs::read(chunk).unwrap();
    let mut damaged = content.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(chunk, damaged).unwrap();
    content
}

#[test]
fn a_damaged_snapshot_is_named_the_next_ones_come_and_it_is_tried_again() {
    let world = World::new();
    world.write("disk", 10, 1);
    world.backup_image("x", 1_700_000_000);
    let first = world.source_chunks();
    world.write("disk", 11, 1);
    world.backup_image("x", 1_700_000_001);
    let second: Vec<PathBuf> = world
        .source_chunks()
        .into_iter()
        .filter(|chunk| !first.contains(chunk))
        .collect();
    world.write("disk", 12, 1);
    world.backup_image("x", 1_700_000_002);
    let sound = damage(&second[0]);

    let (log, end) = world.pull(json!({}));
    assert!(end.starts_with("sync failed with some errors."), "{end}");
    let line = "sync snapshot host/x/2023-11-14T22:13:21Z failed - archive disk.img.fidx: chunk ";
    assert!(
        log.contains(line) && log.contains("is damaged at the source"),
        "{log}"
    );
    assert!(end.contains("host/x/2023-11-14T22:13:21Z"), "{end}");
    assert_eq!(
        world.snapshots(""),
        ["host/x/1700000000", "host/x/1700000002"]
    );
    // Nothing is removed while something is missing, and it is tried again each time.
    let (log, end) = world.pull(json!({"remove-vanished": true}));
    assert!(end.contains("host/x/2023-11-14T22:13:21Z"), "{log}");
    fs::write(&second[0], sound).unwrap();
    let (log, end) = world.pull(json!({}));
    assert_eq!(end, "OK", "{log}");
    assert!(log.contains("in 1 chunks"), "{log}");
    let all = [
        "host/x/1700000000",
        "host/x/1700000001",
        "host/x/1700000002",
    ];
    assert_eq!(world.snapshots(""), all);

    // What a verification here finds damaged is fetched again, if that is wanted.
    let here = chunks(&world.here.root.join("datastore/store1"));
    let name = second[0].file_name().unwrap();
    damage(
        here.iter()
            .find(|chunk| chunk.file_name().unwrap() == name)
            .unwrap(),
    );
    let verify = ["verify", "store1", "--ignore-verified", "false"];
    assert!(!world.here.run("manager", &verify).unwrap().status.success());
    let (log, end) = world.pull(json!({"resync-corrupt": true}));
    assert_eq!(end, "OK", "{log}");
    assert!(
        log.contains("re-sync snapshot 2023-11-14T22:13:21Z due to corruption"),
        "{log}"
    );
    world.manager(&verify);
}

#[test]
fn a_source_that_dies_costs_only_what_had_not_arrived() {
    let mut world = World::new();
    world.write("disk", 13, 8);
    world.backup_image("x", 1_700_000_000);
    let (log, end) = world.pull(json!({}));
    assert_eq!(end, "OK", "{log}");
    // Three archives of two chunks each, one after the other.
    let mut words = vec!["backup".to_owned()];
    for (number, archive) in ["a", "b", "c"].into_iter().enumerate() {
        world.write(archive, 20 + number as u64, 8);
        words.push(format!("{archive}.img:{}", world.path(archive).display()));
    }
    let options = ["--backup-id", "x", "--backup-time", "1700000001"];
    words.extend(options.map(str::to_owned));
    world.there.ok("client", &words).unwrap();

    let upid = world.begin(json!({"rate-in": "1MiB", "burst-in": "1MiB"}));
    // What has arrived is noted; the first archive is enough.
    let noted = || {
        let folder = fs::read_dir(world.here.root.join("var/lib/proxmox-backup/sync"));
        let files = folder
            .into_iter()
            .flatten()
            .map(|file| file.unwrap().path());
        let files = files.filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "chunks")
        });
        files
            .map(|path| fs::metadata(path).map_or(0, |found| found.len() / 32))
            .sum::<u64>()
    };
    let start = Instant::now();
    while noted() < 2 {
        assert!(
            start.elapsed() < LIMIT,
            "nothing arrives:\n{}",
            world.log(&upid)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    world.there.kill().unwrap();
    let (log, end) = world.ended(&upid);
    assert!(
        end.contains("sync group host/x failed - snapshot host/x/2023-11-14T22:13:21Z: "),
        "{end}\n{log}"
    );
    assert_eq!(world.snapshots(""), ["host/x/1700000000"]);
    let arrived = noted();
    assert!((2..6).contains(&arrived), "{arrived}");

    let root = world.there.root.clone();
    world.there =
        ServerProcess::start(Path::new(BINARY), &root, ([127, 0, 0, 1], 0).into()).unwrap();
    let port = world.port();
    world.manager(&["remote", "update", "there", "--port", &port]);
    let (log, end) = world.pull(json!({}));
    assert_eq!(end, "OK", "{log}");
    let rest = 6 - arrived;
    assert!(
        log.contains(&format!("in {rest} chunks")),
        "{arrived} were there\n{log}"
    );
    let restore = ["restore", "host/x/2023-11-14T22:13:21Z", "b.img", "-"];
    let output = world.here.run("client", &restore).unwrap();
    assert!(output.stdout == world.read("b"));
}

/// A small file system, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=32m,mode=0755", "backstop-test"]);
        let status = mount.arg(path).stderr(Stdio::null()).status();
        let is_mounted = status.is_ok_and(|status| status.success());
        is_mounted.then(|| Self(path.into()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_target_keeps_what_it_has_and_goes_on_when_there_is_room() {
    let scratch = testbed::scratch::directory().unwrap();
    let Some(disk) = SmallDisk::mount(&scratch.path().join("here/datastore")) else {
        println!("skipped: a small file system cannot be mounted here");
        return;
    };
    let world = World::in_directory(scratch);
    world.write("disk", 30, 6);
    world.backup_image("x", 1_700_000_000);
    let (log, end) = world.pull(json!({}));
    assert_eq!(end, "OK", "{log}");
    let kept = world.read("disk");
    world.write("disk", 31, 12);
    world.backup_image("x", 1_700_000_001);
    let ballast = disk.0.join("ballast");
    fs::write(&ballast, vec![1; 18 << 20]).unwrap();
    let (log, end) = world.pull(json!({}));
    assert!(
        end.contains("snapshot host/x/2023-11-14T22:13:21Z: "),
        "{end}\n{log}"
    );
    assert!(end.contains("No space left on device"), "{end}");
    assert_eq!(world.snapshots(""), ["host/x/1700000000"]);
    assert!(world.restored("host/x/2023-11-14T22:13:20Z") == kept);
    fs::remove_file(&ballast).unwrap();
    let (log, end) = world.pull(json!({}));
    assert_eq!(end, "OK", "{log}");
    assert!(world.restored("host/x/2023-11-14T22:13:21Z") == world.read("disk"));
    // Before the directory that it lies in.
    drop(disk);
}
