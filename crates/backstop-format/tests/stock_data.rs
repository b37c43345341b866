//! Everything that stock servers wrote into the reference datastores is read here, and written again to the same bytes
//! where the format leaves no choice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use backstop_format::blob::{DataBlob, MAX_BLOB_SIZE, MAX_CHUNK_SIZE};
use backstop_format::chunker::{Chunker, DEFAULT_CHUNK_SIZE};
use backstop_format::index::{AnyIndex, ChunkIndex, DynamicIndexBuilder, FixedIndexBuilder};
use backstop_format::key_file::KeyFile;
use backstop_format::manifest::Manifest;
use backstop_format::master_key::{MasterPrivateKey, MasterPublicKey};
use backstop_format::{CryptKey, CryptMode, Digest};
use base64::Engine;
use zeroize::Zeroizing;

const RELEASES: [&str; 2] = ["pbs-3.2.4", "pbs-4.2.3"];

fn fixtures(release: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures")).join(release)
}

fn store(release: &str) -> PathBuf {
    fixtures(release).join("datastore/store1")
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files_below(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

fn all_files(release: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    files_below(&store(release), &mut found);
    assert!(found.len() > 100);
    found
}

fn with_suffix(release: &str, suffix: &str) -> Vec<PathBuf> {
    let mut found = all_files(release);
    found.retain(|path| path.to_str().unwrap().ends_with(suffix));
    found.sort();
    assert!(!found.is_empty());
    found
}

fn indexes(release: &str) -> Vec<(PathBuf, AnyIndex)> {
    let mut paths = with_suffix(release, ".didx");
    paths.extend(with_suffix(release, ".fidx"));
    paths
        .into_iter()
        .map(|path| {
            (
                path.clone(),
                AnyIndex::parse(&std::fs::read(&path).unwrap()).unwrap(),
            )
        })
        .collect()
}

fn passphrase(text: &'static str) -> impl FnOnce() -> backstop_format::Result<Zeroizing<Vec<u8>>> {
    move || Ok(Zeroizing::new(text.as_bytes().to_vec()))
}

fn key(release: &str, name: &str, secret: &'static str) -> CryptKey {
    let text = std::fs::read(fixtures(release).join("keys").join(name)).unwrap();
    KeyFile::from_json(&text)
        .unwrap()
        .open(passphrase(secret))
        .unwrap()
}

/// All client keys of a release.
fn keys(release: &str) -> Vec<CryptKey> {
    let mut keys = vec![key(release, "enc-none.json", "")];
    if release == "pbs-3.2.4" {
        keys.push(key(release, "enc-scrypt.json", "Scrypt-Pw-1"));
        keys.push(key(release, "enc-pbkdf2.json", "Pbkdf2-Pw-1"));
    } else {
        let mut found = vec![];
        files_below(
            &fixtures(release).join("etc-proxmox-backup/encryption-keys"),
            &mut found,
        );
        for path in found {
            let file = KeyFile::from_json(&std::fs::read(path).unwrap()).unwrap();
            keys.push(file.open(passphrase("")).unwrap());
        }
    }
    keys
}

fn manifest_beside(index: &Path) -> Manifest {
    let raw = std::fs::read(index.with_file_name("index.json.blob")).unwrap();
    Manifest::from_blob(&DataBlob::load(raw).unwrap()).unwrap()
}

fn key_of(manifest: &Manifest, keys: &[CryptKey]) -> Option<CryptKey> {
    let fingerprint = manifest.fingerprint().unwrap()?;
    Some(
        keys.iter()
            .find(|key| key.fingerprint() == fingerprint)
            .expect("a key for each fingerprint")
            .clone(),
    )
}

fn load_chunk(release: &str, digest: &Digest) -> DataBlob {
    let name = digest.to_string();
    let path = store(release)
        .join(".chunks")
        .join(name.get(..4).unwrap())
        .join(&name);
    DataBlob::load(std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn every_chunk_is_read_and_unencrypted_ones_have_their_name() {
    for release in RELEASES {
        let mut chunks = vec![];
        files_below(&store(release).join(".chunks"), &mut chunks);
        for path in chunks {
            let blob = DataBlob::load(std::fs::read(&path).unwrap()).unwrap();
            if !blob.is_encrypted() {
                let digest: Digest = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
                let size = blob.decode(None, MAX_CHUNK_SIZE).unwrap().len() as u64;
                blob.decode_chunk(None, &digest, size).unwrap();
                blob.verify_plain_chunk(&digest, size).unwrap();
            }
        }
    }
}

#[test]
fn every_index_is_written_again_to_the_same_bytes() {
    for release in RELEASES {
        for (path, index) in indexes(release) {
            let raw = std::fs::read(&path).unwrap();
            let spans: Vec<_> = (0..index.chunk_count())
                .map(|i| index.chunk(i).unwrap())
                .collect();
            let again = match &index {
                AnyIndex::Fixed(fixed) => {
                    let builder =
                        FixedIndexBuilder::new(Some(fixed.size()), fixed.chunk_size()).unwrap();
                    let mut builder = builder.with_identity(fixed.uuid(), fixed.ctime());
                    for span in &spans {
                        builder.add(span.start, span.size(), &span.digest).unwrap();
                    }
                    builder.finish().unwrap()
                }
                AnyIndex::Dynamic(dynamic) => {
                    let mut builder =
                        DynamicIndexBuilder::new().with_identity(dynamic.uuid(), dynamic.ctime());
                    for span in &spans {
                        builder.append(span.size(), &span.digest).unwrap();
                    }
                    builder.finish().unwrap()
                }
            };
            assert_eq!(
                again,
                (raw, index.checksum(), index.size()),
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn every_manifest_is_written_again_to_the_same_text_and_signatures_hold() {
    let mut signed = 0;
    for release in RELEASES {
        let keys = keys(release);
        for path in with_suffix(release, "index.json.blob") {
            let blob = DataBlob::load(std::fs::read(&path).unwrap()).unwrap();
            let text = blob.decode(None, MAX_BLOB_SIZE).unwrap();
            let manifest = Manifest::from_json(&text).unwrap();
            let again = manifest.to_json().unwrap();
            assert_eq!(
                String::from_utf8(again).unwrap(),
                String::from_utf8(text).unwrap(),
                "{}",
                path.display()
            );
            if let Some(key) = key_of(&manifest, &keys) {
                assert!(manifest.verify(&key).unwrap(), "{}", path.display());
                signed += 1;
            }
        }
    }
    assert!(signed > 5);
}

#[test]
fn every_manifest_agrees_with_the_files_beside_it() {
    for release in RELEASES {
        for path in with_suffix(release, "index.json.blob") {
            for file in manifest_beside(&path).files {
                let raw = std::fs::read(path.with_file_name(&file.filename)).unwrap();
                if file.filename.ends_with(".blob") {
                    assert_eq!((raw.len() as u64, Digest::of(&raw)), (file.size, file.csum));
                } else {
                    let index = AnyIndex::parse(&raw).unwrap();
                    assert_eq!((index.size(), index.checksum()), (file.size, file.csum));
                }
            }
        }
    }
}

#[test]
fn every_blob_and_every_indexed_chunk_is_decrypted() {
    let mut encrypted = 0;
    for release in RELEASES {
        let keys = keys(release);
        let mut seen = HashSet::new();
        for path in with_suffix(release, ".blob") {
            let blob = DataBlob::load(std::fs::read(&path).unwrap()).unwrap();
            let key = key_of(&manifest_beside(&path), &keys);
            blob.decode(key.as_ref(), MAX_BLOB_SIZE).unwrap();
            encrypted += u32::from(blob.is_encrypted());
        }
        for (path, index) in indexes(release) {
            let manifest = manifest_beside(&path);
            let mode = manifest
                .file(path.file_name().unwrap().to_str().unwrap())
                .unwrap()
                .crypt_mode;
            let key = key_of(&manifest, &keys).filter(|_| mode == CryptMode::Encrypt);
            for span in (0..index.chunk_count()).map(|i| index.chunk(i).unwrap()) {
                if seen.insert((span.digest, span.size())) {
                    let blob = load_chunk(release, &span.digest);
                    assert_eq!(blob.is_encrypted(), mode == CryptMode::Encrypt);
                    blob.decode_chunk(key.as_ref(), &span.digest, span.size())
                        .unwrap();
                    encrypted += u32::from(blob.is_encrypted());
                }
            }
        }
    }
    assert!(encrypted > 20);
}

/// Payload archives are cut where the timing of the stock client has it; all others are cut by their content alone.
#[test]
fn archives_and_images_are_cut_where_stock_cuts_them() {
    for release in RELEASES {
        let keys = keys(release);
        let mut done = HashMap::new();
        for (path, index) in indexes(release) {
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.ends_with(".ppxar.didx") || done.insert(index.checksum(), ()).is_some() {
                continue;
            }
            let manifest = manifest_beside(&path);
            let key = key_of(&manifest, &keys)
                .filter(|_| manifest.file(name).unwrap().crypt_mode == CryptMode::Encrypt);
            let spans: Vec<_> = (0..index.chunk_count())
                .map(|i| index.chunk(i).unwrap())
                .collect();
            let mut stream = vec![];
            for span in &spans {
                let blob = load_chunk(release, &span.digest);
                stream.extend(
                    blob.decode_chunk(key.as_ref(), &span.digest, span.size())
                        .unwrap(),
                );
            }
            let mut ends = vec![];
            if let AnyIndex::Fixed(index) = &index {
                ends.extend((1..index.chunk_count() as u64).map(|i| i * index.chunk_size()));
            } else {
                let average = if name.starts_with("catalog.") {
                    512 << 10
                } else {
                    DEFAULT_CHUNK_SIZE
                };
                let mut chunker = Chunker::new(average);
                let mut at = 0;
                while let Some(length) = chunker.scan(&stream[at..]) {
                    at += length;
                    ends.push(at as u64);
                }
            }
            if ends.last() != Some(&(stream.len() as u64)) {
                ends.push(stream.len() as u64);
            }
            assert_eq!(
                ends,
                spans.iter().map(|span| span.end).collect::<Vec<_>>(),
                "{}",
                path.display()
            );
            for span in spans {
                let piece = &stream[span.start as usize..span.end as usize];
                let digest = key
                    .as_ref()
                    .map_or_else(|| Digest::of(piece), |key| key.chunk_digest(piece));
                assert_eq!(digest, span.digest);
            }
        }
        assert!(done.len() > 5);
    }
}

#[test]
fn key_files_are_written_again_to_the_same_text() {
    for release in RELEASES {
        let mut paths = vec![];
        files_below(&fixtures(release).join("keys"), &mut paths);
        paths.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        });
        if release == "pbs-4.2.3" {
            files_below(
                &fixtures(release).join("etc-proxmox-backup/encryption-keys"),
                &mut paths,
            );
        }
        for path in paths {
            let text = std::fs::read(path).unwrap();
            assert_eq!(
                KeyFile::from_json(&text)
                    .unwrap()
                    .to_json()
                    .unwrap()
                    .as_slice(),
                text
            );
        }
    }
}

#[test]
fn the_master_key_recovers_the_key_of_a_backup() {
    let keys = fixtures("pbs-3.2.4").join("keys");
    let wrapped = std::fs::read_to_string(keys.join("master-private.pem.b64")).unwrap();
    let wrapped: String = wrapped.split_ascii_whitespace().collect();
    let pem = base64::engine::general_purpose::STANDARD
        .decode(wrapped)
        .unwrap();
    assert!(MasterPrivateKey::from_pem(&pem, b"wrong").is_err());
    let private = MasterPrivateKey::from_pem(&pem, b"Master-Pw-1").unwrap();
    let public = std::fs::read(keys.join("master-public.pem")).unwrap();
    assert_eq!(
        MasterPublicKey::from_pem(&public)
            .unwrap()
            .to_pem()
            .unwrap()
            .as_bytes(),
        public
    );
    assert_eq!(private.public_key().to_pem().unwrap().as_bytes(), public);

    let [path] = with_suffix("pbs-3.2.4", "rsa-encrypted.key.blob")
        .try_into()
        .unwrap();
    let blob = DataBlob::load(std::fs::read(&path).unwrap()).unwrap();
    let file = private.recover(&blob.decode(None, 4096).unwrap()).unwrap();
    let recovered = file.open(passphrase("")).unwrap();
    assert_eq!(
        Some(recovered.fingerprint()),
        manifest_beside(&path).fingerprint().unwrap()
    );
    assert_eq!(
        recovered.key_bytes(),
        key("pbs-3.2.4", "enc-scrypt.json", "Scrypt-Pw-1").key_bytes()
    );
}
