//! Archives of stock servers are extracted to what was backed up.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use backstop_client::archive::*;
use backstop_format::Digest;
use backstop_format::blob::DataBlob;
use backstop_format::index::{ChunkIndex as _, DynamicIndex};
use backstop_format::pxar::decoder::Decoder;

use crate::support::*;

fn fixtures(version: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures")).join(version)
}

fn stream(store: &Path, index: &Path) -> Vec<u8> {
    let index = DynamicIndex::parse(fs::read(index).unwrap()).unwrap();
    let mut stream = Vec::new();
    for i in 0..index.chunk_count() {
        let span = index.chunk(i).unwrap();
        let name = span.digest.to_string();
        let raw = fs::read(store.join(".chunks").join(&name[..4]).join(&name)).unwrap();
        let chunk = DataBlob::load(raw)
            .unwrap()
            .decode_chunk(None, &span.digest, span.size());
        stream.extend(chunk.unwrap());
    }
    stream
}

fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = 0u32;
    let mut out = Vec::new();
    for (i, byte) in text.bytes().filter(|&byte| byte != b'=').enumerate() {
        bits = bits << 6 | ALPHABET.iter().position(|&letter| letter == byte).unwrap() as u32;
        if i % 4 > 0 {
            out.push((bits >> (6 - 2 * (i % 4))) as u8);
        }
    }
    out
}

fn check(version: &str, snapshot: &str, manifest: &str) {
    let store = fixtures(version).join("datastore/store1");
    let snapshot = store.join(snapshot);
    let target = tempfile::tempdir().unwrap();
    let lines = Lines::default();
    let options = ExtractOptions {
        allow_existing_dirs: true,
        ..ExtractOptions::default()
    };
    if snapshot.join("root.pxar.didx").exists() {
        let archive = stream(&store, &snapshot.join("root.pxar.didx"));
        let mut decoder = Decoder::new(archive.as_slice());
        extract(&mut decoder, target.path(), &options, &lines).unwrap();
    } else {
        let archive = stream(&store, &snapshot.join("root.mpxar.didx"));
        let payload = stream(&store, &snapshot.join("root.ppxar.didx"));
        let mut decoder = Decoder::split(archive.as_slice(), payload.as_slice());
        extract(&mut decoder, target.path(), &options, &lines).unwrap();
    }
    let mut found = describe(target.path());
    // So that the directory can be removed.
    for path in ["flags/immutable", "flags/append"] {
        if let Ok(file) = fs::File::open(target.path().join(path)) {
            let flags = rustix::fs::ioctl_getflags(&file).unwrap();
            let removable = flags - rustix::fs::IFlags::IMMUTABLE - rustix::fs::IFlags::APPEND;
            rustix::fs::ioctl_setflags(&file, removable).unwrap();
        }
    }
    let manifest = fixtures(version).join(format!("manifests/{manifest}.jsonl"));
    for line in fs::read_to_string(manifest).unwrap().lines() {
        let source: serde_json::Value = serde_json::from_str(line).unwrap();
        let path = base64(source["path_b64"].as_str().unwrap());
        let left_out =
            [&b"excl/a.tmp"[..], b"excl/anchored", b"excl/sub/drop"].contains(&path.as_slice());
        let Some(restored) = found.remove(&path) else {
            assert!(left_out, "{source}");
            continue;
        };
        let mode = u32::from_str_radix(source["mode"].as_str().unwrap(), 8).unwrap();
        assert_eq!(restored.mode & 0o7777, mode, "{source}");
        assert_eq!(u64::from(restored.owner.0), source["uid"].as_u64().unwrap());
        assert_eq!(u64::from(restored.owner.1), source["gid"].as_u64().unwrap());
        let mtime = restored.mtime.0 * 1_000_000_000 + restored.mtime.1;
        assert_eq!(mtime, source["mtime_ns"].as_i64().unwrap(), "{source}");
        if let Some(digest) = source["sha256"].as_str() {
            assert_eq!(
                Digest::of(&restored.content).to_string(),
                digest,
                "{source}"
            );
        }
        if let Some(target) = source["target_b64"].as_str() {
            assert_eq!(restored.content, base64(target));
        }
        if let Some(first) = source["hardlink_set"].as_str() {
            let expected = (first.as_bytes() != path).then(|| first.as_bytes().to_vec());
            assert_eq!(restored.same_as, expected);
        }
        if let Some([major, minor]) = source["rdev"].as_array().map(Vec::as_slice) {
            let number = |value: &serde_json::Value| value.as_u64().unwrap() as u32;
            assert_eq!(
                restored.device,
                rustix::fs::makedev(number(major), number(minor))
            );
        }
        let mut expected: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (name, value) in source["xattrs_b64"].as_object().into_iter().flatten() {
            expected.insert(name.clone().into_bytes(), base64(value.as_str().unwrap()));
        }
        if let Some(value) = source["fcaps_b64"].as_str() {
            expected.insert(b"security.capability".to_vec(), base64(value));
        }
        for (key, name) in [("acl_access", "access"), ("acl_default", "default")] {
            if let Some(entries) = source[key].as_array() {
                expected.insert(
                    format!("system.posix_acl_{name}").into_bytes(),
                    acl(entries),
                );
            }
        }
        assert_eq!(restored.xattrs, expected, "{source}");
        let flag = |name: &serde_json::Value| match name.as_str().unwrap() {
            "append" => 0x20,
            "noatime" => 0x80,
            "immutable" => 0x10,
            "sync" => 0x8,
            _ => 0x40,
        };
        let flags = source["fs_flags"].as_array().into_iter().flatten();
        let flags = flags.fold(0, |flags, name| flags | flag(name));
        assert_eq!(restored.flags, flags, "{source}");
    }
    assert!(found.is_empty(), "{:?}", found.keys());
    assert_eq!(lines.take(), [""; 0]);
}

/// The kernel's form of an ACL.
fn acl(entries: &[serde_json::Value]) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    let mut records: Vec<(u16, u32, u16)> = entries
        .iter()
        .map(|entry| {
            let tag = match entry["tag"].as_str().unwrap() {
                "user_obj" => 1,
                "user" => 2,
                "group_obj" => 4,
                "group" => 8,
                "mask" => 0x10,
                _ => 0x20,
            };
            let id = entry["id"].as_u64().map_or(u32::MAX, |id| id as u32);
            (tag, id, entry["perm"].as_u64().unwrap() as u16)
        })
        .collect();
    records.sort();
    for (tag, id, permissions) in records {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

#[test]
fn stock_archives_are_extracted_to_what_was_backed_up() {
    if !is_root() {
        return;
    }
    check("pbs-3.2.4", "host/fix1/2024-06-04T11:20:00Z", "tree-1");
    check("pbs-3.2.4", "host/fix1/2024-06-04T12:20:00Z", "tree-2");
    check("pbs-4.2.3", "host/split/2025-06-15T15:06:40Z", "tree-1");
    check("pbs-4.2.3", "host/split/2025-06-15T19:06:40Z", "tree-3");
    check("pbs-4.2.3", "host/split/2025-06-15T20:06:40Z", "tree-4");
}
