#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

fn data(capture: &str) -> (Value, String) {
    let path = format!(
        "{}/../../tests/fixtures/{capture}",
        env!("CARGO_MANIFEST_DIR")
    );
    let capture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let body = capture["body"].as_str().unwrap().to_string();
    let value: Value = serde_json::from_str(&body).unwrap();
    (value["data"].clone(), body)
}

/// The captured data, read as `T` and written again, must be the same.
#[track_caller]
fn survives<T: Serialize + DeserializeOwned>(captures: &[&str]) {
    for capture in captures {
        let (value, _) = data(capture);
        let record: T = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(record).unwrap(), value, "{capture}");
    }
}

#[test]
fn content_records_equal_the_captures() {
    survives::<Vec<SnapshotItem>>(&[
        "pbs-3.2.4/rest/094-snapshots-root.json",
        "pbs-3.2.4/rest/002-store2-snapshots-verify-failed.json",
        "pbs-3.2.4/rest/098-snapshots-ns.json",
        "pbs-4.2.3/rest/062-snapshots.json",
    ]);
    survives::<Vec<GroupItem>>(&[
        "pbs-3.2.4/rest/103-groups.json",
        "pbs-4.2.3/rest/057-groups.json",
    ]);
    survives::<Vec<NamespaceItem>>(&["pbs-3.2.4/rest/106-namespaces.json"]);
    survives::<Vec<FileItem>>(&[
        "pbs-3.2.4/rest/115-files.json",
        "pbs-3.2.4/rest/116-files-encrypted.json",
    ]);
    survives::<Vec<PruneItem>>(&["pbs-3.2.4/rest/143-prune-dry-run.json"]);
    survives::<Vec<CatalogItem>>(&[
        "pbs-3.2.4/rest/128-catalog-root.json",
        "pbs-3.2.4/rest/129-catalog-pxar-root.json",
    ]);
}

#[test]
fn snapshot_keys_come_in_the_captured_order() {
    let (value, body) = data("pbs-3.2.4/rest/098-snapshots-ns.json");
    let records: Vec<SnapshotItem> = serde_json::from_value(value).unwrap();
    assert!(body.contains(&serde_json::to_string(&records).unwrap()));
}

#[test]
fn datastore_records_equal_the_captures() {
    survives::<Vec<DatastoreListItem>>(&[
        "pbs-3.2.4/rest/091-datastores.json",
        "pbs-4.2.3/rest/054-datastores.json",
    ]);
    survives::<DatastoreStatus>(&[
        "pbs-3.2.4/rest/120-status.json",
        "pbs-4.2.3/rest/094-status-verbose.json",
    ]);
    survives::<GcJobStatus>(&["pbs-3.2.4/rest/124-gc-status-never.json"]);
    survives::<Vec<GcJobStatus>>(&["pbs-3.2.4/rest/266-admin-gc.json"]);
    survives::<Vec<DatastoreUsage>>(&[
        "pbs-3.2.4/rest/271-status-datastore-usage.json",
        "pbs-4.2.3/rest/191-datastore-usage-fixture.json",
    ]);
    survives::<ActiveOperations>(&["pbs-3.2.4/rest/125-active-operations.json"]);
}

#[test]
fn task_records_equal_the_captures() {
    let (value, body) = data("pbs-3.2.4/rest/180-node-tasks.json");
    let records: Vec<TaskItem> = serde_json::from_value(value).unwrap();
    assert!(body.contains(&serde_json::to_string(&records).unwrap()));
    for record in records {
        let state = record.status.as_deref().map(TaskState::parse);
        let end = record.endtime.zip(state.as_ref());
        assert_eq!(TaskItem::new(record.upid.clone(), end), record);
    }
    survives::<TaskStatus>(&[
        "pbs-3.2.4/rest/195-task-status.json",
        "pbs-4.2.3/rest/102-move-group-task-status.json",
    ]);
    survives::<VersionInfo>(&["pbs-4.2.3/rest/038-version.json"]);
}

#[test]
fn access_records_equal_the_captures() {
    survives::<Vec<UserItem>>(&[
        "pbs-3.2.4/rest/043-users.json",
        "pbs-3.2.4/rest/056-users-with-tokens.json",
    ]);
    survives::<Vec<UserTokenItem>>(&["pbs-3.2.4/rest/047-user-tokens.json"]);
    survives::<TokenItem>(&["pbs-3.2.4/rest/048-user-token-one.json"]);
    survives::<Vec<AclItem>>(&["pbs-3.2.4/rest/050-acl.json"]);
    survives::<Vec<DomainItem>>(&["pbs-3.2.4/rest/053-domains.json"]);
    survives::<TicketReply>(&[
        "pbs-4.2.3/rest/004-ticket-legacy.json",
        "pbs-4.2.3/rest/005-ticket-http-only.json",
    ]);
    survives::<NewToken>(&["pbs-4.2.3/rest/493-token-create.json"]);
    survives::<RegeneratedToken>(&["pbs-4.2.3/rest/494-token-regenerate.json"]);
}

#[test]
fn task_states_are_told_apart() {
    for (text, class, success) in [
        ("OK", "ok", true),
        ("WARNINGS: 3", "warning", true),
        ("WARNINGS: x", "error", false),
        ("unknown", "unknown", false),
        ("no space left", "error", false),
    ] {
        let state = TaskState::parse(text);
        assert_eq!(
            (
                state.class(),
                state.is_success(),
                state.to_string().as_str()
            ),
            (class, success, text)
        );
    }
    assert_eq!(TaskState::parse("x").log_line(), "TASK ERROR: x");
    assert_eq!(TaskState::Warnings(2).log_line(), "TASK WARNINGS: 2");
}

#[test]
fn secrets_stay_out_of_debug_texts() {
    let token = NewToken {
        tokenid: "a@pbs!t".parse().unwrap(),
        value: "hush".into(),
    };
    let reply = TicketReply {
        username: "a@pbs".parse().unwrap(),
        ticket: Some("hush".into()),
        ticket_info: None,
        csrf_token: Some("hush".into()),
    };
    assert!(
        !format!(
            "{token:?}{reply:?}{:?}",
            RegeneratedToken {
                secret: "hush".into()
            }
        )
        .contains("hush")
    );
}
