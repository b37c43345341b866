//! Making the directory of a datastore where only root can, and giving it to the service user.
//!
//! Must never follow a symbolic link, never give away what holds something, and never touch a place of the operating system:
//! whoever owns a directory there can become root.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};

/// Directories below which nothing is made: those of the operating system, and of the secrets of root.
const SYSTEM: [&str; 15] = [
    "bin", "boot", "dev", "efi", "etc", "lib", "lib32", "lib64", "libx32", "proc", "root", "run",
    "sbin", "sys", "usr",
];
/// What is not of the operating system below `/var`.
const OURS_IN_VAR: [&str; 4] = [
    "/var/backups",
    "/var/lib/backstop",
    "/var/lib/proxmox-backup",
    "/var/lib/vz",
];
/// What an empty file system may hold.
const LOST_AND_FOUND: &str = "lost+found";

/// Makes the directory `path` and those above it that are missing. `path` itself is given to `uid` and `gid`, the others stay
/// with root. A directory that is there already is given when it is root's and empty, such as a mount point.
///
/// # Errors
/// Why it is not done, in a sentence for the administrator.
pub fn make(path: &Path, uid: u32, gid: u32) -> Result<(), String> {
    let refuse = |why: &str| {
        format!(
            "unable to make the directory {path:?} for the service user - {why}; make it by hand and give it to that user"
        )
    };
    check_place(path).map_err(|why| refuse(&why))?;
    let failed = |at: &Path, err: rustix::io::Errno| match err {
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => refuse(&format!(
            "{at:?} is a symbolic link or no directory, and links are not followed here (name the real path)"
        )),
        err => refuse(&format!("{at:?}: {}", io::Error::from(err))),
    };
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = Path::new("/").to_path_buf();
    let mut dir = rustix::fs::open("/", flags, Mode::empty()).map_err(|err| failed(&at, err))?;
    let names: Vec<&OsStr> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    for (index, name) in names.iter().enumerate() {
        let is_last = index + 1 == names.len();
        at.push(name);
        let opened = match rustix::fs::openat(&dir, *name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&dir, *name, Mode::from(0o755))
                    .map_err(|err| failed(&at, err))?;
                rustix::fs::openat(&dir, *name, flags, Mode::empty())
            }
            opened => opened,
        };
        let opened = opened.map_err(|err| failed(&at, err))?;
        let found = rustix::fs::fstat(&opened).map_err(|err| failed(&at, err))?;
        if !is_last {
            check_above(&found, uid).map_err(|why| refuse(&format!("{at:?} {why}")))?;
        } else if found.st_uid != uid {
            check_free(&opened, &found).map_err(|why| refuse(&why))?;
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::fchown(&opened, Some(uid), Some(gid)).map_err(|err| failed(&at, err))?;
        }
        // Durable, so that the datastore does not lose its directory after it was entered in the configuration.
        File::from(dir).sync_all().ok();
        dir = opened;
    }
    Ok(())
}

fn check_place(path: &Path) -> Result<(), String> {
    let mut parts = path.components();
    let (Some(Component::RootDir), Some(Component::Normal(top))) = (parts.next(), parts.next())
    else {
        return Err("it is no absolute path below /".to_owned());
    };
    if path
        .components()
        .any(|part| matches!(part, Component::ParentDir))
    {
        return Err("it holds '..'".to_owned());
    }
    let in_var = top == "var" && !OURS_IN_VAR.iter().any(|ours| path.starts_with(ours));
    if in_var || SYSTEM.iter().any(|system| top == *system) {
        return Err("it is in a place of the operating system".to_owned());
    }
    Ok(())
}

/// A directory on the way must be one that only root or the service user can change.
fn check_above(found: &Stat, uid: u32) -> Result<(), &'static str> {
    if found.st_uid != 0 && found.st_uid != uid {
        return Err("belongs to somebody else");
    }
    if Mode::from_raw_mode(found.st_mode).contains(Mode::WOTH) {
        return Err("can be written by everybody");
    }
    Ok(())
}

/// Only what is root's and empty is given away.
fn check_free(opened: &OwnedFd, found: &Stat) -> Result<(), String> {
    if found.st_uid != 0 {
        return Err("it belongs to somebody else".to_owned());
    }
    let entries = Dir::read_from(opened.as_fd()).map_err(|err| io::Error::from(err).to_string())?;
    for entry in entries {
        let entry = entry.map_err(|err| io::Error::from(err).to_string())?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") && name != LOST_AND_FOUND.as_bytes() {
            return Err("it belongs to root and is not empty".to_owned());
        }
    }
    Ok(())
}

/// Gives what belongs to root among the files and directories below `top` to `uid` and `gid`; the modes stay, and so does a
/// group other than root's. Only up to `depth` levels of directories are looked at. Symbolic links, files with more than one
/// name and other file systems are left alone: they may be doors to somewhere else.
///
/// # Errors
/// When a directory cannot be read or something cannot be given away.
pub(crate) fn hand_over(top: &Path, depth: usize, uid: u32, gid: u32) -> io::Result<()> {
    let named = |err: rustix::io::Errno| {
        let err = io::Error::from(err);
        io::Error::new(
            err.kind(),
            format!("unable to give {top:?} to the service user - {err}"),
        )
    };
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::open(top, flags, Mode::empty()).map_err(named)?;
    let found = rustix::fs::fstat(&dir).map_err(named)?;
    give(&dir, &found, uid, gid).map_err(named)?;
    hand_over_below(&dir, found.st_dev, depth, uid, gid).map_err(named)
}

fn hand_over_below(
    dir: &OwnedFd,
    device: u64,
    depth: usize,
    uid: u32,
    gid: u32,
) -> rustix::io::Result<()> {
    let names: Vec<_> = Dir::read_from(dir)?
        .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
        .collect::<Result<_, _>>()?;
    for name in names {
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match rustix::fs::openat(dir, name.as_c_str(), flags, Mode::empty()) {
            // Something else may be tidying up.
            Err(rustix::io::Errno::NOENT) => continue,
            opened => opened?,
        };
        let found = rustix::fs::fstat(&opened)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile if found.st_nlink == 1 => give(&opened, &found, uid, gid)?,
            FileType::Directory if found.st_dev == device && depth > 0 => {
                give(&opened, &found, uid, gid)?;
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = rustix::fs::openat(&opened, c".", flags, Mode::empty())?;
                hand_over_below(&below, device, depth - 1, uid, gid)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn give(file: &OwnedFd, found: &Stat, uid: u32, gid: u32) -> rustix::io::Result<()> {
    if found.st_uid != 0 {
        return Ok(());
    }
    let gid = if found.st_gid == 0 { gid } else { found.st_gid };
    rustix::fs::chownat(
        file,
        c"",
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
        AtFlags::EMPTY_PATH,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;

    fn is_root() -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            println!("skipped: not root (ownership)");
        }
        root
    }

    fn owner(path: &Path) -> (u32, u32, u32) {
        let found = fs::symlink_metadata(path).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o7777)
    }

    /// A directory in a place of root's that is not one of the operating system, and that nobody else can write.
    fn place() -> Option<(tempfile::TempDir, PathBuf)> {
        if !is_root() {
            return None;
        }
        let Ok(dir) = tempfile::tempdir_in("/") else {
            println!("skipped: the root directory cannot be written");
            return None;
        };
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().to_owned();
        Some((dir, path))
    }

    #[test]
    fn a_new_directory_is_the_service_users_and_those_above_it_are_roots() {
        let Some((_dir, place)) = place() else {
            return;
        };
        let path = place.join("a/b/store1");
        make(&path, 34, 35).unwrap();
        make(&path, 34, 35).unwrap();
        assert_eq!(owner(&path), (34, 35, 0o755));
        assert_eq!(owner(&place.join("a/b")), (0, 0, 0o755));
        let mounted = place.join("mounted");
        fs::create_dir_all(mounted.join("lost+found")).unwrap();
        make(&mounted, 34, 35).unwrap();
        assert_eq!(owner(&mounted), (34, 35, 0o755));
    }

    #[test]
    fn nothing_that_holds_something_or_is_somebody_elses_is_given_away() {
        let Some((_dir, place)) = place() else {
            return;
        };
        let full = place.join("full");
        fs::create_dir_all(full.join("x")).unwrap();
        let others = place.join("others");
        fs::create_dir(&others).unwrap();
        std::os::unix::fs::chown(&others, Some(1234), None).unwrap();
        let open = place.join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
        symlink(&full, place.join("link")).unwrap();
        fs::write(place.join("file"), "").unwrap();
        for (path, why) in [
            ("full", "not empty"),
            ("others", "somebody else"),
            ("others/x", "belongs to somebody else"),
            ("open/x", "written by everybody"),
            ("link", "symbolic link"),
            ("link/y", "symbolic link"),
            ("file", "no directory"),
            ("file/y", "no directory"),
        ] {
            let err = make(&place.join(path), 34, 35).unwrap_err();
            assert!(err.contains(why), "{path}: {err}");
            assert!(err.contains("make it by hand"), "{err}");
        }
        assert_eq!(owner(&full).0, 0);
        assert!(!full.join("y").exists());
        for path in [
            "/etc/x",
            "/usr/share/x",
            "/var/spool/x",
            "/root",
            "/",
            "x",
            "/srv/../etc/x",
        ] {
            assert!(make(Path::new(path), 34, 35).is_err(), "{path}");
        }
    }

    #[test]
    fn a_hand_over_gives_roots_files_keeps_modes_and_follows_nothing() {
        if !is_root() {
            return;
        }
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let top = dir.path();
        let write = |name: &str, mode: u32| {
            let path = top.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let secret = write("shadow.json", 0o600);
        let grouped = write("user.cfg", 0o640);
        std::os::unix::fs::chown(&grouped, None, Some(77)).unwrap();
        let others = write("others", 0o640);
        std::os::unix::fs::chown(&others, Some(1234), Some(1234)).unwrap();
        let deep = write("acme/accounts/a", 0o600);
        let too_deep = write("1/2/3/4", 0o600);
        let outside = other.path().join("outside");
        fs::write(&outside, "x").unwrap();
        symlink(&outside, top.join("link")).unwrap();
        fs::hard_link(&outside, top.join("hard")).unwrap();
        hand_over(top, 2, 34, 35).unwrap();
        assert_eq!(owner(&secret), (34, 35, 0o600));
        assert_eq!(owner(&grouped), (34, 77, 0o640));
        assert_eq!(owner(&others), (1234, 1234, 0o640));
        assert_eq!(owner(&deep), (34, 35, 0o600));
        assert_eq!(owner(&too_deep).0, 0);
        assert_eq!(owner(&outside).0, 0);
        assert_eq!(owner(&top.join("link")).0, 0);
        assert_eq!(owner(top).0, 34);
    }
}
