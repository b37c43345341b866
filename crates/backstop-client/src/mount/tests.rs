#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Promises of the tree that a mount shows, without a kernel.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, UNIX_EPOCH};

use backstop_format::pxar::encoder::Encoder;
use backstop_format::pxar::entry::{Acl, AclDefault, AclEntry, Device, Metadata, Timestamp, Xattr};
use backstop_format::read_at::ReadAt;
use parking_lot::Mutex;

use super::tree::{ArchiveTree, Attributes, Kind, ROOT, TreeError};
use crate::archive::acl;

fn metadata(mode: u64) -> Metadata {
    Metadata::new(mode, Timestamp::from_seconds(1_700_000_000))
}

/// Writes a tree with every kind of entry; `many` has 300 empty files.
fn fill<W: Write, P: Write>(mut encoder: Encoder<W, P>) -> (W, Option<P>) {
    let mut rich = metadata(0o100_640);
    rich.stat.uid = 1000;
    rich.stat.gid = 1001;
    rich.stat.mtime = Timestamp {
        seconds: -1,
        nanos: 999_999_999,
    };
    rich.xattrs = vec![Xattr {
        name: b"user.k".to_vec(),
        value: b"v\0w".to_vec(),
    }];
    rich.fcaps = Some(b"capabilities".to_vec());
    rich.acl = Acl {
        users: vec![AclEntry {
            id: 33,
            permissions: 6,
        }],
        group_obj: Some(0),
        ..Acl::default()
    };
    let mut writer = encoder.create_file(&rich, b"a.txt", 6).unwrap();
    writer.write_all(b"hello\n").unwrap();
    let link = writer.finish().unwrap();
    encoder.add_hardlink(b"b", b"a.txt", link).unwrap();
    let device = Device {
        major: 7,
        minor: 300,
    };
    encoder
        .add_device(&metadata(0o060_660), b"block", device)
        .unwrap();
    let device = Device { major: 5, minor: 1 };
    encoder
        .add_device(&metadata(0o020_666), b"char", device)
        .unwrap();
    let mut directory = metadata(0o042_755);
    directory.acl.default = Some(AclDefault {
        user_obj: Some(7),
        group_obj: Some(5),
        other: Some(0),
        mask: None,
    });
    encoder.create_directory(&directory, b"dir").unwrap();
    encoder
        .add_symlink(&metadata(0o120_777), b"ln", b"../a.txt")
        .unwrap();
    encoder.add_hardlink(b"third", b"a.txt", link).unwrap();
    encoder.finish_directory().unwrap();
    let mut writer = encoder
        .create_file(&metadata(0o100_644), b"large", 100_000)
        .unwrap();
    writer.write_all(&pattern()).unwrap();
    writer.finish().unwrap();
    encoder
        .create_directory(&metadata(0o040_700), b"many")
        .unwrap();
    for number in 0..300 {
        let name = format!("file-{number:03}");
        let writer = encoder
            .create_file(&metadata(0o100_600), name.as_bytes(), 0)
            .unwrap();
        writer.finish().unwrap();
    }
    encoder.finish_directory().unwrap();
    encoder.add_special(&metadata(0o010_600), b"pipe").unwrap();
    encoder
        .add_special(&metadata(0o140_600), b"socket")
        .unwrap();
    encoder.finish().unwrap()
}

fn pattern() -> Vec<u8> {
    (0..100_000_u32).map(|at| (at / 7) as u8).collect()
}

fn unified_bytes() -> Vec<u8> {
    fill(Encoder::new(Vec::new(), &metadata(0o040_755)).unwrap()).0
}

fn split_bytes() -> (Vec<u8>, Vec<u8>) {
    let encoder = Encoder::split(Vec::new(), Vec::new(), &metadata(0o040_755), Some(b"{}"));
    let (archive, payload) = fill(encoder.unwrap());
    (archive, payload.unwrap())
}

fn split() -> ArchiveTree<Vec<u8>, Vec<u8>> {
    let (archive, payload) = split_bytes();
    ArchiveTree::split(archive, payload).unwrap()
}

/// The same tree in both forms.
fn both() -> [ArchiveTree<Vec<u8>, Vec<u8>>; 2] {
    [ArchiveTree::unified(unified_bytes()).unwrap(), split()]
}

fn find<R: ReadAt, P: ReadAt>(tree: &ArchiveTree<R, P>, path: &str) -> Attributes {
    let mut found = tree.attributes(ROOT).unwrap();
    for name in path.split('/') {
        found = tree
            .lookup(found.inode, name.as_bytes())
            .unwrap()
            .expect(path);
    }
    found
}

/// What is listed from `offset`, at most `room` lines: name, inode and where to go on.
fn lines<R: ReadAt, P: ReadAt>(
    tree: &ArchiveTree<R, P>,
    directory: u64,
    offset: u64,
    room: usize,
) -> Vec<(String, u64, u64)> {
    let mut found = Vec::new();
    tree.list(directory, offset, false, |line| {
        let name = String::from_utf8_lossy(line.name).into_owned();
        let fits = found.len() < room;
        if fits {
            found.push((name, line.attributes.inode, line.next));
        }
        fits
    })
    .unwrap();
    found
}

#[test]
fn every_kind_of_entry_is_shown_as_it_was_stored() {
    for tree in both() {
        let kinds = [
            ("a.txt", Kind::File, 0o640, 6, 0),
            ("b", Kind::File, 0o640, 6, 0),
            (
                "block",
                Kind::BlockDevice,
                0o660,
                0,
                rustix::fs::makedev(7, 300),
            ),
            (
                "char",
                Kind::CharDevice,
                0o666,
                0,
                rustix::fs::makedev(5, 1),
            ),
            ("dir", Kind::Directory, 0o2755, 0, 0),
            ("dir/ln", Kind::Symlink, 0o777, 8, 0),
            ("large", Kind::File, 0o644, 100_000, 0),
            ("pipe", Kind::Fifo, 0o600, 0, 0),
            ("socket", Kind::Socket, 0o600, 0, 0),
        ];
        for (path, kind, permissions, size, device) in kinds {
            let found = find(&tree, path);
            assert_eq!(
                (found.kind, found.permissions),
                (kind, permissions),
                "{path}"
            );
            assert_eq!(
                (found.size, u64::from(found.device)),
                (size, device),
                "{path}"
            );
            assert_eq!(tree.attributes(found.inode).unwrap(), found);
        }
        let rich = find(&tree, "a.txt");
        assert_eq!((rich.uid, rich.gid), (1000, 1001));
        assert_eq!(rich.modified, UNIX_EPOCH - Duration::from_nanos(1));
        let link = find(&tree, "dir/ln").inode;
        assert_eq!(tree.link_target(link).unwrap(), b"../a.txt");
        assert!(tree.lookup(ROOT, b"nothing").unwrap().is_none());
    }
}

#[test]
fn all_names_of_a_file_are_one_inode() {
    for tree in both() {
        let inode = find(&tree, "a.txt").inode;
        assert_eq!(find(&tree, "b").inode, inode);
        assert_eq!(find(&tree, "dir/third").inode, inode);
        assert_eq!(tree.read(inode, 0, 100).unwrap(), b"hello\n");
        let listed = lines(&tree, ROOT, 0, usize::MAX);
        let names: Vec<&str> = listed
            .iter()
            .filter(|line| line.1 == inode)
            .map(|line| line.0.as_str())
            .collect();
        assert_eq!(names, ["a.txt", "b"]);
    }
}

#[test]
fn attributes_are_those_of_the_original() {
    for tree in both() {
        let file = find(&tree, "a.txt").inode;
        let names = tree.attribute_names(file).unwrap();
        assert_eq!(
            names,
            b"user.k\0security.capability\0system.posix_acl_access\0"
        );
        let value = |name: &str| tree.attribute(file, name.as_bytes()).unwrap();
        assert_eq!(value("user.k").unwrap(), b"v\0w");
        assert_eq!(value("security.capability").unwrap(), b"capabilities");
        assert_eq!(value("user.other"), None);
        assert_eq!(value(acl::DEFAULT), None);
        let mut access = Acl::default();
        assert!(acl::read_access(&value(acl::ACCESS).unwrap(), &mut access));
        assert_eq!((access.users.len(), access.group_obj), (1, Some(0)));

        let directory = find(&tree, "dir").inode;
        let names = tree.attribute_names(directory).unwrap();
        assert_eq!(names, b"system.posix_acl_default\0");
        assert!(
            tree.attribute(directory, acl::DEFAULT.as_bytes())
                .unwrap()
                .is_some()
        );
        assert!(
            tree.attribute_names(find(&tree, "large").inode)
                .unwrap()
                .is_empty()
        );
    }
}

#[test]
fn any_range_of_a_file_can_be_read() {
    for tree in both() {
        let (inode, content) = (find(&tree, "large").inode, pattern());
        for (offset, length) in [
            (0, 100_000),
            (0, 1),
            (99_999, 1),
            (5000, 70_000),
            (90_000, 50_000),
        ] {
            let end = content.len().min(offset + length);
            let read = tree.read(inode, offset as u64, length as u32).unwrap();
            assert!(read == content[offset..end], "{offset} {length}");
        }
        assert!(tree.read(inode, 100_000, 10).unwrap().is_empty());
        assert!(tree.read(inode, u64::MAX, u32::MAX).unwrap().is_empty());
        assert!(tree.read(ROOT, 0, 10).is_err());
    }
}

#[test]
fn a_listing_goes_on_where_it_stopped() {
    for tree in both() {
        for (path, count) in [("dir", 2), ("many", 300)] {
            let directory = find(&tree, path).inode;
            let all = lines(&tree, directory, 0, usize::MAX);
            assert_eq!(all.len(), count + 2);
            assert_eq!((&*all[0].0, all[0].1), (".", directory));
            assert_eq!((&*all[1].0, all[1].1), ("..", ROOT));
            assert!(all[2..].is_sorted());
            let mut offset = 0;
            for (at, line) in all.iter().enumerate() {
                let part = lines(&tree, directory, offset, 1 + at % 3);
                assert_eq!(&part[0], line);
                offset = line.2;
            }
            assert!(lines(&tree, directory, offset, usize::MAX).is_empty());
            assert!(lines(&tree, directory, u64::MAX, usize::MAX).is_empty());
        }
    }
}

#[test]
fn what_is_listed_is_known_until_it_is_forgotten() {
    let tree = split();
    let directory = find(&tree, "many").inode;
    let mut listed = Vec::new();
    tree.list(directory, 0, true, |line| {
        listed.push(line.attributes.inode);
        listed.len() < 12
    })
    .unwrap();
    let (refused, kept) = (listed.pop().unwrap(), listed.split_off(2));
    // The directory itself was looked up; its own two lines and the refused one do not count.
    assert_eq!(tree.known(), 1 + kept.len());
    assert!(matches!(
        tree.forget_decoded().attributes(refused),
        Err(TreeError::UnknownInode(_))
    ));
}

#[test]
fn the_kernel_may_forget_in_parts() {
    let tree = split();
    let inode = find(&tree, "a.txt").inode;
    find(&tree, "b");
    find(&tree, "a.txt");
    tree.forget(inode, 2);
    assert_eq!(tree.known(), 1);
    tree.forget(inode, 1);
    tree.forget(inode, 1);
    tree.forget(ROOT, 1);
    assert_eq!(tree.known(), 0);
    assert_eq!(find(&tree, "a.txt").inode, inode);
}

#[test]
fn entries_are_found_again_after_the_caches_dropped_them() {
    for tree in both() {
        let paths = [
            "a.txt",
            "b",
            "block",
            "char",
            "dir/ln",
            "dir/third",
            "large",
            "pipe",
            "socket",
        ];
        let found = paths.map(|path| find(&tree, path));
        let directory = find(&tree, "dir").inode;
        let tree = tree.forget_decoded();
        for attributes in found {
            assert_eq!(tree.attributes(attributes.inode).unwrap(), attributes);
        }
        assert_eq!(lines(&tree, directory, 2, 9).len(), 2);
    }
}

/// Asks everything about everything; errors are fine.
fn explore(tree: &ArchiveTree<Vec<u8>, Vec<u8>>) {
    let mut pending = vec![(ROOT, 0)];
    let mut budget = 2000;
    while let Some((directory, depth)) = pending.pop() {
        let mut found = Vec::new();
        let _ = tree.list(directory, 0, true, |line| {
            budget -= 1;
            if ![&b"."[..], b".."].contains(&line.name) {
                found.push((line.name.to_vec(), line.attributes));
            }
            budget > 0
        });
        for (name, attributes) in found {
            let _ = tree.lookup(directory, &name);
            let _ = tree.attribute_names(attributes.inode);
            let _ = tree.attribute(attributes.inode, b"system.posix_acl_access");
            let _ = tree.link_target(attributes.inode);
            let _ = tree.read(attributes.inode, 0, 1 << 20);
            let _ = tree.path(attributes.inode);
            if attributes.kind == Kind::Directory && depth < 20 {
                pending.push((attributes.inode, depth + 1));
            }
        }
        if budget <= 0 {
            return;
        }
    }
}

/// A small archive, so that every byte of it can be damaged in turn.
fn small() -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), &metadata(0o040_755)).unwrap();
    let mut writer = encoder.create_file(&metadata(0o100_644), b"f", 2).unwrap();
    writer.write_all(b"hi").unwrap();
    let link = writer.finish().unwrap();
    encoder
        .create_directory(&metadata(0o040_755), b"d")
        .unwrap();
    encoder.add_hardlink(b"h", b"f", link).unwrap();
    encoder
        .add_symlink(&metadata(0o120_777), b"s", b"f")
        .unwrap();
    encoder.finish_directory().unwrap();
    let device = Device { major: 5, minor: 1 };
    encoder
        .add_device(&metadata(0o020_666), b"t", device)
        .unwrap();
    encoder.finish().unwrap().0
}

#[test]
fn damaged_archives_are_explored_without_a_panic() {
    let good = small();
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0xff, good[at] ^ 1, good[at].wrapping_add(24)] {
            let mut bad = good.clone();
            bad[at] = value;
            if let Ok(tree) = ArchiveTree::unified(bad) {
                explore(&tree);
                explore(&tree.forget_decoded());
            }
        }
    }
    for length in 0..good.len() {
        if let Ok(tree) = ArchiveTree::unified(good[..length].to_vec()) {
            explore(&tree);
        }
    }
    explore(&ArchiveTree::unified(good).unwrap());
}

#[test]
fn content_that_is_missing_is_an_error_and_not_zeros() {
    let (archive, mut payload) = split_bytes();
    payload.truncate(50_000);
    let tree = ArchiveTree::split(archive, payload).unwrap();
    let inode = find(&tree, "large").inode;
    assert!(tree.read(inode, 0, 10).is_err());
    assert_eq!(
        tree.read(find(&tree, "a.txt").inode, 0, 10).unwrap(),
        b"hello\n"
    );
}

#[test]
fn impossible_devices_and_sizes_are_errors_that_name_the_entry() {
    let mut encoder = Encoder::new(Vec::new(), &metadata(0o040_755)).unwrap();
    let device = Device {
        major: 1 << 20,
        minor: 0,
    };
    encoder
        .add_device(&metadata(0o020_666), b"far", device)
        .unwrap();
    let device = Device { major: 1, minor: 3 };
    encoder
        .add_device(&metadata(0o100_666), b"odd", device)
        .unwrap();
    let tree = ArchiveTree::unified(encoder.finish().unwrap().0).unwrap();
    for name in ["far", "odd"] {
        let error = tree.lookup(ROOT, name.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    // What comes before the damage is listed; asking for more is an error.
    let mut count = 0;
    tree.list(ROOT, 0, false, |_| {
        count += 1;
        true
    })
    .unwrap();
    assert_eq!(count, 2);
    assert!(tree.list(ROOT, 2, false, |_| true).is_err());
}

/// A payload stream in which reading one file waits for a signal, or fails while told to.
struct Unsteady {
    bytes: Vec<u8>,
    slow_from: u64,
    reached: mpsc::SyncSender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
    broken: Arc<AtomicBool>,
}

impl ReadAt for Unsteady {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::Error::other("connection lost"));
        }
        if buf.len() > 1000 && offset >= self.slow_from {
            self.reached.send(()).unwrap();
            self.go_on.lock().recv().unwrap();
        }
        self.bytes.read_at(buf, offset)
    }

    fn size(&self) -> u64 {
        self.bytes.size()
    }
}

#[test]
fn a_slow_chunk_holds_up_nobody_else_and_a_failed_one_can_be_asked_for_again() {
    let (archive, bytes) = split_bytes();
    let (reached, was_reached) = mpsc::sync_channel(0);
    let (let_go, go_on) = mpsc::channel();
    let broken = Arc::new(AtomicBool::new(false));
    let payload = Unsteady {
        bytes,
        slow_from: 22,
        reached,
        go_on: Mutex::new(go_on),
        broken: Arc::clone(&broken),
    };
    let tree = ArchiveTree::split(archive, payload).unwrap();
    let large = find(&tree, "large").inode;
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| tree.read(large, 0, 100_000).unwrap());
        was_reached.recv().unwrap();
        // While that one waits, everything else answers.
        let small = find(&tree, "a.txt").inode;
        assert_eq!(tree.read(small, 0, 6).unwrap(), b"hello\n");
        assert_eq!(lines(&tree, find(&tree, "many").inode, 0, 999).len(), 302);
        assert_eq!(tree.read(large, 0, 10).unwrap(), pattern()[..10]);
        let_go.send(()).unwrap();
        assert!(slow.join().unwrap() == pattern());
    });
    broken.store(true, Ordering::SeqCst);
    let error = tree.read(large, 0, 10).unwrap_err();
    assert!(error.to_string().contains("connection lost"), "{error}");
    broken.store(false, Ordering::SeqCst);
    assert_eq!(tree.read(large, 0, 10).unwrap(), pattern()[..10]);
}
