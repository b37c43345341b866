//! Who owns what is created: the owner of the directory that it is created in.
//!
//! A server that runs as root on the datastore of a service user must leave nothing there that this user cannot change later.
//! Anybody but root owns what it creates anyway, so nothing is done then. What exists already is never given away.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Gid, Uid};

/// Gives the just created `file` at `path` to the owner of its directory.
///
/// # Errors
/// The directory cannot be looked at, or the file system refuses.
pub fn inherit(file: &File, path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    give(file, &std::fs::metadata(parent)?)
}

/// Creates a directory as [`std::fs::create_dir`] does, for the owner of the directory that it is in.
///
/// # Errors
/// As `create_dir`; the file system refuses the change of owner.
pub fn create_dir(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(mode).create(path)?;
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let created = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path)?;
    inherit(&created, path)
}

/// Creates a directory and those above it that are missing, each as [`create_dir`] does. It may exist.
///
/// # Errors
/// As [`create_dir`].
pub fn create_dir_all(path: &Path, mode: u32) -> io::Result<()> {
    match create_dir(path, mode) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(parent) = path.parent() else {
                return Err(error);
            };
            create_dir_all(parent, mode)?;
            match create_dir(path, mode) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
                    Ok(())
                }
                other => other,
            }
        }
        other => other,
    }
}

fn give(file: &File, parent: &Metadata) -> io::Result<()> {
    let own = file.metadata()?;
    if (own.uid(), own.gid()) == (parent.uid(), parent.gid()) {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(parent.uid()), Gid::from_raw(parent.gid()));
    Ok(rustix::fs::fchown(file, Some(user), Some(group))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn what_root_creates_belongs_to_the_owner_of_the_directory() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: not root (ownership)");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(1234), Some(2345)).unwrap();
        let deep = dir.path().join("a/b");
        create_dir_all(&deep, 0o755).unwrap();
        create_dir_all(&deep, 0o755).unwrap();
        let file = deep.join("file");
        inherit(&File::create(&file).unwrap(), &file).unwrap();
        for path in [dir.path().join("a"), deep, file] {
            let metadata = std::fs::metadata(&path).unwrap();
            assert_eq!(
                (metadata.uid(), metadata.gid()),
                (1234, 2345),
                "{}",
                path.display()
            );
        }
    }
}
