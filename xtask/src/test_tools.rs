//! Programs that tests start and that do not belong to this workspace: a directory server, an OpenID provider, monitoring,
//! Ansible.
//!
//! They are installed where that can be done without asking anybody: Debian packages as root, npm packages into a cache
//! folder outside of the checkout. What cannot be installed is said, and the tests that need it skip themselves.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A program, where it is when it is not in the path, and the Debian package that has it.
const PACKAGES: &[(&str, &str, &str)] = &[
    ("slapd", "/usr/sbin/slapd", "slapd"),
    ("node", "/usr/bin/node", "nodejs"),
    ("npm", "/usr/bin/npm", "npm"),
    ("promtool", "/usr/bin/promtool", "prometheus"),
    (
        "prometheus-alertmanager",
        "/usr/bin/prometheus-alertmanager",
        "prometheus-alertmanager",
    ),
    ("influxd", "/usr/bin/influxd", "influxdb"),
    ("curl", "/usr/bin/curl", "curl"),
    ("zabbix_agent2", "/usr/sbin/zabbix_agent2", "zabbix-agent2"),
    // With its collections, of which the tests use the connection to a chroot.
    ("ansible-community", "/usr/bin/ansible-community", "ansible"),
];

/// Installs what is missing, and says what could not be installed.
pub fn install() {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(name, path, _)| !Path::new(path).exists() && !is_in_path(name))
        .map(|(_, _, package)| *package)
        .collect();
    if !missing.is_empty()
        && let Err(err) = install_packages(&missing)
    {
        println!("not installed: {} - {err:#}", missing.join(", "));
    }
    if is_in_path("npm")
        && let Err(err) = install_provider()
    {
        println!("not installed: oidc-provider - {err:#}");
    }
}

fn is_in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

fn install_packages(packages: &[&str]) -> Result<()> {
    // The owner of this entry is who this process runs as.
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root || !is_in_path("apt-get") {
        bail!("only root can, on Debian");
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive");
        run(&mut command)
    };
    apt(&["update", "-qq"])?;
    apt(&[
        &["install", "-y", "-qq", "--no-install-recommends"],
        packages,
    ]
    .concat())
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
