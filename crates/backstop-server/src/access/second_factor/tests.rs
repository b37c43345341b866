#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lockout;
mod one_time_passwords;
mod security_keys;
mod stock_file;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use backstop_types::UserId;
use backstop_types::second_factor::{FactorKind, Otpauth};
use serde_json::{Value, json};

use super::{NewFactor, codes};
use crate::access::control::tests::{Setup, setup};
use crate::access::{AccessControl, LoginError, LoginReply, LoginRequest};
use crate::config::ConfigStore;

/// A user of the copied configuration, with its password.
const USER: &str = "fixture@pbs";
const PASSWORD: &str = "Fixture-Pw-42";
const URI: &str = "otpauth://totp/backup:fixture?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&digits=6&algorithm=SHA1&period=30";

/// A server's access control whose clock the test sets, and which can be started anew on the same files.
struct Host {
    setup: Setup,
}

impl Host {
    fn start() -> Self {
        Self {
            setup: setup("pbs-4.2.3"),
        }
    }

    fn access(&self) -> &AccessControl {
        &self.setup.access
    }

    fn now(&self) -> i64 {
        self.access().now()
    }

    fn wait(&self, seconds: i64) {
        self.setup.now.fetch_add(seconds, Ordering::Relaxed);
    }

    /// As after a crash: nothing but the files remains.
    fn restart(&mut self) {
        let config = Arc::new(ConfigStore::new(self.setup.dir.path()));
        let clock = Arc::clone(&self.setup.now);
        self.setup.access =
            AccessControl::with_clock(config, move || clock.load(Ordering::Relaxed)).unwrap();
    }

    fn user() -> UserId {
        USER.parse().unwrap()
    }

    fn file(&self) -> Value {
        let text = std::fs::read_to_string(self.setup.dir.path().join("tfa.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn write_file(&self, content: &Value) {
        let path = self.setup.dir.path().join("tfa.json");
        std::fs::write(path, content.to_string()).unwrap();
    }

    fn add(&self, kind: FactorKind, new: &NewFactor<'_>) -> Result<Value, String> {
        self.access()
            .second_factors()
            .add(&Self::user(), kind, new, self.now())
            .map(|added| serde_json::to_value(added).unwrap())
            .map_err(|error| error.to_string())
    }

    fn add_totp(&self) -> Value {
        let new = NewFactor {
            description: Some("phone"),
            totp: Some(URI),
            value: Some(&self.code(0)),
            ..NewFactor::default()
        };
        self.add(FactorKind::Totp, &new).unwrap()
    }

    fn add_recovery(&self) -> Vec<String> {
        let added = self
            .add(FactorKind::Recovery, &NewFactor::default())
            .unwrap();
        serde_json::from_value(added["recovery"].clone()).unwrap()
    }

    /// The code of a step from now.
    fn code(&self, step: i64) -> String {
        let generator: Otpauth = URI.parse().unwrap();
        codes::code(&generator, generator.step(self.now()) + step).to_string()
    }

    fn login(&self, request: &LoginRequest<'_>) -> Result<LoginReply, String> {
        self.access().login(request).map_err(|error| match error {
            LoginError::Refused(refused) => refused.reason,
            LoginError::Incomplete(text) => text.to_owned(),
        })
    }

    /// The first step: the ticket that waits, and its challenge.
    fn first_step(&self) -> (String, Value) {
        let reply = self
            .login(&LoginRequest {
                username: USER,
                password: Some(PASSWORD),
                ..LoginRequest::default()
            })
            .unwrap();
        assert!(reply.is_pending);
        assert_eq!(reply.record.csrf_token.as_deref(), Some("invalid"));
        let ticket = reply.record.ticket.unwrap();
        // As the web interface reads it.
        let data = ticket.split(':').nth(1).unwrap();
        let data = percent_encoding::percent_decode_str(data)
            .decode_utf8()
            .unwrap()
            .into_owned();
        let challenge = data.strip_prefix("!tfa!").unwrap();
        let challenge = serde_json::from_str(challenge).unwrap();
        (ticket, challenge)
    }

    fn second_step(&self, ticket: &str, answer: &str) -> Result<LoginReply, String> {
        self.login(&LoginRequest {
            username: USER,
            password: Some(answer),
            tfa_challenge: Some(ticket),
            ..LoginRequest::default()
        })
    }

    fn log_in(&self, answer: &str) -> Result<(), String> {
        let (ticket, _) = self.first_step();
        self.second_step(&ticket, answer).map(|reply| {
            assert!(!reply.is_pending);
            let ticket = reply.record.ticket.unwrap();
            assert!(self.access().check_ticket(&ticket, None, false).is_ok());
        })
    }

    fn logs_in_without(&self) -> bool {
        let request = LoginRequest {
            username: USER,
            password: Some(PASSWORD),
            ..LoginRequest::default()
        };
        self.login(&request).is_ok_and(|reply| !reply.is_pending)
    }
}

#[test]
fn a_file_that_cannot_be_understood_lets_nobody_in() {
    let host = Host::start();
    assert!(host.logs_in_without());
    for content in [
        json!({ "users": [] }),
        json!({ "users": { USER: [] } }),
        json!({ "users": { USER: { "totp": [{ "entry": URI }] } } }),
        json!({ "users": { USER: { "totp": { "id": "x" } } } }),
    ] {
        host.write_file(&content);
        let request = LoginRequest {
            username: USER,
            password: Some(PASSWORD),
            ..LoginRequest::default()
        };
        let reason = host.login(&request).unwrap_err();
        assert!(reason.contains("cannot be used"), "{content}: {reason}");
    }
    // Another user's broken entry holds up that user only.
    host.write_file(&json!({ "users": { "other@pbs": [] } }));
    assert!(host.logs_in_without());
    std::fs::write(host.setup.dir.path().join("tfa.json"), "{").unwrap();
    assert!(!host.logs_in_without());
}

#[test]
fn disabled_factors_are_not_asked_for_but_kinds_that_cannot_be_asked_for_are() {
    let host = Host::start();
    for (factors, free) in [
        (json!({}), true),
        (json!({ "totp": [] }), true),
        (
            json!({ "totp": [{ "id": "1", "created": 1, "enable": false, "entry": URI }] }),
            true,
        ),
        (
            json!({ "yubico": [{ "id": "1", "created": 1, "enable": false, "entry": "x" }] }),
            true,
        ),
        (
            json!({ "yubico": [{ "id": "1", "created": 1, "entry": "x" }] }),
            false,
        ),
        (
            json!({ "u2f": [{ "id": "1", "created": 1, "entry": {} }] }),
            false,
        ),
        (
            json!({ "webauthn": [{ "id": "1", "created": 1, "entry":
            { "cred_id": "AAAA", "cred": {}, "counter": 0 } }] }),
            false,
        ),
        (
            json!({ "recovery": { "secret": "x", "entries": [null, null], "created": 1 } }),
            false,
        ),
    ] {
        host.write_file(&json!({ "users": { USER: factors } }));
        assert_eq!(host.logs_in_without(), free, "{factors}");
    }
}

#[test]
fn a_pending_ticket_opens_nothing_and_a_cookie_login_gets_its_cookie_last() {
    let host = Host::start();
    host.add_totp();
    let (ticket, challenge) = host.first_step();
    assert_eq!(challenge, json!({ "totp": true }));
    assert!(host.access().check_ticket(&ticket, None, false).is_err());
    let renewal = LoginRequest {
        username: USER,
        password: Some(&ticket),
        ..LoginRequest::default()
    };
    assert!(host.login(&renewal).is_err());
    let code = format!("totp:{}", host.code(0));
    let other = LoginRequest {
        username: "reader@pbs",
        password: Some(&code),
        tfa_challenge: Some(&ticket),
        ..LoginRequest::default()
    };
    assert!(host.login(&other).is_err());
    let first = LoginRequest {
        username: USER,
        password: Some(PASSWORD),
        http_only: true,
        ..LoginRequest::default()
    };
    let reply = host.login(&first).unwrap();
    assert_eq!((reply.set_cookie, reply.record.ticket_info), (None, None));
    let ticket = reply.record.ticket.unwrap();
    let second = LoginRequest {
        username: USER,
        password: Some(&code),
        tfa_challenge: Some(&ticket),
        http_only: true,
        // Of an earlier login; it must not stand in for the second factor.
        cookie: Some("PBS:old"),
        ..LoginRequest::default()
    };
    let reply = host.login(&second).unwrap();
    assert!(reply.set_cookie.unwrap().contains("HttpOnly"));
    assert!(reply.record.ticket.is_none());
}

#[test]
fn lists_hold_no_secrets() {
    let host = Host::start();
    host.add_totp();
    let codes = host.add_recovery();
    let config = host.access().config();
    let all = super::list(config, None, host.now()).unwrap();
    let own = super::list_user(config, &Host::user()).unwrap();
    let text = serde_json::to_string(&(&all, &own)).unwrap();
    assert!(
        !text.contains("GEZDGNBV") && !text.contains(&codes[0]),
        "{text}"
    );
    assert!(
        !text.contains("secret") && !text.contains("entry\""),
        "{text}"
    );
    let kinds: Vec<FactorKind> = own.iter().map(|factor| factor.kind).collect();
    assert_eq!(kinds, [FactorKind::Recovery, FactorKind::Totp]);
    let other: UserId = "reader@pbs".parse().unwrap();
    assert!(
        super::list(config, Some(&other), host.now())
            .unwrap()
            .is_empty()
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(host.setup.dir.path().join("tfa.json"))
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn removing_the_last_factor_or_the_user_leaves_nothing() {
    let host = Host::start();
    let id = host.add_totp()["id"].as_str().unwrap().to_owned();
    let config = host.access().config();
    assert!(super::delete(config, &Host::user(), "no-such-id").is_err());
    super::update(config, &Host::user(), &id, Some("new"), Some(false)).unwrap();
    assert!(host.logs_in_without());
    let factor = super::get(config, &Host::user(), &id).unwrap();
    assert_eq!((factor.description.as_str(), factor.enable), ("new", false));
    super::delete(config, &Host::user(), &id).unwrap();
    assert_eq!(host.file()["users"], json!({}));
    host.add_totp();
    assert!(host.log_in("totp:000000").is_err());
    let failures = config.run().join("tfa/challenges").join(USER);
    assert!(failures.exists());
    crate::access::user::delete(config, &Host::user(), None).unwrap();
    assert_eq!(host.file()["users"], json!({}));
    assert!(!failures.exists());
}
