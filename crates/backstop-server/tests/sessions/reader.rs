//! What a reader session does.

use std::time::{Duration, Instant};

use backstop_format::Digest;
use backstop_format::blob::DataBlob;
use http::StatusCode;

use crate::admission::make_backup;
use crate::peer::{BACKUP, Peer, READER};
use crate::server::{ADMIN, TestServer, eventually, query};

const TIME: i64 = 1_750_000_000;

async fn reader(id: &str, time: i64) -> Peer {
    Peer::open(TestServer::get().addr(), READER, &query(id, time), ADMIN)
        .await
        .ok()
        .unwrap()
}

#[tokio::test]
async fn a_reader_gets_files_and_the_chunks_of_indexes_that_it_downloaded() {
    let server = TestServer::get();
    make_backup("read", TIME, ADMIN).await;
    let dir = server.group("read").join("2025-06-15T15:06:40Z");
    let peer = reader("read", TIME).await;
    let manifest = peer.get("download?file-name=index.json.blob").await;
    assert_eq!(
        manifest.body,
        std::fs::read(dir.join("index.json.blob")).unwrap()
    );
    let digest = Digest::of(b"some content");
    let start = Instant::now();
    let early = peer.get(&format!("chunk?digest={digest}")).await;
    assert_eq!(early.status, StatusCode::UNAUTHORIZED);
    assert_eq!(early.text(), format!("download chunk {digest} not allowed"));
    assert!(start.elapsed() >= Duration::from_secs(3));
    let index = peer.get("download?file-name=root.pxar.didx").await;
    assert_eq!(
        index.body,
        std::fs::read(dir.join("root.pxar.didx")).unwrap()
    );
    let chunk = peer.get(&format!("chunk?digest={digest}")).await;
    assert_eq!(
        DataBlob::load(chunk.body.to_vec())
            .unwrap()
            .decode(None, 100)
            .unwrap(),
        b"some content"
    );
    let speed = peer.get("speedtest").await;
    assert!(speed.body.len() == 1 << 20 && speed.body.iter().all(|byte| *byte == b'A'));
    peer.close().await;
    let part = "reader:store1\\x3ahost-read-684EE180:";
    eventually("the end of the task", || {
        server
            .task_logs(part)
            .concat()
            .contains(&"TASK OK".to_owned())
    })
    .await;
    let log = server.task_logs(part).concat();
    assert_eq!(
        log[0],
        format!(
            "starting new backup reader datastore 'store1': {:?}",
            server.store()
        )
    );
    assert!(
        log.contains(&"register chunks in 'root.pxar.didx' as downloadable.".to_owned()),
        "{log:?}"
    );
    assert!(
        log.contains(&"reader finished successfully".to_owned()),
        "{log:?}"
    );
}

#[tokio::test]
async fn missing_files_and_chunks_are_reported() {
    make_backup("missing", TIME, ADMIN).await;
    let peer = reader("missing", TIME).await;
    let blob = peer.get("download?file-name=nope.blob").await;
    assert_eq!(blob.status, StatusCode::NOT_FOUND);
    assert!(
        blob.text().starts_with("open file ") && blob.text().ends_with(" failed - not found"),
        "{}",
        blob.text()
    );
    assert_eq!(
        peer.get("download?file-name=nope.didx").await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        peer.get("download?file-name=nope.txt").await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        peer.get("download?file-name=..%2Fowner").await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        peer.get("chunk?digest=12").await.status,
        StatusCode::BAD_REQUEST
    );
    peer.get("download?file-name=root.pxar.didx").await;
    peer.close().await;
}

#[tokio::test]
async fn the_previous_snapshot_can_be_read_while_the_next_one_is_written() {
    let server = TestServer::get();
    make_backup("both", TIME, ADMIN).await;
    let backup = Peer::open(server.addr(), BACKUP, &query("both", TIME + 1), ADMIN)
        .await
        .ok()
        .unwrap();
    let peer = reader("both", TIME).await;
    let other = reader("both", TIME).await;
    assert_eq!(
        peer.get("download?file-name=root.pxar.didx").await.status,
        StatusCode::OK
    );
    let file = backup.upload_archive("root.pxar.didx", &[b"more"]).await;
    backup.finish("both", TIME + 1, vec![file]).await.data();
    for peer in [peer, other, backup] {
        peer.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_chunks_are_read_in_parallel() {
    let server = TestServer::get();
    let chunks: Vec<Vec<u8>> = (0..1000u32)
        .map(|number| number.to_le_bytes().repeat(500))
        .collect();
    let slices: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let backup = Peer::open(server.addr(), BACKUP, &query("parallel", TIME), ADMIN)
        .await
        .ok()
        .unwrap();
    let file = backup.upload_archive("root.pxar.didx", &slices).await;
    backup.finish("parallel", TIME, vec![file]).await.data();
    backup.close().await;
    let peer = reader("parallel", TIME).await;
    peer.get("download?file-name=root.pxar.didx").await;
    let paths: Vec<String> = chunks
        .iter()
        .map(|chunk| format!("chunk?digest={}", Digest::of(chunk)))
        .collect();
    let replies = futures_util::future::join_all(paths.iter().map(|path| peer.get(path))).await;
    for (reply, chunk) in replies.iter().zip(&chunks) {
        assert_eq!(
            DataBlob::load(reply.body.to_vec())
                .unwrap()
                .decode(None, 1 << 20)
                .unwrap(),
            *chunk
        );
    }
    peer.close().await;
}
