//! Promises about snapshots that are taken over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use backstop_format::CryptMode;
use backstop_types::AuthId;

use super::*;
use crate::fixture::{TestStore, manifest};

const ROOT: Namespace = Namespace::root();

fn snapshot() -> Snapshot {
    "vm/100/2024-01-01T00:00:00Z".parse().unwrap()
}

fn entry(raw: &[u8]) -> FileEntry {
    FileEntry {
        filename: "etc.conf.blob".to_owned(),
        crypt_mode: CryptMode::None,
        size: raw.len() as u64,
        csum: Digest::of(raw),
    }
}

#[test]
fn an_import_that_is_given_up_leaves_what_was_there_before() {
    let test = TestStore::empty();
    let snapshot = snapshot();
    let (_, lock) = test
        .store
        .create_group_locked(&ROOT, &snapshot.group, &AuthId::root())
        .unwrap();
    let blob = DataBlob::encode(b"text", None, false).unwrap();
    let name: ArchiveName = "etc.conf.blob".parse().unwrap();

    let import = test.store.import_snapshot(&ROOT, &snapshot).unwrap();
    assert!(import.is_new() && import.manifest().unwrap().is_none());
    assert!(test.store.import_snapshot(&ROOT, &snapshot).is_err());
    import.store_file(&name, blob.raw()).unwrap();
    drop(import);
    assert!(!test.store.snapshot_exists(&ROOT, &snapshot));

    let mut manifest = manifest(&snapshot, Digest::of(b""), 0);
    manifest.files = vec![entry(blob.raw())];
    let mut import = test.store.import_snapshot(&ROOT, &snapshot).unwrap();
    assert!(!import.has(&name, &manifest.files[0]).unwrap());
    import.store_file(&name, blob.raw()).unwrap();
    assert!(import.has(&name, &manifest.files[0]).unwrap());
    assert!(!test.store.is_finished(&ROOT, &snapshot));
    import
        .store_file(&"index.json.blob".parse().unwrap(), blob.raw())
        .unwrap_err();
    import
        .store_file(&"other.blob".parse().unwrap(), blob.raw())
        .unwrap();
    import.finish(&manifest).unwrap();
    drop(import);
    let info = test.store.snapshot_info(&ROOT, &snapshot).unwrap();
    assert_eq!(info.files, ["etc.conf.blob", "index.json.blob"]);

    let import = test.store.import_snapshot(&ROOT, &snapshot).unwrap();
    assert!(!import.is_new());
    assert_eq!(import.manifest().unwrap().unwrap().files, manifest.files);
    drop(import);
    assert!(test.store.is_finished(&ROOT, &snapshot));
    drop(lock);
}

#[test]
fn a_file_that_is_not_as_its_manifest_says_is_refused_with_the_reason() {
    let blob = DataBlob::encode(b"text", None, false).unwrap();
    let name: ArchiveName = "etc.conf.blob".parse().unwrap();
    let good = entry(blob.raw());
    assert!(check_file(&name, blob.raw(), &good).unwrap().is_none());
    let mut longer = good.clone();
    longer.size += 1;
    assert_eq!(
        check_file(&name, blob.raw(), &longer).err().unwrap(),
        "wrong size for file 'etc.conf.blob' (17 != 16)"
    );
    let other = FileEntry {
        csum: Digest::of(b"other"),
        ..good.clone()
    };
    assert_eq!(
        check_file(&name, blob.raw(), &other).err().unwrap(),
        "wrong checksum for file 'etc.conf.blob'"
    );
    let mut broken = blob.raw().to_vec();
    broken[13] ^= 1;
    assert!(check_file(&name, &broken, &good).is_err());
    assert!(check_file(&"a.didx".parse().unwrap(), b"short", &good).is_err());
}

#[test]
fn the_chunks_of_a_snapshot_whose_verification_failed_prove_nothing() {
    let test = TestStore::empty();
    let snapshot = test.backup("vm/100/2024-01-01T00:00:00Z", &[b"one", b"two"]);
    let digests = test.store.chunk_digests(&ROOT, &snapshot).unwrap();
    assert!(digests.contains(&Digest::of(b"one")) && digests.contains(&Digest::of(b"two")));
    assert!(!digests.contains(&Digest::of(b"three")));
    let state = backstop_format::manifest::VerifyState {
        state: VerifyResult::Failed,
        upid: String::new(),
    };
    test.store
        .set_verify_state(&ROOT, &snapshot, &state)
        .unwrap();
    let digests = test.store.chunk_digests(&ROOT, &snapshot).unwrap();
    assert!(!digests.contains(&Digest::of(b"one")));
}

#[test]
fn a_locked_snapshot_is_repaired_but_gets_no_other_content() {
    let test = TestStore::empty();
    let snapshot = snapshot();
    let group = test
        .store
        .create_group_locked(&ROOT, &snapshot.group, &AuthId::root());
    let _group = group.unwrap();
    let encoded = |text: &[u8]| DataBlob::encode(text, None, false).unwrap();
    let (good, bad) = (encoded(b"text"), encoded(b"rubbish"));
    let name: ArchiveName = "etc.conf.blob".parse().unwrap();
    let mut manifest = manifest(&snapshot, Digest::of(b""), 0);
    manifest.files = vec![entry(good.raw())];
    let import = || test.store.import_snapshot(&ROOT, &snapshot).unwrap();
    let mut first = import();
    first.store_file(&name, good.raw()).unwrap();
    first.finish(&manifest).unwrap();
    drop(first);
    let lock = test.store.retention_lock();
    lock.set(&ROOT, 30, None, "root@pam").unwrap();

    let mut again = import();
    let error = again.store_file(&name, bad.raw()).unwrap_err();
    assert!(
        matches!(error, DatastoreError::RetentionLocked(_)),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .ends_with("it cannot be replaced by other content"),
        "{error}"
    );
    again
        .store_file(&"new.blob".parse().unwrap(), good.raw())
        .unwrap_err();
    let mut other = manifest.clone();
    other.files = vec![entry(bad.raw())];
    again.finish(&other).unwrap_err();
    other = manifest.clone();
    other.signature = Some("00".repeat(32));
    again.finish(&other).unwrap_err();

    // damage is repaired, and what was noted may change
    std::fs::write(again.path.join("etc.conf.blob"), b"damaged").unwrap();
    again.store_file(&name, good.raw()).unwrap();
    let mut noted = manifest.clone();
    noted.set_notes("repaired");
    again.finish(&noted).unwrap();
    assert!(again.has(&name, &manifest.files[0]).unwrap());
    drop(again);
    assert!(test.store.is_finished(&ROOT, &snapshot));
}
