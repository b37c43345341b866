//! `bench backup`: first backup, unchanged backup and restore, beside what the hardware allows and, where it
//! can be had, beside the stock programs.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use testbed::server::ServerProcess;
use testbed::stock::StockServer;
use testbed::tree;

use crate::bound::Bound;
use crate::measure::{Cost, Process, run as measure};

/// Sizes of the data.
struct Sizes {
    /// Tree and image, MiB each.
    mebibytes: usize,
    /// Files of the tree for metadata mode.
    files: usize,
}

/// A server with its clients: ours or stock.
trait Side {
    fn name(&self) -> &'static str;
    /// The client, prepared to reach the datastore.
    fn client(&self) -> Command;
    /// The processes of the server.
    fn processes(&self) -> Vec<Process>;
}

impl Side for ServerProcess {
    fn name(&self) -> &'static str {
        "backstop"
    }
    fn client(&self) -> Command {
        self.command("client", "store1")
    }
    fn processes(&self) -> Vec<Process> {
        vec![Process(self.pid())]
    }
}

impl Side for StockServer {
    fn name(&self) -> &'static str {
        "stock"
    }
    fn client(&self) -> Command {
        self.stock_command("proxmox-backup-client")
    }
    fn processes(&self) -> Vec<Process> {
        Process(self.pid()).descendants()
    }
}

/// What one step cost on one side.
struct Row {
    step: String,
    side: &'static str,
    bytes: u64,
    client: Cost,
    server_cpu: Duration,
    server_memory: u64,
}

/// Runs the benchmark. Arguments: `--mib N` (default 1024) and `--files N` (default 100000).
///
/// # Errors
///
/// When a step fails.
pub fn run(binary: &Path, arguments: &[String]) -> Result<()> {
    let number = |name: &str, default: usize| -> Result<usize> {
        match arguments.iter().position(|word| word == name) {
            Some(at) => {
                let value = arguments
                    .get(at + 1)
                    .with_context(|| format!("{name} needs a number"))?;
                value.parse().with_context(|| format!("{name} {value}"))
            }
            None => Ok(default),
        }
    };
    let sizes = Sizes {
        mebibytes: number("--mib", 1024)?,
        files: number("--files", 100_000)?,
    };
    let dir = tempfile::tempdir()?;
    fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;

    println!(
        "making the data: a tree and an image of {} MiB each, a tree of {} files",
        sizes.mebibytes, sizes.files
    );
    let tree_path = dir.path().join("tree");
    tree::mixed(&tree_path, 1, sizes.mebibytes * 8, sizes.mebibytes)?;
    let image_path = dir.path().join("disk");
    tree::image(&image_path, 2, sizes.mebibytes)?;
    let many_path = dir.path().join("many");
    tree::mixed(&many_path, 3, sizes.files, sizes.files / 512)?;

    let tree_bound = Bound::in_own_process(&tree_path, true)?;
    let image_bound = Bound::in_own_process(&image_path, false)?;
    println!(
        "\nin memory, MiB/s{:>14}{:>12}{:>12}{:>12}{:>12}{:>12}",
        "1 core", "all cores", "both ends", "unchanged", "restore", "written"
    );
    for (name, bound) in [("tree", tree_bound), ("image", image_bound)] {
        println!(
            "{name:16}{:>14.0}{:>12.0}{:>12.0}{:>12.0}{:>12.0}{:>12.0}",
            mib(bound.single_backup),
            mib(bound.backup),
            mib(bound.both_ends),
            mib(bound.unchanged),
            mib(bound.restore),
            mib(bound.written)
        );
    }
    let start = Instant::now();
    let entries = walk(&many_path)?;
    let walking = start.elapsed();
    let start = Instant::now();
    walk_reading(&many_path)?;
    let reading = start.elapsed();

    let ours = ServerProcess::with_datastore(binary, &dir.path().join("root"))?;
    let idle = Process(ours.pid()).memory();
    let stock = StockServer::start(&dir.path().join("stock/store1"))?;
    let mut sides: Vec<&dyn Side> = vec![&ours];
    if let Some(stock) = &stock {
        sides.push(stock);
    }

    let mut rows = Vec::new();
    for side in &sides {
        for (kind, path, archive) in [
            ("tree", &tree_path, "root.pxar"),
            ("image", &image_path, "drive.img"),
        ] {
            let bytes = size_of(path)?;
            let spec = spec(archive, path);
            for step in ["first backup", "unchanged"] {
                rows.push(backup(
                    *side,
                    &format!("{kind}, {step}"),
                    bytes,
                    kind,
                    &spec,
                    "legacy",
                )?);
            }
            let target = dir.path().join(format!("restored-{kind}"));
            let mut command = side.client();
            command
                .args(["restore", &format!("host/{kind}"), archive])
                .arg(&target);
            rows.push(step(*side, &format!("{kind}, restore"), bytes, command)?);
            let _ = fs::remove_dir_all(&target);
            let _ = fs::remove_file(&target);
        }
        let spec = spec("root.pxar", &many_path);
        let bytes = size_of(&many_path)?;
        for name in ["metadata, first", "metadata, unchanged"] {
            rows.push(backup(*side, name, bytes, "many", &spec, "metadata")?);
        }
    }
    print_rows(&rows);

    println!("\nratios");
    let bound_of = |step: &str| {
        let bound = if step.starts_with("tree") {
            tree_bound
        } else {
            image_bound
        };
        match step.rsplit(", ").next() {
            Some("first backup") => (bound.backup, Some((bound.both_ends, "both ends"))),
            Some("unchanged") => (bound.unchanged, None),
            _ => (bound.restore, Some((bound.written, "what is written"))),
        }
    };
    for row in rows.iter().filter(|row| row.side == "backstop") {
        let speed = row.bytes as f64 / row.client.wall.as_secs_f64();
        let beside = if row.step.starts_with("metadata") {
            format!(
                "{:5.2} x walking the {entries} entries, {:.2} x reading their metadata",
                row.client.wall.as_secs_f64() / walking.as_secs_f64(),
                row.client.wall.as_secs_f64() / reading.as_secs_f64()
            )
        } else {
            let (bound, further) = bound_of(&row.step);
            let further = further.map(|(bound, name)| {
                format!(", {:.0} % of that for {name}", 100.0 * speed / bound)
            });
            format!(
                "{:4.0} % of the bound{}",
                100.0 * speed / bound,
                further.unwrap_or_default()
            )
        };
        let stock = rows
            .iter()
            .find(|other| other.side == "stock" && other.step == row.step)
            .map(|other| {
                format!(
                    ", {:.2} x stock's speed at {:.2} x its CPU time",
                    other.client.wall.as_secs_f64() / row.client.wall.as_secs_f64(),
                    total_cpu(row) / total_cpu(other)
                )
            });
        println!("  {:22} {beside}{}", row.step, stock.unwrap_or_default());
    }
    println!("  idle server            {:.0} MiB", mib(idle as f64));
    println!(
        "  server after all this  {:.0} MiB",
        mib(Process(ours.pid()).memory() as f64)
    );
    Ok(())
}

fn total_cpu(row: &Row) -> f64 {
    (row.client.cpu + row.server_cpu).as_secs_f64()
}

fn spec(archive: &str, path: &Path) -> OsString {
    let mut spec = OsString::from(format!("{archive}:"));
    spec.push(path);
    spec
}

fn backup(
    side: &dyn Side,
    name: &str,
    bytes: u64,
    id: &str,
    spec: &OsStr,
    mode: &str,
) -> Result<Row> {
    // snapshots of a group differ by at least a second
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_secs();
    let time = if name.ends_with("unchanged") {
        now
    } else {
        now - 1_000_000
    };
    let mut command = side.client();
    command
        .arg("backup")
        .arg(spec)
        .args(["--backup-id", id, "--backup-time", &time.to_string()]);
    command.args(["--change-detection-mode", mode]);
    step(side, name, bytes, command)
}

fn step(side: &dyn Side, name: &str, bytes: u64, mut command: Command) -> Result<Row> {
    let processes = side.processes();
    let cpu = || {
        processes
            .iter()
            .map(|process| process.cpu())
            .sum::<Duration>()
    };
    processes.iter().for_each(|process| process.reset_peak());
    let before = cpu();
    let client = measure(&mut command)?;
    Ok(Row {
        step: name.into(),
        side: side.name(),
        bytes,
        client,
        server_cpu: cpu() - before,
        server_memory: processes.iter().map(|process| process.peak_memory()).sum(),
    })
}

fn print_rows(rows: &[Row]) {
    println!(
        "\n{:22}{:10}{:>9}{:>9}{:>12}{:>12}{:>12}{:>12}",
        "", "", "wall s", "MiB/s", "client CPU", "client MiB", "server CPU", "server MiB"
    );
    for row in rows {
        println!(
            "{:22}{:10}{:>9.2}{:>9.0}{:>12.2}{:>12.0}{:>12.2}{:>12.0}",
            row.step,
            row.side,
            row.client.wall.as_secs_f64(),
            mib(row.bytes as f64 / row.client.wall.as_secs_f64()),
            row.client.cpu.as_secs_f64(),
            mib(row.client.memory as f64),
            row.server_cpu.as_secs_f64(),
            mib(row.server_memory as f64)
        );
    }
}

fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

/// Bytes of content below a path.
fn size_of(path: &Path) -> Result<u64> {
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_dir() {
        return Ok(meta.len());
    }
    let mut sum = 0;
    for entry in fs::read_dir(path)? {
        sum += size_of(&entry?.path())?;
    }
    Ok(sum)
}

/// Looks at every entry below `path` as a backup must at the least: its name and its status.
fn walk(path: &Path) -> Result<u64> {
    let mut count = 1;
    let mut names: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.path());
    }
    names.sort();
    for name in names {
        count += if fs::symlink_metadata(&name)?.is_dir() {
            walk(&name)?
        } else {
            1
        };
    }
    Ok(count)
}

/// Reads all metadata that an archive holds of each entry below `path`, on one thread: status, flags and the names of
/// extended attributes.
fn walk_reading(path: &Path) -> Result<()> {
    let mut names: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.path());
    }
    names.sort();
    let mut buffer = vec![0; 64 << 10];
    for name in names {
        let file = fs::File::open(&name)?;
        let meta = file.metadata()?;
        // Not every file system has these.
        let _ = rustix::fs::ioctl_getflags(&file);
        let _ = rustix::fs::flistxattr(&file, &mut buffer[..]);
        if meta.is_dir() {
            walk_reading(&name)?;
        }
    }
    Ok(())
}
