//! `backstop calendar`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output};

fn calendar(zone: &str, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_backstop"))
        .arg("calendar")
        .args(words)
        .env("TZ", zone)
        .env_remove("PROXMOX_OUTPUT_FORMAT")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{output:?}");
    std::str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn an_event_is_explained_and_its_times_are_local() {
    let base = "--base-time=2026-10-24T12:00:00Z";
    let output = calendar(
        "Europe/Vienna",
        &["sun,sat 02:30", "--iterations", "2", base],
    );
    let expected = "every Saturday and Sunday at 02:30\n\
        normal form: sat,sun *-*-* 02:30:00\n  \
        Sun 2026-10-25 02:30:00 +02:00  (after 12h 30m)\n  \
        Sat 2026-10-31 02:30:00 +01:00  (after 6d 13h 30m)\n";
    assert_eq!(stdout(&output), expected);
}

#[test]
fn json_has_the_event_and_the_times() {
    for base in [
        "--base-time=2026-01-01T01:00:00+01:00",
        "--base-time=@1767225600",
    ] {
        let words = [
            "Wed 02:30",
            "--iterations",
            "3",
            base,
            "--output-format",
            "json",
        ];
        let output = calendar("UTC", &words);
        let expected = "{\"event\":\"Wed 02:30\",\"next\":[1767753000,1768357800,1768962600]}\n";
        assert_eq!(stdout(&output), expected);
    }
    let output = calendar("UTC", &["02-30", "--output-format", "json"]);
    assert_eq!(stdout(&output), "{\"event\":\"02-30\",\"next\":[]}\n");
}

#[test]
fn what_is_no_event_or_no_time_is_refused() {
    for (words, text) in [
        (
            &["Wednesday at noon"][..],
            "parameter verification failed - 'event': unable to parse calendar event at 'at noon' - Nom(Eof)",
        ),
        (
            &["daily", "--base-time", "yesterday"],
            "'yesterday' is no point in time",
        ),
        (
            &["daily", "--iterations", "0"],
            "parameter verification failed - 'iterations': value must have a minimum value of 1",
        ),
    ] {
        let output = calendar("UTC", words);
        assert_eq!(output.status.code(), Some(255));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(text), "{stderr}");
    }
}
