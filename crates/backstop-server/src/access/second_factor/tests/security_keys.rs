use proptest::prelude::*;
use testbed::authenticator::{Algorithm, Authenticator};

use super::super::{WebauthnChange, change_webauthn, webauthn_config};
use super::*;

const ORIGIN: &str = "https://pbs.example.com:8007";

fn host() -> Host {
    let host = Host::start();
    let change = WebauthnChange {
        rp: Some("Backup"),
        id: Some("example.com"),
        origin: Some(ORIGIN),
        ..WebauthnChange::default()
    };
    change_webauthn(host.access().config(), &change).unwrap();
    host
}

fn options(host: &Host) -> Value {
    let new = NewFactor {
        description: Some("key"),
        ..NewFactor::default()
    };
    let added = host.add(FactorKind::Webauthn, &new).unwrap();
    assert_eq!(added["id"], Value::Null);
    serde_json::from_str(added["challenge"].as_str().unwrap()).unwrap()
}

fn finish(host: &Host, options: &Value, credential: &Value) -> Result<Value, String> {
    let value = credential.to_string();
    let new = NewFactor {
        challenge: options["publicKey"]["challenge"].as_str(),
        value: Some(&value),
        ..NewFactor::default()
    };
    host.add(FactorKind::Webauthn, &new)
}

pub(super) fn register(host: &Host, key: &mut Authenticator) -> Result<Value, String> {
    let options = options(host);
    finish(host, &options, &key.register(&options).unwrap())
}

fn log_in(host: &Host, key: &mut Authenticator) -> Result<(), String> {
    let (ticket, challenge) = host.first_step();
    let answer = key.authenticate(&challenge["webauthn"]).unwrap();
    host.second_step(&ticket, &format!("webauthn:{answer}"))
        .map(|_| ())
}

#[test]
fn keys_of_each_algorithm_are_registered_and_log_in() {
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Rs256] {
        for self_attested in [false, true] {
            let mut host = host();
            let mut key = Authenticator::new(algorithm, ORIGIN).unwrap();
            key.self_attested = self_attested;
            let id = register(&host, &mut key).unwrap()["id"].clone();
            log_in(&host, &mut key).unwrap();
            host.restart();
            log_in(&host, &mut key).unwrap();
            let entry = &host.file()["users"][USER]["webauthn"][0];
            assert_eq!(entry["id"], id);
            assert_eq!(entry["entry"]["counter"], key.counter);
        }
    }
}

#[test]
fn a_key_is_registered_once() {
    let host = host();
    let mut key = Authenticator::new(Algorithm::Es256, ORIGIN).unwrap();
    let first = options(&host);
    let answer = key.register(&first).unwrap();
    finish(&host, &first, &answer).unwrap();
    // The challenge is used up, the browser is told of the key, and a browser that does not care is refused.
    assert!(
        finish(&host, &first, &answer)
            .unwrap_err()
            .contains("no such challenge")
    );
    let mut second = options(&host);
    assert!(key.register(&second).is_err());
    second["publicKey"]["excludeCredentials"] = json!([]);
    let again = key.register(&second).unwrap();
    assert!(
        finish(&host, &second, &again)
            .unwrap_err()
            .contains("already present")
    );
}

#[test]
fn a_challenge_is_good_for_two_minutes_and_one_answer() {
    let host = host();
    let mut key = Authenticator::new(Algorithm::EdDsa, ORIGIN).unwrap();
    let late = options(&host);
    host.wait(121);
    assert!(finish(&host, &late, &key.register(&late).unwrap()).is_err());
    register(&host, &mut key).unwrap();
    let (ticket, challenge) = host.first_step();
    let answer = key.authenticate(&challenge["webauthn"]).unwrap();
    let answer = format!("webauthn:{answer}");
    host.second_step(&ticket, &answer).unwrap();
    assert!(
        host.second_step(&ticket, &answer)
            .unwrap_err()
            .contains("no such challenge")
    );
    let (ticket, challenge) = host.first_step();
    let answer = key.authenticate(&challenge["webauthn"]).unwrap();
    host.wait(121);
    assert!(
        host.second_step(&ticket, &format!("webauthn:{answer}"))
            .is_err()
    );
    // An answer to the challenge of one ticket is none to that of another.
    let (first, challenge) = host.first_step();
    let (second, _) = host.first_step();
    let answer = key.authenticate(&challenge["webauthn"]).unwrap();
    assert!(
        host.second_step(&second, &format!("webauthn:{answer}"))
            .is_err()
    );
    host.second_step(&first, &format!("webauthn:{answer}"))
        .unwrap();
}

#[test]
fn a_counter_that_does_not_go_up_is_refused_and_keys_that_do_not_count_are_fine() {
    let host = host();
    let mut key = Authenticator::new(Algorithm::Es256, ORIGIN).unwrap();
    register(&host, &mut key).unwrap();
    key.counter = 41;
    log_in(&host, &mut key).unwrap();
    for stale in [10, 40] {
        key.counter = stale;
        assert!(log_in(&host, &mut key).unwrap_err().contains("counter"));
    }
    key.counter = 42;
    log_in(&host, &mut key).unwrap();
    let host = self::host();
    let mut silent = Authenticator::new(Algorithm::Es256, ORIGIN).unwrap();
    silent.counts = false;
    register(&host, &mut silent).unwrap();
    for _ in 0..2 {
        let (ticket, challenge) = host.first_step();
        let answer = silent.authenticate(&challenge["webauthn"]).unwrap();
        host.second_step(&ticket, &format!("webauthn:{answer}"))
            .unwrap();
    }
}

#[test]
fn answers_from_elsewhere_are_refused_at_registration_and_login() {
    type Bend = fn(&mut Authenticator);
    let bends: [(&str, Bend); 7] = [
        ("another site", |key| {
            key.origin = "https://evil.example.org:8007".to_owned()
        }),
        ("another port", |key| {
            key.origin = "https://pbs.example.com:8008".to_owned()
        }),
        ("no TLS", |key| {
            key.origin = "http://pbs.example.com:8007".to_owned()
        }),
        ("a name that ends alike", |key| {
            key.origin = "https://evilpbs.example.com:8007".to_owned();
        }),
        ("another relying party", |key| {
            key.rp_id = Some("pbs.example.com".to_owned())
        }),
        ("untouched", |key| key.touched = false),
        ("in a frame", |key| key.cross_origin = true),
    ];
    for (name, bend) in bends {
        let host = host();
        let mut key = Authenticator::new(Algorithm::EdDsa, ORIGIN).unwrap();
        bend(&mut key);
        assert!(register(&host, &mut key).is_err(), "{name}");
        let mut key = Authenticator::new(Algorithm::EdDsa, ORIGIN).unwrap();
        register(&host, &mut key).unwrap();
        bend(&mut key);
        assert!(log_in(&host, &mut key).is_err(), "{name}");
    }
    let host = host();
    let mut key = Authenticator::new(Algorithm::EdDsa, "https://a.pbs.example.com:8007").unwrap();
    register(&host, &mut key).unwrap();
    let change = WebauthnChange {
        allow_subdomains: Some(false),
        ..WebauthnChange::default()
    };
    change_webauthn(host.access().config(), &change).unwrap();
    assert!(
        log_in(&host, &mut key)
            .unwrap_err()
            .contains("another site")
    );
}

#[test]
fn another_key_or_a_disabled_one_does_not_log_in() {
    let host = host();
    let mut key = Authenticator::new(Algorithm::Es256, ORIGIN).unwrap();
    let id = register(&host, &mut key).unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut stranger = Authenticator::new(Algorithm::Es256, ORIGIN).unwrap();
    stranger.credential_id.clone_from(&key.credential_id);
    assert!(
        log_in(&host, &mut stranger)
            .unwrap_err()
            .contains("signature")
    );
    let (ticket, challenge) = host.first_step();
    let answer = key.authenticate(&challenge["webauthn"]).unwrap();
    super::super::update(
        host.access().config(),
        &Host::user(),
        &id,
        None,
        Some(false),
    )
    .unwrap();
    let answer = host.second_step(&ticket, &format!("webauthn:{answer}"));
    assert!(answer.unwrap_err().contains("not registered"));
}

#[test]
fn a_configuration_that_could_not_work_is_refused_and_the_digest_is_that_of_what_is_shown() {
    let host = Host::start();
    let config = host.access().config();
    assert!(webauthn_config(config).unwrap().is_none());
    let new = NewFactor {
        description: Some("key"),
        ..NewFactor::default()
    };
    let reason = host.add(FactorKind::Webauthn, &new).unwrap_err();
    assert!(reason.contains("no webauthn configuration"), "{reason}");
    let change = |change: WebauthnChange<'_>| change_webauthn(config, &change);
    let set = |id, origin| WebauthnChange {
        rp: Some("Backup"),
        id: Some(id),
        origin,
        ..WebauthnChange::default()
    };
    assert!(change(WebauthnChange::default()).is_err());
    assert!(change(set("example.com", Some("https://example.org"))).is_err());
    assert!(change(set("192.0.2.1", Some("https://192.0.2.1:8007"))).is_err());
    assert!(change(set("https://example.com", None)).is_err());
    change(set("example.com", Some("https://PBS.example.com:8007/"))).unwrap();
    let (shown, digest) = webauthn_config(config).unwrap().unwrap();
    assert_eq!(
        shown,
        json!({ "rp": "Backup", "id": "example.com", "origin": ORIGIN })
    );
    let canonical = r#"{"id":"example.com","origin":"https://pbs.example.com:8007","rp":"Backup"}"#;
    assert_eq!(digest, backstop_format::Digest::of(canonical.as_bytes()));
    let stale = WebauthnChange {
        rp: Some("x"),
        digest: Some("00"),
        ..WebauthnChange::default()
    };
    assert!(change(stale).unwrap_err().to_string().contains("modified"));
    change(WebauthnChange {
        delete: vec!["origin".to_owned()],
        allow_subdomains: Some(false),
        digest: Some(&digest.to_string()),
        ..WebauthnChange::default()
    })
    .unwrap();
    let (shown, _) = webauthn_config(config).unwrap().unwrap();
    assert_eq!(
        shown,
        json!({ "rp": "Backup", "id": "example.com", "allow-subdomains": false })
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_answer_with_any_byte_changed_is_refused(part in 0..3_usize, place in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let host = host();
        let mut key = Authenticator::new(Algorithm::EdDsa, ORIGIN).unwrap();
        register(&host, &mut key).unwrap();
        let (ticket, challenge) = host.first_step();
        let mut answer = key.authenticate(&challenge["webauthn"]).unwrap();
        let name = ["authenticatorData", "clientDataJSON", "signature"][part];
        let mut bytes = backstop_types::second_factor::decode_bytes(&answer["response"][name]).unwrap();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        answer["response"][name] = backstop_types::second_factor::encode_bytes(&bytes).into();
        let outcome = host.second_step(&ticket, &format!("webauthn:{answer}"));
        prop_assert!(outcome.is_err());
    }
}
