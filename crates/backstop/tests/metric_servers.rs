//! Metric servers: what the real program sends to an InfluxDB by HTTP and by UDP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use testbed::api::Api;
use testbed::push_receiver::PushReceiver;
use testbed::server::ServerProcess;

/// Longer than from one sample to the next, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn start(root: &Path) -> (ServerProcess, Api) {
    let binary = Path::new(env!("CARGO_BIN_EXE_backstop"));
    let server = ServerProcess::with_datastore(binary, root).unwrap();
    let api = Api::connect(&server).unwrap();
    (server, api)
}

/// Whether these lines hold a measurement with a tag.
fn has(lines: &str, measurement: &str, tag: &str) -> bool {
    let mut lines = lines.lines();
    lines.any(|line| {
        line.starts_with(&format!("{measurement},object=host,host=")) && line.contains(tag)
    })
}

#[test]
fn measurements_arrive_by_http_with_the_token_and_by_udp_within_the_size_of_a_packet() {
    let root = testbed::scratch::directory().unwrap();
    let (_server, api) = start(root.path());
    let receiver = PushReceiver::start(|_| (204, String::new())).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let host = socket.local_addr().unwrap().to_string();
    api.post(
        "config/metrics/influxdb-udp",
        json!({"name": "udp1", "host": host, "mtu": 600}),
    )
    .unwrap();
    let http = json!({
        "name": "http1", "url": receiver.url("/"), "token": "very-secret-token", "organization": "my org", "bucket": "b/1",
    });
    api.post("config/metrics/influxdb-http", http).unwrap();
    let came = receiver.wait_for(2);
    assert_eq!(
        (came[0].method.as_str(), came[0].target.as_str()),
        ("GET", "/health")
    );
    let sample = &came[1];
    assert_eq!(sample.method, "POST");
    assert_eq!(sample.target, "/api/v2/write?org=my%20org&bucket=b%2F1");
    assert_eq!(sample.headers["authorization"], "Token very-secret-token");
    let body = sample.text();
    assert!(
        has(&body, "cpustat", " user=") && has(&body, "memory", "memtotal="),
        "{body}"
    );
    assert!(
        has(&body, "nics", ",instance=lo ") && has(&body, "blockstat", " total="),
        "{body}"
    );
    // The first samples may have been taken before the datastore was there.
    let (mut count, mut body) = (2, body);
    while !has(&body, "blockstat", ",datastore=store1 ") {
        count += 1;
        body = receiver.wait_for(count)[count - 1].text();
    }

    let mut packet = [0; 65536];
    let mut lines = String::new();
    while !has(&lines, "blockstat", ",datastore=store1 ") {
        let size = socket.recv(&mut packet).unwrap();
        let text = std::str::from_utf8(&packet[..size]).unwrap();
        assert!(size <= 550 || text.lines().count() == 1, "{size}");
        assert!(text.ends_with('\n'));
        lines.push_str(text);
    }

    let all = api.get("admin/metrics").unwrap();
    let kinds: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|server| server["type"].clone())
        .collect();
    assert_eq!(kinds, ["influxdb-udp", "influxdb-http"]);
    assert!(!all.to_string().contains("secret"), "{all}");
}

#[test]
fn a_server_that_cannot_be_reached_is_refused_unless_it_is_switched_off_and_a_refusal_is_said_once()
{
    let root = testbed::scratch::directory().unwrap();
    let (server, api) = start(root.path());
    let dead = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let all = "config/metrics/influxdb-http";
    let refused = api
        .post(all, json!({"name": "dead", "url": dead}))
        .unwrap_err();
    assert!(
        format!("{refused:#}").contains("unable to reach the metric server"),
        "{refused:#}"
    );
    api.post(all, json!({"name": "dead", "url": dead, "enable": false}))
        .unwrap();
    let one = format!("{all}/dead");
    assert_eq!(api.get(&one).unwrap()["enable"], false);
    assert!(api.put(&one, json!({"enable": true})).is_err());
    assert_eq!(api.get(&one).unwrap()["enable"], false);
    api.put(&one, json!({"comment": "later"})).unwrap();

    // Its token is wrong.
    let receiver = PushReceiver::start(|_| (401, String::new())).unwrap();
    let url = receiver.url("");
    assert!(
        api.post(all, json!({"name": "strict", "url": url}))
            .is_err()
    );
    api.post(all, json!({"name": "strict", "url": url, "enable": false}))
        .unwrap();
    // as an administrator who edits the file does
    let file = root.path().join("etc/proxmox-backup/metricserver.cfg");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, strict) = text.split_once("influxdb-http: strict").unwrap();
    let strict = strict.replace("\tenable false\n", "");
    std::fs::write(&file, format!("{before}influxdb-http: strict{strict}")).unwrap();
    let _ = receiver.wait_for(4);
    let said = server.wait_for_log(
        &["a metric server does not take the metrics", "strict", "401"],
        1,
    );
    assert_eq!(said.unwrap(), 1);
    api.delete(&format!("{all}/strict"), json!({})).unwrap();
    assert!(api.get(&format!("{all}/strict")).is_err());
}
