#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    dead_code
)]
//! Promises of backup and restore over the wire: what comes back is what went in, and whatever is damaged, exchanged or
//! broken off is an error that names it.

mod peer;

use std::path::Path;
use std::sync::Arc;

use backstop_client::activity::{Activity, Silent};
use backstop_client::restore::{
    self, ExtractOptions, RestoreRequest, RestoreTarget, SnapshotAccess,
};
use backstop_client::{ClientError, backup};
use backstop_format::CryptMode;
use backstop_format::blob::DataBlob;
use backstop_types::Namespace;
use peer::bench::{Bench, Lines, NAMES, crypt, noise, snapshot};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_backed_up_comes_back_and_an_unchanged_image_is_not_sent_again() {
    let bench = Bench::new().await;
    let first = bench.backup(bench.request(1000)).await.unwrap();
    assert_eq!(first.archives[0].size, (22 << 20) + 700);
    bench.assert_restores(1000, None).await;

    bench.peer.state.lock().chunk_uploads = 0;
    let second = bench.backup(bench.request(2000)).await.unwrap();
    assert_eq!(bench.peer.state.lock().chunk_uploads, 0);
    assert_eq!(second.archives[0].uploaded, 0);
    bench.assert_restores(2000, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zeros_are_stored_once_and_come_back_as_holes() {
    use std::os::unix::fs::MetadataExt as _;
    let bench = Bench::new().await;
    bench.backup(bench.request(1000)).await.unwrap();
    // Three chunks of noise (the last with zeros behind), one of zeros, the short one.
    assert_eq!(bench.peer.state.lock().chunk_uploads, 5);
    bench.restore(1000, None, "disk.img").await.unwrap();
    let blocks = std::fs::metadata(bench.path("restored")).unwrap().blocks() * 512;
    assert!(blocks < 15 << 20, "{blocks} of 22 MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_backup_needs_its_key() {
    let bench = Bench::new().await;
    let mut request = bench.request(1000);
    let own = crypt(CryptMode::Encrypt, 1);
    request.crypt = Some(own.clone());
    bench.backup(request).await.unwrap();
    bench
        .assert_restores(1000, Some(Arc::clone(&own.key)))
        .await;

    for (name, _) in NAMES {
        let error = bench
            .restore(1000, None, name)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("missing encryption key"), "{error}");
        assert!(error.contains(&own.key.fingerprint().short_id()), "{error}");
        let other = crypt(CryptMode::Encrypt, 2).key;
        let error = bench
            .restore(1000, Some(Arc::clone(&other)), name)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("wrong key"), "{error}");
        assert!(
            error.contains("fingerprint") || error.contains(&other.fingerprint().to_string()),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_key_or_mode_starts_anew_instead_of_mixing() {
    let bench = Bench::new().await;
    for (time, config) in [
        (1000, Some(crypt(CryptMode::Encrypt, 1))),
        (2000, Some(crypt(CryptMode::Encrypt, 2))),
        (3000, None),
        (4000, Some(crypt(CryptMode::SignOnly, 1))),
    ] {
        let mut request = bench.request(time);
        request.crypt = config.clone();
        let summary = bench.backup(request).await.unwrap();
        if time != 4000 {
            assert_eq!(
                summary.archives[0].reused,
                4 << 20,
                "only repeated zeros: {time}"
            );
        }
        bench
            .assert_restores(time, config.map(|config| config.key))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_changed_after_signing_is_refused() {
    let bench = Bench::new().await;
    let mut request = bench.request(1000);
    let config = crypt(CryptMode::SignOnly, 1);
    request.crypt = Some(config.clone());
    bench.backup(request).await.unwrap();
    bench.tamper_manifest(1000, |manifest| manifest.files[1].size += 1);
    let error = bench
        .restore(1000, Some(config.key), "disk.img")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("manifest") && error.contains("signature"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchanged_index_or_blob_is_refused_by_name() {
    let bench = Bench::new().await;
    bench.backup(bench.request(1000)).await.unwrap();
    std::fs::write(bench.path("app.conf"), b"setting = 2\n").unwrap();
    std::fs::write(bench.path("disk.img"), noise((22 << 20) + 700, 9)).unwrap();
    bench.backup(bench.request(2000)).await.unwrap();
    for (name, stored) in [("disk.img", "disk.img.fidx"), ("app.conf", "app.conf.blob")] {
        let old = bench.peer.state.lock().snapshots[&1000][stored].clone();
        bench.tamper(2000, stored, |raw| *raw = old);
        let error = bench
            .restore(2000, None, name)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(stored) && error.contains("manifest"),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_anywhere_in_a_stored_file_is_noticed() {
    let bench = Bench::new().await;
    bench.backup(bench.request(1000)).await.unwrap();
    for (name, stored) in [
        ("disk.img", "disk.img.fidx"),
        ("app.conf", "app.conf.blob"),
        ("app.conf", "index.json.blob"),
    ] {
        let length = bench.peer.state.lock().snapshots[&1000][stored].len();
        for position in [0, 9, length / 2, length - 1] {
            // Reserved bytes of an index header carry nothing.
            if stored.ends_with("fidx") && (80..4096).contains(&position) {
                continue;
            }
            let flip = |raw: &mut Vec<u8>| raw[position] ^= 0x10;
            bench.tamper(1000, stored, flip);
            let result = bench.restore(1000, None, name).await;
            // The identity of an index is not part of its content.
            let harmless = stored.ends_with("fidx") && (8..32).contains(&position);
            assert_eq!(result.is_ok(), harmless, "{stored} at {position}");
            bench.tamper(1000, stored, flip);
        }
    }
    bench.assert_restores(1000, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_exchanged_or_missing_chunk_is_named() {
    let bench = Bench::new().await;
    bench.backup(bench.request(1000)).await.unwrap();
    let chunks = bench.peer.state.lock().chunks.clone();
    let digests: Vec<_> = chunks
        .iter()
        .filter(|(_, raw)| raw.len() > 1 << 20)
        .map(|(digest, _)| *digest)
        .collect();
    let good = &chunks[&digests[0]];
    let mut flipped = good.clone();
    flipped[5000] ^= 1;
    let shortened = good[..good.len() - 1].to_vec();
    let exchanged = chunks[&digests[1]].clone();
    for damaged in [flipped, shortened, exchanged] {
        bench.peer.state.lock().chunks.insert(digests[0], damaged);
        let error = bench
            .restore(1000, None, "disk.img")
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(&digests[0].to_string()), "{error}");
        bench.peer.state.lock().chunks = chunks.clone();
    }
    bench.peer.state.lock().chunks.remove(&digests[0]);
    let error = bench
        .restore(1000, None, "disk.img")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("No such file") && error.contains("disk.img"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_archive_with_a_plain_chunk_is_refused() {
    let bench = Bench::new().await;
    let mut request = bench.request(1000);
    let config = crypt(CryptMode::Encrypt, 1);
    request.crypt = Some(config.clone());
    bench.backup(request).await.unwrap();
    for raw in bench.peer.state.lock().chunks.values_mut() {
        *raw = DataBlob::encode(b"forged", None, false).unwrap().into_raw();
    }
    let error = bench
        .restore(1000, Some(config.key), "disk.img")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("not encrypted"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_previous_snapshot_costs_time_but_not_the_backup() {
    let bench = Bench::new().await;
    bench.backup(bench.request(1000)).await.unwrap();
    bench.tamper(1000, "disk.img.fidx", |raw| raw[4100] ^= 1);
    let summary = bench.backup(bench.request(2000)).await.unwrap();
    assert!(summary.archives[0].uploaded > 9 << 20);
    bench.assert_restores(2000, None).await;
    bench.tamper(2000, "index.json.blob", |raw| raw[20] ^= 1);
    bench.backup(bench.request(3000)).await.unwrap();
    bench.assert_restores(3000, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_chunk_fails_the_backup_before_finish_with_the_servers_text() {
    let bench = Bench::new().await;
    bench.peer.state.lock().fail_chunk = Some(2);
    let error = bench
        .backup(bench.request(1000))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("No space left on device") && error.contains("disk.img"),
        "{error}"
    );
    let state = bench.peer.state.lock();
    assert!(state.snapshots.is_empty());
    assert!(!state.calls.iter().any(|call| call.ends_with("finish")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_fails_the_backup_and_says_so() {
    let bench = Bench::new().await;
    bench.peer.state.lock().cut_at_chunk = Some(2);
    let error = bench.backup(bench.request(1000)).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains("connection to"), "{error}");
    assert!(bench.peer.state.lock().snapshots.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_source_fails_before_anything_reaches_the_server() {
    let bench = Bench::new().await;
    let mut request = bench.request(1000);
    request.archives[1].path = Path::new("/nonexistent").to_owned();
    assert!(matches!(
        bench.backup(request).await,
        Err(ClientError::File { .. })
    ));
    let mut request = bench.request(1000);
    request.archives[1] = request.archives[0].clone();
    assert_eq!(
        bench.backup(request).await.unwrap_err().to_string(),
        "got target twice: 'disk.img'"
    );
    assert!(bench.peer.state.lock().calls.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_session_gives_status_and_text_of_the_server() {
    let bench = Bench::new().await;
    bench.peer.state.lock().refuse =
        Some((403, "permission check failed - missing Datastore.Backup"));
    let error = bench.backup(bench.request(1000)).await.unwrap_err();
    assert_eq!(error.status(), Some(403));
    assert_eq!(
        error.to_string(),
        "permission check failed - missing Datastore.Backup"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_never_replaces_a_file() {
    let bench = Bench::new().await;
    bench.backup(bench.request(1000)).await.unwrap();
    for (name, _) in NAMES {
        let request = RestoreRequest {
            access: SnapshotAccess {
                datastore: "store".to_owned(),
                namespace: Namespace::root(),
                snapshot: snapshot(1000),
                key: None,
            },
            archive: name.to_owned(),
            target: RestoreTarget::Path(bench.path("app.conf")),
            extract: ExtractOptions::default(),
        };
        let error = restore::run(&bench.client, request, Arc::new(Silent))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("exists"), "{error}");
    }
    assert_eq!(
        std::fs::read(bench.path("app.conf")).unwrap(),
        b"setting = 1\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_opens_a_session_tells_what_it_would_do_and_uploads_nothing() {
    let bench = Bench::new().await;
    let lines = Arc::new(Lines::default());
    let mut request = bench.request(1000);
    request.dry_run = true;
    let heard: Arc<dyn Activity> = Arc::clone(&lines) as Arc<dyn Activity>;
    backup::run(&bench.client, request, heard).await.unwrap();
    let lines = lines.0.lock();
    assert_eq!(lines[0], "No previous manifest available.");
    assert!(lines[1].starts_with("Would upload image '"), "{lines:?}");
    assert!(
        lines[1].ends_with("to 'u@pbs!t@peer:8007:store' as disk.img.fidx"),
        "{lines:?}"
    );
    assert_eq!(bench.peer.state.lock().calls, ["GET previous_backup_time"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_escrowed_key_comes_back_without_the_key_it_holds() {
    let bench = Bench::new().await;
    let mut request = bench.request(1000);
    let mut config = crypt(CryptMode::Encrypt, 1);
    config.escrow = Some(b"sealed for the master key".to_vec());
    request.crypt = Some(config.clone());
    bench.backup(request).await.unwrap();
    let restored = bench
        .restore(1000, None, "rsa-encrypted.key")
        .await
        .unwrap();
    assert_eq!(restored, b"sealed for the master key");
    bench.assert_restores(1000, Some(config.key)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_and_the_log_can_be_restored_although_nothing_lists_them() {
    let bench = Bench::new().await;
    bench.backup(bench.request(1000)).await.unwrap();
    let log = DataBlob::encode(b"done", None, true).unwrap().into_raw();
    bench
        .peer
        .state
        .lock()
        .snapshots
        .get_mut(&1000)
        .unwrap()
        .insert("client.log.blob".to_owned(), log);
    assert_eq!(
        bench.restore(1000, None, "client.log").await.unwrap(),
        b"done"
    );
    let manifest = bench.restore(1000, None, "index.json").await.unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["files"][0]["filename"], "disk.img.fidx");
}
