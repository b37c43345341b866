//! `cargo xtask test`: runs every test of the workspace and says what was skipped.
//!
//! A test that cannot run here (no root, no stock programs, …) prints one line that begins with
//! `skipped:` and passes; this command collects those lines, so that no gap is silent.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result};

/// Counts of one run, summed over all test programs.
#[derive(Default)]
struct Totals {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Runs the tests whose names contain one of `filters` (all when empty).
///
/// Returns whether everything passed.
///
/// # Errors
///
/// When cargo cannot be started or its output cannot be read.
pub fn run(filters: &[String]) -> Result<bool> {
    super::test_tools::install();
    let mut command = super::cargo();
    command
        .current_dir(super::workspace_root()?)
        .args(["test", "--workspace", "--locked", "--no-fail-fast", "--"])
        .arg("--show-output")
        .args(filters)
        .stdout(Stdio::piped());
    match super::proxmoxer::python() {
        Ok(python) => drop(command.env(super::proxmoxer::VARIABLE, python)),
        Err(error) => println!("proxmoxer cannot be used here: {error:#}"),
    }
    let mut child = command.spawn().context("starting cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no output")?;

    let mut totals = Totals::default();
    let mut skipped: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current_test = String::new();
    let mut in_failures = false;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("reading the output of cargo test")?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            current_test = name.to_string();
        }
        match line {
            "successes:" => in_failures = false,
            "failures:" => in_failures = true,
            _ => {}
        }
        if let Some(reason) = line.strip_prefix("skipped: ") {
            let tests = skipped.entry(reason.to_string()).or_default();
            if !tests.contains(&current_test) {
                tests.push(current_test.clone());
            }
        } else if line.starts_with("test ") || line.starts_with("running ") || in_failures {
            println!("{line}");
        }
        if line.starts_with("test result:") {
            in_failures = false;
            totals.add(line);
        }
    }
    let status = child.wait().context("waiting for cargo test")?;

    println!();
    if skipped.is_empty() {
        println!("Nothing was skipped.");
    } else {
        println!("Skipped here:");
        for (reason, tests) in &skipped {
            println!("  {reason}");
            for test in tests {
                println!("    {test}");
            }
        }
    }
    println!(
        "{} passed, {} failed, {} skipped",
        totals.passed, totals.failed, totals.ignored
    );
    Ok(status.success())
}

impl Totals {
    /// Adds the counts of one `test result:` line.
    fn add(&mut self, line: &str) {
        for part in line.split([';', '.']) {
            let mut words = part.split_whitespace().rev();
            let (Some(kind), Some(count)) = (words.next(), words.next()) else {
                continue;
            };
            let Ok(count) = count.parse::<u64>() else {
                continue;
            };
            match kind {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Totals;

    #[test]
    fn result_lines_are_summed() {
        let mut totals = Totals::default();
        totals.add("test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.10s");
        totals
            .add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!((totals.passed, totals.failed, totals.ignored), (13, 2, 3));
    }
}
