//! Prometheus Alertmanager: by our web hook, and by the rules that a real Prometheus evaluates on our metrics.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::program::installed;
use testbed::prometheus::Prometheus;
use testbed::push_receiver::PushReceiver;
use testbed::service::Service;

use crate::{copying, server};

/// How long it may take until an alert has gone from us to Prometheus, to Alertmanager and to the receiver, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks at what the receiver was told.
const PAUSE: Duration = Duration::from_millis(50);

/// A running Alertmanager that tells a receiver of each alert, when it fires and when it is resolved.
struct Alertmanager {
    service: Service,
    told: PushReceiver,
    _folder: tempfile::TempDir,
}

impl Alertmanager {
    fn start(program: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let told = PushReceiver::start(|_| (200, String::new())).unwrap();
        let config = format!(
            "route: {{receiver: test, group_by: ['...'], group_wait: 0s, group_interval: 1s}}\n\
             receivers: [{{name: test, webhook_configs: [{{url: '{}', send_resolved: true}}]}}]\n",
            told.url("/told")
        );
        std::fs::write(folder.path().join("alertmanager.yml"), config).unwrap();
        let service = Service::start("Listening on", |port| {
            let mut command = Command::new(program);
            command
                .arg("--config.file=alertmanager.yml")
                .arg("--storage.path=data")
                .arg("--cluster.listen-address=")
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .current_dir(folder.path());
            Ok(command)
        });
        Self {
            service: service.unwrap(),
            told,
            _folder: folder,
        }
    }

    /// Waits until the receiver has been told `status` of the alert whose label has this value, and returns it.
    fn wait_until_told(&self, status: &str, label: &str, value: &str) -> Value {
        let is_it = |alert: &Value| alert["status"] == status && alert["labels"][label] == value;
        let begin = Instant::now();
        loop {
            let told = self.told.received();
            let told = told
                .iter()
                .map(|told| serde_json::from_str::<Value>(&told.text()).unwrap());
            let told: Vec<_> = told
                .flat_map(|told| told["alerts"].as_array().cloned().unwrap())
                .collect();
            if let Some(alert) = told.iter().find(|alert| is_it(alert)) {
                return alert.clone();
            }
            assert!(begin.elapsed() < PATIENCE, "{status} {value}: {told:?}");
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until an alert is among those that are active (or is not), and returns it.
    fn wait_for(&self, label: &str, value: &str, is_active: bool) -> Option<Value> {
        let found = |alerts: &Value| {
            let mut alerts = alerts.as_array()?.iter();
            let alert = alerts.find(|alert| alert["labels"][label] == value);
            (alert.is_some() == is_active).then(|| alert.cloned())
        };
        self.service.wait_for("/api/v2/alerts", found).unwrap()
    }
}

#[test]
fn alertmanager_shows_a_failure_that_the_recipe_fires_until_it_is_over() {
    let Some(program) = installed("prometheus-alertmanager") else {
        return;
    };
    let alertmanager = Alertmanager::start(&program);
    let root = testbed::scratch::directory().unwrap();
    let (server, _) = server(root.path());
    let url = format!("url={}", alertmanager.service.url());
    let recipe = ["recipe", "create", "alertmanager", "--name", "alerts"];
    let settings = ["--set", &url, "--matcher", "true"];
    server
        .ok("notification", &[&recipe[..], &settings].concat())
        .unwrap();
    let copy = copying(&server, root.path());
    copy(false);
    let alert = alertmanager.wait_for("job_id", "copy", true).unwrap();
    let labels = &alert["labels"];
    assert_eq!(labels["alertname"], "Backstop sync");
    assert_eq!(labels["datastore"], "second");
    // What an event does not have is no label.
    assert!(labels.get("check").is_none(), "{labels}");
    let annotations = &alert["annotations"];
    assert_eq!(annotations["severity"], "error");
    let title = "Sync remote 'self' datastore 'second' failed";
    assert_eq!(annotations["summary"], title);
    let text = annotations["description"].as_str().unwrap();
    assert!(text.contains("127.0.0.1"), "{text}");
    let fired = alertmanager.wait_until_told("firing", "job_id", "copy");
    copy(true);
    let resolved = alertmanager.wait_until_told("resolved", "job_id", "copy");
    assert_eq!(fired["fingerprint"], resolved["fingerprint"]);
    assert_eq!(fired["startsAt"], resolved["startsAt"]);
    alertmanager.wait_for("job_id", "copy", false);
}

#[test]
fn prometheus_with_our_rules_fires_a_failed_sync_at_alertmanager_and_resolves_it() {
    let (Some(program), Some(prometheus)) = (
        installed("prometheus-alertmanager"),
        installed("prometheus"),
    ) else {
        return;
    };
    let alertmanager = Alertmanager::start(&program);
    let root = testbed::scratch::directory().unwrap();
    let (server, _) = server(root.path());
    let rules = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/prometheus/backstop-rules.yml"
    );
    let certificate = root.path().join("etc/proxmox-backup/proxy.pem");
    // A scrape has as long as it takes until the next one.
    let config = format!(
        "global: {{scrape_interval: 10s, scrape_timeout: 10s, evaluation_interval: 1s}}\n\
         rule_files: ['{rules}']\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{}']}}]}}]}}\n\
         scrape_configs:\n  - job_name: backstop\n    scheme: https\n    \
         tls_config: {{ca_file: '{}', server_name: localhost}}\n    \
         static_configs: [{{targets: ['{}']}}]\n",
        alertmanager.service.port,
        certificate.display(),
        server.address,
    );
    let prometheus = Prometheus::start(&prometheus, &config).unwrap();
    let copying = copying(&server, root.path());
    let copy = |is_well: bool| {
        copying(is_well);
        // The rules pass on what the checks say, which are made once a minute.
        server.run("health", &["--refresh"]).unwrap();
    };
    copy(true);
    let well = r#"backstop_health_state{object="job/sync/copy"} == 0"#;
    prometheus.wait_for(well).unwrap();
    copy(false);
    let fired = alertmanager.wait_until_told("firing", "object", "job/sync/copy");
    assert_eq!(fired["labels"]["alertname"], "BackstopCritical");
    let summary = "job-failed: job/sync/copy";
    assert_eq!(fired["annotations"]["summary"], summary);
    copy(true);
    let resolved = alertmanager.wait_until_told("resolved", "object", "job/sync/copy");
    assert_eq!(fired["fingerprint"], resolved["fingerprint"]);
}
