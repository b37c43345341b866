//! `bench listing`: groups, snapshots and the checks of health of a datastore with very many of them, over REST, beside one pass over the
//! directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use backstop_format::manifest::{FileEntry, Manifest, VerifyResult, VerifyState};
use backstop_format::{CryptMode, Digest};
use backstop_types::BackupTime;
use serde_json::{Value, json};
use testbed::ping::Pinger;
use testbed::server::{ServerProcess, succeeded};

use crate::measure::Process;
use crate::options::Options;

/// Lists that are timed; the median is shown.
const RUNS: usize = 9;

/// Runs the benchmark. Arguments: `--groups N` (default 1000), `--snapshots N` of each (default 100), `--dir DIR` for the data
/// (default: in memory).
///
/// # Errors
///
/// When the data cannot be made or a list is wrong.
pub fn run(binary: &Path, arguments: &[String]) -> Result<()> {
    let options = Options::new(arguments);
    let groups: usize = options.value("--groups")?.unwrap_or(1000);
    let snapshots: usize = options.value("--snapshots")?.unwrap_or(100);
    let dir = options.scratch(&[PathBuf::from("/dev/shm"), std::env::temp_dir()])?;
    let server = ServerProcess::with_datastore(binary, &dir.path().join("root"))?;
    let store = dir.path().join("root/datastore/store1");
    build(&store, groups, snapshots)?;
    // What changed in the last seconds is never taken from memory.
    std::thread::sleep(Duration::from_secs(5));
    let idle = Process(server.pid()).memory();

    let pass = in_own_process(&store)?;
    println!(
        "one pass over the directory, reading every manifest, one thread: {:.0} ms",
        ms(pass)
    );
    println!(
        "{:12}{:>12}{:>12}{:>12}{:>12}",
        "", "items", "MiB", "first ms", "warm ms"
    );
    let client = Pinger::connect(&server)?;
    let of_store = |call: &str| format!("admin/datastore/store1/{call}");
    let (list, checks) = ("/data", "/data/checks");
    for (call, path, params, place, least) in [
        (
            "snapshots",
            of_store("snapshots"),
            json!({}),
            list,
            groups * snapshots,
        ),
        ("groups", of_store("groups"), json!({}), list, groups),
        // Everything is looked at anew for each answer.
        (
            "health",
            "backstop/health".to_owned(),
            json!({ "refresh": true }),
            checks,
            groups,
        ),
    ] {
        let (first, body) = client.fetch(&path, params.clone())?;
        let reply: Value = serde_json::from_slice(&body)?;
        let items = reply.pointer(place).and_then(Value::as_array);
        let items = items.context("no list")?.len();
        let is_whole = items == least || (call == "health" && items > least);
        anyhow::ensure!(is_whole, "{items} {call} instead of {least}");
        let mut times = Vec::new();
        for _ in 0..RUNS {
            times.push(client.fetch(&path, params.clone())?.0);
        }
        times.sort();
        let warm = times.get(RUNS / 2).copied().unwrap_or_default();
        println!(
            "{call:12}{items:>12}{:>12.1}{:>12.0}{:>12.0}",
            body.len() as f64 / f64::from(1 << 20),
            ms(first),
            ms(warm)
        );
    }
    let memory = Process(server.pid()).memory();
    println!(
        "server memory: {:.0} MiB before, {:.0} MiB with all summaries",
        idle as f64 / f64::from(1 << 20),
        memory as f64 / f64::from(1 << 20)
    );
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn build(store: &Path, groups: usize, snapshots: usize) -> Result<()> {
    for group in 0..groups {
        let id = (100 + group).to_string();
        let dir = store.join("vm").join(&id);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("owner"), "admin@pbs\n")?;
        for number in 0..snapshots {
            let time = BackupTime::new(1_600_000_000 + number as i64 * 86_400)?;
            let path = dir.join(time.to_string());
            fs::create_dir(&path)?;
            let mut manifest = Manifest::new("vm", &id, time.epoch());
            for filename in ["qemu-server.conf.blob", "drive-scsi0.img.fidx"] {
                fs::write(path.join(filename), "")?;
                manifest.add_file(FileEntry {
                    filename: filename.to_owned(),
                    crypt_mode: CryptMode::None,
                    size: 34_359_738_368,
                    csum: Digest::of(filename.as_bytes()),
                })?;
            }
            manifest.set_notes(format!("machine {id}"));
            manifest.set_verify_state(Some(&VerifyState {
                state: VerifyResult::Ok,
                upid: "UPID:pbs:00005C2A:00053F99:00000045:6B00B705:verificationjob:store1\\x3av-1:root@pam:"
                    .to_owned(),
            }));
            fs::write(path.join("index.json.blob"), manifest.to_blob()?.raw())?;
        }
    }
    Ok(())
}

/// In a process of its own, so that this one stays small.
fn in_own_process(store: &Path) -> Result<Duration> {
    let output = Command::new(std::env::current_exe()?)
        .arg("listing-pass")
        .arg(store)
        .output()?;
    Ok(Duration::from_secs_f64(succeeded(&output)?.trim().parse()?))
}

/// Lists every directory below `store` and reads every manifest; prints the seconds that this takes.
///
/// # Errors
///
/// When something cannot be read.
pub fn pass(store: &Path) -> Result<()> {
    let start = Instant::now();
    let mut bytes = 0;
    for group in fs::read_dir(store.join("vm"))? {
        for snapshot in fs::read_dir(group?.path())? {
            let snapshot = snapshot?;
            if snapshot.file_type()?.is_dir() {
                for file in fs::read_dir(snapshot.path())? {
                    bytes += file?.file_name().len();
                }
                bytes += fs::read(snapshot.path().join("index.json.blob"))?.len();
            }
        }
    }
    std::hint::black_box(bytes);
    println!("{}", start.elapsed().as_secs_f64());
    Ok(())
}
