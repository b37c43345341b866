//! A root directory as a stock server left it: configuration, state, logs and the datastore `store1`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The folder of everything that was recorded from one version, `3.2.4` or `4.2.3`.
#[must_use]
pub fn fixtures(version: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures"))
        .join(format!("pbs-{version}"))
}

/// Lays out configuration, state, logs and the datastore below `root`; datastores lie in `ROOT/srv/fixture`.
///
/// # Errors
/// When a file cannot be read or written.
pub fn lay_out(version: &str, root: &Path) -> Result<()> {
    let from = fixtures(version);
    for (source, target) in [
        ("etc-proxmox-backup", "etc/proxmox-backup"),
        ("var-log-proxmox-backup", "var/log/proxmox-backup"),
        ("var-lib-proxmox-backup", "var/lib/proxmox-backup"),
        ("datastore/store1", "srv/fixture/store1"),
    ] {
        copy_tree(&from.join(source), &root.join(target))?;
    }
    let etc = root.join("etc/proxmox-backup");
    for name in ["authkey.key", "proxy.key"] {
        let wrapped: String = fs::read_to_string(etc.join(format!("{name}.b64")))?
            .split_whitespace()
            .collect();
        fs::write(etc.join(name), STANDARD.decode(wrapped)?)?;
    }
    let stores = fs::read_to_string(etc.join("datastore.cfg"))?;
    let here = format!("path {}/srv/fixture", root.display());
    fs::write(
        etc.join("datastore.cfg"),
        stores.replace("path /srv/fixture", &here),
    )?;
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| target.display().to_string())?;
        }
    }
    Ok(())
}
