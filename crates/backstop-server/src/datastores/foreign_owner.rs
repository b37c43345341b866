//! Datastores in which something belongs to root, while the server is not root: what is left of times when it was.
//!
//! Such a datastore may look sound for a while, until something has to be written or removed. So it is said at each start, with
//! the command that heals it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use backstop_types::Operation;
use rustix::process::{getegid, geteuid};

use super::DatastoreRegistry;

/// Most entries of a directory that are looked at.
const MAX_ENTRIES: usize = 1024;

/// Says which datastores hold what belongs to root. Blocks for a small file; the datastores are looked at in tasks of their own, so
/// that a file system that hangs holds up its own check alone.
pub(crate) fn report(datastores: &DatastoreRegistry) {
    if geteuid().is_root() {
        return;
    }
    // Whoever needs the datastores says why they cannot be read.
    for config in datastores.configs().unwrap_or_default() {
        if super::check(&config, Operation::Read).is_err() {
            continue;
        }
        let Ok(place) = datastores.place(&config) else {
            continue;
        };
        tokio::spawn(async move {
            let path = place.path().to_owned();
            let found = place.call(move || find(&path)).await;
            if let Ok(Some(found)) = found {
                let (user, group) = (geteuid().as_raw(), getegid().as_raw());
                tracing::error!(
                    "datastore '{}': {} belongs to root, and this server is not root, so that backups, prunes and garbage \
                     collections will fail; run this as root: chown -R {user}:{group} {}",
                    place.name(),
                    found.display(),
                    quoted(place.path()),
                );
            }
        });
    }
}

/// The first thing that belongs to root: the directory itself, or what lies directly in it or in one of its directories. (Whoever
/// wrote as root left some of these behind.)
fn find(path: &Path) -> Option<PathBuf> {
    let is_root = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.uid() == 0);
    let entries = |path: &Path| -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(path)?.take(MAX_ENTRIES);
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    };
    if is_root(path) {
        return Some(path.to_owned());
    }
    // The directory that a file system is mounted with is nobody's concern.
    let own = entries(path).unwrap_or_default();
    let own = own.iter().filter(|path| !path.ends_with("lost+found"));
    for path in own {
        if is_root(path) {
            return Some(path.clone());
        }
        let below = entries(path).unwrap_or_default();
        if let Some(found) = below.into_iter().find(|path| is_root(path)) {
            return Some(found);
        }
    }
    None
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:".contains(c);
    if text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::os::unix::fs::chown;

    #[test]
    fn what_belongs_to_root_is_found_down_to_the_groups() {
        if !geteuid().is_root() {
            println!("skipped: not root (ownership)");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        for path in [".chunks/0000", "vm/100", "lost+found"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        for own in ["", ".chunks", ".chunks/0000", "vm", "vm/100"] {
            chown(dir.path().join(own), Some(34), Some(34)).unwrap();
        }
        assert_eq!(find(dir.path()), None);
        for path in ["vm/100", ".chunks/0000", ".chunks", ""] {
            let path = dir.path().join(path);
            chown(&path, Some(0), Some(0)).unwrap();
            let found = find(dir.path()).unwrap();
            assert_eq!(found.components().as_path(), path.components().as_path());
            chown(&path, Some(34), Some(34)).unwrap();
        }
    }

    #[test]
    fn the_command_can_be_pasted() {
        assert_eq!(quoted(Path::new("/mnt/store-1")), "/mnt/store-1");
        assert_eq!(quoted(Path::new("/mnt/it's $me")), "'/mnt/it'\\''s $me'");
    }
}
