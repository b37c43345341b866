//! `remote check`: does a remote work, and if not, which part of it and what to do.
//!
//! It only looks; nothing is changed here or there.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backstop_client::connection::pins::PinChange;
use backstop_client::{ClientError, HttpClient};
use backstop_server::config::remote::{self, RemoteAccount};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::configuration;
use super::remote::NAME;
use crate::client_commands::server::block_on;
use crate::command::{self, Arguments, Command};
use crate::output::{self, Format, OUTPUT_FORMAT};

/// How long the other server may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Seconds by which clocks may differ without a word.
const CLOCK_DIFFERENCE: i64 = 10;
/// Seconds by which a clock may be ahead before its tickets are refused.
const TICKET_TOLERANCE: i64 = 300;
/// What makes a datastore usable for a sync job, in one direction or the other.
const USEFUL: [&str; 3] = ["Datastore.Read", "Datastore.Backup", "Datastore.Audit"];

/// The command.
pub fn command() -> Command {
    Command::new(
        "Check name, port, certificate, login, permissions and clock of a remote, and say what to do.",
        check,
    )
    .argument(NAME)
    .option(OUTPUT_FORMAT)
}

/// What became of one check.
struct Finding {
    check: &'static str,
    result: Result<String, String>,
}

fn check(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = arguments.required("name")?;
    let mut account = remote::account(&Arc::new(configuration()), name)?;
    let changes = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&changes);
    account.pins.tell(move |change: &PinChange| {
        if let Ok(mut noted) = noted.lock() {
            noted.push(change.to_string());
        }
    });
    let findings = findings(&account, &changes)?;
    let format = Format::of(arguments)?;
    let list: Vec<Value> = findings.iter().map(Finding::to_json).collect();
    match format.json(&Value::Array(list)) {
        Some(text) => output::out(&text),
        None => findings.iter().for_each(|finding| {
            let (state, text) = match &finding.result {
                Ok(text) => ("ok", text),
                Err(text) => ("FAILED", text),
            };
            output::out(&format!("{:<12} {state:<7} {text}\n", finding.check));
        }),
    }
    Ok(
        match findings.iter().all(|finding| finding.result.is_ok()) {
            true => ExitCode::SUCCESS,
            false => command::failure(),
        },
    )
}

impl Finding {
    fn to_json(&self) -> Value {
        let (state, text) = match &self.result {
            Ok(text) => ("ok", text),
            Err(text) => ("failed", text),
        };
        json!({"check": self.check, "state": state, "text": text})
    }
}

/// Goes as far as it gets: what needs something that failed is not tried.
fn findings(account: &RemoteAccount, changes: &Mutex<Vec<String>>) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut add = |check, result: Result<String, String>| {
        let is_ok = result.is_ok();
        findings.push(Finding { check, result });
        is_ok
    };
    if account.proxy.is_none() && !(add("name", resolve(account)) && add("port", reach(account))) {
        return Ok(findings);
    }
    let connected = block_on(async { Ok(HttpClient::connect(account.client_options()).await) })?;
    let client = match connected {
        Ok(client) => client,
        Err(error) => {
            let (check, remedy) = explain(account, &error);
            if check == "login" {
                add("certificate", Ok(trusted(account, changes)));
            }
            add(check, Err(format!("{error}{remedy}")));
            return Ok(findings);
        }
    };
    add("certificate", Ok(trusted(account, changes)));
    block_on(async {
        add("login", log_in(account, &client).await);
        add("permissions", permissions(account, &client).await);
        add("clock", clock(&client).await);
        Ok(())
    })?;
    Ok(findings)
}

fn resolve(account: &RemoteAccount) -> Result<String, String> {
    let host = account.host.trim_start_matches('[').trim_end_matches(']');
    let found = (host, account.port).to_socket_addrs();
    let found = found.map_err(|error| {
        format!("'{host}' has no address - {error}; check the name and this host's DNS settings")
    })?;
    let addresses: Vec<String> = found.map(|address| address.ip().to_string()).collect();
    Ok(format!("{host} is {}", addresses.join(", ")))
}

fn reach(account: &RemoteAccount) -> Result<String, String> {
    let host = account.host.trim_start_matches('[').trim_end_matches(']');
    let (port, mut trouble) = (account.port, "no address".to_owned());
    for address in (host, port).to_socket_addrs().into_iter().flatten() {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_) => return Ok(format!("{address} accepts connections")),
            Err(error) => trouble = format!("{address}: {error}"),
        }
    }
    Err(format!(
        "nothing answers - {trouble}; is the server running, and does a firewall let port {port} through?"
    ))
}

/// Which check a failed connection belongs to, and what to do.
fn explain(account: &RemoteAccount, error: &ClientError) -> (&'static str, String) {
    let name = &account.name;
    match error {
        // It says itself what to do.
        ClientError::Untrusted(_) => ("certificate", String::new()),
        ClientError::Connect { .. } | ClientError::Proxy { .. } => ("port", String::new()),
        ClientError::Tls { .. } => (
            "certificate",
            format!(
                "; is it a backup server that listens on port {}?",
                account.port
            ),
        ),
        _ => (
            "login",
            format!(
                "; check that '{}' exists there, is enabled and has not expired, and set its password or secret with \
                 'proxmox-backup-manager remote update {name} --password …'",
                account.auth_id
            ),
        ),
    }
}

fn trusted(account: &RemoteAccount, changes: &Mutex<Vec<String>>) -> String {
    let changes = changes
        .lock()
        .map(|changes| changes.join("; "))
        .unwrap_or_default();
    let name = &account.tls_server_name;
    match (&account.fingerprint, name) {
        _ if !changes.is_empty() => changes,
        (Some(fingerprint), _) => {
            format!("an authority vouches for it, or it is the expected one: {fingerprint}")
        }
        (None, Some(name)) => {
            format!("an authority of this system vouches for it under the name '{name}'")
        }
        (None, None) => "an authority of this system vouches for it".to_owned(),
    }
}

async fn log_in(account: &RemoteAccount, client: &HttpClient) -> Result<String, String> {
    // A token proves itself with its first request only.
    let version = client.version().await.map_err(|error| {
        let (_, remedy) = explain(account, &error);
        format!("{error}{remedy}")
    })?;
    let part = |key: &str| version[key].as_str().unwrap_or("?").to_owned();
    Ok(format!(
        "as '{}', version {}.{}",
        account.auth_id,
        part("version"),
        part("release")
    ))
}

async fn permissions(account: &RemoteAccount, client: &HttpClient) -> Result<String, String> {
    let who = &account.auth_id;
    let granted = client.get("access/permissions", Value::Null).await;
    let granted =
        granted.map_err(|error| format!("unable to ask what '{who}' may do - {error}"))?;
    let mut usable = Vec::new();
    for (path, privileges) in granted.as_object().into_iter().flatten() {
        let held = USEFUL.iter().filter(|name| privileges.get(name).is_some());
        let held: Vec<&str> = held.copied().collect();
        if (path == "/" || path.starts_with("/datastore")) && !held.is_empty() {
            usable.push(format!("{path}: {}", held.join(", ")));
        }
    }
    if usable.is_empty() {
        return Err(format!(
            "'{who}' may use no datastore; on the other server: proxmox-backup-manager acl update \
             /datastore/STORE DatastoreReader --auth-id '{who}' (DatastoreBackup to push)"
        ));
    }
    Ok(usable.join("; "))
}

async fn clock(client: &HttpClient) -> Result<String, String> {
    let answer = client.get("nodes/localhost/time", Value::Null).await;
    let answer = answer.map_err(|error| format!("unable to ask for the time - {error}"))?;
    let there = answer["time"]
        .as_i64()
        .ok_or_else(|| "the answer holds no time".to_owned())?;
    let ahead = there - Timestamp::now().as_second();
    match ahead.abs() {
        0..=CLOCK_DIFFERENCE => Ok(format!("differs by {} s", ahead.abs())),
        _ => Err(format!(
            "is {} s {} this one; set both by NTP: with more than {TICKET_TOLERANCE} s logins fail, and snapshots get wrong times",
            ahead.abs(),
            if ahead > 0 { "ahead of" } else { "behind" }
        )),
    }
}
