#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicI64, Ordering};

use backstop_types::Role;
use base64::Engine;
use serde_json::{Map, json};

use super::super::acl::AclChange;
use super::super::{
    INITIAL_PASSWORD_FILE, LoginError, LoginRequest, acl, create_administrator, password, token,
    user,
};
use super::*;
use crate::config::EditError;

/// Time of the captures of the reference servers.
const NOW: i64 = 0x6B00_CBBD;

pub(in crate::access) struct Setup {
    pub(in crate::access) dir: tempfile::TempDir,
    pub(in crate::access) access: AccessControl,
    pub(in crate::access) now: Arc<AtomicI64>,
}

impl Setup {
    /// Lets time pass.
    pub(in crate::access) fn pass(&self, seconds: i64) {
        self.now.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl AccessControl {
    /// A ticket for a terminal, as a stock server makes it.
    pub(crate) fn terminal_ticket(&self, auth_id: &str, path: &str, port: u16) -> String {
        let text = format!("PBSTERM::{:08X}", self.now());
        let signed = format!("{text}:{auth_id}{path}{port}");
        let signature = self.keys.ticket.sign(signed.as_bytes()).unwrap();
        let signature = base64::engine::general_purpose::STANDARD_NO_PAD.encode(signature);
        format!("{text}::{signature}")
    }
}

/// Access control over a copy of a reference server's configuration.
pub(in crate::access) fn setup(version: &str) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let etc = format!(
        "{}/../../tests/fixtures/{version}/etc-proxmox-backup",
        env!("CARGO_MANIFEST_DIR")
    );
    for entry in std::fs::read_dir(etc).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    let wrapped = std::fs::read_to_string(dir.path().join("authkey.key.b64")).unwrap();
    let wrapped: String = wrapped.split_whitespace().collect();
    let key = base64::engine::general_purpose::STANDARD
        .decode(wrapped)
        .unwrap();
    std::fs::write(dir.path().join("authkey.key"), key).unwrap();
    let now = Arc::new(AtomicI64::new(NOW));
    let clock = Arc::clone(&now);
    let config = Arc::new(ConfigStore::new(dir.path()));
    let access = AccessControl::with_clock(config, move || clock.load(Ordering::Relaxed)).unwrap();
    Setup { dir, access, now }
}

fn capture(name: &str) -> serde_json::Value {
    let path = format!(
        "{}/../../tests/fixtures/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn captured_text(name: &str) -> String {
    capture(name)["body"].as_str().unwrap().to_string()
}

fn login<'a>(username: &'a str, password: &'a str) -> LoginRequest<'a> {
    LoginRequest {
        username,
        password: Some(password),
        ..LoginRequest::default()
    }
}

fn reason(error: &LoginError) -> String {
    error.to_string()
}

fn auth(text: &str) -> AuthId {
    text.parse().unwrap()
}

fn user_id(text: &str) -> UserId {
    text.parse().unwrap()
}

fn map(value: serde_json::Value) -> Map<String, serde_json::Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn a_login_gives_exactly_the_captured_reply() {
    let setup = setup("pbs-4.2.3");
    for (name, http_only) in [("004-ticket-legacy", false), ("005-ticket-http-only", true)] {
        let request = LoginRequest {
            http_only,
            ..login("fixture@pbs", "Fixture-Pw-42")
        };
        let reply = setup.access.login(&request).unwrap();
        let expected = capture(&format!("pbs-4.2.3/rest/{name}"));
        let body: serde_json::Value =
            serde_json::from_str(expected["body"].as_str().unwrap()).unwrap();
        assert_eq!(serde_json::to_value(&reply.record).unwrap(), body["data"]);
        let cookie = expected["headers"]
            .as_array()
            .unwrap()
            .iter()
            .find(|h| h[0] == "set-cookie");
        assert_eq!(
            reply.set_cookie.as_deref(),
            cookie.map(|h| h[1].as_str().unwrap())
        );
    }
}

#[test]
fn failed_logins_are_refused_with_a_reason_for_the_log() {
    let setup = setup("pbs-4.2.3");
    for (user, password, expected) in [
        ("fixture@pbs", "wrong-pw", "invalid credentials"),
        ("fixture@pbs", "PBS:x", "invalid credentials"),
        (
            "nobody@pbs",
            "nobody-pw",
            "user account disabled or expired.",
        ),
        (
            "nobody@nope",
            "nobody-pw",
            "user account disabled or expired.",
        ),
        (
            "disabled@pbs",
            "Disabled-Pw-42",
            "user account disabled or expired.",
        ),
        (
            "expired@pbs",
            "Expired-Pw-42",
            "user account disabled or expired.",
        ),
        (
            "fixture@pbs!tok1",
            "962b0733-e62e-49e2-b2e8-9d4714601178",
            "not a valid user id",
        ),
    ] {
        let error = setup.access.login(&login(user, password)).unwrap_err();
        assert_eq!(reason(&error), expected, "{user}");
        assert!(matches!(error, LoginError::Refused(_)));
    }
    let error = setup.access.login(&login("root@pam", "x")).unwrap_err();
    assert!(reason(&error).contains("realm pam"), "{error}");
    let request = LoginRequest {
        password: None,
        ..login("fixture@pbs", "")
    };
    assert_eq!(
        setup.access.login(&request).unwrap_err(),
        LoginError::Incomplete("no password provided")
    );
}

#[test]
fn a_ticket_renews_itself_for_its_user_only() {
    let setup = setup("pbs-4.2.3");
    let ticket = setup
        .access
        .login(&login("fixture@pbs", "Fixture-Pw-42"))
        .unwrap()
        .record
        .ticket
        .unwrap();
    setup.now.store(NOW + 7000, Ordering::Relaxed);
    let renewed = setup
        .access
        .login(&login("fixture@pbs", &ticket))
        .unwrap()
        .record
        .ticket
        .unwrap();
    assert_ne!(renewed, ticket);
    assert!(setup.access.login(&login("reader@pbs", &ticket)).is_err());
    setup.now.store(NOW + 7201, Ordering::Relaxed);
    assert!(setup.access.login(&login("fixture@pbs", &ticket)).is_err());
    assert!(setup.access.login(&login("fixture@pbs", &renewed)).is_ok());
}

#[test]
fn a_cookie_renews_itself_and_a_bad_one_falls_back_to_the_password() {
    let setup = setup("pbs-4.2.3");
    let ticket = setup
        .access
        .login(&login("fixture@pbs", "Fixture-Pw-42"))
        .unwrap()
        .record
        .ticket
        .unwrap();
    let request = |username, password, cookie| LoginRequest {
        username,
        password,
        cookie: Some(cookie),
        http_only: true,
        tfa_challenge: None,
        ..LoginRequest::default()
    };
    assert!(
        setup
            .access
            .login(&request("fixture@pbs", None, &ticket))
            .unwrap()
            .set_cookie
            .is_some()
    );
    assert!(
        setup
            .access
            .login(&request("reader@pbs", None, &ticket))
            .is_err()
    );
    assert!(
        setup
            .access
            .login(&request("fixture@pbs", Some("Fixture-Pw-42"), "bogus"))
            .is_ok()
    );
    assert!(
        setup
            .access
            .login(&request("fixture@pbs", Some(&ticket), "bogus"))
            .is_err()
    );
}

#[test]
fn a_changing_request_needs_the_token_of_the_same_user() {
    let setup = setup("pbs-4.2.3");
    let own = setup
        .access
        .login(&login("fixture@pbs", "Fixture-Pw-42"))
        .unwrap()
        .record;
    let other = setup
        .access
        .login(&login("reader@pbs", "Reader-Pw-42"))
        .unwrap()
        .record;
    let ticket = own.ticket.unwrap();
    let check = |csrf: Option<&str>, writes| {
        setup
            .access
            .check_ticket(&ticket, csrf, writes)
            .map_err(|refused| refused.reason)
    };
    assert_eq!(check(None, false), Ok(auth("fixture@pbs")));
    assert_eq!(
        check(own.csrf_token.as_deref(), true),
        Ok(auth("fixture@pbs"))
    );
    assert_eq!(
        check(None, true),
        Err("missing CSRF prevention token".to_string())
    );
    assert_eq!(
        check(other.csrf_token.as_deref(), true),
        Err("invalid csrf token - invalid signature.".to_string())
    );
    setup.now.store(NOW + 7201, Ordering::Relaxed);
    assert_eq!(
        check(None, false),
        Err("invalid ticket - expired".to_string())
    );
}

#[test]
fn a_ticket_dies_with_its_user() {
    let setup = setup("pbs-4.2.3");
    let ticket = setup
        .access
        .login(&login("fixture@pbs", "Fixture-Pw-42"))
        .unwrap()
        .record
        .ticket
        .unwrap();
    user::update(
        setup.access.config(),
        &user_id("fixture@pbs"),
        map(json!({"enable": false})),
        &[],
        None,
    )
    .unwrap();
    assert_eq!(
        setup
            .access
            .check_ticket(&ticket, None, false)
            .unwrap_err()
            .reason,
        DISABLED
    );
}

#[test]
fn tokens_of_the_reference_server_work_and_bad_ones_do_not() {
    let setup = setup("pbs-3.2.4");
    let secret = "dfe758ce-e6d3-47e0-b220-4334f29009f5";
    let check = |id: &str, secret: &str| {
        setup
            .access
            .check_token(id, secret)
            .map_err(|refused| refused.reason)
    };
    for _ in 0..2 {
        assert_eq!(
            check("fixture@pbs!tok1", secret),
            Ok(auth("fixture@pbs!tok1"))
        );
        assert_eq!(
            check("fixture@pbs!tok1", "wrong"),
            Err("invalid credentials".into())
        );
    }
    assert_eq!(
        check("root@pam!api", "edfbb8f4-ceb0-4350-abae-af791c02f1d7"),
        Ok(auth("root@pam!api"))
    );
    assert_eq!(
        check(
            "fixture@pbs!tok-expired",
            "e7940975-d7a5-4de9-b524-e9b50b365bad"
        ),
        Err(DISABLED.into())
    );
    assert_eq!(
        check(
            "fixture@pbs!tok-disabled",
            "6c05f5bf-ecdb-4ad5-b3f4-564c2abd8f6a"
        ),
        Err(DISABLED.into())
    );
    assert_eq!(
        check("fixture@pbs", secret),
        Err("not an API token ID".into())
    );
    assert_eq!(check("garbage", secret), Err("not a valid user id".into()));
    assert_eq!(check("fixture@pbs!none", secret), Err(DISABLED.into()));
}

#[test]
fn a_deleted_or_renewed_token_stops_at_once() {
    let setup = setup("pbs-3.2.4");
    let config = setup.access.config();
    let (owner, name) = (user_id("fixture@pbs"), "t1".parse().unwrap());
    let first = token::generate(config, &owner, &name, map(json!({"comment": "x"})), None).unwrap();
    assert!(
        setup
            .access
            .check_token("fixture@pbs!t1", &first.value)
            .is_ok()
    );
    let second = token::update(config, &owner, &name, Map::new(), &[], true, None)
        .unwrap()
        .unwrap();
    assert!(
        setup
            .access
            .check_token("fixture@pbs!t1", &first.value)
            .is_err()
    );
    assert!(
        setup
            .access
            .check_token("fixture@pbs!t1", &second.secret)
            .is_ok()
    );
    acl::update(
        config,
        &change("/datastore/store1", Role::Audit, "fixture@pbs!t1"),
        None,
    )
    .unwrap();
    token::delete(config, &owner, &name, None).unwrap();
    assert!(
        setup
            .access
            .check_token("fixture@pbs!t1", &second.secret)
            .is_err()
    );
    for file in ["acl.cfg", "token.shadow", "user.cfg"] {
        assert!(
            !std::fs::read_to_string(setup.dir.path().join(file))
                .unwrap()
                .contains("!t1"),
            "{file}"
        );
    }
}

fn change(path: &str, role: Role, auth_id: &str) -> AclChange {
    AclChange {
        path: path.into(),
        role,
        auth_id: Some(auth(auth_id)),
        group: None,
        propagate: true,
        delete: false,
    }
}

#[test]
fn user_edits_follow_the_captures() {
    let setup = setup("pbs-3.2.4");
    let config = setup.access.config();
    let tmp = user_id("tmp@pbs");
    let rest = |name: &str| captured_text(&format!("pbs-3.2.4/rest/{name}"));
    user::create(
        config,
        &tmp,
        map(json!({"comment": "tmp"})),
        Some("Temp-Pw-1"),
    )
    .unwrap();
    assert!(setup.access.login(&login("tmp@pbs", "Temp-Pw-1")).is_ok());
    let error = user::create(config, &tmp, Map::new(), None).unwrap_err();
    assert_eq!(error.to_string(), rest("072-user-create-dup"));
    let error = user::create(config, &user_id("tmp@nope"), Map::new(), None).unwrap_err();
    assert_eq!(error.to_string(), rest("073-user-create-bad"));
    let error = user::get(config, &user_id("nobody@pbs")).unwrap_err();
    assert_eq!(error.to_string(), rest("045-user-none"));
    user::update(
        config,
        &tmp,
        map(json!({"comment": "new", "enable": false})),
        &[],
        None,
    )
    .unwrap();
    let error = user::update(config, &tmp, Map::new(), &[], Some(&"0".repeat(64))).unwrap_err();
    assert_eq!(error.to_string(), rest("077-user-update-digest-mismatch"));
    user::update(config, &tmp, Map::new(), &["comment".into()], None).unwrap();
    let item = user::get(config, &tmp).unwrap();
    assert_eq!((item.comment, item.enable), (None, Some(false)));
    let name = "t1".parse().unwrap();
    token::generate(config, &tmp, &name, Map::new(), None).unwrap();
    let error = token::generate(config, &tmp, &name, Map::new(), None).unwrap_err();
    assert_eq!(error.to_string(), rest("081-token-create-dup"));
    acl::update(
        config,
        &change("/datastore", Role::Audit, "tmp@pbs!t1"),
        None,
    )
    .unwrap();
    acl::update(config, &change("/datastore", Role::Audit, "tmp@pbs"), None).unwrap();
    user::delete(config, &tmp, None).unwrap();
    let error = user::delete(config, &tmp, None).unwrap_err();
    assert_eq!(
        (error.status(), error.to_string()),
        (400, rest("085-user-delete-none"))
    );
    for file in ["acl.cfg", "token.shadow", "user.cfg", "shadow.json"] {
        let text = std::fs::read_to_string(setup.dir.path().join(file)).unwrap();
        assert!(!text.contains("tmp"), "{file}: {text}");
        let path = format!(
            "{}/../../tests/fixtures/pbs-3.2.4/etc-proxmox-backup/{file}",
            env!("CARGO_MANIFEST_DIR")
        );
        if file != "token.shadow" {
            assert_eq!(text, std::fs::read_to_string(path).unwrap(), "{file}");
        }
    }
}

#[test]
fn lists_equal_the_captures() {
    let setup = setup("pbs-3.2.4");
    let config = setup.access.config();
    let data = |name: &str| -> Vec<serde_json::Value> {
        let body: serde_json::Value =
            serde_json::from_str(&captured_text(&format!("pbs-3.2.4/rest/{name}"))).unwrap();
        let mut items = body["data"].as_array().unwrap().clone();
        for item in &mut items {
            if let Some(tokens) = item.get_mut("tokens").and_then(|t| t.as_array_mut()) {
                tokens.sort_by_key(ToString::to_string);
            }
        }
        items.sort_by_key(ToString::to_string);
        items
    };
    let sorted = |value: serde_json::Value| {
        let mut items = value.as_array().unwrap().clone();
        for item in &mut items {
            if let Some(tokens) = item.get_mut("tokens").and_then(|t| t.as_array_mut()) {
                tokens.sort_by_key(ToString::to_string);
            }
        }
        items.sort_by_key(ToString::to_string);
        items
    };
    let own = |value: Vec<_>| sorted(serde_json::to_value(value).unwrap());
    assert_eq!(own(user::list(config, false).unwrap()), data("043-users"));
    assert_eq!(
        own(user::list(config, true).unwrap()),
        data("056-users-with-tokens")
    );
    let tokens = token::list(config, &user_id("fixture@pbs")).unwrap();
    assert_eq!(
        sorted(serde_json::to_value(tokens).unwrap()),
        data("047-user-tokens")
    );
    let rules =
        |rules: Vec<backstop_types::record::AclItem>| sorted(serde_json::to_value(rules).unwrap());
    assert_eq!(
        rules(acl::list(config, None, false).unwrap()),
        data("050-acl")
    );
    assert_eq!(
        rules(acl::list(config, Some("/datastore/store1"), true).unwrap()),
        data("057-acl-exact")
    );
    let visible = acl::list_for(&setup.access, &auth("fixture@pbs"), None, false).unwrap();
    assert_eq!(rules(visible), data("062-acl-as-fixture"));
}

#[test]
fn rule_edits_follow_the_captures() {
    let setup = setup("pbs-3.2.4");
    let config = setup.access.config();
    let before = std::fs::read_to_string(setup.dir.path().join("acl.cfg")).unwrap();
    let mut rule = change("/datastore/store2", Role::DatastoreReader, "reader@pbs");
    acl::update(config, &rule, None).unwrap();
    assert!(
        setup
            .access
            .check(
                &auth("reader@pbs"),
                "/datastore/store2",
                Privileges::DATASTORE_READ,
                false
            )
            .is_ok()
    );
    rule.delete = true;
    acl::update(config, &rule, None).unwrap();
    assert_eq!(
        std::fs::read_to_string(setup.dir.path().join("acl.cfg")).unwrap(),
        before
    );
    let text = |result: Result<(), EditError>| result.unwrap_err().to_string();
    assert_eq!(
        text(acl::update(
            config,
            &change("/nonsense", Role::Admin, "reader@pbs"),
            None
        )),
        captured_text("pbs-3.2.4/rest/089-acl-put-bad-path")
    );
    assert_eq!(
        text(acl::update(
            config,
            &change("/", Role::Admin, "nobody@pbs"),
            None
        )),
        "no such user."
    );
    assert_eq!(
        text(acl::update(
            config,
            &change("/", Role::Admin, "reader@pbs!x"),
            None
        )),
        "no such API token."
    );
    let fixture = auth("fixture@pbs");
    let as_fixture = |change: &AclChange| acl::update_for(&setup.access, &fixture, change, None);
    assert_eq!(
        text(as_fixture(&change(
            "/datastore/store1",
            Role::Admin,
            "reader@pbs"
        ))),
        captured_text("pbs-3.2.4/rest/090-acl-put-forbidden")
    );
    assert!(
        text(as_fixture(&change("/", Role::Admin, "root@pam!api")))
            .contains("their own API tokens")
    );
    as_fixture(&change(
        "/datastore/store2",
        Role::DatastoreReader,
        "fixture@pbs!tok1",
    ))
    .unwrap();
    let token_caller = auth("fixture@pbs!tok1");
    let error = acl::update_for(
        &setup.access,
        &token_caller,
        &change("/", Role::Admin, "fixture@pbs!tok1"),
        None,
    );
    assert_eq!(text(error), "Unprivileged API tokens can't set ACL items.");
}

#[test]
fn password_changes_follow_the_captures() {
    let setup = setup("pbs-3.2.4");
    let change = |caller: &str, user: &str, confirmation: Option<&str>| {
        password::change(
            &setup.access,
            &auth(caller),
            &user_id(user),
            "New-Password-1",
            confirmation,
            None,
        )
        .map_err(|error| (error.status(), error.to_string()))
    };
    let rest = |name: &str| captured_text(&format!("pbs-3.2.4/rest/{name}"));
    assert_eq!(
        change("root@pam!api", "fixture@pbs", None),
        Err((400, rest("079-password-change")))
    );
    assert_eq!(
        change("reader@pbs", "reader@pbs", None),
        Err((401, rest("299-password-change-own")))
    );
    assert_eq!(
        change("reader@pbs", "fixture@pbs", None),
        Err((401, rest("300-password-change-other")))
    );
    assert_eq!(
        change("reader@pbs", "reader@pbs", Some("nope")),
        Err((401, rest("318-password-change-own-wrong-confirmation")))
    );
    assert_eq!(
        change("reader@pbs", "fixture@pbs", Some("Reader-Pw-1")),
        Err((400, rest("319-password-change-other-confirmed")))
    );
    assert_eq!(
        change("reader@pbs", "reader@pbs", Some("Reader-Pw-1")),
        Ok(())
    );
    assert!(
        setup
            .access
            .login(&login("reader@pbs", "New-Password-1"))
            .is_ok()
    );
    assert!(
        setup
            .access
            .login(&login("reader@pbs", "Reader-Pw-1"))
            .is_err()
    );
    assert_eq!(change("root@pam", "fixture@pbs", None), Ok(()));
    assert_eq!(change("root@pam", "root@pam", None).unwrap_err().0, 501);
    assert_eq!(change("root@pam", "nobody@pbs", None).unwrap_err().0, 401);
}

#[test]
fn an_older_hash_is_renewed_at_login() {
    let setup = setup("pbs-3.2.4");
    let path = setup.dir.path().join("shadow.json");
    std::fs::write(
        &path,
        r#"{"reader":"$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"}"#,
    )
    .unwrap();
    assert!(
        setup
            .access
            .login(&login("reader@pbs", "Hello world!"))
            .is_ok()
    );
    assert!(std::fs::read_to_string(&path).unwrap().contains("$y$j9T$"));
    assert!(
        setup
            .access
            .login(&login("reader@pbs", "Hello world!"))
            .is_ok()
    );
}

#[test]
fn the_first_start_makes_one_administrator() {
    let dir = tempfile::tempdir().unwrap();
    let config = Arc::new(ConfigStore::new(dir.path()));
    let made = create_administrator(&config).unwrap().unwrap();
    let access = AccessControl::open(Arc::clone(&config)).unwrap();
    assert!(access.login(&login("admin@pbs", &made.password)).is_ok());
    assert!(
        access
            .check(&auth("admin@pbs"), "/system", Privileges::ALL, false)
            .is_ok()
    );
    let file = dir.path().join(INITIAL_PASSWORD_FILE);
    assert_eq!(
        std::fs::read_to_string(&file).unwrap().trim(),
        made.password.as_str()
    );
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(!format!("{made:?}").contains(made.password.as_str()));
    assert!(create_administrator(&config).unwrap().is_none());
    let setup = setup("pbs-3.2.4");
    assert!(
        create_administrator(setup.access.config())
            .unwrap()
            .is_none()
    );
    assert!(!setup.dir.path().join(INITIAL_PASSWORD_FILE).exists());
}

#[test]
fn broken_rules_grant_nothing_except_to_the_superuser() {
    let setup = setup("pbs-3.2.4");
    std::fs::write(setup.dir.path().join("acl.cfg"), "garbage\n").unwrap();
    let check = |who: &str| {
        setup.access.check(
            &auth(who),
            "/datastore/store1",
            Privileges::DATASTORE_AUDIT,
            false,
        )
    };
    assert!(check("reader@pbs").is_err());
    assert!(check("root@pam").is_ok());
}

#[test]
fn others_are_seen_only_with_the_privilege_to() {
    let setup = setup("pbs-3.2.4");
    let access = &setup.access;
    let seen = |caller: &str| user::list_for(access, &auth(caller), false).unwrap().len();
    assert_eq!(
        (
            seen("root@pam!api"),
            seen("reader@pbs"),
            seen("fixture@pbs")
        ),
        (6, 6, 1)
    );
    let map =
        |caller: &str, target: &str| access.permission_map_for(&auth(caller), &auth(target), None);
    assert!(
        map("fixture@pbs", "fixture@pbs").is_ok() && map("fixture@pbs", "fixture@pbs!tok1").is_ok()
    );
    assert!(map("reader@pbs", "fixture@pbs").is_ok());
    for (caller, target) in [
        ("fixture@pbs", "reader@pbs"),
        ("fixture@pbs!tok1", "fixture@pbs"),
    ] {
        let error = map(caller, target).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("not allowed to list permissions of {target}")
        );
    }
}

#[test]
fn a_new_user_without_password_inherits_none() {
    let setup = setup("pbs-3.2.4");
    let config = setup.access.config();
    let text = std::fs::read_to_string(setup.dir.path().join("shadow.json")).unwrap();
    std::fs::write(
        setup.dir.path().join("shadow.json"),
        text.replace("\"reader\"", "\"left\""),
    )
    .unwrap();
    user::create(config, &user_id("left@pbs"), Map::new(), None).unwrap();
    let error = setup
        .access
        .login(&login("left@pbs", "Reader-Pw-1"))
        .unwrap_err();
    assert_eq!(reason(&error), "no password set");
}

#[test]
fn users_cannot_put_off_the_end_of_their_own_account() {
    let setup = setup("pbs-4.2.3");
    let config = setup.access.config();
    let user = user_id("other@pbs");
    let by = |caller: &str, change: serde_json::Value| {
        user::update_for(&setup.access, &auth(caller), &user, map(change), &[], None)
    };
    by(
        "root@pam",
        json!({"expire": setup.access.now() + 60, "comment": "guest"}),
    )
    .unwrap();
    for change in [
        json!({"expire": 0}),
        json!({"expire": setup.access.now() + 61}),
        json!({"enable": false, "comment": "x"}),
    ] {
        let error = by("other@pbs", change).unwrap_err();
        assert_eq!(
            (error.status(), error.to_string().as_str()),
            (
                403,
                "permission check failed - missing Permissions.Modify on /access/users"
            )
        );
    }
    // What a form sends back unchanged does no harm.
    let form = json!({"enable": true, "expire": setup.access.now() + 60, "firstname": "Oth"});
    by("other@pbs", form).unwrap();
    let item = user::get(config, &user).unwrap();
    assert_eq!(item.firstname.as_deref(), Some("Oth"));
    assert_eq!(item.comment.as_deref(), Some("guest"));
    acl::update(
        config,
        &change("/access/users", Role::Admin, "reader@pbs"),
        None,
    )
    .unwrap();
    by("reader@pbs", json!({"expire": 0})).unwrap();
    assert_eq!(user::get(config, &user).unwrap().expire, None);
}

#[test]
fn files_of_both_releases_are_as_before_when_a_user_came_and_went() {
    for version in ["pbs-3.2.4", "pbs-4.2.3"] {
        let setup = setup(version);
        let config = setup.access.config();
        let files = ["user.cfg", "acl.cfg", "shadow.json"];
        let texts = || files.map(|file| std::fs::read(setup.dir.path().join(file)).unwrap());
        let (before, secrets) = (texts(), config.json(JsonFile::TokenShadow).unwrap());
        let tmp = user_id("tmp@pbs");
        user::create(
            config,
            &tmp,
            map(json!({"email": "tmp@example.com"})),
            Some("Temp-Pw-1"),
        )
        .unwrap();
        let name = "t1".parse().unwrap();
        token::generate(config, &tmp, &name, Map::new(), None).unwrap();
        for who in ["tmp@pbs", "tmp@pbs!t1", "fixture@pbs!tok1"] {
            acl::update(
                config,
                &change("/datastore/store1/x", Role::Audit, who),
                None,
            )
            .unwrap();
        }
        let own = auth("fixture@pbs!tok1");
        let new = token::update(
            config,
            own.user(),
            own.token_name().unwrap(),
            Map::new(),
            &[],
            true,
            None,
        )
        .unwrap()
        .unwrap();
        assert!(
            setup
                .access
                .check_token("fixture@pbs!tok1", &new.secret)
                .is_ok()
        );
        let changed = texts();
        assert!(
            files
                .iter()
                .zip(before.iter().zip(&changed))
                .all(|(_, (old, new))| old != new)
        );
        let mut gone = change("/datastore/store1/x", Role::Audit, "fixture@pbs!tok1");
        gone.delete = true;
        acl::update(config, &gone, None).unwrap();
        user::delete(config, &tmp, None).unwrap();
        assert_eq!(texts(), before, "{version}");
        let mut after = config.json(JsonFile::TokenShadow).unwrap();
        let renewed = after.insert(
            "fixture@pbs!tok1".into(),
            secrets["fixture@pbs!tok1"].clone(),
        );
        assert_ne!(renewed.as_ref(), secrets.get("fixture@pbs!tok1"));
        assert_eq!(after, secrets, "{version}");
    }
}

#[test]
fn a_removal_that_fails_half_way_leaves_somebody_who_can_be_removed_again() {
    let setup = setup("pbs-4.2.3");
    let config = setup.access.config();
    let user = user_id("fixture@pbs");
    let rules = std::fs::read(setup.dir.path().join("acl.cfg")).unwrap();
    std::fs::write(setup.dir.path().join("acl.cfg"), "no rule\n").unwrap();
    let name = "tok1".parse().unwrap();
    assert!(token::delete(config, &user, &name, None).is_err());
    assert!(user::delete(config, &user, None).is_err());
    assert!(user::get(config, &user).is_ok());
    assert!(token::get(config, &user, &name).is_ok());
    std::fs::write(setup.dir.path().join("acl.cfg"), rules).unwrap();
    user::delete(config, &user, None).unwrap();
    let text = std::fs::read_to_string(setup.dir.path().join("acl.cfg")).unwrap();
    assert!(!text.contains("fixture@pbs"), "{text}");
    let secrets = config.json(JsonFile::TokenShadow).unwrap();
    assert!(!secrets.keys().any(|id| id.starts_with("fixture@pbs")));
}
