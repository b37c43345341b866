#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    dead_code
)]
//! Promises of random and sequential access to archives, and of trees as a whole.

mod peer;

use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

use backstop_client::activity::{Activity, Silent};
use backstop_client::backup::{self, ArchiveSpec, BackupRequest, ChangeDetection, SourceKind};
use backstop_client::reader::{
    ArchiveStream, ChunkSource, ReadAhead, ReaderSession, RemoteIndexReader,
};
use backstop_client::restore::{
    self, ExtractOptions, RestoreRequest, RestoreTarget, SnapshotAccess,
};
use backstop_format::CryptMode;
use backstop_format::read_at::ReadAt as _;
use backstop_types::Namespace;
use peer::bench::{Bench, Lines, crypt, noise, snapshot};
use tokio::runtime::Handle;

fn access(time: i64) -> SnapshotAccess {
    SnapshotAccess {
        datastore: "store".to_owned(),
        namespace: Namespace::root(),
        snapshot: snapshot(time),
        key: None,
    }
}

async fn image(bench: &Bench, connections: usize) -> ChunkSource {
    let session = ReaderSession::open(&bench.client, &access(1000), connections)
        .await
        .unwrap();
    let manifest = session.manifest().await.unwrap();
    session.archive("disk.img.fidx", &manifest).await.unwrap()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_range_read_at_random_is_that_of_the_source() {
    let bench = Bench::new().await;
    bench.backup(bench.request(1000)).await.unwrap();
    let content = std::fs::read(bench.path("disk.img")).unwrap();
    // A cache of one chunk, so that chunks are dropped and fetched again.
    let reader = RemoteIndexReader::with_cache(image(&bench, 1).await, Handle::current(), 1);
    blocking(move || {
        assert_eq!(reader.size(), content.len() as u64);
        let mut place = 12345;
        for _ in 0..60 {
            place = (place * 48271) % 0x7fff_ffff;
            let start = place % content.len();
            let length = (place % 5_000_000).min(content.len() - start);
            let mut buffer = vec![1; length];
            reader.read_exact_at(&mut buffer, start as u64).unwrap();
            assert!(buffer == content[start..start + length], "{start}+{length}");
        }
        assert_eq!(
            reader.read_at(&mut [0; 10], content.len() as u64).unwrap(),
            0
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_fetch_is_an_error_for_its_reader_and_tried_again_for_the_next() {
    let bench = Bench::new().await;
    bench.backup(bench.request(1000)).await.unwrap();
    let chunks = std::mem::take(&mut bench.peer.state.lock().chunks);
    let reader = RemoteIndexReader::new(image(&bench, 1).await, Handle::current());
    let again = reader.clone();
    assert!(
        blocking(move || reader.read_at(&mut [0; 10], 0))
            .await
            .is_err()
    );
    bench.peer.state.lock().chunks = chunks;
    assert_eq!(
        blocking(move || again.read_at(&mut [0; 10], 0))
            .await
            .unwrap(),
        10
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_gives_the_whole_archive_over_one_or_several_connections() {
    let bench = Bench::new().await;
    bench.backup(bench.request(1000)).await.unwrap();
    for connections in [1, 3] {
        let mut stream = ArchiveStream::start(image(&bench, connections).await, &Handle::current());
        let content = std::fs::read(bench.path("disk.img")).unwrap();
        blocking(move || {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            assert!(all == content);
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_continues_right_after_seeks_in_both_directions() {
    let bench = Bench::new().await;
    bench.backup(bench.request(1000)).await.unwrap();
    let content = std::fs::read(bench.path("disk.img")).unwrap();
    let source = image(&bench, 1).await;
    let runtime = Handle::current();
    blocking(move || {
        let mut stream = ArchiveStream::with_read_ahead(source, &runtime, ReadAhead::Growing);
        let end = content.len();
        for offset in [
            5,
            4 << 20,
            (4 << 20) - 1,
            22 << 20,
            0,
            end - 1,
            9 << 20,
            9 << 20,
            1,
        ] {
            assert_eq!(
                stream.seek(SeekFrom::Start(offset as u64)).unwrap(),
                offset as u64
            );
            let mut buffer = vec![0; (end - offset).min(3000)];
            stream.read_exact(&mut buffer).unwrap();
            assert!(buffer == content[offset..offset + buffer.len()], "{offset}");
            assert_eq!(
                stream.stream_position().unwrap(),
                (offset + buffer.len()) as u64
            );
        }
        assert_eq!(stream.seek(SeekFrom::End(0)).unwrap(), end as u64);
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        assert!(stream.seek(SeekFrom::Start(end as u64 + 1)).is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_with_a_missing_chunk_fails_there_and_never_just_ends() {
    let bench = Bench::new().await;
    bench.backup(bench.request(1000)).await.unwrap();
    let source = image(&bench, 1).await;
    let third = backstop_format::Digest::of(
        &std::fs::read(bench.path("disk.img")).unwrap()[8 << 20..12 << 20],
    );
    bench.peer.state.lock().chunks.remove(&third).unwrap();
    let mut stream = ArchiveStream::start(source, &Handle::current());
    let (length, error) = blocking(move || {
        let mut all = Vec::new();
        let error = stream.read_to_end(&mut all).unwrap_err();
        (all.len(), error.to_string())
    })
    .await;
    assert_eq!(length, 8 << 20);
    assert!(error.contains("disk.img.fidx"), "{error}");
}

fn make_tree(root: &Path) {
    let dir = |name: &str| std::fs::create_dir_all(root.join(name)).unwrap();
    let file = |name: &str, content: &[u8]| std::fs::write(root.join(name), content).unwrap();
    dir("etc/conf.d");
    dir("empty");
    file("etc/one", b"one\n");
    file("etc/conf.d/none", b"");
    file("large", &noise(11 << 20, 4));
    for number in 0..300 {
        file(
            &format!("etc/conf.d/f{number:03}"),
            &noise(number * 37, number as u64),
        );
    }
    std::fs::set_permissions(root.join("etc/one"), std::fs::Permissions::from_mode(0o640)).unwrap();
    symlink("../large", root.join("etc/link")).unwrap();
    std::fs::hard_link(root.join("large"), root.join("etc/hard")).unwrap();
}

/// Paths, modes, link targets and contents below a directory.
fn listing(root: &Path) -> Vec<(String, u32, Vec<u8>)> {
    fn walk(root: &Path, at: &Path, found: &mut Vec<(String, u32, Vec<u8>)>) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let content = if metadata.is_symlink() {
                std::fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes()
            } else if metadata.is_file() {
                std::fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            found.push((name, metadata.permissions().mode(), content));
            if metadata.is_dir() {
                walk(root, &path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort();
    found
}

fn tree_request(bench: &Bench, time: i64, mode: ChangeDetection) -> BackupRequest {
    let mut request = bench.request(time);
    request.archives = vec![ArchiveSpec {
        name: "root.pxar".to_owned(),
        kind: SourceKind::Tree,
        path: bench.path("tree"),
    }];
    request.change_detection = mode;
    request
}

fn restore_request(bench: &Bench, time: i64, target: &str) -> RestoreRequest {
    RestoreRequest {
        access: access(time),
        archive: "root.pxar".to_owned(),
        target: RestoreTarget::Path(bench.path(target)),
        extract: ExtractOptions::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_comes_back_in_every_mode_encrypted_or_not() {
    let bench = Bench::new().await;
    make_tree(&bench.path("tree"));
    let expected = listing(&bench.path("tree"));
    let mut time = 1000;
    for mode in [
        ChangeDetection::Legacy,
        ChangeDetection::Data,
        ChangeDetection::Metadata,
    ] {
        for config in [None, Some(crypt(CryptMode::Encrypt, 1))] {
            time += 1000;
            let mut request = tree_request(&bench, time, mode);
            request.crypt = config.clone();
            bench.backup(request).await.unwrap();
            let target = format!("restored-{time}");
            let mut request = restore_request(&bench, time, &target);
            request.access.key = config.map(|config| config.key);
            restore::run(&bench.client, request, Arc::new(Silent))
                .await
                .unwrap();
            let restored = listing(&bench.path(&target));
            assert!(
                restored == expected,
                "{mode:?}: {} of {}",
                restored.len(),
                expected.len()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_tree_is_taken_over_without_upload_in_metadata_mode() {
    let bench = Bench::new().await;
    make_tree(&bench.path("tree"));
    bench
        .backup(tree_request(&bench, 1000, ChangeDetection::Metadata))
        .await
        .unwrap();
    std::fs::write(bench.path("tree/etc/one"), b"changed\n").unwrap();
    let expected = listing(&bench.path("tree"));
    let lines = Arc::new(Lines::default());
    let heard: Arc<dyn Activity> = Arc::clone(&lines) as Arc<dyn Activity>;
    let request = tree_request(&bench, 2000, ChangeDetection::Metadata);
    let summary = backup::run(&bench.client, request, heard).await.unwrap();
    let payload = summary
        .archives
        .iter()
        .find(|archive| archive.name == "root.ppxar.didx")
        .unwrap();
    assert!(payload.injected > 10 << 20, "{payload:?}");
    assert!(payload.uploaded < 1 << 20, "{payload:?}");
    let lines = lines.0.lock().clone();
    assert!(
        lines.iter().any(|line| line == "Change detection summary:"),
        "{lines:?}"
    );
    let request = restore_request(&bench, 2000, "restored");
    restore::run(&bench.client, request, Arc::new(Silent))
        .await
        .unwrap();
    assert!(listing(&bench.path("restored")) == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_restores_what_it_matches_and_fetches_little_else() {
    let bench = Bench::new().await;
    make_tree(&bench.path("tree"));
    for (time, mode) in [
        (1000, ChangeDetection::Legacy),
        (2000, ChangeDetection::Data),
    ] {
        bench
            .backup(tree_request(&bench, time, mode))
            .await
            .unwrap();
        let target = format!("restored-{time}");
        let mut request = restore_request(&bench, time, &target);
        request.extract.patterns = vec!["etc/one".to_owned()];
        restore::run(&bench.client, request, Arc::new(Silent))
            .await
            .unwrap();
        assert_eq!(
            std::fs::read(bench.path(&target).join("etc/one")).unwrap(),
            b"one\n"
        );
        assert!(!bench.path(&target).join("large").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_walked_to_fails_the_whole_backup() {
    let bench = Bench::new().await;
    make_tree(&bench.path("tree"));
    let mut request = tree_request(&bench, 1000, ChangeDetection::Legacy);
    request.tree.entries_max = 10;
    let error = bench.backup(request).await.unwrap_err().to_string();
    assert!(error.contains("root.pxar"), "{error}");
    assert!(bench.peer.state.lock().snapshots.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_speed_test_moves_data_and_leaves_nothing_behind() {
    let bench = Bench::new().await;
    let duration = std::time::Duration::from_millis(50);
    let result = backstop_client::benchmark::upload(&bench.client, "store", false, duration)
        .await
        .unwrap();
    assert!(result.blocks > 0 && result.speed() > 0.0);
    assert!(bench.peer.state.lock().snapshots.is_empty());
}
