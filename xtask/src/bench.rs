//! `cargo xtask bench`: builds everything with optimisation and runs a benchmark.

use std::process::Command;

use anyhow::{Context, Result, bail};

/// Runs the benchmark named first in `args`, with the other words as its arguments; lists them when there is none.
///
/// # Errors
///
/// When the programs cannot be built or started.
pub fn run(args: &[String]) -> Result<bool> {
    let root = super::workspace_root()?;
    let build = super::cargo()
        .current_dir(&root)
        .args([
            "build",
            "--release",
            "--locked",
            "--package",
            "backstop",
            "--package",
            "backstop-bench",
        ])
        .status()
        .context("starting cargo build")?;
    if !build.success() {
        bail!("the programs could not be built");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), |dir| root.join(dir));
    let program = target.join("release/backstop-bench");
    let status = Command::new(&program)
        .args(args)
        .status()
        .with_context(|| format!("starting {}", program.display()))?;
    Ok(status.success())
}
