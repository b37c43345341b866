//! `backstop demo`: a newcomer's first minute.
//!
//! Starts a throw-away server on loopback, backs a real directory up, shows deduplication and
//! encryption, restores, and compares byte for byte. It runs the program's own command lines, so what
//! it shows is what a user can type. It must never write outside its throw-away directory.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::server_process::{ServerProcess, private_directory, succeeded};
use crate::tree_compare::{Aspects, Comparison, compare};

/// The port that the stock server and ours use.
const DEFAULT_PORT: u16 = 8007;
/// How many ports after the default one are tried.
const PORTS_TRIED: u16 = 50;
/// Names in the top directory that are not backed up: build output and history are not the source.
const SKIPPED: &[&str] = &["target", ".git"];
/// The datastore that the demo creates.
const DATASTORE: &str = "demo";

const USAGE: &str = "\
usage: backstop demo [--once] [--path DIR]

  --once       end after the proof, with exit code 0 only when everything was restored as it was
  --path DIR   back DIR up (default: the project's own source tree, or the current directory)";

/// What the user asked for.
struct Options {
    once: bool,
    path: PathBuf,
}

/// What one backup did.
struct Step {
    name: &'static str,
    /// Bytes of the archives of the snapshot.
    size: u64,
    /// Bytes of chunks that were sent, before compression.
    sent: u64,
    /// What those chunks take in the datastore.
    stored: u64,
    time: Duration,
}

/// Runs the demo.
///
/// # Errors
///
/// When a step cannot be run at all; a restore that differs from its source is reported as a failure exit code.
pub fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let Some(options) = parse(arguments)? else {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    };
    let state = private_directory("backstop-demo-").context("creating a throw-away directory")?;
    let root = state.path().join("root");
    println!(
        "Backstop demo. Everything is below {} and is removed at the end.",
        state.path().display()
    );

    let address = free_address()?;
    if address.port() != DEFAULT_PORT {
        println!(
            "Port {DEFAULT_PORT} is taken on this machine, so the server listens on port {}.",
            address.port()
        );
    }
    let binary = std::env::current_exe().context("finding this program")?;
    let mut server = ServerProcess::start(&binary, &root, address)?;
    println!(
        "The server runs at https://{} with a new self-signed certificate.",
        server.address
    );

    let same = show(&server, &options.path, state.path())?;
    if !same {
        server.stop()?;
        return Ok(ExitCode::FAILURE);
    }
    if !options.once {
        stay_up(&server)?;
    }
    server.stop()?;
    Ok(ExitCode::SUCCESS)
}

/// Reads the command line. `None` asks for help.
fn parse(arguments: &[OsString]) -> Result<Option<Options>> {
    let mut options = Options {
        once: false,
        path: default_path()?,
    };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--once") => options.once = true,
            Some("--path") => {
                options.path = words.next().context("--path needs a directory")?.into()
            }
            Some("--help" | "-h") => return Ok(None),
            _ => bail!("demo does not know the argument {word:?}\n\n{USAGE}"),
        }
    }
    if !options.path.is_dir() {
        bail!(
            "cannot back up {}: it is not a directory",
            options.path.display()
        );
    }
    Ok(Some(options))
}

/// The project's source tree where it still exists, else the current directory.
fn default_path() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    match source.canonicalize() {
        Ok(path) if path.join("Cargo.toml").is_file() => Ok(path),
        _ => std::env::current_dir().context("finding the current directory"),
    }
}

/// The default port on loopback, or the first free one after it.
fn free_address() -> Result<SocketAddr> {
    for port in DEFAULT_PORT..DEFAULT_PORT + PORTS_TRIED {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!(
        "no free port between {DEFAULT_PORT} and {} on {}",
        DEFAULT_PORT + PORTS_TRIED - 1,
        Ipv4Addr::LOCALHOST
    )
}

/// Shows backup, list, deduplication, encryption and restore. Returns whether all was restored as it was.
fn show(server: &ServerProcess, source: &Path, state: &Path) -> Result<bool> {
    heading("A datastore");
    let datastore = state.join("datastore");
    tool(
        server,
        "manager",
        &[
            "datastore".as_ref(),
            "create".as_ref(),
            DATASTORE.as_ref(),
            datastore.as_os_str(),
        ],
    )?;

    let mut spec = OsString::from("source.pxar:");
    spec.push(source);
    let mut steps = Vec::new();
    heading(&format!("First backup of {}", source.display()));
    steps.push(backup(server, "first backup", "demo", &spec, &[])?);

    heading("The same directory again: only what changed is sent");
    steps.push(backup(server, "second backup", "demo", &spec, &[])?);

    heading("Encrypted: the server never sees the key");
    let key = state.join("key.json");
    tool(
        server,
        "client",
        &[
            "key".as_ref(),
            "create".as_ref(),
            "--kdf".as_ref(),
            "none".as_ref(),
            key.as_os_str(),
        ],
    )?;
    let keyfile = [OsStr::new("--keyfile"), key.as_os_str()];
    steps.push(backup(
        server,
        "encrypted",
        "demo-encrypted",
        &spec,
        &keyfile,
    )?);

    heading("What the datastore holds");
    tool(server, "client", &["snapshot".as_ref(), "list".as_ref()])?;

    heading("Restore, and compare with the source");
    let plain = restore(server, source, &state.join("restored"), "demo", &[])?;
    let encrypted = restore(
        server,
        source,
        &state.join("restored-encrypted"),
        "demo-encrypted",
        &keyfile,
    )?;

    heading("Summary");
    summary(
        &steps,
        &[("restore", &plain), ("restore encrypted", &encrypted)],
    );
    let same = [&plain, &encrypted]
        .iter()
        .all(|restored| restored.comparison.differences.is_empty());
    if same {
        println!(
            "\nBoth restores equal the source: {} entries, {} of content, byte for byte, with their metadata.",
            plain.comparison.entries,
            size(plain.comparison.bytes)
        );
    } else {
        for difference in plain
            .comparison
            .differences
            .iter()
            .chain(&encrypted.comparison.differences)
        {
            eprintln!("DIFFERENT: {difference}");
        }
        eprintln!(
            "The restore differs from the source (or the source changed while the demo ran)."
        );
    }
    Ok(same)
}

/// Runs one backup and reads from its manifest what it did.
fn backup(
    server: &ServerProcess,
    name: &'static str,
    id: &str,
    spec: &OsStr,
    options: &[&OsStr],
) -> Result<Step> {
    let mut arguments = vec![
        OsStr::new("backup"),
        spec,
        "--backup-id".as_ref(),
        id.as_ref(),
    ];
    for skipped in ["--exclude=/target", "--exclude=/.git"] {
        arguments.push(skipped.as_ref());
    }
    arguments.extend(options);
    if let Some(last) = snapshots(server, id)?
        .iter()
        .filter_map(|item| item["backup-time"].as_i64())
        .max()
    {
        wait_until_after(last);
    }
    let start = Instant::now();
    tool(server, "client", &arguments)?;
    let time = start.elapsed();

    let newest = snapshots(server, id)?
        .into_iter()
        .max_by_key(|item| item["backup-time"].as_i64())
        .context("the backup is not in the list of snapshots")?;
    let group = format!("host/{id}");
    let mut command = server.command("client", DATASTORE);
    command.args(["restore", &group, "index.json", "-"]);
    let manifest = succeeded(&command.output()?)?;
    let manifest: Value = serde_json::from_str(&manifest).context("reading the manifest")?;
    let stats = &manifest["unprotected"]["chunk_upload_stats"];
    let number = |key: &str| {
        stats[key]
            .as_u64()
            .with_context(|| format!("no {key} in the manifest"))
    };
    Ok(Step {
        name,
        size: newest["size"].as_u64().unwrap_or(0),
        sent: number("size")?,
        stored: number("compressed_size")?,
        time,
    })
}

/// Two snapshots of a group need different times, which count whole seconds.
fn wait_until_after(second: i64) {
    let next = Duration::from_secs(u64::try_from(second).unwrap_or(0) + 1);
    while let Ok(now) = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        let Some(rest) = next.checked_sub(now).filter(|rest| !rest.is_zero()) else {
            break;
        };
        std::thread::sleep(rest.min(Duration::from_secs(1)));
    }
}

/// The snapshots of one group, as the server lists them.
fn snapshots(server: &ServerProcess, id: &str) -> Result<Vec<Value>> {
    let mut command = server.command("client", DATASTORE);
    command.args(["snapshot", "list", "--output-format", "json"]);
    let text = succeeded(&command.output()?)?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let items: Vec<Value> = serde_json::from_str(&text).context("reading the list of snapshots")?;
    Ok(items
        .into_iter()
        .filter(|item| item["backup-id"].as_str() == Some(id))
        .collect())
}

/// One restore and how it compares with its source.
struct Restored {
    time: Duration,
    comparison: Comparison,
}

/// Restores the newest snapshot of a group and compares it with the source.
fn restore(
    server: &ServerProcess,
    source: &Path,
    target: &Path,
    id: &str,
    options: &[&OsStr],
) -> Result<Restored> {
    let group = format!("host/{id}");
    let mut arguments = vec![
        OsStr::new("restore"),
        group.as_ref(),
        "source.pxar".as_ref(),
        target.as_os_str(),
    ];
    arguments.extend(options);
    // only root can give files to others
    let ownership = rustix::process::geteuid().is_root();
    if !ownership {
        arguments.push("--ignore-ownership".as_ref());
    }
    let start = Instant::now();
    tool(server, "client", &arguments)?;
    let time = start.elapsed();
    // the list of exclusions is stored in the archive; it is not part of the source
    let skip: Vec<&str> = SKIPPED
        .iter()
        .copied()
        .chain([".pxarexclude-cli"])
        .collect();
    let comparison = compare(
        source,
        target,
        Aspects {
            ownership,
            top_directory: true,
            skip: &skip,
        },
    )
    .with_context(|| format!("comparing {} with {}", source.display(), target.display()))?;
    Ok(Restored { time, comparison })
}

/// Runs one tool, shows its command line, and lets it write to the terminal.
fn tool(server: &ServerProcess, tool: &str, arguments: &[&OsStr]) -> Result<()> {
    let words: Vec<_> = arguments
        .iter()
        .map(|word| word.to_string_lossy())
        .collect();
    println!("$ backstop {tool} {}", words.join(" "));
    std::io::stdout().flush()?;
    let status = server
        .command(tool, DATASTORE)
        .args(arguments)
        .status()
        .context("starting the tool")?;
    if !status.success() {
        bail!("`backstop {tool} {}` failed: {status}", words.join(" "));
    }
    Ok(())
}

fn heading(text: &str) {
    println!("\n== {text}");
}

/// Prints what each step moved, and how fast.
fn summary(steps: &[Step], restores: &[(&str, &Restored)]) {
    println!(
        "{:<18} {:>12} {:>12} {:>12} {:>8} {:>9} {:>14}",
        "", "source", "sent", "stored", "ratio", "time", "throughput"
    );
    for step in steps {
        let ratio = match step.stored {
            0 => "-".to_string(),
            stored => format!("{:.1}:1", step.size as f64 / stored as f64),
        };
        println!(
            "{:<18} {:>12} {:>12} {:>12} {:>8} {:>7.2} s {:>12}/s",
            step.name,
            size(step.size),
            size(step.sent),
            size(step.stored),
            ratio,
            step.time.as_secs_f64(),
            rate(step.size, step.time)
        );
    }
    for (name, restored) in restores {
        println!(
            "{:<18} {:>12} {:>12} {:>12} {:>8} {:>7.2} s {:>12}/s",
            name,
            size(restored.comparison.bytes),
            "",
            "",
            "",
            restored.time.as_secs_f64(),
            rate(restored.comparison.bytes, restored.time)
        );
    }
}

/// A number of bytes in the largest binary unit that keeps it above one.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or("B");
    while value >= 1024.0 {
        let Some(next) = units.next() else { break };
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// Bytes in one second of `time`.
fn rate(bytes: u64, time: Duration) -> String {
    size((bytes as f64 / time.as_secs_f64().max(1e-6)) as u64)
}

/// Tells the user how to log in, and waits for Ctrl-C.
fn stay_up(server: &ServerProcess) -> Result<()> {
    println!("\nThe server stays up until Ctrl-C:");
    println!("  URL       https://{}", server.address);
    println!("  user      admin@pbs");
    println!("  password  {}", server.password);
    println!("  To use it from another terminal:");
    println!("    export PBS_REPOSITORY={}", server.repository(DATASTORE));
    println!("    export PBS_FINGERPRINT={}", server.fingerprint);
    println!("    {} client snapshot list", server.binary.display());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result,
            _ = terminate.recv() => Ok(()),
        }
    })?;
    println!("\nEnding the server and removing what the demo made.");
    Ok(())
}
