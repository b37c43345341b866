//! Realms of directory servers: the real program and a real OpenLDAP server, which plays an Active Directory, too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
#[path = "../../backstop-server/tests/rest_captures/client.rs"]
mod client;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use client::{Answer, send};
use serde_json::{Value, json};
use testbed::api::Api;
use testbed::server::ServerProcess;
use testbed::slapd::{self, BASE, Entry, READER, READER_PASSWORD, Slapd};

const ANN: Entry<'_> = Entry {
    name: "ann",
    password: "Ann-Secret",
    more: &["mail: ann@example.com", "givenName: Ann"],
};
const BOB: Entry<'_> = Entry {
    name: "bob",
    password: "Bob-Secret",
    more: &[],
};

struct Setting {
    slapd: Slapd,
    server: ServerProcess,
    api: Api,
    _root: tempfile::TempDir,
}

impl Setting {
    /// `None` where there is no directory server.
    fn start(users: &[Entry<'_>]) -> Option<Self> {
        let program = slapd::program()?;
        let slapd = Slapd::start(&program, users).unwrap();
        let root = tempfile::tempdir().unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_backstop"));
        let server = ServerProcess::start(binary, root.path(), ([127, 0, 0, 1], 0).into()).unwrap();
        let api = Api::connect(&server).unwrap();
        Some(Self {
            slapd,
            server,
            api,
            _root: root,
        })
    }

    fn realm(&self, more: Value) -> Value {
        let mut realm = json!({
            "server1": "127.0.0.1", "port": self.slapd.port, "base-dn": BASE, "user-attr": "uid",
            "bind-dn": READER, "password": READER_PASSWORD,
        });
        let map = realm.as_object_mut().unwrap();
        map.extend(more.as_object().unwrap().clone());
        map.retain(|_, value| !value.is_null());
        realm
    }

    fn create(&self, kind: &str, realm: &str, more: Value) -> Result<(), String> {
        let mut parameters = self.realm(more);
        parameters["realm"] = json!(realm);
        let created = self.api.post(&format!("config/access/{kind}"), parameters);
        created.map(drop).map_err(|err| format!("{err:#}"))
    }

    fn add_user(&self, user: &str) {
        let user = json!({ "userid": user });
        self.api.post("access/users", user).unwrap();
    }

    fn log_in(&self, user: &str, password: &str) -> Answer {
        log_in(self.server.address, user, password)
    }

    fn file(&self, name: &str) -> String {
        let etc = self.server.root.join("etc/proxmox-backup");
        std::fs::read_to_string(etc.join(name)).unwrap()
    }

    fn task_log(&self, upid: &Value) -> String {
        let path = format!("nodes/localhost/tasks/{}/log", upid.as_str().unwrap());
        let all = self.api.client.get(&path, json!({"limit": 10_000}));
        let lines = self.api.runtime.block_on(all).unwrap();
        let lines = lines.as_array().unwrap().iter();
        lines
            .map(|line| format!("{}\n", line["t"].as_str().unwrap()))
            .collect()
    }

    fn users(&self) -> Vec<Value> {
        self.api
            .get("access/users")
            .unwrap()
            .as_array()
            .unwrap()
            .clone()
    }
}

fn log_in(server: SocketAddr, user: &str, password: &str) -> Answer {
    let body = json!({"username": user, "password": password}).to_string();
    let headers = [
        ("Connection", "close".to_owned()),
        ("Content-Type", "application/json".to_owned()),
        ("Content-Length", body.len().to_string()),
    ];
    let headers: Vec<_> = headers.map(|(name, value)| (name.to_owned(), value)).into();
    send(
        server,
        "POST",
        "/api2/json/access/ticket",
        &headers,
        body.as_bytes(),
    )
    .unwrap()
}

#[test]
fn users_of_a_directory_log_in_with_their_own_password_and_no_other() {
    let odd = Entry {
        name: "a*n(n)\\",
        password: "Odd-Secret",
        more: &[],
    };
    let Some(setting) = Setting::start(&[ANN, BOB, odd]) else {
        return;
    };
    setting.create("ldap", "dir", json!({})).unwrap();
    for user in ["ann@dir", "a*@dir", "a*n(n)\\@dir", "nobody@dir"] {
        setting.add_user(user);
    }
    for (user, password) in [("ann@dir", "Ann-Secret"), ("a*n(n)\\@dir", "Odd-Secret")] {
        let answer = setting.log_in(user, password);
        assert_eq!(answer.status(), "200", "{user}: {}", answer.text());
        assert_eq!(answer.json()["data"]["username"], user);
    }
    let bad = [
        ("ann@dir", "Bob-Secret"),
        ("ann@dir", "ann-secret"),
        // a bind without password, which servers may take for one of nobody
        ("ann@dir", ""),
        // a name that fits several users when it is not escaped
        ("a*@dir", "Ann-Secret"),
        ("nobody@dir", "Ann-Secret"),
        // not a user here, although one of the directory
        ("bob@dir", "Bob-Secret"),
    ];
    let address = setting.server.address;
    std::thread::scope(|scope| {
        for (user, password) in bad {
            scope.spawn(move || {
                let answer = log_in(address, user, password);
                assert!(
                    ["400", "401"].contains(&answer.status()),
                    "{user} {password:?}"
                );
                assert!(!answer.text().contains("ticket"), "{user} {password:?}");
            });
        }
    });
    let auth_log = setting
        .server
        .root
        .join("var/log/proxmox-backup/api/auth.log");
    let log = std::fs::read_to_string(auth_log).unwrap();
    assert!(log.contains("user=ann@dir"), "{log}");
    assert!(!log.contains("Secret"), "{log}");
}

#[test]
fn connections_are_protected_as_the_realm_says() {
    let Some(setting) = Setting::start(&[ANN]) else {
        return;
    };
    let ca = setting.slapd.authority.certificate.clone();
    let own = setting.slapd.authority.server_certificate.clone();
    let tls = json!({"mode": "ldaps", "port": setting.slapd.tls_port});
    let with = |base: &Value, more: Value| {
        let mut all = base.clone();
        let map = all.as_object_mut().unwrap();
        map.extend(more.as_object().unwrap().clone());
        all
    };
    let starttls = json!({"mode": "ldap+starttls"});
    for (realm, settings) in [
        ("tls", with(&tls, json!({}))),
        ("tls-ca", with(&tls, json!({"verify": true, "capath": ca}))),
        // The certificate of the server itself, instead of its authority's.
        (
            "tls-own",
            with(&tls, json!({"verify": true, "capath": own})),
        ),
        (
            "tls-name",
            with(
                &tls,
                json!({"verify": true, "capath": ca, "server1": "localhost"}),
            ),
        ),
        (
            "start-ca",
            with(&starttls, json!({"verify": true, "capath": ca})),
        ),
        // The first server refuses connections.
        (
            "second",
            json!({"server1": "127.0.0.2", "server2": "127.0.0.1"}),
        ),
    ] {
        setting.create("ldap", realm, settings).unwrap();
        setting.add_user(&format!("ann@{realm}"));
        let answer = setting.log_in(&format!("ann@{realm}"), "Ann-Secret");
        assert_eq!(answer.status(), "200", "{realm}: {}", answer.text());
    }
    for (settings, expected) in [
        (with(&tls, json!({"verify": true})), "certificate"),
        (with(&starttls, json!({"verify": true})), "certificate"),
        (
            with(
                &tls,
                json!({"verify": true, "capath": ca, "server1": "127.0.0.2"}),
            ),
            "unable to connect",
        ),
        (json!({"password": "wrong"}), "check bind-dn and password"),
        (json!({"password": null}), "there is no password for it"),
        (json!({"base-dn": "dc=elsewhere"}), "check base-dn"),
        (json!({"bind-dn": null}), "unable to search"),
        (json!({"filter": "(uid=*"}), "not a valid LDAP filter"),
        (json!({"server1": "127.0.0.3"}), "unable to connect"),
    ] {
        let refused = setting.create("ldap", "bad", settings.clone()).unwrap_err();
        assert!(refused.contains(expected), "{settings}: {refused}");
        assert!(!refused.contains(READER_PASSWORD), "{refused}");
    }
    assert!(!setting.file("domains.cfg").contains("bad"));
    assert!(!setting.file("ldap_passwords.json").contains("bad"));
}

#[test]
fn an_active_directory_says_itself_where_its_users_are() {
    let Some(setting) = Setting::start(&[ANN]) else {
        return;
    };
    setting
        .create("ad", "corp", json!({"base-dn": null, "user-attr": null}))
        .unwrap();
    assert!(
        setting
            .file("domains.cfg")
            .contains(&format!("ad: corp\n\tbase-dn {BASE}\n")),
        "{}",
        setting.file("domains.cfg")
    );
    setting.add_user("ann@corp");
    assert_eq!(setting.log_in("ann@corp", "Ann-Secret").status(), "200");
    // What was stored elsewhere may have no base.
    let etc = setting.server.root.join("etc/proxmox-backup");
    let without = setting
        .file("domains.cfg")
        .replace(&format!("\tbase-dn {BASE}\n"), "");
    std::fs::write(etc.join("domains.cfg"), without).unwrap();
    assert_eq!(setting.log_in("ann@corp", "Ann-Secret").status(), "200");
}

#[test]
fn a_sync_takes_all_users_of_the_directory_however_many_there_are() {
    let names: Vec<String> = (0..620).map(|number| format!("user{number}")).collect();
    let many: Vec<Entry<'_>> = names
        .iter()
        .map(|name| Entry {
            name,
            password: "x",
            more: &[],
        })
        .chain([ANN])
        .collect();
    let Some(setting) = Setting::start(&many) else {
        return;
    };
    let options = json!({
        "sync-attributes": "email=MAIL,firstname=givenname", "sync-defaults-options": "enable-new=false"
    });
    setting.create("ldap", "dir", options).unwrap();
    setting.add_user("gone@dir");
    setting.add_user("other@pbs");
    let rule = json!({"path": "/", "role": "Audit", "auth-id": "gone@dir"});
    setting.api.put("access/acl", rule).unwrap();
    let sync = |parameters: Value| {
        let upid = setting
            .api
            .post("access/domains/dir/sync", parameters)
            .unwrap();
        let end = setting.api.end_of(&upid).unwrap();
        (end, setting.task_log(&upid))
    };
    let vanished = "acl;entry;properties";

    let (end, log) = sync(json!({"dry-run": true, "remove-vanished": vanished}));
    assert_eq!(end, "OK", "{log}");
    assert!(log.contains("DRY RUN"), "{log}");
    assert!(
        log.contains("621 created, 0 updated, 1 removed, 0 unchanged"),
        "{log}"
    );
    assert_eq!(setting.users().len(), 4, "nothing has changed");

    let (end, log) = sync(json!({"remove-vanished": vanished}));
    assert_eq!(end, "OK", "{log}");
    assert!(log.contains("creating user ann@dir") && log.contains("deleting user gone@dir"));
    let users = setting.users();
    assert_eq!(users.len(), 3 + 621);
    let ann = users.iter().find(|user| user["userid"] == "ann@dir");
    let expected = json!({
        "userid": "ann@dir", "email": "ann@example.com", "firstname": "Ann", "enable": false
    });
    assert_eq!(ann, Some(&expected));
    assert!(!setting.file("acl.cfg").contains("gone@dir"));
    assert!(setting.file("user.cfg").contains("other@pbs"));

    let (end, log) = sync(json!({"remove-vanished": "entry"}));
    assert_eq!(end, "OK", "{log}");
    assert!(
        log.contains("0 created, 0 updated, 0 removed, 621 unchanged"),
        "{log}"
    );

    let none = json!({"filter": "uid=nobody"});
    setting.api.put("config/access/ldap/dir", none).unwrap();
    let (end, _) = sync(json!({"remove-vanished": "entry"}));
    assert!(end.contains("no user at all"), "{end}");
    let changed = json!({"filter": "(uid=ann)", "sync-attributes": "email=sn"});
    setting.api.put("config/access/ldap/dir", changed).unwrap();
    let (_, log) = sync(json!({}));
    assert!(
        log.contains("updating user ann@dir: email 'ann@example.com' -> 'ann'"),
        "{log}"
    );
    assert_eq!(setting.users().len(), 3 + 621);
}

#[test]
fn the_manager_sets_directories_up_and_syncs_them() {
    let Some(setting) = Setting::start(&[ANN]) else {
        return;
    };
    let port = setting.slapd.port.to_string();
    let manage = |words: &[&str]| setting.server.ok("manager", words);
    let create = [
        "ldap",
        "create",
        "dir",
        "--server1",
        "127.0.0.1",
        "--port",
        &port,
        "--base-dn",
        BASE,
        "--user-attr",
        "uid",
        "--bind-dn",
        READER,
        "--password",
        READER_PASSWORD,
        "--comment",
        "a directory",
    ];
    manage(&create).unwrap();
    assert!(
        manage(&create)
            .unwrap_err()
            .to_string()
            .contains("already exists")
    );
    let json = |words: &[&str]| -> Value {
        let words = [words, &["--output-format", "json"]].concat();
        serde_json::from_str(&manage(&words).unwrap()).unwrap()
    };
    let expected = json!({
        "realm": "dir", "server1": "127.0.0.1", "port": setting.slapd.port, "base-dn": BASE, "user-attr": "uid",
        "bind-dn": READER, "comment": "a directory"
    });
    assert_eq!(json(&["ldap", "list"]), json!([expected]));
    assert_eq!(json(&["ldap", "show", "dir"]), expected);
    let listed = manage(&["ldap", "list"]).unwrap();
    for part in ["dir", "127.0.0.1", "a directory"] {
        assert!(listed.contains(part), "{listed}");
    }
    manage(&[
        "ldap",
        "update",
        "dir",
        "--filter",
        "(uid=ann)",
        "--delete",
        "comment",
        "--default",
        "true",
    ])
    .unwrap();
    let shown = json(&["ldap", "show", "dir"]);
    assert_eq!(
        (&shown["filter"], &shown["default"]),
        (&json!("(uid=ann)"), &json!(true))
    );
    assert_eq!(shown.get("comment"), None);
    let refused = manage(&["ldap", "update", "dir", "--password", "wrong"]).unwrap_err();
    assert!(
        refused.to_string().contains("check bind-dn and password"),
        "{refused}"
    );

    let dry = manage(&["ldap", "sync", "dir", "--dry-run"]).unwrap();
    assert!(
        dry.contains("creating user ann@dir") && dry.contains("TASK OK"),
        "{dry}"
    );
    manage(&[
        "ldap",
        "sync",
        "dir",
        "--enable-new",
        "false",
        "--remove-vanished",
        "acl;entry",
    ])
    .unwrap();
    assert!(
        setting
            .file("user.cfg")
            .contains("user: ann@dir\n\tenable false\n")
    );
    let realms = setting.api.get("access/domains").unwrap();
    let realms = realms.as_array().unwrap();
    let default: Vec<_> = realms
        .iter()
        .filter(|realm| realm["default"] == true)
        .collect();
    assert_eq!(
        default,
        [&json!({"realm": "dir", "type": "ldap", "default": true})]
    );
    manage(&["ldap", "delete", "dir"]).unwrap();
    assert_eq!(json(&["ldap", "list"]), json!([]));
    assert!(
        !setting
            .file("ldap_passwords.json")
            .contains(READER_PASSWORD)
    );
}

/// A server with a realm whose directory accepts connections and says nothing, and its user ann.
fn with_silent_directory(root: &Path) -> (ServerProcess, Api, TcpListener) {
    let binary = Path::new(env!("CARGO_BIN_EXE_backstop"));
    let server = ServerProcess::start(binary, root, ([127, 0, 0, 1], 0).into()).unwrap();
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let realm = format!(
        "ldap: dead\n\tbase-dn {BASE}\n\tport {port}\n\tserver1 127.0.0.1\n\tuser-attr uid\n"
    );
    std::fs::write(root.join("etc/proxmox-backup/domains.cfg"), realm).unwrap();
    let api = Api::connect(&server).unwrap();
    api.post("access/users", json!({"userid": "ann@dead"}))
        .unwrap();
    (server, api, silent)
}

/// Reads one message of the protocol.
fn read_message(stream: &mut TcpStream) {
    let mut byte = [0];
    let mut next = |stream: &mut TcpStream| {
        stream.read_exact(&mut byte).unwrap();
        usize::from(byte[0])
    };
    assert_eq!(next(stream), 0x30);
    let first = next(stream);
    let length = if first < 0x80 {
        first
    } else {
        (0..first - 0x80).fold(0, |length, _| length << 8 | next(stream))
    };
    stream.read_exact(&mut vec![0; length]).unwrap();
}

/// Plays a directory for one login: finds an entry for whatever is looked for, and accepts whatever password.
fn answer_one_login(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    read_message(&mut stream);
    let dn = b"uid=ann";
    // An entry without attributes, and the end of the search, in answer to the first message.
    let mut found = vec![0x30, 16, 2, 1, 1, 0x64, 11, 4, 7];
    found.extend_from_slice(dn);
    found.extend_from_slice(&[0x30, 0]);
    found.extend_from_slice(&[0x30, 12, 2, 1, 1, 0x65, 7, 10, 1, 0, 4, 0, 4, 0]);
    stream.write_all(&found).unwrap();
    read_message(&mut stream);
    stream
        .write_all(&[0x30, 12, 2, 1, 2, 0x61, 7, 10, 1, 0, 4, 0, 4, 0])
        .unwrap();
    // Until the other side has had enough.
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Waits until six logins have asked, which is as many as do at a time.
fn wait_for_six(silent: &TcpListener) -> Vec<TcpStream> {
    let asked = (0..6).map(|_| {
        let (mut stream, _) = silent.accept().unwrap();
        stream.read_exact(&mut [0]).unwrap();
        stream
    });
    asked.collect()
}

#[test]
fn a_directory_that_never_answers_holds_up_nobody_else() {
    let root = tempfile::tempdir().unwrap();
    let (server, api, silent) = with_silent_directory(root.path());
    let (address, password) = (server.address, server.password.clone());
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..40)
            .map(|_| scope.spawn(move || log_in(address, "ann@dead", "Ann-Secret")))
            .collect();
        let asked = wait_for_six(&silent);
        assert_eq!(log_in(address, "admin@pbs", &password).status(), "200");
        api.get("access/users").unwrap();
        // Then they are given up, and so are all others.
        drop(asked);
        drop(silent);
        for login in waiting {
            assert_eq!(login.join().unwrap().status(), "401");
        }
    });
}

#[test]
fn a_password_that_is_asked_for_again_waits_for_a_silent_directory_without_holding_up_anybody() {
    let root = tempfile::tempdir().unwrap();
    let (server, api, silent) = with_silent_directory(root.path());
    let address = server.address;
    // It lets Ann in, and falls silent.
    let session = std::thread::scope(|scope| {
        let login = scope.spawn(move || log_in(address, "ann@dead", "Ann-Secret"));
        answer_one_login(&silent);
        login.join().unwrap().json()["data"].clone()
    });
    let text = |key: &str| session[key].as_str().unwrap().to_owned();
    let ticket = (text("ticket"), text("CSRFPreventionToken"));
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..40)
            .map(|number| {
                let ticket = &ticket;
                scope.spawn(move || {
                    let (method, path, body) = match number % 2 {
                        0 => (
                            "PUT",
                            "access/password",
                            json!({"userid": "ann@dead", "password": "Other-Secret", "confirmation-password": "Ann-Secret"}),
                        ),
                        _ => (
                            "POST",
                            "access/tfa/ann@dead",
                            json!({"type": "recovery", "password": "Ann-Secret"}),
                        ),
                    };
                    let body = body.to_string();
                    let headers = [
                        ("Connection", "close".to_owned()),
                        ("Content-Type", "application/json".to_owned()),
                        ("Content-Length", body.len().to_string()),
                        ("Cookie", format!("PBSAuthCookie={}", ticket.0)),
                        ("CSRFPreventionToken", ticket.1.clone()),
                    ];
                    let headers: Vec<_> =
                        headers.map(|(name, value)| (name.to_owned(), value)).into();
                    let path = format!("/api2/json/{path}");
                    send(address, method, &path, &headers, body.as_bytes()).unwrap()
                })
            })
            .collect();
        let asked = wait_for_six(&silent);
        // Everybody else is served, and the data of the answer needs a thread, too.
        api.get("access/users").unwrap();
        drop(asked);
        drop(silent);
        for call in waiting {
            let answer = call.join().unwrap();
            assert_eq!(answer.status(), "401", "{}", answer.text());
        }
    });
}
