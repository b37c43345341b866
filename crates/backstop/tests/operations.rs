//! The runbook, `docs/operations/`: every command in it is run as it stands there, against a real server in the state that the page
//! is about, and ends with the status that the page says. Only addresses are replaced.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::ops::RangeInclusive;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use testbed::program::installed;
use testbed::random::Random;
use testbed::server::{ServerProcess, succeeded};

const BINARY: &str = env!("CARGO_BIN_EXE_backstop");
const PATIENCE: Duration = Duration::from_secs(120);

/// A block of commands: what stands after `sh` in its first line, the state that it is about (`STAGE`) and how it ends
/// (`exits=2`, `exits=0-3`; with 0 where nothing stands), and the commands.
struct Block {
    stage: String,
    exits: RangeInclusive<i32>,
    commands: String,
}

impl Block {
    fn new(head: &str) -> Self {
        let (mut stage, mut exits) = (String::new(), 0..=0);
        for word in head.split_whitespace() {
            match word.strip_prefix("exits=") {
                Some(range) => {
                    let (first, last) = range.split_once('-').unwrap_or((range, range));
                    exits = first.parse().unwrap()..=last.parse().unwrap();
                }
                None => stage.push_str(word),
            }
        }
        Self {
            stage,
            exits,
            commands: String::new(),
        }
    }
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
                inside = Some(head.strip_prefix("sh").map(Block::new));
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
            .replace("admin@pbs@localhost:tank", &self.server.repository("tank"))
            .replace("127.0.0.1:8008", "127.0.0.1:0")
            .replace(
                "backup.example.com:8007",
                &format!("localhost:{}", self.server.address.port()),
            );
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
        self.run_until(commands, &(0..=0))
    }

    /// Runs commands that have to end with one of these statuses; returns what they said.
    fn run_until(&self, commands: &str, exits: &RangeInclusive<i32>) -> String {
        let output = self.shell(commands).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let code = output.status.code();
        let fits = code.is_some_and(|code| exits.contains(&code));
        assert!(fits, "{commands}\n{code:?} is not {exits:?}\n{said}");
        said
    }

    /// Runs the blocks of a page that belong to a stage; returns what they said.
    fn page(&self, page: &str, stage: &str) -> String {
        let blocks = blocks(page);
        let of_stage: Vec<&Block> = blocks.iter().filter(|block| block.stage == stage).collect();
        assert!(!of_stage.is_empty(), "{page}: no block '{stage}'");
        of_stage
            .iter()
            .map(|block| self.run_until(&block.commands, &block.exits))
            .collect()
    }

    /// Runs the commands of a stage that stay until they are ended: waits for the text, and ends them.
    fn page_until(&self, page: &str, stage: &str, text: &str) {
        let blocks = blocks(page);
        let mut of_stage = blocks.iter().filter(|block| block.stage == stage);
        let (block, more) = (of_stage.next().unwrap(), of_stage.next());
        assert!(more.is_none(), "{page}: '{stage}' has several blocks");
        let mut running = self
            .shell(&block.commands)
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
        let found = lines.any(|line| line.unwrap().contains(text));
        let group = rustix::process::Pid::from_child(&running);
        rustix::process::kill_process_group(group, rustix::process::Signal::TERM).unwrap();
        lines.for_each(drop);
        running.wait().unwrap();
        assert!(found, "{} never said {text}", block.commands);
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
            let run = format!("(\"{page}\", \"{}\"", block.stage);
            assert!(own.contains(&run), "nobody runs {page} '{}'", block.stage);
            // A status that is expected is said; errors are not hidden.
            assert!(!block.commands.contains("||"), "{page}: {}", block.commands);
        }
    }
}

/// What stands between single backquotes, outside of blocks.
fn inline(page: &str) -> Vec<String> {
    let text = fs::read_to_string(pages().join(format!("{page}.md"))).unwrap();
    let mut inside = false;
    let outside = text.lines().filter(|line| {
        let is_fence = line.starts_with("```");
        inside ^= is_fence;
        !inside && !is_fence
    });
    let text = outside.collect::<Vec<_>>().join("\n");
    let spans = text.split('`').skip(1).step_by(2);
    spans.map(|span| span.replace('\n', " ")).collect()
}

/// The names of the commands of a tool, such as `sync-job update`.
fn commands_of(tool: &str) -> Vec<String> {
    let help = Command::new(BINARY).args([tool, "help"]).output().unwrap();
    let help = [help.stdout, help.stderr].concat();
    let help = String::from_utf8(help).unwrap();
    let prefix = format!("backstop {tool} ");
    let lines = help.lines().filter_map(|line| line.strip_prefix(&prefix));
    let names = lines.map(|line| {
        let name = line.split_whitespace();
        let name = name.take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
        name.collect::<Vec<_>>().join(" ")
    });
    names.filter(|name| !name.is_empty()).collect()
}

/// All pages of the manual.
fn manual() -> Vec<PathBuf> {
    let mut open = vec![pages().join("..")];
    let mut found = vec![pages().join("../../README.md")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn commands_that_the_manual_names_exist() {
    let tools = [
        "manager",
        "client",
        "health",
        "heartbeat",
        "notification",
        "metrics",
        "retention-lock",
    ];
    let known: BTreeMap<&str, Vec<String>> = tools.map(|tool| (tool, commands_of(tool))).into();
    let mut seen = 0;
    for path in manual() {
        let text = fs::read_to_string(&path).unwrap();
        // Lines of blocks, and what stands between backquotes.
        let spans = text.split('`').skip(1).step_by(2);
        for command in text.lines().chain(spans) {
            let command = command.trim_start_matches("$ ").trim_start_matches("sudo ");
            let words: Vec<&str> = command.split_whitespace().collect();
            let (tool, words) = match words.as_slice() {
                ["proxmox-backup-manager", words @ ..] => ("manager", words),
                ["proxmox-backup-client", words @ ..] => ("client", words),
                ["backstop", tool, words @ ..] => (*tool, words),
                _ => continue,
            };
            let Some(known) = known.get(tool) else {
                continue;
            };
            // Text that begins with the name of a program, and options before the command.
            let is_name = |word: &&str| {
                word.len() > 2
                    && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
                    && !word.starts_with('-')
            };
            if !words.first().is_some_and(is_name) {
                continue;
            }
            let names = (1..=words.len()).map(|count| words[..count].join(" "));
            let mut names = names.filter(|name| known.contains(name));
            assert!(
                names.next().is_some(),
                "{}: there is no command '{command}'",
                path.display()
            );
            seen += 1;
        }
    }
    assert!(seen > 150, "{seen}");
}

#[test]
fn commands_and_options_in_the_text_of_a_page_stand_in_a_block_that_is_run() {
    // Of others as well: what is not run may be wrong.
    const PROGRAMS: &[&str] = &[
        "backstop",
        "proxmox-backup-manager",
        "proxmox-backup-client",
        "pxar",
        "cargo",
        "curl",
        "mount",
        "umount",
        "pvesm",
        "qm",
        "qmrestore",
        "qemu-img",
        "systemctl",
        "journalctl",
        "zpool",
        "ssh",
    ];
    let mut own = [commands_of("manager"), commands_of("client")].concat();
    own.retain(|name| name.contains(' '));
    assert!(
        own.iter().any(|name| name == "sync-job update")
            && own.iter().any(|name| name == "catalog shell")
    );
    let names = fs::read_dir(pages()).unwrap().map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_suffix(".md").unwrap().to_owned()
    });
    let names: Vec<String> = names.collect();
    assert!(names.len() > 5);
    let blocks: String = names
        .iter()
        .flat_map(|page| blocks(page))
        .map(|block| block.commands)
        .collect();
    let mut seen = 0;
    for page in &names {
        for span in inline(page) {
            let first = span.split(' ').next().unwrap();
            let is_own = |name: &String| {
                span.strip_prefix(name.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            };
            let is_command =
                PROGRAMS.contains(&first) || first.starts_with("--") || own.iter().any(is_own);
            assert!(
                !is_command || blocks.contains(&span),
                "{page}: nobody runs `{span}`"
            );
            seen += usize::from(is_command);
        }
    }
    assert!(seen > 5, "{seen}");
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
    world
        .variables
        .insert("FOLDER", world.source().display().to_string());
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
    world.run_until("backstop health --refresh", &(2..=2));
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
    // and those of a copy
    world.run("proxmox-backup-manager sync-job run offsite\nproxmox-backup-manager verify second");
    corrupt_a_chunk(&world.root.path().join("second"));
    let again = "proxmox-backup-manager verify second --ignore-verified false";
    world.run_until(again, &(255..=255));
    world.page("failed-verification", "second");
    world.run(again);

    world.variables.insert("TIME", world.time_of("vm/100"));
    world
        .variables
        .insert("DATASTORE", world.tank().display().to_string());
    let said = world.page("restore-vm", "");
    assert!(said.contains("memory: 2048"), "{said}");
    world.page_until("restore-vm", "rescue", "Backstop listens at");
    let work = world.root.path().join("work");
    let disk = fs::read(world.root.path().join("disk")).unwrap();
    assert!(fs::read(work.join("disk0.raw")).unwrap() == disk);
    let time = world.time_of("vm/100");
    world.variables.insert("MACHINE_TIME", time);
    world.variables.insert("TIME", world.time_of("host/web"));
    world.page("restore-files", "");
    for restored in ["restored-hosts", "selected-hosts"] {
        assert!(
            work.join(restored).join("sub/hosts").is_file(),
            "{restored}"
        );
        assert!(!work.join(restored).join("other").exists(), "{restored}");
    }
    let is_device =
        |path: &str| fs::metadata(path).is_ok_and(|found| found.file_type().is_char_device());
    if !testbed::is_root() || !is_device("/dev/fuse") {
        println!("skipped: mounting needs root and /dev/fuse");
        return;
    }
    let said = world.page("restore-files", "mount");
    assert!(said.contains("other") && said.contains("sub"), "{said}");
    if !is_device("/dev/loop-control") {
        println!("skipped: mapping needs root, /dev/fuse and /dev/loop-control");
        return;
    }
    let said = world.page("restore-files", "map");
    assert!(said.contains("/dev/loop"), "{said}");
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
fn what_the_page_of_metrics_says_of_a_token_is_so() {
    if installed("curl").is_none() {
        return;
    }
    let mut world = World::new();
    let said = world.page("../metrics", "");
    let (_, secret) = said.split_once("\"value\"").unwrap();
    let secret = secret.split('"').nth(1).unwrap().to_owned();
    world.variables.insert("SECRET", secret);
    let certificate = world.server.root.join("etc/proxmox-backup/proxy.pem");
    fs::copy(certificate, world.root.path().join("work/proxy.pem")).unwrap();
    world.run("backstop metrics loopback off");
    let said = world.page("../metrics", "scrape");
    assert!(said.contains("backstop_build_info"), "{said}");
}

#[test]
fn what_is_said_of_jobs_certificates_and_keys_is_so() {
    let mut world = World::new();
    world.with_files();
    world.with_jobs();
    // a job fails, for the password at its remote is another
    world.run("proxmox-backup-manager remote update pbs2 --password other");
    world.run_until("proxmox-backup-manager sync-job run offsite", &(255..=255));
    world.run_until("backstop health --refresh", &(2..=2));
    let listed = world.run("proxmox-backup-manager task list");
    let (_, upid) = listed.split_once("task log '").unwrap();
    let upid = upid.split('\'').next().unwrap().to_owned();
    world.variables.insert("UPID", upid);
    let said = world.page("failed-jobs", "failed");
    for word in [
        "job-failed",
        "permission check failed",
        "offsite",
        "daily",
        "weekly",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let password = world.server.password.clone();
    world.run(&format!(
        "proxmox-backup-manager remote update pbs2 --password '{password}'"
    ));
    world.page("failed-jobs", "");
    let copied = world.run("proxmox-backup-client snapshot list --ns offsite --repository \"${PBS_REPOSITORY%:*}:second\"");
    assert!(copied.contains("host/web"), "{copied}");
    world.page("certificate-change", "");
    world
        .variables
        .insert("FINGERPRINT", world.server.fingerprint.clone());
    world.page("certificate-change", "renewed");
    world.page("certificate-change", "authority");

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
