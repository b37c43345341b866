//! Trees to back up.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use crate::random::Random;

/// Fills `root` with at least one entry of every kind that a backup stores.
///
/// Device nodes, foreign owners, file capabilities and `trusted.*` attributes are made only by root.
///
/// # Errors
///
/// When something cannot be created.
pub fn every_kind(root: &Path) -> io::Result<()> {
    let mut random = Random::new(1);
    fs::create_dir_all(root.join("deep/deeper/deepest"))?;
    fs::create_dir(root.join("empty-folder"))?;
    fs::write(root.join("regular"), random.text(300_000))?;
    fs::write(root.join("random"), random.bytes(5_000_000))?;
    fs::write(root.join("empty"), b"")?;
    fs::write(root.join("deep/deeper/deepest/file"), b"at the bottom")?;
    fs::hard_link(root.join("regular"), root.join("deep/hard-link"))?;
    symlink("../regular", root.join("deep/link"))?;
    symlink("/nowhere/at/all", root.join("dangling"))?;
    fs::write(root.join(OsStr::from_bytes(b"not-utf8-\xff\xfe")), b"bytes")?;
    fs::write(root.join("new\nline \"quoted\" \\"), b"name")?;

    let sparse = File::create(root.join("sparse"))?;
    sparse.set_len(9 << 20)?;
    sparse.write_all_at(b"island", 5 << 20)?;
    drop(sparse);

    rustix::fs::mknodat(
        CWD,
        root.join("fifo"),
        FileType::Fifo,
        Mode::from_raw_mode(0o620),
        0,
    )?;
    rustix::fs::mknodat(
        CWD,
        root.join("socket"),
        FileType::Socket,
        Mode::from_raw_mode(0o600),
        0,
    )?;
    for (name, mode) in [
        ("executable", 0o755),
        ("setuid", 0o4711),
        ("secret", 0o600),
        ("unreadable-bits", 0o000),
    ] {
        fs::write(root.join(name), name)?;
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode))?;
    }
    fs::set_permissions(
        root.join("empty-folder"),
        fs::Permissions::from_mode(0o2775),
    )?;

    let attribute = |name: &str, key: &str, value: &[u8]| match rustix::fs::setxattr(
        root.join(name),
        key,
        value,
        XattrFlags::empty(),
    ) {
        // tmpfs of older kernels has no user attributes
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        other => other.map_err(io::Error::from),
    };
    attribute("regular", "user.comment", b"kept")?;
    attribute("regular", "user.binary", &[0, 1, 2, 255])?;
    attribute("deep", "user.comment", b"on a folder")?;
    attribute(
        "executable",
        "system.posix_acl_access",
        &acl(&[(1, 7), (2, 6), (4, 5), (16, 7), (32, 5)]),
    )?;
    attribute(
        "deep",
        "system.posix_acl_default",
        &acl(&[(1, 7), (2, 5), (4, 5), (16, 5), (32, 0)]),
    )?;
    if crate::is_root() {
        attribute("executable", "trusted.note", b"root only")?;
        // cap_net_bind_service, effective and permitted, revision 2
        let capability: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        attribute("executable", "security.capability", &capability)?;
        std::os::unix::fs::chown(root.join("secret"), Some(1234), Some(2345))?;
        std::os::unix::fs::lchown(root.join("dangling"), Some(1234), Some(2345))?;
        let device = rustix::fs::makedev(1, 3);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(
            CWD,
            root.join("char-device"),
            FileType::CharacterDevice,
            mode,
            device,
        )?;
        let device = rustix::fs::makedev(7, 300);
        rustix::fs::mknodat(
            CWD,
            root.join("block-device"),
            FileType::BlockDevice,
            mode,
            device,
        )?;
    }
    for (name, seconds) in [
        ("regular", 1_000_000_000),
        ("empty", 1),
        ("deep", 1_234_567_890),
    ] {
        let time = UNIX_EPOCH + Duration::new(seconds, 123_456_789);
        File::open(root.join(name))?.set_modified(time)?;
    }
    Ok(())
}

/// A POSIX ACL as the kernel stores it: pairs of tag and permissions; the named user entry is for uid 33.
fn acl(entries: &[(u16, u16)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        let id = if *tag == 2 { 33u32 } else { u32::MAX };
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// Fills `root` with `files` files of mixed sizes and contents, `mebibytes` in all.
///
/// Two thirds of the bytes compress, one third does not. Equal arguments give equal trees.
///
/// # Errors
///
/// When something cannot be created.
pub fn mixed(root: &Path, seed: u64, files: usize, mebibytes: usize) -> io::Result<()> {
    let mut random = Random::new(seed);
    let average = (mebibytes << 20) / files.max(1);
    for number in 0..files {
        let folder = root.join(format!("folder-{:03}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&folder)?;
        }
        let size = random.below(2 * average as u64) as usize;
        let content = if random.below(3) == 0 {
            random.bytes(size)
        } else {
            random.text(size)
        };
        fs::write(folder.join(format!("file-{number:06}")), content)?;
    }
    Ok(())
}

/// Writes an image of `mebibytes` MiB: text, random bytes, repeated blocks and zeros.
///
/// # Errors
///
/// When the file cannot be written.
pub fn image(path: &Path, seed: u64, mebibytes: usize) -> io::Result<()> {
    let mut random = Random::new(seed);
    let file = File::create(path)?;
    file.set_len((mebibytes as u64) << 20)?;
    for number in 0..mebibytes {
        let block = match number % 8 {
            0..=3 => random.text(1 << 20),
            4..=5 => random.bytes(1 << 20),
            6 => Random::new(seed).text(1 << 20),
            _ => continue,
        };
        file.write_all_at(&block, (number as u64) << 20)?;
    }
    Ok(())
}
