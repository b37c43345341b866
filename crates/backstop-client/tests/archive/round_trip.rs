//! A tree comes back as it was archived.

use std::ffi::OsStr;
use std::fs;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use backstop_client::archive::*;
use backstop_format::catalog::{CatalogError, CatalogReader};
use backstop_format::pxar::accessor::Accessor;
use backstop_format::pxar::decoder::Decoder;
use rustix::fs::FileType;

use crate::support::*;

/// Entries of all kinds.
fn all_kinds(root: &Path) {
    fs::create_dir_all(root.join("dir/empty")).unwrap();
    fs::write(root.join("file"), b"content").unwrap();
    fs::write(root.join("empty file"), b"").unwrap();
    fs::set_permissions(root.join("file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::write(
        root.join(OsStr::from_bytes(b"\xff\xfe\n\"name")),
        b"not UTF-8",
    )
    .unwrap();
    let mut sparse = vec![0; 3 << 20];
    sparse[1_234_567] = 1;
    sparse[..10].fill(7);
    fs::write(root.join("sparse"), &sparse).unwrap();
    fs::write(root.join("zeros"), vec![0; 600_000]).unwrap();
    fs::write(root.join("dir/large"), vec![5; 2_000_001]).unwrap();
    fs::hard_link(root.join("file"), root.join("dir/hard")).unwrap();
    fs::hard_link(root.join("dir/large"), root.join("large")).unwrap();
    symlink("../nowhere", root.join("dir/link")).unwrap();
    symlink(OsStr::from_bytes(b"\xf0\xff"), root.join("link")).unwrap();
    make_node(&root.join("fifo"), FileType::Fifo, 0);
    make_node(&root.join("socket"), FileType::Socket, 0);
    set_xattr(&root.join("file"), "user.b", b"binary\0value");
    set_xattr(&root.join("file"), "user.a", b"");
    set_xattr(&root.join("dir"), "user.on-a-directory", &[7; 3000]);
    set_mtime(&root.join("file"), -5, 7);
    set_mtime(&root.join("dir/link"), 1_000_000_000, 999_999_999);
    fs::set_permissions(root.join("dir/empty"), fs::Permissions::from_mode(0o555)).unwrap();
    set_mtime(&root.join("dir/empty"), 1_500_000_000, 1);
    set_mtime(&root.join("dir"), 1_400_000_000, 2);
    set_mtime(root, 1_300_000_000, 3);
}

/// What only root can make.
fn privileged_kinds(root: &Path) {
    make_node(
        &root.join("null"),
        FileType::CharacterDevice,
        rustix::fs::makedev(1, 3),
    );
    make_node(
        &root.join("big numbers"),
        FileType::CharacterDevice,
        rustix::fs::makedev(240, 70000),
    );
    make_node(
        &root.join("disk"),
        FileType::BlockDevice,
        rustix::fs::makedev(7, 0),
    );
    std::os::unix::fs::chown(root.join("dir/large"), Some(1234), Some(4321)).unwrap();
    std::os::unix::fs::lchown(root.join("dir/link"), Some(12), Some(34)).unwrap();
    std::os::unix::fs::chown(root.join("fifo"), Some(12), Some(34)).unwrap();
    set_xattr(&root.join("sparse"), "trusted.secret", b"t");
    let fcaps = b"\x01\0\0\x02\0\x24\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    set_xattr(&root.join("zeros"), "security.capability", fcaps);
    // user::rw- user:33:rw- group::r-- mask::rw- other::---
    let acl =
        b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x06\0\x21\0\0\0\x04\0\x04\0\xff\xff\xff\xff\
        \x10\0\x06\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
    set_xattr(&root.join("sparse"), "system.posix_acl_access", acl);
    set_xattr(&root.join("dir"), "system.posix_acl_default", acl);
    set_xattr(&root.join("dir"), "system.posix_acl_access", acl);
    let file = fs::File::open(root.join("zeros")).unwrap();
    let flags = rustix::fs::ioctl_getflags(&file).unwrap();
    let _ = rustix::fs::ioctl_setflags(
        &file,
        flags | rustix::fs::IFlags::NOATIME | rustix::fs::IFlags::NODUMP,
    );
    set_mtime(&root.join("fifo"), 1_200_000_000, 5);
    set_mtime(&root.join("dir"), 1_400_000_000, 2);
    set_mtime(root, 1_300_000_000, 3);
}

fn tree() -> tempfile::TempDir {
    let source = tempfile::tempdir().unwrap();
    all_kinds(source.path());
    if is_root() {
        privileged_kinds(source.path());
    }
    source
}

#[track_caller]
fn assert_same(source: &Path, target: &Path) {
    let (source, target) = (describe(source), describe(target));
    assert_eq!(
        source.keys().collect::<Vec<_>>(),
        target.keys().collect::<Vec<_>>()
    );
    for (path, description) in source {
        assert_eq!(
            target[&path],
            description,
            "{:?}",
            String::from_utf8_lossy(&path)
        );
    }
}

#[test]
fn every_kind_of_entry_comes_back_from_a_unified_archive() {
    let source = tree();
    let lines = Lines::default();
    let (summary, archive, catalog) = unified(source.path(), &CreateOptions::default(), &lines);
    assert_eq!(summary.hardlinks, 2);
    let target = source.path().with_extension("restored");
    let mut decoder = Decoder::new(archive.as_slice());
    let restored = extract(&mut decoder, &target, &ExtractOptions::default(), &lines).unwrap();
    assert_same(source.path(), &target);
    assert_eq!(restored.entries as usize, describe(&target).len());
    assert!(
        fs::metadata(target.join("zeros")).unwrap().blocks() <= 16,
        "zeros take space"
    );
    assert!(
        fs::metadata(target.join("sparse")).unwrap().blocks() < 100,
        "holes take space"
    );
    assert_eq!(lines.take(), [""; 0]);
    let reader = CatalogReader::new(catalog).unwrap();
    let mut listed = 0;
    reader
        .walk(reader.root(), |_, _| {
            listed += 1;
            Ok::<_, CatalogError>(true)
        })
        .unwrap();
    assert_eq!(listed, describe(&target).len());
    fs::remove_dir_all(target).unwrap();
}

#[test]
fn every_kind_of_entry_comes_back_from_a_split_archive() {
    let source = tree();
    let lines = Lines::default();
    let (archive, payload) = split(source.path(), &CreateOptions::default(), &lines);
    let target = source.path().with_extension("restored");
    let options = ExtractOptions {
        threads: 1,
        ..ExtractOptions::default()
    };
    let mut decoder = Decoder::split(archive.as_slice(), payload.as_slice());
    extract(&mut decoder, &target, &options, &lines).unwrap();
    assert_same(source.path(), &target);
    fs::remove_dir_all(&target).unwrap();
    let accessor = Accessor::split(archive, payload).unwrap();
    extract_path(&accessor, b"", &target, &options, &lines).unwrap();
    assert_same(source.path(), &target);
    assert_eq!(lines.take(), [""; 0]);
    fs::remove_dir_all(target).unwrap();
}

#[test]
fn a_part_of_an_archive_is_extracted_alone() {
    let source = tree();
    let lines = Lines::default();
    let (archive, payload) = split(source.path(), &CreateOptions::default(), &lines);
    let accessor = Accessor::split(archive, payload).unwrap();
    let target = tempfile::tempdir().unwrap();
    let options = ExtractOptions {
        allow_existing_dirs: true,
        ..ExtractOptions::default()
    };
    let part = target.path().join("part");
    extract_path(&accessor, b"/dir/", &part, &options, &lines).unwrap();
    let (source, restored) = (describe(&source.path().join("dir")), describe(&part));
    assert_eq!(
        source.keys().collect::<Vec<_>>(),
        restored.keys().collect::<Vec<_>>()
    );
    // The link's other name is not there: the content is.
    assert_eq!(restored[&b"hard"[..]].content, b"content");
    assert_eq!(restored[&b""[..]], source[&b""[..]]);
    let single = target.path().join("single");
    extract_path(&accessor, b"large", &single, &options, &lines).unwrap();
    assert_eq!(fs::read(single.join("large")).unwrap().len(), 2_000_001);
    assert!(extract_path(&accessor, b"none", &single, &options, &lines).is_err());
}

#[test]
fn patterns_select_what_is_extracted_and_parents_are_made_for_it() {
    let source = tree();
    let lines = Lines::default();
    let (_, archive, _) = unified(source.path(), &CreateOptions::default(), &lines);
    let extracted = |patterns: &[&str], only_matching| {
        let target = source.path().with_extension("part");
        let patterns = patterns
            .iter()
            .map(|text| Pattern::parse(text, MatchType::Include).unwrap())
            .collect();
        let options = ExtractOptions {
            patterns,
            only_matching,
            ..ExtractOptions::default()
        };
        let mut decoder = Decoder::new(Cursor::new(&archive)).seek_over_contents();
        extract(&mut decoder, &target, &options, &lines).unwrap();
        let found = describe(&target);
        fs::remove_dir_all(&target).unwrap();
        found
            .into_keys()
            .map(|path| String::from_utf8_lossy(&path).into_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(extracted(&["dir/large"], true), ["", "dir", "dir/large"]);
    assert_eq!(
        extracted(&["dir", "!large"], true),
        ["", "dir", "dir/empty", "dir/hard", "dir/link"]
    );
    let rest = extracted(&["!empty"], false);
    assert!(rest.contains(&"dir".to_owned()) && !rest.contains(&"dir/empty".to_owned()));
    assert_eq!(extracted(&["nothing"], true), [""]);
}

#[test]
fn existing_objects_are_replaced_only_when_asked() {
    let source = tree();
    let lines = Lines::default();
    let (_, archive, _) = unified(source.path(), &CreateOptions::default(), &lines);
    let target = source.path().with_extension("again");
    let once = |options: &ExtractOptions| {
        extract(
            &mut Decoder::new(archive.as_slice()),
            &target,
            options,
            &lines,
        )
    };
    once(&ExtractOptions::default()).unwrap();
    assert!(once(&ExtractOptions::default()).is_err());
    let allow = ExtractOptions {
        allow_existing_dirs: true,
        ..ExtractOptions::default()
    };
    assert!(once(&allow).is_err());
    fs::write(target.join("file"), b"something else, and longer").unwrap();
    set_mtime(&target, 0, 0);
    once(&allow.clone().overwrite()).unwrap();
    assert_same(source.path(), &target);
    lines.take();
    let keep_going = ExtractOptions {
        keep_going: true,
        ..allow
    };
    assert!(matches!(once(&keep_going), Err(ArchiveError::SomeFailed)));
    assert!(lines.take().iter().all(|line| line.starts_with("error: ")));
    fs::remove_dir_all(target).unwrap();
}

#[test]
fn deep_trees_beyond_the_longest_path_come_back() {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, open, openat};
    const DEPTH: usize = 400;
    let name = "d".repeat(20);
    let source = tempfile::tempdir().unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut fd = open(source.path(), flags, Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        mkdirat(&fd, name.as_str(), Mode::RWXU).unwrap();
        fd = openat(&fd, name.as_str(), flags, Mode::empty()).unwrap();
    }
    let file = openat(&fd, "bottom", OFlags::WRONLY | OFlags::CREATE, Mode::RUSR).unwrap();
    rustix::io::write(&file, b"deep").unwrap();
    let lines = Lines::default();
    let (_, archive, _) = unified(source.path(), &CreateOptions::default(), &lines);
    let target = tempfile::tempdir().unwrap();
    let below = target.path().join("below");
    extract(
        &mut Decoder::new(archive.as_slice()),
        &below,
        &ExtractOptions::default(),
        &lines,
    )
    .unwrap();
    let mut fd = rustix::fs::openat(CWD, &below, flags, Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        fd = openat(&fd, name.as_str(), flags, Mode::empty()).unwrap();
    }
    let file = openat(&fd, "bottom", OFlags::RDONLY, Mode::empty()).unwrap();
    let mut content = [0; 8];
    assert_eq!(rustix::io::read(&file, &mut content).unwrap(), 4);
    assert_eq!(lines.take(), [""; 0]);
}

#[test]
fn a_directory_with_many_files_comes_back_and_counts_against_the_limit() {
    // In memory, where there is such a place: it is about numbers, not about the disk.
    let source = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    for i in 0..100_000 {
        fs::write(source.path().join(i.to_string()), b"").unwrap();
    }
    let lines = Lines::default();
    let options = CreateOptions {
        entries_max: 99_999,
        ..CreateOptions::default()
    };
    let result = create_unified(
        source.path(),
        &options,
        std::io::sink(),
        None::<&mut backstop_format::catalog::CatalogWriter<Vec<u8>>>,
        &lines,
    );
    assert!(matches!(
        result,
        Err(ArchiveError::TooManyEntries { limit: 99_999, .. })
    ));
    let (_, archive, _) = unified(source.path(), &CreateOptions::default(), &lines);
    let target = source.path().with_extension("many");
    let restored = extract(
        &mut Decoder::new(archive.as_slice()),
        &target,
        &ExtractOptions::default(),
        &lines,
    );
    assert_eq!(restored.unwrap().entries, 100_001);
    let accessor = Accessor::new(archive).unwrap();
    assert!(accessor.lookup(b"12345").unwrap().is_some());
    assert!(accessor.lookup(b"100000").unwrap().is_none());
    fs::remove_dir_all(target).unwrap();
}

#[test]
fn an_unprivileged_user_restores_own_files_and_others_only_without_their_owner() {
    if !is_root() {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let source = base.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("own"), b"1").unwrap();
    std::os::unix::fs::chown(source.join("own"), Some(65534), Some(65534)).unwrap();
    std::os::unix::fs::chown(&source, Some(65534), Some(65534)).unwrap();
    fs::set_permissions(source.join("own"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o555)).unwrap();
    let place = base.path().join("place");
    fs::create_dir(&place).unwrap();
    std::os::unix::fs::chown(&place, Some(65534), Some(65534)).unwrap();
    let lines = Lines::default();
    let own = unified(&source, &CreateOptions::default(), &lines).1;
    fs::write(source.join("root's"), b"2").unwrap();
    let mixed = unified(&source, &CreateOptions::default(), &lines).1;
    let as_nobody = |archive: &[u8], name: &str, options: &ExtractOptions| {
        std::thread::scope(|scope| {
            let extraction = scope.spawn(|| {
                rustix::thread::set_thread_gid(rustix::process::Gid::from_raw(65534)).unwrap();
                rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65534)).unwrap();
                extract(
                    &mut Decoder::new(archive),
                    &place.join(name),
                    options,
                    &lines,
                )
            });
            extraction.join().unwrap()
        })
    };
    let options = ExtractOptions::default();
    as_nobody(&own, "own", &options).unwrap();
    let error = as_nobody(&mixed, "mixed", &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to set ownership of \"root's\" - Operation not permitted (os error 1)"
    );
    let options = ExtractOptions {
        ignore_ownership: true,
        ..options
    };
    as_nobody(&mixed, "ignored", &options).unwrap();
    assert_eq!(fs::read(place.join("ignored/root's")).unwrap(), b"2");
    fs::remove_file(source.join("root's")).unwrap();
    let (mut source, mut restored) = (describe(&source), describe(&place.join("own")));
    source.remove(&b""[..]);
    restored.remove(&b""[..]);
    assert_eq!(source, restored);
}
