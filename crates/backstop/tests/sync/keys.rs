//! Keys of sync jobs: what is plain here is encrypted on its way out, and decrypted on its way back.

use std::fs;
use std::path::PathBuf;

use backstop_format::blob::DataBlob;
use backstop_format::manifest::{FileEntry, Manifest};
use backstop_format::{CryptMode, Digest};
use serde_json::{Value, json};

use crate::world::World;

const FIRST: &str = "host/x/2023-11-14T22:13:20Z";

/// Makes a key on the server with the jobs; its file for the client.
fn make_key(world: &World, id: &str) -> PathBuf {
    let text = world.manager(&["encryption-key", "create", id]);
    let path = world.path(&format!("{id}.json"));
    fs::write(&path, text).unwrap();
    path
}

fn unprotected(listed: &Value, name: &str) -> Value {
    let list = listed.as_array().unwrap();
    let found = list
        .iter()
        .find(|item| item["backup-time"] == 1_700_000_000);
    found.unwrap()[name].clone()
}

#[test]
fn a_push_with_a_key_encrypts_so_that_only_the_key_restores_and_a_pull_with_it_decrypts() {
    let world = World::new();
    world.write("disk", 40, 9);
    world.backup_here(&["--backup-id", "x"], 1_700_000_000);
    fs::write(world.path("log"), "what the client said").unwrap();
    let log_file = world.path("log");
    let words = ["snapshot", "upload-log", FIRST, log_file.to_str().unwrap()];
    world.here.ok("client", &words).unwrap();
    let key_file = make_key(&world, "key1");
    let key = key_file.to_str().unwrap();
    let options = [
        "--sync-direction",
        "push",
        "--active-encryption-key",
        "key1",
    ];
    world.add_job("push1", &options);

    let (log, end) = world.run_job("push1");
    assert_eq!(end, "OK", "{log}");
    assert!(log.contains("on the fly while pushing to remote"), "{log}");
    let disk = world.read("disk");
    assert!(world.restored_there(FIRST, &["--keyfile", key]) == disk);
    let output = world
        .there
        .run("client", &["restore", FIRST, "disk.img", "-"])
        .unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    let plain = fs::read(world.chunks_here()[0].clone()).unwrap();
    let there = world
        .there_api()
        .get("admin/datastore/store1/snapshots")
        .unwrap();
    let fingerprint = unprotected(&there, "fingerprint");
    assert!(
        fs::read_to_string(&key_file)
            .unwrap()
            .contains(fingerprint.as_str().unwrap())
    );
    for file in unprotected(&there, "files").as_array().unwrap() {
        let wanted = match file["filename"].as_str().unwrap() {
            "index.json.blob" => "sign-only",
            "client.log.blob" => continue,
            _ => "encrypt",
        };
        assert_eq!(file["crypt-mode"], wanted, "{file}");
    }
    // The client's log can be read with the key, and only with it.
    let log_there = world
        .there
        .root
        .join("datastore/store1")
        .join(FIRST)
        .join("client.log.blob");
    assert_ne!(fs::read(log_there).unwrap().get(..8), plain.get(..8));
    let verify = world.there.run("manager", &["verify", "store1"]).unwrap();
    testbed::server::succeeded(&verify).unwrap();
    // What is here stays as it was.
    assert!(world.restored(FIRST) == disk);

    // The chunks that the last snapshot has are not sent again, as it has the same key.
    let mut changed = disk.clone();
    changed[..1 << 20].fill(7);
    fs::write(world.path("disk"), &changed).unwrap();
    world.backup_here(&["--backup-id", "x"], 1_700_003_600);
    let (log, end) = world.run_job("push1");
    assert_eq!(end, "OK", "{log}");
    assert!(log.contains("in 1 chunks"), "{log}");

    // Back into another namespace, in the plain.
    world
        .here
        .ok("client", &["namespace", "create", "back"])
        .unwrap();
    let pull = json!({"ns": "back", "max-depth": 0, "decryption-keys": ["key1"]});
    let (log, end) = world.pull(pull.clone());
    assert_eq!(end, "OK", "{log}");
    assert!(
        log.contains("Found matching key 'key1' with fingerprint "),
        "{log}"
    );
    let client = || world.here.command("client", "store1");
    assert!(world.restore_with(client(), FIRST, &["--ns", "back"]) == disk);
    let second = "host/x/2023-11-14T23:13:20Z";
    assert!(world.restore_with(client(), second, &["--ns", "back"]) == changed);
    let here = world
        .api
        .client
        .get("admin/datastore/store1/snapshots", json!({"ns": "back"}));
    let here = world.api.runtime.block_on(here).unwrap();
    assert!(unprotected(&here, "fingerprint").is_null());
    let logs = |ns: &str| {
        let path = world
            .here
            .root
            .join("datastore/store1")
            .join(ns)
            .join(FIRST);
        fs::read(path.join("client.log.blob")).unwrap()
    };
    assert_eq!(logs("ns/back"), logs(""));
    world.manager(&["verify", "store1"]);
    let (log, end) = world.pull(pull.clone());
    assert_eq!(end, "OK", "{log}");
    assert!(log.contains(": no data changes"), "{log}");
    // The plain original and the encrypted copy are known to be the same.
    let (log, end) = world.pull(json!({"max-depth": 0, "decryption-keys": ["key1"]}));
    assert_eq!(end, "OK", "{log}");
    assert!(log.contains(": no data changes"), "{log}");
    // Without the key, they are not.
    let (log, end) = world.pull(json!({"max-depth": 0}));
    assert!(
        end.contains("No matching key found, refusing sync"),
        "{end}\n{log}"
    );
}

#[test]
fn a_snapshot_that_is_encrypted_already_is_pushed_as_it_is_and_other_keys_do_not_decrypt() {
    let world = World::new();
    world.write("disk", 41, 1);
    let own = world.path("own.json");
    let own = own.to_str().unwrap();
    world
        .here
        .ok("client", &["key", "create", own, "--kdf", "none"])
        .unwrap();
    world.backup_here(&["--backup-id", "x", "--keyfile", own], 1_700_000_000);
    make_key(&world, "key1");
    let (log, end) = world.push(json!({"encryption-key": "key1"}));
    assert_eq!(end, "OK", "{log}");
    assert!(log.contains("already encrypted with client key"), "{log}");
    let disk = world.read("disk");
    assert!(world.restored_there(FIRST, &["--keyfile", own]) == disk);

    world
        .here
        .ok("client", &["namespace", "create", "back"])
        .unwrap();
    let (log, end) = world.pull(json!({"ns": "back", "max-depth": 0, "decryption-keys": ["key1"]}));
    assert_eq!(end, "OK", "{log}");
    assert!(
        log.contains("No matching key found, sync without decryption"),
        "{log}"
    );
    let client = || world.here.command("client", "store1");
    let options = ["--ns", "back", "--keyfile", own];
    assert!(world.restore_with(client(), FIRST, &options) == disk);

    // The key of the client, given to the server, does.
    world.manager(&["encryption-key", "create", "own1", "--keyfile", own]);
    world
        .here
        .ok("client", &["namespace", "create", "plain"])
        .unwrap();
    let options = json!({"ns": "plain", "max-depth": 0, "decryption-keys": ["key1", "own1"]});
    let (log, end) = world.pull(options);
    assert_eq!(end, "OK", "{log}");
    assert!(world.restore_with(client(), FIRST, &["--ns", "plain"]) == disk);
    // Encrypted content is not replaced by plain content, nor the other way round.
    let (log, end) = world.pull(json!({"ns": "plain", "max-depth": 0}));
    assert!(
        end.contains("No matching key found, refusing sync"),
        "{end}\n{log}"
    );
}

#[test]
fn a_key_in_use_cannot_be_archived_and_an_archived_one_cannot_encrypt() {
    let world = World::new();
    world.write("disk", 42, 1);
    world.backup_here(&["--backup-id", "x"], 1_700_000_000);
    make_key(&world, "key1");
    let options = [
        "--sync-direction",
        "push",
        "--active-encryption-key",
        "key1",
    ];
    world.add_job("push1", &options);
    let refused = |words: &[&str]| {
        let output = world.here.run("manager", words).unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let error = refused(&["encryption-key", "archive", "key1"]);
    assert!(
        error.contains("encryption key in use by sync job: 'push1'"),
        "{error}"
    );
    let error = refused(&["encryption-key", "remove", "key1"]);
    assert!(
        error.contains("encryption key in use by sync job: 'push1'"),
        "{error}"
    );
    // A key that the job no longer encrypts with stays with it, as what was pushed may have to be read.
    let words = [
        "sync-job",
        "update",
        "push1",
        "--delete",
        "active-encryption-key",
    ];
    world.manager(&words);
    let job = world.manager(&["sync-job", "show", "push1"]);
    assert!(job.contains("associated-key"), "{job}");
    world.manager(&["encryption-key", "archive", "key1"]);
    let words = json!({"store": "store1", "remote": "there", "remote-store": "store1", "encryption-key": "key1"});
    let error = format!("{:#}", world.api.post("push", words).unwrap_err());
    assert!(
        error.contains("cannot load archived encryption key key1"),
        "{error}"
    );
    let listed = world.manager(&["encryption-key", "list"]);
    assert!(!listed.contains("key1"), "{listed}");
    let listed = world.manager(&["encryption-key", "list", "--include-archived"]);
    assert!(listed.contains("key1"), "{listed}");
    world.manager(&["sync-job", "update", "push1", "--delete", "associated-key"]);
    world.manager(&["encryption-key", "remove", "key1"]);
    assert!(
        !world
            .here
            .root
            .join("etc/proxmox-backup/encryption-keys/key1.enc")
            .exists()
    );
}

/// Adds a file that is not encrypted to a snapshot here.
fn add_plain_file(world: &World, snapshot: &str) {
    let folder = world.here.root.join("datastore/store1").join(snapshot);
    let manifest = folder.join("index.json.blob");
    let blob = DataBlob::load(fs::read(&manifest).unwrap()).unwrap();
    let mut content = Manifest::from_blob(&blob).unwrap();
    let plain = DataBlob::encode(b"readable for everybody", None, true).unwrap();
    let filename = "plain.conf.blob".to_owned();
    fs::write(folder.join(&filename), plain.raw()).unwrap();
    content
        .add_file(FileEntry {
            filename,
            crypt_mode: CryptMode::None,
            size: plain.raw().len() as u64,
            csum: Digest::of(plain.raw()),
        })
        .unwrap();
    fs::write(manifest, content.to_blob().unwrap().raw()).unwrap();
}

#[test]
fn a_snapshot_of_which_only_some_is_encrypted_is_left_out_with_a_warning_and_counts_as_missing() {
    let world = World::new();
    world.write("disk", 43, 1);
    let own = world.path("own.json");
    let own = own.to_str().unwrap();
    let words = ["key", "create", own, "--kdf", "none"];
    world.here.ok("client", &words).unwrap();
    for id in ["mixed", "mended"] {
        world.backup_here(&["--backup-id", id, "--keyfile", own], 1_700_000_000);
        add_plain_file(&world, &format!("host/{id}/2023-11-14T22:13:20Z"));
    }
    world.backup_here(&["--backup-id", "mended"], 1_700_000_001);
    world.backup_here(&["--backup-id", "plain"], 1_700_000_000);
    let key_file = make_key(&world, "key1");
    let key = key_file.to_str().unwrap();
    let options = [
        "--sync-direction",
        "push",
        "--active-encryption-key",
        "key1",
    ];
    world.add_job("push1", &options);
    let warning = |id: &str| {
        format!(
            "[host/{id}]: Encountered partially encrypted snapshot 'host/{id}/2023-11-14T22:13:20Z', refuse to re-encrypt and skip"
        )
    };
    let (mixed, mended) = (warning("mixed"), warning("mended"));
    let told = world.manager(&["sync-job", "run", "push1", "--dry-run"]);
    assert!(told.contains(&mixed) && told.contains(&mended), "{told}");
    let line = "Summary: dry run: 2 snapshots of 2 groups would be sent";
    assert!(told.contains(line), "{told}");

    let (log, end) = world.run_job("push1");
    assert_eq!(end, "WARNINGS: 2", "{log}");
    assert!(log.contains(&mixed) && log.contains(&mended), "{log}");
    assert!(log.contains("still missing: 2 (the newest"), "{log}");
    // All that came is encrypted.
    let arrived = ["host/mended/1700000001", "host/plain/1700000000"];
    assert_eq!(world.snapshots_there(""), arrived);
    let second = "host/mended/2023-11-14T22:13:21Z";
    assert!(world.restored_there(second, &["--keyfile", key]) == world.read("disk"));

    // Without a key to encrypt with, it goes as it is.
    let (log, end) = world.push(json!({"remote-ns": "as-it-is"}));
    assert_eq!(end, "OK", "{log}");
    let mixed = "host/mixed/1700000000".to_owned();
    assert!(world.snapshots_there("as-it-is").contains(&mixed));
}

#[test]
fn a_key_that_cannot_be_read_fails_the_push_before_anything_is_sent() {
    let world = World::new();
    world.write("disk", 44, 1);
    world.backup_here(&["--backup-id", "x"], 1_700_000_000);
    make_key(&world, "key1");
    let options = [
        "--sync-direction",
        "push",
        "--active-encryption-key",
        "key1",
    ];
    world.add_job("push1", &options);
    let keys = world.here.root.join("etc/proxmox-backup/encryption-keys");
    let file = keys.join("key1.enc");
    let sound = fs::read(&file).unwrap();
    let other = make_key(&world, "key2");
    // Nothing that is a key, the key of somebody else, and nothing at all.
    for content in [Some(b"{}".to_vec()), Some(fs::read(other).unwrap()), None] {
        match content {
            Some(content) => fs::write(&file, content).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        for words in [
            &["sync-job", "run", "push1"][..],
            &["sync-job", "run", "push1", "--dry-run"],
            &[
                "push",
                "store1",
                "there",
                "store1",
                "--encryption-key",
                "key1",
            ],
        ] {
            let output = world.here.run("manager", words).unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                !output.status.success() && said.contains("key1"),
                "{words:?}: {said}"
            );
        }
    }
    // By its schedule it fails where everybody looks.
    world.manager(&["sync-job", "update", "push1", "--schedule", "*:*"]);
    let path = "admin/sync";
    let direction = json!({"sync-direction": "push"});
    let begin = std::time::Instant::now();
    let job = loop {
        let jobs = world.api.client.get(path, direction.clone());
        let jobs = world.api.runtime.block_on(jobs).unwrap();
        if jobs[0]["last-run-state"].is_string() {
            break jobs[0].clone();
        }
        assert!(begin.elapsed().as_secs() < 300, "{jobs}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    };
    world.manager(&["sync-job", "update", "push1", "--delete", "schedule"]);
    assert!(
        job["last-run-state"].as_str().unwrap().contains("key1"),
        "{job}"
    );
    assert!(job["backstop"]["failures"].as_u64().unwrap() >= 1, "{job}");
    // The other server has not even seen a session.
    assert_eq!(world.snapshots_there(""), Vec::<String>::new());
    let tasks = world.there_api().get("nodes/localhost/tasks").unwrap();
    let is_backup = |task: &Value| task["worker_type"] == "backup";
    assert!(!tasks.as_array().unwrap().iter().any(is_backup), "{tasks}");
    fs::write(&file, sound).unwrap();
    let (log, end) = world.run_job("push1");
    assert_eq!(end, "OK", "{log}");
}
