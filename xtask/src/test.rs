//! `cargo xtask test`: runs every test of the workspace and says what was skipped.
//!
//! A test that cannot run here (no root, no stock programs, …) prints one line that begins with
//! `skipped:` and passes; this command collects those lines, so that no gap is silent.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result};

/// How many failed tests are given a second chance; more than that is no accident.
const SECOND_CHANCES: usize = 3;

/// What one run of cargo test said, summed over all test programs.
#[derive(Default)]
struct Run {
    totals: Totals,
    /// Names of the tests that failed.
    failed: Vec<String>,
    /// Reasons for skipping, with the tests that gave them.
    skipped: BTreeMap<String, Vec<String>>,
    /// Test programs that were started and gave no result, because they died.
    unfinished: u64,
    /// Whether cargo was content.
    success: bool,
}

/// Counts of one run, summed over all test programs.
#[derive(Default)]
struct Totals {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Runs the tests whose names contain one of `filters` (all when empty).
///
/// A few tests that failed are run once more, alone: one that passes then depends on the load of
/// the machine. It is named at the end as unsteady, which is a fault to mend, but not one that
/// says that the program is broken.
///
/// Returns whether everything passed, be it on the second run.
///
/// # Errors
///
/// When cargo cannot be started or its output cannot be read.
pub fn run(filters: &[String]) -> Result<bool> {
    let programs = super::test_tools::install().join(",");
    let mut environment = vec![(super::test_tools::VARIABLE, OsString::from(programs))];
    match super::proxmoxer::python() {
        Ok(python) => environment.push((super::proxmoxer::VARIABLE, python.into())),
        Err(error) => println!("proxmoxer cannot be used here: {error:#}"),
    }
    let first = Run::of(filters, &environment)?;
    let mut passed = first.success;
    let mut unsteady = Vec::new();
    if first.deserves_another() {
        println!("\nOnce more, alone: {}", first.failed.join(", "));
        let mut alone = vec!["--exact".to_string(), "--test-threads=1".to_string()];
        alone.extend(first.failed.iter().cloned());
        let second = Run::of(&alone, &environment)?;
        passed = second.success && second.totals.passed >= first.totals.failed;
        let recovered = |name: &&String| passed || !second.failed.contains(name);
        unsteady.extend(first.failed.iter().filter(recovered).cloned());
    }

    println!();
    if first.skipped.is_empty() {
        println!("Nothing was skipped.");
    } else {
        println!("Skipped here:");
        for (reason, tests) in &first.skipped {
            println!("  {reason}");
            for test in tests {
                println!("    {test}");
            }
        }
    }
    if !unsteady.is_empty() {
        println!(
            "UNSTEADY, to be mended (failed beside others, passed alone; the failure is above):"
        );
        for test in &unsteady {
            println!("  {test}");
        }
    }
    println!(
        "{} passed, {} failed, {} unsteady, {} ignored",
        first.totals.passed,
        first.totals.failed - unsteady.len() as u64,
        unsteady.len(),
        first.totals.ignored
    );
    Ok(passed)
}

impl Run {
    /// Runs the tests of the workspace with these arguments for the test programs, and these variables.
    fn of(arguments: &[String], environment: &[(&str, OsString)]) -> Result<Self> {
        let mut command = super::cargo();
        command
            .current_dir(super::workspace_root()?)
            .args(["test", "--workspace", "--locked", "--no-fail-fast", "--"])
            .arg("--show-output")
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped());
        let mut child = command.spawn().context("starting cargo test")?;
        let stdout = child.stdout.take().context("cargo test has no output")?;
        let mut run = Self::default();
        run.read(BufReader::new(stdout), |line| println!("{line}"))?;
        let status = child.wait().context("waiting for cargo test")?;
        run.success = status.success();
        Ok(run)
    }

    /// Reads what the test programs print, and passes on what a reader wants to see.
    fn read(&mut self, output: impl BufRead, mut show: impl FnMut(&str)) -> Result<()> {
        let mut current_test = String::new();
        let mut in_failures = false;
        for line in output.split(b'\n') {
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
                let tests = self.skipped.entry(reason.to_string()).or_default();
                if !tests.contains(&current_test) {
                    tests.push(current_test.clone());
                }
            } else if line.starts_with("test ") || line.starts_with("running ") || in_failures {
                show(line);
            }
            if let Some(name) = line
                .strip_prefix("test ")
                .and_then(|rest| rest.strip_suffix(" ... FAILED"))
            {
                self.failed.push(name.to_string());
            }
            if is_start(line) {
                self.unfinished += 1;
            }
            if line.starts_with("test result:") {
                in_failures = false;
                self.unfinished = self.unfinished.saturating_sub(1);
                self.totals.add(line);
            }
        }
        Ok(())
    }

    /// Whether the failures are few, all known by name, and all there is.
    fn deserves_another(&self) -> bool {
        !self.success
            && self.unfinished == 0
            && (1..=SECOND_CHANCES).contains(&self.failed.len())
            && self.failed.len() as u64 == self.totals.failed
    }
}

/// Whether a line says that a test program begins: `running 12 tests`.
fn is_start(line: &str) -> bool {
    let mut words = line.split(' ');
    words.next() == Some("running")
        && words
            .next()
            .is_some_and(|count| count.parse::<u64>().is_ok())
        && words.next().is_some_and(|noun| noun.starts_with("test"))
        && words.next().is_none()
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
    #![allow(clippy::unwrap_used)]
    use super::{Run, Totals};

    fn read(output: &str) -> Run {
        let mut run = Run::default();
        run.read(output.as_bytes(), |_| ()).unwrap();
        run
    }

    #[test]
    fn result_lines_are_summed() {
        let mut totals = Totals::default();
        totals.add("test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.10s");
        totals
            .add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!((totals.passed, totals.failed, totals.ignored), (13, 2, 3));
    }

    #[test]
    fn a_few_failures_known_by_name_get_a_second_chance_and_nothing_else_does() {
        let result = |passed, failed| {
            format!(
                "test result: x. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
            )
        };
        let one = format!(
            "running 2 tests\ntest a::b ... ok\ntest a::c ... FAILED\n{}\n",
            result(1, 1)
        );
        let run = read(&one);
        assert_eq!(run.failed, ["a::c"]);
        assert!(run.deserves_another());
        // all passed, and cargo failed nevertheless: it could not build
        assert!(!read(&format!("running 1 test\n{}\n", result(1, 0))).deserves_another());
        // another program died
        assert!(!read(&format!("{one}running 5 tests\ntest d ... ok\n")).deserves_another());
        // a failure without a name
        assert!(!read(&format!("{one}running 1 test\n{}\n", result(0, 1))).deserves_another());
        let many = (0..4).map(|i| format!("test t{i} ... FAILED\n"));
        let many: String = many.collect();
        assert!(!read(&format!("running 4 tests\n{many}{}\n", result(0, 4))).deserves_another());
    }

    #[test]
    fn what_was_skipped_is_collected_by_reason() {
        let run = read(
            "successes:\n\n---- x stdout ----\nskipped: no root\n\n---- y stdout ----\nskipped: no root\n",
        );
        assert_eq!(run.skipped["no root"], ["x", "y"]);
    }
}
