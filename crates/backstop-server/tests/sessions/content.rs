//! The REST calls on what sessions have written.

use std::io::{Cursor, Read, Write};

use backstop_format::blob::DataBlob;
use backstop_format::pxar::encoder::Encoder;
use backstop_format::pxar::entry::{MODE_DIRECTORY, MODE_FILE, MODE_SYMLINK, Metadata, Timestamp};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::admission::make_backup;
use crate::peer::{BACKUP, Peer, Reply, rest};
use crate::server::{ADMIN, TOKEN, TestServer, eventually, query};

const TIME: i64 = 1_750_000_000;

async fn call(method: Method, path: &str, params: &str, auth: &str) -> Reply {
    let path = format!("admin/datastore/store1/{path}");
    let addr = TestServer::get().addr();
    match method {
        Method::GET | Method::DELETE => {
            rest(addr, method, &format!("{path}?{params}"), b"", auth).await
        }
        _ => rest(addr, method, &path, params.as_bytes(), auth).await,
    }
}

fn snapshot(id: &str) -> String {
    format!("backup-type=host&backup-id={id}&backup-time={TIME}")
}

/// A small archive: `dir/a.txt`, `dir/sub/b.txt`, `dir/link`, and a large file `big`.
fn archive() -> Vec<u8> {
    let meta = |mode| Metadata::new(mode, Timestamp::from_seconds(1_700_000_000));
    let mut encoder: Encoder<Vec<u8>> =
        Encoder::new(Vec::new(), &meta(MODE_DIRECTORY | 0o755)).unwrap();
    let add = |encoder: &mut Encoder<Vec<u8>>, name: &[u8], content: &[u8]| {
        let mut file = encoder
            .create_file(&meta(MODE_FILE | 0o640), name, content.len() as u64)
            .unwrap();
        file.write_all(content).unwrap();
        file.finish().unwrap();
    };
    add(&mut encoder, b"big", &big());
    encoder
        .create_directory(&meta(MODE_DIRECTORY | 0o750), b"dir")
        .unwrap();
    add(&mut encoder, b"a.txt", b"content of a");
    encoder
        .add_symlink(&meta(MODE_SYMLINK | 0o777), b"link", b"a.txt")
        .unwrap();
    encoder
        .create_directory(&meta(MODE_DIRECTORY | 0o750), b"sub")
        .unwrap();
    add(&mut encoder, b"b.txt", b"content of b");
    encoder.finish_directory().unwrap();
    encoder.finish_directory().unwrap();
    encoder.finish().unwrap().0
}

fn big() -> Vec<u8> {
    (0..3_000_000u32)
        .map(|number| (number % 253) as u8)
        .collect()
}

async fn back_up_archive(id: &str) {
    let peer = Peer::open(TestServer::get().addr(), BACKUP, &query(id, TIME), ADMIN)
        .await
        .ok()
        .unwrap();
    let content = archive();
    let chunks: Vec<&[u8]> = content.chunks(700_001).collect();
    let file = peer.upload_archive("root.pxar.didx", &chunks).await;
    peer.finish(id, TIME, vec![file]).await.data();
    peer.close().await;
}

async fn inside(id: &str, path: &str, more: &str) -> Reply {
    let path = STANDARD
        .encode(path)
        .replace('+', "%2B")
        .replace('=', "%3D");
    call(
        Method::GET,
        "pxar-file-download",
        &format!("{}&filepath={path}{more}", snapshot(id)),
        ADMIN,
    )
    .await
}

#[tokio::test]
async fn files_and_directories_come_out_of_an_archive_as_they_went_in() {
    back_up_archive("inside").await;
    assert!(inside("inside", "/root.pxar.didx/big", "").await.body == big());
    assert_eq!(
        inside("inside", "root.pxar.didx/dir/sub/b.txt", "")
            .await
            .body,
        "content of b"
    );
    assert_eq!(
        inside("inside", "/dir/a.txt", "&archive-name=root.pxar.didx")
            .await
            .body,
        "content of a"
    );
    assert_eq!(
        inside("inside", "/root.pxar.didx/nope", "").await.refusal(),
        "error opening '\"nope\"'"
    );

    let packed = inside("inside", "/root.pxar.didx/dir", "").await;
    let mut zip = zip::ZipArchive::new(Cursor::new(packed.body)).unwrap();
    let mut names: Vec<String> = zip
        .file_names()
        .map(|name| name.unwrap().into_owned())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["dir/", "dir/a.txt", "dir/link", "dir/sub/", "dir/sub/b.txt"]
    );
    let mut text = String::new();
    zip.by_name("dir/sub/b.txt")
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "content of b");

    let packed = inside("inside", "/root.pxar.didx/dir", "&tar=true").await;
    let mut tar = tar::Archive::new(zstd::Decoder::new(Cursor::new(packed.body)).unwrap());
    let mut seen = Vec::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        let link = entry
            .link_name()
            .unwrap()
            .map(|link| link.display().to_string())
            .unwrap_or_default();
        seen.push((entry.path().unwrap().display().to_string(), text + &link));
    }
    let expected = [
        ("dir/", ""),
        ("dir/a.txt", "content of a"),
        ("dir/link", "a.txt"),
        ("dir/sub/", ""),
        ("dir/sub/b.txt", "content of b"),
    ];
    assert_eq!(
        seen,
        expected.map(|(name, text)| (name.to_owned(), text.to_owned()))
    );
}

#[tokio::test]
async fn a_decoded_archive_is_the_archive() {
    back_up_archive("decoded").await;
    let file = format!("{}&file-name=root.pxar.didx", snapshot("decoded"));
    assert!(
        call(Method::GET, "download-decoded", &file, ADMIN)
            .await
            .body
            == archive()
    );
}

#[tokio::test]
async fn a_damaged_chunk_breaks_a_download_off_instead_of_giving_wrong_data() {
    back_up_archive("damage").await;
    // a chunk of its own, so that no other test meets the damage
    let peer = Peer::open(
        TestServer::get().addr(),
        BACKUP,
        &query("damage", TIME + 1),
        ADMIN,
    )
    .await
    .ok()
    .unwrap();
    let plain = b"this chunk will be damaged".repeat(1000);
    let file = peer.upload_archive("root.pxar.didx", &[&plain]).await;
    peer.finish("damage", TIME + 1, vec![file]).await.data();
    peer.close().await;
    let digest = backstop_format::Digest::of(&plain).to_string();
    let path = TestServer::get()
        .store()
        .join(".chunks")
        .join(&digest[..4])
        .join(&digest);
    let mut raw = std::fs::read(&path).unwrap();
    let last = raw.len() - 1;
    raw[last] ^= 1;
    std::fs::write(&path, raw).unwrap();
    let file = format!(
        "backup-type=host&backup-id=damage&backup-time={}&file-name=root.pxar.didx",
        TIME + 1
    );
    let path = format!("admin/datastore/store1/download-decoded?{file}");
    let attempt = tokio::spawn(rest_owned(path)).await;
    assert!(attempt.is_err(), "the download must not look complete");
}

async fn rest_owned(path: String) -> Reply {
    rest(TestServer::get().addr(), Method::GET, &path, b"", ADMIN).await
}

#[tokio::test]
async fn the_client_log_is_added_once_and_by_the_owner() {
    make_backup("log", TIME, ADMIN).await;
    let blob = DataBlob::encode(b"log text", None, false).unwrap();
    let path = format!(
        "admin/datastore/store1/upload-backup-log?{}",
        snapshot("log")
    );
    let addr = TestServer::get().addr();
    let foreign = rest(addr, Method::POST, &path, blob.raw(), TOKEN).await;
    assert_eq!(
        foreign.refusal(),
        "backup owner check failed (fixture@pbs!tok1 != root@pam!api)"
    );
    let mut broken = blob.raw().to_vec();
    broken[13] ^= 1;
    assert_eq!(
        rest(addr, Method::POST, &path, &broken, ADMIN).await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        rest(addr, Method::POST, &path, blob.raw(), ADMIN)
            .await
            .data(),
        Value::Null
    );
    assert_eq!(
        rest(addr, Method::POST, &path, blob.raw(), ADMIN)
            .await
            .refusal(),
        "backup already contains a log."
    );
    let file = format!("{}&file-name=client.log.blob", snapshot("log"));
    assert_eq!(
        call(Method::GET, "download-decoded", &file, ADMIN)
            .await
            .body,
        "log text"
    );
    let files = call(Method::GET, "files", &snapshot("log"), ADMIN)
        .await
        .data();
    assert_eq!(files[2], json!({"filename": "client.log.blob"}));
}

#[tokio::test]
async fn notes_and_protection_belong_to_the_snapshot() {
    make_backup("notes", TIME, ADMIN).await;
    let with = |more: &str| format!("{}&{more}", snapshot("notes"));
    call(
        Method::PUT,
        "notes",
        &with("notes=first+line%0Asecond"),
        ADMIN,
    )
    .await
    .data();
    assert_eq!(
        call(Method::GET, "notes", &snapshot("notes"), ADMIN)
            .await
            .data(),
        json!("first line\nsecond")
    );
    call(Method::PUT, "protected", &with("protected=1"), ADMIN)
        .await
        .data();
    let listed = call(
        Method::GET,
        "snapshots",
        "backup-type=host&backup-id=notes",
        ADMIN,
    )
    .await
    .data();
    assert_eq!(
        (&listed[0]["comment"], &listed[0]["protected"]),
        (&json!("first line"), &json!(true))
    );
    let removal = call(Method::DELETE, "snapshots", &snapshot("notes"), ADMIN).await;
    assert_eq!(
        removal.refusal(),
        "failed to delete snapshot - cannot remove protected snapshot"
    );
    let group = "backup-type=host&backup-id=notes";
    let removal = call(Method::DELETE, "groups", group, ADMIN).await;
    assert_eq!(
        removal.refusal(),
        "group only partially deleted due to protected snapshots"
    );
    call(Method::PUT, "protected", &with("protected=0"), ADMIN)
        .await
        .data();
    let stats = call(Method::DELETE, "groups", group, ADMIN).await.data();
    assert_eq!(
        stats,
        json!({"removed-groups": 1, "protected-snapshots": 0, "removed-snapshots": 1})
    );
    let missing = call(Method::DELETE, "groups", group, ADMIN).await.refusal();
    assert!(
        missing.contains("ENOENT: No such file or directory"),
        "{missing}"
    );
}

#[tokio::test]
async fn those_who_may_only_back_up_see_and_change_their_own_groups_alone() {
    make_backup("foreign", TIME, ADMIN).await;
    make_backup("mine", TIME, TOKEN).await;
    let groups = call(Method::GET, "groups", "", TOKEN).await.data();
    let ids: Vec<&Value> = groups
        .as_array()
        .unwrap()
        .iter()
        .map(|group| &group["backup-id"])
        .collect();
    assert_eq!(ids, [&json!("mine")]);
    for (method, path, more) in [
        (Method::GET, "files", ""),
        (Method::GET, "notes", ""),
        (Method::PUT, "notes", "&notes=x"),
        (Method::PUT, "protected", "&protected=1"),
        (Method::GET, "download", "&file-name=index.json.blob"),
    ] {
        let params = |id: &str| format!("{}{more}", snapshot(id));
        let foreign = call(method.clone(), path, &params("foreign"), TOKEN)
            .await
            .refusal();
        assert!(
            foreign.starts_with("backup owner check failed"),
            "{method} {path}: {foreign}"
        );
        let own = call(method.clone(), path, &params("mine"), TOKEN).await;
        assert_eq!(
            own.status,
            StatusCode::OK,
            "{method} {path}: {}",
            own.text()
        );
    }
    for (method, path, params) in [
        (Method::DELETE, "snapshots", snapshot("mine")),
        (
            Method::POST,
            "prune",
            "backup-type=host&backup-id=mine&keep-last=1".to_owned(),
        ),
        (Method::POST, "namespace", "name=new".to_owned()),
        (Method::POST, "gc", String::new()),
    ] {
        let reply = call(method.clone(), path, &params, TOKEN).await;
        assert_eq!(
            reply.status,
            StatusCode::FORBIDDEN,
            "{method} {path}: {}",
            reply.text()
        );
        assert!(
            reply.text().starts_with("permission check failed"),
            "{}",
            reply.text()
        );
    }
}

#[tokio::test]
async fn pruning_removes_what_the_rules_do_not_keep() {
    let server = TestServer::get();
    for offset in 0..3 {
        make_backup("pruned", TIME + offset, ADMIN).await;
    }
    let group = "backup-type=host&backup-id=pruned";
    let dry = call(
        Method::POST,
        "prune",
        &format!("{group}&keep-last=1&dry-run=1"),
        ADMIN,
    )
    .await
    .data();
    let kept: Vec<bool> = dry
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["keep"].as_bool().unwrap())
        .collect();
    assert_eq!(kept, [false, false, true]);
    assert_eq!(server.group("pruned").read_dir().unwrap().count(), 4);
    let done = call(
        Method::POST,
        "prune",
        &format!("{group}&keep-last=1"),
        ADMIN,
    )
    .await
    .data();
    assert_eq!(done, dry);
    assert_eq!(server.group("pruned").read_dir().unwrap().count(), 2);
    let log = server.task_logs("prune:store1").concat();
    for line in [
        "retention options: --keep-last 1",
        "host/pruned/2025-06-15T15:06:40Z remove",
    ] {
        assert!(log.contains(&line.to_owned()), "{log:?}");
    }
    let upid = call(
        Method::POST,
        "prune",
        &format!("{group}&keep-last=1&use-task=1"),
        ADMIN,
    )
    .await
    .data();
    assert!(upid.as_str().unwrap().starts_with("UPID:test:"), "{upid}");
}

#[tokio::test]
async fn verification_notes_its_result_and_finds_damage() {
    let server = TestServer::get();
    let peer = Peer::open(server.addr(), BACKUP, &query("verified", TIME), ADMIN)
        .await
        .ok()
        .unwrap();
    let plain = b"verified chunk".repeat(1000);
    let file = peer.upload_archive("root.pxar.didx", &[&plain]).await;
    peer.finish("verified", TIME, vec![file]).await.data();
    peer.close().await;
    let state = || async {
        let listed = call(
            Method::GET,
            "snapshots",
            "backup-type=host&backup-id=verified",
            ADMIN,
        )
        .await
        .data();
        listed[0]["verification"]["state"]
            .as_str()
            .map(str::to_owned)
    };
    let verify = format!("{}&ignore-verified=0", snapshot("verified"));
    call(Method::POST, "verify", &verify, ADMIN).await.data();
    let part = "verify_snapshot:store1\\x3a-host-verified";
    eventually("the end of the task", || {
        server
            .task_logs(part)
            .concat()
            .contains(&"TASK OK".to_owned())
    })
    .await;
    assert_eq!(state().await.as_deref(), Some("ok"));
    let digest = backstop_format::Digest::of(&plain).to_string();
    let chunk = server
        .store()
        .join(".chunks")
        .join(&digest[..4])
        .join(&digest);
    std::fs::write(&chunk, b"damaged").unwrap();
    call(Method::POST, "verify", &verify, ADMIN).await.data();
    let error = "TASK ERROR: verification failed - please check the log for details";
    eventually("the second task", || {
        server.task_logs(part).concat().contains(&error.to_owned())
    })
    .await;
    assert_eq!(state().await.as_deref(), Some("failed"));
    // a damaged snapshot is no base for the next backup
    let peer = Peer::open(server.addr(), BACKUP, &query("verified", TIME + 1), ADMIN)
        .await
        .ok()
        .unwrap();
    assert_eq!(peer.get("previous_backup_time").await.data(), Value::Null);
    peer.close().await;
}
