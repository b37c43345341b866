//! Mounted archives, end to end: the real client, the real server and the kernel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use testbed::server::{ServerProcess, succeeded};
use testbed::tree;
use testbed::tree_compare::{Aspects, compare};

/// A server with a datastore, and a directory for sources and mounts.
struct World {
    server: ServerProcess,
    dir: tempfile::TempDir,
}

impl World {
    /// Nothing where mounting is not possible.
    fn new() -> Option<Self> {
        if !testbed::is_root()
            || fs::File::options()
                .read(true)
                .write(true)
                .open("/dev/fuse")
                .is_err()
        {
            println!("skipped: mounting needs root and /dev/fuse");
            return None;
        }
        let dir = testbed::scratch::directory().unwrap();
        let root = dir.path().join("root");
        let server =
            ServerProcess::with_datastore(Path::new(env!("CARGO_BIN_EXE_backstop")), &root)
                .unwrap();
        fs::create_dir(dir.path().join("mount")).unwrap();
        Some(Self { server, dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn client<S: AsRef<OsStr>>(&self, arguments: &[S]) {
        succeeded(&self.server.run("client", arguments).unwrap()).unwrap();
    }

    fn backup(&self, id: &str, options: &[&str]) {
        let mut spec = OsString::from("root.pxar:");
        spec.push(self.path("source"));
        let mut arguments = vec![
            OsStr::new("backup"),
            &spec,
            "--backup-id".as_ref(),
            id.as_ref(),
        ];
        arguments.extend(options.iter().map(OsStr::new));
        self.client(&arguments);
    }

    /// `mount` with everything but its options.
    fn mount(&self, snapshot: &str, archive: &str, options: &[&str]) -> Command {
        let mut command = self.server.command("client", "store1");
        command
            .args(["mount", snapshot, archive])
            .arg(self.path("mount"))
            .args(options);
        command
    }

    /// Mounts in the foreground; returns when it stands.
    fn mount_in_foreground(&self, snapshot: &str, archive: &str, options: &[&str]) -> Mounted {
        let mut child = self
            .mount(snapshot, archive, options)
            .arg("--verbose")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut heard = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        while !heard.contains("Mounted at ") {
            assert!(stderr.read_line(&mut heard).unwrap() > 0, "{heard}");
        }
        Mounted {
            child,
            stderr,
            target: self.path("mount"),
        }
    }

    fn is_mounted(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.contains(self.path("mount").to_str().unwrap())
    }

    fn assert_same(&self) {
        let aspects = Aspects {
            ownership: true,
            top_directory: true,
            skip: &[],
        };
        let result = compare(&self.path("source"), &self.path("mount"), aspects).unwrap();
        assert_eq!(result.differences, Vec::<String>::new());
        assert!(result.entries > 1);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // So that a failed test leaves nothing behind.
        let _ = unmount(self.path("mount"), UnmountFlags::DETACH);
    }
}

/// A client that serves a mount.
struct Mounted {
    child: Child,
    stderr: BufReader<ChildStderr>,
    target: PathBuf,
}

impl Mounted {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the client to end well; returns what it said since it mounted.
    fn end(&mut self) -> String {
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}, {said}");
        said
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.target, UnmountFlags::DETACH);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_mount_shows_the_tree_in_every_mode_plain_and_encrypted() {
    let Some(world) = World::new() else { return };
    fs::create_dir(world.path("source")).unwrap();
    tree::every_kind(&world.path("source")).unwrap();
    let key = world.path("key.json");
    let key = key.to_str().unwrap();
    world.client(&["key", "create", "--kdf", "none", key]);
    for mode in ["legacy", "data"] {
        for key_options in [&[][..], &["--keyfile", key]] {
            let id = format!("{mode}-{}", key_options.len());
            let mut options = vec!["--change-detection-mode", mode];
            options.extend(key_options);
            world.backup(&id, &options);
            let snapshot = format!("host/{id}");
            let mut mounted = world.mount_in_foreground(&snapshot, "root.pxar", key_options);
            world.assert_same();
            // and once more, now from the kernel's memory
            world.assert_same();
            let error = fs::write(world.path("mount/new"), b"x").unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
            unmount(world.path("mount"), UnmountFlags::empty()).unwrap();
            mounted.end();
        }
    }
}

#[test]
fn large_folders_and_many_readers_at_once_are_served() {
    let Some(world) = World::new() else { return };
    tree::mixed(&world.path("source"), 7, 100, 40).unwrap();
    for number in 0..5000 {
        fs::write(
            world.path(&format!("source/folder-000/small-{number}")),
            b"",
        )
        .unwrap();
    }
    world.backup("many", &["--change-detection-mode", "data"]);
    let _mounted = world.mount_in_foreground("host/many", "root.pxar", &[]);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| world.assert_same()))
            .collect();
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn a_signal_unmounts_even_what_is_in_use() {
    let Some(world) = World::new() else { return };
    tree::mixed(&world.path("source"), 1, 5, 1).unwrap();
    world.backup("x", &[]);
    for signal in [Signal::INT, Signal::TERM] {
        let mut mounted = world.mount_in_foreground("host/x", "root.pxar", &[]);
        assert!(world.is_mounted());
        let open = fs::File::open(world.path("mount/folder-000/file-000000")).unwrap();
        mounted.signal(signal);
        mounted.end();
        assert!(!world.is_mounted());
        drop(open);
    }
}

#[test]
fn without_verbose_the_mount_stands_when_the_command_returns_and_ends_with_umount() {
    let Some(world) = World::new() else { return };
    tree::mixed(&world.path("source"), 1, 20, 2).unwrap();
    world.backup("x", &[]);
    let output = world.mount("host/x", "root.pxar", &[]).output().unwrap();
    succeeded(&output).unwrap();
    world.assert_same();
    unmount(world.path("mount"), UnmountFlags::empty()).unwrap();
}

#[test]
fn a_mount_that_fails_in_the_background_is_not_reported_as_success() {
    let Some(world) = World::new() else { return };
    tree::mixed(&world.path("source"), 1, 5, 1).unwrap();
    world.backup("x", &[]);
    for (snapshot, archive, expected) in [
        ("host/x", "other.pxar", "archive not found in manifest"),
        ("host/y", "root.pxar", "host/y"),
        ("host/x", "drive.img", "use the 'map' command"),
    ] {
        let output = world.mount(snapshot, archive, &[]).output().unwrap();
        assert_eq!(output.status.code(), Some(255));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.starts_with("Error: ") && said.contains(expected),
            "{said}"
        );
        assert!(!world.is_mounted());
    }
}

#[test]
fn a_mount_whose_server_is_gone_gives_errors_and_can_be_ended() {
    let Some(mut world) = World::new() else {
        return;
    };
    tree::mixed(&world.path("source"), 1, 40, 40).unwrap();
    world.backup("x", &["--change-detection-mode", "data"]);
    let mut mounted = world.mount_in_foreground("host/x", "root.pxar", &[]);
    world.server.kill().unwrap();
    let errors: Vec<_> = (0..40)
        .filter_map(|number| {
            fs::read(world.path(&format!("mount/folder-000/file-{number:06}"))).err()
        })
        .collect();
    assert!(!errors.is_empty());
    let expected = Some(rustix::io::Errno::IO.raw_os_error());
    assert!(
        errors.iter().all(|error| error.raw_os_error() == expected),
        "{errors:?}"
    );
    mounted.signal(Signal::TERM);
    let said = mounted.end();
    assert!(
        said.contains("file-0000") && said.contains(" failed - "),
        "{said}"
    );
}
