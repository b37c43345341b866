//! `bench ping`: how fast the API answers while sixteen backups start at once.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use testbed::ping::{Pinger, percentile};
use testbed::server::ServerProcess;
use testbed::tree;

/// Backups that start at once.
const BACKUPS: u64 = 16;

/// Runs the benchmark.
///
/// # Errors
///
/// When a backup or a ping fails.
pub fn run(binary: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = ServerProcess::with_datastore(binary, &dir.path().join("root"))?;
    for number in 0..BACKUPS {
        tree::mixed(
            &dir.path().join(format!("source-{number}")),
            number,
            400,
            64,
        )?;
    }
    let pinger = Pinger::connect(&server)?;
    let start = Instant::now();
    let idle = pinger.ping_while(|| start.elapsed() < Duration::from_secs(3))?;

    let mut children = Vec::new();
    for number in 0..BACKUPS {
        let mut spec = OsString::from("root.pxar:");
        spec.push(dir.path().join(format!("source-{number}")));
        let mut command = server.command("client", "store1");
        command
            .arg("backup")
            .arg(spec)
            .args(["--backup-id", &format!("id-{number}")]);
        children.push(
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?,
        );
    }
    let start = Instant::now();
    let running = |child: &mut Child| matches!(child.try_wait(), Ok(None));
    let busy = pinger.ping_while(|| children.iter_mut().any(running))?;
    let wall = start.elapsed();
    for mut child in children {
        let status = child.wait()?;
        if !status.success() {
            bail!("a backup failed: {status}");
        }
    }
    println!(
        "{BACKUPS} backups of 64 MiB each took {:.1} s",
        wall.as_secs_f64()
    );
    println!(
        "{:24}{:>10}{:>12}{:>12}{:>12}",
        "GET /ping, ms", "count", "median", "99th", "longest"
    );
    for (name, times) in [("idle", &idle), ("during the backups", &busy)] {
        let ms = |percent| percentile(times, percent).as_secs_f64() * 1000.0;
        println!(
            "{name:24}{:>10}{:>12.2}{:>12.2}{:>12.2}",
            times.len(),
            ms(50.0),
            ms(99.0),
            ms(100.0)
        );
    }
    Ok(())
}
