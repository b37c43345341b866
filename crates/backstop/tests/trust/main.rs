//! Certificates that change: a sync goes on where the pinned key or an authority vouches for the new certificate, and fails at
//! once where nobody does. A man in the middle never sees a password.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../sync/world.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod world;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backstop_client::{ClientError, ClientOptions, HttpClient};
use serde_json::{Value, json};
use testbed::api::Api;
use testbed::authority::Authority;
use testbed::interceptor::Interceptor;
use testbed::push_receiver::PushReceiver;
use testbed::server::{ServerProcess, succeeded};
use world::{BINARY, World};

/// The fingerprint of the certificate that is shown there. Nobody is logged in.
fn shown(address: SocketAddr) -> String {
    let mut options = ClientOptions::new(
        address.ip().to_string(),
        address.port(),
        "nobody@pbs".parse().unwrap(),
    );
    options.secret = Some("not sent".to_owned());
    options.trust_system_authorities = false;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    match runtime.block_on(HttpClient::connect(options)) {
        Err(ClientError::Untrusted(untrusted)) => untrusted.presented.fingerprint.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("trusted"),
    }
}

/// Waits until another certificate than `former` is shown; says which.
fn wait_for_change(address: SocketAddr, former: &str) -> String {
    let begin = Instant::now();
    loop {
        let shown = shown(address);
        if shown != former {
            return shown;
        }
        assert!(begin.elapsed() < Duration::from_secs(120), "no change");
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl World {
    /// Renews the certificate of the source at once, without announcing it.
    fn renew(&self) -> String {
        let former = shown(self.there.address);
        let words = ["cert", "update", "--force", "--now"];
        self.there.ok("manager", &words).unwrap();
        wait_for_change(self.there.address, &former)
    }

    /// A source with a snapshot and a job that has pulled it.
    fn synced(&self) {
        self.write("disk", 7, 1);
        self.backup_image("x", 1_700_000_000);
        self.add_job("job1", &["--owner", "admin@pbs"]);
        let (log, end) = self.run_job("job1");
        assert_eq!(end, "OK", "{log}");
    }

    /// Runs the job, which has a further snapshot to fetch; its log.
    fn goes_on(&self, time: i64) -> String {
        // The tools of the tests pin what the server showed at its start.
        let spec = format!("disk.img:{}", self.path("disk").display());
        let time = time.to_string();
        let mut backup = self.there.command("client", "store1");
        backup
            .args(["backup", &spec, "--backup-id", "x", "--backup-time", &time])
            .env("PBS_FINGERPRINT", shown(self.there.address));
        succeeded(&backup.output().unwrap()).unwrap();
        let (log, end) = self.run_job("job1");
        assert_eq!(end, "OK", "{log}");
        let name = format!("host/x/{time}");
        assert!(self.snapshots("").contains(&name), "{log}");
        log
    }

    fn config(&self) -> String {
        fs::read_to_string(self.here.root.join("etc/proxmox-backup/remote.cfg")).unwrap()
    }

    fn remote(&self) -> Value {
        self.api.get("config/remote/there").unwrap()
    }
}

#[test]
fn an_announced_certificate_is_taken_for_the_old_one_and_written_down() {
    let world = World::new();
    world.synced();
    let first = world.there.fingerprint.clone();
    let manager = |words: &[&str]| world.there.run("manager", words).unwrap();
    let announced = manager(&["cert", "update", "--force", "--grace", "7d"]);
    let said = String::from_utf8_lossy(&announced.stderr).into_owned();
    assert!(
        announced.status.success() && said.contains("announced"),
        "{said}"
    );
    assert_eq!(shown(world.there.address), first, "it is not used yet");
    let next = manager(&["cert", "next", "--output-format", "json"]);
    let next: Value = serde_json::from_slice(&next.stdout).unwrap();
    let second = next["fingerprint"].as_str().unwrap();

    // The job learns of it, and shows it.
    world.goes_on(1_700_000_001);
    assert_eq!(world.remote()["next-fingerprint"], second);
    assert!(world.config().contains(&first));
    let key = world
        .there
        .root
        .join("etc/proxmox-backup/backstop-next-certificate.json");
    assert_eq!(
        fs::metadata(key).unwrap().permissions().mode() & 0o777,
        0o600
    );

    succeeded(&manager(&["cert", "switch"])).unwrap();
    assert_eq!(wait_for_change(world.there.address, &first), second);
    let log = world.goes_on(1_700_000_002);
    let line = log
        .lines()
        .find(|line| line.contains("has changed"))
        .unwrap();
    for part in ["it was announced before", &first, second, "issuer", "valid"] {
        assert!(line.contains(part), "{line}");
    }
    // Where a stock server sees it, too, and for whoever looks.
    assert!(world.config().contains(second) && !world.config().contains(&first));
    let remote = world.remote();
    assert_eq!(remote["fingerprint"], second);
    assert_eq!(remote["former-fingerprint"], *first);
    assert_eq!(remote["fingerprint-proof"], "announcement");
    assert!(remote.get("next-fingerprint").is_none(), "{remote}");
    let list = world.manager(&["remote", "list"]);
    assert!(list.contains("(announcement)"), "{list}");
    let show = world.manager(&["remote", "show", "there"]);
    assert!(show.contains("former-fingerprint"), "{show}");
    world
        .here
        .wait_for_log(&["has changed", "announced", second], 1)
        .unwrap();
    world.manager(&["remote", "check", "there"]);
    let log = world.goes_on(1_700_000_003);
    assert!(!log.contains("has changed"), "{log}");
}

#[test]
fn each_change_of_a_pin_is_in_the_audit_log_and_told() {
    let mut world = World::new();
    world.synced();
    let receiver = PushReceiver::start(|_| (200, String::new())).unwrap();
    let (url, hook) = (
        receiver.url("/told"),
        "notification endpoint webhook create hook --method post --url",
    );
    let words: Vec<&str> = hook.split(' ').chain([&*url]).collect();
    // "{{ title }}"
    world.manager(&[&words[..], &["--body", "e3sgdGl0bGUgfX0="]].concat());
    let matcher = "notification matcher create trust --match-field exact:type=trust --target hook";
    world.manager(&matcher.split(' ').collect::<Vec<_>>());
    let second = world.renew();
    world.goes_on(1_700_000_001);
    let told = receiver.wait_for(1);
    assert_eq!(told[0].text(), "Remote 'there' has another certificate");
    let file = world.here.root.join("var/log/proxmox-backup/api/audit.log");
    // A server that ends has written all of it.
    world.here.stop().unwrap();
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let pins: Vec<Value> = lines
        .filter(|line: &Value| line["event"] == "pin")
        .collect();
    assert_eq!(pins.len(), 1, "{text}");
    assert_eq!(pins[0]["remote"], "there");
    assert_eq!(pins[0]["proof"], "chain");
    assert_eq!(pins[0]["former"], *world.there.fingerprint);
    assert_eq!(pins[0]["fingerprint"], *second);
}

#[test]
fn a_server_switches_by_itself_when_the_time_has_come() {
    let world = World::new();
    world.synced();
    let words = ["cert", "update", "--force", "--grace", "1s"];
    world.there.ok("manager", &words).unwrap();
    let second = wait_for_change(world.there.address, &world.there.fingerprint);
    let info = world.there.ok("manager", &["cert", "info"]).unwrap();
    assert!(info.contains(&second), "{info}");
    let next = world.there.run("manager", &["cert", "next"]).unwrap();
    assert!(!next.status.success());
    world.goes_on(1_700_000_001);
}

#[test]
fn whoever_was_away_during_several_changes_follows_the_old_keys() {
    let world = World::new();
    world.synced();
    world.renew();
    let third = world.renew();
    let log = world.goes_on(1_700_000_001);
    assert!(log.contains("over 2 steps"), "{log}");
    assert!(world.config().contains(&third));
    assert_eq!(world.remote()["fingerprint-proof"], "chain");

    // Somebody copies files, as deploy hooks do: the key in memory signs for them.
    let folder = testbed::scratch::directory().unwrap();
    let authority = Authority::create(folder.path()).unwrap();
    let etc = world.there.root.join("etc/proxmox-backup");
    fs::copy(&authority.server_key, etc.join("proxy.key")).unwrap();
    fs::copy(&authority.server_certificate, etc.join("proxy.pem")).unwrap();
    let fourth = wait_for_change(world.there.address, &third);
    let log = world.goes_on(1_700_000_002);
    assert!(
        log.contains("the key of the old certificate signed it"),
        "{log}"
    );
    assert!(log.contains("authority of a test"), "{log}");
    assert!(world.config().contains(&fourth));
}

#[test]
fn without_proof_a_job_fails_at_once_and_says_what_accepts_the_certificate() {
    let mut world = World::new();
    world.synced();
    let (first, address) = (world.there.fingerprint.clone(), world.there.address);
    world.there.stop().unwrap();
    let etc = world.there.root.join("etc/proxmox-backup");
    for name in ["proxy.pem", "proxy.key"] {
        fs::remove_file(etc.join(name)).unwrap();
    }
    let root = world.there.root.clone();
    let password = world.there.password.clone();
    world.there = ServerProcess::start(Path::new(BINARY), &root, address).unwrap();
    world.there.password = password;
    let second = world.there.fingerprint.clone();
    assert_ne!(first, second);

    let (log, end) = world.run_job("job1");
    for part in [
        &format!("expected:    {first}"),
        &format!("presented:   {second}"),
        "subject:",
        "issuer:",
        "valid:",
        "nothing that the server shows was signed by the key that is pinned",
    ] {
        assert!(end.contains(part), "{part} is missing in\n{end}\n{log}");
    }
    assert!(world.config().contains(&first), "nothing was changed");
    let command = "proxmox-backup-manager remote update";
    let (_, command) = end.split_once(command).unwrap_or_else(|| panic!("{end}"));
    let words: Vec<&str> = command.split_whitespace().collect();
    assert_eq!(words, ["there", "--fingerprint", &second], "{end}");
    world.manager(&[&["remote", "update"], &words[..]].concat());
    world.goes_on(1_700_000_001);
    assert_eq!(world.remote()["fingerprint-proof"], "operator");
}

#[test]
fn a_man_in_the_middle_is_refused_and_sees_no_password() {
    let world = World::new();
    world.synced();
    let middle = Interceptor::start(world.there.address).unwrap();
    let port = middle.address.port().to_string();
    let through = ["remote", "update", "there", "--port", &port];
    world.manager(&through);
    let refused = |reason: &str| {
        let (log, end) = world.run_job("job1");
        assert!(end.contains("does not match expected fingerprint"), "{log}");
        assert!(end.contains(reason), "{reason} is missing in\n{end}");
    };
    refused("nothing that the server shows was signed by the key that is pinned");
    // It can show the true chain, which leads to the true server.
    let second = world.renew();
    refused(&format!("leads to another certificate, {second}"));
    let check = world
        .here
        .run("manager", &["remote", "check", "there"])
        .unwrap();
    assert!(!check.status.success());
    assert!(world.api.get("config/remote/there/scan").is_err());
    assert!(world.config().contains(&world.there.fingerprint));

    let heard = middle.heard();
    assert!(
        heard.contains("GET /api2/json/backstop/certificate-chain"),
        "{heard}"
    );
    for secret in [
        &*world.there.password,
        "access/ticket",
        "Cookie",
        "uthorization",
    ] {
        assert!(!heard.contains(secret), "{heard}");
    }
    // Past it, all is well.
    let port = world.port();
    world.manager(&["remote", "update", "there", "--port", &port]);
    world.goes_on(1_700_000_001);
}

/// A program that trusts an authority.
fn trusting(authority: &Authority, folder: &Path) -> PathBuf {
    let program = folder.join("backstop");
    let script = format!(
        "#!/bin/sh\nexport SSL_CERT_FILE={}\nexec {BINARY} \"$@\"\n",
        authority.certificate.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

#[test]
fn an_authority_vouches_for_a_server_at_an_address_under_its_name() {
    const NAME: &str = "backup.example.test";
    let scratch = testbed::scratch::directory().unwrap();
    let authority = Authority::create(scratch.path()).unwrap();
    let program = trusting(&authority, scratch.path());
    let here = ServerProcess::with_datastore(&program, &scratch.path().join("here")).unwrap();
    let there =
        ServerProcess::with_datastore(Path::new(BINARY), &scratch.path().join("there")).unwrap();
    let api = Api::connect(&here).unwrap();
    let world = World {
        here,
        there,
        api,
        scratch,
    };
    let upload = |file: &str, name: &str| {
        let former = shown(world.there.address);
        let issued = authority
            .issue(world.scratch.path(), file, &[name])
            .unwrap();
        let files = [issued.0.to_str().unwrap(), issued.1.to_str().unwrap()];
        let words = ["cert", "upload", files[0], files[1], "--now"];
        world.there.ok("manager", &words).unwrap();
        wait_for_change(world.there.address, &former)
    };
    let (port, password) = (world.port(), world.there.password.clone());
    let remote = [
        "remote",
        "create",
        "there",
        "--host",
        "127.0.0.1",
        "--port",
        &port,
    ];
    let account = ["--auth-id", "admin@pbs", "--password", &password];
    let name = ["--tls-server-name", NAME];
    world.write("disk", 7, 1);
    world.backup_image("x", 1_700_000_000);
    let first = upload("first", NAME);
    world.manager(&[&remote[..], &account, &name].concat());
    world.add_job("job1", &["--owner", "admin@pbs"]);
    // What stock servers read knows nothing of it.
    assert!(!world.config().contains(NAME) && !world.config().contains("fingerprint"));
    assert_eq!(world.remote()["tls-server-name"], NAME);
    assert_eq!(
        world.goes_on(1_700_000_001).matches("has changed").count(),
        0
    );
    let check = world.manager(&["remote", "check", "there"]);
    assert!(check.contains(NAME), "{check}");

    // Renewed by the authority: nothing has to be done.
    assert_ne!(upload("second", NAME), first);
    world.goes_on(1_700_000_002);

    // Somebody else at the address gets nothing, and neither does a server of another name.
    let middle = Interceptor::start(world.there.address).unwrap();
    let through = middle.address.port().to_string();
    world.manager(&["remote", "update", "there", "--port", &through]);
    let (log, end) = world.run_job("job1");
    assert!(end.contains("was not confirmed"), "{log}");
    assert_eq!(middle.heard(), "");
    world.manager(&["remote", "update", "there", "--port", &port]);
    upload("other", "other.example.test");
    let (_, end) = world.run_job("job1");
    assert!(end.contains("certificate not valid for name"), "{end}");
    assert!(end.contains("remote update there --fingerprint"), "{end}");

    // Without the name, the host counts again.
    world.manager(&["remote", "update", "there", "--delete", "tls-server-name"]);
    assert!(world.remote().get("tls-server-name").is_none());
    let (_, end) = world.run_job("job1");
    assert!(end.contains("127.0.0.1"), "{end}");
}

#[test]
fn the_api_announces_certificates_shows_them_and_withdraws_them() {
    let mut world = World::new();
    let authority = Authority::create(world.scratch.path()).unwrap();
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let api = Api::connect(&world.there).unwrap();
    let custom = "nodes/localhost/certificates/custom";
    let pair = json!({
        "certificates": read(&authority.server_certificate), "key": read(&authority.server_key),
        "restart": true, "force": true,
    });
    let announced = |api: &Api| {
        api.get("backstop/certificate")
            .unwrap()
            .get("next")
            .cloned()
    };
    let list = api.post(custom, pair.clone()).unwrap();
    let next = list[1]["fingerprint"].as_str().unwrap().to_owned();
    assert_eq!(list[0]["fingerprint"], *world.there.fingerprint);
    assert!(list[1]["switch-at"].as_i64().unwrap() > list[0]["notbefore"].as_i64().unwrap());
    assert!(!list.to_string().contains("PRIVATE"));
    let status = api.get("backstop/certificate").unwrap();
    assert_eq!(status["fingerprint"], *world.there.fingerprint);
    assert_eq!(status["next"]["fingerprint"], *next);
    assert_eq!(status["grace"], 86400);
    let withdraw = api.client.delete("backstop/certificate/next", Value::Null);
    assert_eq!(api.runtime.block_on(withdraw).unwrap(), *next);
    assert_eq!(announced(&api), None);

    // A key that does not fit is refused, and nothing is announced.
    let strangers = json!({
        "certificates": read(&authority.server_certificate),
        "key": read(&world.there.root.join("etc/proxmox-backup/proxy.key")),
    });
    assert!(api.post(custom, strangers).is_err());
    assert!(
        api.post(custom, json!({"certificates": "nothing"}))
            .is_err()
    );
    assert_eq!(announced(&api), None);

    // Without a time of announcement it is as on a stock server.
    let grace = api
        .client
        .put("backstop/certificate", json!({"grace": "0s"}));
    api.runtime.block_on(grace).unwrap();
    let list = api.post(custom, pair).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list[0]["fingerprint"], *next);
    assert_eq!(shown(world.there.address), next);

    // And back to one that signs itself, with a time of its own.
    world.there.fingerprint.clone_from(&next);
    let api = Api::connect(&world.there).unwrap();
    let renew = api.client.delete(custom, json!({"grace": "2h"}));
    api.runtime.block_on(renew).unwrap();
    assert_eq!(shown(world.there.address), next);
    let shows = world.there.ok("manager", &["cert", "next"]).unwrap();
    assert!(shows.contains("Backstop"), "{shows}");
    let switch = api.post("backstop/certificate/switch", json!({})).unwrap();
    assert_eq!(shown(world.there.address), switch.as_str().unwrap());
    let grace = world.there.ok("manager", &["cert", "grace"]).unwrap();
    assert_eq!(grace, "0s\n");
}

/// What the announcing side does with a configuration.
fn announced_with(world: &World, text: &str) -> std::process::Output {
    let path = world.path("cert-announce.conf");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let words = ["announce", "--config", path.to_str().unwrap()];
    world.there.run("cert", &words).unwrap()
}

/// What it does for one server, whose fingerprint it knows.
fn announcement(world: &World, remote: &str, token: &str, secret: &str) -> std::process::Output {
    let address = world.here.address;
    let (ip, port, pin) = (address.ip(), address.port(), &world.here.fingerprint);
    let text = format!(
        "[puller]\nserver: {ip}\nport: {port}\nfingerprint: {pin}\ntoken: {token}\nsecret: {secret}\nremote: {remote}\n"
    );
    announced_with(world, &text)
}

/// A token of the server that pulls, as its manager makes one.
fn token_of(world: &World, user: &str, name: &str) -> String {
    let manager = |words: &[&str]| world.here.ok("manager", words).unwrap();
    manager(&["user", "create", user, "--password", "password1"]);
    let said = manager(&["user", "generate-token", user, name]);
    let token: Value = serde_json::from_str(&said[said.find('{').unwrap()..]).unwrap();
    token["value"].as_str().unwrap().to_owned()
}

#[test]
fn a_puller_by_ip_is_told_under_its_name_and_a_monitor_is_told_how_it_went() {
    const TOKEN: &str = "announce@pbs!there";
    let world = World::new();
    let secret = token_of(&world, "announce@pbs", "there");
    world
        .here
        .ok("cert", &["announcer", "there", TOKEN])
        .unwrap();
    // The server that pulls has a certificate of an authority of its own, by name alone.
    let authority = Authority::create(world.scratch.path()).unwrap();
    let names = ["puller.example.org"];
    let issued = authority.issue(world.scratch.path(), "puller", &names);
    let (certificate, key) = issued.unwrap();
    let former = shown(world.here.address);
    let api = Api::connect(&world.here).unwrap();
    let grace = api
        .client
        .put("backstop/certificate", json!({"grace": "0s"}));
    api.runtime.block_on(grace).unwrap();
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let pair = json!({
        "certificates": read(&certificate), "key": read(&key), "restart": true, "force": true,
    });
    api.post("nodes/localhost/certificates/custom", pair)
        .unwrap();
    wait_for_change(world.here.address, &former);

    let monitor = PushReceiver::start(|_| (200, r#"{"ok":true}"#.to_owned())).unwrap();
    let url = format!("url: {}\n", monitor.url("/api/push/T0kenT0ken"));
    let section = |label: &str, trust: &str| {
        let address = world.here.address;
        format!(
            "[{label}]\nserver: {}\nport: {}\n{trust}token: {TOKEN}\nsecret: {secret}\nremote: there\n",
            address.ip(),
            address.port()
        )
    };
    let ca = format!("ca-file: {}\n", authority.certificate.display());
    let named = ca.clone() + "tls-server-name: puller.example.org\n";
    let other = ca.clone() + "tls-server-name: other.example.org\n";
    let text = |output: &std::process::Output| {
        let said = [&output.stdout[..], &output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(!said.contains(&secret) && !said.contains("T0ken"), "{said}");
        said
    };
    let good = announced_with(&world, &(url.clone() + &section("puller", &named)));
    assert_eq!(
        (text(&good).as_str(), good.status.success()),
        ("puller: pinned\n", true)
    );
    // Whatever is wrong with one of them, the others are told.
    let mixed = [
        url.clone(),
        section("other", &other),
        section("ip", &ca),
        section("unnamed", "tls-server-name: puller.example.org\n"),
        "[half]\nserver: 192.0.2.1\n".to_owned(),
        "[odd]\nservers: 192.0.2.1\n".to_owned(),
        section("puller", &named),
    ];
    let bad = announced_with(&world, &mixed.concat());
    let said = text(&bad);
    assert!(
        !bad.status.success() && said.contains("puller: pinned\n"),
        "{said}"
    );
    for label in ["other", "ip", "unnamed", "half", "odd"] {
        assert!(said.contains(&format!("{label}: not told - ")), "{said}");
    }
    let pushes = monitor.received();
    let told: Vec<_> = pushes
        .iter()
        .map(|push| push.parameter("status").unwrap())
        .collect();
    assert_eq!(told, ["up", "down"]);
    let message = pushes[1].parameter("msg").unwrap();
    assert!(
        message.contains("other: not told - ") && !message.contains(&secret),
        "{message}"
    );

    // A certificate that is not there is no silence, and a monitor that does not take it is said.
    let config = world.path("cert-announce.conf");
    let config = config.to_str().unwrap();
    let words = [
        "announce",
        "--config",
        config,
        "--certificate",
        "/does/not/exist",
    ];
    assert!(!world.there.run("cert", &words).unwrap().status.success());
    assert_eq!(monitor.received()[2].parameter("status").unwrap(), "down");
    monitor.answer_with(|_| (200, r#"{"ok":false}"#.to_owned()));
    let untold = announced_with(&world, &(url + &section("puller", &named)));
    let said = text(&untold);
    assert!(
        !untold.status.success() && said.contains("puller: pinned\n"),
        "{said}"
    );
    // Settings of a monitor without its URL are a mistake.
    let nobody = announced_with(
        &world,
        &("timeout: 5\n".to_owned() + &section("puller", &named)),
    );
    assert!(text(&nobody).contains("names no url"), "{nobody:?}");
}

#[test]
fn a_host_that_tells_of_its_new_certificate_is_believed_once_it_shows_it() {
    const TOKEN: &str = "announce@pbs!there";
    let world = World::new();
    world.synced();
    let first = world.there.fingerprint.clone();
    let secret = &token_of(&world, "announce@pbs", "there");
    let text = |output: &std::process::Output| {
        String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
    };

    // As with a stock server, there is no chain that proves anything.
    let second = world.renew();
    let chain = world
        .there
        .root
        .join("etc/proxmox-backup/backstop-certificate.json");
    fs::remove_file(chain).unwrap();
    let (log, end) = world.run_job("job1");
    assert_ne!(end, "OK", "{log}");

    // Nobody has named the token an announcer yet.
    let refused = announcement(&world, "there", TOKEN, secret);
    assert!(!refused.status.success(), "{}", text(&refused));
    assert!(!text(&refused).contains(secret));
    let here = |words: &[&str]| world.here.ok("cert", words).unwrap();
    here(&["announcer", "there", TOKEN]);
    assert_eq!(world.remote()["announcer"], TOKEN);
    assert!(
        !announcement(&world, "other", TOKEN, secret)
            .status
            .success()
    );
    assert!(
        !announcement(&world, "there", TOKEN, "wrong")
            .status
            .success()
    );
    // It can do nothing else.
    let narrow = Api::log_in(&world.here, TOKEN, secret).unwrap();
    assert_eq!(narrow.get("config/remote").unwrap(), json!([]));
    assert!(narrow.get("config/remote/there").is_err());
    let change = json!({ "fingerprint": second });
    assert!(narrow.put("config/remote/there", change).is_err());

    // What is announced and never shown changes nothing.
    let never = ["ab"; 32].join(":");
    narrow
        .post(
            "backstop/remote/there/certificate",
            json!({ "fingerprint": never }),
        )
        .unwrap();
    assert_eq!(world.remote()["next-fingerprint"], never);
    let (log, end) = world.run_job("job1");
    assert_ne!(end, "OK", "{log}");
    assert!(world.config().contains(&first) && !world.config().contains(&never));

    let told = announcement(&world, "there", TOKEN, secret);
    assert_eq!(
        (text(&told).as_str(), told.status.success()),
        ("puller: announced\n", true)
    );
    assert_eq!(world.remote()["next-fingerprint"], second);
    assert!(
        world.config().contains(&first),
        "nothing is pinned before it is shown"
    );
    world.goes_on(1_700_000_001);
    let remote = world.remote();
    assert_eq!(remote["fingerprint"], second);
    assert_eq!(remote["former-fingerprint"], first);
    assert_eq!(remote["fingerprint-proof"], "announcement");
    let again = announcement(&world, "there", TOKEN, secret);
    assert_eq!(text(&again), "puller: pinned\n");
    here(&["announcer", "there"]);
    assert!(
        !announcement(&world, "there", TOKEN, secret)
            .status
            .success()
    );
}
