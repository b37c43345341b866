//! InfluxDB, by UDP.

use std::process::Command;

use serde_json::{Value, json};
use testbed::program::installed;
use testbed::service::{Service, encoded};

use crate::server;

#[test]
fn influxdb_takes_each_packet_and_can_be_asked_for_every_measurement() {
    let Some(program) = installed("influxd") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let influxdb = Service::start("Listening for signals", |port| {
        let config = format!(
            "reporting-disabled = true\nbind-address = '127.0.0.1:0'\n[meta]\ndir = 'meta'\n\
             [data]\ndir = 'data'\nwal-dir = 'wal'\n[http]\nbind-address = '127.0.0.1:{port}'\n\
             [[udp]]\nenabled = true\nbind-address = '127.0.0.1:{port}'\ndatabase = 'pbs'\nbatch-size = 1\n"
        );
        std::fs::write(folder.path().join("influxdb.conf"), config)?;
        let mut command = Command::new(&program);
        command
            .args(["-config", "influxdb.conf"])
            .current_dir(folder.path());
        Ok(command)
    })
    .unwrap();
    let root = testbed::scratch::directory().unwrap();
    let (_server, api) = server(root.path());
    let host = format!("127.0.0.1:{}", influxdb.port);
    // So that lines go out in several packets.
    let settings = json!({"name": "udp1", "host": host, "mtu": 600});
    api.post("config/metrics/influxdb-udp", settings).unwrap();

    let rows = |answer: &Value| {
        answer["results"][0]["series"][0]["values"]
            .as_array()
            .cloned()
    };
    let ask = |query: &str| {
        let path = format!("/query?db=pbs&epoch=s&q={}", encoded(query));
        influxdb.wait_for(&path, rows).unwrap()
    };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    for query in [
        "SELECT avg1, iowait FROM cpustat WHERE object = 'host' LIMIT 1",
        "SELECT memtotal, memused FROM memory WHERE object = 'host' LIMIT 1",
        "SELECT receive, send FROM nics WHERE instance = 'lo' LIMIT 1",
        "SELECT total, used FROM blockstat WHERE datastore = 'store1' LIMIT 1",
    ] {
        let row = &ask(query)[0];
        let time = row[0].as_f64().unwrap();
        assert!((time - now).abs() < 600.0, "{query}: {row} at {now}");
        assert!(row[1].is_number() && row[2].is_number(), "{query}: {row}");
    }
    let path = format!("/query?q={}", encoded("SHOW STATS FOR 'udp'"));
    let columns = influxdb
        .wait_for(&path, |answer| {
            let series = &answer["results"][0]["series"][0];
            let names = series["columns"].as_array()?.iter();
            let values = series["values"][0].as_array()?.iter();
            Some(names.cloned().zip(values.cloned()).collect::<Vec<_>>())
        })
        .unwrap();
    let count = |name: &str| {
        let (_, count) = columns.iter().find(|column| column.0 == name).unwrap();
        count.as_u64().unwrap()
    };
    assert_eq!((count("pointsParseFail"), count("readFail")), (0, 0));
    assert!(count("pointsRx") >= 4, "{columns:?}");
}
