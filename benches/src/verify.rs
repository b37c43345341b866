//! `bench verify`: verification of a datastore, beside reading and hashing alone and, where it can be had, beside the stock
//! server.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use backstop_format::Digest;
use backstop_format::blob::{DataBlob, MAX_CHUNK_SIZE};
use testbed::server::{ServerProcess, succeeded};
use testbed::stock::StockServer;
use testbed::tree;

use crate::measure::Process;
use crate::options::Options;

/// A server and how to talk to it.
struct Side<'a> {
    name: &'static str,
    store: PathBuf,
    client: Box<dyn Fn() -> Command + 'a>,
    manager: Box<dyn Fn() -> Command + 'a>,
    processes: Vec<Process>,
}

/// Runs the benchmark. Arguments: `--mib N` (default 1024), `--dir DIR` for the data (default: in memory).
///
/// # Errors
///
/// When a step fails.
pub fn run(binary: &Path, arguments: &[String]) -> Result<()> {
    let options = Options::new(arguments);
    let mebibytes: usize = options.value("--mib")?.unwrap_or(1024);
    let dir = options.scratch(&[PathBuf::from("/dev/shm"), std::env::temp_dir()])?;
    fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    let image = dir.path().join("disk");
    tree::image(&image, 1, mebibytes)?;
    let folder = dir.path().join("tree");
    tree::mixed(&folder, 2, mebibytes * 8, mebibytes)?;

    let ours = ServerProcess::with_datastore(binary, &dir.path().join("root"))?;
    let stock = StockServer::start(&dir.path().join("stock/store1"))?;
    let mut sides = vec![Side {
        name: "backstop",
        store: dir.path().join("root/datastore/store1"),
        client: Box::new(|| ours.command("client", "store1")),
        manager: Box::new(|| ours.command("manager", "store1")),
        processes: vec![Process(ours.pid())],
    }];
    if let Some(stock) = &stock {
        sides.push(Side {
            name: "stock",
            store: dir.path().join("stock/store1"),
            client: Box::new(|| stock.stock_command("proxmox-backup-client")),
            manager: Box::new(|| stock.stock_command("proxmox-backup-manager")),
            processes: Process(stock.pid()).descendants(),
        });
    }
    println!(
        "{:12}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>12}",
        "", "read MiB", "data MiB", "wall s", "MiB/s", "CPU s", "peak MiB", "% of bound"
    );
    let mut rates = Vec::new();
    for side in &sides {
        for (id, spec) in [
            ("image", spec("drive.img", &image)),
            ("tree", spec("root.pxar", &folder)),
        ] {
            for age in [1_000_000, 0] {
                backup(side, id, &spec, age)?;
            }
        }
        let (bytes, bound) = bound(&side.store)?;
        let bound = bytes as f64 / bound.as_secs_f64();
        let processes = || side.processes.iter();
        processes().for_each(|process| process.reset_peak());
        let cpu = || processes().map(|process| process.cpu()).sum::<Duration>();
        let before = cpu();
        let output = (side.manager)().args(["verify", "store1"]).output()?;
        let log = succeeded(&output)?;
        let (read, decoded, seconds) = figures(&log).context("no figures in the log")?;
        let rate = decoded / seconds;
        println!(
            "{:12}{read:>10.0}{decoded:>10.0}{seconds:>10.2}{rate:>10.0}{:>10.2}{:>10.0}{:>12.0}",
            side.name,
            (cpu() - before).as_secs_f64(),
            processes()
                .map(|process| process.peak_memory())
                .sum::<u64>() as f64
                / f64::from(1 << 20),
            100.0 * rate * f64::from(1 << 20) / bound
        );
        rates.push(rate);
    }
    if let [ours, stock] = rates[..] {
        println!("{:.2} x stock's speed", ours / stock);
    }
    println!(
        "wall s: sum over the indexes, as the task's log says; bound: reading, decoding and hashing on all cores"
    );
    Ok(())
}

fn spec(archive: &str, path: &Path) -> OsString {
    let mut spec = OsString::from(format!("{archive}:"));
    spec.push(path);
    spec
}

fn backup(side: &Side, id: &str, spec: &OsString, age: u64) -> Result<()> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_secs();
    let output = (side.client)()
        .arg("backup")
        .arg(spec)
        .args(["--backup-id", id, "--backup-time", &(now - age).to_string()])
        .output()?;
    succeeded(&output).map(drop)
}

/// Sums of the lines `verified READ/DECODED MiB in T seconds`.
fn figures(log: &str) -> Option<(f64, f64, f64)> {
    let (mut read, mut decoded, mut seconds) = (0.0, 0.0, 0.0);
    for line in log.lines() {
        let Some((_, rest)) = line.split_once("  verified ") else {
            continue;
        };
        let (sizes, rest) = rest.split_once(" MiB in ")?;
        let (part, whole) = sizes.split_once('/')?;
        read += part.parse::<f64>().ok()?;
        decoded += whole.parse::<f64>().ok()?;
        seconds += rest.split(' ').next()?.parse::<f64>().ok()?;
    }
    (seconds > 0.0).then_some((read, decoded, seconds))
}

/// Reads, decodes and hashes every chunk, on all cores; nothing stays in the page cache. Returns the bytes that the chunks hold.
fn bound(store: &Path) -> Result<(usize, Duration)> {
    let mut files = Vec::new();
    for dir in fs::read_dir(store.join(".chunks"))? {
        for file in fs::read_dir(dir?.path())? {
            files.push(file?.path());
        }
    }
    let (next, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..std::thread::available_parallelism()?.get())
            .map(|_| {
                scope.spawn(|| {
                    while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let plain =
                            DataBlob::load(fs::read(path)?)?.decode(None, MAX_CHUNK_SIZE)?;
                        std::hint::black_box(Digest::of(&plain));
                        bytes.fetch_add(plain.len(), Ordering::Relaxed);
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a thread failed"))
        })
    })?;
    let time = start.elapsed();
    for path in files {
        let _ = rustix::fs::fadvise(fs::File::open(path)?, 0, None, rustix::fs::Advice::DontNeed);
    }
    Ok((bytes.into_inner(), time))
}
