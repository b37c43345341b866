//! Developer commands: `cargo xtask test | fuzz | bench`.
//!
//! Each command is a module of its own. Nothing here is shipped with the program.

mod bench;
mod fuzz;
mod proxmoxer;
mod test;
mod test_tools;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

const USAGE: &str = "\
usage: cargo xtask <command>

  test [FILTER …]                run every test; lists what was skipped and why
  fuzz [--seconds N] [TARGET …]  run the fuzz targets, each for N seconds (default 60)
  bench NAME …                   benchmarks; `cargo xtask bench` lists them";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[] as &[String]),
    };
    let outcome = match command {
        "test" => test::run(rest),
        "fuzz" => fuzz::run(rest),
        "bench" => bench::run(rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(true)
        }
        other => {
            eprintln!("no such command: {other}\n\n{USAGE}");
            Ok(false)
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the checkout.
fn workspace_root() -> Result<PathBuf> {
    let manifest_dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest_dir
        .parent()
        .map(PathBuf::from)
        .ok_or_else(|| anyhow::anyhow!("{} has no parent folder", manifest_dir.display()))
}

/// The cargo that runs this command, so that a toolchain override holds for what it starts.
fn cargo() -> std::process::Command {
    std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
