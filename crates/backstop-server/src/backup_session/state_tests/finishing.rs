//! Finishing, manifests, and the end of a session.

use super::*;

#[test]
fn finish_needs_closed_writers_files_and_the_base() {
    let mut state = session();
    assert_eq!(
        state.begin_finish(|| Ok(())).unwrap_err().to_string(),
        "backup does not contain valid files (file count == 0)"
    );
    let wid = state.create_dynamic("a.didx").unwrap();
    assert_eq!(
        state.begin_finish(|| Ok(())).unwrap_err().to_string(),
        "found open index writer - unable to finish backup"
    );
    assert!(
        state.check_upload(IndexKind::Dynamic, wid, 5).is_ok(),
        "a refused finish leaves the session active"
    );
    let (mut state, _) = with_index();
    let removed = || {
        Err(SessionError::BaseRemoved {
            snapshot: "vm/100/x".to_owned(),
        })
    };
    assert!(state.begin_finish(removed).is_err());
    assert_eq!(state.phase(), Phase::Active);
}

#[test]
fn nothing_changes_any_more_once_finish_has_begun() {
    let (mut state, csum) = with_index();
    finish(
        &mut state,
        manifest(json!([entry("root.pxar.didx", 10, &csum)])),
    )
    .unwrap();
    assert_eq!(
        state.create_dynamic("b.didx").unwrap_err().to_string(),
        "backup is already in the process of finishing."
    );
    assert_eq!(
        state.begin_finish(|| Ok(())).unwrap_err().to_string(),
        "backup is already in the process of finishing."
    );
    assert_eq!(
        state.check_finished().unwrap_err().to_string(),
        "backup ended but finished state is not set."
    );
    state.set_finished();
    assert_eq!(
        state.check_blob("x.blob").unwrap_err().to_string(),
        "backup already marked as finished."
    );
    assert_eq!(
        state.begin_finish(|| Ok(())).unwrap_err().to_string(),
        "backup already marked as finished."
    );
    assert!(state.check_finished().is_ok());
}

#[test]
fn the_stored_manifest_gains_the_upload_statistics_and_keeps_what_the_client_put_in() {
    let (mut state, csum) = with_index();
    let text = json!({
        "backup-type": "vm", "backup-id": "100", "backup-time": 1_750_000_000,
        "files": [entry("root.pxar.didx", 10, &csum)],
        "unprotected": {"notes": "hello", "own-key": 5},
    });
    let blob = DataBlob::encode(text.to_string().as_bytes(), None, true).unwrap();
    let stored = finish(&mut state, blob).unwrap();
    let stats = json!({"count": 1, "size": 10, "compressed_size": 50, "duplicates": 0});
    assert_eq!(
        stored.unprotected,
        json!({"notes": "hello", "own-key": 5, "chunk_upload_stats": stats})
    );
}

#[test]
fn a_manifest_without_unprotected_and_with_foreign_keys_is_accepted() {
    let (mut state, csum) = with_index();
    let mut file = entry("root.pxar.didx", 10, &csum);
    file["colour"] = json!("red");
    let text = json!({
        "backup-type": "vm", "backup-id": "100", "backup-time": 1_750_000_000, "files": [file], "tool": "other",
    });
    let stored = finish(
        &mut state,
        DataBlob::encode(text.to_string().as_bytes(), None, false).unwrap(),
    )
    .unwrap();
    assert_eq!(stored.files.len(), 1);
}

#[test]
fn a_manifest_must_tell_the_truth_about_every_file() {
    let csum = with_index().1;
    let cases = [
        (
            json!([entry("other.pxar.didx", 10, &csum)]),
            "manifest entry 'other.pxar.didx' was not uploaded",
        ),
        (
            json!([entry("../x/root.pxar.didx", 10, &csum)]),
            "unable to update manifest blob",
        ),
        (
            json!([entry("index.json.blob", 10, &csum)]),
            "manifest entry 'index.json.blob' was not uploaded",
        ),
        (
            json!([entry("root.pxar.didx", 11, &csum)]),
            "has wrong size (11 != 10)",
        ),
        (
            json!([entry("root.pxar.didx", 10, &digest(3))]),
            "has wrong checksum",
        ),
        (
            json!([
                entry("root.pxar.didx", 10, &csum),
                entry("root.pxar.didx", 10, &csum)
            ]),
            "more than once",
        ),
    ];
    for (files, text) in cases {
        let (mut state, _) = with_index();
        let err = finish(&mut state, manifest(files)).unwrap_err();
        assert!(
            err.starts_with("unable to update manifest blob - ") && err.contains(text),
            "{err}"
        );
    }
}

#[test]
fn a_manifest_of_another_snapshot_is_refused() {
    for (key, value) in [
        ("backup-id", json!("101")),
        ("backup-time", json!(5)),
        ("backup-type", json!("ct")),
    ] {
        let (mut state, csum) = with_index();
        let mut text = json!({
            "backup-type": "vm", "backup-id": "100", "backup-time": 1_750_000_000,
            "files": [entry("root.pxar.didx", 10, &csum)],
        });
        text[key] = value;
        let err = finish(
            &mut state,
            DataBlob::encode(text.to_string().as_bytes(), None, true).unwrap(),
        )
        .unwrap_err();
        assert!(err.contains("describes snapshot"), "{err}");
    }
}

#[test]
fn plain_data_is_not_accepted_as_encrypted_nor_the_other_way_round() {
    let (mut state, csum) = with_index();
    let mut file = entry("root.pxar.didx", 10, &csum);
    file["crypt-mode"] = json!("encrypt");
    let err = finish(&mut state, manifest(json!([file]))).unwrap_err();
    assert!(
        err.contains("claims crypt mode 'encrypt', but plain data was uploaded"),
        "{err}"
    );

    let mut state = session();
    let key = backstop_format::crypt::CryptKey::new([7; 32]);
    let blob = DataBlob::encode(b"secret", Some(&key), false).unwrap();
    let file = blob_file(&blob);
    state.blob_stored("x.conf.blob", file).unwrap();
    let err = finish(
        &mut state,
        manifest(json!([entry("x.conf.blob", file.size, &file.csum)])),
    )
    .unwrap_err();
    assert!(
        err.contains("claims crypt mode 'none', but encrypted data was uploaded"),
        "{err}"
    );
}

#[test]
fn the_escrow_key_may_be_listed_with_the_mode_of_the_session() {
    let mut state = session();
    let blob = DataBlob::encode(b"rsa", None, false).unwrap();
    let file = blob_file(&blob);
    state.blob_stored("rsa-encrypted.key.blob", file).unwrap();
    let mut listed = entry("rsa-encrypted.key.blob", file.size, &file.csum);
    listed["crypt-mode"] = json!("encrypt");
    finish(&mut state, manifest(json!([listed]))).unwrap();
}

#[test]
fn finish_without_a_manifest_is_refused() {
    let (mut state, _) = with_index();
    state.begin_finish(|| Ok(())).unwrap();
    assert!(
        state
            .final_manifest()
            .unwrap_err()
            .to_string()
            .starts_with("unable to update manifest blob - ")
    );
}

#[test]
fn an_encrypted_or_broken_manifest_is_refused() {
    let key = backstop_format::crypt::CryptKey::new([7; 32]);
    for blob in [
        DataBlob::encode(b"{}", Some(&key), false).unwrap(),
        DataBlob::encode(b"{}", None, false).unwrap(),
        DataBlob::encode(b"[1,2", None, false).unwrap(),
    ] {
        let (mut state, _) = with_index();
        assert!(finish(&mut state, blob).is_err());
    }
}

#[test]
fn a_session_whose_connection_has_ended_takes_nothing_any_more() {
    let (mut state, _) = with_index();
    assert_eq!(
        state.end().unwrap_err().to_string(),
        "backup ended but finished state is not set."
    );
    assert!(state.create_dynamic("b.didx").is_err());
    assert!(state.begin_finish(|| Ok(())).is_err());
}
