//! Compares two directory trees: names, kinds, contents and metadata.
//!
//! Used to prove a restore. It must never follow a symlink and never change either tree.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What a comparison counted, and where the two trees differ.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Entries that both trees have.
    pub entries: u64,
    /// Bytes of file content that were compared.
    pub bytes: u64,
    /// One line for each difference: the path and what differs there.
    pub differences: Vec<String>,
}

/// What a comparison looks at besides names, kinds and contents.
#[derive(Debug, Clone, Copy, Default)]
pub struct Aspects<'a> {
    /// Compare owner and group. Only root can restore them.
    pub ownership: bool,
    /// Compare the modification time of the two top directories.
    pub top_directory: bool,
    /// Names in the top directory that are left out.
    pub skip: &'a [&'a str],
}

/// Bytes read at once from each of two files.
const BUFFER_SIZE: usize = 256 * 1024;
/// Differences after which a comparison stops looking: by then the answer is clear.
const MAX_DIFFERENCES: usize = 100;

/// Compares the trees below `left` and `right`.
///
/// Extended attributes that the kernel keeps for itself (`security.selinux` and its like) are left out:
/// a backup stores `user.*`, `trusted.*`, `security.NTACL`, file capabilities and POSIX ACLs.
///
/// # Errors
///
/// When an entry of either tree cannot be read.
pub fn compare(left: &Path, right: &Path, aspects: Aspects<'_>) -> io::Result<Comparison> {
    let mut walk = Walk {
        aspects,
        result: Comparison::default(),
        links: BTreeMap::new(),
    };
    walk.entry(Path::new(""), left, right)?;
    Ok(walk.result)
}

/// The state of one comparison.
struct Walk<'a> {
    aspects: Aspects<'a>,
    result: Comparison,
    /// Files of the left tree with several links, and the inode that each maps to on the right.
    links: BTreeMap<(u64, u64), (u64, u64)>,
}

impl Walk<'_> {
    fn differ(&mut self, path: &Path, what: impl std::fmt::Display) {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        self.result
            .differences
            .push(format!("{}: {what}", path.display()));
    }

    fn entry(&mut self, path: &Path, left: &Path, right: &Path) -> io::Result<()> {
        let (left_meta, right_meta) = (left.symlink_metadata()?, right.symlink_metadata()?);
        self.result.entries += 1;
        if left_meta.mode() != right_meta.mode() {
            self.differ(
                path,
                format_args!("mode {:o} became {:o}", left_meta.mode(), right_meta.mode()),
            );
            if left_meta.file_type() != right_meta.file_type() {
                return Ok(());
            }
        }
        self.metadata(path, &left_meta, &right_meta);
        self.attributes(path, left, right)?;
        let kind = left_meta.file_type();
        if kind.is_dir() {
            self.directory(path, left, right)?;
        } else if kind.is_file() {
            self.hard_link(path, &left_meta, &right_meta);
            self.content(path, left, right)?;
        } else if kind.is_symlink() {
            let (left_target, right_target) = (left.read_link()?, right.read_link()?);
            if left_target != right_target {
                self.differ(
                    path,
                    format_args!("target {left_target:?} became {right_target:?}"),
                );
            }
        } else if (kind.is_block_device() || kind.is_char_device())
            && left_meta.rdev() != right_meta.rdev()
        {
            self.differ(
                path,
                format_args!("device {} became {}", left_meta.rdev(), right_meta.rdev()),
            );
        }
        Ok(())
    }

    fn metadata(&mut self, path: &Path, left: &Metadata, right: &Metadata) {
        let top = path.as_os_str().is_empty();
        let mtime = |meta: &Metadata| (meta.mtime(), meta.mtime_nsec());
        if (!top || self.aspects.top_directory) && mtime(left) != mtime(right) {
            self.differ(
                path,
                format_args!("time {:?} became {:?}", mtime(left), mtime(right)),
            );
        }
        let owner = |meta: &Metadata| (meta.uid(), meta.gid());
        if self.aspects.ownership && owner(left) != owner(right) {
            self.differ(
                path,
                format_args!("owner {:?} became {:?}", owner(left), owner(right)),
            );
        }
    }

    fn attributes(&mut self, path: &Path, left: &Path, right: &Path) -> io::Result<()> {
        let (left, right) = (attributes(left)?, attributes(right)?);
        if left != right {
            let names = |map: &BTreeMap<OsString, Vec<u8>>| map.keys().cloned().collect::<Vec<_>>();
            self.differ(
                path,
                format_args!("attributes {:?} became {:?}", names(&left), names(&right)),
            );
        }
        Ok(())
    }

    fn directory(&mut self, path: &Path, left: &Path, right: &Path) -> io::Result<()> {
        let (mut left_names, mut right_names) = (names(left)?, names(right)?);
        if path.as_os_str().is_empty() {
            let kept = |name: &OsString| !self.aspects.skip.iter().any(|skipped| name == skipped);
            left_names.retain(kept);
            right_names.retain(kept);
        }
        for name in right_names
            .iter()
            .filter(|name| left_names.binary_search(name).is_err())
        {
            self.differ(&path.join(name), "is new");
        }
        for name in &left_names {
            if self.result.differences.len() > MAX_DIFFERENCES {
                return Ok(());
            }
            let below = path.join(name);
            if right_names.binary_search(name).is_ok() {
                self.entry(&below, &left.join(name), &right.join(name))?;
            } else {
                self.differ(&below, "is missing");
            }
        }
        Ok(())
    }

    /// Two names of one file on the left must be two names of one file on the right.
    fn hard_link(&mut self, path: &Path, left: &Metadata, right: &Metadata) {
        if left.nlink() < 2 {
            return;
        }
        let right_inode = (right.dev(), right.ino());
        let known = *self
            .links
            .entry((left.dev(), left.ino()))
            .or_insert(right_inode);
        if known != right_inode {
            self.differ(path, "is no longer the same file as its hard links");
        }
    }

    fn content(&mut self, path: &Path, left: &Path, right: &Path) -> io::Result<()> {
        let (mut left, mut right) = (File::open(left)?, File::open(right)?);
        let (mut left_buffer, mut right_buffer) = (vec![0; BUFFER_SIZE], vec![0; BUFFER_SIZE]);
        let mut offset = 0u64;
        loop {
            let left_count = fill(&mut left, &mut left_buffer)?;
            let right_count = fill(&mut right, &mut right_buffer)?;
            if left_buffer.get(..left_count) != right_buffer.get(..right_count) {
                self.differ(path, format_args!("content differs after byte {offset}"));
                return Ok(());
            }
            self.result.bytes += left_count as u64;
            offset += left_count as u64;
            if left_count < BUFFER_SIZE {
                return Ok(());
            }
        }
    }
}

/// Reads until `buffer` is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The names in a directory, sorted.
fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names = std::fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// The extended attributes of an entry that a backup stores.
fn attributes(path: &Path) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let list = match read_whole(|buffer| rustix::fs::llistxattr(path, buffer)) {
        Ok(list) => list,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(found),
        Err(error) => return Err(error.into()),
    };
    for name in list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let stored = name.starts_with(b"user.")
            || name.starts_with(b"trusted.")
            || name.starts_with(b"system.posix_acl_")
            || name == b"security.capability"
            || name == b"security.NTACL";
        if stored {
            let value = read_whole(|buffer| rustix::fs::lgetxattr(path, name, buffer))?;
            found.insert(OsStr::from_bytes(name).to_os_string(), value);
        }
    }
    Ok(found)
}

/// Calls `read` with a buffer of 64 KiB, the most that the kernel returns for one attribute or one list.
fn read_whole(
    read: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 64 * 1024];
    let count = read(&mut buffer)?;
    buffer.truncate(count);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::os::unix::fs::symlink;

    const ALL: Aspects<'static> = Aspects {
        ownership: true,
        top_directory: false,
        skip: &[],
    };

    fn tree(content: &[u8]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, content).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(time)
            .unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        File::open(dir.path().join("folder"))
            .unwrap()
            .set_modified(time)
            .unwrap();
        dir
    }

    #[test]
    fn equal_trees_do_not_differ() {
        let (left, right) = (tree(b"same"), tree(b"same"));
        let result = compare(left.path(), right.path(), ALL).unwrap();
        assert_eq!(result.differences, Vec::<String>::new());
        assert_eq!((result.entries, result.bytes), (3, 4));
    }

    #[test]
    fn one_changed_byte_is_found() {
        let (left, right) = (tree(b"same"), tree(b"sane"));
        let result = compare(left.path(), right.path(), ALL).unwrap();
        assert_eq!(result.differences, ["file: content differs after byte 0"]);
    }

    #[test]
    fn missing_new_and_changed_entries_are_found() {
        let (left, right) = (tree(b"same"), tree(b"same"));
        std::fs::remove_dir(right.path().join("folder")).unwrap();
        symlink("elsewhere", right.path().join("link")).unwrap();
        std::fs::write(right.path().join("file"), b"same").unwrap();
        let result = compare(left.path(), right.path(), ALL).unwrap();
        assert_eq!(result.differences.len(), 3, "{:?}", result.differences);
        assert!(
            result
                .differences
                .contains(&"folder: is missing".to_string())
        );
        assert!(result.differences.contains(&"link: is new".to_string()));
    }

    #[test]
    fn a_hard_link_that_became_a_copy_is_found() {
        let (left, right) = (tree(b"same"), tree(b"same"));
        std::fs::hard_link(left.path().join("file"), left.path().join("other")).unwrap();
        std::fs::copy(right.path().join("file"), right.path().join("other")).unwrap();
        let modified = right
            .path()
            .join("file")
            .metadata()
            .unwrap()
            .modified()
            .unwrap();
        File::options()
            .write(true)
            .open(right.path().join("other"))
            .unwrap()
            .set_modified(modified)
            .unwrap();
        let result = compare(left.path(), right.path(), ALL).unwrap();
        assert_eq!(
            result.differences,
            ["other: is no longer the same file as its hard links"]
        );
    }
}
