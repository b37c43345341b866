//! Logins at a real OpenID provider, with the real program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
#[path = "../../backstop-server/tests/rest_captures/client.rs"]
mod client;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use client::{Answer, send};
use serde_json::{Value, json};
use testbed::api::Api;
use testbed::authority::Authority;
use testbed::openid_provider::{OpenIdProvider, installed};
use testbed::server::ServerProcess;

const REDIRECT: &str = "https://backup.example.com:8007";

struct Setting {
    provider: OpenIdProvider,
    server: ServerProcess,
    api: Api,
    _root: tempfile::TempDir,
}

/// The program, as one that trusts this authority as the system's, with one more assignment to a variable.
fn trusting(authority: &Authority, folder: &Path, assignment: &str) -> PathBuf {
    let script = folder.join("backstop");
    let text = format!(
        "#!/bin/sh\n{assignment} SSL_CERT_FILE='{}' exec '{}' \"$@\"\n",
        authority.certificate.display(),
        env!("CARGO_BIN_EXE_backstop")
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script
}

impl Setting {
    /// `None` where there is no provider.
    fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// With a variable in the environment of the server.
    fn start_with(assignment: &str) -> Option<Self> {
        let installed = installed()?;
        let root = tempfile::tempdir().unwrap();
        let authority = Authority::create(root.path()).unwrap();
        let binary = trusting(&authority, root.path(), assignment);
        let provider = OpenIdProvider::start(&installed, REDIRECT, Some(&authority)).unwrap();
        let server = ServerProcess::start(
            &binary,
            &root.path().join("root"),
            ([127, 0, 0, 1], 0).into(),
        )
        .unwrap();
        let api = Api::connect(&server).unwrap();
        Some(Self {
            provider,
            server,
            api,
            _root: root,
        })
    }

    fn create(&self, realm: &str, more: Value) {
        let mut parameters = json!({
            "realm": realm, "issuer-url": self.provider.issuer, "client-id": "backstop",
            "client-key": "a+secret/with%signs", "autocreate": true
        });
        let map = parameters.as_object_mut().unwrap();
        map.extend(more.as_object().unwrap().clone());
        map.retain(|_, value| !value.is_null());
        self.api.post("config/access/openid", parameters).unwrap();
    }

    /// Asks without any login.
    fn post(&self, path: &str, parameters: Value) -> Answer {
        let body = parameters.to_string();
        let headers = [
            ("Connection", "close".to_owned()),
            ("Content-Type", "application/json".to_owned()),
            ("Content-Length", body.len().to_string()),
        ];
        let headers: Vec<_> = headers.map(|(name, value)| (name.to_owned(), value)).into();
        let path = format!("/api2/json/{path}");
        send(
            self.server.address,
            "POST",
            &path,
            &headers,
            body.as_bytes(),
        )
        .unwrap()
    }

    fn auth_url(&self, realm: &str) -> String {
        let asked = json!({"realm": realm, "redirect-url": REDIRECT});
        let answer = self.post("access/openid/auth-url", asked);
        assert_eq!(answer.status(), "200", "{}", answer.text());
        answer.json()["data"].as_str().unwrap().to_owned()
    }

    /// Sends a browser to the provider, and gives what it comes back with.
    fn come_back(&self, realm: &str, user: &str) -> Value {
        let back = self.provider.log_in(&self.auth_url(realm), user).unwrap();
        assert!(back["to"].as_str().unwrap().starts_with(REDIRECT), "{back}");
        json!({"state": back["state"], "code": back["code"], "redirect-url": REDIRECT})
    }

    fn log_in(&self, parameters: &Value) -> Answer {
        self.post("access/openid/login", parameters.clone())
    }
}

#[test]
fn a_user_logs_in_at_a_provider_and_comes_back_with_a_ticket() {
    let Some(setting) = Setting::start() else {
        return;
    };
    let options =
        json!({"prompt": "login", "acr-values": "urn:example:strong", "comment": "single sign-on"});
    setting.create("sso", options);
    let url = setting.auth_url("sso");
    for part in [
        "response_type=code",
        "code_challenge_method=S256",
        "nonce=",
        "display=page",
        "prompt=login",
        "acr_values=urn%3Aexample%3Astrong",
        "scope=openid+email+profile",
    ] {
        assert!(url.contains(part), "{part} in {url}");
    }
    let back = setting.come_back("sso", "ann");
    let answer = setting.log_in(&back);
    assert_eq!(answer.status(), "200", "{}", answer.text());
    assert_eq!(answer.header("set-cookie"), None);
    let body = answer.json();
    assert_eq!(
        (&body["success"], &body["status"]),
        (&json!(true), &json!(200))
    );
    let data = &body["data"];
    assert_eq!(data["username"], "ann@sso");
    let cookie = format!(
        "PBSAuthCookie={}",
        data["ticket"].as_str().unwrap().replace('%', "%25")
    );
    let headers = [
        ("Connection".to_owned(), "close".to_owned()),
        ("Cookie".to_owned(), cookie),
    ];
    let own = "/api2/json/access/users/ann@sso";
    let own = send(setting.server.address, "GET", own, &headers, b"").unwrap();
    assert_eq!(
        own.json()["data"],
        json!({
            "userid": "ann@sso", "email": "ann@example.com", "firstname": "Given", "lastname": "Family"
        })
    );

    let mut back = setting.come_back("sso", "ann");
    back["http-only"] = json!(true);
    let answer = setting.log_in(&back);
    let cookie = answer.header("set-cookie").unwrap();
    assert!(
        cookie.starts_with("__Host-PBSAuthCookie=PBS:ann@sso:"),
        "{cookie}"
    );
    for part in ["Secure", "SameSite=Lax", "HttpOnly", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let data = &answer.json()["data"];
    assert_eq!(data.get("ticket"), None);
    assert!(
        data["ticket-info"]
            .as_str()
            .unwrap()
            .ends_with("::ticketinfo")
    );
}

#[test]
fn realms_name_their_users_and_speak_to_their_providers_as_they_are_set() {
    let Some(setting) = Setting::start() else {
        return;
    };
    setting.create("pref", json!({"username-claim": "preferred_username"}));
    setting.create(
        "mail",
        json!({"username-claim": "email", "scopes": "email"}),
    );
    setting.create("open", json!({"client-id": "public", "client-key": null}));
    setting.create("more", json!({"audiences": "sibling cousin"}));
    for (realm, user, expected) in [
        ("pref", "ann", "ann-preferred@pref"),
        ("mail", "ann", "ann@example.com@mail"),
        ("open", "ann", "ann@open"),
        ("more", "more-audiences", "more-audiences@more"),
    ] {
        let answer = setting.log_in(&setting.come_back(realm, user));
        assert_eq!(answer.status(), "200", "{realm}: {}", answer.text());
        assert_eq!(answer.json()["data"]["username"], expected);
    }
}

#[test]
fn nobody_gets_in_with_a_token_or_a_state_that_is_not_good() {
    let Some(setting) = Setting::start() else {
        return;
    };
    setting.create("sso", json!({}));
    setting.create("known", json!({"autocreate": false}));
    setting.create("wrong-key", json!({"client-key": "not the key"}));
    let users = || setting.api.get("access/users").unwrap();
    let before = users();
    let refused = |parameters: &Value, expected: &str| {
        let answer = setting.log_in(parameters);
        assert_eq!(answer.status(), "401", "{expected}: {}", answer.text());
        assert!(
            answer.text().contains(expected),
            "{expected}: {}",
            answer.text()
        );
    };
    let setting = &setting;
    let refused = &refused;
    std::thread::scope(|scope| {
        for (user, expected) in [
            ("wrong-nonce", "nonce"),
            ("no-nonce", "nonce"),
            ("wrong-audience", "audience"),
            ("more-audiences", "audience"),
            ("wrong-issuer", "issuer"),
            ("expired", "expired"),
            ("wrong-key", "ignature"),
            ("unsigned", "ignature"),
        ] {
            scope.spawn(move || refused(&setting.come_back("sso", user), expected));
        }
        scope.spawn(move || refused(&setting.come_back("known", "ann"), "autocreate"));
        scope.spawn(move || {
            refused(
                &setting.come_back("wrong-key", "ann"),
                "does not accept the authorization code",
            );
        });
        scope.spawn(move || {
            let mut other = setting.come_back("sso", "ann");
            other["code"] = json!("another");
            refused(&other, "does not accept the authorization code");
            refused(&other, "no OpenID login waits");
        });
        scope.spawn(move || {
            let mut other = setting.come_back("sso", "ann");
            let state = other["state"].as_str().unwrap();
            other["state"] = json!(state.replace("\"sso\"", "\"known\""));
            refused(&other, "no OpenID login waits");
        });
        scope.spawn(move || {
            let mut other = setting.come_back("sso", "ann");
            other["redirect-url"] = json!("https://evil.example.com");
            refused(&other, "redirect URL");
        });
        for state in ["", "x", r#"{"csrf_token":"x","realm":"sso"}"#] {
            scope.spawn(move || {
                let forged = json!({"state": state, "code": "x", "redirect-url": REDIRECT});
                let answer = setting.log_in(&forged);
                assert!(["400", "401"].contains(&answer.status()), "{state}");
            });
        }
    });
    assert_eq!(users(), before, "no user was created");
    // What was used once is used up.
    let back = setting.come_back("sso", "ann");
    assert_eq!(setting.log_in(&back).status(), "200");
    refused(&back, "no OpenID login waits");
}

#[test]
fn a_provider_that_is_not_there_is_named() {
    let root = tempfile::tempdir().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_backstop"));
    let server = ServerProcess::start(binary, root.path(), ([127, 0, 0, 1], 0).into()).unwrap();
    let words = |words: &[&str]| server.ok("manager", words).map_err(|err| err.to_string());
    words(&[
        "openid",
        "create",
        "sso",
        "--issuer-url",
        "http://127.0.0.2:1/x",
        "--client-id",
        "b",
    ])
    .unwrap();
    let api = Api::connect(&server).unwrap();
    let asked = json!({"realm": "sso", "redirect-url": REDIRECT});
    let refused = api.post("access/openid/auth-url", asked).unwrap_err();
    let refused = format!("{refused:#}");
    assert!(
        refused.contains("http://127.0.0.2:1/x") && refused.contains("issuer-url"),
        "{refused}"
    );
    let login = words(&["user", "create", "ann@sso", "--password", "12345678"]).unwrap_err();
    assert!(login.contains("not possible for openid realms"), "{login}");
    words(&[
        "openid",
        "update",
        "sso",
        "--comment",
        "x",
        "--audiences",
        "a b",
    ])
    .unwrap();
    let shown = words(&["openid", "show", "sso", "--output-format", "json"]).unwrap();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        shown,
        json!({
            "realm": "sso", "issuer-url": "http://127.0.0.2:1/x", "client-id": "b", "comment": "x", "audiences": "a b"
        })
    );
    assert!(words(&["openid", "update", "sso", "--username-claim", "email"]).is_err());
    words(&["openid", "delete", "sso"]).unwrap();
    assert!(
        words(&["openid", "show", "sso"])
            .unwrap_err()
            .contains("no such openid 'sso'")
    );
}

/// A proxy on loopback that tunnels, or refuses to.
struct Proxy {
    port: u16,
    /// What it was asked for.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// It runs until the test ends.
    fn start(tunnels: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&heads);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, noted) = (stream.unwrap(), Arc::clone(&noted));
                std::thread::spawn(move || serve(stream, tunnels, &noted));
            }
        });
        Self { port, heads }
    }

    fn asked(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// Ends with the connection, in whichever way.
fn serve(mut stream: TcpStream, tunnels: bool, heads: &Mutex<Vec<String>>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    heads.lock().unwrap().push(head.clone());
    if !tunnels {
        return stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").ok();
    }
    let mut server = TcpStream::connect(head.split(' ').nth(1)?).ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let (mut from, mut to) = (stream.try_clone().ok()?, server.try_clone().ok()?);
    let up = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, &mut stream);
    let _ = stream.shutdown(Shutdown::Both);
    up.join().ok()
}

#[test]
fn providers_are_asked_through_the_proxy_of_the_host_and_directly_where_that_does_not_reach_them() {
    let Some(setting) = Setting::start() else {
        return;
    };
    let node = setting.server.root.join("etc/proxmox-backup/node.cfg");
    let (good, refusing) = (Proxy::start(true), Proxy::start(false));
    for (proxy, realm) in [(&good, "sso"), (&refusing, "own")] {
        setting.create(realm, json!({}));
        let text = format!("http-proxy: http://me:Secret@127.0.0.1:{}\n", proxy.port);
        std::fs::write(&node, text).unwrap();
        let answer = setting.log_in(&setting.come_back(realm, "ann"));
        assert_eq!(answer.status(), "200", "{realm}: {}", answer.text());
        let asked = proxy.asked();
        let target = setting.provider.issuer.strip_prefix("https://").unwrap();
        // For the token and for what the provider says of the user, at least.
        assert!(asked.len() >= 2, "{realm}: {asked:?}");
        for head in asked {
            assert!(head.starts_with(&format!("CONNECT {target} ")), "{head}");
            assert!(
                head.contains("Proxy-Authorization: Basic bWU6U2VjcmV0"),
                "{head}"
            );
        }
    }
}

#[test]
fn the_proxy_of_the_environment_is_the_only_way_as_for_a_stock_server() {
    let (good, refusing) = (Proxy::start(true), Proxy::start(false));
    let other = Proxy::start(true);
    for (proxy, is_reached) in [(&good, true), (&refusing, false)] {
        let assignment = format!("ALL_PROXY=http://127.0.0.1:{}", proxy.port);
        let Some(setting) = Setting::start_with(&assignment) else {
            return;
        };
        let node = setting.server.root.join("etc/proxmox-backup/node.cfg");
        std::fs::write(node, format!("http-proxy: 127.0.0.1:{}\n", other.port)).unwrap();
        setting.create("sso", json!({}));
        let asked = json!({"realm": "sso", "redirect-url": REDIRECT});
        let answer = setting.post("access/openid/auth-url", asked);
        if is_reached {
            assert_eq!(answer.status(), "200", "{}", answer.text());
        } else {
            assert_eq!(answer.status(), "400");
            assert!(answer.text().contains("403 Forbidden"), "{}", answer.text());
        }
        assert!(!proxy.asked().is_empty());
    }
    assert_eq!(other.asked(), [""; 0]);
}
