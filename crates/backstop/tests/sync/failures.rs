//! Damage at the source, a full target: what is there stays, the error names the snapshot, and the next run goes on where this
//! one stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::world::{World, chunks};

/// Damages a chunk; returns what it was.
pub fn damage(chunk: &Path) -> Vec<u8> {
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

/// A small file system, unmounted at the end.
pub struct SmallDisk(pub PathBuf);

impl SmallDisk {
    pub fn mount(path: &Path) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=48m,mode=0755", "backstop-test"]);
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
    fs::write(&ballast, vec![1; 34 << 20]).unwrap();
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
