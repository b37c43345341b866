//! Random trees survive the way through the archive; damaged archives never do harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};

use backstop_format::pxar::PxarError;
use backstop_format::pxar::accessor::{Accessor, Node};
use backstop_format::pxar::decoder::{Decoder, Event};
use backstop_format::pxar::encoder::{Encoder, LinkOffset};
use backstop_format::pxar::entry::*;
use backstop_format::read_at::ReadAt;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Tree {
    Directory(Metadata, BTreeMap<Vec<u8>, Tree>),
    File(Metadata, Vec<u8>),
    Symlink(Metadata, Vec<u8>),
    Device(Metadata, Device),
    Special(Metadata),
    /// Link to the file added last before it.
    Hardlink,
}

fn acl_entries() -> impl Strategy<Value = Vec<AclEntry>> {
    prop::collection::vec(
        (any::<u32>(), 0u64..8).prop_map(|(id, permissions)| AclEntry {
            id: u64::from(id),
            permissions,
        }),
        0..3,
    )
}

fn acl() -> impl Strategy<Value = Acl> {
    let word = || prop::option::of(0u64..8);
    let default = prop::option::of((word(), word(), word(), word()).prop_map(
        |(user_obj, group_obj, other, mask)| AclDefault {
            user_obj,
            group_obj,
            other,
            mask,
        },
    ));
    (
        acl_entries(),
        acl_entries(),
        word(),
        default,
        acl_entries(),
        acl_entries(),
    )
        .prop_map(
            |(users, groups, group_obj, default, default_users, default_groups)| Acl {
                users,
                groups,
                group_obj,
                default,
                default_users,
                default_groups,
            },
        )
}

fn metadata(kind: u64) -> impl Strategy<Value = Metadata> {
    let stat = (
        0u64..0o10000,
        any::<u64>(),
        any::<u32>(),
        any::<u32>(),
        any::<i64>(),
        0u32..1_000_000_000,
    );
    let xattr = (
        "user\\.[a-z]{1,8}",
        prop::collection::vec(any::<u8>(), 0..40),
    )
        .prop_map(|(name, value)| Xattr {
            name: name.into_bytes(),
            value,
        });
    (
        stat,
        prop::collection::vec(xattr, 0..3),
        acl(),
        prop::option::of(prop::collection::vec(any::<u8>(), 0..24)),
        prop::option::of(any::<u64>()),
    )
        .prop_map(
            move |((mode, flags, uid, gid, seconds, nanos), xattrs, acl, fcaps, project)| {
                Metadata {
                    stat: Stat {
                        mode: mode | kind,
                        flags,
                        uid,
                        gid,
                        mtime: Timestamp { seconds, nanos },
                    },
                    xattrs,
                    acl,
                    fcaps,
                    quota_project_id: project,
                }
            },
        )
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 1..12).prop_filter("a path component", |name| {
        backstop_format::pxar::item::is_valid_name(name)
    })
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        4 => (metadata(MODE_FILE), prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(m, d)| Tree::File(m, d)),
        1 => (metadata(MODE_FILE), 0usize..70_000).prop_map(|(m, n)| Tree::File(m, vec![7; n])),
        1 => (metadata(MODE_SYMLINK), prop::collection::vec(1u8.., 0..30)).prop_map(|(m, t)| Tree::Symlink(m, t)),
        1 => (metadata(MODE_CHAR), any::<u32>(), any::<u32>())
            .prop_map(|(m, major, minor)| Tree::Device(m, Device { major: major.into(), minor: minor.into() })),
        1 => metadata(MODE_FIFO).prop_map(Tree::Special),
        1 => metadata(MODE_SOCKET).prop_map(Tree::Special),
        1 => Just(Tree::Hardlink),
    ];
    let directory = leaf.prop_recursive(4, 60, 12, |inner| {
        (
            metadata(MODE_DIRECTORY),
            prop::collection::btree_map(name(), inner, 0..12),
        )
            .prop_map(|(m, children)| Tree::Directory(m, children))
    });
    (
        metadata(MODE_DIRECTORY),
        prop::collection::btree_map(name(), directory, 0..12),
    )
        .prop_map(|(m, children)| Tree::Directory(m, children))
}

type LastFile = Option<(Vec<u8>, LinkOffset)>;

fn encode_children<W: Write, P: Write>(
    encoder: &mut Encoder<W, P>,
    path: &[u8],
    children: &BTreeMap<Vec<u8>, Tree>,
    last: &mut LastFile,
) {
    for (name, child) in children {
        let path = [path, name].concat();
        match child {
            Tree::Directory(metadata, children) => {
                encoder.create_directory(metadata, name).unwrap();
                encode_children(encoder, &[&path[..], b"/"].concat(), children, last);
                encoder.finish_directory().unwrap();
            }
            Tree::File(metadata, data) => {
                let mut file = encoder
                    .create_file(metadata, name, data.len() as u64)
                    .unwrap();
                file.write_all(data).unwrap();
                *last = Some((path, file.finish().unwrap()));
            }
            Tree::Symlink(metadata, target) => encoder.add_symlink(metadata, name, target).unwrap(),
            Tree::Device(metadata, device) => encoder.add_device(metadata, name, *device).unwrap(),
            Tree::Special(metadata) => encoder.add_special(metadata, name).unwrap(),
            Tree::Hardlink => {
                if let Some((target, link)) = last {
                    encoder.add_hardlink(name, target, *link).unwrap();
                }
            }
        }
    }
}

fn encode(tree: &Tree, split: bool) -> (Vec<u8>, Vec<u8>) {
    let Tree::Directory(root, children) = tree else {
        panic!()
    };
    let (archive, payload) = if split {
        let mut encoder = Encoder::split(Vec::new(), Vec::new(), root, Some(b"prelude")).unwrap();
        encode_children(&mut encoder, b"", children, &mut None);
        encoder.finish().unwrap()
    } else {
        let mut encoder = Encoder::new(Vec::new(), root).unwrap();
        encode_children(&mut encoder, b"", children, &mut None);
        let (archive, _) = encoder.finish().unwrap();
        (archive, None)
    };
    (archive, payload.unwrap_or_default())
}

/// Decodes an archive and encodes it again.
fn copy<R: Read, P: Read>(mut decoder: Decoder<R, P>, split: bool) -> (Vec<u8>, Vec<u8>) {
    let Some(Event::Entry(root)) = decoder.next_event().unwrap() else {
        panic!()
    };
    if split {
        let prelude = decoder.prelude().map(<[u8]>::to_vec);
        let mut encoder =
            Encoder::split(Vec::new(), Vec::new(), &root.metadata, prelude.as_deref()).unwrap();
        copy_children(&mut decoder, &mut encoder);
        let (archive, payload) = encoder.finish().unwrap();
        (archive, payload.unwrap())
    } else {
        let mut encoder = Encoder::new(Vec::new(), &root.metadata).unwrap();
        copy_children(&mut decoder, &mut encoder);
        (encoder.finish().unwrap().0, Vec::new())
    }
}

fn copy_children<R: Read, P: Read, W: Write, Q: Write>(
    decoder: &mut Decoder<R, P>,
    encoder: &mut Encoder<W, Q>,
) {
    let mut links = BTreeMap::new();
    let mut path: Vec<Vec<u8>> = Vec::new();
    while let Some(event) = decoder.next_event().unwrap() {
        let Event::Entry(Entry {
            name,
            metadata,
            kind,
        }) = event
        else {
            if path.pop().is_some() {
                encoder.finish_directory().unwrap();
            }
            continue;
        };
        match kind {
            EntryKind::Directory => {
                encoder.create_directory(&metadata, &name).unwrap();
                path.push(name);
            }
            EntryKind::File { size, .. } => {
                let mut file = encoder.create_file(&metadata, &name, size).unwrap();
                std::io::copy(&mut decoder.content().unwrap(), &mut file).unwrap();
                let link = file.finish().unwrap();
                let full: Vec<_> = path.iter().chain([&name]).cloned().collect();
                links.insert(full.join(&b'/'), link);
            }
            EntryKind::Symlink(target) => encoder.add_symlink(&metadata, &name, &target).unwrap(),
            EntryKind::Hardlink { target, .. } => {
                encoder
                    .add_hardlink(&name, &target, links[&target])
                    .unwrap();
            }
            EntryKind::Device(device) => encoder.add_device(&metadata, &name, device).unwrap(),
            EntryKind::Fifo | EntryKind::Socket => encoder.add_special(&metadata, &name).unwrap(),
        }
    }
}

/// All entries with their contents, as the sequential reader gives them.
fn listing<R: Read, P: Read>(
    mut decoder: Decoder<R, P>,
) -> Result<Vec<(Entry, Vec<u8>)>, PxarError> {
    let mut found = Vec::new();
    while let Some(event) = decoder.next_event()? {
        if let Event::Entry(entry) = event {
            let mut data = Vec::new();
            if matches!(entry.kind, EntryKind::File { .. }) {
                let read = decoder.content()?.read_to_end(&mut data);
                read.map_err(|source| PxarError::Io {
                    action: "",
                    position: 0,
                    source,
                })?;
            }
            found.push((entry, data));
        }
    }
    Ok(found)
}

/// The same through the directory tables.
fn access<R: ReadAt, P: ReadAt>(
    accessor: &Accessor<R, P>,
    check: bool,
) -> Result<Vec<(Entry, Vec<u8>)>, PxarError> {
    let mut found = Vec::new();
    let mut open = vec![accessor.root().clone()];
    while let Some(node) = open.pop() {
        let mut data = Vec::new();
        if matches!(node.entry.kind, EntryKind::File { .. }) {
            let content = accessor.content(&node)?;
            data = vec![0; content.size() as usize];
            content.read_exact_at(&mut data, 0).unwrap();
        }
        if node.entry.kind == EntryKind::Directory {
            let directory = accessor.directory(&node)?;
            let mut children = directory.children()?.collect::<Result<Vec<Node>, _>>()?;
            if check {
                for child in &children {
                    assert_eq!(directory.lookup(&child.entry.name)?.unwrap(), *child);
                }
            }
            children.reverse();
            open.extend(children);
        }
        if matches!(node.entry.kind, EntryKind::Hardlink { .. }) && check {
            accessor.follow_hardlink(node.clone())?;
        }
        found.push((node.entry, data));
    }
    Ok(found)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn trees_come_back_byte_for_byte(tree in tree(), split: bool) {
        let (archive, payload) = encode(&tree, split);
        let again = copy(Decoder::split(archive.as_slice(), payload.as_slice()), split);
        prop_assert_eq!(&again.0, &archive);
        prop_assert_eq!(&again.1, &payload);
        let again = copy(
            Decoder::split_seekable(Cursor::new(&archive), Cursor::new(&payload)).seek_over_contents(),
            split,
        );
        prop_assert!(again == (archive, payload));
    }

    #[test]
    fn accessor_and_decoder_agree(tree in tree(), split: bool) {
        let (archive, payload) = encode(&tree, split);
        let decoded = listing(Decoder::split(archive.as_slice(), payload.as_slice())).unwrap();
        let accessor = Accessor::split(archive.as_slice(), payload.as_slice()).unwrap();
        prop_assert_eq!(access(&accessor, true).unwrap(), decoded);
    }

    #[test]
    fn damaged_archives_end_in_an_error_or_a_tree(
        tree in tree(),
        split: bool,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        words in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 0..3),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (mut archive, payload) = encode(&tree, split);
        for (at, value) in damage {
            let at = at.index(archive.len());
            archive[at] = value;
        }
        for (at, value) in words {
            let at = at.index(archive.len() - 8);
            archive[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        if let Some(cut) = cut {
            archive.truncate(cut.index(archive.len()));
        }
        let _ = listing(Decoder::split(archive.as_slice(), payload.as_slice()));
        let _ = listing(Decoder::split_seekable(Cursor::new(&archive), Cursor::new(&payload)).seek_over_contents());
        if let Ok(accessor) = Accessor::split(archive.as_slice(), payload.as_slice()) {
            let _ = access(&accessor, false);
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
        let _ = listing(Decoder::new(bytes.as_slice()));
        let _ = Accessor::new(bytes);
    }
}

#[test]
fn nesting_beyond_the_limit_is_refused() {
    let metadata = Metadata::new(MODE_DIRECTORY | 0o755, Timestamp::default());
    let mut encoder = Encoder::new(Vec::new(), &metadata).unwrap();
    let mut depth = 0;
    while encoder.create_directory(&metadata, b"d").is_ok() {
        depth += 1;
    }
    assert_eq!(depth, backstop_format::pxar::item::MAX_DEPTH - 1);
    for _ in 0..depth {
        encoder.finish_directory().unwrap();
    }
    let (archive, _) = encoder.finish().unwrap();
    assert_eq!(
        listing(Decoder::new(archive.as_slice())).unwrap().len(),
        depth + 1
    );
    // More levels, made by hand: root entry, then FILENAME and ENTRY again and again.
    let level = archive[56..130].to_vec();
    let hostile = [archive[..56].to_vec(), level.repeat(depth + 2)].concat();
    let error = listing(Decoder::new(hostile.as_slice())).unwrap_err();
    assert!(matches!(error, PxarError::Limit { .. }), "{error}");
}
