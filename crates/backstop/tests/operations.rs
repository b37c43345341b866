//! The runbook, `docs/operations/`: every command in it is run as it stands there, against a real server in the state that the page
//! is about. Only the server's address is replaced.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use testbed::program::installed;
use testbed::random::Random;
use testbed::server::{ServerProcess, succeeded};

const BINARY: &str = env!("CARGO_BIN_EXE_backstop");
const PATIENCE: Duration = Duration::from_secs(120);

/// A block of commands: what stands after `sh` in its first line, and the commands.
struct Block {
    stage: String,
    commands: String,
}

fn pages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations")
}

fn blocks(page: &str) -> Vec<Block> {
    let text = fs::read_to_string(pages().join(format!("{page}.md"))).unwrap();
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut inside) {
            (Some(_), Some(_)) => blocks.extend(inside.take().flatten()),
            (Some(head), None) => {
                inside = Some(head.strip_prefix("sh").map(|stage| Block {
                    stage: stage.trim().to_owned(),
                    commands: String::new(),
                }));
            }
            (None, Some(Some(block))) => {
                block.commands.push_str(line);
                block.commands.push('\n');
            }
            (None, _) => {}
        }
    }
    assert!(inside.is_none(), "{page}: a block without an end");
    blocks
}

/// A server with everything that the pages name.
struct World {
    server: ServerProcess,
    root: tempfile::TempDir,
    variables: BTreeMap<&'static str, String>,
}

impl World {
    fn new() -> Self {
        let root = testbed::scratch::directory().unwrap();
        let server = ServerProcess::start(
            Path::new(BINARY),
            &root.path().join("root"),
            ([127, 0, 0, 1], 0).into(),
        )
        .unwrap();
        for folder in ["work", "source"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        let links = root.path().join("bin");
        let words = ["install-links", links.to_str().unwrap()];
        succeeded(&Command::new(BINARY).args(words).output().unwrap()).unwrap();
        std::os::unix::fs::symlink(BINARY, links.join("backstop")).unwrap();
        let world = Self {
            server,
            root,
            variables: BTreeMap::new(),
        };
        world.run(&format!(
            "proxmox-backup-manager datastore create tank {}",
            world.tank().display()
        ));
        world
    }

    fn tank(&self) -> PathBuf {
        self.root.path().join("tank")
    }

    fn shell(&self, commands: &str) -> Command {
        let address = self.server.address.to_string();
        let commands = commands
            .replace("https://localhost:8007", &format!("https://{address}"))
            .replace("admin@pbs@localhost:tank", &self.server.repository("tank"));
        let mut command = Command::new("sh");
        self.server.environment(&mut command, "tank");
        let path = std::env::var_os("PATH").unwrap();
        let path = [self.root.path().join("bin")]
            .into_iter()
            .chain(std::env::split_paths(&path));
        command
            .args(["-e", "-c", &commands])
            .env("PATH", std::env::join_paths(path).unwrap())
            .envs(&self.variables)
            .current_dir(self.root.path().join("work"));
        command
    }

    /// Runs commands that have to succeed; returns what they said.
    fn run(&self, commands: &str) -> String {
        let output = self.shell(commands).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{commands}\n{said}");
        said
    }

    /// Runs the blocks of a page that belong to a stage; returns what they said.
    fn page(&self, page: &str, stage: &str) -> String {
        let blocks = blocks(page);
        let of_stage: Vec<&Block> = blocks.iter().filter(|block| block.stage == stage).collect();
        assert!(!of_stage.is_empty(), "{page}: no block '{stage}'");
        of_stage
            .iter()
            .map(|block| self.run(&block.commands))
            .collect()
    }

    fn source(&self) -> PathBuf {
        self.root.path().join("source")
    }

    /// A backup of the source's files as `host/web`.
    fn with_files(&self) {
        fs::create_dir_all(self.source().join("sub")).unwrap();
        fs::write(self.source().join("sub/hosts"), "127.0.0.1 localhost\n").unwrap();
        fs::write(self.source().join("other"), "other\n").unwrap();
        self.run("proxmox-backup-client backup etc.pxar:../source --backup-id web");
    }

    /// A backup of a virtual machine as `vm/100`.
    fn with_machine(&self) {
        let folder = self.root.path();
        fs::write(folder.join("qemu-server.conf"), "cores: 2\nmemory: 2048\n").unwrap();
        if !folder.join("disk").exists() {
            fs::write(folder.join("disk"), Random::new(100).bytes(3 << 20)).unwrap();
        }
        self.run(
            "proxmox-backup-client backup qemu-server.conf:../qemu-server.conf drive-scsi0.img:../disk \
             --backup-type vm --backup-id 100",
        );
    }

    /// The time of the newest snapshot of a group.
    fn time_of(&self, group: &str) -> String {
        let list = self.run(&format!(
            "proxmox-backup-client snapshot list {group} --output-format json"
        ));
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        let newest = list.as_array().unwrap().iter();
        let newest = newest
            .map(|snapshot| snapshot["backup-time"].as_i64().unwrap())
            .max();
        jiff::Timestamp::from_second(newest.unwrap())
            .unwrap()
            .to_string()
    }

    /// A remote, which is this server itself, and jobs of each kind.
    fn with_jobs(&self) {
        let address = self.server.address;
        self.run(&format!(
            "proxmox-backup-manager datastore create second {}\n\
             proxmox-backup-manager remote create pbs2 --host {} --port {} --auth-id admin@pbs --password '{}' --fingerprint {}\n\
             proxmox-backup-manager sync-job create offsite --store second --remote pbs2 --remote-store tank --schedule daily\n\
             proxmox-backup-manager prune-job create daily --store tank --schedule daily --keep-last 3\n\
             proxmox-backup-manager verify-job create weekly --store tank --schedule weekly\n",
            self.root.path().join("second").display(),
            address.ip(),
            address.port(),
            self.server.password,
            self.server.fingerprint,
        ));
    }
}

/// Overwrites the middle of the largest chunk.
fn corrupt_a_chunk(datastore: &Path) {
    let mut chunks = Vec::new();
    for folder in fs::read_dir(datastore.join(".chunks")).unwrap() {
        let folder = folder.unwrap();
        if folder.file_type().unwrap().is_dir() {
            for chunk in fs::read_dir(folder.path()).unwrap() {
                let chunk = chunk.unwrap();
                chunks.push((chunk.metadata().unwrap().len(), chunk.path()));
            }
        }
    }
    let (size, path) = chunks.into_iter().max().unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(size / 2)).unwrap();
    file.write_all(b"these bytes are not those that were here")
        .unwrap();
}

#[test]
fn every_page_is_in_the_table_and_every_block_is_run() {
    let table = fs::read_to_string(pages().join("README.md")).unwrap();
    let own = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operations.rs"))
        .unwrap();
    for entry in fs::read_dir(pages()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let page = name.strip_suffix(".md").unwrap();
        assert!(
            page == "README" || table.contains(&format!("({name})")),
            "{name} is not in the table"
        );
        for block in blocks(page) {
            let run = format!(".page(\"{page}\", \"{}\")", block.stage);
            assert!(own.contains(&run), "nobody runs {page} '{}'", block.stage);
        }
    }
}

#[test]
fn what_is_said_of_trouble_with_the_datastore_is_so() {
    if installed("curl").is_none() {
        return;
    }
    let mut world = World::new();
    world.with_files();
    world.with_machine();
    world.with_jobs();
    world.page("README", "");
    let said = world.page("slow-api", "");
    assert!(
        said.contains("backstop_sessions") && said.contains("pong"),
        "{said}"
    );
    let said = world.page("memory", "");
    assert!(
        said.contains("MemAvailable") && said.contains("process_resident_memory_bytes"),
        "{said}"
    );
    world.wait_for("curl -sk https://localhost:8007/metrics | grep 'backstop_datastore_size_bytes{datastore=\"tank\"}'");
    let said = world.page("full-datastore", "");
    assert!(
        said.contains("Pending") || said.contains("pending"),
        "{said}"
    );

    // the file system goes, and comes back
    let away = world.root.path().join("away");
    fs::rename(world.tank(), &away).unwrap();
    world.wait_until_available(false);
    world.run("backstop health --refresh || true");
    let said = world.page("stale-file-handles", "gone");
    assert!(said.contains("datastore-unavailable"), "{said}");
    assert!(
        said.contains("backstop_datastore_available{datastore=\"tank\"} 0"),
        "{said}"
    );
    fs::rename(&away, world.tank()).unwrap();
    world.wait_until_available(true);
    world.page("stale-file-handles", "back");

    // bytes on the disk change
    corrupt_a_chunk(&world.tank());
    let said = world.page("failed-verification", "corrupt");
    assert!(said.contains("failed") && said.contains("vm/100"), "{said}");
    world.with_machine();
    world.page("failed-verification", "healed");

    world.variables.insert("TIME", world.time_of("vm/100"));
    world
        .variables
        .insert("DATASTORE", world.tank().display().to_string());
    let said = world.page("restore-vm", "");
    assert!(said.contains("memory: 2048"), "{said}");
    let work = world.root.path().join("work");
    let disk = fs::read(world.root.path().join("disk")).unwrap();
    assert!(fs::read(work.join("disk0.raw")).unwrap() == disk);
    world.variables.insert("TIME", world.time_of("host/web"));
    world.page("restore-files", "");
    assert!(work.join("restored-hosts/sub/hosts").is_file());
    assert!(!work.join("restored-hosts/other").exists());
}

impl World {
    /// Waits until a command succeeds.
    fn wait_for(&self, command: &str) {
        let begin = Instant::now();
        while !self.shell(command).output().unwrap().status.success() {
            assert!(begin.elapsed() < PATIENCE, "{command}");
        }
    }

    fn wait_until_available(&self, wanted: bool) {
        let begin = Instant::now();
        while self
            .shell("proxmox-backup-client status")
            .output()
            .unwrap()
            .status
            .success()
            != wanted
        {
            assert!(begin.elapsed() < PATIENCE);
        }
    }
}

#[test]
fn what_is_said_of_jobs_certificates_and_keys_is_so() {
    let mut world = World::new();
    world.with_files();
    world.with_jobs();
    let said = world.page("failed-jobs", "");
    assert!(
        said.contains("offsite") && said.contains("daily") && said.contains("weekly"),
        "{said}"
    );
    world.page("certificate-change", "");
    world
        .variables
        .insert("FINGERPRINT", world.server.fingerprint.clone());
    world.page("certificate-change", "renewed");

    let work = world.root.path().join("work");
    let master = testbed::master_key::unencrypted().unwrap();
    fs::write(work.join("master-private.pem"), &master.0).unwrap();
    fs::write(work.join("master-public.pem"), &master.1).unwrap();
    world.run(
        "proxmox-backup-client key create secret.key --kdf none\n\
         proxmox-backup-client backup etc.pxar:../source --backup-id secret --keyfile secret.key\n\
         proxmox-backup-client backup etc.pxar:../source --backup-id master --keyfile secret.key \
         --master-pubkey-file master-public.pem\n",
    );
    world.page("lost-key", "");
    let restored = fs::read_to_string(work.join("restored-secret/sub/hosts")).unwrap();
    assert_eq!(restored, "127.0.0.1 localhost\n");
    let fingerprint = |key: &str| {
        let shown = world.run(&format!(
            "proxmox-backup-client key show {key} --output-format json"
        ));
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        shown["fingerprint"].clone()
    };
    assert_eq!(fingerprint("restored.key"), fingerprint("secret.key"));
    assert!(
        fs::read_to_string(work.join("secret.key.txt"))
            .unwrap()
            .contains("BEGIN")
    );
}
