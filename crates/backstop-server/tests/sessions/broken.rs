//! Connections that break: nothing of the unfinished backup stays, and nothing else is touched.

use std::fs;
use std::path::Path;

use backstop_format::Digest;
use bytes::Bytes;
use http::Method;
use tokio::io::AsyncWriteExt;

use crate::admission::make_backup;
use crate::peer::{BACKUP, Peer, connect, exchange, upgrade_request};
use crate::server::{ADMIN, TestServer, eventually, query};

const TIME: i64 = 1_750_000_000;

/// All files below a directory with their content.
fn content(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(content(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_killed_client_leaves_no_trace_and_earlier_backups_alone() {
    let server = TestServer::get();
    make_backup("killed", TIME, ADMIN).await;
    let before = content(&server.group("killed"));
    let peer = Peer::open(server.addr(), BACKUP, &query("killed", TIME + 9), ADMIN)
        .await
        .ok()
        .unwrap();
    peer.get("previous?archive-name=root.pxar.didx").await;
    peer.upload_archive("root.pxar.didx", &[b"other content"])
        .await;
    peer.post("dynamic_index?archive-name=second.pxar.didx")
        .await
        .data();
    assert!(
        server
            .group("killed")
            .join("2025-06-15T15:06:49Z/root.pxar.didx")
            .exists()
    );
    peer.kill();
    eventually("the removal of the backup", || {
        !server.group("killed").join("2025-06-15T15:06:49Z").exists()
    })
    .await;
    assert_eq!(content(&server.group("killed")), before);
    // the group is free again
    let again =
        || async { Peer::open(server.addr(), BACKUP, &query("killed", TIME + 9), ADMIN).await };
    let mut reopened = again().await;
    while reopened.is_err() {
        tokio::task::yield_now().await;
        reopened = again().await;
    }
}

#[tokio::test]
async fn a_client_killed_in_the_middle_of_a_chunk_leaves_no_trace() {
    let server = TestServer::get();
    let peer = Peer::open(server.addr(), BACKUP, &query("midchunk", TIME), ADMIN)
        .await
        .ok()
        .unwrap();
    peer.post("dynamic_index?archive-name=root.pxar.didx")
        .await
        .data();
    let digest = Digest::of(b"x");
    let path = format!("dynamic_chunk?wid=1&digest={digest}&size=4000000&encoded-size=4000012");
    let upload = peer.call(
        Method::POST,
        &path,
        "application/octet-stream",
        Bytes::from(vec![1u8; 100_000]),
    );
    tokio::select! {
        _ = upload => {}
        () = tokio::task::yield_now() => {}
    }
    peer.kill();
    eventually("the removal of the group", || {
        !server.group("midchunk").exists()
    })
    .await;
    let ended = || {
        let log = server
            .task_logs("backup:store1\\x3ahost-midchunk:")
            .concat();
        log.iter().any(|line| line.starts_with("TASK ERROR"))
    };
    eventually("the end of the task", ended).await;
}

#[tokio::test]
async fn an_orderly_close_without_finish_is_an_error_and_leaves_no_trace() {
    let server = TestServer::get();
    let peer = Peer::open(server.addr(), BACKUP, &query("unfinished", TIME), ADMIN)
        .await
        .ok()
        .unwrap();
    peer.upload_archive("root.pxar.didx", &[b"content"]).await;
    peer.close().await;
    let part = "backup:store1\\x3ahost-unfinished:";
    let last = "TASK ERROR: backup ended but finished state is not set.";
    eventually("the end of the task", || {
        server.task_logs(part).concat().contains(&last.to_owned())
    })
    .await;
    assert!(!server.group("unfinished").exists());
    let log = server.task_logs(part).concat();
    for line in [
        "backup ended and finish failed: backup ended but finished state is not set.",
        "removing unfinished backup",
    ] {
        assert!(log.contains(&line.to_owned()), "{log:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_right_after_the_upgrade_leaves_no_trace() {
    let server = TestServer::get();
    let mut stream = connect(server.addr()).await;
    let request = upgrade_request(BACKUP, &query("preface", TIME), ADMIN);
    assert_eq!(exchange(&mut stream, &request).await.status.as_u16(), 101);
    stream.shutdown().await.unwrap();
    drop(stream);
    let part = "backup:store1\\x3ahost-preface:";
    let last = "TASK ERROR: connection error: connection closed before reading preface";
    eventually("the end of the task", || {
        server.task_logs(part).concat().contains(&last.to_owned())
    })
    .await;
    assert!(!server.group("preface").exists());
}
