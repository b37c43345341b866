//! What a backup session does.

use backstop_format::Digest;
use backstop_format::blob::DataBlob;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::admission::make_backup;
use crate::peer::{BACKUP, Peer};
use crate::server::{ADMIN, TestServer, eventually, query};

const TIME: i64 = 1_750_000_000;

async fn session(id: &str, time: i64) -> Peer {
    Peer::open(TestServer::get().addr(), BACKUP, &query(id, time), ADMIN)
        .await
        .ok()
        .unwrap()
}

#[tokio::test]
async fn a_finished_backup_is_on_disk_and_in_the_task_log() {
    let server = TestServer::get();
    let query = format!("{}&debug=true", query("complete", TIME));
    let peer = Peer::open(server.addr(), BACKUP, &query, ADMIN)
        .await
        .ok()
        .unwrap();
    assert_eq!(peer.get("previous_backup_time").await.data(), Value::Null);
    let archive = peer
        .upload_archive("root.pxar.didx", &[&[7; 100_000], b"second"])
        .await;
    let config = DataBlob::encode(b"key: value", None, true).unwrap();
    assert_eq!(
        peer.upload_blob("etc.conf.blob", &config).await.data(),
        Value::Null
    );
    let blob = json!({
        "filename": "etc.conf.blob", "crypt-mode": "none", "size": config.raw().len(),
        "csum": Digest::of(config.raw()).to_string(),
    });
    assert!(
        !server
            .group("complete")
            .join("2025-06-15T15:06:40Z/index.json.blob")
            .exists()
    );
    assert_eq!(
        peer.finish("complete", TIME, vec![archive, blob])
            .await
            .data(),
        Value::Null
    );
    let dir = server.group("complete").join("2025-06-15T15:06:40Z");
    let mut files: Vec<String> = dir
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(
        files,
        ["etc.conf.blob", "index.json.blob", "root.pxar.didx"]
    );
    let manifest = DataBlob::load(std::fs::read(dir.join("index.json.blob")).unwrap()).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest.decode(None, 1 << 20).unwrap()).unwrap();
    let stats = &manifest["unprotected"]["chunk_upload_stats"];
    assert_eq!(
        (&stats["count"], &stats["size"]),
        (&json!(2), &json!(100_006))
    );
    assert_eq!(
        peer.post("dynamic_index?archive-name=x.pxar.didx")
            .await
            .refusal(),
        "backup already marked as finished."
    );
    assert_eq!(
        peer.post("finish").await.refusal(),
        "backup already marked as finished."
    );
    peer.close().await;
    let ended = || {
        server
            .task_logs("backup:store1\\x3ahost-complete:")
            .concat()
            .contains(&"TASK OK".to_owned())
    };
    eventually("the end of the task", ended).await;
    let log = server
        .task_logs("backup:store1\\x3ahost-complete:")
        .concat();
    for line in [
        "starting new backup on datastore 'store1' from 127.0.0.1: \"host/complete/2025-06-15T15:06:40Z\"",
        "protocol upgrade done",
        "GET /previous_backup_time",
        "created new dynamic index 1 (\"host/complete/2025-06-15T15:06:40Z/root.pxar.didx\")",
        "Upload statistics for 'root.pxar.didx'",
        "Size: 100006",
        "Chunk count: 2",
        "Upload size: 100006 (100%)",
        "successfully closed dynamic index 1",
        "successfully finished backup",
        "POST /finish: 400 Bad Request: backup already marked as finished.",
        "backup finished successfully",
    ] {
        assert!(
            log.contains(&line.to_owned()),
            "{line} is missing in\n{}",
            log.join("\n")
        );
    }
    assert!(
        log.iter()
            .any(|line| line.starts_with("add blob \"/") && line.ends_with("bytes, comp: 22)")),
        "{log:?}"
    );
}

#[tokio::test]
async fn the_next_backup_of_the_group_may_start_before_the_connection_is_closed() {
    let first = session("handover", TIME).await;
    let file = first.upload_archive("root.pxar.didx", &[b"a"]).await;
    first.finish("handover", TIME, vec![file]).await.data();
    let second = session("handover", TIME + 1).await;
    assert_eq!(second.get("previous_backup_time").await.data(), json!(TIME));
    first.close().await;
    second.close().await;
}

#[tokio::test]
async fn previous_gives_the_files_of_the_last_backup_and_makes_their_chunks_known() {
    let server = TestServer::get();
    make_backup("prev", TIME, ADMIN).await;
    let peer = session("prev", TIME + 5).await;
    let old = server.group("prev").join("2025-06-15T15:06:40Z");
    let digest = Digest::of(b"some content");
    let wid = peer
        .post("dynamic_index?archive-name=root.pxar.didx")
        .await
        .data();
    let append = json!({"wid": wid, "digest-list": [digest.to_string()], "offset-list": [0]});
    let refused = peer
        .send_json(Method::PUT, "dynamic_index", append.clone())
        .await;
    assert_eq!(refused.refusal(), format!("no such chunk {digest}"));
    let index = peer.get("previous?archive-name=root.pxar.didx").await;
    assert_eq!(
        index.body,
        std::fs::read(old.join("root.pxar.didx")).unwrap()
    );
    assert_eq!(
        peer.send_json(Method::PUT, "dynamic_index", append)
            .await
            .data(),
        Value::Null
    );
    let manifest = peer.get("previous?archive-name=index.json.blob").await;
    assert_eq!(
        manifest.body,
        std::fs::read(old.join("index.json.blob")).unwrap()
    );
    assert_eq!(
        peer.get("previous?archive-name=nope.blob").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        peer.get("previous?archive-name=nope.didx").await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        peer.get("previous?archive-name=nope.txt").await.status,
        StatusCode::BAD_REQUEST
    );
    peer.close().await;
}

#[tokio::test]
async fn a_first_backup_has_no_previous_one() {
    let peer = session("first", TIME).await;
    assert_eq!(
        peer.get("previous?archive-name=index.json.blob")
            .await
            .refusal(),
        "no valid previous backup"
    );
    let reuse = format!(
        "fixed_index?archive-name=d.img.fidx&size=5&reuse-csum={}",
        Digest::of(b"")
    );
    assert_eq!(
        peer.post(&reuse).await.refusal(),
        "cannot reuse index - no valid previous backup exists"
    );
    let reuse = format!(
        "fixed_index?archive-name=d.img.fidx&reuse-csum={}",
        Digest::of(b"")
    );
    assert_eq!(
        peer.post(&reuse).await.refusal(),
        "size is required for incremental backups"
    );
    peer.close().await;
}

#[tokio::test]
async fn an_incremental_image_overwrites_only_what_changed() {
    let (a, b, c) = (vec![1u8; 4 << 20], vec![2u8; 4 << 20], vec![3u8; 100]);
    let digests = |chunks: &[&[u8]]| {
        chunks
            .iter()
            .map(|chunk| Digest::of(chunk))
            .collect::<Vec<_>>()
    };
    let csum = |digests: &[Digest]| {
        Digest::of(
            &digests
                .iter()
                .flat_map(|digest| digest.0)
                .collect::<Vec<u8>>(),
        )
    };
    let size = (8 << 20) + 100;
    let entry = |csum: Digest| json!({"filename": "d.img.fidx", "crypt-mode": "none", "size": size, "csum": csum.to_string()});

    let peer = session("image", TIME).await;
    let wid = peer
        .post(&format!("fixed_index?archive-name=d.img.fidx&size={size}"))
        .await
        .data()
        .as_u64()
        .unwrap();
    for chunk in [&a, &b, &c] {
        peer.upload_chunk("fixed", wid, chunk).await.data();
    }
    let old = digests(&[&a, &b, &c]);
    let texts: Vec<String> = old.iter().map(Digest::to_string).collect();
    let append = json!({"wid": wid, "digest-list": texts, "offset-list": [0, 4 << 20, 8 << 20]});
    peer.send_json(Method::PUT, "fixed_index", append)
        .await
        .data();
    peer.post(&format!(
        "fixed_close?wid={wid}&chunk-count=3&size={size}&csum={}",
        csum(&old)
    ))
    .await
    .data();
    peer.finish("image", TIME, vec![entry(csum(&old))])
        .await
        .data();
    peer.close().await;

    let peer = session("image", TIME + 60).await;
    let wrong = format!(
        "fixed_index?archive-name=d.img.fidx&size={size}&reuse-csum={}",
        Digest::of(b"x")
    );
    assert!(
        peer.post(&wrong)
            .await
            .refusal()
            .contains("doesn't match last backup's")
    );
    let other = format!(
        "fixed_index?archive-name=e.img.fidx&size={size}&reuse-csum={}",
        csum(&old)
    );
    assert_eq!(
        peer.post(&other).await.refusal(),
        "cannot reuse index - no previous backup exists for archive"
    );
    let reuse = format!(
        "fixed_index?archive-name=d.img.fidx&size={size}&reuse-csum={}",
        csum(&old)
    );
    let wid = peer.post(&reuse).await.data().as_u64().unwrap();
    let new = vec![9u8; 4 << 20];
    peer.upload_chunk("fixed", wid, &new).await.data();
    let append = json!({"wid": wid, "digest-list": [Digest::of(&new).to_string()], "offset-list": [4 << 20]});
    peer.send_json(Method::PUT, "fixed_index", append)
        .await
        .data();
    let merged = csum(&digests(&[&a, &new, &c]));
    peer.post(&format!(
        "fixed_close?wid={wid}&chunk-count=1&size={}&csum={merged}",
        4 << 20
    ))
    .await
    .data();
    peer.finish("image", TIME + 60, vec![entry(merged)])
        .await
        .data();
    peer.close().await;
}

#[tokio::test]
async fn damaged_chunks_are_refused_and_leave_nothing() {
    let server = TestServer::get();
    let peer = session("damaged", TIME).await;
    let wid = peer
        .post("dynamic_index?archive-name=root.pxar.didx")
        .await
        .data()
        .as_u64()
        .unwrap();
    let plain = b"a chunk that nobody else uploads".repeat(100);
    let digest = Digest::of(&plain);
    let blob = DataBlob::encode(&plain, None, true).unwrap();
    let (size, encoded) = (plain.len(), blob.raw().len());
    let path = |size: usize, encoded: usize| {
        format!("dynamic_chunk?wid={wid}&digest={digest}&size={size}&encoded-size={encoded}")
    };
    let short = &blob.raw()[..encoded - 1];
    assert_eq!(
        peer.upload(&path(size, encoded), short).await.refusal(),
        "uploaded chunk has unexpected size."
    );
    let long = [blob.raw(), b"x"].concat();
    assert_eq!(
        peer.upload(&path(size, encoded), &long).await.refusal(),
        "uploaded chunk is larger than announced."
    );
    assert!(peer.upload(&path(size, encoded - 1), short).await.status == StatusCode::BAD_REQUEST);
    let mut flipped = blob.raw().to_vec();
    flipped[encoded / 2] ^= 1;
    assert!(peer.upload(&path(size, encoded), &flipped).await.status == StatusCode::BAD_REQUEST);
    let wrong = peer
        .upload(&path(size + 1, encoded), blob.raw())
        .await
        .refusal();
    assert_eq!(
        wrong,
        format!("detected chunk with wrong length ({} != {size})", size + 1)
    );
    let hex = digest.to_string();
    assert!(
        !server
            .store()
            .join(".chunks")
            .join(&hex[..4])
            .join(&hex)
            .exists()
    );
    let append = json!({"wid": wid, "digest-list": [hex], "offset-list": [0]});
    assert_eq!(
        peer.send_json(Method::PUT, "dynamic_index", append)
            .await
            .refusal(),
        format!("no such chunk {digest}")
    );
    // the session goes on
    assert_eq!(
        peer.upload(&path(size, encoded), blob.raw()).await.data(),
        json!(digest.to_string())
    );
    peer.close().await;
}

#[tokio::test]
async fn parameters_are_checked_as_for_all_calls() {
    let peer = session("params", TIME).await;
    let none = peer.post("dynamic_index").await.refusal();
    assert_eq!(
        none,
        "parameter verification failed - 'archive-name': parameter is missing and it is not optional."
    );
    let unknown = peer.get("previous_backup_time?x=1").await.refusal();
    assert_eq!(
        unknown,
        "parameter verification failed - 'x': schema does not allow additional properties."
    );
    let wid = peer
        .post("dynamic_close?wid=257&chunk-count=1&size=1&csum=00")
        .await
        .refusal();
    assert!(wid.contains("'wid'") && wid.contains("'csum'"), "{wid}");
    let missing = peer.get("nothing").await;
    assert_eq!(
        (missing.status, missing.text().as_str()),
        (StatusCode::NOT_FOUND, "Path '/nothing' not found.")
    );
    assert_eq!(peer.post("previous").await.status, StatusCode::NOT_FOUND);
    let list = peer.get("").await.data();
    assert!(
        list.as_array()
            .unwrap()
            .contains(&json!({"subdir": "dynamic_chunk"})),
        "{list}"
    );
    let created = peer
        .send_json(
            Method::POST,
            "dynamic_index",
            json!({"archive-name": "a.didx"}),
        )
        .await;
    assert_eq!(created.data(), json!(1));
    peer.close().await;
}

#[tokio::test]
async fn a_manifest_that_claims_more_than_was_uploaded_is_refused_and_nothing_stays() {
    let server = TestServer::get();
    let forged = |name: &str, csum: Digest| json!({"filename": name, "crypt-mode": "none", "size": 12, "csum": csum.to_string()});
    for (number, file) in [
        forged("other.pxar.didx", Digest::of(b"x")),
        forged(
            "../../tampered/2025-06-15T15:06:40Z/root.pxar.didx",
            Digest::of(b"x"),
        ),
        forged("root.pxar.didx", Digest::of(b"x")),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("tampered{number}");
        let peer = session(&id, TIME).await;
        peer.upload_archive("root.pxar.didx", &[b"some content"])
            .await;
        let text = peer.finish(&id, TIME, vec![file]).await.refusal();
        assert!(
            text.starts_with("unable to update manifest blob - "),
            "{text}"
        );
        peer.close().await;
        eventually("the removal of the backup", || !server.group(&id).exists()).await;
    }
}

#[tokio::test]
async fn a_benchmark_leaves_nothing() {
    let server = TestServer::get();
    let query = format!("{}&benchmark=true", query("benchmark", TIME));
    let peer = Peer::open(server.addr(), BACKUP, &query, ADMIN)
        .await
        .ok()
        .unwrap();
    assert_eq!(
        peer.upload("speedtest", &vec![5; 3 << 20]).await.data(),
        Value::Null
    );
    peer.close().await;
    eventually("the removal of the benchmark", || {
        !server.group("benchmark").exists()
    })
    .await;
    let ended = || {
        server
            .task_logs("benchmark:store1")
            .concat()
            .contains(&"TASK OK".to_owned())
    };
    eventually("the end of the task", ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_run_at_once() {
    let tasks: Vec<_> = (0..24)
        .map(|number| {
            tokio::spawn(async move {
                let id = format!("many{number}");
                let peer = session(&id, TIME).await;
                let wid = peer.post("dynamic_index?archive-name=root.pxar.didx").await.data().as_u64().unwrap();
                let chunks: Vec<Vec<u8>> =
                    (0..12u32).map(|chunk| vec![(chunk * 7 + number) as u8; 50_000 + chunk as usize]).collect();
                // all at once and in any order
                let uploads = chunks.iter().map(|chunk| peer.upload_chunk("dynamic", wid, chunk));
                for reply in futures_util::future::join_all(uploads).await {
                    reply.data();
                }
                let (mut digests, mut offsets, mut csum, mut end) = (Vec::new(), Vec::new(), Vec::new(), 0u64);
                for chunk in &chunks {
                    digests.push(Digest::of(chunk).to_string());
                    offsets.push(end);
                    end += chunk.len() as u64;
                    csum.extend_from_slice(&end.to_le_bytes());
                    csum.extend_from_slice(Digest::of(chunk).as_bytes());
                }
                let csum = Digest::of(&csum);
                let append = json!({"wid": wid, "digest-list": digests, "offset-list": offsets});
                peer.send_json(Method::PUT, "dynamic_index", append).await.data();
                let close = format!("dynamic_close?wid={wid}&chunk-count=12&size={end}&csum={csum}");
                peer.post(&close).await.data();
                let file = json!({
                    "filename": "root.pxar.didx", "crypt-mode": "none", "size": end, "csum": csum.to_string(),
                });
                peer.finish(&id, TIME, vec![file]).await.data();
                peer.close().await;
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}
