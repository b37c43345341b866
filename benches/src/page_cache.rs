//! `bench page-cache`: how much of the page cache the server leaves filled after a backup, a verification and a garbage
//! collection.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use testbed::server::{ServerProcess, succeeded};

use crate::options::Options;

/// File system type of memory file systems.
const TMPFS: i64 = 0x0102_1994;
/// Pauses of half a second in which the figure may still fall.
const PAUSES: usize = 40;

/// Where the figure comes from.
enum Gauge {
    /// The server's own memory cgroup, version 1 or 2.
    Cgroup { dir: PathBuf, key: &'static str },
    /// The page cache of the whole machine, above what it was.
    Machine { before: u64 },
}

impl Gauge {
    /// Puts a process into a memory cgroup of its own, if that can be made.
    fn of(pid: u32) -> Self {
        let name = format!("backstop-bench-{}", std::process::id());
        for (parent, key) in [
            ("/sys/fs/cgroup/memory", "cache "),
            ("/sys/fs/cgroup", "file "),
        ] {
            let dir = Path::new(parent).join(&name);
            if Path::new(parent).is_dir()
                && fs::create_dir(&dir).is_ok()
                && dir.join("memory.stat").exists()
                && fs::write(dir.join("cgroup.procs"), pid.to_string()).is_ok()
            {
                return Gauge::Cgroup { dir, key };
            }
            let _ = fs::remove_dir(&dir);
        }
        Gauge::Machine {
            before: machine_cache(),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Gauge::Cgroup { .. } => "the server's memory cgroup",
            Gauge::Machine { .. } => "the whole machine (no cgroup could be made), above the start",
        }
    }

    fn read(&self) -> Result<u64> {
        match self {
            Gauge::Cgroup { dir, key } => {
                let text = fs::read_to_string(dir.join("memory.stat"))?;
                let line = text.lines().find_map(|line| line.strip_prefix(key));
                Ok(line.context("no figure in memory.stat")?.trim().parse()?)
            }
            Gauge::Machine { before } => Ok(machine_cache().saturating_sub(*before)),
        }
    }

    /// The figure when it no longer falls.
    fn settled(&self) -> Result<u64> {
        let mut last = self.read()?;
        for _ in 0..PAUSES {
            std::thread::sleep(Duration::from_millis(500));
            let now = self.read()?;
            if now >= last {
                return Ok(now);
            }
            last = now;
        }
        Ok(last)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        if let Gauge::Cgroup { dir, .. } = self {
            // Empty only when the server has ended; the kernel refuses otherwise.
            let _ = fs::remove_dir(dir);
        }
    }
}

fn machine_cache() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Cached:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// Runs the benchmark. Arguments: `--mib N` (default 2048), `--dir DIR` on a real disk (default: that of temporary files).
///
/// # Errors
///
/// When a step fails, or the folder lies in memory.
pub fn run(binary: &Path, arguments: &[String]) -> Result<()> {
    let options = Options::new(arguments);
    let mebibytes: u64 = options.value("--mib")?.unwrap_or(2048);
    let dir = options.scratch(&[std::env::temp_dir()])?;
    if rustix::fs::statfs(dir.path())?.f_type as i64 == TMPFS {
        bail!(
            "{} lies in memory; name a folder on a disk with --dir",
            dir.path().display()
        );
    }
    let image = dir.path().join("disk");
    let mut random = fs::File::open("/dev/urandom")?.take(mebibytes << 20);
    std::io::copy(&mut random, &mut fs::File::create(&image)?)?;
    rustix::fs::sync();

    let server = ServerProcess::with_datastore(binary, &dir.path().join("root"))?;
    let gauge = Gauge::of(server.pid());
    println!(
        "page cache of {}, {mebibytes} MiB of random data",
        gauge.name()
    );
    let show = |step: &str| -> Result<()> {
        let now = gauge.read()? as f64 / f64::from(1 << 20);
        let left = gauge.settled()? as f64 / f64::from(1 << 20);
        println!("{step:24}{now:>8.0} MiB at once, {left:>8.0} MiB left");
        Ok(())
    };
    show("before")?;
    let mut spec = OsString::from("drive.img:");
    spec.push(&image);
    let output = server
        .command("client", "store1")
        .arg("backup")
        .arg(spec)
        .output()?;
    succeeded(&output)?;
    show("after the backup")?;
    server.ok("manager", &["verify", "store1"])?;
    show("after verification")?;
    server.ok("manager", &["garbage-collection", "start", "store1"])?;
    show("after GC")?;
    drop(server);
    Ok(())
}
