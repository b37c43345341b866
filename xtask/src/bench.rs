//! `cargo xtask bench`: benchmarks that print ratios measured in one run on one machine.

use anyhow::Result;

/// Runs the benchmark named first in `args`.
///
/// # Errors
///
/// When the benchmark cannot be set up.
pub fn run(args: &[String]) -> Result<bool> {
    let Some(name) = args.first() else {
        println!("no benchmarks yet");
        return Ok(true);
    };
    eprintln!("no such benchmark: {name}");
    Ok(false)
}
