//! The third-party client proxmoxer drives the real program, over TLS whose certificate it verifies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::process::{Command, Stdio};

use testbed::server::ServerProcess;

#[test]
fn proxmoxer_logs_in_and_drives_datastores_users_and_tasks() {
    let Some(python) = std::env::var_os("BACKSTOP_PROXMOXER_PYTHON") else {
        println!("skipped: BACKSTOP_PROXMOXER_PYTHON names no Python that has proxmoxer");
        return;
    };
    let dir = testbed::scratch::directory().unwrap();
    let root = dir.path().join("root");
    let server = ServerProcess::start(
        Path::new(env!("CARGO_BIN_EXE_backstop")),
        &root,
        ([127, 0, 0, 1], 0).into(),
    )
    .unwrap();
    let folder = dir.path().join("data");
    std::fs::create_dir(&folder).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proxmoxer/drive.py");
    let output = Command::new(python)
        .arg(script)
        .arg(server.address.port().to_string())
        .arg(root.join("etc/proxmox-backup/proxy.pem"))
        .arg(&server.password)
        .arg(&folder)
        .env_remove("REQUESTS_CA_BUNDLE")
        .env_remove("CURL_CA_BUNDLE")
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n", "{said}");
}
