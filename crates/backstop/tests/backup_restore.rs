//! The main job, end to end: the real client against the real server over real TLS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use testbed::random::Random;
use testbed::server::{ServerProcess, succeeded};
use testbed::tree;
use testbed::tree_compare::{Aspects, compare};

/// A server with a datastore, and a directory for sources and targets.
struct World {
    server: ServerProcess,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = testbed::scratch::directory().unwrap();
        let root = dir.path().join("root");
        let server =
            ServerProcess::with_datastore(Path::new(env!("CARGO_BIN_EXE_backstop")), &root)
                .unwrap();
        Self { server, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `name:path` of a backup specification.
    fn spec(&self, archive: &str, name: &str) -> OsString {
        let mut spec = OsString::from(format!("{archive}:"));
        spec.push(self.path(name));
        spec
    }

    /// Runs the client and returns its log (standard error).
    fn client<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        let output = self.server.run("client", arguments).unwrap();
        succeeded(&output).unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn backup(&self, spec: &OsStr, id: &str, time: u64, options: &[&str]) -> String {
        let time = time.to_string();
        let mut arguments = vec![OsStr::new("backup"), spec];
        arguments.extend(["--backup-id", id, "--backup-time", &time].map(OsStr::new));
        arguments.extend(options.iter().map(OsStr::new));
        self.client(&arguments)
    }

    fn restore(&self, snapshot: &str, archive: &str, target: &Path, options: &[&str]) -> String {
        let mut arguments = vec![
            OsStr::new("restore"),
            snapshot.as_ref(),
            archive.as_ref(),
            target.as_os_str(),
        ];
        arguments.extend(options.iter().map(OsStr::new));
        self.client(&arguments)
    }

    fn assert_same(&self, source: &str, target: &str, skip: &[&str]) {
        let aspects = Aspects {
            ownership: testbed::is_root(),
            top_directory: true,
            skip,
        };
        let result = compare(&self.path(source), &self.path(target), aspects).unwrap();
        assert_eq!(result.differences, Vec::<String>::new());
        assert!(result.entries > 1);
    }
}

#[test]
fn every_kind_of_entry_survives_in_every_mode_plain_and_encrypted() {
    let world = World::new();
    fs::create_dir(world.path("source")).unwrap();
    tree::every_kind(&world.path("source")).unwrap();
    if !testbed::is_root() {
        println!("skipped: not root (device nodes, owners, file capabilities)");
    }
    let key = world.path("key.json");
    world.client(&[
        OsStr::new("key"),
        "create".as_ref(),
        "--kdf".as_ref(),
        "none".as_ref(),
        key.as_os_str(),
    ]);
    let key = key.to_str().unwrap();
    let spec = world.spec("root.pxar", "source");
    let mut number = 0;
    for mode in ["legacy", "data", "metadata"] {
        for options in [
            vec![],
            vec!["--keyfile", key],
            vec!["--keyfile", key, "--crypt-mode", "sign-only"],
        ] {
            number += 1;
            let id = format!("kinds-{number}");
            let key_options: Vec<&str> = options.iter().copied().take(2).collect();
            for round in 1..=2u64 {
                let mut all = options.clone();
                all.extend(["--change-detection-mode", mode]);
                world.backup(&spec, &id, 1_700_000_000 + round, &all);
                let target = format!("target-{number}-{round}");
                world.restore(
                    &format!("host/{id}"),
                    "root.pxar",
                    &world.path(&target),
                    &key_options,
                );
                world.assert_same("source", &target, &[]);
            }
        }
    }
}

#[test]
fn an_unchanged_tree_is_not_sent_again() {
    let world = World::new();
    tree::mixed(&world.path("source"), 3, 300, 24).unwrap();
    let spec = world.spec("root.pxar", "source");
    let first = world.backup(&spec, "tree", 1_700_000_001, &[]);
    assert!(first.contains("No previous manifest available."), "{first}");
    let second = world.backup(&spec, "tree", 1_700_000_002, &[]);
    assert!(
        second.contains("root.pxar: had to backup 0 B of"),
        "{second}"
    );
    assert!(
        second.contains("root.pxar: backup was done incrementally, reused"),
        "{second}"
    );
}

#[test]
fn metadata_mode_reads_only_what_changed_and_restores_it_all() {
    let world = World::new();
    tree::mixed(&world.path("source"), 4, 300, 24).unwrap();
    let spec = world.spec("root.pxar", "source");
    let mode = ["--change-detection-mode", "metadata"];
    world.backup(&spec, "tree", 1_700_000_001, &mode);
    fs::write(world.path("source/folder-001/file-000150"), b"changed").unwrap();
    fs::remove_file(world.path("source/folder-000/file-000007")).unwrap();
    fs::write(
        world.path("source/folder-002/new-file"),
        Random::new(5).bytes(100_000),
    )
    .unwrap();
    let log = world.backup(&spec, "tree", 1_700_000_002, &mode);
    assert!(
        log.contains("Using previous index as metadata reference for 'root.mpxar.didx'"),
        "{log}"
    );
    assert!(log.contains("Change detection summary:"), "{log}");
    world.restore("host/tree", "root.pxar", &world.path("target"), &[]);
    world.assert_same("source", "target", &[]);
    // and the first snapshot still restores
    world.restore(
        "host/tree/2023-11-14T22:13:21Z",
        "root.pxar",
        &world.path("first"),
        &[],
    );
    assert!(world.path("first/folder-000/file-000007").is_file());
}

#[test]
fn an_image_is_restored_to_a_file_and_to_standard_output() {
    let world = World::new();
    tree::image(&world.path("disk"), 6, 37).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(world.path("disk"))
        .unwrap()
        .set_len((37 << 20) + 512)
        .unwrap();
    let spec = world.spec("drive.img", "disk");
    world.backup(&spec, "image", 1_700_000_001, &[]);
    let second = world.backup(&spec, "image", 1_700_000_002, &[]);
    assert!(
        second.contains("drive.img: had to backup 0 B of"),
        "{second}"
    );
    world.restore("host/image", "drive.img", &world.path("copy"), &[]);
    assert!(fs::read(world.path("disk")).unwrap() == fs::read(world.path("copy")).unwrap());

    let output = world
        .server
        .run("client", &["restore", "host/image", "drive.img", "-"])
        .unwrap();
    succeeded(&output).unwrap();
    assert!(fs::read(world.path("disk")).unwrap() == output.stdout);
}

#[test]
fn an_image_of_unknown_size_is_read_from_a_fifo() {
    let world = World::new();
    let content = Random::new(9).bytes((9 << 20) + 777);
    let fifo = world.path("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let writer = {
        let (fifo, content) = (fifo.clone(), content.clone());
        std::thread::spawn(move || fs::write(fifo, content))
    };
    world.backup(&world.spec("drive.img", "fifo"), "pipe", 1_700_000_001, &[]);
    writer.join().unwrap().unwrap();
    world.restore("host/pipe", "drive.img", &world.path("copy"), &[]);
    assert!(content == fs::read(world.path("copy")).unwrap());
}

#[test]
fn several_archives_of_every_kind_make_one_snapshot() {
    let world = World::new();
    tree::mixed(&world.path("one"), 1, 20, 2).unwrap();
    tree::mixed(&world.path("two"), 2, 20, 2).unwrap();
    tree::image(&world.path("disk"), 3, 5).unwrap();
    fs::write(world.path("text"), "key: value\n").unwrap();
    let mut arguments: Vec<OsString> = vec!["backup".into()];
    for (archive, name) in [
        ("one.pxar", "one"),
        ("two.pxar", "two"),
        ("drive.img", "disk"),
        ("vm.conf", "text"),
        ("run.log", "text"),
    ] {
        arguments.push(world.spec(archive, name));
    }
    arguments.extend(["--backup-id", "many"].map(OsString::from));
    world.client(&arguments);
    let files = world
        .server
        .ok("client", &["snapshot", "list", "--output-format", "json"])
        .unwrap();
    for name in [
        "one.pxar.didx",
        "two.pxar.didx",
        "catalog.pcat1.didx",
        "drive.img.fidx",
        "vm.conf.blob",
        "run.log.blob",
        "index.json.blob",
    ] {
        assert!(
            files.contains(&format!("\"{name}\"")),
            "{name} is not in {files}"
        );
    }
    world.restore("host/many", "two.pxar", &world.path("back"), &[]);
    world.assert_same("two", "back", &[]);
    world.restore("host/many", "vm.conf", &world.path("back.conf"), &[]);
    assert_eq!(
        fs::read_to_string(world.path("back.conf")).unwrap(),
        "key: value\n"
    );
}

#[test]
fn excluded_files_are_left_out() {
    let world = World::new();
    let source = world.path("source");
    fs::create_dir_all(source.join("a/b")).unwrap();
    for name in [
        "keep",
        "drop.tmp",
        "a/keep",
        "a/drop.tmp",
        "a/b/here",
        "a/b/inner",
    ] {
        fs::write(source.join(name), name).unwrap();
    }
    fs::write(source.join("a/.pxarexclude"), "b/inner\n").unwrap();
    world.backup(
        &world.spec("root.pxar", "source"),
        "x",
        1_700_000_001,
        &["--exclude", "*.tmp"],
    );
    world.restore("host/x", "root.pxar", &world.path("target"), &[]);
    let exists = |name: &str| world.path("target").join(name).exists();
    assert!(exists("keep") && exists("a/keep") && exists("a/b/here"));
    assert!(!exists("drop.tmp") && !exists("a/drop.tmp") && !exists("a/b/inner"));
    assert_eq!(
        fs::read_to_string(world.path("target/.pxarexclude-cli")).unwrap(),
        "*.tmp\n"
    );
}

#[test]
fn a_pattern_restores_only_what_it_matches() {
    let world = World::new();
    tree::mixed(&world.path("source"), 11, 120, 4).unwrap();
    for (number, mode) in ["legacy", "data"].iter().enumerate() {
        let id = format!("id{number}");
        let spec = world.spec("root.pxar", "source");
        world.backup(
            &spec,
            &id,
            1_700_000_001,
            &["--change-detection-mode", mode],
        );
        let target = world.path(&format!("target{number}"));
        world.restore(
            &format!("host/{id}"),
            "root.pxar",
            &target,
            &["--pattern", "/folder-001/file-000110"],
        );
        let restored = fs::read(target.join("folder-001/file-000110")).unwrap();
        assert!(restored == fs::read(world.path("source/folder-001/file-000110")).unwrap());
        assert!(!target.join("folder-000").exists());
    }
}

#[test]
fn an_existing_target_is_only_overwritten_when_asked() {
    let world = World::new();
    tree::mixed(&world.path("source"), 12, 10, 1).unwrap();
    world.backup(&world.spec("root.pxar", "source"), "x", 1_700_000_001, &[]);
    let target = world.path("target");
    world.restore("host/x", "root.pxar", &target, &[]);
    fs::write(target.join("folder-000/file-000003"), "mine").unwrap();
    let path = target.as_os_str();
    let again = |options: &[&str]| {
        let mut arguments = vec![
            OsStr::new("restore"),
            "host/x".as_ref(),
            "root.pxar".as_ref(),
            path,
        ];
        arguments.extend(options.iter().map(OsStr::new));
        world
            .server
            .run("client", &arguments)
            .unwrap()
            .status
            .success()
    };
    assert!(!again(&[]));
    assert!(!again(&["--allow-existing-dirs"]));
    assert_eq!(
        fs::read_to_string(target.join("folder-000/file-000003")).unwrap(),
        "mine"
    );
    assert!(again(&["--allow-existing-dirs", "--overwrite"]));
    world.assert_same("source", "target", &[]);
}

#[test]
fn namespaces_keep_equal_groups_apart() {
    let world = World::new();
    tree::mixed(&world.path("one"), 1, 5, 1).unwrap();
    tree::mixed(&world.path("two"), 2, 5, 1).unwrap();
    world.client(&["namespace", "create", "a"]);
    world.client(&["namespace", "create", "a/b"]);
    world.backup(&world.spec("root.pxar", "one"), "x", 1_700_000_001, &[]);
    world.backup(
        &world.spec("root.pxar", "two"),
        "x",
        1_700_000_001,
        &["--ns", "a/b"],
    );
    assert_eq!(
        world.server.ok("client", &["namespace", "list"]).unwrap(),
        "a\na/b\n"
    );
    world.restore("host/x", "root.pxar", &world.path("back-one"), &[]);
    world.restore(
        "host/x",
        "root.pxar",
        &world.path("back-two"),
        &["--ns", "a/b"],
    );
    world.assert_same("one", "back-one", &[]);
    world.assert_same("two", "back-two", &[]);
}

#[test]
fn a_token_with_its_own_permissions_backs_up_and_restores() {
    let world = World::new();
    tree::mixed(&world.path("source"), 1, 5, 1).unwrap();
    let manager = |arguments: &[&str]| world.server.ok("manager", arguments).unwrap();
    manager(&["user", "create", "bob@pbs", "--password", "bobs-password"]);
    let reply = manager(&["user", "generate-token", "bob@pbs", "host1"]);
    let secret = reply
        .split("\"value\": \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_string();
    for id in ["bob@pbs", "bob@pbs!host1"] {
        manager(&[
            "acl",
            "update",
            "/datastore/store1",
            "DatastoreBackup",
            "--auth-id",
            id,
        ]);
    }
    let repository = world
        .server
        .repository("store1")
        .replace("admin@pbs", "bob@pbs!host1");
    let run = |arguments: &[&OsStr]| {
        let mut command = world.server.command("client", "store1");
        command
            .args(arguments)
            .env("PBS_REPOSITORY", &repository)
            .env("PBS_PASSWORD", &secret);
        succeeded(&command.output().unwrap()).unwrap()
    };
    let spec = world.spec("root.pxar", "source");
    run(&[
        "backup".as_ref(),
        spec.as_ref(),
        "--backup-id".as_ref(),
        "bobs".as_ref(),
    ]);
    let target = world.path("target");
    run(&[
        "restore".as_ref(),
        "host/bobs".as_ref(),
        "root.pxar".as_ref(),
        target.as_os_str(),
    ]);
    world.assert_same("source", "target", &[]);
    // another user's groups are not his to read
    world.backup(&spec, "admins", 1_700_000_001, &[]);
    let mut command = world.server.command("client", "store1");
    command
        .args(["restore", "host/admins", "root.pxar"])
        .arg(world.path("stolen"));
    command
        .env("PBS_REPOSITORY", &repository)
        .env("PBS_PASSWORD", &secret);
    assert!(!command.output().unwrap().status.success());
    assert!(!world.path("stolen/folder-000").exists());
}

#[test]
fn sixteen_backups_at_once_all_restore() {
    let world = World::new();
    for number in 0..16 {
        tree::mixed(&world.path(&format!("source-{number}")), number, 30, 2).unwrap();
    }
    let children: Vec<_> = (0..16)
        .map(|number| {
            let mut command = world.server.command("client", "store1");
            command
                .arg("backup")
                .arg(world.spec("root.pxar", &format!("source-{number}")));
            command
                .args(["--backup-id", &format!("id-{number}")])
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for child in children {
        succeeded(&child.wait_with_output().unwrap()).unwrap();
    }
    for number in 0..16 {
        let target = format!("target-{number}");
        world.restore(
            &format!("host/id-{number}"),
            "root.pxar",
            &world.path(&target),
            &[],
        );
        world.assert_same(&format!("source-{number}"), &target, &[]);
    }
}

#[test]
fn a_dry_run_sends_and_leaves_nothing() {
    let world = World::new();
    tree::mixed(&world.path("source"), 1, 5, 1).unwrap();
    let log = world.backup(
        &world.spec("root.pxar", "source"),
        "dry",
        1_700_000_001,
        &["--dry-run"],
    );
    assert!(log.contains("dry-run: no upload happened"), "{log}");
    assert_eq!(
        world.server.ok("client", &["snapshot", "list"]).unwrap(),
        ""
    );
}

#[test]
fn a_master_key_opens_an_encrypted_backup_whose_key_is_lost() {
    let world = World::new();
    tree::mixed(&world.path("source"), 1, 5, 1).unwrap();
    let key = world.path("key.json");
    world.client(&[
        OsStr::new("key"),
        "create".as_ref(),
        "--kdf".as_ref(),
        "none".as_ref(),
        key.as_os_str(),
    ]);
    // a master key pair made with the stock tool, as in the reference data
    let fixtures =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/pbs-3.2.4/keys");
    let public = fixtures.join("master-public.pem");
    let options = [
        "--keyfile",
        key.to_str().unwrap(),
        "--master-pubkey-file",
        public.to_str().unwrap(),
    ];
    world.backup(
        &world.spec("root.pxar", "source"),
        "x",
        1_700_000_001,
        &options,
    );
    let escrow = world.path("rsa-encrypted.key");
    world.restore("host/x", "rsa-encrypted.key", &escrow, &[]);
    assert_eq!(fs::metadata(&escrow).unwrap().len(), 512);
}

#[test]
fn a_server_that_runs_as_root_leaves_a_datastore_to_its_owner() {
    use std::os::unix::fs::MetadataExt;

    if !testbed::is_root() {
        println!("skipped: not root (ownership)");
        return;
    }
    let world = World::new();
    tree::mixed(&world.path("source"), 1, 20, 1).unwrap();
    let store = world.server.root.join("datastore/store1");
    let logs = world.server.root.join("var/log/proxmox-backup/tasks");
    for dir in [&store, &logs] {
        let status = std::process::Command::new("chown")
            .args(["-R", "1234:2345"])
            .arg(dir)
            .status()
            .unwrap();
        assert!(status.success());
    }
    world.client(&["namespace", "create", "team"]);
    let spec = world.spec("root.pxar", "source");
    world.backup(&spec, "x", 1_700_000_001, &["--ns", "team"]);
    world.backup(&spec, "x", 1_700_000_002, &[]);
    world.client(&[
        "snapshot",
        "protected",
        "update",
        "host/x/2023-11-14T22:13:22Z",
        "true",
    ]);
    world.client(&[
        "snapshot",
        "notes",
        "update",
        "host/x/2023-11-14T22:13:22Z",
        "a note",
    ]);
    world.client(&["garbage-collect"]);

    let mut unvisited = vec![store, logs];
    while let Some(path) = unvisited.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!(
            (metadata.uid(), metadata.gid()),
            (1234, 2345),
            "{}",
            path.display()
        );
        if metadata.is_dir() {
            unvisited.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
}

#[test]
fn paths_on_the_command_line_need_not_be_text() {
    let world = World::new();
    let path = |name: &[u8]| world.dir.path().join(OsStr::from_bytes(name));
    let (source, key, target) = (path(b"so\xffurce"), path(b"k\xfeey"), path(b"ta\xfdrget"));
    tree::mixed(&source, 1, 5, 1).unwrap();
    let run = |words: &[&OsStr]| world.server.ok("client", words).unwrap();
    let word = OsStr::new;
    run(&[
        word("key"),
        word("create"),
        word("--kdf"),
        word("none"),
        key.as_os_str(),
    ]);
    let mut spec = OsString::from("root.pxar:");
    spec.push(&source);
    let mut keyfile = OsString::from("--keyfile=");
    keyfile.push(&key);
    let id = word("--backup-id");
    run(&[word("backup"), &spec, id, word("x"), &keyfile]);
    run(&[
        word("restore"),
        word("host/x"),
        word("root.pxar"),
        target.as_os_str(),
        &keyfile,
    ]);
    let aspects = Aspects {
        ownership: false,
        top_directory: true,
        skip: &[],
    };
    let result = compare(&source, &target, aspects).unwrap();
    assert_eq!(result.differences, Vec::<String>::new());
}
