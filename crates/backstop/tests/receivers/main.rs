//! What the server sends, as the real programs of others take it: each test starts one, and is skipped where it is not installed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod alertmanager;
mod influxdb;
mod uptime_kuma;
mod zabbix;

use std::path::Path;

use serde_json::json;
use testbed::api::Api;
use testbed::server::ServerProcess;

const BINARY: &str = env!("CARGO_BIN_EXE_backstop");

fn server(root: &Path) -> (ServerProcess, Api) {
    let server = ServerProcess::with_datastore(Path::new(BINARY), root).unwrap();
    let api = Api::connect(&server).unwrap();
    (server, api)
}

/// Runs a garbage collection to its end.
fn collect(api: &Api, store: &str) {
    let path = format!("admin/datastore/{store}/gc");
    let upid = api.post(&path, json!({})).unwrap();
    assert_eq!(api.end_of(&upid).unwrap(), "OK");
}

/// Makes the sync job `copy`, and a way to let it fail: `copy(false)` runs it while nothing listens at its remote, `copy(true)`
/// while the server itself does.
fn copying<'a>(server: &'a ServerProcess, root: &Path) -> impl Fn(bool) + 'a {
    let manager = |words: &[&str]| server.ok("manager", words).unwrap();
    let second = root.join("datastore/second");
    manager(&["datastore", "create", "second", second.to_str().unwrap()]);
    let remote = ["remote", "create", "self", "--host", "127.0.0.1"];
    let trust = ["--fingerprint", &server.fingerprint];
    let account = ["--auth-id", "admin@pbs", "--password", &server.password];
    manager(&[&remote[..], &trust, &account].concat());
    let job = ["sync-job", "create", "copy", "--store", "second"];
    let source = ["--remote", "self", "--remote-store", "store1"];
    manager(&[&job[..], &source].concat());
    move |is_well| {
        let port = if is_well { server.address.port() } else { 1 };
        manager(&["remote", "update", "self", "--port", &port.to_string()]);
        let run = server.run("manager", &["sync-job", "run", "copy"]).unwrap();
        assert_eq!(run.status.success(), is_well, "{run:?}");
    }
}
