//! Which installation the tools work on: the stock paths, or the same below a directory of one's own.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use backstop_server::Roots;

/// The variable that names the directory.
const VARIABLE: &str = "BACKSTOP_ROOT";

static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// Takes a leading `--root DIR` off the words and remembers it for [`roots`].
///
/// # Errors
/// If `--root` has no value.
pub fn take_root(words: &mut Vec<OsString>) -> anyhow::Result<()> {
    let Some(first) = words.first() else {
        return Ok(());
    };
    let root = if let Some(value) = first.as_bytes().strip_prefix(b"--root=") {
        let value = OsStr::from_bytes(value).to_owned();
        words.remove(0);
        value
    } else if first == "--root" {
        if words.len() < 2 {
            anyhow::bail!("--root needs a directory");
        }
        words.remove(0);
        words.remove(0)
    } else {
        return Ok(());
    };
    choose(root.into());
    Ok(())
}

/// Uses this directory from now on; the first choice counts.
pub fn choose(root: PathBuf) {
    let _ = CHOSEN.set(root);
}

/// The directories of the installation.
pub fn roots() -> Roots {
    let chosen = CHOSEN.get().cloned().or_else(|| {
        std::env::var_os(VARIABLE)
            .filter(|root| !root.is_empty())
            .map(PathBuf::from)
    });
    match chosen {
        Some(root) => Roots::below(root),
        None => Roots::system(),
    }
}
