//! Jobs that run when the disk of their datastore is mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::world::World;

/// A folder that is seen at another place, until this is dropped.
struct Bind(PathBuf);

impl Bind {
    fn mount(source: &Path, target: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount
            .arg("--bind")
            .args([source, target])
            .stderr(Stdio::null());
        let is_mounted = mount.status().is_ok_and(|status| status.success());
        is_mounted.then(|| Self(target.into()))
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_job_that_waits_for_a_disk_runs_when_it_is_mounted_and_no_other_does() {
    let scratch = testbed::scratch::directory().unwrap();
    let (disk, place) = (scratch.path().join("disk"), scratch.path().join("usb"));
    for folder in [&disk, &place] {
        fs::create_dir(folder).unwrap();
    }
    if Bind::mount(&disk, &place).is_none() {
        println!("skipped: nothing can be mounted here");
        return;
    }
    fs::remove_dir(&disk).unwrap();
    fs::remove_dir(&place).unwrap();
    let world = World::in_directory(scratch);
    world.write("disk.img", 50, 1);
    fs::rename(world.path("disk.img"), world.path("image")).unwrap();
    let spec = format!("disk.img:{}", world.path("image").display());
    let words = [
        "backup",
        &spec,
        "--backup-id",
        "x",
        "--backup-time",
        "1700000000",
    ];
    world.here.ok("client", &words).unwrap();
    world.manager(&["datastore", "create", "usb", place.to_str().unwrap()]);
    fs::rename(&place, &disk).unwrap();
    fs::create_dir(&place).unwrap();
    let gone = ["WARN", "datastore is unavailable", "store=usb"];
    world.here.wait_for_log(&gone, 1).unwrap();
    let job = |id: &str, options: &[&str]| {
        let words = [
            "sync-job",
            "create",
            id,
            "--store",
            "usb",
            "--remote-store",
            "store1",
        ];
        let owner = ["--owner", "admin@pbs"];
        world.manager(&[&words[..], &owner, options].concat());
    };
    job("waits", &["--run-on-mount", "true"]);
    job("sleeps", &[]);

    let mounted = Bind::mount(&disk, &place).unwrap();
    let state = |jobs: &Value, id: &str| {
        let jobs = jobs.as_array().unwrap();
        jobs.iter().find(|job| job["id"] == id).unwrap()["last-run-state"].clone()
    };
    let jobs = world
        .api
        .wait("admin/sync", |jobs| state(jobs, "waits").is_string())
        .unwrap();
    assert_eq!(state(&jobs, "waits"), "OK");
    assert!(state(&jobs, "sleeps").is_null());
    let tasks = world
        .api
        .wait("nodes/localhost/tasks", |tasks| {
            let mut tasks = tasks.as_array().unwrap().iter();
            tasks.any(|task| task["worker_type"] == "mount-sync-jobs" && task["status"] == "OK")
        })
        .unwrap();
    let starters = tasks.as_array().unwrap().iter();
    let starters = starters.filter(|task| task["worker_type"] == "mount-sync-jobs");
    assert_eq!(starters.count(), 1);
    let list = json!({});
    let list = world.api.client.get("admin/datastore/usb/snapshots", list);
    let list = world.api.runtime.block_on(list).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 1);
    drop(mounted);
}
