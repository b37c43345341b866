//! Directory trees for tests: building, describing and archiving them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Mutex;

use backstop_client::activity::Activity;
use backstop_client::archive::{
    CreateOptions, CreateSummary, PlainPayload, create_split, create_unified,
};
use backstop_format::catalog::CatalogWriter;
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

/// Remembers all lines.
#[derive(Default)]
pub struct Lines(Mutex<Vec<String>>);

impl Activity for Lines {
    fn info(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }

    fn warn(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

impl Lines {
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// Everything about an object that a restore has to bring back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub device: u64,
    pub content: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub flags: u32,
    /// Path of the first name of the same file.
    pub same_as: Option<Vec<u8>>,
}

/// Describes the tree below `root`; keys are paths.
pub fn describe(root: &Path) -> BTreeMap<Vec<u8>, Description> {
    let mut found = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut open = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let full = root.join(OsStr::from_bytes(&path));
        let stat = fs::symlink_metadata(&full).unwrap();
        let kind = stat.file_type();
        let content = if kind.is_file() {
            fs::read(&full).unwrap()
        } else if kind.is_symlink() {
            fs::read_link(&full)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec()
        } else {
            Vec::new()
        };
        if kind.is_dir() {
            let mut names: Vec<_> = fs::read_dir(&full)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            for name in names.iter().rev() {
                let mut child = path.clone();
                if !child.is_empty() {
                    child.push(b'/');
                }
                child.extend_from_slice(name.as_bytes());
                open.push(child);
            }
        }
        let mut xattrs = BTreeMap::new();
        let mut buffer = vec![0; 65536];
        if let Ok(length) = rustix::fs::llistxattr(&full, &mut buffer[..]) {
            let names = buffer[..length].to_vec();
            for name in names.split(|&b| b == 0).filter(|name| !name.is_empty()) {
                let length = rustix::fs::lgetxattr(&full, name, &mut buffer[..]).unwrap();
                xattrs.insert(name.to_vec(), buffer[..length].to_vec());
            }
        }
        let flags = if kind.is_file() || kind.is_dir() {
            let file = fs::File::open(&full).unwrap();
            let mask = 0x20 | 0x80 | 0x4 | 0x80_0000 | 0x40 | 0x1_0000 | 0x10 | 0x8 | 0x400;
            rustix::fs::ioctl_getflags(&file).map_or(0, |flags| flags.bits() & mask)
        } else {
            0
        };
        let mut same_as = None;
        if stat.nlink() > 1 && kind.is_file() {
            let first = inodes
                .entry((stat.dev(), stat.ino()))
                .or_insert_with(|| path.clone());
            same_as = (*first != path).then(|| first.clone());
        }
        found.insert(
            path,
            Description {
                mode: stat.mode(),
                owner: (stat.uid(), stat.gid()),
                mtime: (stat.mtime(), stat.mtime_nsec()),
                device: stat.rdev(),
                content,
                xattrs,
                flags,
                same_as,
            },
        );
    }
    found
}

pub fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos as _,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

pub fn make_node(path: &Path, kind: FileType, device: u64) {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).unwrap();
}

/// Archives `source` as version 1, with its catalog.
pub fn unified(
    source: &Path,
    options: &CreateOptions,
    lines: &Lines,
) -> (CreateSummary, Vec<u8>, Vec<u8>) {
    let mut catalog = CatalogWriter::new(Vec::new()).unwrap();
    catalog.start_directory(b"root.pxar.didx").unwrap();
    let (summary, archive) =
        create_unified(source, options, Vec::new(), Some(&mut catalog), lines).unwrap();
    catalog.end_directory().unwrap();
    (summary, archive, catalog.finish().unwrap())
}

/// Archives `source` as a split archive without re-use.
pub fn split(source: &Path, options: &CreateOptions, lines: &Lines) -> (Vec<u8>, Vec<u8>) {
    let payload = PlainPayload(Vec::new());
    let (_, metadata, payload) =
        create_split(source, options, Vec::new(), payload, None, lines).unwrap();
    (metadata, payload.0)
}
