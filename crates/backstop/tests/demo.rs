//! What the README's first command promises.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::process::Command;

use testbed::tree;

#[test]
fn the_demo_restores_what_it_backed_up_and_ends_with_success() {
    let scratch = testbed::scratch::directory().unwrap();
    let source = scratch.path().join("source");
    tree::mixed(&source, 7, 250, 8).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_backstop"))
        .args(["demo", "--once", "--path"])
        .arg(&source)
        .env("TMPDIR", scratch.path())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(
        stdout.contains("Both restores equal the source: 254 entries"),
        "{stdout}\n{stderr}"
    );
    assert!(stderr.contains("had to backup"), "{stderr}");
}

#[test]
fn a_demo_of_a_missing_directory_is_refused_with_its_name() {
    let output = Command::new(env!("CARGO_BIN_EXE_backstop"))
        .args(["demo", "--once", "--path", "/no/such/dir"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/dir"));
}
