//! Who gets a session, and what everybody else hears.

use http::StatusCode;

use crate::peer::{BACKUP, Peer, READER, connect, exchange, upgrade_request};
use crate::server::{ADMIN, TOKEN, TestServer, query};

const TIME: i64 = 1_750_000_000;

async fn refusal(protocol: &str, query: &str, auth: &str) -> (u16, String) {
    match Peer::open(TestServer::get().addr(), protocol, query, auth).await {
        Ok(_) => panic!("got a session for {query}"),
        Err(reply) => (reply.status.as_u16(), reply.text()),
    }
}

/// Makes a finished backup.
pub async fn make_backup(id: &str, time: i64, auth: &str) {
    make_backup_on(TestServer::get(), id, time, auth).await;
}

/// Makes a finished backup on this server.
pub async fn make_backup_on(server: &TestServer, id: &str, time: i64, auth: &str) {
    let peer = Peer::open(server.addr(), BACKUP, &query(id, time), auth)
        .await
        .ok()
        .unwrap();
    let file = peer
        .upload_archive("root.pxar.didx", &[b"some content"])
        .await;
    peer.finish(id, time, vec![file]).await.data();
    peer.close().await;
}

#[tokio::test]
async fn a_request_without_the_protocol_gets_no_session() {
    let server = TestServer::get();
    let good = upgrade_request(BACKUP, &query("noproto", TIME), ADMIN);
    for (bad, text) in [
        (
            good.replace(&format!("upgrade: {BACKUP}\r\n"), ""),
            "missing Upgrade header",
        ),
        (
            good.replace(&format!("upgrade: {BACKUP}"), "upgrade: something-else"),
            "invalid protocol name",
        ),
        (
            good.replace(&format!("upgrade: {BACKUP}"), &format!("upgrade: {READER}")),
            "invalid protocol name",
        ),
    ] {
        let mut stream = connect(server.addr()).await;
        let reply = exchange(&mut stream, &bad).await;
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (StatusCode::BAD_REQUEST, text)
        );
    }
    assert!(!server.group("noproto").exists());
}

#[tokio::test]
async fn an_upgrade_request_needs_no_host_header() {
    let request = upgrade_request(BACKUP, &query("nohost", TIME), ADMIN)
        .replace("host: localhost:8007\r\n", "");
    let mut stream = connect(TestServer::get().addr()).await;
    assert_eq!(
        exchange(&mut stream, &request).await.status,
        StatusCode::SWITCHING_PROTOCOLS
    );
}

#[tokio::test]
async fn privileges_come_before_everything_else() {
    let (status, text) = refusal(
        BACKUP,
        "store=nostore&backup-type=host&backup-id=x&backup-time=5",
        TOKEN,
    )
    .await;
    assert_eq!(status, 403);
    assert!(text.starts_with("permission check failed"), "{text}");
    let (status, text) = refusal(
        READER,
        "store=nostore&backup-type=host&backup-id=x&backup-time=5",
        TOKEN,
    )
    .await;
    assert_eq!(
        (status, text.as_str()),
        (400, "no permissions on /datastore/nostore")
    );
}

#[tokio::test]
async fn datastore_and_namespace_must_exist() {
    let (status, text) = refusal(
        BACKUP,
        "store=nostore&backup-type=host&backup-id=x&backup-time=5",
        ADMIN,
    )
    .await;
    assert_eq!(
        (status, text.as_str()),
        (400, "no such datastore 'nostore'")
    );
    let (status, text) = refusal(BACKUP, &format!("{}&ns=nope", query("x", TIME)), ADMIN).await;
    assert_eq!((status, text.as_str()), (404, "namespace not found"));
}

#[tokio::test]
async fn an_empty_namespace_is_the_root() {
    let query = format!("{}&ns=", query("emptyns", TIME));
    let peer = Peer::open(TestServer::get().addr(), BACKUP, &query, ADMIN)
        .await
        .ok()
        .unwrap();
    assert!(TestServer::get().group("emptyns").exists());
    peer.close().await;
}

#[tokio::test]
async fn the_benchmark_group_and_flag_go_together() {
    let (status, text) = refusal(BACKUP, &query("benchmark", TIME), ADMIN).await;
    assert_eq!(
        (status, text.as_str()),
        (400, "unable to run benchmark without --benchmark flags")
    );
    let (status, text) = refusal(
        BACKUP,
        &format!("{}&benchmark=true", query("x", TIME)),
        ADMIN,
    )
    .await;
    assert_eq!(
        (status, text.as_str()),
        (400, "benchmark flags is only allowed on 'host/benchmark'")
    );
}

#[tokio::test]
async fn a_group_takes_one_backup_at_a_time() {
    let server = TestServer::get();
    let first = Peer::open(server.addr(), BACKUP, &query("locked", TIME), ADMIN)
        .await
        .ok()
        .unwrap();
    let (status, text) = refusal(BACKUP, &query("locked", TIME + 1), ADMIN).await;
    assert_eq!(status, 400);
    assert!(text.contains("lock"), "{text}");
    let other = Peer::open(server.addr(), BACKUP, &query("unlocked", TIME), ADMIN)
        .await
        .ok()
        .unwrap();
    first.close().await;
    other.close().await;
}

#[tokio::test]
async fn only_the_owner_adds_to_a_group() {
    make_backup("owned", TIME, ADMIN).await;
    let (status, text) = refusal(BACKUP, &query("owned", TIME + 1), TOKEN).await;
    assert_eq!(
        (status, text.as_str()),
        (
            400,
            "backup owner check failed (fixture@pbs!tok1 != root@pam!api)"
        )
    );
    let (status, text) = refusal(READER, &query("owned", TIME), TOKEN).await;
    assert_eq!((status, text.as_str()), (400, "backup owner check failed!"));
}

#[tokio::test]
async fn a_backup_must_be_newer_than_the_last_one() {
    make_backup("times", TIME, ADMIN).await;
    for time in [TIME, TIME - 1] {
        let (status, text) = refusal(BACKUP, &query("times", time), ADMIN).await;
        assert_eq!(
            (status, text.as_str()),
            (400, "backup timestamp is older than last backup.")
        );
    }
}

#[tokio::test]
async fn an_existing_directory_is_never_written_to() {
    let server = TestServer::get();
    make_backup("exists", TIME, ADMIN).await;
    std::fs::create_dir(server.group("exists").join("2025-06-15T15:06:50Z")).unwrap();
    let (status, text) = refusal(BACKUP, &query("exists", TIME + 10), ADMIN).await;
    assert_eq!(
        (status, text.as_str()),
        (400, "backup directory already exists.")
    );
}

#[tokio::test]
async fn a_reader_needs_an_existing_snapshot() {
    make_backup("readable", TIME, ADMIN).await;
    let (status, text) = refusal(READER, &query("readable", TIME + 1), ADMIN).await;
    assert_eq!(
        (status, text.as_str()),
        (
            400,
            "snapshot host/readable/2025-06-15T15:06:41Z does not exist."
        )
    );
}
