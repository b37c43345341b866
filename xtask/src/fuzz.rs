//! `cargo xtask fuzz`: runs each fuzz target of `fuzz/` for a bounded time.
//!
//! Needs `cargo-fuzz` (installed when missing) and a nightly compiler, or a stable one that is told
//! to allow the sanitizer flags.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Memory that one run of a target may use, MiB: the bound that decoders state, with room for the
/// fuzzer itself.
const MEMORY_LIMIT_MIB: u32 = 1024;
/// Longest time that one input may take, seconds.
const INPUT_TIMEOUT_S: u32 = 10;

/// Largest file that is taken as a sample.
const MAX_SEED: u64 = 64 << 10;

/// Runs the targets named in `args` (all when none is named), each for `--seconds N`.
///
/// Returns whether no target found anything.
///
/// # Errors
///
/// When an argument is not understood or cargo-fuzz cannot be installed or started.
pub fn run(args: &[String]) -> Result<bool> {
    let mut seconds = 60u32;
    let mut wanted = Vec::new();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if word == "--seconds" {
            let value = words.next().context("--seconds needs a number")?;
            seconds = value
                .parse()
                .with_context(|| format!("--seconds {value}"))?;
        } else {
            wanted.push(word.clone());
        }
    }
    let root = super::workspace_root()?;
    let targets = targets(&root)?;
    for name in &wanted {
        if !targets.contains(name) {
            bail!("no fuzz target {name:?}; there are: {}", targets.join(", "));
        }
    }
    let chosen = if wanted.is_empty() { targets } else { wanted };

    let nightly = Command::new("cargo")
        .args(["+nightly", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !installed() {
        let status = Command::new("cargo")
            .args(["install", "--locked", "cargo-fuzz"])
            .status()
            .context("installing cargo-fuzz")?;
        if !status.success() {
            bail!("cargo-fuzz could not be installed: {status}");
        }
    }

    lock(&root)?;
    seed(&root)?;
    let mut clean = true;
    for target in &chosen {
        println!("== {target} for {seconds} s");
        let mut command = Command::new("cargo");
        if nightly {
            command.arg("+nightly");
        } else {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        let status = command
            .current_dir(&root)
            .args(["fuzz", "run", "--release", target, "--"])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={INPUT_TIMEOUT_S}"))
            .arg(format!("-rss_limit_mb={MEMORY_LIMIT_MIB}"))
            .status()
            .with_context(|| format!("starting fuzz target {target}"))?;
        if !status.success() {
            println!(
                "== {target}: found something ({status}); the input is in fuzz/artifacts/{target}"
            );
            clean = false;
        }
    }
    Ok(clean)
}

/// Brings the lock file of the targets, which are a workspace of their own, in line with that of the crates: what is fuzzed is
/// what is built.
fn lock(root: &Path) -> Result<()> {
    let metadata = |more: &[&str]| {
        Command::new("cargo")
            .current_dir(root)
            .args(["metadata", "--format-version", "1"])
            .args(["--manifest-path", "fuzz/Cargo.toml"])
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("starting cargo metadata")
    };
    if metadata(&["--locked"])?.success() {
        return Ok(());
    }
    println!("== fuzz/Cargo.lock is out of date, and made anew from Cargo.lock");
    std::fs::copy(root.join("Cargo.lock"), root.join("fuzz/Cargo.lock"))
        .context("copying Cargo.lock")?;
    let made = metadata(&[])?;
    if !made.success() {
        bail!("unable to make fuzz/Cargo.lock: {made}");
    }
    Ok(())
}

/// Puts samples of the real formats into the corpora, so that the fuzzer need not find the magic numbers itself.
fn seed(root: &Path) -> Result<()> {
    for (target, suffix) in [
        ("blob", ".blob"),
        ("fidx", ".fidx"),
        ("didx", ".didx"),
        ("key_file", "enc-none.json"),
        ("key_file", "enc-scrypt.json"),
        ("config_file", ".cfg"),
    ] {
        copy_seeds(
            &root.join("tests/fixtures"),
            suffix,
            &root.join("fuzz/corpus").join(target),
        )?;
    }
    let seeds = root.join("fuzz/seeds");
    for entry in
        std::fs::read_dir(&seeds).with_context(|| format!("reading {}", seeds.display()))?
    {
        let entry = entry?;
        copy_seeds(
            &entry.path(),
            "",
            &root.join("fuzz/corpus").join(entry.file_name()),
        )?;
    }
    Ok(())
}

/// Copies the small files below `from` whose names end in `suffix` into the folder `to`.
fn copy_seeds(from: &Path, suffix: &str, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let meta = path.symlink_metadata()?;
        if meta.is_dir() {
            copy_seeds(&path, suffix, to)?;
        } else if meta.len() <= MAX_SEED && name.ends_with(suffix) {
            // equal names in different folders are different samples
            let unique = format!("{:016x}-{name}", hash(&path));
            std::fs::copy(&path, to.join(unique))
                .with_context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}

/// A number that tells paths apart.
fn hash(path: &Path) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

/// Whether `cargo fuzz` can be called.
fn installed() -> bool {
    Command::new("cargo")
        .args(["fuzz", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Names of all targets, from the files in `fuzz/fuzz_targets`.
fn targets(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in
        std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
        {
            names.push(stem.to_string());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn each_target_is_declared() {
        let root = crate::workspace_root().unwrap();
        let manifest = std::fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
        for target in targets(&root).unwrap() {
            let bin = format!("name = \"{target}\"\npath = \"fuzz_targets/{target}.rs\"");
            assert!(manifest.contains(&bin), "{target}");
        }
    }
}
