//! `bench sync`: what a pull and a push get out of a line with a delay and a bandwidth, and how long each takes to see that nothing
//! is new.
//!
//! The line is a proxy in this process, so that the bound is known: its bandwidth. The proxy does not imitate the slow start
//! of TCP, and it shares the processors with both servers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use backstop_format::manifest::{FileEntry, Manifest};
use backstop_format::{CryptMode, Digest, blob::DataBlob};
use backstop_types::BackupTime;
use serde_json::{Value, json};
use testbed::api::Api;
use testbed::link::{Link, LinkSpec};
use testbed::random::Random;
use testbed::server::{ServerProcess, succeeded};

use crate::measure::Process;
use crate::options::Options;

/// 1 Gbit/s in bytes.
const RATE: u64 = 125_000_000;
/// Round trips, in milliseconds.
const ROUND_TRIPS: [u64; 3] = [0, 20, 100];
/// Snapshots of each group of the run in which nothing is new.
const SNAPSHOTS: i64 = 5;
/// Pause between two looks at a task.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs the benchmark. Arguments: `--mib N` of incompressible data (default 1024) in `--archives N` groups (default 4),
/// `--groups N` (default 1000), `--only pull|push`, `--dir DIR` for the data (default: in memory).
///
/// # Errors
///
/// When the servers cannot be started or a sync fails.
pub fn run(binary: &Path, arguments: &[String]) -> Result<()> {
    let options = Options::new(arguments);
    let mib: usize = options.value("--mib")?.unwrap_or(1024);
    let archives: usize = options.value("--archives")?.unwrap_or(4).max(1);
    let groups: usize = options.value("--groups")?.unwrap_or(1000);
    let dir = options.scratch(&[PathBuf::from("/dev/shm"), std::env::temp_dir()])?;
    let only: Option<String> = options.value("--only")?;
    let mut directions = vec![Direction::Pull, Direction::Push];
    directions.retain(|direction| only.as_deref().is_none_or(|only| only == direction.word()));
    ensure!(!directions.is_empty(), "--only takes pull or push");
    let pair = Pair::start(binary, dir.path())?;
    for direction in &directions {
        pair.throughput(*direction, mib, archives)?;
    }
    pair.build(groups)?;
    for direction in directions {
        pair.nothing_new(direction, groups)?;
    }
    Ok(())
}

/// Where the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// To the server that runs the sync.
    Pull,
    /// From it.
    Push,
}

impl Direction {
    fn word(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
        }
    }
}

/// The server that runs the syncs, and the other one.
struct Pair {
    here: ServerProcess,
    there: ServerProcess,
    api: Api,
    dir: PathBuf,
}

/// How a sync went.
struct Run {
    time: Duration,
    /// Peak memory of the server that runs it and of the other one, bytes.
    memory: [u64; 2],
    /// Bytes that the line carried in the direction of the data, and in the other one.
    carried: [u64; 2],
}

impl Pair {
    fn start(binary: &Path, dir: &Path) -> Result<Self> {
        let here = ServerProcess::with_datastore(binary, &dir.join("here"))?;
        let there = ServerProcess::with_datastore(binary, &dir.join("there"))?;
        let api = Api::connect(&here)?;
        let remote = json!({
            "name": "there", "host": "127.0.0.1", "port": there.address.port(), "auth-id": "admin@pbs",
            "password": there.password, "fingerprint": there.fingerprint,
        });
        api.post("config/remote", remote)?;
        Ok(Self {
            here,
            there,
            api,
            dir: dir.to_owned(),
        })
    }

    /// The server that data of this direction comes from, and the one that it goes to.
    fn sides(&self, direction: Direction) -> (&ServerProcess, &ServerProcess) {
        match direction {
            Direction::Pull => (&self.there, &self.here),
            Direction::Push => (&self.here, &self.there),
        }
    }

    /// Leads the remote over a line.
    fn line(&self, spec: LinkSpec) -> Result<Link> {
        let link = Link::start(self.there.address, spec)?;
        let port = json!({"port": link.address().port()});
        self.api.put("config/remote/there", port)?;
        Ok(link)
    }

    /// Starts a task, and waits for its end.
    fn task(&self, direction: Direction, link: &Link, path: &str, words: Value) -> Result<Run> {
        let servers = [Process(self.here.pid()), Process(self.there.pid())];
        servers.iter().for_each(|server| server.reset_peak());
        let counts = || match direction {
            Direction::Pull => [link.carried(), link.sent()],
            Direction::Push => [link.sent(), link.carried()],
        };
        let before = counts();
        let start = Instant::now();
        let upid = self.api.post(path, words)?;
        let upid = upid.as_str().context("no task id")?;
        let status = format!("nodes/localhost/tasks/{upid}/status");
        let end = loop {
            let found = self.api.get(&status)?;
            if found["status"] == "stopped" {
                break found["exitstatus"].clone();
            }
            std::thread::sleep(PAUSE);
        };
        let time = start.elapsed();
        ensure!(end == "OK", "the {} ended with {end}", direction.word());
        let after = counts();
        Ok(Run {
            time,
            memory: servers.map(Process::peak_memory),
            carried: [0, 1].map(|way| after[way] - before[way]),
        })
    }

    fn throughput(&self, direction: Direction, mib: usize, archives: usize) -> Result<()> {
        let (source, target) = self.sides(direction);
        let data_path = add_store(source, "data")?;
        let image = self.dir.join("image");
        for number in 0..archives {
            let data = Random::new(number as u64 + 1).bytes((mib << 20) / archives);
            fs::write(&image, data)?;
            let spec = format!("disk.img:{}", image.display());
            let id = format!("m{number}");
            let mut client = source.command("client", "data");
            client.args(["backup", &spec, "--backup-id", &id]);
            succeeded(&client.output()?)?;
        }
        fs::remove_file(&image)?;
        println!(
            "\n{}: {mib} MiB of incompressible data in {archives} groups, of one snapshot each",
            direction.word()
        );
        println!(
            "{:>14}{:>14}{:>12}{:>12}{:>12}{:>12}{:>12}",
            "round trip ms", "cap MB/s", "seconds", "MB/s", "of cap", "here MiB", "there MiB"
        );
        let lines = ROUND_TRIPS.map(|trip| (trip, Some(RATE)));
        for (number, (trip, rate)) in [(0, None)].into_iter().chain(lines).enumerate() {
            let store = format!("copy{number}");
            let path = add_store(target, &store)?;
            let round_trip = Duration::from_millis(trip);
            let link = self.line(LinkSpec { round_trip, rate })?;
            let words = match direction {
                Direction::Pull => {
                    json!({"store": store, "remote": "there", "remote-store": "data"})
                }
                Direction::Push => {
                    json!({"store": "data", "remote": "there", "remote-store": store})
                }
            };
            let run = self.task(direction, &link, direction.word(), words)?;
            let [carried, _] = run.carried;
            ensure!(carried > (mib as u64) << 20, "the line was not used");
            let reached = carried as f64 / run.time.as_secs_f64();
            let of_cap = rate.map(|rate| format!("{:.0} %", 100.0 * reached / rate as f64));
            let mebibytes = |bytes: u64| bytes >> 20;
            println!(
                "{trip:>14}{:>14}{:>12.2}{:>12.0}{:>12}{:>12}{:>12}",
                rate.map_or("none".to_owned(), |rate| (rate / 1_000_000).to_string()),
                run.time.as_secs_f64(),
                reached / 1e6,
                of_cap.unwrap_or_default(),
                mebibytes(run.memory[0]),
                mebibytes(run.memory[1]),
            );
            // Memory for the next one.
            target.ok("manager", &["datastore", "remove", &store])?;
            fs::remove_dir_all(path)?;
        }
        source.ok("manager", &["datastore", "remove", "data"])?;
        fs::remove_dir_all(data_path)?;
        Ok(())
    }

    /// Groups that both servers have.
    fn build(&self, groups: usize) -> Result<()> {
        let copy = add_store(&self.here, "same")?;
        for store in [self.dir.join("there/datastore/store1"), copy] {
            fs::create_dir_all(store.join("ns/many"))?;
            build(&store.join("ns/many"), groups)?;
        }
        Ok(())
    }

    fn nothing_new(&self, direction: Direction, groups: usize) -> Result<()> {
        let word = direction.word();
        let id = format!("same-{word}");
        let job = json!({
            "id": id, "store": "same", "remote": "there", "remote-store": "store1", "remote-ns": "many", "ns": "many",
            "owner": "admin@pbs", "sync-direction": word,
        });
        self.api.post("config/sync", job)?;
        println!(
            "\n{word}: {groups} groups of {SNAPSHOTS} snapshots, which the target has (20 ms round trip, 1 Gbit/s)"
        );
        let link = self.line(LinkSpec {
            round_trip: Duration::from_millis(20),
            rate: Some(RATE),
        })?;
        for what in ["the first time", "nothing changed since"] {
            let path = format!("admin/sync/{id}/run");
            let run = self.task(direction, &link, &path, json!({}))?;
            println!(
                "{what:>28}: {:.2} s, {} KiB to the target, {} KiB from it; {} and {} MiB",
                run.time.as_secs_f64(),
                run.carried[0] >> 10,
                run.carried[1] >> 10,
                run.memory[0] >> 20,
                run.memory[1] >> 20
            );
        }
        Ok(())
    }
}

/// A datastore of a server.
fn add_store(server: &ServerProcess, name: &str) -> Result<PathBuf> {
    let path = server.root.join("datastore").join(name);
    let path_text = path.to_str().context("a folder with a plain name")?;
    server.ok("manager", &["datastore", "create", name, path_text])?;
    Ok(path)
}

/// Groups with snapshots of one small blob each.
fn build(namespace: &Path, groups: usize) -> Result<()> {
    for group in 0..groups {
        let id = (100 + group).to_string();
        let dir = namespace.join("vm").join(&id);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("owner"), "admin@pbs\n")?;
        for number in 0..SNAPSHOTS {
            let time = BackupTime::new(1_700_000_000 + number * 86_400)?;
            let path = dir.join(time.to_string());
            fs::create_dir(&path)?;
            let blob = DataBlob::encode(format!("{id} {number}").as_bytes(), None, true)?;
            let filename = "qemu-server.conf.blob".to_owned();
            fs::write(path.join(&filename), blob.raw())?;
            let mut manifest = Manifest::new("vm", &id, time.epoch());
            manifest.add_file(FileEntry {
                filename,
                crypt_mode: CryptMode::None,
                size: blob.raw().len() as u64,
                csum: Digest::of(blob.raw()),
            })?;
            fs::write(path.join("index.json.blob"), manifest.to_blob()?.raw())?;
        }
    }
    Ok(())
}
