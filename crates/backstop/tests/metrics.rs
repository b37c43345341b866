//! What Prometheus gets from the real program: who may scrape, what it sees, and that Prometheus itself understands it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
#[path = "../../backstop-server/tests/rest_captures/client.rs"]
mod client;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use client::{Answer, send, send_plain};
use serde_json::{Value, json};
use testbed::api::Api;
use testbed::program::installed;
use testbed::prometheus::Prometheus;
use testbed::server::ServerProcess;

const BINARY: &str = env!("CARGO_BIN_EXE_backstop");

fn server(root: &Path) -> ServerProcess {
    ServerProcess::with_datastore(Path::new(BINARY), root).unwrap()
}

/// Headers of a request that ends its connection.
fn headers(more: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let always = [("Host", "localhost"), ("Connection", "close")];
    always.iter().chain(more).map(own).collect()
}

fn scrape(server: &ServerProcess, more: &[(&str, &str)]) -> Answer {
    send(server.address, "GET", "/metrics", &headers(more), b"").unwrap()
}

/// The value of a line, by its name and labels as they are written.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series))?;
    line.trim().parse().ok()
}

/// A token of a new user, both with `role` on `path`, as its `Authorization` header.
fn token(api: &Api, user: &str, role: &str, path: &str) -> String {
    api.post("access/users", json!({"userid": user})).unwrap();
    let made = api
        .post(&format!("access/users/{user}/token/t"), json!({}))
        .unwrap();
    let id = format!("{user}!t");
    for auth_id in [user, &id] {
        api.put(
            "access/acl",
            json!({"path": path, "role": role, "auth-id": auth_id}),
        )
        .unwrap();
    }
    format!("PBSAPIToken {id}:{}", made["value"].as_str().unwrap())
}

#[test]
fn programs_of_this_host_and_tokens_with_the_privilege_may_scrape_and_nobody_else() {
    let root = testbed::scratch::directory().unwrap();
    let server = server(root.path());
    let api = Api::connect(&server).unwrap();
    let answer = scrape(&server, &[]);
    assert_eq!(answer.status(), "200");
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    assert_eq!(
        scrape(&server, &[("x-forwarded-for", "127.0.0.1")]).status(),
        "401"
    );
    assert_eq!(scrape(&server, &[("via", "1.1 proxy")]).status(), "401");

    let allowed = token(&api, "metrics@pbs", "Audit", "/system/metrics");
    let other = token(&api, "other@pbs", "Audit", "/system/status");
    let forwarded = |token: &str| {
        let headers = [("authorization", token), ("via", "1.1 proxy")];
        scrape(&server, &headers).status().to_owned()
    };
    assert_eq!(forwarded(&allowed), "200");
    assert_eq!(forwarded(&other), "403");
    assert_eq!(forwarded(&format!("{allowed}0")), "401");
    // the token opens nothing else
    let path = "/api2/json/nodes/localhost/status";
    let own = headers(&[("authorization", &allowed)]);
    assert_eq!(
        send(server.address, "GET", path, &own, b"")
            .unwrap()
            .status(),
        "403"
    );

    server.ok("metrics", &["loopback", "off"]).unwrap();
    assert_eq!(scrape(&server, &[]).status(), "401");
    assert_eq!(forwarded(&allowed), "200");
    server.ok("metrics", &["loopback", "on"]).unwrap();
    assert_eq!(scrape(&server, &[]).status(), "200");
    let written = send(server.address, "POST", "/metrics", &headers(&[]), b"").unwrap();
    assert_eq!(written.status(), "400");
    // no word of it without encryption
    let plain = send_plain(server.address, "GET", "/metrics", &headers(&[])).unwrap();
    assert!(!plain.text().contains("backstop_"), "{}", plain.text());
}

#[test]
fn jobs_tasks_and_datastores_are_shown_as_they_are() {
    let root = testbed::scratch::directory().unwrap();
    let server = server(root.path());
    let api = Api::connect(&server).unwrap();
    let source = root.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content".repeat(10_000)).unwrap();
    let archive = format!("etc.pxar:{}", source.display());
    server
        .ok("client", &["backup", &archive, "--backup-id", "h1"])
        .unwrap();
    let manager = |words: &[&str]| server.ok("manager", words).unwrap();
    manager(&["garbage-collection", "start", "store1"]);
    server.create_failing_sync("broken").unwrap();
    for run in 1..=2 {
        let upid = api.post("admin/sync/broken/run", json!({})).unwrap();
        assert_ne!(api.end_of(&upid).unwrap(), "OK");
        let text = scrape(&server, &[]).text();
        let series =
            r#"backstop_job_failures_in_a_row{datastore="store1",id="broken",type="syncjob"}"#;
        assert_eq!(value(&text, series), Some(f64::from(run)), "{text}");
    }
    let text = scrape(&server, &[]).text();
    let shown =
        |series: &str| value(&text, series).unwrap_or_else(|| panic!("no {series}:\n{text}"));
    let labels = r#"{datastore="store1",id="broken",type="syncjob"}"#;
    assert_eq!(
        shown(&format!("backstop_job_last_run_success{labels}")),
        0.0
    );
    assert_eq!(shown(&format!("backstop_job_running{labels}")), 0.0);
    assert!(shown(&format!("backstop_job_next_run_timestamp_seconds{labels}")) > 7.0e9);
    let labels = r#"{datastore="store1",id="store1",type="garbage_collection"}"#;
    assert_eq!(
        shown(&format!("backstop_job_last_run_success{labels}")),
        1.0
    );
    assert_eq!(
        shown(&format!("backstop_job_failures_in_a_row{labels}")),
        0.0
    );
    assert_eq!(
        shown(r#"backstop_datastore_available{datastore="store1"}"#),
        1.0
    );
    assert!(shown(r#"backstop_datastore_chunks{datastore="store1"}"#) >= 1.0);
    assert!(shown(r#"backstop_datastore_deduplication_factor{datastore="store1"}"#) >= 1.0);
    assert_eq!(
        shown(r#"backstop_datastore_corrupt_chunks{datastore="store1"}"#),
        0.0
    );
    assert_eq!(
        shown(r#"backstop_tasks_ended_total{result="ok",type="backup"}"#),
        1.0
    );
    assert_eq!(
        shown(r#"backstop_tasks_ended_total{result="error",type="syncjob"}"#),
        2.0
    );
    assert_eq!(shown(r#"backstop_sessions{type="backup"}"#), 0.0);
    let expiry = shown(r#"backstop_certificate_expiry_timestamp_seconds{certificate="server"}"#);
    assert!(expiry > 1.7e9);
    assert!(shown("process_resident_memory_bytes") > 1.0e6);
    let counted = r#"backstop_http_request_duration_seconds_count{method="GET",status="2xx"}"#;
    assert!(shown(counted) >= 1.0);

    // groups and checks come with the list of checks, which is made anew on demand
    server.run("health", &["--refresh"]).unwrap();
    let text = scrape(&server, &[]).text();
    let labels = r#"{datastore="store1",group="host/h1",namespace=""}"#;
    let shown = |name: &str| value(&text, &format!("{name}{labels}"));
    assert!(
        shown("backstop_group_last_snapshot_timestamp_seconds").unwrap() > 1.7e9,
        "{text}"
    );
    assert!(
        shown("backstop_group_last_snapshot_bytes").unwrap() >= 70_000.0,
        "{text}"
    );
    assert_eq!(shown("backstop_group_damaged_snapshots"), Some(0.0));
    let failed = r#"backstop_health_loud{code="job-failed",object="job/sync/broken"}"#;
    assert_eq!(value(&text, failed), Some(2.0), "{text}");
    let well = r#"backstop_health_state{code="job-failed",object="job/gc/store1"}"#;
    assert_eq!(value(&text, well), Some(0.0), "{text}");

    // a datastore that is gone is said, and does not hold up the rest
    fs::rename(root.path().join("datastore"), root.path().join("elsewhere")).unwrap();
    let begin = Instant::now();
    let text = loop {
        let text = scrape(&server, &[]).text();
        if value(&text, r#"backstop_datastore_available{datastore="store1"}"#) == Some(0.0) {
            break text;
        }
        assert!(begin.elapsed() < Duration::from_secs(120), "{text}");
    };
    assert!(text.contains("backstop_build_info"));
}

#[test]
fn promtool_finds_no_fault_in_names_and_the_alert_rules_do_what_they_say() {
    let Some(promtool) = installed("promtool") else {
        return;
    };
    let root = testbed::scratch::directory().unwrap();
    let server = server(root.path());
    let text = scrape(&server, &[]).text();
    let mut check = Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let done = check.wait_with_output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    assert!(
        done.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );

    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/prometheus");
    let done = Command::new(&promtool)
        .args(["test", "rules", "backstop-rules.test.yml"])
        .current_dir(deploy)
        .output()
        .unwrap();
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn a_realm_that_was_synced_and_a_job_that_is_switched_off_are_shown_as_such() {
    let root = testbed::scratch::directory().unwrap();
    let server = server(root.path());
    let api = Api::connect(&server).unwrap();
    let job = ["prune-job", "create", "off", "--store", "store1"];
    let how = [
        "--schedule",
        "daily",
        "--keep-last",
        "1",
        "--disable",
        "true",
    ];
    server
        .ok("manager", &[&job[..], &how[..]].concat())
        .unwrap();
    // as an administrator who edits the file does: nothing listens there
    let realm = "ldap: dir\n\tbase-dn dc=example\n\tport 1\n\tserver1 127.0.0.1\n\tuser-attr uid\n";
    fs::write(root.path().join("etc/proxmox-backup/domains.cfg"), realm).unwrap();
    let labels = r#"{datastore="",id="dir",type="realm-sync"}"#;
    let text = scrape(&server, &[]).text();
    assert!(!text.contains(labels), "{text}");
    let off = r#"{datastore="store1",id="off",type="prunejob"}"#;
    let enabled = |text: &str, labels| value(text, &format!("backstop_job_enabled{labels}"));
    assert_eq!(enabled(&text, off), Some(0.0), "{text}");
    assert!(
        !text.contains(&format!("backstop_job_next_run_timestamp_seconds{off}")),
        "{text}"
    );

    let upid = api.post("access/domains/dir/sync", json!({})).unwrap();
    assert_ne!(api.end_of(&upid).unwrap(), "OK");
    let text = scrape(&server, &[]).text();
    let shown = |name: &str| value(&text, &format!("{name}{labels}"));
    assert_eq!(shown("backstop_job_last_run_success"), Some(0.0), "{text}");
    assert_eq!(shown("backstop_job_failures_in_a_row"), Some(1.0), "{text}");
    assert_eq!(enabled(&text, labels), Some(1.0), "{text}");
}

#[test]
fn alert_rules_judge_nothing_that_the_checks_of_health_judge() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let rules = fs::read_to_string(project.join("deploy/prometheus/backstop-rules.yml")).unwrap();
    let code = rules
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let text: String = code.map(|line| format!("{line}\n")).collect();
    let names = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let mut used: Vec<&str> = names.filter(|word| word.starts_with("backstop_")).collect();
    used.sort_unstable();
    used.dedup();
    assert_eq!(
        used,
        [
            "backstop_health_checked_timestamp_seconds",
            "backstop_health_loud",
            "backstop_http_request_duration_seconds_bucket",
        ]
    );
    // Nor do the triggers for Zabbix.
    let template = fs::read_to_string(project.join("deploy/zabbix/backstop.yaml")).unwrap();
    let triggers = template
        .lines()
        .filter(|line| line.contains("expression: "));
    let items: Vec<&str> = triggers
        .flat_map(|line| line.split("/Backstop/").skip(1))
        .map(|item| item.split(['[', ',', ')']).next().unwrap())
        .collect();
    let allowed = [
        "backstop.ping",
        "backstop.health.checked",
        "backstop.health.loud",
    ];
    assert!(allowed.iter().all(|item| items.contains(item)), "{items:?}");
    assert!(items.iter().all(|item| allowed.contains(item)), "{items:?}");
}

#[test]
fn every_metric_that_rules_and_board_use_is_one_that_the_server_shows_or_documents() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let documented = fs::read_to_string(project.join("docs/metrics.md")).unwrap();
    let used = [
        "deploy/prometheus/backstop-rules.yml",
        "deploy/grafana/backstop.json",
        "deploy/zabbix/backstop.yaml",
    ];
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for file in used {
        let text = fs::read_to_string(project.join(file)).unwrap();
        let names = text
            .split(|c| !is_part(c))
            .filter(|word| word.starts_with("backstop_"));
        for name in names {
            let family = name.trim_end_matches("_bucket").trim_end_matches("_count");
            assert!(
                documented.contains(&format!("`{family}`")),
                "{file}: {name}"
            );
        }
    }
    let root = testbed::scratch::directory().unwrap();
    let server = server(root.path());
    for line in scrape(&server, &[]).text().lines() {
        if let Some(name) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split(' ').next())
        {
            assert!(
                documented.contains(&format!("`{name}`")),
                "{name} is not in docs/metrics.md"
            );
        }
    }
}

#[test]
fn a_real_prometheus_scrapes_with_a_token_over_verified_tls_and_alerts_until_somebody_acknowledges()
{
    let Some(program) = installed("prometheus") else {
        return;
    };
    let root = testbed::scratch::directory().unwrap();
    let server = server(root.path());
    let api = Api::connect(&server).unwrap();
    server.create_failing_sync("broken").unwrap();
    let upid = api.post("admin/sync/broken/run", json!({})).unwrap();
    assert_ne!(api.end_of(&upid).unwrap(), "OK");
    server.ok("metrics", &["loopback", "off"]).unwrap();
    let token = token(&api, "metrics@pbs", "Audit", "/system/metrics");
    let credentials = token.strip_prefix("PBSAPIToken ").unwrap();
    let certificate: PathBuf = root.path().join("etc/proxmox-backup/proxy.pem");
    let rules = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy/prometheus/backstop-rules.yml")
        .canonicalize()
        .unwrap();
    let config = format!(
        "global:\n  evaluation_interval: 1s\nrule_files: ['{}']\n\
         scrape_configs:\n  - job_name: backstop\n    scheme: https\n    scrape_interval: 1s\n    authorization:\n      \
         type: PBSAPIToken\n      credentials: '{credentials}'\n    tls_config:\n      ca_file: {}\n      server_name: localhost\n    \
         static_configs:\n      - targets: ['{}']\n",
        rules.display(),
        certificate.display(),
        server.address,
    );
    let prometheus = Prometheus::start(&program, &config).unwrap();
    let result = prometheus
        .wait_for(r#"backstop_datastore_available{job="backstop"}"#)
        .unwrap();
    assert_eq!(result[0]["metric"]["datastore"], Value::from("store1"));
    assert_eq!(result[0]["value"][1], Value::from("1"));

    server.run("health", &["--refresh"]).unwrap();
    let alert = r#"ALERTS{alertname="BackstopCritical",alertstate="firing",code="job-failed",object="job/sync/broken"}"#;
    let firing = prometheus.wait_for(alert).unwrap();
    assert_eq!(firing[0]["metric"]["severity"], Value::from("critical"));
    server
        .ok("health", &["acknowledge", "job-failed", "job/sync/broken"])
        .unwrap();
    server.run("health", &["--refresh"]).unwrap();
    prometheus.wait_for(&format!("absent({alert})")).unwrap();
    // The check itself is as bad as before.
    let state = r#"backstop_health_state{code="job-failed",object="job/sync/broken"} == 2"#;
    prometheus.wait_for(state).unwrap();
}
