//! Uptime Kuma, by the pushes of heartbeats and of the hook of `vzdump`.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::json;
use testbed::authority::Authority;
use testbed::server::{ServerProcess, succeeded};
use testbed::uptime_kuma::{UptimeKuma, installed};

use crate::{BINARY, collect, server};

fn create(server: &ServerProcess, name: &str, url: &str, more: &[&str]) {
    let words = [&["create", name, "--url", url], more].concat();
    server.ok("heartbeat", &words).unwrap();
}

#[test]
fn uptime_kuma_shows_how_each_run_went_and_how_long_it_took() {
    let Some(folder) = installed() else { return };
    let mut kuma = UptimeKuma::start(&folder, None).unwrap();
    let root = testbed::scratch::directory().unwrap();
    let (server, api) = server(root.path());
    server.create_failing_sync("broken").unwrap();
    let gcs = kuma.push_monitor("gcs", 3600, 0).unwrap();
    let syncs = kuma.push_monitor("syncs", 3600, 0).unwrap();
    create(
        &server,
        "gcs",
        &kuma.push_url(&gcs),
        &["--job", "gc:store1"],
    );
    let job = ["--job", "sync:broken"];
    create(&server, "syncs", &kuma.push_url(&syncs), &job);

    collect(&api, "store1");
    let beats = kuma.wait_for_beats(&gcs, 1).unwrap();
    assert!(beats[0].is_up, "{beats:?}");
    assert_eq!(beats[0].message, "gc:store1: OK");
    let upid = api.post("admin/sync/broken/run", json!({})).unwrap();
    let error = api.end_of(&upid).unwrap();
    let beats = kuma.wait_for_beats(&syncs, 1).unwrap();
    assert!(!beats[0].is_up, "{beats:?}");
    let said = beats[0].message.strip_prefix("sync:broken: ").unwrap();
    assert!(error.starts_with(said.trim_end_matches('…')), "{beats:?}");
    // It keeps the longest duration that a heartbeat tells.
    let longest = f64::from(i32::MAX);
    let days = format!("{}{longest}", kuma.push_url(&syncs));
    let curl = ["--silent", "--fail", "--max-time", "60", &days];
    succeeded(&Command::new("curl").args(curl).output().unwrap()).unwrap();
    let beats = kuma.wait_for_beats(&syncs, 2).unwrap();
    assert!(
        beats[1].is_up && beats[1].ping == Some(longest),
        "{beats:?}"
    );

    // A paused monitor takes nothing. What came meanwhile is told when it goes on.
    kuma.pause(&gcs, true).unwrap();
    collect(&api, "store1");
    let undelivered = |count: usize| {
        let is_so =
            |view: &serde_json::Value| view["undelivered"].as_array().map(Vec::len) == Some(count);
        api.wait("backstop/heartbeats/gcs", is_so).unwrap()
    };
    let view = undelivered(1);
    let error = view["undelivered"][0]["last-error"].as_str().unwrap();
    assert!(
        error.contains("404") && error.contains("not active"),
        "{error}"
    );
    kuma.pause(&gcs, false).unwrap();
    server
        .ok("heartbeat", &["update", "gcs", "--comment", "goes on"])
        .unwrap();
    undelivered(0);
    let beats = kuma.wait_for_beats(&gcs, 2).unwrap();
    assert!(beats[1].is_up && beats[1].time > beats[0].time, "{beats:?}");
}

#[test]
fn uptime_kuma_is_told_of_a_backup_job_of_proxmox_ve_and_notices_one_that_does_not_run() {
    let Some(folder) = installed() else { return };
    let mut kuma = UptimeKuma::start(&folder, None).unwrap();
    // In seconds; the shortest that every version takes.
    let monitor = kuma.push_monitor("pve", 20, 0).unwrap();
    let node = tempfile::tempdir().unwrap();
    let etc = node.path().join("etc/backstop");
    std::fs::create_dir_all(&etc).unwrap();
    let config = etc.join("pve-hook.conf");
    std::fs::write(&config, format!("url: {}\n", kuma.push_url(&monitor))).unwrap();
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
    let hook = node.path().join("backstop-pve-hook");
    symlink(BINARY, &hook).unwrap();
    let vzdump = |phases: &[&str]| {
        let script: String = phases
            .iter()
            .map(|phase| format!("\"$0\" {phase}\n"))
            .collect();
        let mut run = Command::new("/bin/sh");
        run.arg("-ec").arg(script).arg(&hook).env_clear();
        run.env("STOREID", "pbs1").env("BACKSTOP_ROOT", node.path());
        succeeded(&run.output().unwrap()).unwrap();
    };
    let good = [
        "job-start",
        "backup-start snapshot 100",
        "backup-end snapshot 100",
        "job-end",
    ];
    vzdump(&good);
    let beats = kuma.wait_for_beats(&monitor, 1).unwrap();
    assert!(
        beats[0].is_up && beats[0].message.ends_with(" to pbs1: OK, 1 guest"),
        "{beats:?}"
    );
    // The next job does not run.
    let beats = kuma.wait_for_beats(&monitor, 2).unwrap();
    assert!(!beats[1].is_up, "{beats:?}");
    assert_eq!(beats[1].message, "No heartbeat in the time window");
    vzdump(&good);
    let after = kuma.wait_for_beats(&monitor, 3).unwrap();
    let after: Vec<_> = after.iter().filter(|beat| beat.is_up).collect();
    assert!(
        after.len() == 2 && after[1].time > beats[1].time,
        "{after:?}"
    );
    vzdump(&[
        "job-start",
        "backup-start snapshot 100",
        "backup-abort snapshot 100",
        "job-end",
    ]);
    let failed = loop {
        let beats = kuma.beats(&monitor).unwrap();
        if let Some(beat) = beats.iter().find(|beat| beat.message.contains("failed")) {
            break beat.clone();
        }
    };
    assert!(
        !failed.is_up && failed.message.ends_with("1 of 1 guest failed: 100"),
        "{failed:?}"
    );
}

#[test]
fn uptime_kuma_with_tls_is_trusted_by_its_name_where_it_is_addressed_by_ip() {
    let Some(folder) = installed() else { return };
    let root = testbed::scratch::directory().unwrap();
    let authority = Authority::create(root.path()).unwrap();
    let files = authority
        .issue(root.path(), "status", &["status.example.org"])
        .unwrap();
    let mut kuma = UptimeKuma::start(&folder, Some(&files)).unwrap();
    let monitor = kuma.push_monitor("tls", 3600, 0).unwrap();
    let (server, api) = server(&root.path().join("root"));
    let trust = ["--ca-file", path(&authority.certificate)];
    create(&server, "tls", &kuma.push_url(&monitor), &trust);
    let refused = server.run("heartbeat", &["test", "tls"]).unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("no trusted TLS connection"), "{said}");
    let name = ["update", "tls", "--tls-server-name", "status.example.org"];
    server.ok("heartbeat", &name).unwrap();
    collect(&api, "store1");
    let beats = kuma.wait_for_beats(&monitor, 1).unwrap();
    assert!(
        beats[0].is_up && beats[0].message == "gc:store1: OK",
        "{beats:?}"
    );
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
