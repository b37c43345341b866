//! Promises of the chunk store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::MetadataExt;

use backstop_format::CryptKey;

use super::*;
use crate::fixture::{TestStore, age};

const TEXT: &[u8] =
    b"content of a chunk, content of a chunk, content of a chunk, content of a chunk";

fn plain() -> DataBlob {
    DataBlob::encode(TEXT, None, false).unwrap()
}

fn compressed() -> DataBlob {
    DataBlob::encode(TEXT, None, true).unwrap()
}

fn encrypted(compress: bool) -> DataBlob {
    DataBlob::encode(TEXT, Some(&CryptKey::new([1; 32])), compress).unwrap()
}

fn raw(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

/// What happens to a chunk when the store holds these bytes under its name.
fn outcome(stored: Option<Vec<u8>>, new: &DataBlob) -> &'static str {
    let test = TestStore::empty();
    let digest = Digest::of(TEXT);
    let path = test.store.chunks().chunk_path(&digest);
    if let Some(stored) = &stored {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, stored).unwrap();
        age(&path);
    }
    let result = test.store.chunks().insert(&digest, new);
    let now = std::fs::read(&path).unwrap();
    match result {
        Err(DatastoreError::ChunkConflict { .. }) => {
            assert_eq!(Some(now), stored);
            "refused"
        }
        Err(other) => panic!("{other}"),
        Ok(InsertResult {
            duplicate: false,
            size,
            ..
        }) => {
            assert_eq!((now.as_slice(), size), (new.raw(), new.raw().len() as u64));
            "written"
        }
        Ok(InsertResult {
            duplicate: true,
            size,
            ..
        }) => {
            assert_eq!(size, now.len() as u64);
            assert_eq!(Some(now), stored);
            assert!(path.metadata().unwrap().atime() > 1_700_000_000, "touched");
            assert_eq!(
                path.metadata().unwrap().mtime(),
                1_000_000_000,
                "not written"
            );
            "kept"
        }
    }
}

#[test]
fn a_chunk_replaces_a_stored_one_only_by_the_rules() {
    let bytes = |blob: DataBlob| Some(blob.into_raw());
    assert_eq!(outcome(None, &plain()), "written");
    assert_eq!(outcome(None, &encrypted(true)), "written");
    assert_eq!(outcome(bytes(plain()), &plain()), "kept");
    assert_eq!(outcome(Some(vec![]), &plain()), "written");
    assert_eq!(outcome(bytes(compressed()), &plain()), "kept");
    assert_eq!(outcome(bytes(plain()), &compressed()), "written");
    assert_eq!(outcome(bytes(plain()), &encrypted(false)), "refused");
    assert_eq!(outcome(bytes(compressed()), &encrypted(true)), "refused");
    assert_eq!(outcome(bytes(encrypted(true)), &encrypted(false)), "kept");
    assert_eq!(outcome(bytes(encrypted(false)), &encrypted(true)), "kept");
    let longer = DataBlob::encode(
        b"another content that is longer than the first one was, much longer even, I should say so",
        Some(&CryptKey::new([1; 32])),
        false,
    )
    .unwrap();
    assert_eq!(outcome(bytes(longer), &encrypted(false)), "refused");
    assert_eq!(outcome(Some(raw(b"no chunk")), &plain()), "written");
    assert_eq!(outcome(Some(raw(&[7; 500])), &encrypted(true)), "written");
}

#[test]
fn what_is_stored_is_loaded() {
    let test = TestStore::empty();
    let digest = test.insert(TEXT);
    assert_eq!(
        test.store
            .chunks()
            .load(&digest)
            .unwrap()
            .decode(None, 1000)
            .unwrap(),
        TEXT
    );
    assert_eq!(
        test.store.chunks().read_raw(&digest).unwrap(),
        compressed().raw()
    );
    let path = test.store.chunks().chunk_path(&digest);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    let missing = Digest([1; 32]);
    assert!(
        matches!(test.store.chunks().load(&missing), Err(DatastoreError::NoSuchChunk { digest }) if digest == missing)
    );
    assert!(!test.store.chunks().touch(&missing).unwrap());
}

#[test]
fn a_truncated_or_changed_chunk_is_refused() {
    let test = TestStore::empty();
    let digest = test.insert(TEXT);
    let path = test.store.chunks().chunk_path(&digest);
    let good = std::fs::read(&path).unwrap();
    for length in [0, 5, 12, good.len() - 1] {
        std::fs::write(&path, good.get(..length).unwrap()).unwrap();
        let error = test.store.chunks().load(&digest).unwrap_err();
        assert!(
            matches!(error, DatastoreError::Damaged { .. })
                && error.to_string().contains(&digest.to_string())
        );
    }
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(&path, changed).unwrap();
    assert!(test.store.chunks().load(&digest).is_err());
}

#[test]
fn a_lost_chunk_store_is_named_and_one_that_comes_back_is_used_again() {
    let test = TestStore::empty();
    let digest = test.insert(TEXT);
    let (chunks, away) = (test.path().join(".chunks"), test.path().join("away"));
    std::fs::rename(&chunks, &away).unwrap();
    let expected = format!("unable to open chunk store at {chunks:?}");
    for error in [
        test.store.chunks().load(&digest).unwrap_err(),
        test.store.chunks().insert(&digest, &plain()).unwrap_err(),
        test.store.check_present().unwrap_err(),
        test.store
            .groups(&backstop_types::Namespace::root())
            .unwrap_err(),
        Datastore::open(
            &"other".parse().unwrap(),
            &test.path(),
            test.dir.path(),
            crate::fixture::tuning(),
        )
        .err()
        .unwrap(),
    ] {
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
    std::fs::rename(&away, &chunks).unwrap();
    test.store.chunks().load(&digest).unwrap();
    assert!(
        test.store
            .chunks()
            .insert(&digest, &compressed())
            .unwrap()
            .duplicate
    );
}

use crate::datastore::Datastore;

#[test]
fn corrupt_chunks_are_set_aside_under_free_numbers() {
    let test = TestStore::empty();
    for copy in 0..10 {
        let digest = test.insert(TEXT);
        let bad = test.store.chunks().mark_corrupt(&digest).unwrap().unwrap();
        assert!(
            bad.to_str()
                .unwrap()
                .ends_with(&format!("{digest}.{copy}.bad"))
        );
        assert_eq!(
            test.store.chunks().mark_corrupt(&digest).unwrap_or(None),
            None
        );
    }
    let digest = test.insert(TEXT);
    assert!(matches!(
        test.store.chunks().mark_corrupt(&digest),
        Err(DatastoreError::TooManyCorruptCopies { .. })
    ));
    assert!(test.has(TEXT), "the eleventh stays where it is");
}

#[test]
fn no_temporary_stays_behind_whatever_the_sync_level() {
    for level in [SyncLevel::None, SyncLevel::File, SyncLevel::Filesystem] {
        let test = TestStore::empty();
        test.store
            .set_tuning(backstop_types::Tuning {
                sync_level: level,
                ..crate::fixture::tuning()
            })
            .unwrap();
        let digest = test.insert(TEXT);
        let dir = test.store.chunks().chunk_path(&digest);
        assert_eq!(std::fs::read_dir(dir.parent().unwrap()).unwrap().count(), 1);
    }
}

#[test]
fn many_threads_inserting_the_same_chunks_leave_whole_chunks() {
    let test = TestStore::empty();
    let contents: Vec<Vec<u8>> = (0..40u8)
        .map(|i| vec![i; 1000 * usize::from(i) + 1])
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (test, contents) = (&test, &contents);
            scope.spawn(move || {
                for content in contents
                    .iter()
                    .cycle()
                    .skip(thread * 5)
                    .take(contents.len())
                {
                    let digest = test.insert(content);
                    let loaded = test.store.chunks().load(&digest).unwrap();
                    loaded
                        .verify_plain_chunk(&digest, content.len() as u64)
                        .unwrap();
                }
            });
        }
    });
}

/// Needs the right to mount; on a machine without it the test says so and checks nothing.
#[test]
fn a_full_disk_is_reported_and_leaves_no_part_of_a_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(dir.path())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("skipped: a small file system cannot be mounted here");
        return;
    }
    let result = std::panic::catch_unwind(|| {
        std::fs::create_dir(dir.path().join(".chunks")).unwrap();
        let chunks = ChunkStore::open(dir.path(), SyncLevel::Filesystem).unwrap();
        let mut full = None;
        for i in 0..40u8 {
            let content: Vec<u8> = (0..100_000u32)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 ^ i)
                .collect();
            let digest = Digest::of(&content);
            if let Err(error) =
                chunks.insert(&digest, &DataBlob::encode(&content, None, false).unwrap())
            {
                full = Some((digest, error));
                break;
            }
        }
        let (digest, error) = full.expect("40 chunks of 100 KB do not fit into 1 MiB");
        assert!(
            error.is_out_of_space() && error.to_string().contains("free space"),
            "{error}"
        );
        assert!(!chunks.contains(&digest).unwrap());
        let dir = chunks.chunk_path(&digest);
        assert_eq!(
            std::fs::read_dir(dir.parent().unwrap()).map_or(0, Iterator::count),
            0
        );
        chunks.release();
    });
    let unmounted = std::process::Command::new("umount")
        .arg(dir.path())
        .status()
        .unwrap();
    result.unwrap();
    assert!(unmounted.success(), "no handle is left open");
}

#[test]
fn a_chunk_that_was_corrupt_and_comes_again_is_said_to_be_healed() {
    let test = TestStore::empty();
    let digest = test.insert(b"content");
    let chunks = test.store.chunks();
    let blob = DataBlob::encode(b"content", None, true).unwrap();
    assert!(!chunks.insert(&digest, &blob).unwrap().healed);
    chunks.mark_corrupt(&digest).unwrap();
    assert!(chunks.insert(&digest, &blob).unwrap().healed);
    assert!(!chunks.insert(&digest, &blob).unwrap().healed);
}

#[test]
fn a_file_system_that_has_the_wrong_time_does_not_make_used_chunks_look_old() {
    let test = TestStore::empty();
    let path = test.store.chunks().chunk_path(&test.insert(b"content"));
    crate::fixture::age(&path);
    assert!(renew(&path).unwrap());
    let used = path.metadata().unwrap();
    assert!(used.atime() >= clock::now() - 60);
    assert_eq!(used.mtime(), 1_000_000_000, "access times are kept here");
    assert!(!renew(&path.with_file_name("gone")).unwrap());
}
