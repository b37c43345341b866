//! What the client prints, beside what the stock client printed for the same data.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};

use super::*;
use crate::output::{Record, Style, Table};
use crate::task_follow;

fn capture(name: &str) -> Value {
    let path = format!(
        "{}/../../tests/fixtures/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_slice(&text).unwrap()
}

/// The standard output of a capture.
fn stdout(name: &str) -> String {
    capture(name)["stdout"].as_str().unwrap().to_string()
}

/// The JSON that a capture printed.
fn data(name: &str) -> Value {
    serde_json::from_str(&stdout(name)).unwrap()
}

fn table(table: &Table, json: &str) -> String {
    table.render(data(json).as_array().unwrap(), &Style::PLAIN)
}

fn record(record: &Record, json: &str) -> String {
    record.render(&data(json), &Style::PLAIN)
}

#[test]
fn tables_equal_those_of_stock() {
    let cases: [(&Table, &str, &str); 9] = [
        (
            &listing::GROUPS,
            "pbs-4.2.3/cli/204-client-list-json",
            "pbs-4.2.3/cli/203-client-list-text",
        ),
        (
            &listing::GROUPS,
            "pbs-4.2.3/cli/207-client-list-ns-json",
            "pbs-4.2.3/cli/206-client-list-ns-text",
        ),
        (
            &snapshot::SNAPSHOTS,
            "pbs-4.2.3/cli/213-client-snapshot-list-group-json",
            "pbs-4.2.3/cli/212-client-snapshot-list-group-text",
        ),
        (
            &snapshot::SNAPSHOTS,
            "pbs-3.2.4/cli/224-client-snapshot-list-json",
            "pbs-3.2.4/cli/223-client-snapshot-list-text",
        ),
        (
            &snapshot::SNAPSHOTS,
            "pbs-3.2.4/cli/230-client-snapshot-list-ns-json",
            "pbs-3.2.4/cli/229-client-snapshot-list-ns-text",
        ),
        (
            &snapshot::FILES,
            "pbs-4.2.3/cli/217-client-snapshot-files-split-json-pretty",
            "pbs-4.2.3/cli/215-client-snapshot-files-split-text",
        ),
        (
            &snapshot::FILES,
            "pbs-4.2.3/cli/219-client-snapshot-files-enc-json",
            "pbs-4.2.3/cli/218-client-snapshot-files-enc-text",
        ),
        (
            &prune::DECISIONS,
            "pbs-4.2.3/cli/238-client-prune-dry-run-json-pretty",
            "pbs-4.2.3/cli/236-client-prune-dry-run-text",
        ),
        (
            &prune::DECISIONS,
            "pbs-3.2.4/cli/261-client-prune-dry-run-json",
            "pbs-3.2.4/cli/260-client-prune-dry-run-text",
        ),
    ];
    for (columns, json, text) in cases {
        assert_eq!(table(columns, json), stdout(text), "{text}");
    }
}

#[test]
fn the_table_of_tasks_equals_that_of_stock() {
    // Stock leaves the order of tasks that began in the same second open.
    let rendered = table(
        &task_follow::TASKS,
        "pbs-3.2.4/cli/202-manager-task-list-all-json",
    );
    let expected = stdout("pbs-3.2.4/cli/201-manager-task-list-all-text");
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&rendered), sorted(&expected));
    let times: Vec<&str> = rendered
        .lines()
        .filter_map(|line| line.get(..27))
        .filter(|l| l.contains(':'))
        .collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn records_of_keys_equal_those_of_stock() {
    for (json, text) in [
        (
            "248-client-key-show-none-text",
            "249-client-key-show-none-json",
        ),
        (
            "251-client-key-show-scrypt-text",
            "252-client-key-show-scrypt-json",
        ),
        (
            "254-client-key-show-pbkdf2-text",
            "255-client-key-show-pbkdf2-json",
        ),
    ]
    .map(|(text, json)| {
        (
            format!("pbs-3.2.4/cli/{json}"),
            format!("pbs-3.2.4/cli/{text}"),
        )
    }) {
        assert_eq!(record(&key_commands::KEY, &json), stdout(&text), "{text}");
    }
}

#[test]
fn the_status_shows_bytes_and_shares() {
    let status = json!({ "total": 270_553_174_016_u64, "used": 35_432_251_392_u64, "avail": 62_140_497_920_u64 });
    assert_eq!(
        listing::STATUS.render(&status, &Style::PLAIN),
        stdout("pbs-4.2.3/cli/221-client-status-text")
    );
}

#[test]
fn lines_of_namespaces_and_versions_equal_those_of_stock() {
    assert_eq!(
        namespace::lines(&data("pbs-4.2.3/cli/225-client-namespace-list-json")),
        stdout("pbs-4.2.3/cli/224-client-namespace-list-text")
    );
    assert_eq!(
        session::version_lines(&data("pbs-4.2.3/cli/228-client-version-json")),
        stdout("pbs-4.2.3/cli/227-client-version-text")
    );
}

#[test]
fn json_output_equals_that_of_stock() {
    for name in [
        "pbs-4.2.3/cli/208-client-list-ns-json-pretty",
        "pbs-4.2.3/cli/226-client-namespace-list-json-pretty",
    ] {
        assert_eq!(
            crate::output::json::pretty(&data(name)),
            stdout(name),
            "{name}"
        );
    }
    let name = "pbs-4.2.3/cli/204-client-list-json";
    assert_eq!(crate::output::json::line(&data(name)), stdout(name));
}

/// Every command line that stock refused as such is refused here with the same first line.
#[test]
fn command_lines_that_stock_refuses_are_refused_with_its_words() {
    let program = program("proxmox-backup-client".to_string());
    for name in [
        "pbs-4.2.3/cli/272-client-err-bad-mode",
        "pbs-4.2.3/cli/274-client-err-backup-bad-spec",
        "pbs-4.2.3/cli/275-client-err-backup-bad-ext",
        "pbs-4.2.3/cli/276-client-err-backup-mpxar-ext",
        "pbs-4.2.3/cli/286-client-err-group-forget-empty",
        "pbs-3.2.4/cli/303-client-err-missing-arg",
        "pbs-3.2.4/cli/304-client-err-unknown-option",
        "pbs-3.2.4/cli/313-client-err-backup-bad-id",
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
