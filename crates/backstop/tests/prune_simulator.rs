//! `backstop prune-simulator`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output};

use serde_json::Value;

fn simulator(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_backstop"))
        .arg("prune-simulator")
        .args(words)
        .env("TZ", "UTC")
        .env_remove("PROXMOX_OUTPUT_FORMAT")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{output:?}");
    std::str::from_utf8(&output.stdout).unwrap()
}

const RULES: [&str; 4] = ["--keep-last", "1", "--keep-daily", "1"];

#[test]
fn a_schedule_is_shown_day_by_day() {
    let base = "--base-time=2026-01-03T12:00:00Z";
    let words = [&["--schedule", "6,18:00", "--days", "2", base], &RULES[..]].concat();
    let expected = "\
Thu 2026-01-01  (1 there at the end of the day)
  18:00:00  remove  no rule keeps it (on 2026-01-03 06:00)
Fri 2026-01-02  (2 there at the end of the day)
  06:00:00  remove  no rule keeps it (on 2026-01-02 18:00)
  18:00:00  keep    keep-daily 1 of 1
Sat 2026-01-03  (2 there at the end of the day)
  06:00:00  keep    keep-last 1 of 1
2 of 4 backups are kept.
";
    assert_eq!(stdout(&simulator(&words)), expected);
    let json = [&words[..], &["--output-format", "json"]].concat();
    let value: Value = serde_json::from_str(stdout(&simulator(&json))).unwrap();
    assert_eq!(
        value["days"][1].to_string(),
        r#"{"date":"2026-01-02","kept":2}"#
    );
    assert_eq!(
        value["backups"][2].to_string(),
        r#"{"backup-time":1767376800,"keep":true,"reason":"keep-daily 1 of 1","rule":"keep-daily"}"#
    );
    assert_eq!(value["backups"][1]["removed-at"], 1_767_376_800);
}

#[test]
fn given_moments_are_decided_about() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("moments");
    std::fs::write(
        &file,
        "# host/a\n2026-01-02T06:00:00Z\n\n1767376800\n@1767420000\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let words = [&["--snapshots", file], &RULES[..]].concat();
    let expected = "\
Fri 2026-01-02
  06:00:00  remove  keep-daily keeps a newer one of the day
  18:00:00  keep    keep-daily 1 of 1
Sat 2026-01-03
  06:00:00  keep    keep-last 1 of 1
2 of 3 backups are kept.
";
    assert_eq!(stdout(&simulator(&words)), expected);
    std::fs::write(file, "2026-01-02T06:00:00Z\nyesterday\n").unwrap();
    let refused = simulator(&words);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(
        text.contains("moments\", line 2: 'yesterday' is no point in time"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_simulated_is_refused() {
    let both = simulator(&["--schedule", "daily", "--snapshots", "x"]);
    assert!(String::from_utf8_lossy(&both.stderr).contains("give one of both"));
    let none = simulator(&RULES);
    assert!(
        String::from_utf8_lossy(&none.stderr)
            .contains("give --schedule EVENT, or --snapshots FILE")
    );
    let much = simulator(&["--schedule", "*:*:*"]);
    assert!(String::from_utf8_lossy(&much.stderr).contains("too many backups in 28 days"));
}
