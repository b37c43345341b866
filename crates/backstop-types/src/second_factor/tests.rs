#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use minicbor::{Decoder, Encoder};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER_PERMISSIVE
        .decode(text.replace(' ', "").as_bytes())
        .unwrap()
}

#[test]
fn a_uri_as_the_web_interface_makes_it_is_read_and_written_as_stock_does() {
    let text = "otpauth://totp/Proxmox%20Web%20UI%20-%20vm:root%40pam?secret=JBSWY3DPEHPK3PXP&period=30&digits=6&algorithm=SHA1&issuer=Proxmox%20Web%20UI%20-%20vm";
    let uri: Otpauth = text.parse().unwrap();
    assert_eq!(uri.account, "root@pam");
    assert_eq!(uri.issuer.as_deref(), Some("Proxmox Web UI - vm"));
    assert_eq!(uri.secret, b"Hello!\xde\xad\xbe\xef");
    assert_eq!(
        uri.to_uri(),
        "otpauth://totp/Proxmox%20Web%20UI%20%2D%20vm:root%40pam?secret=JBSWY3DPEHPK3PXP&digits=6&algorithm=SHA1&period=30&issuer=Proxmox%20Web%20UI%20%2D%20vm"
    );
    assert!(!format!("{uri:?}").contains("JBSW"));
}

#[test]
fn what_is_no_uri_is_refused_without_repeating_it() {
    for text in [
        "",
        "otpauth://hotp/a?secret=JBSWY3DP",
        "otpauth://totp/a",
        "otpauth://totp/a?",
        "otpauth://totp/a?secret",
        "otpauth://totp/a?secret=",
        "otpauth://totp/a?secret=0189",
        "otpauth://totp/a?secret=JBSWY3DP&period=0",
        "otpauth://totp/a?secret=JBSWY3DP&period=-1",
        "otpauth://totp/a?secret=JBSWY3DP&digits=0",
        "otpauth://totp/a?secret=JBSWY3DP&digits=10",
        "otpauth://totp/a?secret=JBSWY3DP&algorithm=MD5",
    ] {
        let error = text.parse::<Otpauth>().unwrap_err().to_string();
        assert!(!error.contains("JBSW"), "{error}");
    }
    // Either case, spaces, padding and parameters of other programs are fine.
    let uri: Otpauth = "otpauth://totp/a?secret=jbsw y3dp ehpk 3pxp====&image=x"
        .parse()
        .unwrap();
    assert_eq!(uri.secret.len(), 10);
}

proptest! {
    #[test]
    fn a_written_uri_is_read_as_the_same(
        secret in prop::collection::vec(any::<u8>(), 1..64),
        digits in 1u32..=9,
        period in 1u32..=1000,
        issuer in prop::option::of("[^\u{0}]{1,20}"),
        account in "[^\u{0}]{0,20}",
        algorithm in prop::sample::select(vec![OtpAlgorithm::Sha1, OtpAlgorithm::Sha256, OtpAlgorithm::Sha512]),
    ) {
        let uri = Otpauth { secret, digits, algorithm, period, issuer, account };
        prop_assert_eq!(uri.to_uri().parse::<Otpauth>().unwrap(), uri);
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = AuthenticatorData::parse(&bytes);
        let _ = AttestationObject::parse(&bytes);
        let _ = ClientData::parse(&bytes);
        let _ = CoseKey::decode(&mut Decoder::new(&bytes));
    }

    #[test]
    fn any_bytes_after_a_sound_beginning_are_parsed_or_refused(
        flags in any::<u8>(), rest in prop::collection::vec(any::<u8>(), 0..200)
    ) {
        let mut bytes = vec![7; 32];
        bytes.push(flags);
        bytes.extend([0, 0, 0, 9]);
        bytes.extend(rest);
        if let Ok(data) = AuthenticatorData::parse(&bytes) {
            prop_assert_eq!(data.counter, 9);
        }
    }

    #[test]
    fn a_written_origin_is_read_as_the_same(
        scheme in "https?", host in "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\\.[a-z]{1,5}){0,3}", port in any::<u16>()
    ) {
        let origin: Origin = format!("{scheme}://{host}:{port}/x?y").parse().unwrap();
        prop_assert_eq!(origin.to_string().parse::<Origin>().unwrap(), origin.clone());
        prop_assert!(origin.accepts(&origin, false));
    }

    #[test]
    fn keys_survive_storing(
        x in prop::collection::vec(any::<u8>(), 32), y in prop::collection::vec(any::<u8>(), 32),
        n in prop::collection::vec(any::<u8>(), 256)
    ) {
        let keys = [
            CoseKey::Ecdsa { curve: EllipticCurve::P256, x: x.clone(), y },
            CoseKey::Ed25519 { x: x.try_into().unwrap() },
            CoseKey::Rsa { n, e: vec![1, 0, 1] },
        ];
        for key in keys {
            prop_assert_eq!(CoseKey::from_json(&key.to_json()).unwrap(), key);
        }
    }
}

#[test]
fn hosts_below_the_origin_are_told_from_hosts_that_only_end_alike() {
    let origin = |text: &str| text.parse::<Origin>().unwrap();
    let own = origin("https://pbs.example.com:8007/");
    assert_eq!(own.to_string(), "https://pbs.example.com:8007");
    assert_eq!(
        origin("HTTPS://PBS.example.com:443").to_string(),
        "https://pbs.example.com"
    );
    assert_eq!(
        origin("https://[2001:DB8::1]:8007").to_string(),
        "https://[2001:db8::1]:8007"
    );
    for (other, plain, subdomains) in [
        ("https://pbs.example.com:8007", true, true),
        ("https://a.pbs.example.com:8007", false, true),
        ("https://evilpbs.example.com:8007", false, false),
        ("https://.pbs.example.com:8007", false, false),
        ("https://example.com:8007", false, false),
        ("https://pbs.example.com", false, false),
        ("http://pbs.example.com:8007", false, false),
    ] {
        assert_eq!(own.accepts(&origin(other), false), plain, "{other}");
        assert_eq!(own.accepts(&origin(other), true), subdomains, "{other}");
    }
    assert!(own.may_use("example.com") && own.may_use("pbs.example.com"));
    assert!(!own.may_use("ample.com") && !own.may_use("") && !own.may_use("a.pbs.example.com"));
    assert!(!origin("https://192.0.2.1:8007").may_use("192.0.2.1"));
    assert!(!origin("https://192.0.2.1").accepts(&origin("https://1.192.0.2.1"), true));
    for text in [
        "",
        "https://",
        "https:///x",
        "ftp://a",
        "a",
        "https://a:99999",
        "https://a b",
        "https://[::1",
        "https://user@host",
        "https://ü.example.com",
        "https://a:+1",
    ] {
        assert!(text.parse::<Origin>().is_err(), "{text}");
    }
}

#[test]
fn keys_are_read_from_cbor_and_written_as_stock_stores_them() {
    // The examples of RFC 8152 style keys that authenticators send.
    let es256 = hex(
        "A5 01 02 03 26 20 01 2158 20 65eda5a12577c2bae829437fe338701a10aaa375e1bb5b5de108de439c08551d 2258 20 1e52ed75701163f7f9e40ddf9f341b3dc9ba860af7e0ca7ca7e9eecd0084d19c",
    );
    let key = CoseKey::decode(&mut Decoder::new(&es256)).unwrap();
    assert_eq!(key.algorithm(), -7);
    assert_eq!(
        key.to_json(),
        json!({"type_": "ES256", "key": {"EC_EC2": {
            "curve": "SECP256R1",
            "x": "Ze2loSV3wrroKUN_4zhwGhCqo3Xhu1td4QjeQ5wIVR0",
            "y": "HlLtdXARY_f55A3fnzQbPcm6hgr34Mp8p-nuzQCE0Zw",
        }}})
    );
    // Older servers wrote numbers and another name.
    let CoseKey::Ecdsa { x, y, .. } = &key else {
        panic!("{key:?}");
    };
    let old =
        json!({"type_": "ECDSA_SHA256", "key": {"EC_EC2": {"curve": "SECP256R1", "x": x, "y": y}}});
    assert_eq!(CoseKey::from_json(&old).unwrap(), key);
    // Curve and algorithm must go together, and a short key is none.
    let mut mixed = es256.clone();
    mixed[6] = 2;
    assert!(CoseKey::decode(&mut Decoder::new(&mixed)).is_err());
    assert!(CoseKey::decode(&mut Decoder::new(&es256[..40])).is_err());
}

#[test]
fn authenticator_data_is_read_to_its_last_byte() {
    let mut key = Vec::new();
    Encoder::new(&mut key)
        .map(4)
        .unwrap()
        .u8(1)
        .unwrap()
        .u8(1)
        .unwrap()
        .u8(3)
        .unwrap()
        .i8(-8)
        .unwrap()
        .i8(-1)
        .unwrap()
        .u8(6)
        .unwrap()
        .i8(-2)
        .unwrap()
        .bytes(&[5; 32])
        .unwrap();
    let mut bytes = vec![1; 32];
    bytes.push(0x01 | 0x40 | 0x80 | 0x08);
    bytes.extend(77u32.to_be_bytes());
    bytes.extend([0; 16]);
    bytes.extend([0, 3, b'a', b'b', b'c']);
    bytes.extend(&key);
    // An extension.
    bytes.extend([0xa1, 0x61, b'x', 0xf5]);
    let data = AuthenticatorData::parse(&bytes).unwrap();
    assert!(data.user_present && data.backup_eligible && !data.backup_state);
    assert_eq!(data.counter, 77);
    let credential = data.credential.unwrap();
    assert_eq!(credential.id, b"abc");
    assert_eq!(credential.key, CoseKey::Ed25519 { x: [5; 32] });
    bytes.push(0);
    assert!(AuthenticatorData::parse(&bytes).is_err());
    bytes.truncate(40);
    assert!(AuthenticatorData::parse(&bytes).is_err());
    // Backed up without being able to be.
    let mut odd = vec![0; 37];
    odd[32] = 0x11;
    assert!(AuthenticatorData::parse(&odd).is_err());
}

#[test]
fn unknown_keys_and_factors_of_other_kinds_survive() {
    let stored = json!({
        "totp": [
            {"id": "1", "description": "phone", "created": 1, "entry": "otpauth://totp/a?secret=JBSWY3DP", "new": [1]},
            {"id": "2", "description": "used", "created": 2, "enable": false,
             "entry": {"totp": "otpauth://totp/a?secret=JBSWY3DP", "last-count": 5, "new": {}}},
        ],
        "u2f": [{"id": "3", "description": "old", "created": 3, "entry": {"key": {"version": "U2F_V2"}}}],
        "webauthn": [{"id": "4", "description": "key", "created": 4, "entry": {
            "cred_id": [1, 2, 3], "cred": {"type_": "ES256"}, "counter": 7, "new": 1.5}}],
        "recovery": {"secret": "00", "entries": [null, "aa"], "created": 5, "new": true},
        "yubico": [{"id": "6", "description": "y", "created": 6, "entry": "cccc"}],
        "totp-locked": true,
        "tfa-locked-until": 99,
        "new": "x",
    });
    let mut factors = UserFactors::from_json(&stored).unwrap();
    assert_eq!(factors.to_json().unwrap(), stored);
    assert_eq!(factors.webauthn[0].entry.id().unwrap(), [1, 2, 3]);
    assert_eq!(factors.recovery.as_ref().unwrap().available(), [1]);
    factors.totp[1].entry.use_up(6);
    factors.totp[0].entry.use_up(9);
    let written = factors.to_json().unwrap();
    assert_eq!(written["totp"][1]["entry"]["last-count"], 6);
    assert_eq!(written["totp"][1]["entry"]["new"], json!({}));
    assert_eq!(
        written["totp"][0]["entry"],
        json!({"totp": "otpauth://totp/a?secret=JBSWY3DP", "last-count": 9})
    );
    assert_eq!(written["totp"][0]["new"], json!([1]));
    assert_eq!(UserFactors::default().to_json().unwrap(), json!({}));
    assert!(UserFactors::from_json(&json!({"totp": [{"entry": 1}]})).is_err());
}
