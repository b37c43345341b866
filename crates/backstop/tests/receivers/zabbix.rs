//! Zabbix, by our template and the configuration of its agent.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use testbed::program;
use testbed::server::ServerProcess;
use testbed::service::Service;
use testbed::zabbix::{Zabbix, installed};

use crate::{BINARY, collect, copying, server};

const DEPLOYED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/zabbix");

/// An agent with our configuration.
fn agent(program: &Path, folder: &Path, server: &ServerProcess) -> Service {
    let deployed = std::fs::read_to_string(format!("{DEPLOYED}/backstop.conf")).unwrap();
    let deployed = deployed.replace("localhost:8007", &server.address.to_string());
    let config = folder.join("agent.conf");
    let started = Service::start("Press Ctrl+C", |port| {
        let text = format!(
            "Server=127.0.0.1\nListenIP=127.0.0.1\nListenPort={port}\nHostname=backstop\nLogType=console\nTimeout=30\n\
             ControlSocket={0}/agent.control\nPidFile={0}/agent.pid\n{deployed}",
            folder.display()
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new(program);
        command.arg("-f").arg("-c").arg(&config);
        Ok(command)
    });
    started.unwrap().ended_by(Signal::TERM)
}

#[test]
fn zabbix_imports_the_template_finds_everything_and_knows_what_fails_until_it_is_over() {
    let (Some(postgresql), Some(program)) = (installed(), program::installed("zabbix_agent2"))
    else {
        return;
    };
    let zabbix = Zabbix::start(&postgresql).unwrap();
    let root = testbed::scratch::directory().unwrap();
    let (mut server, api) = server(root.path());
    let address = server.address;
    let template = std::fs::read_to_string(format!("{DEPLOYED}/backstop.yaml")).unwrap();
    // Twice, as after an update of ours.
    zabbix.import(&template).unwrap();
    zabbix.import(&template).unwrap();
    let agent = agent(&program, root.path(), &server);
    let copy = copying(&server, root.path());
    copy(true);
    for store in ["store1", "second"] {
        // It counts corrupt chunks.
        collect(&api, store);
    }
    server.run("health", &["--refresh"]).unwrap();
    // Nobody is to be told but Zabbix.
    let nobody = ["notification-nobody", "notifications/errors"];
    let known = [&["acknowledge"][..], &nobody].concat();
    server.ok("health", &known).unwrap();
    // The shortest time that Zabbix takes for no data.
    let soon = [("{$BACKSTOP.SILENCE}", "30s")];
    let host = zabbix.watch("Backstop", agent.port, &soon).unwrap();
    let keys = ["backstop.metrics", "backstop.ping"];

    let expected = [
        ("backstop.datastore.available[store1]", "1"),
        ("backstop.datastore.available[second]", "1"),
        ("backstop.datastore.corrupt[store1]", "0"),
        ("backstop.job.failures[syncjob,copy]", "0"),
        ("backstop.job.running[garbage_collection,store1]", "0"),
    ];
    let items = zabbix
        .wait_for(&host, &keys, |zabbix| {
            let items = zabbix.items(&host)?;
            let is_read = |wanted: &str| {
                let mut items = items.iter();
                items.any(|item| item["key_"] == wanted && item["lastclock"] != "0")
            };
            let is_whole = expected.iter().all(|(key, _)| is_read(key));
            Ok(is_whole.then_some(items))
        })
        .unwrap();
    let value = |key: &str| {
        let item = items.iter().find(|item| item["key_"] == key);
        item.unwrap()["lastvalue"].clone()
    };
    for (key, expected) in expected {
        assert_eq!(value(key), expected, "{key}");
    }
    let number = |key: &str| value(key).as_str().unwrap().parse::<f64>().unwrap();
    assert!(number("backstop.datastore.size[store1]") > 1e6);
    assert!(number("backstop.certificate") > 1.7e9);
    assert!(number("backstop.health.checked") > 1.7e9);
    assert!(number("backstop.ping") > 0.0);
    let faults: Vec<_> = items.iter().filter(|item| item["state"] != "0").collect();
    assert!(faults.is_empty(), "{faults:?}");
    // Triggers are evaluated a moment after the values.
    zabbix
        .wait_for(&host, &[], |zabbix| {
            let triggers = zabbix.triggers(&host)?;
            let can_be_told = |trigger: &Value| trigger["state"] == "0";
            Ok(triggers.iter().all(can_be_told).then_some(()))
        })
        .unwrap();
    assert_eq!(zabbix.problems(&host).unwrap(), [""; 0]);

    let wait_until = |names: &[&str]| {
        let are_they = |zabbix: &Zabbix| {
            let mut problems = zabbix.problems(&host)?;
            // What makes the sync fail is told as well, when health happens to look at the remote.
            problems.retain(|problem| !problem.starts_with("remote-"));
            problems.sort();
            Ok((problems == names).then_some(()))
        };
        zabbix
            .wait_for(&host, &keys, are_they)
            .unwrap_or_else(|error| panic!("{names:?}: {error:#}"));
    };
    let failed = "job-failed: job/sync/copy";
    copy(false);
    server.run("health", &["--refresh"]).unwrap();
    wait_until(&[failed]);
    copy(true);
    server.run("health", &["--refresh"]).unwrap();
    wait_until(&[]);
    copy(false);
    server.run("health", &["--refresh"]).unwrap();
    wait_until(&[failed]);
    // Silence ends nothing.
    drop(copy);
    server.kill().unwrap();
    wait_until(&["Backstop does not answer", failed]);
    let server = ServerProcess::start(Path::new(BINARY), root.path(), address).unwrap();
    server.run("health", &["--refresh"]).unwrap();
    wait_until(&[failed]);
    // A job that is removed has not failed.
    let remove = ["sync-job", "remove", "copy"];
    server.ok("manager", &remove).unwrap();
    server.run("health", &["--refresh"]).unwrap();
    wait_until(&[]);
}
