//! The third-party client proxmoxer, for the test that drives a server with it, and the mail server aiosmtpd, for the test that sends mail to
//! it: a Python environment in the cache folder.
//!
//! Nothing is installed into the system's own Python, nor into the checkout.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// What the tests need; the versions are fixed, so that it does the same everywhere.
const PACKAGES: [&str; 3] = ["proxmoxer==2.3.0", "requests==2.34.2", "aiosmtpd==1.4.6"];
/// Tells the tests which Python has them.
pub const VARIABLE: &str = "BACKSTOP_PROXMOXER_PYTHON";

/// The Python that has them; it is set up when it is missing.
///
/// # Errors
///
/// When there is no Python, or the packages cannot be had.
pub fn python() -> Result<PathBuf> {
    let folder = cache_folder()?.join("proxmoxer-2.3.0");
    let python = folder.join("bin/python");
    if has_packages(&python) {
        return Ok(python);
    }
    if !run("python3", &["-c", "import ensurepip, venv"])
        .is_ok_and(|output| output.status.success())
    {
        install_venv()?;
    }
    let path = folder.to_string_lossy().into_owned();
    succeed("python3", &["-m", "venv", "--clear", &path])?;
    let install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ];
    succeed(&python, &[&install[..], &PACKAGES].concat())?;
    if !has_packages(&python) {
        bail!("{} cannot import what was installed", python.display());
    }
    Ok(python)
}

fn cache_folder() -> Result<PathBuf> {
    let base = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => Path::new(&home).join(".cache"),
        (None, None) => bail!("neither XDG_CACHE_HOME nor HOME is set"),
    };
    Ok(base.join("backstop"))
}

fn has_packages(python: &Path) -> bool {
    run(python, &["-c", "import proxmoxer, requests, aiosmtpd"])
        .is_ok_and(|output| output.status.success())
}

/// Debian keeps the modules for environments in a package of their own.
fn install_venv() -> Result<()> {
    let id = run("id", &["-u"])?;
    if id.stdout.trim_ascii() != b"0" {
        bail!("python3 with venv is missing (Debian: python3-venv)");
    }
    let install = ["install", "-y", "-qq", "python3-venv"];
    if succeed("apt-get", &install).is_err() {
        succeed("apt-get", &["update", "-qq"])?;
        succeed("apt-get", &install)?;
    }
    Ok(())
}

fn succeed(program: impl AsRef<Path>, args: &[&str]) -> Result<()> {
    let output = run(&program, args)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        bail!("{} {}: {last}", program.as_ref().display(), args.join(" "));
    }
    Ok(())
}

fn run(program: impl AsRef<Path>, args: &[&str]) -> Result<Output> {
    let program = program.as_ref();
    Command::new(program)
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {}", program.display()))
}
