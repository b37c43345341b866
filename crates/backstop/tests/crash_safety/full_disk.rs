//! The disk fills up during every kind of write: the error names the file and the remedy, and what was finished stays.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use testbed::server::{ServerProcess, succeeded};

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

    /// Fills what is left, but for a few bytes.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("ballast")).unwrap();
        let piece = vec![1; 4096];
        while std::io::Write::write_all(&mut file, &piece).is_ok() {}
    }

    fn relieve(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// What a command that had to fail said.
fn refusal(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

fn names_thing_and_remedy(text: &str) {
    assert!(text.contains("No space left on device"), "{text}");
    assert!(text.contains("; free space on "), "{text}");
}

#[test]
fn a_full_datastore_is_named_in_every_error_and_costs_nothing_finished() {
    let dir = testbed::scratch::directory().unwrap();
    let root = dir.path().join("root");
    let Some(disk) = SmallDisk::mount(&root.join("datastore"), 32) else {
        println!("skipped: a small file system cannot be mounted here");
        return;
    };
    let server =
        ServerProcess::with_datastore(Path::new(env!("CARGO_BIN_EXE_backstop")), &root).unwrap();
    let mut random = testbed::random::Random::new(7);
    let image = random.bytes(1 << 20);
    let path = dir.path().join("disk.img");
    let spec = format!("disk.img:{}", path.display());
    let backup = |time: &str| {
        let words = ["backup", &spec, "--backup-type", "host", "--backup-id", "x"];
        server
            .run("client", &[&words[..], &["--backup-time", time]].concat())
            .unwrap()
    };
    for time in ["1700000000", "1700003600", "1700007200"] {
        fs::write(&path, &image).unwrap();
        succeeded(&backup(time)).unwrap();
    }
    let oldest = "host/x/2023-11-14T22:13:20Z";
    let restores = || {
        let output = server.run("client", &["restore", oldest, "disk.img", "-"]);
        let output = output.unwrap();
        assert!(output.status.success());
        assert!(output.stdout == image, "the image has changed");
    };

    disk.fill();
    fs::write(&path, random.bytes(8 << 20)).unwrap();
    names_thing_and_remedy(&refusal(&backup("1700010800")));
    restores();
    let notes = ["snapshot", "notes", "update", oldest, "some notes"];
    names_thing_and_remedy(&refusal(&server.run("client", &notes).unwrap()));
    restores();
    // The results cannot be written down, and that is said; the snapshots are as they were.
    let verify = ["verify", "store1", "--ignore-verified", "false"];
    names_thing_and_remedy(&refusal(&server.run("manager", &verify).unwrap()));
    restores();
    // What frees space must work without space.
    let forget = ["snapshot", "forget", "host/x/2023-11-14T23:13:20Z"];
    succeeded(&server.run("client", &forget).unwrap()).unwrap();
    disk.fill();
    let prune = ["prune", "host/x", "--keep-last", "2"];
    succeeded(&server.run("client", &prune).unwrap()).unwrap();
    disk.fill();
    let collect = ["garbage-collection", "start", "store1"];
    let collected = server.run("manager", &collect).unwrap();
    if !collected.status.success() {
        names_thing_and_remedy(&refusal(&collected));
    }
    restores();

    disk.relieve();
    fs::write(&path, &image).unwrap();
    succeeded(&backup("1700014400")).unwrap();
    succeeded(&server.run("manager", &collect).unwrap()).unwrap();
    succeeded(&server.run("manager", &verify).unwrap()).unwrap();
    restores();
}

#[test]
fn a_full_disk_leaves_the_configuration_as_it_was() {
    let dir = testbed::scratch::directory().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("root"), 4) else {
        println!("skipped: a small file system cannot be mounted here");
        return;
    };
    let manager = |words: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_backstop"))
            .arg("manager")
            .args(words)
            .env("BACKSTOP_ROOT", &disk.0)
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    succeeded(&manager(&[
        "user",
        "create",
        "anna@pbs",
        "--comment",
        "first",
    ]))
    .unwrap();
    let list = || succeeded(&manager(&["user", "list", "--output-format", "json"])).unwrap();
    let before = list();
    disk.fill();
    let long = "x".repeat(100);
    for number in 0..3 {
        let user = format!("user{number}@pbs");
        let output = manager(&["user", "create", &user, "--comment", &long]);
        names_thing_and_remedy(&refusal(&output));
    }
    assert_eq!(list(), before);
    disk.relieve();
    succeeded(&manager(&[
        "user",
        "update",
        "anna@pbs",
        "--comment",
        "second",
    ]))
    .unwrap();
    assert_eq!(list(), before.replace("first", "second"));
}
