//! Secrets of the configuration: each file that holds any gets some, and no call that only reads tells one to anybody, save what
//! a stock server tells as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;

use crate::setting::{Login, Setting};
use crate::table::Row;
use crate::{ANYTHING, Call, encoded, pairs, served};

/// What is written into files of the configuration; those that are not there yet are made.
const PLANTED: &[(&str, &str)] = &[
    (
        "metricserver.cfg",
        "influxdb-http: influx1\n\ttoken planted-influx\n\turl http://127.0.0.1:9\n\tenable false\n\n\
         influxdb-udp: udp1\n\thost 127.0.0.1:9\n\tenable false\n",
    ),
    (
        "domains.cfg",
        "\nopenid: sso1\n\tclient-id backup\n\tclient-key planted-openid\n\tissuer-url https://127.0.0.1:9\n\n\
         ldap: ldap1\n\tbase-dn dc=example\n\tbind-dn cn=reader,dc=example\n\tserver1 127.0.0.1\n\tuser-attr uid\n\n\
         ad: ad1\n\tbase-dn dc=example\n\tserver1 127.0.0.1\n",
    ),
    (
        "ldap_passwords.json",
        r#"{"ldap1":"cGxhbnRlZC1kaXJlY3Rvcnk=","ad1":"cGxhbnRlZC1kaXJlY3Rvcnk="}"#,
    ),
    (
        "remote.cfg",
        "\nremote: planted\n\tauth-id sync@pbs\n\thost 127.0.0.1\n\tpassword cGxhbnRlZC1yZW1vdGU=\n",
    ),
    (
        "notifications-priv.cfg",
        "\ngotify: got2\n\ttoken planted-gotify\n\nsmtp: smtp2\n\tpassword planted-mail\n\n\
         webhook: hook2\n\tsecret name=path,value=cGxhbnRlZC1ob29r\n",
    ),
    (
        "notifications.cfg",
        "\ngotify: got2\n\tserver http://127.0.0.1:9\n\n\
         smtp: smtp2\n\tfrom-address pbs@example.com\n\tmailto admin@example.com\n\tserver 127.0.0.1\n\tusername u\n\n\
         webhook: hook2\n\tmethod post\n\turl http://127.0.0.1:9/{{ secrets.path }}\n",
    ),
    (
        "s3.cfg",
        "\ns3-endpoint: s3two\n\taccess-key AKIA\n\tendpoint 127.0.0.1\n\tsecret-key planted-bucket\n",
    ),
    (
        "backstop-heartbeats.json",
        r#"{"kuma1":{"receiver":"uptime-kuma","url":"https://127.0.0.1:9/api/push/planted-heartbeat"}}"#,
    ),
    (
        "node.cfg",
        "http-proxy: http://proxy:planted-proxy@127.0.0.1:9\n",
    ),
];

/// Parameters that the table of rules does not have.
const VALUES: &[(&str, &str, &str)] = &[
    ("/config/remote/{name}", "name", "planted"),
    ("/config/metrics/influxdb-http/{name}", "name", "influx1"),
    ("/config/metrics/influxdb-udp/{name}", "name", "udp1"),
    ("/config/access/openid/{realm}", "realm", "sso1"),
    ("/config/access/ldap/{realm}", "realm", "ldap1"),
    ("/config/access/ad/{realm}", "realm", "ad1"),
    (
        "/config/notifications/endpoints/gotify/{name}",
        "name",
        "got2",
    ),
    (
        "/config/notifications/endpoints/smtp/{name}",
        "name",
        "smtp2",
    ),
    (
        "/config/notifications/endpoints/webhook/{name}",
        "name",
        "hook2",
    ),
    (
        "/config/notifications/endpoints/sendmail/{name}",
        "name",
        "mail1",
    ),
    ("/config/notifications/matchers/{name}", "name", "match1"),
    ("/config/datastore/{name}", "name", "store1"),
    ("/backstop/heartbeats/{name}", "name", "kuma1"),
    ("/access/tfa/{userid}/{id}", "id", "one"),
    ("/backstop/prune-simulator", "schedule", "daily"),
];

/// What a stock server tells as well: the call, the secret, and to whom.
const TOLD_BY_STOCK: &[(&str, &str, &str)] = &[
    ("/config/access/openid", "planted-openid", "admin@pbs"),
    (
        "/config/access/openid/{realm}",
        "planted-openid",
        "auditor@pbs",
    ),
    (
        "/config/access/openid/{realm}",
        "planted-openid",
        "admin@pbs",
    ),
    ("/nodes/{node}/config", "planted-proxy", "auditor@pbs"),
    ("/nodes/{node}/config", "planted-proxy", "admin@pbs"),
];

/// Calls that are not tried: they ask another server, which is not there.
const ASK_OTHERS: &str = "/config/remote/{name}/scan";

/// All secrets, each with the forms in which it could be told.
fn secrets(etc: &Path) -> BTreeMap<String, Vec<String>> {
    let read = |name: &str| fs::read_to_string(etc.join(name)).unwrap();
    let mut secrets: BTreeSet<String> = [
        "planted-influx",
        "planted-openid",
        "planted-directory",
        "planted-remote",
        "planted-gotify",
        "planted-mail",
        "planted-hook",
        "planted-bucket",
        "planted-heartbeat",
        "planted-proxy",
        "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
    ]
    .map(str::to_owned)
    .into();
    for file in ["shadow.json", "token.shadow"] {
        let hashes: BTreeMap<String, String> = serde_json::from_str(&read(file)).unwrap();
        assert!(!hashes.is_empty(), "{file}");
        secrets.extend(hashes.into_values());
    }
    for file in ["authkey.key", "proxy.key", "csrf.key"] {
        let text = read(file);
        let line = text.lines().find(|line| !line.starts_with('-'));
        secrets.insert(line.unwrap().to_owned());
    }
    let key: serde_json::Value =
        serde_json::from_str(&read("encryption-keys/synckey1.enc")).unwrap();
    secrets.insert(key["data"].as_str().unwrap().to_owned());
    let forms = |secret: String| {
        let encoded = STANDARD.encode(&secret);
        (secret.clone(), vec![secret, encoded])
    };
    secrets.into_iter().map(forms).collect()
}

#[tokio::test(start_paused = true)]
async fn no_call_that_reads_tells_a_secret_of_the_configuration_unless_stock_servers_do() {
    let users = "user: root@pam\n\nuser: auditor@pbs\n\nuser: admin@pbs\n\nuser: victim@pbs\n\ntoken: victim@pbs!one\n";
    let mut setting = Setting::start(users, &["victim@pbs!one".to_owned()]).await;
    setting.set_rules("acl:1:/:auditor@pbs:Audit\nacl:1:/:admin@pbs:Admin\n");
    let etc = setting.path("etc/proxmox-backup");
    for (name, more) in PLANTED {
        let old = fs::read_to_string(etc.join(name)).unwrap_or_default();
        fs::write(etc.join(name), format!("{old}{more}")).unwrap();
    }
    let secrets = secrets(&etc);
    let tree = served();
    let mut told = BTreeSet::new();
    let mut unanswered = Vec::new();
    let mut count = 0;
    for (row, endpoint) in pairs(&tree) {
        let skip = row.method != "GET" || row.upgrade.is_some() || row.path.starts_with(ASK_OTHERS);
        if skip || ["/backup", "/reader"].contains(&endpoint.path) {
            continue;
        }
        let mut values = row.values.clone();
        let own = VALUES.iter().filter(|(path, ..)| *path == endpoint.path);
        values.extend(own.map(|(_, name, value)| ((*name).to_owned(), (*value).to_owned())));
        let row = Row { values, ..row };
        let call = Call {
            row: &row,
            endpoint,
            userid: None,
        };
        let needed = endpoint.params.iter().filter(|param| {
            let in_path = endpoint.path.contains(&format!("{{{}}}", param.name));
            !param.optional && !in_path
        });
        let query = needed.map(|param| {
            let value = call.value(param.name);
            let value = value.unwrap_or_else(|| ANYTHING.to_owned());
            format!("{}={}", param.name, encoded(&value))
        });
        let query: Vec<String> = query.collect();
        let target = format!("{}?{}", call.path(), query.join("&"));
        for caller in ["auditor@pbs", "admin@pbs", "root@pam"] {
            let login = Login::User(caller.to_owned());
            let answer = setting.send("GET", &target, &login, None).await;
            let rooms = ["/config/", "/access/", "/backstop/", "/admin/metrics"];
            let must = rooms.iter().any(|room| endpoint.path.starts_with(room));
            if caller == "root@pam" && must && answer.status != StatusCode::OK {
                unanswered.push(format!("{target}: {} {}", answer.status, answer.text));
            }
            count += usize::from(answer.status == StatusCode::OK);
            for (secret, forms) in &secrets {
                let is_told = forms.iter().any(|form| answer.text.contains(form.as_str()));
                if is_told && caller != "root@pam" {
                    told.insert((endpoint.path, secret.as_str(), caller));
                }
            }
        }
    }
    assert!(
        unanswered.is_empty(),
        "these say nothing, so that nothing was seen; they need a line in VALUES:\n{}",
        unanswered.join("\n")
    );
    assert_eq!(told, TOLD_BY_STOCK.iter().copied().collect());
    assert!(count > 100, "{count}");
}
