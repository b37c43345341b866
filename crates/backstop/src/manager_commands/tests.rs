//! What the manager prints, beside what the stock manager printed for the same data.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;

use super::*;
use crate::output::{Record, Style, Table};

fn capture(name: &str) -> Value {
    let path = format!(
        "{}/../../tests/fixtures/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_slice(&text).unwrap()
}

fn stdout(name: &str) -> String {
    capture(name)["stdout"].as_str().unwrap().to_string()
}

fn data(name: &str) -> Value {
    serde_json::from_str(&stdout(name)).unwrap()
}

#[test]
fn tables_equal_those_of_stock() {
    let cases: [(&Table, &str, &str); 9] = [
        (
            &datastore::DATASTORES,
            "pbs-4.2.3/cli/064-manager-datastore-list-json-pretty",
            "pbs-4.2.3/cli/062-manager-datastore-list-text",
        ),
        (
            &datastore::DATASTORES,
            "pbs-3.2.4/cli/124-manager-datastore-list-json",
            "pbs-3.2.4/cli/123-manager-datastore-list-text",
        ),
        (
            &user::USERS,
            "pbs-4.2.3/cli/069-manager-user-list-json",
            "pbs-4.2.3/cli/068-manager-user-list-text",
        ),
        (
            &user_token::TOKENS,
            "pbs-4.2.3/cli/072-manager-user-list-tokens-fixture@pbs-json",
            "pbs-4.2.3/cli/071-manager-user-list-tokens-fixture@pbs-text",
        ),
        (
            &acl::RULES,
            "pbs-4.2.3/cli/078-manager-acl-list-json",
            "pbs-4.2.3/cli/077-manager-acl-list-text",
        ),
        (
            &garbage_collection::ALL,
            "pbs-4.2.3/cli/117-manager-garbage-collection-list-json",
            "pbs-4.2.3/cli/116-manager-garbage-collection-list-text",
        ),
        (
            &jobs::PRUNE_LIST,
            "pbs-4.2.3/cli/102-manager-prune-job-list-json",
            "pbs-4.2.3/cli/101-manager-prune-job-list-text",
        ),
        (
            &jobs::PRUNE_LIST,
            "pbs-3.2.4/cli/080-manager-prune-job-list-json",
            "pbs-3.2.4/cli/079-manager-prune-job-list-text",
        ),
        (
            &jobs::VERIFY_LIST,
            "pbs-3.2.4/cli/086-manager-verify-job-list-json",
            "pbs-3.2.4/cli/085-manager-verify-job-list-text",
        ),
    ];
    for (table, json, text) in cases {
        let rendered = table.render(data(json).as_array().unwrap(), &Style::PLAIN);
        assert_eq!(rendered, stdout(text), "{text}");
    }
}

#[test]
fn records_equal_those_of_stock() {
    let cases: [(&Record, &str, &str); 6] = [
        (
            &datastore::SETTINGS,
            "pbs-3.2.4/cli/127-manager-datastore-show-store1-json",
            "pbs-3.2.4/cli/126-manager-datastore-show-store1-text",
        ),
        (
            &garbage_collection::STATUS,
            "pbs-4.2.3/cli/114-manager-garbage-collection-status-store1-json",
            "pbs-4.2.3/cli/113-manager-garbage-collection-status-store1-text",
        ),
        (
            &garbage_collection::STATUS,
            "pbs-3.2.4/cli/193-manager-garbage-collection-status-store1-json",
            "pbs-3.2.4/cli/192-manager-garbage-collection-status-store1-text",
        ),
        (
            &jobs::PRUNE_JOB,
            "pbs-4.2.3/cli/105-manager-prune-job-show-prune1-json",
            "pbs-4.2.3/cli/104-manager-prune-job-show-prune1-text",
        ),
        (
            &jobs::VERIFY_JOB,
            "pbs-4.2.3/cli/111-manager-verify-job-show-ver1-json",
            "pbs-4.2.3/cli/110-manager-verify-job-show-ver1-text",
        ),
        (
            &jobs::VERIFY_JOB,
            "pbs-3.2.4/cli/184-manager-verify-job-show-ver1-json",
            "pbs-3.2.4/cli/183-manager-verify-job-show-ver1-text",
        ),
    ];
    for (record, json, text) in cases {
        assert_eq!(
            record.render(&data(json), &Style::PLAIN),
            stdout(text),
            "{text}"
        );
    }
}

#[test]
fn permissions_are_listed_as_stock_does() {
    for version in ["pbs-3.2.4/cli/136", "pbs-4.2.3/cli/075"] {
        let (folder, number) = version.rsplit_once('/').unwrap();
        let number: u32 = number.parse().unwrap();
        let name = |number: u32, form: &str| {
            format!("{folder}/{number:03}-manager-user-permissions-fixture@pbs-{form}")
        };
        assert_eq!(
            user::permission_lines(&data(&name(number, "json"))),
            stdout(&name(number - 1, "text"))
        );
    }
}

/// Every command line that stock refused as such is refused here with the same first line.
#[test]
fn command_lines_that_stock_refuses_are_refused_with_its_words() {
    let program = program("proxmox-backup-manager".to_string());
    for name in [
        "pbs-4.2.3/cli/003-manager-user-create-short",
        "pbs-4.2.3/cli/167-manager-task-list-all-limit0",
        "pbs-4.2.3/cli/170-manager-task-log-bad",
        "pbs-4.2.3/cli/177-manager-err-gc-noarg",
        "pbs-3.2.4/cli/219-manager-cert-info-extra-arg",
        "pbs-3.2.4/cli/120-manager-cert-info-text",
    ] {
        let capture = capture(name);
        let words: Vec<String> = capture["argv"]
            .as_array()
            .unwrap()
            .iter()
            .skip(1)
            .map(|word| word.as_str().unwrap().to_string())
            .collect();
        let crate::command::Resolved::Command { command, rest, .. } = program.resolve(&words)
        else {
            panic!("{name}: no command");
        };
        let error = crate::command::parse::parse(command, &rest).unwrap_err();
        let stderr = capture["stderr"].as_str().unwrap();
        let expected = stderr.split("\nUsage:").next().unwrap();
        assert_eq!(format!("Error: {error}"), expected, "{name}");
    }
}
