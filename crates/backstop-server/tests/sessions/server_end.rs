//! What happens around the life of a server: verification of new backups, and its shutdown.

use crate::admission::make_backup_on;
use crate::peer::{BACKUP, Peer};
use crate::server::{ADMIN, TestServer, eventually, query};

const TIME: i64 = 1_750_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn new_backups_are_verified_if_wanted_and_a_shutdown_leaves_no_unfinished_one() {
    let settings = "\tverify-new true\n";
    let server = tokio::task::spawn_blocking(move || TestServer::start(settings))
        .await
        .unwrap();
    make_backup_on(&server, "checked", TIME, ADMIN).await;
    let part = ":verify:store1\\x3ahost-checked-684EE180:";
    eventually("the verification", || {
        server
            .task_logs(part)
            .concat()
            .contains(&"TASK OK".to_owned())
    })
    .await;

    let peer = Peer::open(server.addr(), BACKUP, &query("running", TIME), ADMIN)
        .await
        .ok()
        .unwrap();
    peer.upload_archive("root.pxar.didx", &[b"content"]).await;
    let store = server.store();
    assert!(store.join("host/running/2025-06-15T15:06:40Z").exists());
    let dir = server.shut_down().await;
    assert!(!store.join("host/running").exists());
    assert!(
        store
            .join("host/checked/2025-06-15T15:06:40Z/index.json.blob")
            .exists()
    );
    drop(dir);
}
