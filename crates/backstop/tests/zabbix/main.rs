//! Zabbix: the agent's configuration with the real agent, and the check that people run today.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::Command;

use testbed::program::installed;
use testbed::server::{ServerProcess, succeeded};

const BINARY: &str = env!("CARGO_BIN_EXE_backstop");

#[test]
fn the_agent_reads_the_metrics_and_the_time_of_an_answer() {
    let (Some(agent), Some(_)) = (installed("zabbix_agent2"), installed("curl")) else {
        return;
    };
    let root = testbed::scratch::directory().unwrap();
    let server = ServerProcess::with_datastore(Path::new(BINARY), root.path()).unwrap();
    let deployed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/zabbix/backstop.conf");
    let deployed = fs::read_to_string(deployed).unwrap();
    let here = deployed.replace("localhost:8007", &server.address.to_string());
    assert_ne!(here, deployed);
    // A machine that is at work may take its time.
    let here = here.replace("--max-time 2.5", "--max-time 25");
    let config = root.path().join("agent.conf");
    let log = root.path().join("agent.log");
    let text = format!(
        "Server=127.0.0.1\nHostname=b\nLogFile={}\nTimeout=30\n{here}",
        log.display()
    );
    fs::write(&config, text).unwrap();
    let value = |key: &str| {
        let output = Command::new(&agent)
            .arg("-c")
            .arg(&config)
            .args(["-t", key])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        let (_, value) = said.split_once("[s|").unwrap_or_else(|| panic!("{said}"));
        value.trim_end().trim_end_matches(']').to_owned()
    };
    let metrics = value("backstop.metrics");
    assert!(
        metrics.contains(r#"backstop_datastore_available{datastore="store1"} 1"#),
        "{metrics}"
    );
    let seconds: f64 = value("backstop.ping").parse().unwrap();
    assert!(seconds > 0.0);
    drop(server);
    assert_eq!(value("backstop.ping"), "-1");
}

#[test]
fn the_check_that_people_run_today_turns_one_after_a_failed_sync_and_zero_after_a_good_one() {
    let Some(python) = installed("python3") else {
        return;
    };
    let root = testbed::scratch::directory().unwrap();
    let server = ServerProcess::with_datastore(Path::new(BINARY), root.path()).unwrap();
    let links = root.path().join("bin");
    let words = ["install-links", links.to_str().unwrap()];
    succeeded(&Command::new(BINARY).args(words).output().unwrap()).unwrap();
    let check = || {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zabbix/last_sync.py");
        let mut command = Command::new(&python);
        server.environment(&mut command, "store1");
        let path = std::env::join_paths(
            [links.clone()]
                .into_iter()
                .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
        );
        let output = command
            .arg(script)
            .env("PATH", path.unwrap())
            .output()
            .unwrap();
        succeeded(&output).unwrap().trim().to_owned()
    };
    assert_eq!(check(), "2");
    let manager = |words: &[&str]| server.ok("manager", words).unwrap();
    let second = root.path().join("datastore/second");
    manager(&["datastore", "create", "second", second.to_str().unwrap()]);
    manager(&[
        "sync-job",
        "create",
        "copy",
        "--store",
        "second",
        "--remote-store",
        "store1",
    ]);
    manager(&["sync-job", "run", "copy"]);
    assert_eq!(check(), "0");
    server.create_failing_sync("broken").unwrap();
    let failed = server
        .run("manager", &["sync-job", "run", "broken"])
        .unwrap();
    assert!(!failed.status.success());
    assert_eq!(check(), "1");
    manager(&["sync-job", "run", "copy"]);
    assert_eq!(check(), "0");
}
