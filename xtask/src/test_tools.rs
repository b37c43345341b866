//! Programs that tests start and that do not belong to this workspace: a directory server, an OpenID provider, monitoring,
//! Ansible.
//!
//! They are installed where that can be done without asking anybody: Debian packages as root, npm packages into a cache
//! folder outside of the checkout. What cannot be installed is said, and the tests that need it skip themselves. Tests are told
//! what is there, in [`VARIABLE`]: a test that does not find one of these programs fails instead.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The environment variable with the names of the programs that are there, divided by commas.
pub const VARIABLE: &str = "BACKSTOP_TEST_PROGRAMS";

/// A program, where it is when it is not in the path, and the Debian package that has it.
const PACKAGES: &[(&str, &str, &str)] = &[
    ("slapd", "/usr/sbin/slapd", "slapd"),
    ("node", "/usr/bin/node", "nodejs"),
    ("npm", "/usr/bin/npm", "npm"),
    ("promtool", "/usr/bin/promtool", "prometheus"),
    ("prometheus", "/usr/bin/prometheus", "prometheus"),
    (
        "prometheus-alertmanager",
        "/usr/bin/prometheus-alertmanager",
        "prometheus-alertmanager",
    ),
    ("influxd", "/usr/bin/influxd", "influxdb"),
    ("curl", "/usr/bin/curl", "curl"),
    ("zabbix_agent2", "/usr/sbin/zabbix_agent2", "zabbix-agent2"),
    ("ansible-playbook", "/usr/bin/ansible-playbook", "ansible"),
    // With its collections, of which the tests use the connection to a chroot.
    ("ansible-community", "/usr/bin/ansible-community", "ansible"),
];

/// Installs what is missing, and says what could not be installed. Returns the programs that are there by all that is known: those
/// that were, and those of packages that are installed now.
pub fn install() -> Vec<&'static str> {
    let is_there = |name: &str, path: &str| Path::new(path).exists() || is_in_path(name);
    let mut missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(name, path, _)| !is_there(name, path))
        .map(|(_, _, package)| *package)
        .collect();
    missing.dedup();
    if !missing.is_empty() {
        missing = install_packages(&missing);
    }
    if is_in_path("npm")
        && let Err(err) = install_provider()
    {
        println!("not installed: oidc-provider - {err:#}");
    }
    let promised = PACKAGES
        .iter()
        .filter(|(name, path, package)| is_there(name, path) || !missing.contains(package));
    promised.map(|(name, _, _)| *name).collect()
}

fn is_in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Installs these packages, singly where that does not work together; says and returns those that could not be installed.
fn install_packages(packages: &[&'static str]) -> Vec<&'static str> {
    if let Err(err) = can_install().and_then(|()| apt(&["update", "-qq"])) {
        println!("not installed: {} - {err:#}", packages.join(", "));
        return packages.to_vec();
    }
    let install = |packages: &[&str]| {
        let words = ["install", "-y", "-qq", "--no-install-recommends"];
        apt(&[&words, packages].concat())
    };
    if install(packages).is_ok() {
        return Vec::new();
    }
    let refused = packages.iter().filter(|package| match install(&[package]) {
        Ok(()) => false,
        Err(err) => {
            println!("not installed: {package} - {err:#}");
            true
        }
    });
    refused.copied().collect()
}

fn can_install() -> Result<()> {
    // The owner of this entry is who this process runs as.
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root || !is_in_path("apt-get") {
        bail!("only root can, on Debian");
    }
    Ok(())
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    run(&mut command)
}

/// Installs what `tests/openid_provider/package.json` asks for, unless that is there already.
fn install_provider() -> Result<()> {
    let wanted = super::workspace_root()?.join("tests/openid_provider/package.json");
    let wanted =
        std::fs::read_to_string(&wanted).with_context(|| format!("{}", wanted.display()))?;
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let folder = cache
        .context("there is no home directory")?
        .join("backstop/npm/openid-provider");
    let there = std::fs::read_to_string(folder.join("package.json")).unwrap_or_default();
    if there == wanted && folder.join("node_modules/.package-lock.json").is_file() {
        return Ok(());
    }
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("package.json"), wanted)?;
    run(Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--ignore-scripts"])
        .arg("--prefix")
        .arg(&folder)
        .current_dir(&folder))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
