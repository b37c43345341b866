//! Archives and catalogs written by stock servers: decoded, compared with what was backed up, and
//! written again byte for byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use backstop_format::blob::DataBlob;
use backstop_format::catalog::{CatalogError, CatalogKind, CatalogReader, CatalogWriter};
use backstop_format::index::{ChunkIndex, DynamicIndex};
use backstop_format::pxar::accessor::Accessor;
use backstop_format::pxar::decoder::{Decoder, Event};
use backstop_format::pxar::encoder::Encoder;
use backstop_format::pxar::entry::*;
use backstop_format::read_at::ReadAt;
use backstop_format::{CryptKey, Digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

const VERSIONS: [&str; 2] = ["pbs-3.2.4", "pbs-4.2.3"];

fn fixtures(version: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures")).join(version)
}

struct Store {
    path: PathBuf,
    key: CryptKey,
}

impl Store {
    fn open(version: &str) -> Self {
        let path = fixtures(version);
        let key: Value =
            serde_json::from_slice(&fs::read(path.join("keys/enc-none.json")).unwrap()).unwrap();
        let key = STANDARD.decode(key["data"].as_str().unwrap()).unwrap();
        Self {
            path: path.join("datastore/store1"),
            key: CryptKey::new(key.try_into().unwrap()),
        }
    }

    /// The complete stream of an index file; `None` when its chunks need another key.
    fn stream(&self, index: &Path) -> Option<Vec<u8>> {
        let index = DynamicIndex::parse(fs::read(index).unwrap()).unwrap();
        let mut stream = Vec::new();
        for i in 0..index.chunk_count() {
            let span = index.chunk(i).unwrap();
            let name = span.digest.to_string();
            let raw = fs::read(self.path.join(".chunks").join(&name[..4]).join(&name)).unwrap();
            let blob = DataBlob::load(raw).unwrap();
            let key = blob.is_encrypted().then_some(&self.key);
            let chunk = blob
                .decode_chunk(key, &span.digest, span.end - span.start)
                .ok()?;
            stream.extend(chunk);
        }
        Some(stream)
    }

    /// Directories that hold an archive called `name`.
    fn snapshots_with(&self, name: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.path.clone()];
        while let Some(directory) = open.pop() {
            if directory.join(name).exists() {
                found.push(directory.clone());
            }
            for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() && entry.file_name() != ".chunks" {
                    open.push(entry.path());
                }
            }
        }
        found.sort();
        found
    }

    /// Metadata (or unified) stream, and payload stream.
    fn archive(&self, snapshot: &Path) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        if snapshot.join("root.pxar.didx").exists() {
            return Some((self.stream(&snapshot.join("root.pxar.didx"))?, None));
        }
        let payload = self.stream(&snapshot.join("root.ppxar.didx"))?;
        Some((
            self.stream(&snapshot.join("root.mpxar.didx"))?,
            Some(payload),
        ))
    }
}

struct Found {
    path: Vec<u8>,
    entry: Entry,
    /// Digest of the content.
    content: Option<Digest>,
}

fn decode<R: Read, P: Read>(mut decoder: Decoder<R, P>) -> Vec<Found> {
    let mut found = Vec::new();
    let mut open: Vec<Vec<u8>> = Vec::new();
    while let Some(event) = decoder.next_event().unwrap() {
        let Event::Entry(entry) = event else {
            open.pop();
            continue;
        };
        let content = matches!(entry.kind, EntryKind::File { .. }).then(|| {
            let mut data = Vec::new();
            decoder.content().unwrap().read_to_end(&mut data).unwrap();
            Digest::of(&data)
        });
        let mut path = open.last().cloned().unwrap_or_default();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&entry.name);
        if entry.kind == EntryKind::Directory {
            open.push(path.clone());
        }
        found.push(Found {
            path,
            entry,
            content,
        });
    }
    found
}

fn encode_again<W: Write, P: Write>(
    found: &[Found],
    mut encoder: Encoder<W, P>,
    mut content: impl FnMut(&PayloadPlace, u64) -> Vec<u8>,
) -> (W, Option<P>) {
    let mut links = BTreeMap::new();
    let mut depth = 0;
    for Found { path, entry, .. } in found {
        let level = path.iter().filter(|&&byte| byte == b'/').count();
        while depth > level {
            encoder.finish_directory().unwrap();
            depth -= 1;
        }
        let (name, metadata) = (&entry.name, &entry.metadata);
        match &entry.kind {
            EntryKind::Directory if path.is_empty() => {}
            EntryKind::Directory => {
                encoder.create_directory(metadata, name).unwrap();
                depth += 1;
            }
            EntryKind::File { size, place } => {
                let mut file = encoder.create_file(metadata, name, *size).unwrap();
                file.write_all(&content(place, *size)).unwrap();
                links.insert(path.clone(), file.finish().unwrap());
            }
            EntryKind::Symlink(target) => encoder.add_symlink(metadata, name, target).unwrap(),
            EntryKind::Hardlink { target, .. } => {
                encoder.add_hardlink(name, target, links[target]).unwrap();
            }
            EntryKind::Device(device) => encoder.add_device(metadata, name, *device).unwrap(),
            EntryKind::Fifo | EntryKind::Socket => encoder.add_special(metadata, name).unwrap(),
        }
    }
    for _ in 0..depth {
        encoder.finish_directory().unwrap();
    }
    encoder.finish().unwrap()
}

#[test]
fn stock_archives_are_written_again_byte_for_byte() {
    let (mut unified, mut split) = (0, 0);
    for version in VERSIONS {
        let store = Store::open(version);
        for snapshot in store.snapshots_with("root.pxar.didx") {
            let Some((archive, _)) = store.archive(&snapshot) else {
                assert!(snapshot.to_str().unwrap().contains("encm1"), "{snapshot:?}");
                continue;
            };
            let found = decode(Decoder::new(archive.as_slice()));
            let encoder = Encoder::new(Vec::new(), &found[0].entry.metadata).unwrap();
            let (again, _) = encode_again(&found, encoder, |place, size| {
                let PayloadPlace::Inline(start) = *place else {
                    panic!()
                };
                archive[start as usize..][..size as usize].to_vec()
            });
            assert!(again == archive, "{snapshot:?}");
            unified += 1;
        }
        for snapshot in store.snapshots_with("root.mpxar.didx") {
            let (archive, payload) = store.archive(&snapshot).unwrap();
            let payload = payload.unwrap();
            let mut decoder = Decoder::new(archive.as_slice());
            decoder.next_event().unwrap();
            let prelude = decoder.prelude().map(<[u8]>::to_vec);
            let found = decode(Decoder::split(archive.as_slice(), payload.as_slice()));
            let files = found.iter().filter_map(|found| match found.entry.kind {
                EntryKind::File {
                    size,
                    place: PayloadPlace::Referenced(offset),
                } => Some((offset, size)),
                _ => None,
            });
            let mut end = 16;
            let mut gaps = 0;
            for (offset, size) in files {
                gaps += offset - end;
                end = offset + 16 + size;
            }
            if gaps > 0 {
                // Chunks of an earlier archive lie in the payload stream: only they have its order.
                continue;
            }
            let encoder = Encoder::split(
                Vec::new(),
                Vec::new(),
                &found[0].entry.metadata,
                prelude.as_deref(),
            );
            let (again, payload_again) = encode_again(&found, encoder.unwrap(), |place, size| {
                let PayloadPlace::Referenced(offset) = *place else {
                    panic!()
                };
                payload[offset as usize + 16..][..size as usize].to_vec()
            });
            if payload_again.unwrap() == payload {
                assert!(again == archive, "{snapshot:?}");
                split += 1;
            } else {
                // Files were taken over with whole chunks of the previous archive.
                assert_eq!(again.len(), archive.len(), "{snapshot:?}");
            }
        }
    }
    assert!(unified >= 20 && split >= 5, "{unified} {split}");
}

#[test]
fn stock_streams_have_the_size_and_digest_that_the_stock_client_restored() {
    let store = Store::open(VERSIONS[0]);
    for (snapshot, restore) in restores(VERSIONS[0]) {
        let stream = &restore["real_client_restore_vs_manifest"]["raw_pxar_stream"];
        let Some(size) = stream["size"].as_u64() else {
            continue;
        };
        let (archive, _) = store.archive(&snapshot).unwrap();
        assert_eq!(archive.len() as u64, size);
        assert_eq!(
            Digest::of(&archive).to_string(),
            stream["sha256"].as_str().unwrap()
        );
    }
}

/// Snapshot directories and what a stock client's restore of them gave.
fn restores(version: &str) -> Vec<(PathBuf, Value)> {
    let path = fixtures(version);
    let all: BTreeMap<String, Value> =
        serde_json::from_slice(&fs::read(path.join("manifests/restores.json")).unwrap()).unwrap();
    all.into_iter()
        .filter(|(_, restore)| restore["tree_manifest"].is_string())
        .map(|(name, restore)| {
            let (snapshot, _) = name.split_once(' ').unwrap();
            let (group, time) = snapshot.rsplit_once('/').unwrap();
            let mut path = path.join("datastore/store1");
            let group = match group.split_once(':') {
                Some((namespace, group)) => {
                    for component in namespace.split('/') {
                        path = path.join("ns").join(component);
                    }
                    group
                }
                None => group,
            };
            (path.join(group).join(time), restore)
        })
        .collect()
}

fn base64(value: &Value) -> Option<Vec<u8>> {
    Some(STANDARD.decode(value.as_str()?).unwrap())
}

/// Permissions with the given tag and, for named ones, id.
fn acl(value: &Value, tag: &str) -> Vec<(Option<u64>, u64)> {
    let entries = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut found: Vec<_> = entries
        .iter()
        .filter(|entry| entry["tag"] == tag)
        .map(|entry| (entry["id"].as_u64(), entry["perm"].as_u64().unwrap()))
        .collect();
    found.sort();
    found
}

fn named(entries: &[AclEntry]) -> Vec<(Option<u64>, u64)> {
    entries
        .iter()
        .map(|entry| (Some(entry.id), entry.permissions))
        .collect()
}

fn flag(name: &str) -> u64 {
    match name {
        "append" => 0x10000,
        "noatime" => 0x20000,
        "immutable" => 0x40_0000,
        "sync" => 0x80_0000,
        "nodump" => 0x10_0000,
        other => panic!("{other}"),
    }
}

fn check_metadata(stat: &Stat, metadata: &Metadata, source: &Value, changed: bool) {
    let path = &source["path"];
    let mode = u64::from_str_radix(source["mode"].as_str().unwrap(), 8).unwrap();
    assert_eq!(u64::from(stat.permissions()), mode, "{path}");
    assert_eq!(
        u64::from(stat.uid),
        source["uid"].as_u64().unwrap(),
        "{path}"
    );
    assert_eq!(
        u64::from(stat.gid),
        source["gid"].as_u64().unwrap(),
        "{path}"
    );
    let mtime = i128::from(stat.mtime.seconds) * 1_000_000_000 + i128::from(stat.mtime.nanos);
    assert_eq!(
        mtime,
        i128::from(source["mtime_ns"].as_i64().unwrap()),
        "{path}"
    );
    let xattrs: BTreeMap<String, Vec<u8>> = metadata
        .xattrs
        .iter()
        .map(|xattr| {
            (
                String::from_utf8(xattr.name.clone()).unwrap(),
                xattr.value.clone(),
            )
        })
        .collect();
    let expected: BTreeMap<String, Vec<u8>> = source["xattrs_b64"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), base64(value).unwrap()))
        .collect();
    assert_eq!(xattrs, expected, "{path}");
    assert_eq!(metadata.fcaps, base64(&source["fcaps_b64"]), "{path}");
    let access = &source["acl_access"];
    assert_eq!(named(&metadata.acl.users), acl(access, "user"), "{path}");
    assert_eq!(named(&metadata.acl.groups), acl(access, "group"), "{path}");
    if !acl(access, "mask").is_empty() {
        assert_eq!(
            metadata.acl.group_obj,
            Some(acl(access, "group_obj")[0].1),
            "{path}"
        );
    }
    let default = &source["acl_default"];
    assert_eq!(
        named(&metadata.acl.default_users),
        acl(default, "user"),
        "{path}"
    );
    assert_eq!(
        named(&metadata.acl.default_groups),
        acl(default, "group"),
        "{path}"
    );
    let base = |tag| acl(default, tag).first().map(|entry| entry.1);
    let expected = default.is_array().then(|| AclDefault {
        user_obj: base("user_obj"),
        group_obj: base("group_obj"),
        other: base("other"),
        mask: base("mask"),
    });
    assert_eq!(metadata.acl.default, expected, "{path}");
    let flags = source["fs_flags"].as_array().into_iter().flatten();
    let flags = flags.fold(0, |flags, name| flags | flag(name.as_str().unwrap()));
    // The nodump flag is in the archive although the stock restore leaves it out.
    assert!(
        stat.flags == flags || changed,
        "{path} {:x} {flags:x}",
        stat.flags
    );
}

#[test]
fn stock_archives_hold_what_was_backed_up() {
    let mut checked = 0;
    for version in VERSIONS {
        let store = Store::open(version);
        for (snapshot, restore) in restores(version) {
            let Some((archive, payload)) = store.archive(&snapshot) else {
                panic!("{snapshot:?}")
            };
            let found = match &payload {
                Some(payload) => decode(Decoder::split(archive.as_slice(), payload.as_slice())),
                None => decode(Decoder::new(archive.as_slice())),
            };
            let accessor = Accessor::split(archive, payload.unwrap_or_default()).unwrap();
            let restore_diff = &restore["real_client_restore_vs_manifest"];
            let missing: BTreeSet<&str> = restore_diff["missing"]
                .as_array()
                .unwrap()
                .iter()
                .map(|path| path.as_str().unwrap())
                .collect();
            let name = restore["tree_manifest"].as_str().unwrap();
            let sources =
                fs::read_to_string(fixtures(version).join(format!("manifests/{name}.jsonl")));
            let mut sources: BTreeMap<Vec<u8>, Value> = sources
                .unwrap()
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap())
                .filter(|source| !missing.contains(source["path"].as_str().unwrap()))
                .map(|source| (base64(&source["path_b64"]).unwrap(), source))
                .collect();
            for Found {
                path,
                entry,
                content,
            } in &found
            {
                let source = sources.remove(path).unwrap();
                let text = &source["path"];
                let node = accessor.lookup(path).unwrap().unwrap();
                assert_eq!(&node.entry, entry, "{text}");
                let kind = match &entry.kind {
                    EntryKind::Directory => "dir",
                    EntryKind::File { size, .. } => {
                        assert_eq!(Some(*size), source["size"].as_u64(), "{text}");
                        let digest = content.unwrap().to_string();
                        assert_eq!(Some(digest.as_str()), source["sha256"].as_str(), "{text}");
                        let content = accessor.content(&node).unwrap();
                        let mut data = vec![0; content.size() as usize];
                        content.read_exact_at(&mut data, 0).unwrap();
                        assert_eq!(Digest::of(&data).to_string(), digest);
                        "file"
                    }
                    EntryKind::Symlink(target) => {
                        assert_eq!(
                            Some(target.clone()),
                            base64(&source["target_b64"]),
                            "{text}"
                        );
                        "symlink"
                    }
                    EntryKind::Hardlink { target, .. } => {
                        assert_eq!(source["hardlink_set"], std::str::from_utf8(target).unwrap());
                        let file = accessor.follow_hardlink(node).unwrap();
                        assert_eq!(Some(file), accessor.lookup(target).unwrap());
                        continue;
                    }
                    EntryKind::Device(device) => {
                        assert_eq!(
                            source["rdev"],
                            serde_json::json!([device.major, device.minor])
                        );
                        if entry.metadata.stat.file_type() == MODE_BLOCK {
                            "blockdev"
                        } else {
                            "chardev"
                        }
                    }
                    EntryKind::Fifo => "fifo",
                    EntryKind::Socket => "socket",
                };
                assert_eq!(source["type"], kind, "{text}");
                check_metadata(
                    &entry.metadata.stat,
                    &entry.metadata,
                    &source,
                    text == "flags/nodump",
                );
            }
            assert!(sources.is_empty(), "{snapshot:?} {:?}", sources.keys());
            checked += 1;
        }
    }
    assert!(checked >= 20, "{checked}");
}

/// Path, type letter, size and time of an entry.
type Listed = (Vec<u8>, u8, Option<(u64, i64)>);

#[test]
fn stock_catalogs_list_the_archives_and_are_written_again_byte_for_byte() {
    let mut checked = 0;
    for version in VERSIONS {
        let store = Store::open(version);
        for snapshot in store.snapshots_with("catalog.pcat1.didx") {
            let Some(bytes) = store.stream(&snapshot.join("catalog.pcat1.didx")) else {
                continue;
            };
            let mut expected: Vec<Listed> = vec![(b"root.pxar.didx".to_vec(), b'd', None)];
            let (archive, _) = store.archive(&snapshot).unwrap();
            for Found { path, entry, .. } in decode(Decoder::new(archive.as_slice())).iter().skip(1)
            {
                let stat = &entry.metadata.stat;
                let (letter, attributes) = match entry.kind {
                    EntryKind::Directory => (b'd', None),
                    EntryKind::File { size, .. } => (b'f', Some((size, stat.mtime.seconds))),
                    EntryKind::Symlink(_) => (b'l', None),
                    EntryKind::Hardlink { .. } => (b'h', None),
                    EntryKind::Device(_) if stat.file_type() == MODE_BLOCK => (b'b', None),
                    EntryKind::Device(_) => (b'c', None),
                    EntryKind::Fifo => (b'p', None),
                    EntryKind::Socket => (b's', None),
                };
                expected.push((
                    [b"root.pxar.didx/", path.as_slice()].concat(),
                    letter,
                    attributes,
                ));
            }
            let reader = CatalogReader::new(bytes.clone()).unwrap();
            let mut listed = Vec::new();
            let mut writer = CatalogWriter::new(Vec::new()).unwrap();
            let mut depth = 0;
            reader
                .walk(reader.root(), |path, entry| {
                    let level = path.iter().filter(|&&byte| byte == b'/').count();
                    for _ in level..depth {
                        writer.end_directory()?;
                    }
                    depth = level;
                    let mut attributes = None;
                    match entry.kind {
                        CatalogKind::Directory(_) => {
                            writer.start_directory(entry.name)?;
                            depth += 1;
                        }
                        CatalogKind::File { size, mtime } => {
                            writer.add_file(entry.name, size, mtime)?;
                            attributes = Some((size, mtime));
                        }
                        kind => writer.add_special(kind, entry.name)?,
                    }
                    listed.push((path.to_vec(), entry.kind.letter(), attributes));
                    Ok::<_, CatalogError>(true)
                })
                .unwrap();
            assert_eq!(listed, expected, "{snapshot:?}");
            for _ in 0..depth {
                writer.end_directory().unwrap();
            }
            assert!(writer.finish().unwrap() == bytes, "{snapshot:?}");
            checked += 1;
        }
    }
    assert!(checked >= 20, "{checked}");
}
