//! A server on a copy of everything that a stock server left behind.

use std::collections::HashMap;
use std::net::SocketAddr;

use backstop_server::{Roots, ServerHandle, ServerOptions, run};
use backstop_types::Upid;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use testbed::stock_root::{fixtures, lay_out};

use crate::capture::{Capture, all};
use crate::client::{Answer, send, send_plain};

/// Users of the recorded servers with their throw-away passwords.
fn users(version: &str) -> Vec<(&'static str, String)> {
    let number = if version == "3.2.4" { "1" } else { "42" };
    let mut users = vec![
        ("fixture", format!("Fixture-Pw-{number}")),
        ("reader", format!("Reader-Pw-{number}")),
    ];
    if version == "4.2.3" {
        users.push(("other", "Other-Pw-42".to_owned()));
    }
    users
}

struct Login {
    ticket: String,
    csrf: String,
}

/// The running server and what is needed to talk to it as the recorded clients did.
pub struct Setting {
    pub handle: ServerHandle,
    /// The directory that stands in for `/`.
    pub root: String,
    logins: HashMap<String, Login>,
    /// Recorded tickets and tokens that were good then, with the user that they belong to.
    recorded_tickets: HashMap<String, String>,
    recorded_csrf: HashMap<String, String>,
    _dir: tempfile::TempDir,
}

impl Setting {
    pub async fn start(version: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let root = dir.path().to_str().expect("UTF-8").to_owned();
        lay_out(version, dir.path()).expect("a root directory");
        if version == "4.2.3" {
            // Everything about notifications was recorded in one go, from an empty configuration to the one that was copied.
            for name in ["notifications.cfg", "notifications-priv.cfg"] {
                let path = dir.path().join("etc/proxmox-backup").join(name);
                std::fs::write(path, "").expect("configuration");
            }
        }
        let options = ServerOptions {
            schedules: false,
            real_ip: None,
            roots: Roots::below(dir.path()),
            listen: vec![([127, 0, 0, 1], 0).into()],
            node: Some("vm".to_owned()),
        };
        let handle = run(options).await.expect("server");
        let mut setting = Self {
            handle,
            root,
            logins: HashMap::new(),
            recorded_tickets: HashMap::new(),
            recorded_csrf: HashMap::new(),
            _dir: dir,
        };
        for (user, password) in users(version) {
            setting.log_in(user, &password);
        }
        setting.harvest(version);
        setting
    }

    pub fn address(&self) -> SocketAddr {
        self.handle.addr()
    }

    fn log_in(&mut self, user: &str, password: &str) {
        let body = format!("username={user}%40pbs&password={password}");
        let headers = [
            ("Connection", "close".to_owned()),
            ("Content-Length", body.len().to_string()),
        ];
        let headers: Vec<_> = headers.map(|(name, value)| (name.to_owned(), value)).into();
        let answer = send(
            self.address(),
            "POST",
            "/api2/json/access/ticket",
            &headers,
            body.as_bytes(),
        )
        .expect("log-in");
        if answer.status() != "200" {
            return;
        }
        let data = answer.json();
        let text = |name: &str| data["data"][name].as_str().expect("text").to_owned();
        let login = Login {
            ticket: text("ticket"),
            csrf: text("CSRFPreventionToken"),
        };
        self.logins.insert(user.to_owned(), login);
    }

    /// Finds the tickets that recorded log-ins gave out, and the tokens that went with them.
    fn harvest(&mut self, version: &str) {
        for name in all(version) {
            let capture =
                Capture::read(&fixtures(version).join("rest").join(format!("{name}.json")));
            if let Some(user) = &capture.auth
                && !name.contains("csrf")
                && let Some(csrf) = capture
                    .request_headers
                    .get("CSRFPreventionToken")
                    .and_then(|v| v.as_str())
            {
                self.recorded_csrf.insert(csrf.to_owned(), user.clone());
            }
            let is_login =
                capture.path.ends_with("/access/ticket") && capture.status_line.contains(" 200 ");
            let Ok(body) = serde_json::from_slice::<serde_json::Value>(&capture.body()) else {
                continue;
            };
            let Some(user) = body["data"]["username"]
                .as_str()
                .and_then(|user| user.strip_suffix("@pbs"))
            else {
                continue;
            };
            if !is_login {
                continue;
            }
            let from_cookie = capture.header("set-cookie").and_then(|value| {
                let (_, value) = value.split_once('=')?;
                Some(value.split(';').next()?.to_owned())
            });
            for ticket in [
                from_cookie,
                body["data"]["ticket"].as_str().map(str::to_owned),
            ]
            .into_iter()
            .flatten()
            {
                self.recorded_tickets.insert(ticket, user.to_owned());
            }
            if let Some(csrf) = body["data"]["CSRFPreventionToken"].as_str() {
                self.recorded_csrf.insert(csrf.to_owned(), user.to_owned());
            }
        }
    }

    /// Puts today's tickets in the place of the recorded ones.
    fn renew(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (recorded, user) in &self.recorded_tickets {
            let Some(login) = self.logins.get(user) else {
                continue;
            };
            text = text.replace(recorded, &login.ticket);
            text = text.replace(&encoded(recorded), &encoded(&login.ticket));
        }
        for (recorded, user) in &self.recorded_csrf {
            let Some(login) = self.logins.get(user) else {
                continue;
            };
            text = text.replace(recorded, &login.csrf);
        }
        text
    }

    /// Sends what was recorded, with today's credentials and directories.
    /// Waits for the end of a task that it starts.
    pub fn replay(&self, capture: &Capture, plain: bool) -> std::io::Result<Answer> {
        let body = capture.request_body.as_deref().unwrap_or_default();
        let body = self.renew(body);
        let body = body.replace(
            "%2Fsrv%2Ffixture",
            &format!("{}%2Fsrv%2Ffixture", encoded(&self.root)),
        );
        let mut headers = Vec::new();
        for (name, value) in &capture.request_headers {
            let mut value = self.renew(value.as_str().unwrap_or_default());
            match (
                name.as_str(),
                capture.auth.as_ref().and_then(|user| self.logins.get(user)),
            ) {
                ("Cookie", Some(login)) => {
                    value = format!("PBSAuthCookie={}", encoded(&login.ticket))
                }
                ("Content-Length", _) => value = body.len().to_string(),
                ("Connection", _) if value == "Upgrade" => value = "Upgrade, close".to_owned(),
                _ => {}
            }
            headers.push((name.clone(), value));
        }
        let path = self.renew(&capture.path);
        if plain {
            return send_plain(self.address(), &capture.method, &path, &headers);
        }
        let answer = send(
            self.address(),
            &capture.method,
            &path,
            &headers,
            body.as_bytes(),
        )?;
        if let Ok(reply) = serde_json::from_slice::<serde_json::Value>(&answer.body)
            && let Some(upid) = reply["data"]
                .as_str()
                .filter(|text| text.starts_with("UPID:"))
        {
            self.wait_for(&upid.parse().expect("task id"));
        }
        Ok(answer)
    }

    fn wait_for(&self, upid: &Upid) {
        let tasks = self.handle.server().tasks();
        tokio::runtime::Handle::current().block_on(tasks.wait_for(upid));
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
