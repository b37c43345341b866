#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use backstop_types::config_schema::value;
use backstop_types::schema::Property;

use super::*;
use crate::http::{ApiError, Reply};
use crate::router::{Handler, Method, Permission};

#[path = "../../tests/rest_captures/client.rs"]
#[allow(dead_code)]
mod client;

use client::{Answer, connect, read_answer, send};

struct Setting {
    dir: tempfile::TempDir,
    handle: ServerHandle,
}

/// A server with the usual endpoints and some that misbehave.
async fn start() -> Setting {
    start_behind(None).await
}

/// The same behind a reverse proxy.
async fn start_behind(real_ip: Option<RealIp>) -> Setting {
    let world = |path, params, handler| Endpoint {
        method: Method::Get,
        path,
        about: "",
        params,
        permission: Permission::World,
        handler,
    };
    const SECRET: &[Property] = &[Property::optional("password", &value::PASSWORD)];
    let mut endpoints = api::endpoints();
    endpoints.push(world(
        "/test/panic",
        &[],
        Handler::future(|_, _| async { panic!("in an async handler") }),
    ));
    endpoints.push(world(
        "/test/panic-blocking",
        &[],
        Handler::blocking(|_, _| panic!("in a blocking handler")),
    ));
    endpoints.push(world(
        "/test/late",
        &[],
        Handler::future(|_, _| async { Err(ApiError::unauthorized("no")) }),
    ));
    endpoints.push(world(
        "/test/secret",
        SECRET,
        Handler::future(|_, _| async { Ok(Reply::null()) }),
    ));
    let slow = |_: &crate::router::RequestContext, _: &crate::router::Params| {
        thread::sleep(Duration::from_millis(300));
        Ok(Reply::null())
    };
    endpoints.push(world("/test/slow", &[], Handler::blocking(slow)));
    let dir = tempfile::tempdir().unwrap();
    let options = ServerOptions {
        schedules: false,
        real_ip,
        roots: Roots::below(dir.path()),
        listen: vec![([127, 0, 0, 1], 0).into()],
        node: Some("elsa".into()),
    };
    Setting {
        handle: run_with(options, endpoints, Inherited::default())
            .await
            .unwrap(),
        dir,
    }
}

impl Setting {
    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let address = self.handle.addr();
        let path = path.to_owned();
        let mut all = vec![("Connection".to_owned(), "close".to_owned())];
        all.extend(
            headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        tokio::task::spawn_blocking(move || send(address, "GET", &path, &all, b"").unwrap())
            .await
            .unwrap()
    }

    async fn is_well(&self) {
        let answer = self.get("/api2/json/ping", &[]).await;
        assert_eq!(answer.text(), r#"{"data":{"pong":true}}"#);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panicking_handler_is_an_error_for_its_caller_alone() {
    let setting = start().await;
    for path in ["/api2/json/test/panic", "/api2/json/test/panic-blocking"] {
        let answer = setting.get(path, &[]).await;
        assert_eq!(
            (answer.status(), answer.text().as_str()),
            ("500", "internal error")
        );
        setting.is_well().await;
    }
    setting.handle.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_clients_do_not_stop_the_server() {
    let setting = start().await;
    let address = setting.handle.addr();
    tokio::task::spawn_blocking(move || {
        // Nothing at all, rubbish, a record that is no handshake, a TLS connection without a request.
        drop(TcpStream::connect(address).unwrap());
        for bytes in [
            &b"\x00\x01\x02\x03"[..],
            b"\x16\x03\x01\x00\x05hello",
            b"GET / HTTP/1.0\r\n\r\n",
        ] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(bytes).unwrap();
            // A reset counts as an answer here, too.
            let _ = stream.read(&mut [0; 512]);
        }
        let mut stream = connect(address).unwrap();
        stream.write_all(b"no request\r\n\r\n").unwrap();
        let _ = stream.read(&mut [0; 512]);
        let mut stream = connect(address).unwrap();
        stream
            .write_all(b"POST /api2/json/access/ticket HTTP/1.1\r\nContent-Length: 100\r\n\r\nx")
            .unwrap();
        drop(stream);
    })
    .await
    .unwrap();
    setting.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_redirected() {
    let setting = start().await;
    let address = setting.handle.addr();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .write_all(b"POST /x HTTP/1.1\r\nHost: a.example:8007\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        read_answer(&mut stream).unwrap()
    })
    .await
    .unwrap();
    assert_eq!(answer.status(), "308");
    assert_eq!(answer.header("location"), Some("https://a.example:8007"));
    setting.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_do_not_reach_the_logs() {
    let setting = start().await;
    let token = [
        ("Authorization", "PBSAPIToken=root@pam!x:Very-Secret"),
        ("Cookie", "PBSAuthCookie=Very-Secret"),
    ];
    setting
        .get("/api2/json/test/secret?password=Very-Secret", &token)
        .await;
    setting.get("/api2/json/version", &token).await;
    let logs = setting.handle.server().roots().api_logs();
    let dir = setting.dir;
    setting.handle.shutdown(Duration::from_secs(5)).await;
    let access = fs::read_to_string(logs.join("access.log")).unwrap();
    assert!(
        access.contains("/api2/json/test/secret?password=***"),
        "{access}"
    );
    for log in fs::read_dir(&logs).unwrap() {
        let text = fs::read_to_string(log.unwrap().path()).unwrap();
        assert!(!text.contains("Very-Secret"), "{text}");
    }
    drop(dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_late_and_takes_the_cookie_away() {
    let setting = start().await;
    let begin = std::time::Instant::now();
    let (first, second) = tokio::join!(
        setting.get("/api2/json/test/late", &[]),
        setting.get("/api2/json/test/late", &[])
    );
    let taken = begin.elapsed();
    assert!(taken >= Duration::from_secs(3), "{taken:?}");
    for answer in [first, second] {
        assert_eq!((answer.status(), answer.text().as_str()), ("401", "no"));
        assert!(
            answer
                .header("set-cookie")
                .unwrap()
                .starts_with("__Host-PBSAuthCookie=; Expires=")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocking_handlers_do_not_hold_up_others() {
    let setting = Arc::new(start().await);
    let slow: Vec<_> = (0..8)
        .map(|_| {
            let setting = Arc::clone(&setting);
            tokio::spawn(async move {
                setting
                    .get("/api2/json/test/slow", &[])
                    .await
                    .status()
                    .to_owned()
            })
        })
        .collect();
    setting.is_well().await;
    let pending = slow.iter().filter(|request| !request.is_finished()).count();
    for request in slow {
        assert_eq!(request.await.unwrap(), "200");
    }
    assert!(pending > 0, "a ping came back only after all slow requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_deflated_for_who_asks() {
    let setting = start().await;
    let answer = setting
        .get("/api2/json/ping", &[("Accept-Encoding", "gzip, deflate")])
        .await;
    assert_eq!(answer.header("content-encoding"), Some("deflate"));
    let mut text = String::new();
    flate2::read::ZlibDecoder::new(&answer.body[..])
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, r#"{"data":{"pong":true}}"#);
    assert_eq!(
        setting
            .get("/api2/json/ping", &[("Accept-Encoding", "gzip")])
            .await
            .header("content-encoding"),
        None
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_but_the_open_ones_refuses_strangers() {
    let setting = start().await;
    let endpoints: Vec<(Method, String)> = setting
        .handle
        .server()
        .tree()
        .endpoints()
        .into_iter()
        .filter(|endpoint| !matches!(endpoint.permission, Permission::World))
        .map(|endpoint| (endpoint.method, endpoint.path.replace(['{', '}'], "")))
        .collect();
    assert!(endpoints.len() > 5);
    let address = setting.handle.addr();
    let requests: Vec<_> = endpoints
        .into_iter()
        .map(|(method, path)| {
            tokio::task::spawn_blocking(move || {
                let method = format!("{method:?}").to_uppercase();
                let headers = [("Connection".to_owned(), "close".to_owned())];
                let answer = send(
                    address,
                    &method,
                    &format!("/api2/json{path}"),
                    &headers,
                    b"",
                )
                .unwrap();
                (format!("{method} {path}"), answer)
            })
        })
        .collect();
    for request in requests {
        let (what, answer) = request.await.unwrap();
        assert_eq!(
            (answer.status(), answer.text().as_str()),
            ("401", "authentication failed"),
            "{what}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_makes_an_administrator_who_can_log_in_and_do_everything() {
    let setting = start().await;
    let address = setting.handle.addr();
    let (user, password) = {
        let administrator = setting.handle.administrator().unwrap();
        (
            administrator.user.to_string(),
            administrator.password.to_string(),
        )
    };
    let reply = tokio::task::spawn_blocking(move || {
        let body = serde_json::json!({ "username": user, "password": password }).to_string();
        let headers = [
            ("Connection".to_owned(), "close".to_owned()),
            ("Content-Type".to_owned(), "application/json".to_owned()),
            ("Content-Length".to_owned(), body.len().to_string()),
        ];
        send(
            address,
            "POST",
            "/api2/json/access/ticket",
            &headers,
            body.as_bytes(),
        )
        .unwrap()
    })
    .await
    .unwrap();
    assert_eq!(reply.status(), "200", "{}", reply.text());
    let ticket = reply.json()["data"]["ticket"].as_str().unwrap().to_owned();
    let cookie = format!("PBSAuthCookie={ticket}");
    let answer = setting
        .get("/api2/json/nodes/localhost/status", &[("Cookie", &cookie)])
        .await;
    assert_eq!(answer.status(), "200", "{}", answer.text());
    let known = setting.handle.fingerprint().to_string();
    assert_eq!(
        answer.json()["data"]["info"]["fingerprint"].as_str(),
        Some(known.as_str())
    );
    let logs = setting.handle.server().roots().api_logs();
    let dir = setting.dir;
    setting.handle.shutdown(Duration::from_secs(5)).await;
    let log = fs::read_to_string(logs.join("auth.log")).unwrap();
    assert!(
        log.contains("successful auth for user 'admin@pbs'"),
        "{log}"
    );
    assert!(!log.contains(&ticket));
    drop(dir);
}

/// Makes users with one token each, who hold these roles on these paths. Returns the headers that log them in.
fn log_in_with_roles(setting: &Setting, roles: [(&str, &str, &str); 3]) -> Vec<String> {
    let etc = setting.handle.server().roots().etc();
    let users: String = roles
        .iter()
        .map(|(user, ..)| format!("user: {user}@pbs\n\n"))
        .collect();
    let acl: String = roles
        .iter()
        .map(|(user, path, role)| format!("acl:1:{path}:{user}@pbs,{user}@pbs!t:{role}\n"))
        .collect();
    fs::write(etc.join("user.cfg"), users).unwrap();
    fs::write(etc.join("acl.cfg"), acl).unwrap();
    let config = setting.handle.server().config();
    roles
        .iter()
        .map(|(user, ..)| {
            let user: backstop_types::UserId = format!("{user}@pbs").parse().unwrap();
            let name = "t".parse().unwrap();
            let token =
                crate::access::token::generate(config, &user, &name, Default::default(), None);
            let secret = token.unwrap().value;
            format!("PBSAPIToken={user}!t:{secret}")
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_told_as_far_as_the_caller_may_see_them() {
    use crate::metrics::{Generation, Kind, Reading};

    let setting = start().await;
    let callers = log_in_with_roles(
        &setting,
        [
            ("all", "/", "Audit"),
            ("one", "/datastore/store1", "DatastoreAudit"),
            ("backup", "/datastore/store1", "DatastoreBackup"),
        ],
    );
    let get = async |caller: &str, query: &str| {
        let path = format!("/api2/json/status/metrics{query}");
        let answer = setting.get(&path, &[("Authorization", caller)]).await;
        assert_eq!(answer.status(), "200", "{}", answer.text());
        answer.json()["data"]["data"].as_array().unwrap().clone()
    };

    // The sampler has just been started.
    let begin = std::time::Instant::now();
    let first = loop {
        let points = get(&callers[0], "").await;
        if !points.is_empty() {
            break points;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "no sample");
    };
    assert!(first.iter().all(|point| point["id"] == "host"));
    assert!(first.iter().any(|point| point["metric"] == "mem_total"
        && point["type"] == "gauge"
        && point["value"].as_f64().unwrap() > 0.0));

    let time = first[0]["timestamp"].as_i64().unwrap() + 100;
    let readings = vec![Reading {
        metric: "disk_read",
        kind: Kind::Derive,
        value: 512.0,
    }];
    setting.handle.server().metrics().push(Generation {
        time,
        host: readings.clone(),
        datastores: vec![
            ("store1".parse().unwrap(), readings.clone()),
            ("store2".parse().unwrap(), readings),
        ],
        disks: Vec::new(),
    });
    let point = |id: &str| {
        serde_json::json!({
            "id": id, "metric": "disk_read", "timestamp": time, "type": "derive", "value": 512.0,
        })
    };
    let (host, one, two) = (
        point("host"),
        point("datastore/store1"),
        point("datastore/store2"),
    );
    let query = format!("?history=true&start-time={}", time - 1);
    assert_eq!(get(&callers[0], &query).await, [host, one.clone(), two]);
    assert_eq!(get(&callers[1], &query).await, [one]);
    assert!(get(&callers[2], &query).await.is_empty());
    let query = format!("?history=true&start-time={time}");
    assert!(get(&callers[0], &query).await.is_empty());
    let all = get(&callers[0], "?history=true").await;
    assert!(all.starts_with(&first), "{all:?}");
    setting.handle.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_seen_and_changed_by_those_who_may_where_they_work() {
    let setting = start().await;
    let callers = log_in_with_roles(
        &setting,
        [
            ("all", "/", "Admin"),
            ("look", "/datastore/store1", "DatastoreAudit"),
            ("part", "/datastore/store1/a", "DatastoreAdmin"),
        ],
    );
    let [all, look, part] = [&callers[0], &callers[1], &callers[2]];
    let address = setting.handle.addr();
    let call = async |method: &'static str, path: &str, caller: &str, body: &'static str| {
        let path = format!("/api2/json/{path}");
        let length = body.len().to_string();
        let headers = [
            ("Connection", "close"),
            ("Content-Length", &length),
            ("Authorization", caller),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        tokio::task::spawn_blocking(move || {
            send(address, method, &path, &headers, body.as_bytes()).unwrap()
        })
        .await
        .unwrap()
    };
    for body in [
        "id=aaa&store=store1&schedule=daily&ns=a",
        "id=bbb&store=store1&schedule=daily",
        "id=ccc&store=store2&schedule=daily&disable=1",
    ] {
        assert_eq!(
            call("POST", "config/prune", all, body).await.status(),
            "200"
        );
    }
    for list in ["config/prune", "admin/prune"] {
        for (caller, ids) in [(all, "aaa bbb ccc"), (look, "aaa bbb"), (part, "aaa")] {
            let answer = call("GET", list, caller, "").await.json();
            let jobs = answer["data"].as_array().unwrap();
            let seen: Vec<&str> = jobs.iter().map(|job| job["id"].as_str().unwrap()).collect();
            assert_eq!(seen.join(" "), ids, "{list}");
            for job in jobs {
                let has_next = list == "admin/prune" && job["id"] != "ccc";
                assert_eq!(job["next-run"].is_i64(), has_next, "{job}");
            }
        }
    }
    for (method, path, caller, body, status) in [
        ("GET", "config/prune/bbb", part, "", "403"),
        ("GET", "config/prune/bbb", look, "", "200"),
        (
            "POST",
            "config/prune",
            look,
            "id=ddd&store=store1&schedule=daily",
            "403",
        ),
        ("PUT", "config/prune/aaa", look, "keep-last=3", "403"),
        ("PUT", "config/prune/aaa", part, "keep-last=3", "200"),
        // Not to where the caller has no rights.
        ("PUT", "config/prune/aaa", part, "ns=b", "403"),
        ("PUT", "config/prune/aaa", part, "schedule=24:00", "400"),
        ("POST", "admin/prune/bbb/run", look, "", "403"),
        ("POST", "admin/prune/zzz/run", all, "", "400"),
        ("DELETE", "config/prune/aaa", look, "", "403"),
        ("DELETE", "config/prune/zzz", all, "", "404"),
    ] {
        let answer = call(method, path, caller, body).await;
        assert_eq!(
            answer.status(),
            status,
            "{method} {path} {body}: {}",
            answer.text()
        );
    }
    let job = call("GET", "config/prune/aaa", all, "").await.json();
    let expected = r#"{"id":"aaa","keep-last":3,"ns":"a","schedule":"daily","store":"store1"}"#;
    assert_eq!(job["data"].to_string(), expected);
    assert_eq!(
        call("DELETE", "config/prune/aaa", part, "").await.status(),
        "200"
    );
    setting.handle.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_tells_browsers_to_be_careful() {
    let setting = start().await;
    for path in ["/", "/api2/json/ping", "/api2/json/version", "/absent"] {
        let answer = setting.get(path, &[]).await;
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
        assert_eq!(
            answer.header("referrer-policy"),
            Some("no-referrer"),
            "{path}"
        );
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{path}"
        );
        // The certificate is self-signed.
        assert_eq!(answer.header("strict-transport-security"), None, "{path}");
    }
    let ping = setting.get("/api2/json/ping", &[]).await;
    assert_eq!(ping.header("cache-control"), Some("no-store"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_tells_who_changed_what_from_where_and_no_secret() {
    let setting = start().await;
    let callers = log_in_with_roles(
        &setting,
        [
            ("all", "/", "Admin"),
            ("look", "/", "Audit"),
            ("none", "/x", "Audit"),
        ],
    );
    let address = setting.handle.addr();
    let call =
        async |method: &'static str, path: &'static str, caller: &str, body: &'static str| {
            let length = body.len().to_string();
            let headers = [
                ("Connection", "close"),
                ("Content-Length", &length),
                ("Authorization", caller),
                ("Content-Type", "application/x-www-form-urlencoded"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
            tokio::task::spawn_blocking(move || {
                send(address, method, path, &headers, body.as_bytes()).unwrap()
            })
            .await
            .unwrap()
        };
    let users = "/api2/json/access/users";
    call(
        "POST",
        users,
        &callers[0],
        "userid=new@pbs&password=Very-Secret-1&comment=Very-Secret-2",
    )
    .await;
    call(
        "PUT",
        "/api2/json/access/acl",
        &callers[0],
        "path=/datastore&role=Audit&auth-id=new@pbs",
    )
    .await;
    call(
        "POST",
        users,
        &callers[1],
        "userid=other@pbs&password=Very-Secret-3",
    )
    .await;
    call("GET", users, &callers[0], "").await;
    call("GET", users, "PBSAPIToken=all@pbs!t:Very-Secret-4", "").await;
    let logs = setting.handle.server().roots().api_logs();
    let _dir = setting.dir;
    setting.handle.shutdown(Duration::from_secs(5)).await;
    let text = fs::read_to_string(logs.join("audit.log")).unwrap();
    assert!(!text.contains("Very-Secret"), "{text}");
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // The start itself made somebody who can log in.
    let first = lines.first().unwrap();
    assert_eq!(
        (&first["event"], &first["user"], &first["from"]),
        (&"user-created".into(), &"admin@pbs".into(), &"local".into())
    );
    let told: Vec<String> = lines
        .iter()
        .skip(1)
        .map(|line| {
            assert!(
                line["from"].as_str().unwrap().starts_with("127.0.0.1:"),
                "{line}"
            );
            let mut line = line.clone();
            for key in ["from", "time"] {
                line.as_object_mut().unwrap().remove(key);
            }
            line.to_string()
        })
        .collect();
    let all = r#""user":"all@pbs!t""#;
    let expected = [
        format!(r#"{{"event":"request","method":"POST","others":["comment","password"],"parameters":{{"userid":"new@pbs"}},"path":"/access/users","status":200,{all}}}"#),
        format!(r#"{{"event":"request","method":"PUT","parameters":{{"auth-id":"new@pbs","path":"/datastore","propagate":true,"role":"Audit"}},"path":"/access/acl","status":200,{all}}}"#),
        r#"{"event":"request","method":"POST","path":"/access/users","status":403,"user":"look@pbs!t"}"#.to_owned(),
        format!(r#"{{"event":"login","outcome":"refused","reason":"invalid credentials",{all}}}"#),
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(&expected) {
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let (mut told, expected) = (value(told), value(expected));
        // Defaults may be told, too.
        if expected["parameters"]["propagate"].is_boolean()
            && told["parameters"]["propagate"].is_null()
        {
            told["parameters"]["propagate"] = true.into();
        }
        assert_eq!(told, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ciphers_of_the_host_are_those_that_a_connection_gets() {
    let setting = start().await;
    let server = Arc::clone(setting.handle.server());
    let address = setting.handle.addr();
    let negotiated = || async move {
        tokio::task::spawn_blocking(move || {
            let mut stream = connect(address).unwrap();
            stream
                .write_all(b"GET /api2/json/ping HTTP/1.1\r\nConnection: close\r\n\r\n")
                .unwrap();
            stream.read_exact(&mut [0; 12]).unwrap();
            stream.conn.negotiated_cipher_suite().unwrap().suite()
        })
        .await
        .unwrap()
    };
    for (name, suite) in [
        (
            "TLS_CHACHA20_POLY1305_SHA256",
            rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        ),
        (
            "TLS_AES_128_GCM_SHA256",
            rustls::CipherSuite::TLS13_AES_128_GCM_SHA256,
        ),
    ] {
        fs::write(
            server.roots().etc().join("node.cfg"),
            format!("ciphers-tls-1.3: {name}\n"),
        )
        .unwrap();
        choose_ciphers(&server);
        assert_eq!(negotiated().await, suite);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_trusted_proxy_the_address_of_the_client_counts_and_is_logged() {
    let real_ip = RealIp::new("X-Real-IP", Some("127.0.0.1")).unwrap();
    let setting = start_behind(Some(real_ip)).await;
    let path = "/api2/json/version";
    let token = ("Authorization", "PBSAPIToken=root@pam!x:wrong");
    setting
        .get(path, &[("X-Real-IP", "192.0.2.7"), token])
        .await;
    setting
        .get("/api2/json/ping", &[("X-Real-IP", "2001:db8::7")])
        .await;
    setting
        .get("/api2/json/ping", &[("X-Real-IP", "nonsense")])
        .await;
    let logs = setting.handle.server().roots().api_logs();
    let _dir = setting.dir;
    setting.handle.shutdown(Duration::from_secs(5)).await;
    let read = |name: &str| fs::read_to_string(logs.join(name)).unwrap();
    let access = read("access.log");
    let first: Vec<&str> = access
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(first, ["192.0.2.7", "2001:db8::7", "127.0.0.1"], "{access}");
    assert!(read("auth.log").contains("rhost=192.0.2.7:0 "));
    assert!(read("audit.log").contains(r#""from":"192.0.2.7:0""#));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_for_a_terminal_is_checked_for_the_program_that_serves_it() {
    let setting = start().await;
    log_in_with_roles(
        &setting,
        [
            ("ops", "/system", "Admin"),
            ("look", "/", "Audit"),
            ("none", "/x", "Audit"),
        ],
    );
    let server = Arc::clone(setting.handle.server());
    let address = setting.handle.addr();
    let post = async |path: &'static str, body: serde_json::Value| {
        let body = body.to_string();
        let headers = [
            ("Connection", "close".to_owned()),
            ("Content-Length", body.len().to_string()),
            ("Content-Type", "application/json".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        tokio::task::spawn_blocking(move || {
            send(address, "POST", path, &headers, body.as_bytes()).unwrap()
        })
        .await
        .unwrap()
    };
    let access = server.access();
    let ticket = access.terminal_ticket("ops@pbs", "/system", 5900);
    let asked = serde_json::json!({
        "username": "ops@pbs", "password": ticket, "path": "/system", "privs": "Sys.Console", "port": 5900
    });
    let good = post("/api2/json/access/ticket", asked.clone()).await;
    // No ticket comes of it: it is no login.
    assert_eq!(
        good.json()["data"],
        serde_json::json!({"username": "ops@pbs"})
    );
    let with = |name: &str, value: serde_json::Value| {
        let mut other = asked.clone();
        other[name] = value;
        other
    };
    let (port, path, privilege, user) = tokio::join!(
        post("/api2/json/access/ticket", with("port", 5901.into())),
        post("/api2/json/access/ticket", with("path", "/".into())),
        post(
            "/api2/json/access/ticket",
            with("privs", "Sys.Nonsense".into())
        ),
        post(
            "/api2/json/access/ticket",
            with("username", "look@pbs".into())
        ),
    );
    for refused in [port, path, privilege, user] {
        assert_eq!(
            (refused.status(), refused.text().as_str()),
            ("401", "permission check failed.")
        );
    }
    // The same for tokens, without being logged in.
    let verify = |auth_id: &str, privilege: &str| {
        let ticket = access.terminal_ticket(auth_id, "/system", 0);
        let asked = serde_json::json!({
            "authid": auth_id, "vncticket": ticket, "path": "/system", "privs": privilege
        });
        post("/api2/json/access/vncticket", asked)
    };
    let good = verify("ops@pbs!t", "Sys.Console").await;
    assert_eq!(
        (good.status(), good.text().as_str()),
        ("200", r#"{"data":null}"#)
    );
    let (missing, unknown) = tokio::join!(
        verify("look@pbs!t", "Sys.Console"),
        verify("nobody@pbs", "Sys.Console")
    );
    for refused in [missing, unknown] {
        assert_eq!(
            (refused.status(), refused.text().as_str()),
            ("400", "No such privilege")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_seen_a_job_end_can_start_it_again_at_once() {
    use crate::jobs::{self, JobId, JobKind};

    let setting = start().await;
    let store = setting.dir.path().join("store1");
    let options = backstop_datastore::CreateOptions::default();
    backstop_datastore::Datastore::create(&store, &options, &mut |_| {}).unwrap();
    let etc = setting.dir.path().join("etc/proxmox-backup");
    let text = format!("datastore: store1\n\tpath {}\n", store.display());
    fs::write(etc.join("datastore.cfg"), text).unwrap();
    let text = "prune: again\n\tkeep-last 1\n\tschedule daily\n\tstore store1\n";
    fs::write(etc.join("prune.cfg"), text).unwrap();
    let server = Arc::clone(setting.handle.server());
    let job = JobId::new(JobKind::Prune, "again");
    for _ in 0..20 {
        let (own, job) = (Arc::clone(&server), job.clone());
        let start = move || jobs::start(&own, &job, &backstop_types::AuthId::root(), None);
        let upid = tokio::task::spawn_blocking(start).await.unwrap().unwrap();
        server.tasks().wait_for(&upid).await;
    }
    setting.handle.shutdown(Duration::from_secs(5)).await;
}
