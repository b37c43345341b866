//! Lines that describe the entries of archives: paths, modes, sizes and times.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use backstop_format::pxar::entry::{
    Entry, EntryKind, MODE_BLOCK, MODE_CHAR, MODE_DIRECTORY, MODE_FIFO, MODE_FILE, MODE_SOCKET,
    MODE_SYMLINK, Stat,
};

use crate::output::time;

/// A path in quotes, with what cannot be printed escaped.
pub fn quoted(path: &[u8]) -> String {
    format!("{:?}", OsStr::from_bytes(path))
}

/// `drwxr-xr-x`.
pub fn mode_text(stat: &Stat, hardlink: bool) -> String {
    let kind = match stat.file_type() {
        _ if hardlink => 'L',
        MODE_DIRECTORY => 'd',
        MODE_FILE => '-',
        MODE_SYMLINK => 'l',
        MODE_BLOCK => 'b',
        MODE_CHAR => 'c',
        MODE_FIFO => 'p',
        MODE_SOCKET => 's',
        _ => '?',
    };
    let permissions = stat.permissions();
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = permissions >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, permissions & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// The letter that catalogs have for an entry.
pub fn kind_letter(entry: &Entry) -> char {
    match entry.kind {
        EntryKind::Directory => 'd',
        EntryKind::File { .. } => 'f',
        EntryKind::Symlink(_) => 'l',
        EntryKind::Hardlink { .. } => 'h',
        EntryKind::Device(_) if entry.metadata.stat.file_type() == MODE_BLOCK => 'b',
        EntryKind::Device(_) => 'c',
        EntryKind::Fifo => 'p',
        EntryKind::Socket => 's',
    }
}

/// Follows a walk through an archive and makes a line of each entry.
pub struct Lister {
    detailed: bool,
    path: Vec<u8>,
    /// Length of the path of each open directory.
    open: Vec<usize>,
}

impl Lister {
    /// A lister of paths, or of everything that is known about the entries.
    pub fn new(detailed: bool) -> Self {
        Self {
            detailed,
            path: Vec::new(),
            open: Vec::new(),
        }
    }

    /// The path of an entry from the root of the archive, which is `/`; directories are entered.
    pub fn path(&mut self, entry: &Entry) -> Vec<u8> {
        let parent = self.open.last().copied().unwrap_or(0);
        self.path.truncate(parent);
        if !entry.name.is_empty() {
            self.path.push(b'/');
            self.path.extend_from_slice(&entry.name);
        }
        if entry.kind == EntryKind::Directory {
            self.open.push(self.path.len());
        }
        match self.path.as_slice() {
            [] => b"/".to_vec(),
            path => path.to_vec(),
        }
    }

    /// The line of an entry.
    pub fn enter(&mut self, entry: &Entry) -> String {
        let path = quoted(&self.path(entry));
        if !self.detailed {
            return format!("{path}\n");
        }
        let stat = &entry.metadata.stat;
        let (hardlink, size, link) = match &entry.kind {
            EntryKind::File { size, .. } => (false, size.to_string(), None),
            EntryKind::Device(device) => {
                (false, format!("{},{}", device.major, device.minor), None)
            }
            EntryKind::Symlink(target) => (false, "0".to_string(), Some(target)),
            EntryKind::Hardlink { target, .. } => (true, "0".to_string(), Some(target)),
            _ => (false, "0".to_string(), None),
        };
        let acl = if entry.metadata.acl.is_empty() {
            ' '
        } else {
            '+'
        };
        let xattrs = match entry.metadata.xattrs.is_empty() && entry.metadata.fcaps.is_none() {
            true => ' ',
            false => '+',
        };
        let owner = format!("{}/{}", stat.uid, stat.gid);
        let link = link
            .map(|target| format!(" -> {}", quoted(target)))
            .unwrap_or_default();
        format!(
            "{}{acl}{xattrs} {owner:<13} {} {size:>8} {path}{link}\n",
            mode_text(stat, hardlink),
            time::plain(stat.mtime.seconds),
        )
    }

    /// The directory that was entered last ends.
    pub fn leave(&mut self) {
        self.open.pop();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use backstop_format::pxar::entry::{Metadata, Timestamp};

    use super::*;

    fn entry(name: &str, mode: u64, kind: EntryKind) -> Entry {
        Entry {
            name: name.into(),
            metadata: Metadata::new(mode, Timestamp::from_seconds(0)),
            kind,
        }
    }

    #[test]
    fn paths_follow_the_walk_through_directories() {
        let mut lister = Lister::new(false);
        let directory = |name| entry(name, 0o40755, EntryKind::Directory);
        assert_eq!(lister.enter(&directory("")), "\"/\"\n");
        assert_eq!(lister.enter(&directory("a")), "\"/a\"\n");
        assert_eq!(
            lister.enter(&entry("x\n", 0o140644, EntryKind::Socket)),
            "\"/a/x\\n\"\n"
        );
        lister.leave();
        assert_eq!(
            lister.enter(&entry("b", 0o10644, EntryKind::Fifo)),
            "\"/b\"\n"
        );
        lister.leave();
        lister.leave();
        assert_eq!(lister.enter(&directory("c")), "\"/c\"\n");
    }

    #[test]
    fn modes_show_kind_permissions_and_special_bits() {
        let text = |mode, hardlink| {
            mode_text(
                &Metadata::new(mode, Timestamp::from_seconds(0)).stat,
                hardlink,
            )
        };
        assert_eq!(text(0o40755, false), "drwxr-xr-x");
        assert_eq!(text(0o106_711, false), "-rws--s--x");
        assert_eq!(text(0o41_666, false), "drw-rw-rwT");
        assert_eq!(text(0o100_644, true), "Lrw-r--r--");
    }

    #[test]
    fn details_name_link_targets() {
        let mut lister = Lister::new(true);
        let line = lister.enter(&entry("l", 0o120_777, EntryKind::Symlink(b"to".to_vec())));
        assert!(
            line.starts_with("lrwxrwxrwx   0/0           1970-01-01 "),
            "{line}"
        );
        assert!(line.ends_with("        0 \"/l\" -> \"to\"\n"), "{line}");
    }
}
